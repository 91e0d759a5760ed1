"""What main tells of the service to the page that shows it, as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastscp.messages.control import AssociationStatus, Status

__all__ = [
    "Connection",
    "Disk",
    "LogLine",
    "Marks",
    "Point",
    "Refusal",
    "RefusedSoFar",
    "Standing",
    "Stored",
    "View",
    "WorkerStatus",
]


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """What was done in an interval.

    n: rises. at: its end, seconds of the epoch, which a clock that is set may take back. instances,
    bytes: stored in a second, bytes of their data sets; received: bytes read from connections, in a
    second. refused, rejected: instances and associations, in all of it. p50, p90, p99: milliseconds
    from the last byte of an instance to its response; None: there was none. Right to a factor of
    two.
    """

    n: int
    at: float
    instances: float
    bytes: float
    received: float
    refused: int
    rejected: int
    p50: float | None
    p90: float | None
    p99: float | None


class LogLine(msgspec.Struct, frozen=True, kw_only=True):
    """A line of the log. n: rises. at: seconds of the epoch. text: fit to be shown."""

    n: int
    at: float
    level: str
    role: str
    text: str


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody was refused something.

    n, at: as of `LogLine`. what: was refused, with its numbers. who: the AE title and the address.
    why: the reason in words. advice: what an operator does about it.
    """

    n: int
    at: float
    what: str
    who: str
    why: str
    advice: str


class RefusedSoFar(msgspec.Struct, frozen=True, kw_only=True):
    """How often something was refused since the start. what, why, advice: as of `Refusal`."""

    what: str
    why: str
    count: int
    advice: str


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """An instance that has a line in the journal; nothing of it tells of a patient.

    at: UTC, ISO 8601. sop_class: by name where it has one. outcome: stored, or what became of it
    because its path was taken. bytes: of its data set.
    """

    at: str
    sop_class: str
    calling_ae: str
    called_ae: str
    bytes: int
    status: str
    outcome: str


# Of a worker. leaving: it takes no connections any more.
Standing: TypeAlias = Literal[
    "starting", "up", "waits for the disk", "does not answer", "leaving",
]  # fmt: skip


class WorkerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A worker. connections: all it has. rate: bytes a second, of late."""

    number: int
    state: Standing
    connections: int
    rate: int


class Connection(msgspec.Struct, frozen=True, kw_only=True):
    """A connection, and how many bytes a second come by it; None: not known yet."""

    about: AssociationStatus
    rate: int | None


class Disk(msgspec.Struct, frozen=True, kw_only=True):
    """What `Snapshot` has of these, under the same names."""

    journal_bytes: int | None
    disk_blocked_s: float
    workers_waiting: int
    worker_restarts: dict[str, int]
    log_lines_lost: int


class Marks(NamedTuple):
    """Up to where somebody has been told: numbers of lines, and of points."""

    log: int = 0
    refusals: int = 0
    latest: int = 0
    hour: int = 0


class View(msgspec.Struct, frozen=True, kw_only=True):
    """What a page is sent: all of it once, and then what is new.

    whole: whether points, lines and the like are all there are; else those that came since the
    last. actions: whether the page may ask for something to be done. now: seconds of the epoch.
    connections: the busiest; more: how many there are besides. latest, hour: the last minutes and
    the last hour. stored: the last instances, the newest first, all of them each time.
    """

    whole: bool
    actions: bool
    now: float
    status: Status
    connections: Sequence[Connection]
    more: int
    workers: Sequence[WorkerStatus]
    disk: Disk
    refused: Sequence[RefusedSoFar]
    latest: Sequence[Point]
    hour: Sequence[Point]
    refusals: Sequence[Refusal]
    stored: Sequence[Stored]
    log: Sequence[LogLine]
