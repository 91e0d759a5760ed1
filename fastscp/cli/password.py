"""`fastscp password`: entries for the file of `--user-identity`."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from fastscp.cli.options import FileName, as_written
from fastscp.config.settings import read_value
from fastscp.config.values import Parsed, read_path, read_text
from fastscp.errors import ConfigError, FastscpError
from fastscp.log import escape

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["password"]

_NAME = Parsed(read_text, "NAME", "the name of a user")
_FILE = Parsed(read_path, "FILE", "a file of user names and hashes")
_MODE = 0o600


def password(
    name: Annotated[
        str | None,
        Parameter(name="NAME", show_default=False, help="The user; else the terminal is asked."),
    ] = None,
    /,
    *,
    file: Annotated[
        FileName | None,
        Parameter(
            name="--file",
            metavar="FILE",
            converter=as_written,
            show_default=False,
            help="Put the entry into this file, in the place of one that the user has there; a new "
            "file is only for its owner to read.",
        ),
    ] = None,
) -> int:
    """Make an entry for the file of --user-identity, which holds a hash in the password's place.

    It reads the password twice from the terminal, which does not show it; where stdin is no
    terminal, it reads one line from there. A service that runs takes a changed file at its next
    reload.
    """
    from fastscp.users.passwords import check_name, make_entry

    path: Path | None = None if file is None else read_value("--file", file, _FILE)
    if name is None:
        if not sys.stdin.isatty():
            raise ConfigError("NAME", "is not given, and stdin is no terminal to ask; give it")
        print("User: ", end="", file=sys.stderr, flush=True)
        name = sys.stdin.readline().rstrip("\n")
    user: str = read_value("NAME", name, _NAME)
    try:
        check_name(user)
    except ValueError as error:
        raise ConfigError("NAME", f"{user!r} {error}; give another one") from None
    line = make_entry(user, _passcode())
    if path is None:
        print(line)
    else:
        done = _put(path, user, line)
        print(f"{escape(str(path))}: {escape(user)} {done}")
    return 0


# The password ------------------------------------------------------------------------------------


def _passcode() -> bytes:
    from fastscp.users.passwords import PASSCODE_MOST

    passcode = _asked() if sys.stdin.isatty() else _piped()
    if not passcode:
        raise ConfigError("password", "is empty; give one that is hard to guess")
    if len(passcode) > PASSCODE_MOST:
        raise ConfigError("password", f"is longer than {PASSCODE_MOST} bytes; give a shorter one")
    return passcode


def _asked() -> bytes:
    from getpass import getpass

    first = getpass("Password: ")
    if first != getpass("The same again: "):
        raise ConfigError("password", "is not the same both times; try again")
    return first.encode("utf-8", "surrogateescape")


def _piped() -> bytes:
    from fastscp.users.passwords import PASSCODE_MOST

    # Bytes, as they are sent; with the end of the line, which may be two.
    return sys.stdin.buffer.readline(PASSCODE_MOST + 3).rstrip(b"\r\n")


# The file ----------------------------------------------------------------------------------------


def _put(path: Path, user: str, line: str) -> str:
    """Add an entry to a file, or replace the user's; which of both, as a word.

    The file is whole at any time, and readers find the old or the new one.
    """
    # Behind a symbolic link the file itself is replaced.
    target = Path(os.path.realpath(path))
    try:
        with _locked(target.parent) as folder_fd:
            before, about = _read(target)
            text, done = _changed(path, before, user, line)
            _replace(folder_fd, target, text, about)
    except OSError as error:
        raise FastscpError(
            f"cannot write {path} ({error.strerror or error}); it is as it was: see that its "
            f"folder is there and may be written to"
        ) from None
    return done


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[int]:
    """The descriptor of a folder, locked: of two that change a file one waits for the other."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield fd
    finally:
        os.close(fd)


def _read(target: Path) -> tuple[bytes, os.stat_result | None]:
    from fastscp.guarded import read_plain

    try:
        about = target.stat()
        return read_plain(target)[0], about
    except FileNotFoundError:
        return b"", None


def _changed(path: Path, before: bytes, user: str, line: str) -> tuple[bytes, str]:
    """The new contents of a file. Raises ConfigError: nobody's entry may be lost with a mistake."""
    from fastscp.users.passwords import name_of, parse

    _entries, mistakes = parse(before)
    if mistakes:
        raise ConfigError("--file", f"{path}: {mistakes[0]}; put that right first")
    new = line.encode("utf-8")
    lines = before.split(b"\n")
    if lines[-1] == b"":
        lines.pop()
    done = "added"
    for number, one in enumerate(lines):
        if name_of(one) == user:
            lines[number], done = new, "replaced"
            break
    else:
        lines.append(new)
    text = b"\n".join(lines) + b"\n"
    _entries, mistakes = parse(text)
    if mistakes:
        raise ConfigError("--file", f"{path}: with this entry it {mistakes[0]}; take others out")
    return text, done


def _replace(folder_fd: int, target: Path, text: bytes, about: os.stat_result | None) -> None:
    """Write a file anew under its name. An older one leaves owner, group and who may read it."""
    beside = f".{target.name}.{os.getpid()}"
    mode = _MODE if about is None else stat.S_IMODE(about.st_mode) & ~0o133
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(beside, flags, _MODE, dir_fd=folder_fd)
    try:
        with os.fdopen(fd, "wb") as file:
            if about is not None and (about.st_uid, about.st_gid) != (os.geteuid(), os.getegid()):
                os.fchown(fd, about.st_uid, about.st_gid)
            os.fchmod(fd, mode)
            file.write(text)
            file.flush()
            os.fsync(fd)
        os.rename(beside, target.name, src_dir_fd=folder_fd, dst_dir_fd=folder_fd)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(beside, dir_fd=folder_fd)
        raise
    os.fsync(folder_fd)
