"""A worker as main knows it, the place that it has, and who is told of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from fastscp.main.backoff import BackOff

if TYPE_CHECKING:
    import asyncio

    from fastscp.main.spawn import Process
    from fastscp.messages.channel import Channel

__all__ = ["Listener", "Place", "Worker"]


@dataclass(eq=False)
class Worker:
    """Main's side of a worker process.

    ready: of one that is started with the service: done once it is up, or has failed to be. why:
    what it said before it failed.
    """

    number: int
    life: str
    channel: Channel
    ready: asyncio.Future[None]
    started: float
    process: Process | None = None
    generation: int = -1
    is_ready: bool = False
    is_killed: bool = False
    why: str = ""


@dataclass(eq=False)
class Place:
    """One of the workers that there are to be: who has it, and what keeps others from it.

    told: why the last one did not come up, as it stands in the log; "": there is one. told_at: when
    the log was told. is_missed: the log was told that the last one ended unexpectedly.
    """

    number: int
    worker: Worker | None = None
    back_off: BackOff = field(default_factory=BackOff)
    told: str = ""
    told_at: float = 0.0
    is_missed: bool = False


class Listener(Protocol):
    """Who is told of workers, and of their messages about connections."""

    def joined(self, worker: Worker) -> None:
        """A worker process was started; it is not ready yet."""

    def held(self, generation: int) -> None:
        """No worker goes by rules that are older than these."""

    def came_up(self, worker: Worker) -> None:
        """It is ready."""

    def heard(self, worker: Worker, message: object) -> None:
        """It said something that is not about itself."""

    def left(self, worker: Worker) -> int:
        """It is gone; returns how many associations are lost."""
