"""How many may associate: the exact counts behind every limit. No I/O.

Who may at all, the workers know by the rules.
"""

from __future__ import annotations

import time
from collections import Counter, OrderedDict, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from fastscp.association.account import Terms
from fastscp.log import printable
from fastscp.main.endings import Endings
from fastscp.main.rate import Rates
from fastscp.messages.worker import Verdict
from fastscp.rules.rule import TOP_LEVEL, rule_name
from fastscp.titles import title_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from fastscp.messages.worker import Ask
    from fastscp.rules.limits import Bounds, LimitBook
    from fastscp_ext import Rows, Tallies

__all__ = ["CROWD_LEAST", "PENDING_MOST", "Admission", "Booked", "Full", "Limits", "Lost"]

# Connections that are no association, or none any more. They cost little, but a peer can open them
# for nothing.
PENDING_MOST: Final = 512

# Whoever has fewer associations is no crowd: where every address has one, a newcomer gets nobody's.
CROWD_LEAST: Final = 2

_NO_TERMS: Final = Terms()

_Key = TypeVar("_Key")


@dataclass(frozen=True)
class Limits:
    """What holds for all together: associations, and connections that are none.

    by_files: whether it is the limit of open files that allows no more associations.
    """

    associations: int = 1000
    pending: int = PENDING_MOST
    by_files: bool = False


@dataclass(frozen=True)
class Full:
    """All places are taken, but a newcomer from `host` may get one of `crowd`'s.

    crowd: the address with the most associations, at least `CROWD_LEAST`, and more than twice as
    many as `host` has. verdict: where none of these can go.
    """

    host: str
    crowd: str
    verdict: Verdict


@dataclass(frozen=True)
class Lost:
    """What the books know of an association whose worker is gone.

    since: when its connection was accepted, seconds of the monotonic clock. tally: its slot; -1: it
    had none. rules: the name of its rule. is_over: it had ended before, and perhaps its end is not
    in the log.
    """

    number: int
    host: str
    port: int
    since: float
    calling_ae: str
    called_ae: str
    terms: Terms
    tally: int
    rules: str = TOP_LEVEL
    is_over: bool = False


class Booked(NamedTuple):
    """A connection as the books have it.

    calling_ae, called_ae: of its request; None while there is none. has_place: it counts as an
    association. is_over: it did, or was refused. rules: of one that has or had a place; else empty.
    since, tally: as in `Lost`. user: whose passcode or token was right; empty: none was checked.
    """

    number: int
    host: str
    port: int
    worker: int
    since: float
    calling_ae: str | None
    called_ae: str
    has_place: bool
    is_over: bool
    tally: int
    rules: str
    user: str


@dataclass(slots=True)
class _Connection:
    """calling_ae: of an association, or one that was; None: it is none. tally: its slot, -1: none.

    rules: the name of its rule. tables: where it counts. has_place: it counts as an association.
    asked: the titles of a request that has no place yet, or got none, with whether it was refused.
    """

    host: str
    port: int
    worker: int
    since: float
    calling_ae: str | None = None
    called_ae: str = ""
    terms: Terms = _NO_TERMS
    tally: int = -1
    rules: str = TOP_LEVEL
    tables: tuple[str, ...] = ()
    has_place: bool = False
    asked: tuple[str, str, bool] | None = None

    @property
    def is_answered(self) -> bool:
        """Whether its association was refused, or is over: only the connection is left."""
        is_refused = self.asked is not None and self.asked[2]
        return is_refused or (self.calling_ae is not None and not self.has_place)


