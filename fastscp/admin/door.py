"""What the ends of the service for operators need of it: main hands them such objects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from fastscp.messages.control import Aborted, AssociationStatus, Paused, Reloaded, Status
    from fastscp.messages.metrics import Snapshot

__all__ = ["Control", "Measuring"]


class Control(Protocol):
    """What an operator can ask of the service. Nothing here waits for the disk, or raises.

    All is called on the loop of main.
    """

    def status(self) -> Status:
        """What it is doing."""

    def associations(self) -> list[AssociationStatus]:
        """The connections there are, the oldest first."""

    async def abort(self, id_: str, by: str) -> Aborted:
        """End one, and wait until it is over, for a bounded time. by: who wants that, in words."""

    def pause(self, why: str, by: str) -> Paused:
        """Reject new associations from now on; why: for the log, the status and nobody else."""

    def resume(self, by: str) -> Paused:
        """Admit associations again."""

    async def reload(self, by: str) -> Reloaded:
        """Take the configuration anew, whole or not at all."""


class Measuring(Protocol):
    """What the HTTP of the service needs of it. Nothing here waits for the disk, or raises."""

    def status(self) -> Status:
        """What it is doing."""

    def snapshot(self) -> Snapshot:
        """All that is measured."""
