"""An instance whose path is taken: is it the same, and if not, what becomes of it.

Runs off the event loop: it reads both files. Other workers may be at the same path; one of 256
store-wide locks, chosen by the path, makes them take turns until the journal line is written.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

import zstandard

from fastscp.store.compress import twin
from fastscp.store.journal import find_path
from fastscp.store.names import FILE_MODE, PATH_LOCKS
from fastscp.store.reading import difference, open_data_set
from fastscp_ext import crc32c, rename_noreplace, status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = ["Batches", "Outcome", "resolve", "vouched"]

_LOCKS: Final = 256
_LAST_VERSION: Final = 9
# How long a line that is on its way is waited for, and how often somebody looks. A batch lasts as
# long as its flushes; one that takes longer than this is stuck with its disk.
_LINE_S: Final = 10.0
_LOOK_AGAIN_S: Final = 0.002


class Batches(Protocol):
    """The batches of all workers that may still write journal lines; `fastscp_ext.Liveness`."""

    def batches(self) -> Sequence[tuple[int, int]]: ...

    def under_way(self, batch: tuple[int, int], /) -> bool: ...


@dataclass(frozen=True)
class Outcome:
    """What was decided.

    kind: named (it was free after all), identical, version, replaced or kept, with `path` where the
    instance is now; or refused, with `status` and `comment`. lock_fd: to be closed once the
    decision is journaled, -1: none.
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
    mixed: bool = False,
    suspect: Batches | None = None,
) -> Outcome:
    """Compare the part with what is at `path` and carry out the policy.

    mixed: the store has compressed and uncompressed files; either form of a name takes it.
    suspect: where a file may have lost what was never flushed, the batches under way; a file that
    no journal line vouches for is replaced, whatever the policy, once none of those is left that
    may have named it. None: files are what they seem.
    The part is gone afterwards where the outcome is version or replaced. Never raises OSError: a
    failure is an outcome. Blocks on the disk and on other workers.
    """
    lock_fd = -1
    try:
        lock_fd = _lock(store_fd, path)
        give = _link if use_link else rename_noreplace
        outcome = _decide(store_fd, incoming_fd, part, path, policy, durable, give, mixed, suspect)
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
    mixed: bool,
    suspect: Batches | None,
) -> Outcome:
    for version in range(1, _LAST_VERSION + 1):
        name = path if version == 1 else f"{path}~{version}"
        there = twin(name) if mixed and _exists(store_fd, twin(name)) else name
        if there == name:
            try:
                # Gone meanwhile, or a version not yet given: the name is free.
                give(part, name, src_dir_fd=incoming_fd, dst_dir_fd=store_fd)
                return Outcome("version" if version > 1 else "named", name)
            except FileExistsError:
                pass
        if _identical(store_fd, incoming_fd, part, there, durable=durable):
            return Outcome("identical", there)
        if policy == "replace" or (suspect is not None and not _trusted(store_fd, there, suspect)):
            # A file in the other form stays beside it: it was acknowledged, and the new name is
            # not durable yet. The journal's higher sequence number says which one counts.
            os.rename(part, name, src_dir_fd=incoming_fd, dst_dir_fd=store_fd)
            return Outcome("replaced", name)
        if policy == "keep":
            return Outcome("kept", there)
        if policy == "refuse":
            return Outcome(
                "refused", there, -1, status.CANNOT_UNDERSTAND, b"another instance has this UID"
            )
    return Outcome("refused", path, -1, status.CANNOT_UNDERSTAND, b"too many versions of this UID")


def _exists(store_fd: int, path: str) -> bool:
    try:
        os.stat(path, dir_fd=store_fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _link(old: str, new: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
    """`rename_noreplace` where the file system has none."""
    os.link(old, new, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd, follow_symlinks=False)
    os.unlink(old, dir_fd=src_dir_fd)


def _lock(store_fd: int, path: str) -> int:
    """Take the lock of a path; closing the descriptor gives it back.

    Locks of the open file description: they hold between the threads of a process, too.
    """
    fd = os.open(PATH_LOCKS, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE, dir_fd=store_fd)
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
    """Whether both hold the same data set in the same transfer syntax.

    The header may differ, and so may the compression. durable: an identical file that is there is
    flushed, for it may be another worker's, named but not flushed into its directory yet.
    """
    try:
        with open_data_set(part, incoming_fd) as ours, open_data_set(path, store_fd) as theirs:
            if (
                ours is None
                or theirs is None
                or ours.transfer_syntax != theirs.transfer_syntax
                or not _same_bytes(ours.chunks, theirs.chunks)
            ):
                return False
    except zstandard.ZstdError:
        # What was stored is damaged: it must not keep its resend away for ever.
        return False
    if durable:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=store_fd)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
    return True


def _same_bytes(ours: Iterator[bytes], theirs: Iterator[bytes]) -> bool:
    """Whether both give the same bytes, however they are cut."""
    mine = yours = b""
    while True:
        mine = mine or next(ours, b"")
        yours = yours or next(theirs, b"")
        size = min(len(mine), len(yours))
        if not size:
            return len(mine) == len(yours)
        if mine[:size] != yours[:size]:
            return False
        mine, yours = mine[size:], yours[size:]


def _trusted(store_fd: int, path: str, batches: Batches) -> bool:
    """Whether a journal line vouches for the file, or one that was on its way does.

    The path's lock is held. It does not keep a commit from giving the free name, whose line comes
    some flushes later: a file without a line is judged only when every batch that may have named it
    has ended. A later batch cannot have: the name was taken.
    Raises OSError: such a batch takes too long.
    """
    if vouched(store_fd, path):
        return True
    waiting = batches.batches()
    deadline = time.monotonic() + _LINE_S
    while waiting := [batch for batch in waiting if batches.under_way(batch)]:
        if time.monotonic() > deadline:
            raise OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT), path)
        time.sleep(_LOOK_AGAIN_S)
    return vouched(store_fd, path)


def vouched(store_fd: int, path: str) -> bool:
    """Whether the journal has a line for the file and the file is what the line says."""
    fact = find_path(store_fd, path)
    return fact is not None and not difference(
        store_fd, path, fact["bytes"], fact.get("digest", "")
    )
