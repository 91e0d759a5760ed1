"""What the service measures, as main hands it to whoever shows it to a monitoring system.

All numbers that count only grow while main lives, whatever becomes of its workers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fastscp.messages.control import Status

__all__ = ["OTHER", "Aborted", "Counted", "Distribution", "Snapshot"]

# What stands for all those that have no row of their own. An AE title is shorter.
OTHER: Final = "all others together"


class Counted(NamedTuple):
    """Instances that ended, by what became of them, and the bytes of the data sets stored."""

    stored: int
    bytes: int
    refused: int
    unfinished: int


class Distribution(NamedTuple):
    """buckets: how many numbers were below 1, 2, 4, 8 and so on, and not below the one before; the
    last one all others. total: their sum. Times are in microseconds.
    """

    buckets: Sequence[int]
    total: int


class Aborted(NamedTuple):
    """An A-ABORT. side: `fastscp` or `peer`, who sent it. source, reason: its numbers, or `other`.

    Source: PS3.8 Table 9-26.
    """

    side: str
    source: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What is known at one moment.

    status: as `fastscp status` tells it. by_ae: calling AE titles in written form. by_status: by
    status, four hexadecimal digits, or `none`, and the reason for it. times, flushes, batches,
    throttled_us: see `fastscp_ext.Rows`. accepted: associations. rejected: by the numbers of the
    A-ASSOCIATE-RJ (result,source,reason). ended: associations, by how they ended. contexts_refused:
    presentation contexts, by abstract syntax. workers_waiting: for the disk, now. worker_restarts:
    by whether a signal had asked for it. disk_blocked_s: seconds that workers waited in a file call
    of more than a quarter of a second, all workers together. journal_bytes: None while nobody has
    looked. log_lines_lost: of main and of all workers. handshakes_failed: of TLS, by reason; there
    are few of these.
    """

    status: Status
    by_ae: Mapping[str, Counted]
    by_transfer_syntax: Mapping[str, Counted]
    by_status: Mapping[tuple[str, str], Counted]
    times: Mapping[str, Distribution]
    flushes: Mapping[str, Distribution]
    batches: Mapping[str, Distribution]
    throttled_us: Mapping[str, int]
    accepted: int
    rejected: Mapping[str, int]
    ended: Mapping[str, int]
    aborted: Mapping[Aborted, int]
    contexts_refused: Mapping[str, int]
    workers_waiting: int
    worker_restarts: Mapping[str, int]
    disk_blocked_s: float
    journal_bytes: int | None
    log_lines_lost: int
    handshakes_failed: Mapping[str, int]
