"""A place for a newcomer when all are taken: one address cannot keep everybody else out.

Theory of operation: the books say which address has the most associations; only the workers know
which of these are idle, or stuck inside a message, and since when. So main asks the workers that
hold them (`SeekIdle`), waits for what they answer (`Idle`), and tells the one with the longest-idle
association to abort it (`Displace`), which it does unless something goes on by now (`Displaced`).
Where none is idle, the one that is stuck for the longest time goes. The place is free from then on:
the connection, which may take its time to close, is one without an association.

Main seeks a place for one newcomer at a time, and the next ones wait. If a place becomes free
meanwhile, the first of them gets it. Nobody waits longer than `_PLACE_S`.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from fastscp.log import printable
from fastscp.main.admission import Full
from fastscp.messages.worker import Displace, SeekIdle

if TYPE_CHECKING:
    from collections.abc import Callable

    import msgspec

    from fastscp.main.admission import Admission
    from fastscp.messages.worker import Ask, Displaced, Idle, Verdict

__all__ = ["NEWCOMERS_MOST", "Places"]

log = logging.getLogger("fastscp.main")

# Newcomers that wait for a place; beyond that they are rejected at once.
NEWCOMERS_MOST: Final = 64
# How long a newcomer waits for a place, and main for the answers of its workers.
_PLACE_S: Final = 2.0
_ANSWERS_S: Final = 0.5


@dataclass(frozen=True)
class _Newcomer:
    """Who waits for a place, in which worker."""

    worker: int
    asked: Ask
    host: str


@dataclass(eq=False)
class _Search:
    """The search for an idle association of `host`, for the newcomer `number`.

    asked: workers that have not answered yet. found: what they answered, as (whether stuck inside a
    message, since when, association, worker): those that are idle go first. told: the association,
    and its worker, that is to end.
    """

    number: int
    host: str
    asked: set[int]
    found: list[tuple[bool, float, int, int]] = field(default_factory=list)
    told: tuple[int, int] | None = None


class Places:
    """Answers what workers ask, at once or as soon as there is a place.

    tell(worker, message): sends it. listens(worker): whether the worker can be expected to answer.
    call_later: of the loop. run_id: what the ids of associations begin with.
    """

    def __init__(
        self,
        admission: Admission,
        *,
        run_id: str,
        tell: Callable[[int, msgspec.Struct], None],
        listens: Callable[[int], bool],
        call_later: Callable[..., object],
    ) -> None:
        self._admission = admission
        self._run = run_id
        self._tell = tell
        self._listens = listens
        self._call_later = call_later
        self._waiting: dict[int, _Newcomer] = {}
        self._search: _Search | None = None

    def ask(self, worker: int, asked: Ask) -> None:
        """Decide over a complete request that a worker asks about."""
        verdict = self._decide(asked)
        if not isinstance(verdict, Full):
            self._tell(worker, verdict)
        elif len(self._waiting) >= NEWCOMERS_MOST or asked.number in self._waiting:
            self._tell(worker, verdict.verdict)
        else:
            self._waiting[asked.number] = _Newcomer(worker, asked, verdict.host)
            self._call_later(_PLACE_S, self._too_late, asked.number)
            if self._search is None:
                self._go_on()

    def idle(self, worker: int, answer: Idle) -> None:
        """A worker's answer to `SeekIdle`."""
        search = self._search
        if search is None or search.number != answer.newcomer or worker not in search.asked:
            return
        search.asked.discard(worker)
        if answer.number:
            search.found.append((answer.stuck, answer.since, answer.number, worker))
        if not search.asked:
            self._choose(search)

    def displaced(self, worker: int, answer: Displaced) -> None:
        """A worker's answer to `Displace`."""
        if answer.done:
            # Whether or not its newcomer still waits.
            self._admission.over(answer.number)
        search = self._search
        if search is not None and search.told == (answer.number, worker):
            search.told = None
            if not answer.done:
                self._choose(search)
                return
        if answer.done:
            self._go_on()

    def closed(self, number: int) -> None:
        """A connection is gone: it may have waited, or may leave its place to who waits."""
        self._waiting.pop(number, None)
        self._go_on()

    def left(self, worker: int) -> None:
        """A worker is gone, and the books have forgotten its connections."""
        for number in [n for n, one in self._waiting.items() if one.worker == worker]:
            del self._waiting[number]
        search = self._search
        if search is not None:
            search.found = [one for one in search.found if one[3] != worker]
            told_it = search.told is not None and search.told[1] == worker
            if worker in search.asked or told_it:
                search.asked.discard(worker)
                search.told = None if told_it else search.told
                if not search.asked and search.told is None:
                    self._choose(search)
        self._go_on()

    # ---------------------------------------------------------------------------------------------

    def _go_on(self) -> None:
        """Answer those who wait, in order, up to one whom a place has to be sought for."""
        while self._waiting:
            number, newcomer = next(iter(self._waiting.items()))
            verdict = self._decide(newcomer.asked)
            if not isinstance(verdict, Full):
                self._answer(number, verdict)
                continue
            is_sought = self._search is not None and self._search.number == number
            if is_sought or self._seek(number, verdict):
                return
            self._answer(number, verdict.verdict)
        self._search = None

    def _seek(self, number: int, full: Full) -> bool:
        """Ask the workers for an idle association; whether there is any to ask."""
        workers = {one for one in self._admission.holders(full.crowd) if self._listens(one)}
        if not workers:
            return False
        self._search = search = _Search(number, full.crowd, workers)
        self._call_later(_ANSWERS_S, self._no_more_answers, search)
        for worker in sorted(workers):
            self._tell(worker, SeekIdle(number, full.crowd))
        return True

    def _no_more_answers(self, search: _Search) -> None:
        if self._search is search and search.asked:
            search.asked.clear()
            self._choose(search)

    def _choose(self, search: _Search) -> None:
        """Tell the worker of the longest-idle association to end it, or reject the newcomer."""
        newcomer = self._waiting.get(search.number)
        if newcomer is None or not search.found:
            # None is idle, or the newcomer is gone.
            self._too_late(search.number)
            return
        longest = min(search.found)
        search.found.remove(longest)
        _stuck, _since, number, worker = longest
        search.told = (number, worker)
        whom = f"{self._run}.{search.number} {printable(newcomer.asked.calling_ae)}@{newcomer.host}"
        self._tell(worker, Displace(number, search.number, whom))

    def _too_late(self, number: int) -> None:
        """Reject a newcomer that no place was found for, and see to the next."""
        newcomer = self._waiting.get(number)
        if newcomer is not None:
            verdict = self._decide(newcomer.asked)
            self._answer(number, verdict.verdict if isinstance(verdict, Full) else verdict)
        if self._search is None or self._search.number == number:
            self._search = None
            self._go_on()

    def _decide(self, asked: Ask) -> Verdict | Full:
        return self._admission.ask(asked)

    def _answer(self, number: int, verdict: Verdict) -> None:
        newcomer = self._waiting.pop(number)
        self._tell(newcomer.worker, verdict)
        if self._search is not None and self._search.number == number:
            self._search = None
