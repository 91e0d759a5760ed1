"""What the control socket needs of the service: main hands it such an object."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from fastscp.messages.control import Aborted, AssociationStatus, Paused, Reloaded, Status

__all__ = ["Control"]


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
