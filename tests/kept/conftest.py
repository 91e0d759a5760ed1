"""What is compiled once for these tests, and the figures of what they tried."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import pytest

from tests.compiled import compile_c
from tests.kept.kit_kept import INJECTED
from tests.kept.model import Tally

HERE = Path(__file__).resolve().parent


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """disk.c as a library to be preloaded."""
    return compile_c(HERE / "disk.c", tmp_path_factory.mktemp("disk"), "-shared", "-fPIC")


@pytest.fixture(scope="session")
def slow_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The slow disk of bench/flush as a library to be preloaded."""
    source = HERE.parents[1] / "bench/flush/slow.c"
    return compile_c(source, tmp_path_factory.mktemp("slow"), "-shared", "-fPIC")


class Figures:
    """What the tests tried, looked at and lost, added up; shown when all tests are done."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str], Tally] = {}

    def add(self, what: str, where: str, tally: Tally) -> None:
        """what: the kind of trial. where: the file system, or ""."""
        row = self._rows.setdefault((what, where), Tally())
        for name, number in asdict(tally).items():
            setattr(row, name, getattr(row, name) + number)

    def told(self) -> list[list[Any]]:
        """What another process adds up with its own."""
        return [[what, where, asdict(tally)] for (what, where), tally in self._rows.items()]

    def lines(self) -> list[str]:
        """A table, where there is something to show."""
        if not self._rows:
            return []
        names = list(asdict(Tally()))
        rows = [["trial", "file system", *names]]
        for (what, where), tally in sorted(self._rows.items()):
            rows.append([what, where, *(f"{number:,}" for number in asdict(tally).values())])
        rules = ["---", "---", *["---:"] * len(names)]
        return [f"| {' | '.join(row)} |" for row in (rows[0], rules, *rows[1:])]


_FIGURES: Final = Figures()
_OUTPUT: Final = "kept"


@pytest.fixture
def figures() -> Figures:
    return _FIGURES


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Tests that run in parallel do so in processes; each tells the one that prints."""
    output: dict[str, Any] | None = getattr(session.config, "workeroutput", None)
    if output is not None:
        output[_OUTPUT] = [_FIGURES.told(), dict(INJECTED)]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    rows, injected = getattr(node, "workeroutput", {}).get(_OUTPUT, ([], {}))
    for what, where, tally in rows:
        _FIGURES.add(what, where, Tally(**tally))
    INJECTED.update(injected)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    lines = _FIGURES.lines()
    if lines or INJECTED:
        terminalreporter.section("kept")
        for line in lines:
            terminalreporter.write_line(line)
        for what, number in sorted(INJECTED.items()):
            terminalreporter.write_line(f"{what}: {number:,}")


@pytest.fixture(scope="session")
def recorder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program of the recorded disk."""
    return compile_c(HERE / "device/recorder.c", tmp_path_factory.mktemp("recorder"))


@pytest.fixture
def privileged() -> None:
    """Skip where no file system can be mounted."""
    probe = (
        subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False)
        if shutil.which("unshare")
        else None
    )
    if os.geteuid() != 0 or probe is None or probe.returncode != 0:
        pytest.skip("mounting a file system takes root")
