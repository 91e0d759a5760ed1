"""Configurations on their way into a worker: made in a thread, taken on the loop, in order.

What a configuration needs may take OpenSSL a second, as revocation lists of a hundred thousand
entries do: associations go on meanwhile.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
from functools import partial
from typing import TYPE_CHECKING

from fastscp.messages.configuration import unpack
from fastscp.worker.helpers import Helpers
from fastscp.worker.rules import Going

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Taking"]

log = logging.getLogger("fastscp.worker")


class Taking:
    """Makes what a worker goes by. On the loop's thread. Raises OSError: there is no thread.

    take(going): gets each in the order in which they came. done(): called then, and where one could
    not be made, which the log is told.
    """

    def __init__(self, take: Callable[[Going], None], done: Callable[[], None]) -> None:
        self._take = take
        self._done = done
        self._threads = Helpers("configure", 1)
        # The newest generation that is being made.
        self._newest = -1

    def close(self) -> None:
        """End the thread, once nothing is under way. Off the loop."""
        self._threads.close()

    def add(self, generation: int, fd: int | None) -> None:
        """Make another. fd: memory with it, owned from here on; None: there was none to be had."""
        if fd is None:
            self._failed(OSError(errno.EMFILE, os.strerror(errno.EMFILE)))
            self._done()
        elif generation <= self._newest:
            # Main asks again since it takes long: it is in hand.
            os.close(fd)
        else:
            self._newest = generation
            future = asyncio.wrap_future(self._threads.call(_make, fd))
            future.add_done_callback(partial(self._made, generation))

    def _made(self, generation: int, future: asyncio.Future[Going]) -> None:
        if self._newest == generation:
            self._newest = -1
        try:
            self._take(future.result())
        except OSError as error:
            self._failed(error)
        except Exception:
            log.exception("cannot take the new configuration, which is a bug")
        self._done()

    def _failed(self, error: OSError) -> None:
        # Main hears which it goes by, and tells it again.
        log.error(
            "cannot take the new configuration yet (%s): new associations go by the one before",
            error.strerror,
        )


def _make(fd: int) -> Going:
    with os.fdopen(fd, "rb") as memory:
        return Going(unpack(memory.fileno()))
