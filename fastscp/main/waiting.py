"""A start that takes long says now and then what it waits for."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

    from fastscp.main.notify import Notify
    from fastscp.main.workers import Workers

__all__ = ["Waiting"]

log = logging.getLogger("fastscp.main")

# After so long a start says that it still waits for the disk, and again.
_WAITS_S: Final = 10.0


class Waiting:
    """Tells the log and a service manager that the start of the service still waits.

    workers: None until there are any. `has_waited`: whether it has waited for the disk for so long
    that it said so.
    """

    def __init__(self, store: Path, notify: Notify) -> None:
        self._store = store
        self._notify = notify
        self._loop = asyncio.get_running_loop()
        self.workers: Workers | None = None
        self.has_waited = False

    def told(self) -> contextlib.ExitStack:
        """Until it is closed: say now and then that the start still waits."""
        began = self._loop.time()
        has_said_so = False

        def tell() -> None:
            nonlocal has_said_so
            if self.workers is not None and self.workers.stopping:
                # It has been told, and only waits for them to end.
                return
            self.has_waited = self.workers is None
            log.warning(
                "the start still waits for %s after %.0f s; TERM ends the start",
                f"the disk of {self._store} (check the disk or its mount)"
                if self.has_waited else "workers to come up",
                self._loop.time() - began,
            )  # fmt: skip
            has_said_so = True
            self._notify.extend(3 * _WAITS_S)
            again()

        def again() -> None:
            timer = self._loop.call_later(_WAITS_S, tell)
            waiting.callback(timer.cancel)

        def over() -> None:
            # At the level at which it was told.
            if has_said_so and self.workers is not None and not self.workers.stopping:
                log.warning("the start is through, after %.0f s", self._loop.time() - began)

        waiting = contextlib.ExitStack()
        waiting.callback(over)
        again()
        return waiting
