"""Where the lines of a log go: stderr, or a file that is opened anew when it was moved away."""

from __future__ import annotations

import errno
import os
import stat
import threading
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["LogFileError", "Target", "open_log_file"]

_STDERR: Final = 2
_MODE: Final = 0o640
# O_APPEND: each process writes behind what others wrote, also where the file was cut to nothing.
# O_NONBLOCK: a pipe without a reader holds nobody up.
_FLAGS: Final = (
    os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY
    | os.O_NONBLOCK | os.O_NOFOLLOW
)  # fmt: skip
_NO_FILE: Final = "it is no regular file: name one, or leave --log-file out for a log on stderr"
# What the system's own words do not say: what to do.
_WHY: Final = {
    errno.ENOENT: "its folder is not there: make it, so that this user may write in it",
    errno.ENOTDIR: "what should be its folder is none: name another one",
    errno.EACCES: "this user may not write it: change its owner or mode, or those of its folder",
    errno.EPERM: "this user may not write it: see its attributes (lsattr)",
    errno.ELOOP: "it is a symbolic link, and none is followed there: name what it leads to",
    errno.EROFS: "its file system is read-only: name a file elsewhere",
    errno.ENOSPC: "disk full: free some space on its file system",
    errno.EDQUOT: "quota exceeded: raise that of this user, or free some space",
    errno.EFBIG: "it is as large as a file may be for this user (ulimit -f): move it away",
    errno.EISDIR: _NO_FILE,
    errno.ENXIO: _NO_FILE,
}


class LogFileError(OSError):
    """The file of a log cannot be written; the text says why, and what to do."""


def open_log_file(path: str) -> int:
    """A descriptor at the end of a file, made if it is not there. Raises LogFileError.

    Nothing but a regular file is taken, and no symbolic link for its name. Folders on the way may
    be links: they are the operator's.
    """
    try:
        fd = _opened(path)
    except OSError as error:
        raise LogFileError(error.errno, f"cannot write {path}: {_why(error)}") from None
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise LogFileError(errno.EINVAL, f"cannot write {path}: {_NO_FILE}")
    return fd


def _opened(path: str) -> int:
    try:
        # To be read, too: see `Target.ends_whole`.
        return os.open(path, os.O_RDWR | _FLAGS, _MODE)
    except PermissionError:
        return os.open(path, os.O_WRONLY | _FLAGS, _MODE)


def _why(error: OSError) -> str:
    return _WHY.get(error.errno or 0) or error.strerror or str(error)


class Target:
    """What a writer writes to. `open`, `ask` and `close` may be called by any thread.

    told(text): called where a file cannot be opened anew, by the writer's thread.
    """

    def __init__(self, told: Callable[[str], None] = lambda text: None) -> None:  # noqa: ARG005
        # The path of what is written to; empty: stderr.
        self.path = ""
        self._told = told
        self._fd = _STDERR
        self._asked: str | None = None
        self._lock = threading.Lock()

    def open(self, path: str) -> None:
        """Write to this file from the first line on. Raises LogFileError: it is stderr still."""
        self._fd = open_log_file(path)
        self.path = path

    def ask(self, path: str) -> None:
        """Have it opened anew, by the writer's thread before its next line. path: empty: stderr."""
        with self._lock:
            self._asked = path

    def refresh(self) -> bool:
        """Open what was asked for, if anything was; whether lines go elsewhere from now on.

        Where that cannot be opened they go where they went before.
        """
        with self._lock:
            asked, self._asked = self._asked, None
        if asked is None or (not asked and not self.path):
            return False
        try:
            fd = open_log_file(asked) if asked else _STDERR
        except LogFileError as error:
            where = self.path or "stderr"
            self._told(f"--log-file: {error.strerror}; the log goes on in {where}; then reload")
            return False
        before, self._fd, self.path = self._fd, fd, asked
        if before != _STDERR:
            os.close(before)
        return True

    def write(self, view: memoryview) -> int:
        """Write some of these bytes; returns how many. Raises OSError."""
        return os.write(self._fd, view)

    def ends_whole(self) -> bool | None:
        """Whether what is written next begins a line; None: that is not known.

        Another process may have come to write a part of its line only, on a disk that is full.
        """
        if not self.path:
            return None
        try:
            size = os.fstat(self._fd).st_size
            return not size or os.pread(self._fd, 1, size - 1) in (b"\n", b"")
        except OSError:
            return None

    def why(self, error: OSError) -> str:
        """What is wrong, in words, where the file takes no lines; empty where it is stderr."""
        return f"cannot write {self.path}: {_why(error)}" if self.path else ""

    def close(self) -> None:
        """Give a file back. The writer's thread has ended, or never writes again."""
        fd, self._fd, self.path = self._fd, _STDERR, ""
        if fd != _STDERR:
            os.close(fd)
