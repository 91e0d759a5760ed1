"""Work for helper threads, in turns: no association waits for all that another has waiting."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Generic, TypeVar

from fastscp.log import caused
from fastscp.worker.helpers import Helpers

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Lane", "Turns"]

log = logging.getLogger("fastscp.worker")

_T = TypeVar("_T")
_R = TypeVar("_R")


class Turns(Generic[_T]):
    """A queue that goes round the associations, one item of each at a time."""

    def __init__(self) -> None:
        # In the order of their turns; none is empty.
        self._waiting: dict[int, deque[_T]] = {}

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, association: int, item: _T, *, first: bool = False) -> None:
        """Put an item behind the others of its association, or before them."""
        waiting = self._waiting.setdefault(association, deque())
        if first:
            waiting.appendleft(item)
        else:
            waiting.append(item)

    def take(self) -> _T:
        """The next item. Raises StopIteration when there is none."""
        association = next(iter(self._waiting))
        waiting = self._waiting.pop(association)
        item = waiting.popleft()
        if waiting:
            self._waiting[association] = waiting
        return item


class Lane(Generic[_T, _R]):
    """A few threads that work on items. All methods run on the loop.

    work(item): what a thread does with one. done(item, future): then, on the loop; its future has
    what `work` returned or raised. Raises OSError where the threads cannot be started.
    """

    def __init__(
        self,
        name: str,
        threads: int,
        work: Callable[[_T], _R],
        done: Callable[[_T, asyncio.Future[_R]], None],
    ) -> None:
        self._threads = Helpers(name, threads)
        self._free = threads
        self._work = work
        self._done = done
        self._turns: Turns[_T] = Turns()

    def add(self, association: int, item: _T, *, first: bool = False) -> None:
        """Have an item worked on, when it is the association's turn; first: before its others."""
        self._turns.add(association, item, first=first)
        self._begin()

    def close(self) -> None:
        """End the threads, once nothing is under way. Off the loop."""
        self._threads.close()

    def _begin(self) -> None:
        while self._free and self._turns:
            item = self._turns.take()
            self._free -= 1
            future = asyncio.wrap_future(self._threads.call(self._work, item))
            future.add_done_callback(partial(self._ended, item))

    def _ended(self, item: _T, future: asyncio.Future[_R]) -> None:
        self._free += 1
        try:
            self._done(item, future)
        except Exception:
            log.exception("an instance was lost to a bug", extra=caused("bug"))
        self._begin()
