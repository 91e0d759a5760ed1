"""A worker's redo log: opened with its life, and checkpointed and removed with its end."""

from __future__ import annotations

import errno
import logging
import os
import threading
from typing import TYPE_CHECKING, Final

from fastscp.errors import reason_for
from fastscp.log import flush
from fastscp.messages.worker import CHECKPOINT_FAILED
from fastscp.store.journal import Segments
from fastscp.store.names import REDO, own_folder, shut
from fastscp.store.redo.logs import leave_distrust

if TYPE_CHECKING:
    from fastscp.messages.worker import Setup
    from fastscp_ext import Reception

__all__ = ["RedoLog"]

log = logging.getLogger("fastscp.worker")

# Where nothing is wrong with the disk.
_ADVICE: Final = {
    errno.EMFILE: "raise the limit of open files (ulimit -Hn, LimitNOFILE=)",
    errno.ENFILE: "the system is out of open files: raise fs.file-max",
    errno.ENOMEM: "the system is out of memory",
}
# How long the mark of a life that cannot go on may wait for the disk that refused a flush.
_MARK_S: Final = 10.0


class RedoLog:
    """Has small stable instances of a reception take a log, where the settings say so.

    writer: what the worker's segments are named by; those with the lines of such instances are its
    own. Raises OSError where the folder of the log cannot be opened.
    """

    def __init__(self, setup: Setup, store_fd: int, writer: str, reception: Reception) -> None:
        self._reception = reception
        self._life = setup.life
        self._segments = Segments(store_fd, setup.run, f"{writer}r", durable=True)
        self._folder_fd = -1
        if not setup.redo_bytes:
            return
        # Somebody may have removed it since the service began.
        with own_folder(REDO, store_fd, make=True) as folder_fd:
            self._folder_fd = os.dup(folder_fd)
        reception.open_log(
            self._folder_fd,
            most=setup.redo_bytes,
            kept=setup.redo_files,
            store=setup.store_id,
            boot=setup.boot,
            life=setup.life,
            mount=setup.mount,
            system=setup.system,
            new_journal=self._next_journal,
            on_failed=self._failed,
        )

    def checkpoint(self) -> None:
        """Have all that the log vouches for flushed, and remove it; there is none from now on.

        Blocks on the disk. What cannot be flushed stays in the log, for the next start.
        """
        if self._folder_fd < 0:
            return
        try:
            self._reception.close_log()
        except OSError as error:
            log.error(
                "cannot end the redo log in %s (%s): it stays, and the next start, or "
                "`fastscp recover`, puts in place what it has; %s",
                REDO, reason_for(error),
                _ADVICE.get(error.errno or 0, "check the disk"),
            )  # fmt: skip

    def close(self) -> None:
        """Close what is this life's. After `checkpoint`, off the loop."""
        self._segments.close()
        if self._folder_fd >= 0:
            shut(self._folder_fd)

    def _next_journal(self) -> tuple[int, int, str]:
        """On the lane's thread."""
        fd, size = self._segments.next()
        return fd, size, self._segments.path(fd)

    def _failed(self, step: str, error_no: int, what: str) -> None:
        """On a thread of the log; what: as `Reception.open_log` has it."""
        why = reason_for(error_no or errno.EIO)
        if what == "waits":
            log.error(
                "cannot %s in %s (%s): small instances are flushed one by one meanwhile, which is "
                "slower and as safe; it is tried again every 10 s; put that right, or start with "
                "--redo off",
                step, REDO, why,
            )  # fmt: skip
            return
        if what == "off":
            log.error(
                "cannot %s (%s): small instances are flushed one by one from now on, which is "
                "slower and as safe; check the disk, and that nobody removes files in %s; a new "
                "worker tries the log again",
                step, why, REDO,
            )  # fmt: skip
            return
        self._mark()
        log.error(
            "cannot %s (%s), and the system may have lost what it was to write: this worker ends, "
            "and what it has acknowledged is restored from %s; check the disk",
            step, why, REDO,
        )  # fmt: skip
        flush()
        # Nothing that a connection or a thread still does here may be trusted; the log is whole.
        os._exit(CHECKPOINT_FAILED)

    def _mark(self) -> None:
        """Have whoever recovers this life distrust it, as far as the disk lets that be noted.

        First of all: main may be killed meanwhile, or read the log before it has the exit code. The
        thread that saw the flush fail has made the mark as a rule; who cannot make it hears of it.
        """

        def leave() -> None:
            try:
                leave_distrust(self._folder_fd, self._life)
            except OSError as error:
                log.error("cannot note in %s that a flush failed (%s)", REDO, reason_for(error))

        thread = threading.Thread(target=leave, name="mark", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            leave()
        else:
            thread.join(_MARK_S)
