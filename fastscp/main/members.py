"""A worker as main knows it, the place that it has, who is told of it, and who goes first."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from fastscp.main.backoff import BackOff

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Container, Iterable

    from fastscp.main.spawn import Process
    from fastscp.messages.channel import Channel

__all__ = ["WORKERS_MOST", "Listener", "Place", "Worker", "first_to_go", "free_numbers"]

# At a time, those that are retired among them: what is shared has room for so many numbers.
WORKERS_MOST: Final = 256


@dataclass(eq=False)
class Worker:
    """Main's side of a worker process.

    ready: of one that is started with the service: done once it is up, or has failed to be. why:
    what it said before it failed. is_leaving: it said that it takes no connection any more.
    is_retired: it was told so, and nobody takes its place; retired_at, ends_by: when that was, and
    by when its associations have to end. generation: of the rules it goes by; -1: it has not said.
    is_late: the log was told that it does not follow to newer ones.
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
    is_leaving: bool = False
    is_retired: bool = False
    retired_at: float = 0.0
    ends_by: float = 0.0
    is_late: bool = False
    why: str = ""


@dataclass(eq=False)
class Place:
    """One of the workers that there are to be: who has it, and what keeps others from it.

    told: why the last one did not come up, as it stands in the log; "": there is one. told_at: when
    the log was told. is_missed: the log was told that the last one ended unexpectedly. is_added: it
    was made while the service runs, and nobody in it was up yet.
    """

    number: int
    worker: Worker | None = None
    back_off: BackOff = field(default_factory=BackOff)
    told: str = ""
    told_at: float = 0.0
    is_missed: bool = False
    is_added: bool = False

    @property
    def is_wanted(self) -> bool:
        """Whether it counts among the workers that there are to be."""
        return self.worker is None or not self.worker.is_retired


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

    def connections_of(self, worker: Worker) -> int:
        """How many connections it has, or is about to get."""


def first_to_go(places: Iterable[Place], connections_of: Callable[[Worker], int]) -> list[Place]:
    """The places in the order in which they are given up: fewest associations first.

    Those that have no worker that takes any go before all others.
    """

    def weight(place: Place) -> tuple[bool, bool, int, int]:
        worker = place.worker
        if worker is None:
            return False, False, 0, -place.number
        takes_any = worker.is_ready and not worker.is_leaving
        return True, takes_any, connections_of(worker), -place.number

    return sorted(places, key=weight)


def free_numbers(taken: Container[int], count: int) -> list[int]:
    """So many numbers that no worker has, the lowest; fewer where there are no more."""
    return [number for number in range(WORKERS_MOST) if number not in taken][: max(0, count)]
