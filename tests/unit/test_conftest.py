"""What the tests' own conftest.py says at the end of a run, and what kit.py takes for an error."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.kit import errors_in, send_signal

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


SEEN = """
import os, subprocess, sys
from pathlib import Path

def test_a_program(tmp_path):
    (tmp_path / "whole.py").write_text("")
    subprocess.run([sys.executable, "-c", "import whole"], cwd=tmp_path, check=True)
    assert sorted(os.listdir(tmp_path)) == ["whole.py"]
    folder = Path(os.environ["PYTHONPYCACHEPREFIX"])
    assert [one.suffix for one in folder.rglob("whole.*")] == [".pyc"]
    print("in", folder)
"""


def test_programs_share_what_is_compiled_where_none_may_be_written(tmp_path: Path) -> None:
    (tmp_path / "test_seen.py").write_text(SEEN)
    more = {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", "TMPDIR": str(tmp_path)}
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPYCACHEPREFIX"} | more
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-s", "-c", os.devnull, "--rootdir", tmp_path,
         "-p", "no:cacheprovider", "-p", "tests.conftest", "test_seen.py"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"in {tmp_path}/fastscp-bytecode-" in done.stdout
    # Nothing of it stays.
    assert [one for one in os.listdir(tmp_path) if "bytecode" in one] == []


def test_a_slow_machine_is_no_error_of_a_service_and_a_worker_that_hangs_is_one() -> None:
    """The words are those of main/workers.py."""
    slow = (
        "2026-11-26T17:06:16.161Z ERROR main: worker 3 (process 130) does not answer for 30 s, and",
        "2026-11-26T17:06:17.165Z ERROR main: worker 3 goes on after 30 s",
        "2026-11-26T17:06:17.165Z INFO main: stopped",
    )
    wrong = (
        "2026-11-26T17:06:16.161Z ERROR main: worker 3 (process 13022) hangs for 180 s: killed",
        "2026-11-26T17:06:16.161Z ERROR worker-3: worker 3 goes on after 30 s",
    )
    assert errors_in("\n".join((*slow, *wrong))) == list(wrong)


def test_a_signal_to_a_process_that_is_gone_is_in_order_and_another_arrives() -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        send_signal(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    send_signal(process.pid, signal.SIGCONT)
