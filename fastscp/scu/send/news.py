"""What those who send side by side wait for."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["News"]


class News:
    """Waiting that an interruption ends.

    interrupts: how often the run was interrupted. After the first time nothing more is begun, after
    the second one connections are cut.
    """

    def __init__(self) -> None:
        self.interrupts = 0
        self._event = asyncio.Event()

    def tell(self) -> None:
        """Let whoever waits look again: files were found or taken, or it is over."""
        self._event.set()
        self._event = asyncio.Event()

    async def attend(self, work: asyncio.Future[Any], grace_s: float = 0.0) -> bool:
        """Wait until it is done, and `grace_s` after an interruption; whether it is."""
        work.add_done_callback(lambda _work: self.tell())
        await self.until(work.done)
        if not work.done() and grace_s:
            await asyncio.wait([work], timeout=grace_s)
        return work.done()

    async def until(self, true: Callable[[], bool], seconds: float | None = None) -> None:
        """Wait until it is true, so long at most, unless an interruption comes first."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not (true() or self.interrupts):
                    await self._event.wait()
