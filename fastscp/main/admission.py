"""Who may associate: the rules, and the exact counts behind every limit. No I/O."""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

from fastscp.config.values import allows
from fastscp.log import printable
from fastscp.messages.worker import Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastscp.config.values import AllowRule
    from fastscp_ext import Rows

__all__ = ["Admission", "Limits"]

# Connections without a complete request. They cost little, but a peer can open them for nothing.
PENDING_MOST: Final = 512

_Key = TypeVar("_Key")


@dataclass(frozen=True)
class Limits:
    """associations at a time, in all, from one address, of one calling AE title; 0: any."""

    associations: int = 1000
    per_host: int = 0
    per_ae: int = 0
    pending: int = PENDING_MOST


@dataclass(slots=True)
class _Connection:
    host: str
    worker: int
    calling_ae: str | None = None


class Admission:
    """The books of main: every connection from its accept to its end.

    rows: where instances are counted; without it every title has row 0. `draining` and `congested`
    say why new associations are put off, or are empty.
    """

    def __init__(
        self, limits: Limits, allow: Sequence[AllowRule] = (), rows: Rows | None = None
    ) -> None:
        self._limits = limits
        self._allow = tuple(allow)
        self._rows = rows
        for rule in self._allow:
            if rule.ae != "*":
                self._ae_row(rule.ae, named=True)
        self._all: dict[int, _Connection] = {}
        self._pending: OrderedDict[int, None] = OrderedDict()
        self._by_host: Counter[str] = Counter()
        self._by_ae: Counter[str] = Counter()
        self._pending_by_host: Counter[str] = Counter()
        self._by_worker: Counter[int] = Counter()
        self.admitted = 0
        self.draining = ""
        self.congested = ""

    def opened(self, number: int, host: str, worker: int) -> tuple[int, int] | None:
        """Book a connection; returns (number, worker) of one to close for it if there are too many.

        The one to go is the oldest of the address that has the most: whoever opens connections
        without asking for anything takes the place of nobody but itself.
        """
        self._all[number] = _Connection(host, worker)
        self._pending[number] = None
        self._pending_by_host[host] += 1
        self._by_worker[worker] += 1
        if len(self._pending) <= self._limits.pending:
            return None
        most = self._pending_by_host.most_common(1)[0][0]
        oldest = next(n for n in self._pending if self._all[n].host == most)
        # Told to go: the next one too many, which may come before it is gone, costs another.
        self._no_longer_pending(oldest, self._all[oldest])
        return oldest, self._all[oldest].worker

    def ask(self, number: int, calling_ae: str, called_ae: str) -> Verdict:  # noqa: ARG002
        """Decide over a complete request, and count it if it is admitted.

        Source: PS3.8 9.3.4, Table 9-21.
        """
        connection = self._all.get(number)
        if connection is None or connection.calling_ae is not None:
            return Verdict(number, 2, 3, 1, "the connection is not known")
        self._no_longer_pending(number, connection)
        limits, host = self._limits, connection.host
        if self._allow and not allows(self._allow, calling_ae, host):
            return Verdict(
                number, 1, 1, 3, f"'{printable(calling_ae)}' from {host} is not in --allow"
            )
        if self.draining or self.congested:
            return Verdict(number, 2, 3, 1, self.draining or self.congested)
        if limits.associations and self.admitted >= limits.associations:
            return Verdict(number, 2, 3, 2, f"--max-associations {limits.associations} reached")
        if limits.per_host and self._by_host[host] >= limits.per_host:
            return Verdict(
                number, 2, 3, 2, f"--max-associations-per-host {limits.per_host} reached by {host}"
            )
        if limits.per_ae and self._by_ae[calling_ae] >= limits.per_ae:
            return Verdict(
                number, 2, 3, 2,
                f"--max-associations-per-ae {limits.per_ae} reached by '{printable(calling_ae)}'",
            )  # fmt: skip
        connection.calling_ae = calling_ae
        self.admitted += 1
        self._by_host[host] += 1
        self._by_ae[calling_ae] += 1
        return Verdict(number, ae_row=self._ae_row(calling_ae))

    def closed(self, number: int) -> None:
        """Forget a connection."""
        connection = self._all.pop(number, None)
        if connection is None:
            return
        self._no_longer_pending(number, connection)
        self._less(self._by_worker, connection.worker)
        if connection.calling_ae is not None:
            self.admitted -= 1
            self._less(self._by_host, connection.host)
            self._less(self._by_ae, connection.calling_ae)

    def died(self, worker: int) -> tuple[int, int]:
        """Forget all of a dead worker's; returns how many (associations, connections) it had."""
        lost = [number for number, one in self._all.items() if one.worker == worker]
        associations = sum(self._all[number].calling_ae is not None for number in lost)
        for number in lost:
            self.closed(number)
        return associations, len(lost)

    def load(self, worker: int) -> int:
        """Connections of a worker."""
        return self._by_worker[worker]

    @property
    def connections(self) -> int:
        return len(self._all)

    def _ae_row(self, calling_ae: str, *, named: bool = False) -> int:
        # Only of who is admitted: titles are the peers' to invent.
        if self._rows is None:
            return 0
        return self._rows.ae_row(calling_ae.encode("latin-1", "replace"), named)

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
