"""What is done for an instance beside the loop: comparing duplicates and compressing parts.

Helper threads do the work, for it may block on the disk; results come back on the loop's thread.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, Literal

from fastscp.log import printable
from fastscp.store import duplicates
from fastscp.store.compress import compress_part
from fastscp_ext import status

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from fastscp.messages.worker import Setup
    from fastscp_ext import Compression, Duplicate, Rules, Shared

__all__ = ["Jobs"]

log = logging.getLogger("fastscp.worker")

# Threads that compare duplicates and compress parts; few, for the receivers need the disk and the
# processors, too.
_HELPERS: Final = 2
# The same file error again, from every instance in flight, is one line per this many seconds.
_ERROR_EVERY_S: Final = 5.0

_ADVICE: Final = {
    errno.ENOSPC: "free some space on the store's file system",
    errno.EDQUOT: "raise the quota of this user, or free some space",
    errno.EROFS: "the file system went read-only: check the disk, then remount it",
    errno.EIO: "the disk reports errors: check it and the kernel's log",
    errno.EMFILE: "raise the limit of open files, or lower --max-associations",
    errno.ENFILE: "the system is out of open files: raise fs.file-max",
    errno.EACCES: "let this user write to the store again",
    errno.EXDEV: "a folder of the store is a mount or a subvolume of its own: put it in its place",
    errno.ENOENT: "a folder of the store has vanished: is it still mounted? if so, restart",
}


class Jobs:
    """What the reception asks for, one object per worker.

    store_fd, life_fd: the store and the folder of unfinished instances, owned by the worker.
    """

    def __init__(self, setup: Setup, store_fd: int, life_fd: int, shared: Shared) -> None:
        self._setup = setup
        self._store_fd = store_fd
        self._life_fd = life_fd
        self._suspect = shared.liveness if setup.suspect else None
        self._helpers = ThreadPoolExecutor(_HELPERS, "helper")
        self._tasks: set[asyncio.Task[None]] = set()
        self._last_errors: dict[tuple[str, int], float] = {}

    @property
    def under_way(self) -> int:
        """Instances that are neither in the reception nor through the commit."""
        return len(self._tasks)

    def close(self) -> None:
        """End the threads, once nothing is under way."""
        self._helpers.shutdown()

    def compare(self, duplicate: Duplicate) -> None:
        """Settle an instance whose path is taken."""
        self._begin(self._compare(duplicate))

    def compress(self, compression: Compression) -> None:
        """Compress the part of a complete instance."""
        self._begin(self._compress(compression))

    def file_error(self, step: str, error_no: int, path: str) -> None:
        """Tell of a file call that failed and cost an instance; its sender got A700."""
        now = time.monotonic()
        if now - self._last_errors.get((step, error_no), -_ERROR_EVERY_S) < _ERROR_EVERY_S:
            return
        self._last_errors[step, error_no] = now
        log.error(
            "cannot %s (%s): %s; answered A700; %s",
            step, printable(path), os.strerror(error_no),
            _ADVICE.get(error_no, "check the store's file system"),
        )  # fmt: skip

    def _begin(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("an instance was lost to a bug", exc_info=task.exception())

    async def _compress(self, compression: Compression) -> None:
        part, level = compression.part, compression.rules.compress_level
        try:
            name, fd = await asyncio.get_running_loop().run_in_executor(
                self._helpers, compress_part, self._life_fd, part, level
            )
        except OSError as error:
            compression.failed(error.errno or errno.EIO)
        except Exception:
            # A bug must not leave a sender without an answer.
            log.exception("cannot compress %s", part)
            compression.failed(errno.EIO)
        else:
            compression.done(name, fd)

    async def _compare(self, duplicate: Duplicate) -> None:
        part, path, rules = duplicate.part, duplicate.path, duplicate.rules
        try:
            outcome = await asyncio.get_running_loop().run_in_executor(
                self._helpers, self._resolve, part, path, rules
            )
        except Exception:
            # A bug; the sender is answered all the same, and what is there already stays.
            log.exception("cannot compare %s", printable(path))
            outcome = duplicates.Outcome(
                "refused", path, status=status.OUT_OF_RESOURCES, comment=b"cannot store now"
            )
        log.debug("%s is taken: %s", printable(path), outcome.kind)
        if outcome.kind == "refused":
            duplicate.refuse(outcome.status, outcome.comment, outcome.error_no)
        else:
            kind: Literal["named", "identical", "version", "replaced", "kept"] = outcome.kind  # type: ignore[assignment]
            duplicate.accept(kind, outcome.path, outcome.lock_fd)

    def _resolve(self, part: str, path: str, rules: Rules) -> duplicates.Outcome:
        """In a helper thread."""
        return duplicates.resolve(
            self._store_fd,
            self._life_fd,
            part,
            path,
            policy=rules.on_duplicate,
            durable=rules.durable,
            use_link=self._setup.use_link,
            mixed=self._setup.mixed,
            suspect=self._suspect,
        )
