"""Paths below a descriptor: no link on the way, with the system's call for it and without."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Final

import pytest

from fastscp.store.names import open_file, open_folder, status_at
from fastscp_ext import open_beneath
from tests.kit import Service

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("no_descriptor_left")

# Path, flags, and what comes of it: a file's bytes, "folder", or the error.
CASES: Final = {
    ("file", os.O_RDONLY): "outer",
    ("a/b/file", os.O_RDONLY): "inner",
    ("a/./b/file", os.O_RDONLY): "inner",
    ("a/b", os.O_RDONLY | os.O_DIRECTORY): "folder",
    (".", os.O_RDONLY | os.O_DIRECTORY): "folder",
    ("a/nothing", os.O_RDONLY): "ENOENT",
    ("nothing/file", os.O_RDONLY): "ENOENT",
    ("a/file", os.O_RDONLY | os.O_DIRECTORY): "ENOTDIR",
    ("file/b", os.O_RDONLY): "ENOTDIR",
    ("a/link", os.O_RDONLY): "ELOOP",
    ("a/link", os.O_RDONLY | os.O_DIRECTORY): "ELOOP",
    ("a/dangling", os.O_WRONLY | os.O_CREAT): "ELOOP",
    ("a/folder/file", os.O_RDONLY): "ELOOP",
    ("a/folder", os.O_RDONLY | os.O_DIRECTORY): "ELOOP",
    ("a/out/x", os.O_RDONLY): "ELOOP",
    ("../file", os.O_RDONLY): "EXDEV",
    ("/etc/passwd", os.O_RDONLY): "EXDEV",
    ("a/" + 256 * "n", os.O_RDONLY): "ENAMETOOLONG",
}


@pytest.fixture
def store_fd(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "file").write_text("outer")
    (tmp_path / "a/file").write_text("middle")
    (tmp_path / "a/b/file").write_text("inner")
    (tmp_path / "a/link").symlink_to("file")
    (tmp_path / "a/dangling").symlink_to("nothing")
    (tmp_path / "a/folder").symlink_to("b")
    (tmp_path / "a/out").symlink_to(tmp_path.parent)
    fd = os.open(tmp_path, os.O_RDONLY)
    yield fd
    os.close(fd)


def outcome(store_fd: int, path: str, flags: int) -> str:
    try:
        fd = open_beneath(path, flags, 0o600, dir_fd=store_fd)
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    try:
        assert not os.get_inheritable(fd)
        return "folder" if flags & os.O_DIRECTORY else os.read(fd, 99).decode()
    finally:
        os.close(fd)


@pytest.mark.parametrize(("path", "flags"), CASES)
def test_what_is_reached(store_fd: int, path: str, flags: int) -> None:
    assert outcome(store_fd, path, flags) == CASES[path, flags]


# Refuses openat2 (437 everywhere) as an older system or a filter of a container does.
_FILTER: Final = """
import ctypes, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
program = b"".join(struct.pack("HBBI", *line) for line in (
    (0x20, 0, 0, 0), (0x15, 0, 1, 437), (0x06, 0, 0, 0x50000 | {error}), (0x06, 0, 0, 0x7FFF0000)))
text = ctypes.create_string_buffer(program)
whole = ctypes.create_string_buffer(struct.pack("HxxxxxxP", 4, ctypes.addressof(text)))
if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, whole, 0, 0):
    sys.exit(77)
if libc.syscall(437, -1, None, None, 0) != -1 or ctypes.get_errno() != {error}:
    sys.exit(78)
"""


@pytest.mark.parametrize("error", [errno.ENOSYS, errno.EPERM])
def test_without_openat2(store_fd: int, tmp_path: Path, error: int) -> None:
    """The same outcomes, in a process that is refused the call."""
    code = (
        _FILTER.format(error=error)
        + "import os; from tests.unit.test_beneath import CASES, outcome\n"
        + f"fd = os.open({str(tmp_path)!r}, os.O_RDONLY)\n"
        + "wrong = [(case, outcome(fd, *case)) for case, right in CASES.items()"
        + " if outcome(fd, *case) != right]\n"
        + "sys.exit(str(wrong) if wrong else 0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=Service.environment(), capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    if done.returncode == 77:
        pytest.skip("this machine filters no system calls")
    assert (done.returncode, done.stderr) == (0, "")


def test_the_last_name_is_looked_at_itself(store_fd: int) -> None:
    assert status_at("a/dangling", store_fd).st_size == len("nothing")
    with pytest.raises(OSError, match="a symbolic link is on the way"):
        status_at("a/folder/file", store_fd)
    with pytest.raises(OSError, match="a symbolic link is on the way"):
        open_folder("a/folder", store_fd)


def test_only_regular_files_are_opened(store_fd: int, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a/fifo")
    for name, number, why in (
        ("a/fifo", errno.ENXIO, "is no regular file"),
        ("a/b", errno.EISDIR, "is a directory"),
        ("a/link", errno.ELOOP, "is a symbolic link"),
        ("a/folder/file", errno.ELOOP, "a symbolic link is on the way"),
    ):
        for flags in (os.O_RDONLY, os.O_RDWR):
            with pytest.raises(OSError, match=why) as caught:
                open_file(name, store_fd, flags)
            assert caught.value.errno == number
    fd = open_file("a/b/file", store_fd)
    assert os.read(fd, 9) == b"inner"
    os.close(fd)


def test_what_becomes_a_fifo_between_look_and_open(
    store_fd: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not waited for."""
    os.mkfifo(tmp_path / "a/fifo")
    regular = os.stat(tmp_path / "file")
    monkeypatch.setattr(os, "stat", lambda *_, **__: regular)
    with pytest.raises(OSError, match="is no regular file"):
        open_file("a/fifo", store_fd)
