"""`fastscp password`: entries on stdout, and in a file that stays whole."""

from __future__ import annotations

import io
import os
import pty
import stat
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from fastscp.cli import app as cli
from fastscp.guarded import FILE_MOST
from fastscp.users.passwords import make_entry, parse, read_passwords, verify
from tests.kit import Service

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def piped(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Run the command with this on stdin; returns the exit code."""

    def run(stdin: bytes, *words: str) -> int:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), "utf-8"))
        return cli.main(["password", *words])

    return run


def only(text: str, passcode: bytes) -> str:
    """The name in the one entry there is, whose password is this one."""
    (entry,), mistakes = parse(text.encode())
    assert mistakes == []
    assert verify(entry, passcode)
    return entry.name


@pytest.mark.parametrize(
    ("stdin", "passcode"),
    [
        (b"sesame\n", b"sesame"),
        (b"sesame\r\nmore\n", b"sesame"),
        (b" open sesame ", b" open sesame "),
        ("Öffne\n".encode(), "Öffne".encode()),
        (b"\xff\n", b"\xff"),
    ],
)
def test_an_entry_on_stdout(
    piped: Callable[..., int], capsys: pytest.CaptureFixture[str], stdin: bytes, passcode: bytes
) -> None:
    assert piped(stdin, "jo") == 0
    said = capsys.readouterr()
    assert only(said.out, passcode) == "jo"
    assert said.err == ""
    assert "sesame" not in said.out


@pytest.mark.parametrize(
    ("stdin", "words", "why"),
    [
        (b"", ("jo",), "password: is empty; give one that is hard to guess"),
        (b"\n", ("jo",), "password: is empty"),
        (b"x" * 65536, ("jo",), "password: is longer than 65535 bytes"),
        (b"sesame\n", (), "NAME: is not given, and stdin is no terminal to ask; give it"),
        (b"sesame\n", ("",), "NAME: '' is empty"),
        (b"sesame\n", ("#jo",), "NAME: '#jo' has a name that begins with #"),
        (b"sesame\n", ("j" * 256,), "has a name of more than 255 bytes"),
        (b"sesame\n", ("jo", "--file", ""), "--file: '' is empty"),
    ],
)
def test_what_cannot_be(
    piped: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    stdin: bytes,
    words: tuple[str, ...],
    why: str,
) -> None:
    assert piped(stdin, *words) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert why in said.err
    assert "sesame" not in said.err


def test_a_file_is_made_changed_and_kept(
    tmp_path: Path, piped: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "users"
    assert piped(b"one\n", "jo", "--file", str(file)) == 0
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    file.write_text("# ours\n\n" + file.read_text().rstrip("\n"))
    file.chmod(0o644)
    assert piped(b"two\n", "mo:x", "--file", str(file)) == 0
    assert piped(b"three\n", "jo", "--file", str(file)) == 0
    said = capsys.readouterr().out.splitlines()
    assert [line.rpartition(": ")[2] for line in said] == ["jo added", "mo:x added", "jo replaced"]
    lines = file.read_text().splitlines()
    assert lines[:2] == ["# ours", ""]
    assert only(lines[2], b"three") == "jo"
    assert only(lines[3], b"two") == "mo:x"
    # Who may read it does not change, and nothing lies about.
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    assert os.listdir(tmp_path) == ["users"]
    assert [one.name for one in read_passwords(file)[0]] == ["jo", "mo:x"]


def test_a_link_stays_one(tmp_path: Path, piped: Callable[..., int]) -> None:
    (tmp_path / "there").mkdir()
    link = tmp_path / "users"
    link.symlink_to(tmp_path / "there" / "real")
    assert piped(b"one\n", "jo", "--file", str(link)) == 0
    assert link.is_symlink()
    assert only((tmp_path / "there" / "real").read_text(), b"one") == "jo"


def test_a_file_with_a_mistake_is_left_alone(
    tmp_path: Path, piped: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "users"
    for before, why in (
        (b"jo:x\n", "line 1: has no hash of scrypt"),
        (b"#" * (FILE_MOST + 1), f"is larger than {FILE_MOST} bytes"),
    ):
        file.write_bytes(before)
        assert piped(b"one\n", "jo", "--file", str(file)) == 2
        assert why in capsys.readouterr().err
        assert file.read_bytes() == before
    full = b"#" * (FILE_MOST - 1) + b"\n"
    file.write_bytes(full)
    assert piped(b"one\n", "jo", "--file", str(file)) == 2
    assert "take others out" in capsys.readouterr().err
    assert file.read_bytes() == full


@pytest.mark.parametrize("call", ["fchmod", "fsync", "rename"])
def test_a_write_that_fails_leaves_the_file(
    tmp_path: Path,
    piped: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    call: str,
) -> None:
    file = tmp_path / "users"
    before = make_entry("jo", b"one") + "\n"
    file.write_text(before)

    def fails(*_words: object, **_more: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, call, fails)
    assert piped(b"two\n", "jo", "--file", str(file)) == 1
    monkeypatch.undo()
    said = capsys.readouterr().err
    assert f"cannot write {file} (No space left on device); it is as it was" in said
    assert file.read_text() == before
    assert os.listdir(tmp_path) == ["users"]


def test_a_folder_that_is_not_there(
    tmp_path: Path, piped: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert piped(b"two\n", "jo", "--file", str(tmp_path / "none" / "users")) == 1
    assert "see that its folder is there" in capsys.readouterr().err


@pytest.mark.parametrize("again", ["sesame", "Sesame"])
def test_the_terminal_is_asked_and_shows_nothing(tmp_path: Path, again: str) -> None:
    file = tmp_path / "users"
    command = [*Service.program(), "password", "--file", str(file)]
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(command[0], command, Service.environment())
    said = b""
    for prompt, answer in ((b"User: ", "jo"), (b"Password: ", "sesame"), (b"again: ", again)):
        while prompt not in said:
            said += os.read(terminal, 4096)
        os.write(terminal, answer.encode() + b"\n")
    try:
        while more := os.read(terminal, 4096):
            said += more
    except OSError:
        # That is how the end of a terminal's other side is told.
        pass
    os.close(terminal)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert b"sesame" not in said.lower()
    if again == "sesame":
        assert code == 0
        assert only(file.read_text(), b"sesame") == "jo"
    else:
        assert code == 2
        assert b"is not the same both times" in said
        assert not file.exists()


def test_it_is_a_program(tmp_path: Path) -> None:
    done = subprocess.run(
        [*Service.program(), "password", "jo"],
        input=b"sesame\n", capture_output=True, env=Service.environment(), timeout=60, check=True,
    )  # fmt: skip
    assert only(done.stdout.decode(), b"sesame") == "jo"
