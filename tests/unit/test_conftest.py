"""What the tests' own conftest.py says at the end of a run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TESTS = """
import pytest

@pytest.mark.parametrize("n", range(3))
def test_one(n):
    pytest.skip("there is no\\n  such thing")

@pytest.mark.skipif(True, reason="another machine")
def test_other(): ...

def test_fine(): ...
"""


def test_a_run_says_how_many_it_skipped_and_why(tmp_path: Path) -> None:
    (tmp_path / "test_these.py").write_text(TESTS)
    (tmp_path / "test_module.py").write_text(
        "import pytest\npytest.skip('another machine', allow_module_level=True)\n"
    )

    def run(*names: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-c", os.devnull, "--rootdir", tmp_path,
             "-p", "no:cacheprovider", "-p", "tests.conftest", *names],
            cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True,
            text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    said = run("test_these.py", "test_module.py")
    assert " 5 skipped =" in said
    assert "\n    3  there is no such thing\n    2  another machine\n" in said
    assert "skipped =" not in run("test_these.py::test_fine")
