"""What the service measures, as main hands it to whoever shows it to a monitoring system."""

from __future__ import annotations

from fastscp.messages.control import Status  # noqa: TC001 - msgspec reads it
from fastscp.messages.totals import Totals

__all__ = ["Snapshot"]


class Snapshot(Totals, frozen=True, kw_only=True):
    """What is known at one moment.

    status: as `fastscp status` tells it. workers_waiting: for the disk, now. journal_bytes: None
    while nobody has looked.
    """

    status: Status
    workers_waiting: int
    journal_bytes: int | None
