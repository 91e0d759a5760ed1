"""What the ends of the service for operators need of it: main hands them such objects."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from fastscp.messages.control import Aborted, AssociationStatus, Paused, Reloaded, Status
    from fastscp.messages.metrics import Snapshot
    from fastscp.messages.page import Marks, View

__all__ = ["Control", "Doors", "Measuring", "Showing"]


class Control(Protocol):
    """What an operator can ask of the service. Nothing here waits for the disk, or raises.

    All is called on the loop of main.
    """

    def status(self) -> Status:
        """What it is doing."""

    def associations(self) -> list[AssociationStatus]:
        """The connections there are, the oldest first."""

    async def abort(self, id_: str, by: str) -> Aborted:
        """End one, and wait until it is over, for a bounded time.

        by: who wants that, and by what, in words; so it is wherever it stands.
        """

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


class Showing(Protocol):
    """What the page needs of it. Nothing here waits for the disk, or raises."""

    async def looked(self) -> None:
        """Wait for the next look at the counters, which is taken whether somebody waits or not."""

    def look(self) -> None:
        """See which connections there are, and what they bring, while somebody watches."""

    def view(self, since: Marks | None, *, actions: bool) -> View:
        """What is shown: what came since these marks; None: all there is.

        actions: whether whoever looks may have something done.
        """


class Doors(NamedTuple):
    """All that the HTTP of the service needs."""

    measuring: Measuring
    showing: Showing
    control: Control
