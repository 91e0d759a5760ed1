"""The instances of a run: found, looked at ahead of the sending, and dealt to groups.

Theory of operation: the files' heads tell which presentation contexts are needed. At most 128 fit
an association, so they are dealt into groups, and each group has a queue. The rest of a large
collection is looked at while its beginning is sent, a bounded number of files ahead. Nobody waits
for the disk that files are looked for on.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import TYPE_CHECKING, Final

from fastscp.scu.contexts import MAX_CONTEXTS
from fastscp.scu.errors import PeerError, UnusableInstance
from fastscp.scu.send.files import File, Found
from fastscp.scu.send.group import FileParcel, Group
from fastscp.scu.send.parcels import ParcelMaker

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastscp.scu.heads import Head
    from fastscp.scu.send.files import Finder
    from fastscp.scu.send.news import News
    from fastscp.scu.send.options import Options
    from fastscp.scu.send.outcomes import Outcomes

__all__ = ["Source"]

# Files looked at with one hop between thread and loop, and how many may wait to be sent: enough to
# know contexts early, for some 20 MB.
_LOOK_FILES: Final = 1024
_LOOK_S: Final = 0.1
_LOOK_AHEAD: Final = 50_000


class Source:
    """What is to be sent, in groups that share their presentation contexts.

    found: what `finder` has found so far; `look_ahead` finds the rest. instances: to be sent, as
    far as they are known; `complete` says whether all are.
    """

    def __init__(
        self, options: Options, finder: Finder, found: Found, outcomes: Outcomes, news: News
    ) -> None:
        self._repeat = options.repeat
        self._finder = finder
        self._outcomes = outcomes
        self._news = news
        self._maker = ParcelMaker(options)
        self._groups: list[Group] = []
        self._contexts: dict[tuple[str, str], tuple[Group, int]] = {}
        self._hopeless: PeerError | None = None
        self.instances = 0
        self.complete = finder.complete
        self._take_in(found)

    # Finding -------------------------------------------------------------------------------------

    async def look_ahead(self) -> None:
        """Take in what is found, so far ahead as is good, until there is no more."""
        loop = asyncio.get_running_loop()
        while not self.complete:
            await self._news.until(lambda: sum(group.fresh for group in self._groups) < _LOOK_AHEAD)
            if self._news.interrupts:
                return
            found = loop.create_future()
            # No thread of a pool: a disk may hang, and nobody waits for the end of this one.
            threading.Thread(target=self._look, args=(found,), daemon=True).start()
            await self._news.until(found.done)
            if not found.done():
                return
            self._take_in(found.result())
            self.complete = self._finder.complete
            self._news.tell()

    def _look(self, looked: asyncio.Future[Found]) -> None:
        """Look for more files, in a thread of its own."""
        found = Found()
        problem: Exception | None = None
        try:
            self._finder.look(found, _LOOK_FILES, _LOOK_S)
        except Exception as error:
            problem = error

        def deliver() -> None:
            if problem is None:
                looked.set_result(found)
            else:
                looked.set_exception(problem)
            self._news.tell()

        # After an interruption there is no loop any more.
        with contextlib.suppress(RuntimeError):
            looked.get_loop().call_soon_threadsafe(deliver)

    def _take_in(self, found: Found) -> None:
        """Count the files that are none, and deal the others to their groups."""
        self._outcomes.skipped(found.skipped)
        for path, why in found.failed:
            self._outcomes.unreadable(path, why)
        for file in found.files:
            head = file[1]
            place = self._contexts.get((head.sop_class, head.transfer_syntax))
            group = self._new_context(head) if place is None else place[0]
            if group.abandoned is None:
                group.add(file)
            else:
                self._outcomes.lose(file, None, group.abandoned)
        self.instances += len(found.failed) + len(found.files) * self._repeat
        # Whoever still holds it shall not keep them in memory.
        found.files.clear()
        found.failed.clear()
        found.skipped.clear()

    def _new_context(self, head: Head) -> Group:
        """Give a context to its group: the last one, if there is room, or a new one."""
        if not self._groups or len(self._groups[-1].contexts) == MAX_CONTEXTS:
            self._groups.append(Group(self._repeat, self._parcel))
            self._groups[-1].abandoned = self._hopeless
        group = self._groups[-1]
        context_id = 2 * len(group.contexts) + 1
        self._contexts[head.sop_class, head.transfer_syntax] = (group, context_id)
        group.contexts.append((head.sop_class, (head.transfer_syntax,)))
        return group

    def _parcel(self, file: File, round_number: int) -> FileParcel | None:
        """The parcel of a file for a round; None if there is none, which is counted."""
        head = file[1]
        context_id = self._contexts[head.sop_class, head.transfer_syntax][1]
        try:
            return self._maker.make(file, context_id, round_number)
        except (UnusableInstance, OSError) as error:
            why = str(error) if isinstance(error, UnusableInstance) else error.strerror
            self._outcomes.count(file, error=why or "")
            return None

    # Dealing -------------------------------------------------------------------------------------

    async def choose(self) -> Group | None:
        """The group with the fewest workers that has something to send; waits for one.

        None once all is over: as long as others are at work, something may come back.
        """
        while not self._news.interrupts:
            if ready := self._ready():
                return min(ready, key=lambda group: group.workers)
            if self.over():
                return None
            waits = (group.wait_s() for group in self._groups)
            soonest = min((wait for wait in waits if wait is not None), default=None)
            await self._news.until(lambda: self.anything_ready() or self.over(), soonest)
        return None

    def _ready(self) -> list[Group]:
        return [group for group in self._groups if group.wait_s() == 0]

    def anything_ready(self) -> bool:
        """Whether some group has something to send now."""
        return bool(self._ready())

    def over(self) -> bool:
        """Whether nothing is left to be sent and nobody is at work."""
        return self.complete and all(group.finished and not group.workers for group in self._groups)

    def abandon(self, group: Group, why: PeerError) -> None:
        """Fail whatever is left of a group."""
        group.abandoned = why
        for parcel in group.clear():
            self._outcomes.lose(parcel.item, parcel, why)
        self._news.tell()

    def abandon_all(self, why: PeerError) -> None:
        """Fail whatever is left, and whatever is found from now on."""
        self._hopeless = why
        for group in self._groups:
            self.abandon(group, why)

    def tried(self) -> Iterator[FileParcel]:
        """Those that were sent before and wait for another time."""
        for group in self._groups:
            yield from group.tried()
