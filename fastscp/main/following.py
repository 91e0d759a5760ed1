"""Which settings and rules the workers go by, and which of them do so already."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from typing import TYPE_CHECKING, Final

from fastscp.log import fields
from fastscp.messages.configuration import pack
from fastscp.messages.worker import Configured

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastscp.config.settings import WorkerConfig
    from fastscp.main.members import Listener, Worker
    from fastscp.messages.configuration import Configuration

__all__ = ["Following"]

log = logging.getLogger("fastscp.main")

# Before a worker that could not be told, or could not take it, is told again.
_AGAIN_S: Final = 1.0


class Following:
    """Tells workers what to go by; `close` it at the end.

    living(): the workers there are, those that start among them. Raises OSError where there is no
    memory to hand a configuration over in.
    """

    def __init__(
        self,
        configuration: Configuration,
        listener: Listener,
        living: Callable[[], list[Worker]],
    ) -> None:
        self._configuration = configuration
        self._listener = listener
        self._living = living
        self._loop = asyncio.get_running_loop()
        # Set whenever one may have come to newer rules, or is gone.
        self._changed = asyncio.Event()
        # The memory in which workers find it.
        self._fd = pack(configuration)

    @property
    def config(self) -> WorkerConfig:
        """The settings of workers in force."""
        return self._configuration.config

    @property
    def generation(self) -> int:
        """Of the newest rules."""
        return self._configuration.rules.generation

    def close(self) -> None:
        """Give the memory back."""
        os.close(self._fd)

    def configure(self, configuration: Configuration, fd: int) -> None:
        """Have all go by these settings and rules from now on, and those that start later.

        fd: memory with them, as `pack` makes it, owned from here on.
        """
        os.close(self._fd)
        self._configuration, self._fd = configuration, fd
        for worker in self._living():
            self.tell(worker)

    def tell(self, worker: Worker) -> None:
        """Have a worker go by the newest, as soon as there is a way to tell it."""
        if worker.channel.closed:
            return
        try:
            worker.channel.send(Configured(self.generation), self._fd)
        except OSError:
            self._loop.call_later(_AGAIN_S, self._tell_again, worker)
        except Exception:
            # The others have to be told, too.
            log.exception("cannot tell worker %d of newer rules, which is a bug", worker.number)
            self._loop.call_later(_AGAIN_S, self._tell_again, worker)

    def _tell_again(self, worker: Worker) -> None:
        if worker.generation < self.generation:
            self.tell(worker)

    def heard(self, worker: Worker, generation: int) -> None:
        """A worker says which rules it goes by."""
        worker.generation = generation
        if generation < self.generation:
            # It has newer ones in hand, or the system had no descriptor for them.
            self._loop.call_later(_AGAIN_S, self._tell_again, worker)
        elif worker.is_late:
            worker.is_late = False
            log.warning(
                "worker %d goes by the newest rules now",
                worker.number, extra=fields(worker=worker.number),
            )  # fmt: skip
        self.left()

    def left(self) -> None:
        """A worker may be gone, or has newer rules: nobody asks by older ones than are in use."""
        self._changed.set()
        if living := self._living():
            self._listener.held(min(worker.generation for worker in living))

    async def laggards(self, seconds: float) -> list[Worker]:
        """Wait until all that are up go by the newest rules; returns those that still do not.

        The log is told when one of these does at last.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._behind():
                    self._changed.clear()
                    await self._changed.wait()
        for worker in self._behind():
            worker.is_late = True
        return self._behind()

    def _behind(self) -> list[Worker]:
        return [one for one in self._living() if one.is_ready and one.generation < self.generation]
