"""A log in a file: what is taken for one, and how it is opened anew while lines come."""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import signal
import stat
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from fastscp.log import LogFileError, handlers, open_log_file, writer
from fastscp.log.form import TextFormatter
from fastscp.log.handlers import Queued
from fastscp.log.repeats import Repeats
from tests.kit import open_paths, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Logged:
    """A logger of one process whose lines go to a file."""

    def __init__(self, file: Path) -> None:
        self.handler = Queued(None, TextFormatter("main"), Repeats(), file=str(file))
        self.logger = logging.Logger("test", logging.INFO)
        self.logger.addHandler(self.handler)

    def say(self, text: str) -> None:
        self.logger.info("%s", text)

    def flush(self) -> None:
        assert self.handler.writer.flush(20)


def _said(file: Path) -> list[str]:
    return [line.partition("main: ")[2] for line in file.read_text().splitlines()]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "fastscp.log"


@pytest.fixture
def logged(file: Path) -> Iterator[Logged]:
    made = Logged(file)
    yield made
    made.flush()
    made.handler.close()
    made.handler.target.close()


def test_lines_are_appended_with_their_mode(logged: Logged, file: Path) -> None:
    before = os.umask(0)
    os.umask(before)
    assert stat.S_IMODE(file.stat().st_mode) == 0o640 & ~before
    logged.say("one")
    logged.flush()
    # As another process does.
    with file.open("a") as other:
        other.write("main: two\n")
    logged.say("three")
    logged.flush()
    assert _said(file) == ["one", "two", "three"]


def test_a_file_that_was_moved_is_made_anew(logged: Logged, file: Path) -> None:
    logged.say("old")
    logged.flush()
    moved = file.rename(file.with_suffix(".1"))
    logged.say("also old")
    logged.flush()
    logged.handler.go_to(str(file))
    logged.say("new")
    logged.flush()
    assert _said(moved) == ["old", "also old"]
    assert _said(file) == ["new"]


def test_it_is_made_anew_though_no_line_comes(logged: Logged, file: Path) -> None:
    """A moved file would keep its space for as long as a process has it open."""
    logged.say("old")
    logged.flush()
    file.rename(file.with_suffix(".1"))
    logged.handler.go_to(str(file))
    moved = str(file.with_suffix(".1"))
    # It is there before the other one is closed.
    wait_for(lambda: open_paths(os.getpid()) & {str(file), moved} == {str(file)}, "the new file")
    assert file.exists()


def test_a_file_that_is_cut_is_gone_on_with_at_its_beginning(logged: Logged, file: Path) -> None:
    """As copytruncate does it."""
    logged.say("old")
    logged.flush()
    os.truncate(file, 0)
    logged.say("new")
    logged.flush()
    assert _said(file) == ["new"]


def test_what_cannot_be_opened_anew_is_told_in_the_old_file(logged: Logged, file: Path) -> None:
    logged.say("one")
    logged.flush()
    logged.handler.go_to(str(file.parent / "none" / "x.log"))
    logged.say("two")
    logged.flush()
    one, *others = _said(file)
    why, two = sorted(others)
    assert (one, two) == ("one", "two")
    assert why.startswith("--log-file: cannot write ")
    assert "its folder is not there: make it" in why
    assert f"the log goes on in {file}" in why


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda path: path.mkdir(), "it is no regular file"),
        (os.mkfifo, "it is no regular file"),
        (lambda path: path.symlink_to("elsewhere"), "it is a symbolic link"),
        (lambda path: path.symlink_to("/dev/null"), "it is a symbolic link"),
    ],
)
def test_what_is_no_file_for_a_log(file: Path, make: object, why: str) -> None:
    make(file)  # type: ignore[operator]
    with pytest.raises(LogFileError, match=why):
        open_log_file(str(file))
    assert not (file.parent / "elsewhere").exists()


