"""`fastscp verify`: the files of a store against its journal."""

from __future__ import annotations

import contextlib
import os
import sys
from collections import Counter
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from fastscp.cli.options import Store, store_directory
from fastscp.cli.output import os_errors, plain_table, print_json, table_console
from fastscp.errors import StartError, StoreBusyError
from fastscp.log import printable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fastscp.store.findings import Report, Watcher

__all__ = ["verify"]


def verify(
    *,
    store: Store = "dicom-store",
    adopt: Annotated[
        bool,
        Parameter(
            negative="",
            show_default=False,
            help="Write the journal line of instances that have none. No service may be running.",
        ),
    ] = False,
    repair_journal: Annotated[
        bool,
        Parameter(
            negative="",
            show_default=False,
            help="Take damaged lines out of the journal; the files they were in are kept as "
            "*.damaged. No service may be running.",
        ),
    ] = False,
    json: Annotated[
        bool, Parameter(negative="", show_default=False, help="Print JSON instead of a table.")
    ] = False,
) -> int:
    """Hold the files of a store against its journal, data set by data set.

    Finds files that are missing, changed, unreadable or unjournaled, and damaged lines of the
    journal. A running service is not disturbed, and what it is storing at the moment is not
    reported. Exit code: 0 nothing found or all put right, 1 something is left, 3 no store there.
    """
    from fastscp.store import verify as verifying

    path = store_directory(store)
    with os_errors(), _progress() as watcher:
        try:
            report = verifying.verify(
                path, adopt=adopt, repair_journal=repair_journal, watcher=watcher
            )
        except StoreBusyError as error:
            holder = f"process {error.pid}" if error.pid is not None else "another process"
            raise StartError(
                f"the store {path} is in use by {holder}: --adopt and --repair-journal need it to "
                f"themselves; stop that service first, or verify without them"
            ) from error
    if json:
        _print_json(path, report)
    else:
        _print_table(path, report)
    return 0 if report.clean else 1


@contextlib.contextmanager
def _progress() -> Iterator[Watcher | None]:
    """A bar on a terminal, None elsewhere."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.progress import TransferSpeedColumn as Speed

    with Progress(
        TextColumn("{task.fields[files]} files"),
        BarColumn(),
        Speed(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    ) as bar:
        task = bar.add_task("verify", total=None, files=0)

        def watch(*, files: int, size: int, total: int) -> None:
            bar.update(task, files=files, completed=size, total=total)

        yield watch


def _print_json(path: Path, report: Report) -> None:
    shown = {
        "store": str(path),
        "clean": report.clean,
        "lines": report.lines,
        "files": report.files,
        "bytes": report.bytes,
        "torn": report.torn,
        "mark": report.mark,
        "suspect": report.suspect,
        "findings": [
            {
                "kind": finding.kind,
                "path": _encodable(finding.path),
                "why": finding.why,
                "settled": finding.settled,
            }
            for finding in report.findings
        ],
    }
    print_json(shown)


def _encodable(path: str) -> str:
    """A file name that is no UTF-8, with escapes where it is not."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _print_table(path: Path, report: Report) -> None:
    from rich.text import Text

    console = table_console()
    if report.findings:
        table = plain_table("finding", "path", "why")
        for finding in report.findings:
            why = f"{finding.why}: {finding.settled}" if finding.settled else finding.why
            # Text, not str: nothing in a name is markup.
            table.add_row(Text(finding.kind), Text(printable(_encodable(finding.path))), Text(why))
        console.print(table)
    console.print(Text("\n".join(_summary(path, report))))


def _summary(path: Path, report: Report) -> Iterator[str]:
    left = Counter(finding.kind for finding in report.findings if not finding.settled)
    settled = sum(1 for finding in report.findings if finding.settled)
    said = ", ".join(f"{number} {kind}" for kind, number in sorted(left.items()))
    if settled:
        said = f"{said or 'nothing left'}, {settled} put right"
    yield (
        f"{path}: {report.files} files, {report.bytes / 2**20:.1f} MiB of data sets, "
        f"{report.lines} journal lines: {said or 'nothing found'}"
    )
    if report.torn:
        yield f"{report.torn} journal files end inside a line, as a crash leaves them: no loss"
    match report.mark:
        case "lifted":
            yield "the mark of an unclean end is lifted: every file is what the journal says"
        case "stays":
            yield "the mark of an unclean end stays until nothing is found"
        case "adopted":
            yield (
                f"the mark of an unclean end stays: of {report.suspect} adopted files nobody knows "
                f"that they are what was sent; send those instances again, and the service "
                f"compares them"
            )
        case "in use":
            yield (
                "the mark of an unclean end stays, because a service is running: "
                "verify once without it"
            )