class Admission:
    """The books of main: every connection from its accept to its end.

    rows: where instances are counted; without it every title has row 0. tallies: where each
    association is counted; without it none has a slot. clock: seconds that never go back.
    `draining`, `paused` and `congested` say why new associations are put off, or are empty. `begun`
    only grows, as what `endings` counts.

    Limits are told by generation: a worker asks by the rules that it has, until it has newer ones.
    Associations are counted under each table that they come from, whatever it limits, so that the
    counts are right whenever a limit changes.
    """

    def __init__(
        self,
        limits: Limits,
        rows: Rows | None = None,
        tallies: Tallies | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limits = limits
        self._books: dict[int, LimitBook] = {}
        self._rates = Rates()
        self._clock = clock
        self._rows = rows
        self._tallies = tallies
        # Those given back go first: few pages of the shared block are ever touched.
        self._free_tallies: list[int] = []
        self._tallies_used = 0
        # Of each worker, oldest first, associations that are gone, and whose end is on its way into
        # the log: their slots say whether it has come there.
        self._untold: dict[int, deque[Lost]] = {}
        self._all: dict[int, _Connection] = {}
        self._pending: OrderedDict[int, None] = OrderedDict()
        self._by_host: Counter[str] = Counter()
        # By key of a table, and by that and an address or a calling AE title.
        self._by_table: Counter[str] = Counter()
        self._by_table_host: Counter[tuple[str, str]] = Counter()
        self._by_table_ae: Counter[tuple[str, str]] = Counter()
        self._pending_by_host: Counter[str] = Counter()
        self._by_worker: Counter[int] = Counter()
        self.admitted = 0
        self.begun = 0
        self.endings = Endings()
        self.draining = ""
        self.paused = ""
        self.congested = ""

    @property
    def put_off(self) -> str:
        """Why no association is admitted at the moment, or empty."""
        return self.draining or self.paused or self.congested

    @property
    def places(self) -> int:
        """The most associations at a time, in all; 0: any number."""
        return self._limits.associations

    def limit(self, limits: Limits, book: LimitBook, titles: Iterable[str] = ()) -> None:
        """Take new limits; the ones that tables set are for those who ask by its generation.

        titles: calling AE titles that the configuration names, which have a row of their own each.
        """
        self._limits = limits
        self._books[book.generation] = book
        for title in titles:
            self._ae_row(title, named=True)

    def forget(self, before: int) -> None:
        """Nobody asks by a generation before this one any more."""
        for generation in [one for one in self._books if one < before]:
            del self._books[generation]

    def opened(
        self, number: int, host: str, worker: int, port: int = 0, since: float = 0.0
    ) -> list[tuple[int, int]]:
        """Book a connection; returns (number, worker) of those to close if there are too many.

        since: its accept, seconds of the monotonic clock. One that goes is of the address that has
        the most: whoever opens connections without asking for anything takes the place of nobody
        but itself. Of these the oldest goes that has its answer already, and only waits for the
        peer to hang up (PS3.8, Sta13); where none has, the oldest.
        """
        self._all[number] = _Connection(host, port, worker, since)
        self._by_worker[worker] += 1
        self._make_pending(number, host)
        too_many = []
        while len(self._pending) > self._limits.pending:
            most = self._pending_by_host.most_common(1)[0][0]
            its = [n for n in self._pending if self._all[n].host == most]
            goes = next((n for n in its if self._all[n].is_answered), its[0])
            # Admission no longer counts this connection, though its worker has yet to close it. So
            # the next connection that is too many costs another one, not this one again.
            self._no_longer_pending(goes, self._all[goes])
            too_many.append((goes, self._all[goes].worker))
        return too_many

    def relayed(self, number: int, host: str, port: int) -> None:
        """Book a connection by the address that its proxy speaks for, from now on."""
        connection = self._all.get(number)
        if connection is None or connection.calling_ae is not None:
            return
        if number in self._pending:
            self._less(self._pending_by_host, connection.host)
            self._pending_by_host[host] += 1
        connection.host, connection.port = host, port

    def ask(self, asked: Ask) -> Verdict | Full:
        """Decide over a complete request, and count it if it is admitted.

        Source: PS3.8 9.3.4, Table 9-21.
        """
        number = asked.number
        connection = self._all.get(number)
        if connection is None or connection.calling_ae is not None:
            return Verdict(number, 2, 3, 1, "the connection is not known")
        # Who waited for a place may have waited for longer than its rules are known.
        book = self._books.get(asked.generation) or self._books[max(self._books)]
        bounds = book.bounds(asked.ae, asked.sender)
        host = connection.host
        refusal = self._refusal(number, asked.calling_ae, host, bounds)
        if refusal is not None:
            is_over = not isinstance(refusal, Full)
            connection.asked = (asked.calling_ae, asked.called_ae, is_over)
            # The connection stays open until the peer hangs up or its worker closes it: it counts
            # as one without an association again.
            self._make_pending(number, host)
            return refusal
        self._no_longer_pending(number, connection)
        if (rate := bounds.rate) is not None:
            # Now that it is admitted, and not before: who is refused, or waits for a place, takes
            # nothing of it.
            self._rates.allows((rate.table, host), rate.number, self._clock())
        connection.calling_ae, connection.called_ae = asked.calling_ae, asked.called_ae
        connection.rules = rule_name(asked.ae, asked.sender)
        connection.tables = (TOP_LEVEL, *bounds.tables)
        connection.has_place = True
        connection.terms = asked.terms
        connection.tally = self._take_tally()
        self.admitted += 1
        self.begun += 1
        self.endings.refuse_contexts(asked.refused)
        self._by_host[host] += 1
        for table in connection.tables:
            self._by_table[table] += 1
            self._by_table_host[table, host] += 1
            self._by_table_ae[table, asked.calling_ae] += 1
        return Verdict(number, ae_row=self._ae_row(asked.calling_ae), tally=connection.tally)

    def _refusal(
        self, number: int, calling_ae: str, host: str, bounds: Bounds
    ) -> Verdict | Full | None:
        """Why a request is not admitted, or None."""
        if self.put_off:
            return Verdict(number, 2, 3, 1, self.put_off)
        if (why := self._limit_reached(calling_ae, host, bounds)) is not None:
            return Verdict(number, 2, 3, 2, why)
        rate = bounds.rate
        # Before a place is looked for: nobody else loses one to who does not come in.
        if rate and not self._rates.would_allow((rate.table, host), rate.number, self._clock()):
            return Verdict(
                number, 2, 3, 2,
                f"{rate.told('max_association_rate')} reached by {host}: it associates more often "
                f"in a second",
            )  # fmt: skip
        limits = self._limits
        if limits.associations and self.admitted >= limits.associations:
            why = f"--max-associations {limits.associations} reached"
            if limits.by_files:
                why = f"the limit of open files allows {limits.associations} at a time"
            verdict = Verdict(number, 2, 3, 2, why)
            crowd, most = self._by_host.most_common(1)[0]
            if most < CROWD_LEAST or 2 * self._by_host[host] >= most:
                return verdict
            return Full(host, crowd, verdict)
        return None

    def _limit_reached(self, calling_ae: str, host: str, bounds: Bounds) -> str | None:
        """Which of its tables' limits keeps an association out, in words."""
        for bound in bounds.total:
            if self._by_table[bound.table] >= bound.number:
                return f"{bound.told('max_associations')} reached"
        per_host, per_ae = bounds.per_host, bounds.per_ae
        if per_host and self._by_table_host[per_host.table, host] >= per_host.number:
            return f"{per_host.told('max_associations_per_host')} reached by {host}"
        if per_ae and self._by_table_ae[per_ae.table, calling_ae] >= per_ae.number:
            return f"{per_ae.told('max_associations_per_ae')} reached by '{printable(calling_ae)}'"
        return None

    def over(self, number: int) -> None:
        """Give the place of an association back that has ended; its connection is still there."""
        connection = self._all.get(number)
        if connection is not None and connection.has_place:
            self._free_place(connection)
            self._make_pending(number, connection.host)

    def holders(self, host: str) -> set[int]:
        """The workers that have associations of an address."""
        return {one.worker for one in self._all.values() if one.host == host and one.has_place}

    def closed(self, number: int) -> None:
        """Forget a connection."""
        connection = self._all.pop(number, None)
        if connection is None:
            return
        self._no_longer_pending(number, connection)
        self._less(self._by_worker, connection.worker)
        self._free_place(connection)
        if self._tallies is not None and connection.tally >= 0:
            self._settle(connection.worker)
            if self._tallies.read(connection.tally).is_untold:
                untold = self._untold.setdefault(connection.worker, deque())
                untold.append(self._lost(number, connection, connection.calling_ae or ""))
            else:
                self._free_tallies.append(connection.tally)

    def _settle(self, worker: int) -> None:
        """Take back the slots of those whose end has come into the log."""
        untold = self._untold.get(worker)
        while untold and self._tallies and not self._tallies.read(untold[0].tally).is_untold:
            self._free_tallies.append(untold.popleft().tally)

    @staticmethod
    def _lost(number: int, one: _Connection, calling_ae: str) -> Lost:
        return Lost(
            number, one.host, one.port, one.since, calling_ae, one.called_ae, one.terms, one.tally,
            one.rules, is_over=not one.has_place,
        )  # fmt: skip

    def lost(self, worker: int) -> list[Lost]:
        """The associations that a worker has, with what is known of each; oldest first.

        Those that are over come along, as long as their end may not be in the log.
        """
        gone = self._untold.get(worker, ())
        return [*gone, *(
            self._lost(number, one, one.calling_ae)
            for number, one in self._all.items()
            if one.worker == worker and one.calling_ae is not None
        )]  # fmt: skip

    def died(self, worker: int) -> tuple[int, int]:
        """Forget all of a dead worker's; returns how many (associations, connections) it had."""
        lost = [number for number, one in self._all.items() if one.worker == worker]
        associations = sum(self._all[number].has_place for number in lost)
        for number in lost:
            self.closed(number)
        # Whatever is told of these was told by now.
        self._free_tallies += [one.tally for one in self._untold.pop(worker, ())]
        return associations, len(lost)

    def booked(self, number: int) -> Booked | None:
        """A connection; None: there is none of this number, or none any more."""
        one = self._all.get(number)
        return None if one is None else self._booked(number, one)

    def all_booked(self) -> list[Booked]:
        """The connections there are, in the order of their numbers."""
        return [self._booked(number, one) for number, one in sorted(self._all.items())]

    @staticmethod
    def _booked(number: int, one: _Connection) -> Booked:
        calling_ae, called_ae, is_over = one.calling_ae, one.called_ae, not one.has_place
        rules = one.rules
        if calling_ae is None:
            calling_ae, called_ae, is_over = one.asked or (None, "", False)
            rules = ""
        return Booked(
            number, one.host, one.port, one.worker, one.since, calling_ae, called_ae,
            one.has_place, is_over, one.tally, rules, one.terms.user,
        )  # fmt: skip

    def load(self, worker: int) -> int:
        """Connections of a worker."""
        return self._by_worker[worker]

    @property
    def connections(self) -> int:
        return len(self._all)

    def _ae_row(self, calling_ae: str, *, named: bool = False) -> int:
        # Only an admitted peer gets a row: any peer can make up as many titles as it likes, and the
        # rows are few.
        if self._rows is None:
            return 0
        return self._rows.ae_row(title_bytes(calling_ae), named)

    def _take_tally(self) -> int:
        """A cleared slot to count an association in; -1: there is none left."""
        if self._tallies is None:
            return -1
        if self._free_tallies:
            slot = self._free_tallies.pop()
        elif self._tallies_used < self._tallies.slots:
            slot, self._tallies_used = self._tallies_used, self._tallies_used + 1
        else:
            return -1
        self._tallies.clear(slot)
        return slot

    def _free_place(self, connection: _Connection) -> None:
        if connection.has_place and connection.calling_ae is not None:
            self.admitted -= 1
            self._less(self._by_host, connection.host)
            for table in connection.tables:
                self._less(self._by_table, table)
                self._less(self._by_table_host, (table, connection.host))
                self._less(self._by_table_ae, (table, connection.calling_ae))
            connection.has_place = False

    def _make_pending(self, number: int, host: str) -> None:
        if number not in self._pending:
            self._pending[number] = None
            self._pending_by_host[host] += 1

    def _no_longer_pending(self, number: int, connection: _Connection) -> None:
        if number in self._pending:
            del self._pending[number]
            self._less(self._pending_by_host, connection.host)

    @staticmethod
    def _less(counter: Counter[_Key], key: _Key) -> None:
        # Keys that fall to zero go: addresses and titles are the peers' to invent.
        counter[key] -= 1
        if counter[key] <= 0:
            del counter[key]
