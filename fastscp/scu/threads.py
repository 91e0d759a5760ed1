"""Helper threads for calls that may never return: a disk that hangs, a resolver that is silent.

Theory of operation: threads are kept and used again, as in an executor of the standard library.
But the end of an event loop, and of the process, waits for the threads of an executor; nothing
waits for these. Who is cancelled leaves a call to its end, unheard.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["in_thread"]

_T = TypeVar("_T")

# Calls beyond these wait. An association has four instances open at a time.
_MOST: Final = 64
# How long a thread without work is kept.
_KEPT_S: Final = 10.0


class _Threads:
    """Threads that come with the work, and leave when there is none."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._work: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._threads = 0
        # Threads that wait for work, less the work that is there for them.
        self._idle = 0

    def start(self, work: Callable[[], None]) -> None:
        """Have it done. It raises nothing. Raises RuntimeError if the system has no thread left."""
        with self._lock:
            if self._idle <= 0 and self._threads < _MOST:
                threading.Thread(target=self._run, name="fastscp-scu", daemon=True).start()
                self._threads += 1
            else:
                self._idle -= 1
            self._work.put(work)

    def _run(self) -> None:
        while True:
            try:
                work = self._work.get(timeout=_KEPT_S)
            except queue.Empty:
                with self._lock:
                    if self._idle <= 0:
                        continue  # there is work by now
                    self._idle -= 1
                    self._threads -= 1
                    return
            work()
            del work  # it may hold an instance
            with self._lock:
                self._idle += 1


_THREADS: Final = _Threads()


async def in_thread(call: Callable[[], _T]) -> _T:
    """What a call returns or raises. Whoever is cancelled does not wait for it."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[_T] = loop.create_future()

    def tell(value: _T | None, error: BaseException | None) -> None:
        if answer.done():
            return  # cancelled
        if error is None:
            answer.set_result(value)  # type: ignore[arg-type]
        elif isinstance(error, StopIteration):
            answer.set_exception(RuntimeError(f"{error!r} in a thread"))  # no future takes it
        else:
            answer.set_exception(error)

    def work() -> None:
        value, failed = None, None
        try:
            value = call()
        except BaseException as error:
            failed = error
        # The loop may be closed by now: then nobody waits.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(tell, value, failed)
        del failed  # it holds this frame

    _THREADS.start(work)
    return await answer
