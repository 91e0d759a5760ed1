"""The end of the service: its store is left in order, or the log says what is not."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import time
from typing import TYPE_CHECKING, Any, Final, TypeVar

from fastscp.errors import StartError, reason_for
from fastscp.main.remains import tell_failed
from fastscp.main.threads import in_thread
from fastscp.store.lives import sweep_incoming
from fastscp.store.names import INCOMING

if TYPE_CHECKING:
    from fastscp.main.control import ControlSocket
    from fastscp.main.reload import Reloads
    from fastscp.store.store import Store

__all__ = ["DRAIN_AND_S", "FLUSH_S", "LEAVE_S", "leave"]

log = logging.getLogger("fastscp.main")

_T = TypeVar("_T")

# How long the end may wait for the disk, all calls together; the second where it has to flush.
LEAVE_S: Final = 10.0
FLUSH_S: Final = 60.0
# What the end may take beside the drain time: a message in hand, workers that are killed, the disk.
DRAIN_AND_S: Final = 30.0


async def leave(
    store: Store,
    held: contextlib.ExitStack,
    reloads: Reloads,
    control_socket: ControlSocket,
    *,
    clean: bool,
    is_recovered: bool = False,
    is_handed_over: bool = False,
) -> bool:
    """Leave the store in order; returns whether it is, and says so if not.

    held: gives the store back when it is closed. All is done side by side, so that calls that hang
    do so at the same time. is_recovered: what workers that died had logged is where it belongs.
    is_handed_over: a successor has it, and sees to its marks.
    """
    began = time.monotonic()
    swept = in_thread(sweep_incoming, store.dir_fd)
    lost = in_thread(store.lost)
    calls: list[asyncio.Future[Any]] = [swept, lost, in_thread(control_socket.remove)]
    # A reload may be about to set the mark that a clean end takes away.
    is_settled = await reloads.end(LEAVE_S)
    seconds = FLUSH_S if store.buffered else LEAVE_S
    is_to_flush = clean and is_settled and not is_handed_over
    flushed = in_thread(store.stopped_cleanly) if is_to_flush else None
    if flushed is not None:
        calls.append(flushed)
    elif is_recovered and is_settled and not is_handed_over:
        calls.append(in_thread(_end_log, store))
    await asyncio.wait(calls, timeout=max(0.0, began + seconds - time.monotonic()))
    has_failed, left = not is_settled, 0
    if not is_settled:
        log.error(
            "a reload still waits for the disk after %g s, and is left to it: whether %s "
            "remembers what it asks for is not known; check the disk; the next start goes by "
            "the file as it is then, and the mark of an unclean end stays, if there is one",
            LEAVE_S, store.path,
        )  # fmt: skip
    try:
        report = _result(swept, seconds)
        tell_failed(report, store.path / INCOMING)
        left = report.failed
    except OSError as error:
        log.error(
            "cannot remove unfinished instances (%s: %s); the next start tries again; is the "
            "store's file system still there? if it is, see that %s is a folder",
            error.filename or INCOMING, reason_for(error), store.path / INCOMING,
        )  # fmt: skip
        has_failed = True
    try:
        if flushed is not None:
            _result(flushed, seconds)
    except OSError as error:
        log.error(
            "cannot flush %s (%s): instances that were acknowledged may not be on the disk; "
            "the mark of an unclean end stays; check the disk, restart the machine or mount "
            "the file system anew, then run `fastscp verify`",
            store.path, reason_for(error),
        )  # fmt: skip
        has_failed = True
    is_there = _tell_lost(lost, seconds)
    is_marked = is_settled and flushed is None and store.buffered and not is_handed_over
    if is_marked:
        log.error(
            "a worker did not end in order, so the mark of an unclean end stays in %s: run "
            "`fastscp verify`, which checks what it may have left and takes the mark away",
            store.path,
        )  # fmt: skip
    if not has_failed:
        await asyncio.wait([in_thread(held.close)], timeout=seconds)
    else:
        # A thread may still be at it; the end of the process gives the store back.
        held.pop_all()
    return is_there and not (has_failed or left or is_marked)


def _end_log(store: Store) -> None:
    # It may stay as well: the next start, and `fastscp recover`, do the same.
    with contextlib.suppress(OSError, StartError):
        store.end_log()


def _tell_lost(lost: asyncio.Future[str | None], seconds: float) -> bool:
    """Say that the store is gone at the end; returns whether it is there."""
    try:
        why = _result(lost, seconds)
    except OSError as error:
        why = f"it cannot be looked at ({reason_for(error)}): see that it is where it belongs"
    if why is not None:
        log.error(
            "the store is gone at the end: %s; then run `fastscp verify`",
            why,
        )  # fmt: skip
    return why is None


def _result(call: asyncio.Future[_T], seconds: float) -> _T:
    """What the call returned, or raised. Raises TimeoutError, an OSError, if it has not ended."""
    if not call.done():
        call.cancel()
        raise TimeoutError(errno.ETIMEDOUT, f"given up after {seconds:g} s")
    return call.result()
