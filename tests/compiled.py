"""C sources of the tests, compiled when they are needed."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["compile_c"]


def compile_c(source: Path, into: Path, *flags: str) -> Path:
    """Compile one C file; skips without a compiler, but never in continuous integration."""
    cc = shutil.which("cc")
    if cc is None:
        if os.environ.get("CI"):
            pytest.fail("no C compiler: these tests must run here")
        pytest.skip("no C compiler for the interposed library")
    out = into / source.stem
    subprocess.run(
        [cc, "-O1", "-Wall", "-Wextra", "-Werror", *flags, "-o", out, source, "-ldl", "-lpthread"],
        check=True,
    )
    return out
