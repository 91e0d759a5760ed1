"""`fastscp send` at work: finds the files, shows how far it has come, writes the report."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from fastscp.log import printable
from fastscp.scu.send.files import Finder, Found
from fastscp.scu.send.outcomes import Outcomes, Report, Summary
from fastscp.scu.send.shipment import Shipment

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from fastscp.scu.send.options import Options

__all__ = ["Plan", "plan_send", "run_send"]

log = logging.getLogger("fastscp.send")

_REFRESH_S = 0.1
# How far the finder looks before the first association, whichever takes longer: whatever it finds
# soon goes over one association, and nobody waits for the last of a million files.
_FIRST_FILES = 2000
_FIRST_S = 0.2
_AT_A_TIME = 64


class _Display(Protocol):
    """What is shown while it goes on."""

    def say(self, line: str) -> None:
        """A line that stays."""

    def looking(self, seen: int) -> None:
        """So many files were looked at."""

    def sending(self, shipment: Shipment, summary: Summary) -> None:
        """How far it has come."""


class _Quiet:
    """Lines only, as log messages."""

    def say(self, line: str) -> None:
        log.warning("%s", line)

    def looking(self, seen: int) -> None:
        pass

    def sending(self, shipment: Shipment, summary: Summary) -> None:
        pass


def run_send(
    options: Options,
    paths: Sequence[str],
    report: Path | None,
    *,
    listed: Iterable[bytes] = (),
    progress: bool,
) -> Summary:
    """Send what the paths name; returns what became of it.

    report: gets a line of JSON per instance. listed: further paths, none of them a pattern.
    progress: show a bar on stderr.
    Raises ConfigError for a path that names nothing and a report that cannot be made, FastscpError
    for a report that cannot be written to its end.
    """
    with contextlib.ExitStack() as undo:
        display: _Display = _Quiet()
        if progress:
            from fastscp.cli.send_progress import Bar

            display = undo.enter_context(Bar())
        finder = Finder(paths, listed)
        found = _first_found(finder, options, display)
        lines = None
        if report is not None:
            # Only now: a mistake in a path leaves the report of another run as it is.
            lines = undo.enter_context(contextlib.closing(Report(report, paths)))
        summary = Summary(report=lines)
        if not found.files and not found.failed:
            Outcomes(summary, display.say).skipped(found.skipped)
            return summary
        asyncio.run(_run(options, finder, found, summary, display))
        return summary


@dataclass
class Plan:
    """What a run would send. contexts: instances by SOP class and transfer syntax. size: bytes."""

    contexts: Counter[tuple[str, str]] = field(default_factory=Counter)
    size: int = 0
    skipped: int = 0
    failed: int = 0

    @property
    def instances(self) -> int:
        return self.contexts.total()

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "instances": self.instances,
            "bytes": self.size,
            "skipped": self.skipped,
            "failed": self.failed,
            "contexts": [
                {"sop_class_uid": sop_class, "transfer_syntax_uid": syntax, "instances": number}
                for (sop_class, syntax), number in self.contexts.most_common()
            ],
        }


def plan_send(paths: Sequence[str], *, repeat: int = 1, listed: Iterable[bytes] = ()) -> Plan:
    """Look at what the paths name, as a run does, and send nothing. Arguments as of `run_send`.

    repeat: how often a run sends each of them.
    """
    plan = Plan()
    finder = Finder(paths, listed)
    while not finder.complete:
        found = Found()
        finder.look(found, _AT_A_TIME, _FIRST_S)
        for _path, head in found.files:
            plan.contexts[head.sop_class, head.transfer_syntax] += repeat
            plan.size += head.size * repeat
        for path, why in found.skipped:
            log.info("%s is skipped: %s", printable(os.fsdecode(path)), why)
        for path, why in found.failed:
            log.warning("%s: %s", printable(os.fsdecode(path)), why)
        plan.skipped += len(found.skipped)
        plan.failed += len(found.failed)
    return plan


def _first_found(finder: Finder, options: Options, display: _Display) -> Found:
    """Everything, of a small collection; of a large one enough to begin with."""
    found = Found()
    began = time.monotonic()
    # Whoever sends them more than once has to keep them all anyway.
    while not finder.complete and (
        options.repeat > 1 or len(found.files) < _FIRST_FILES or time.monotonic() - began < _FIRST_S
    ):
        finder.look(found, _AT_A_TIME, _FIRST_S)
        display.looking(finder.seen)
        # Whoever writes a list may take hours over it.
        is_late = finder.waits and time.monotonic() - began >= _FIRST_S
        if is_late and found.files and options.repeat == 1:
            break
    # No collection need ever look at them again.
    gc.freeze()
    return found


async def _run(
    options: Options, finder: Finder, found: Found, summary: Summary, display: _Display
) -> None:
    loop = asyncio.get_running_loop()
    shipment = Shipment(options, finder, found, summary, display.say)
    work = asyncio.ensure_future(shipment.run())
    asked = 0

    def interrupted() -> None:
        nonlocal asked
        asked += 1
        if asked == 1:
            display.say("interrupted: finishing what is on its way; once more to break off")
        shipment.interrupt()

    for name in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(name, interrupted)
    try:
        while not work.done():
            await asyncio.wait([work], timeout=_REFRESH_S)
            display.sending(shipment, summary)
        await work
    finally:
        for name in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(name)
