"""The threads of the commit, in C alone: nothing is lost, done twice, or touched behind its end."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.compiled import compile_c

HERE = Path(__file__).parent
HEADERS = HERE.parents[1] / "fastscp_ext/commit"


@pytest.mark.parametrize("sanitizer", ["", "thread", "address,undefined"])
def test_under_stress(tmp_path: Path, sanitizer: str) -> None:
    flags = [f"-fsanitize={sanitizer}", "-g"] if sanitizer else []
    try:
        program = compile_c(HERE / "threads.c", tmp_path, "-I", str(HEADERS), *flags)
    except subprocess.CalledProcessError:
        if not sanitizer or os.environ.get("CI"):
            raise
        pytest.skip(f"the compiler has no sanitizer: {sanitizer}")
    done = subprocess.run([program], capture_output=True, text=True, timeout=120, check=False)
    if "unexpected memory mapping" in done.stderr and not os.environ.get("CI"):
        pytest.skip("the sanitizer does not know how this kernel lays out memory")
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
