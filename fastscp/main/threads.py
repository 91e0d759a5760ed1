"""Calls that may block on the disk, each in a daemon thread: nothing waits for one that hangs.

asyncio's own executor joins its threads at the end, and a stuck mount would keep main alive.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import TYPE_CHECKING, TypeVar

from fastscp.limits import no_thread

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["in_thread"]

_T = TypeVar("_T")


def in_thread(work: Callable[..., _T], *args: object) -> asyncio.Future[_T]:
    """Call `work` in a thread of its own; the result comes back on the running loop.

    Whoever is tired of waiting cancels the future, or leaves it: the thread ends with its call, or
    with the process. Raises OSError, by way of the future, where no thread can be started.
    """
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[_T] = loop.create_future()

    def settle(result: _T | None, error: BaseException | None) -> None:
        if outcome.done():
            return
        if error is not None:
            outcome.set_exception(error)
        else:
            outcome.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        result: _T | None = None
        failure: BaseException | None = None
        try:
            result = work(*args)
        except BaseException as error:
            failure = error
        # A loop that is closed meanwhile waits for nothing.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(settle, result, failure)

    name = getattr(work, "__name__", "work")
    try:
        threading.Thread(target=run, name=name, daemon=True).start()
    except RuntimeError as error:
        outcome.set_exception(no_thread(f"for {name}", error))
    return outcome
