"""What Python says of a source folder in which the codec was not built."""

from __future__ import annotations

import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import fastscp_ext

if TYPE_CHECKING:
    from pathlib import Path


def test_it_says_what_to_do(tmp_path: Path) -> None:
    folder = tmp_path / "fastscp_ext"
    folder.mkdir()
    shutil.copy(fastscp_ext.__file__, folder)
    done = subprocess.run(
        # Without the site's folders, where an installed one may be found behind this one.
        [sys.executable, "-S", "-c", "from fastscp_ext import Sender"],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"ImportError: fastscp is not built in {folder}")
    assert "`pip install -e .`" in last
    assert "circular" not in done.stderr
