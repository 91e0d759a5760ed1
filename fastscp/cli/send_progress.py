"""How far `fastscp send` has come, as a bar on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.text import Text

from fastscp.association.account import in_bytes
from fastscp.log import counted

if TYPE_CHECKING:
    from types import TracebackType

    from fastscp.scu.send.outcomes import Summary
    from fastscp.scu.send.shipment import Shipment

__all__ = ["Bar"]


class Bar:
    """Instances, rate, time left and failures, on stderr."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[counts]}"),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
        )
        self._task = self._progress.add_task("looking for files", total=None, counts="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def say(self, line: str) -> None:
        self._console.print(Text(line), soft_wrap=True)

    def looking(self, seen: int) -> None:
        self._progress.update(self._task, counts=counted(seen, "file"))

    def sending(self, shipment: Shipment, summary: Summary) -> None:
        task = self._progress.tasks[0]
        rate = shipment.sent_bytes / max(task.elapsed or 0.0, 1e-3)
        failed = f", {summary.failed} failed" if summary.failed else ""
        # While files are still being looked for, how much there is to do is not known.
        source = shipment.source
        more = "" if source.complete else "+"
        self._progress.update(
            self._task,
            description="sending",
            total=source.instances if source.complete else None,
            completed=shipment.answered,
            counts=f"{shipment.answered}/{source.instances}{more}, {in_bytes(rate)}/s{failed}",
        )
