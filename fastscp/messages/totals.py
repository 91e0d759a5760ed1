"""What the service counts, as main shows it, and hands it over to its successor.

All numbers only grow while the service lives, whatever becomes of its workers, and whichever
process is its main. A main and its successor may be of two versions of the program: so what is
counted goes from one to the other by names, and a new count needs a default.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

__all__ = ["OTHER", "Aborted", "Counted", "Distribution", "Totals", "among"]

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")

# What stands for all those that have no row of their own. An AE title is shorter.
OTHER: Final = "all others together"


class Counted(NamedTuple):
    """Instances that ended, by what became of them, and the bytes of the data sets stored."""

    stored: int
    bytes: int
    refused: int
    unfinished: int

    def plus(self, other: Counted) -> Counted:
        return Counted(*map(sum, zip(self, other, strict=True)))


class Distribution(NamedTuple):
    """buckets: how many numbers were below 1, 2, 4, 8 and so on, and not below the one before; the
    last one all others. total: their sum. Times are in microseconds.
    """

    buckets: tuple[int, ...]
    total: int

    def plus(self, other: Distribution) -> Distribution:
        """Of both; of this one alone where the other has other buckets."""
        if len(self.buckets) != len(other.buckets):
            return self
        sums = tuple(map(sum, zip(self.buckets, other.buckets, strict=True)))
        return Distribution(sums, self.total + other.total)


class Aborted(NamedTuple):
    """An A-ABORT. side: `fastscp` or `peer`, who sent it. source, reason: its numbers, or `other`.

    Source: PS3.8 Table 9-26.
    """

    side: str
    source: str
    reason: str


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """All that is counted, since the start of the service.

    by_ae: calling AE titles in written form. by_status: by status, four hexadecimal digits, or
    `none`, and the reason for it. received_bytes: read from connections. times, flushes, batches,
    redo_ways, throttled_us: see `fastscp_ext.Rows`. accepted: associations. rejected: by the
    numbers of the A-ASSOCIATE-RJ (result,source,reason). ended: associations, by how they ended.
    contexts_refused: presentation contexts, by abstract syntax. worker_restarts: by whether a
    signal had asked for it. disk_blocked_s: seconds that workers waited for the disk, in a file
    call of their loop or with commits that got nowhere, all workers together. log_lines_lost: of
    main and of all workers. handshakes_failed: of TLS, by reason; there are few of these.
    """

    by_ae: dict[str, Counted] = {}
    by_transfer_syntax: dict[str, Counted] = {}
    by_status: dict[tuple[str, str], Counted] = {}
    received_bytes: int = 0
    times: dict[str, Distribution] = {}
    flushes: dict[str, Distribution] = {}
    batches: dict[str, Distribution] = {}
    redo_ways: dict[str, int] = {}
    throttled_us: dict[str, int] = {}
    accepted: int = 0
    rejected: dict[str, int] = {}
    ended: dict[str, int] = {}
    aborted: dict[Aborted, int] = {}
    contexts_refused: dict[str, int] = {}
    worker_restarts: dict[str, int] = {}
    disk_blocked_s: float = 0.0
    log_lines_lost: int = 0
    handshakes_failed: dict[str, int] = {}

    def plus(self, other: Totals) -> Totals:
        """Both together."""
        return Totals(
            by_ae=_both(self.by_ae, other.by_ae, Counted.plus),
            by_transfer_syntax=_both(
                self.by_transfer_syntax, other.by_transfer_syntax, Counted.plus
            ),
            by_status=_both(self.by_status, other.by_status, Counted.plus),
            received_bytes=self.received_bytes + other.received_bytes,
            times=_both(self.times, other.times, Distribution.plus),
            flushes=_both(self.flushes, other.flushes, Distribution.plus),
            batches=_both(self.batches, other.batches, Distribution.plus),
            redo_ways=_both(self.redo_ways, other.redo_ways, int.__add__),
            throttled_us=_both(self.throttled_us, other.throttled_us, int.__add__),
            accepted=self.accepted + other.accepted,
            rejected=_both(self.rejected, other.rejected, int.__add__),
            ended=_both(self.ended, other.ended, int.__add__),
            aborted=_both(self.aborted, other.aborted, int.__add__),
            contexts_refused=_both(self.contexts_refused, other.contexts_refused, int.__add__),
            worker_restarts=_both(self.worker_restarts, other.worker_restarts, int.__add__),
            disk_blocked_s=self.disk_blocked_s + other.disk_blocked_s,
            log_lines_lost=self.log_lines_lost + other.log_lines_lost,
            handshakes_failed=_both(self.handshakes_failed, other.handshakes_failed, int.__add__),
        )


def _both(
    one: dict[_Key, _Value], other: dict[_Key, _Value], add: Callable[[_Value, _Value], _Value]
) -> dict[_Key, _Value]:
    if not other:
        return one
    found = dict(one)
    for key, value in other.items():
        found[key] = add(found[key], value) if key in found else value
    return found


def among(
    counts: dict[str, _Value], names: Collection[str], add: Callable[[_Value, _Value], _Value]
) -> dict[str, _Value]:
    """The same counts with no other names than these; all others together are `OTHER`."""
    found: dict[str, _Value] = {}
    for name, value in counts.items():
        own = name if name in names else OTHER
        found[own] = add(found[own], value) if own in found else value
    return found
