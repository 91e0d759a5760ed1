"""An instance whose path is taken: is it the same, and if not, what becomes of it.

Runs off the event loop: it reads both files. Other workers may be at the same path; one of 256
store-wide locks, chosen by the path, makes them take turns until the journal line is written.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from fastscp import status
from fastscp_ext import crc32c, rename_noreplace, strip_embedded

if TYPE_CHECKING:
    from collections.abc import Callable
    from io import BufferedReader

__all__ = ["Outcome", "resolve"]

LOCKS: Final = ".fastscp/locks"
_LOCKS: Final = 256
_CHUNK: Final = 1 << 20
_LAST_VERSION: Final = 9
# Longer than any header written here; one of another writer may be longer and counts as different.
_HEADER: Final = 65536


@dataclass(frozen=True)
class Outcome:
    """What was decided.

    kind: identical, version, replaced or kept, with `path` where the instance is now; or refused,
    with `status` and `comment`. lock_fd: to be closed once the decision is journaled, -1: none.
    """

    kind: str
    path: str
    lock_fd: int = -1
    status: int = status.SUCCESS
    comment: bytes = b""
    error_no: int = 0


def resolve(
    store_fd: int,
    incoming_fd: int,
    part: str,
    path: str,
    *,
    policy: str,
    durable: bool,
    use_link: bool = False,
) -> Outcome:
    """Compare the part with what is at `path` and carry out the policy.

    The part is gone afterwards where the outcome is version or replaced. Never raises OSError: a
    failure is an outcome. Blocks on the disk and on other workers.
    """
    lock_fd = -1
    try:
        lock_fd = _lock(store_fd, path)
        give = _link if use_link else rename_noreplace
        outcome = _decide(store_fd, incoming_fd, part, path, policy, durable, give)
    except OSError as error:
        if lock_fd >= 0:
            os.close(lock_fd)
        return Outcome(
            "refused", path, -1, status.OUT_OF_RESOURCES, b"cannot store now",
            error.errno or errno.EIO,
        )  # fmt: skip
    if outcome.kind == "refused":
        os.close(lock_fd)
        return outcome
    return Outcome(outcome.kind, outcome.path, lock_fd)


def _decide(
    store_fd: int,
    incoming_fd: int,
    part: str,
    path: str,
    policy: str,
    durable: bool,
    give: Callable[..., None],
) -> Outcome:
    for version in range(1, _LAST_VERSION + 1):
        there = path if version == 1 else f"{path}~{version}"
        try:
            # Gone meanwhile, or a version not yet given: the name is free.
            give(part, there, src_dir_fd=incoming_fd, dst_dir_fd=store_fd)
            return Outcome("version" if version > 1 else "replaced", there)
        except FileExistsError:
            pass
        if _identical(store_fd, incoming_fd, part, there, durable=durable):
            return Outcome("identical", there)
        if policy == "replace":
            os.rename(part, there, src_dir_fd=incoming_fd, dst_dir_fd=store_fd)
            return Outcome("replaced", there)
        if policy == "keep":
            return Outcome("kept", there)
        if policy == "refuse":
            return Outcome(
                "refused", there, -1, status.CANNOT_UNDERSTAND, b"another instance has this UID"
            )
    return Outcome("refused", path, -1, status.CANNOT_UNDERSTAND, b"too many versions of this UID")


def _link(old: str, new: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
    """`rename_noreplace` where the file system has none."""
    os.link(old, new, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd, follow_symlinks=False)
    os.unlink(old, dir_fd=src_dir_fd)


def _lock(store_fd: int, path: str) -> int:
    """Take the lock of a path; closing the descriptor gives it back.

    Locks of the open file description: they hold between the threads of a process, too.
    """
    fd = os.open(LOCKS, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640, dir_fd=store_fd)
    place = crc32c(os.fsencode(path)) % _LOCKS
    try:
        # struct flock: type, whence, start, length, pid.
        request = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, place, 1, 0)
        fcntl.fcntl(fd, fcntl.F_OFD_SETLKW, request)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _identical(store_fd: int, incoming_fd: int, part: str, path: str, *, durable: bool) -> bool:
    """Whether both hold the same data set in the same transfer syntax; the header may differ.

    durable: an identical file that is there is flushed, for it may be another's, not yet flushed.
    """
    with _reading(part, incoming_fd) as ours, _reading(path, store_fd) as theirs:
        sizes = []
        syntaxes = []
        for file in (ours, theirs):
            header = strip_embedded(file.read(_HEADER))
            if header is None:
                return False
            sizes.append(os.fstat(file.fileno()).st_size - header[0])
            syntaxes.append(header[1])
            file.seek(header[0])
        if sizes[0] != sizes[1] or syntaxes[0] != syntaxes[1]:
            return False
        while True:
            mine, yours = ours.read(_CHUNK), theirs.read(_CHUNK)
            if mine != yours:
                return False
            if not mine:
                break
        if durable:
            os.fsync(theirs.fileno())
    return True


def _reading(name: str, dir_fd: int) -> BufferedReader:
    """A file below a directory, to be read. The opener sees to it that a directory stays shut."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
    return open(name, "rb", opener=lambda path, _flags: os.open(path, flags, dir_fd=dir_fd))