@pytest.mark.parametrize("what", ["file", "thread"])
def test_a_log_that_cannot_be_has_no_traceback_at_the_end(tmp_path: Path, what: str) -> None:
    """What is left of it is not flushed when the interpreter ends."""
    file = "" if what == "thread" else os.devnull
    program = f"""
import sys, threading
from fastscp.log.handlers import configure
def refuse(self): raise RuntimeError("can't start new thread")
if {what!r} == "thread":
    threading.Thread.start = refuse
try:
    configure("main", queued=True, file={file!r})
except OSError as error:
    kept = error
    print(type(error).__name__)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False,
        cwd=tmp_path,
    )  # fmt: skip
    assert done.stdout.strip().endswith("Error")
    assert (done.returncode, done.stderr) == (0, "")


def test_what_is_said_beside_a_log_in_a_file(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, logged: Logged
) -> None:
    found: list[Queued | None] = [logged.handler]
    monkeypatch.setattr(handlers, "_queued", lambda: found[0])
    handlers.beside("one")
    assert capfd.readouterr().err == "fastscp: one\n"
    # A log on stderr says it itself.
    found[0] = None
    handlers.beside("two")
    assert capfd.readouterr().err == ""


def test_a_pipe_that_is_read_and_a_device_are_none(file: Path) -> None:
    os.mkfifo(file)
    reader = os.open(file, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with pytest.raises(LogFileError, match="it is no regular file"):
            open_log_file(str(file))
    finally:
        os.close(reader)
    with pytest.raises(LogFileError, match="it is no regular file"):
        open_log_file("/dev/null")


def test_folders_on_the_way(file: Path) -> None:
    with pytest.raises(LogFileError, match="its folder is not there: make it"):
        open_log_file(str(file / "x.log"))
    file.write_text("")
    with pytest.raises(LogFileError, match="what should be its folder is none"):
        open_log_file(str(file / "x.log"))
    folder = file.parent / "folder"
    folder.mkdir()
    link = file.parent / "link"
    link.symlink_to(folder)
    os.close(open_log_file(str(link / "x.log")))
    assert (folder / "x.log").exists()


@pytest.mark.skipif(os.getuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written(file: Path) -> None:
    file.parent.chmod(0o500)
    try:
        with pytest.raises(LogFileError, match="this user may not write it"):
            open_log_file(str(file))
    finally:
        file.parent.chmod(0o700)


def test_a_file_that_takes_no_more_costs_lines_and_nothing_else(logged: Logged, file: Path) -> None:
    """The limit of a file's size stands for a disk that is full: part of a line fits, then none."""
    logged.say("first")
    logged.flush()
    with full_at(file.stat().st_size + 10):
        for number in range(20):
            logged.say(f"lost {number}")
        logged.flush()
    logged.say("last")
    logged.flush()
    lines = file.read_text().splitlines()
    assert "first" in lines[0]
    assert lines[-1].endswith("last") or lines[-2].endswith("last")
    assert any("20 lines were lost since" in line for line in lines)


@contextlib.contextmanager
def full_at(size: int) -> Iterator[None]:
    """Files take no byte beyond this size, as on a disk that is full."""
    handled = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handled)


def test_errors_that_a_full_file_does_not_take_go_to_stderr(
    logged: Logged, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They tell of the very disk that is full; and once in a while it is said why."""
    stderr, end = os.pipe()
    monkeypatch.setattr(handlers, "_STDERR", end)
    logged.say("first")
    logged.flush()
    with full_at(file.stat().st_size):
        for number in range(3):
            logged.logger.error("broken %d", number)
            logged.say("not dear")
            logged.flush()
    why, *errors = os.read(stderr, 65536).decode().splitlines()
    assert why.startswith(f"fastscp: --log-file: cannot write {file}: it is as large as a file may")
    assert why.endswith("; until that is put right errors are told here")
    assert [line.partition(" ")[2] for line in errors] == [
        f"ERROR main: broken {number}" for number in range(3)
    ]
    logged.logger.error("whole again")
    logged.flush()
    assert "whole again" in file.read_text()
    os.close(end)
    with open(stderr) as rest:
        assert rest.read() == ""
    wait_for(lambda: "6 lines were lost since" in file.read_text(), "what was lost")
    assert ", 3 of them errors," in file.read_text()


def test_what_was_lost_is_told_though_no_line_comes(
    logged: Logged, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "_RETRY_S", 0.05)
    logged.say("first")
    logged.flush()
    size = file.stat().st_size
    with full_at(size):
        logged.say("lost")
        logged.flush()
        # It tries again meanwhile, in vain.
        made = logged.handler.writer._retry_at
        wait_for(lambda: logged.handler.writer._retry_at != made, "another try")
        assert file.stat().st_size == size
    wait_for(lambda: "1 line was lost since" in file.read_text(), "the line that tells of it")
    assert len(file.read_text().splitlines()) == 2


def test_a_line_that_another_process_has_torn_gets_an_end(logged: Logged, file: Path) -> None:
    """It could write a part only, and this one knows nothing of that."""
    logged.say("first")
    logged.flush()
    with file.open("a") as other:
        other.write("main: to")
    logged.say("second")
    logged.say("third")
    logged.flush()
    assert _said(file) == ["first", "to", "second", "third"]
    file.write_text("")
    logged.say("fourth")
    logged.flush()
    assert file.read_text().count("\n") == 1


def test_a_file_that_may_only_be_written(logged: Logged, file: Path) -> None:
    """What stands in it is not known then, and lines are appended all the same."""
    logged.handler.target.close()
    logged.handler.target._fd = os.open(file, os.O_WRONLY | os.O_APPEND)
    logged.handler.target.path = str(file)
    for text in ("first", "second"):
        logged.say(text)
        logged.flush()
        assert logged.handler.target.ends_whole() is None
    assert _said(file) == ["first", "second"]


def test_a_torn_line_is_none_of_the_next_file(logged: Logged, file: Path) -> None:
    logged.say("first")
    logged.flush()
    with full_at(file.stat().st_size + 10):
        logged.say("torn")
        logged.flush()
        moved = file.rename(file.with_suffix(".1"))
        logged.handler.go_to(str(file))
    logged.say("next")
    logged.flush()
    assert not moved.read_text().endswith("\n")
    assert not file.read_text().startswith("\n")
    assert "next" in _said(file)
