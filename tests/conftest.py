"""What holds for every test: no process is left behind, the shared material may be absent, and the
run says at its end what it skipped.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bench.flush.mounts import keep_to_ourselves
from tests.bytecode import share_among_programs
from tests.disks import KINDS, mounted
from tests.kit import TLS, children_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tests.certificates import Certificates

SHARED = Path(__file__).resolve().parents[1] / ".." / "shared"


def shared(name: str = "") -> Path:
    """../shared, or what is called `name` in it; skips, naming it, where it is not there."""
    path = (SHARED / name).resolve()
    if not path.exists():
        pytest.skip(f"{path} is not there: the shared vectors and data are no part of this package")
    return path


def pytest_configure(config: pytest.Config) -> None:
    """Hand out files in their own order where tests run in parallel (`--dist loadfile`).

    Else those with the fewest tests come last, and these are the ones that take the longest: one
    process would work on such a file at the end while the others have nothing to do. And keep what
    tests mount from all others: a run that is killed leaves none.
    """
    keep_to_ourselves()
    share_among_programs(config)
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False


def _children() -> set[int]:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return set()  # the quick answer for nearly all tests
    return set(children_of(os.getpid()))


@pytest.fixture(params=KINDS)
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A file system of each kind, mounted and empty; see tests/disks.py."""
    with mounted(request.param, tmp_path / "disk") as point:
        yield point


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Certificates, each made when it is first asked for."""
    # It takes a moment to import.
    from tests.certificates import Certificates

    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def secured(certificates: Certificates) -> TLS:
    """For a service that shows a certificate, and for its peers, which have none."""
    return TLS(("--tls-cert", str(certificates.server.both)), certificates.client_context())


@pytest.fixture(autouse=True)
def no_process_left() -> Iterator[None]:
    """Fail the test that leaves a child process of its own."""
    before = _children()
    yield
    left = _children() - before
    assert not left, f"processes left behind: {sorted(left)}"


@pytest.fixture(autouse=True)
def log_as_before() -> Iterator[None]:
    """Take back what a test set up for the log: its stream is closed for those that follow."""
    root = logging.getLogger()
    handlers, level, raising = list(root.handlers), root.level, sys.unraisablehook
    yield
    for handler in [one for one in root.handlers if one not in handlers]:
        root.removeHandler(handler)
    root.setLevel(level)
    sys.unraisablehook = raising


@pytest.fixture(autouse=True)
def signals_as_before() -> Iterator[None]:
    """Let the signals through that a service or a worker blocks at its end, run in this process.

    Those who run the tests could not interrupt them, and every program that a later test starts
    would begin with them blocked.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    yield
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def skip_lines(reports: Iterable[pytest.TestReport | pytest.CollectReport]) -> list[str]:
    """How many were skipped for each reason, one line each, the most frequent first."""
    reasons = Counter(_reason(report) for report in reports)
    ordered = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
    return [f"{number:>5,}  {reason}" for reason, number in ordered]


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    """What was said of it, on one line."""
    told = report.longrepr
    # Of a skip: file, line, reason.
    text = told[2] if isinstance(told, tuple) else report.longreprtext
    return " ".join(text.removeprefix("Skipped: ").split()) or "no reason was given"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = terminalreporter.stats.get("skipped", [])
    if skipped:
        terminalreporter.section(f"{len(skipped):,} skipped")
        for line in skip_lines(skipped):
            terminalreporter.write_line(line)
