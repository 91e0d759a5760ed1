"""Threads for calls that may block on the disk, all of them started before there is work.

One that was started when it is needed might not be to be had then, and what had begun for its
sake would be half done: an instance counted, a path locked, a call queued that nobody waits for.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future
from queue import SimpleQueue
from typing import TYPE_CHECKING, TypeVar

from fastscp.limits import no_thread

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Helpers"]

_T = TypeVar("_T")


class Helpers:
    """A few threads that make calls in the order in which they are asked for.

    They are daemons: the end of the process waits for none that hangs. Raises OSError where one
    cannot be started.
    """

    def __init__(self, name: str, threads: int) -> None:
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        for number in range(threads):
            thread = threading.Thread(target=self._run, name=f"{name}-{number}", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:
                self.close()
                raise no_thread(f"to {name}", error) from error
            self._threads.append(thread)

    def call(self, work: Callable[..., _T], *arguments: object) -> Future[_T]:
        """Have a call made. Never fails; what it returns or raises is in the future."""
        future: Future[_T] = Future()

        def make() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                result = work(*arguments)
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(result)

        self._calls.put(make)
        return future

    def close(self) -> None:
        """End the threads, once they have made all calls. Off the loop."""
        for _ in self._threads:
            self._calls.put(None)
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            call()
            # Nothing of the last one is kept while there is no next.
            del call
