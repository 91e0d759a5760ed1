"""`fastscp verify`: the files of a store against its journal."""

from __future__ import annotations

import contextlib
import sys
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Final

from cyclopts import Parameter

from fastscp.cli.options import Store, StoreConfigFile, store_directory, take_umask
from fastscp.cli.output import os_errors
from fastscp.cli.verify_output import JSONOutput, Table
from fastscp.config.quantities import Duration, Size
from fastscp.config.settings import read_value
from fastscp.config.values import ExplainedError, Parsed, read_text
from fastscp.errors import StartError, StoreBusyError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.progress import Progress

    from fastscp.store.findings import Report, Watcher
    from fastscp.store.selection import Selection

__all__ = ["verify"]

_DRAW_S: Final = 0.1
# Between two lines that say how far it is, where there is no terminal.
_SAY_S: Final = 10.0
# Nobody reads a store so slowly, in bytes a second.
_PLAIN_LEAST: Final = 64 << 10


def verify(
    *,
    store: Store | None = None,
    config: StoreConfigFile | None = None,
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
    study: Annotated[
        str | None,
        Parameter(metavar="UID", show_default=False, help="Look at this study alone."),
    ] = None,
    since: Annotated[
        str | None,
        Parameter(
            metavar="TIME",
            show_default=False,
            help="Look only at what was journaled since then: a date or time such as 2026-05-31 "
            "or 2026-05-31T08:30 (UTC), or how long ago, such as 24h or 7d.",
        ),
    ] = None,
    max_rate: Annotated[
        str | None,
        Parameter(
            metavar="SIZE/s",
            show_default=False,
            help="Read no faster than this, such as 50MiB/s, and leave the disk to the service.",
        ),
    ] = None,
    json: Annotated[
        bool, Parameter(negative="", show_default=False, help="Print JSON instead of a table.")
    ] = False,
) -> int:
    """Hold the files of a store against its journal, header and data set by data set.

    Names files that are missing, changed, unreadable or unjournaled, lines of
    the journal that are damaged or have the number of another one (twice),
    what may not be on the disk because a flush failed (unflushed), what was in
    a redo log (logged), and replacements that were not through (replaced).

    A running service is not disturbed, nothing of its store is changed, and
    what it is storing at the moment is not reported. While no service runs,
    verify changes the store without being asked: it settles replacements,
    makes folders anew whose flush failed, and lifts the marks of an unclean
    end where nothing is left.

    Exit code: 0 nothing found or all put right, 1 something is left, 3 no
    store there, nothing known of it, or its redo log was not recovered, 130
    interrupted.
    """
    from fastscp.store.verify import NothingSelectedError, Verification

    path = store_directory(store, config)
    if adopt or repair_journal:
        # Instances of a redo log may be written anew.
        take_umask(None, config)
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        why = "there is no such directory; name the store with --store, or mount its file system"
        raise StartError(f"{path}: {why}") from None
    except OSError:
        pass  # Whoever opens it will say what is wrong.
    selection = _selection(study, since)
    rate = 0 if max_rate is None else read_value("--max-rate", max_rate, _RATE)
    with os_errors(), _screen() as (line, watcher):
        output = (JSONOutput if json else Table)(line, path)
        run = Verification(
            path,
            adopt=adopt,
            repair_journal=repair_journal,
            selection=selection,
            rate=rate,
            tell=lambda finding: output.finding(finding, run.study_depth(finding)),
            watcher=watcher,
        )
        report: Report | None = None
        try:
            report = run.run()
        except StoreBusyError as error:
            holder = f"process {error.pid}" if error.pid is not None else "another process"
            raise StartError(
                f"the store {path} is in use by {holder}: --adopt and --repair-journal need it to "
                f"themselves; stop that service first, or verify without them"
            ) from error
        except BrokenPipeError:
            # Nobody reads any more.
            raise
        except BaseException as error:
            so_far = run.report()
            # Where nothing was looked at, the reason says all.
            is_unbegun = isinstance(error, (StartError, NothingSelectedError))
            if so_far.left or so_far.settled or not is_unbegun:
                output.end_early(so_far)
            raise
        output.end(report)
    return 0 if report.clean else 1


# Options ----------------------------------------------------------------------------------------


def _read_rate(raw: object) -> int:
    """`SIZE` or `SIZE/s`; a small number without a unit is one whose unit was forgotten."""
    text = read_text(raw).removesuffix("/s").rstrip()
    rate = Size().read(text)
    if not rate:
        raise ValueError("would never read anything")
    if rate < _PLAIN_LEAST and text[-1:].isdigit():
        raise ExplainedError(
            f"{text!r} has no unit, so it would be {text} bytes a second; write {text}MiB/s or "
            f"{text}KiB/s, or {text}B/s if that is what you mean"
        )
    return rate


def _read_since(raw: object) -> datetime:
    """A time, or how long ago it was."""
    text = read_text(raw)
    now = datetime.now(UTC)
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return now - timedelta(seconds=Duration(0.0, 36500 * 86400.0).read(text))
    found = found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    if found > now:
        raise ExplainedError(f"{text!r} is in the future; times without a zone are UTC")
    return found


_RATE: Final = Parsed(_read_rate, "SIZE/s", "a number of bytes a second such as 50MiB/s")
_SINCE: Final = Parsed(
    _read_since, "TIME", "a time such as 2026-05-31 or 2026-05-31T08:30, or how long ago, as in 24h"
)
_STUDY: Final = Parsed(read_text, "UID", "a Study Instance UID")


def _selection(study: str | None, since: str | None) -> Selection:
    from fastscp.store.selection import Selection

    return Selection(
        study="" if study is None else read_value("--study", study, _STUDY),
        since=None if since is None else read_value("--since", since, _SINCE),
    )


# The screen -------------------------------------------------------------------------------------


@contextlib.contextmanager
def _screen() -> Iterator[tuple[Callable[[str], None], Watcher]]:
    """How a line of the result is printed; a bar on a terminal, a line now and then elsewhere."""
    if not sys.stderr.isatty():
        yield _print, _teller()
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.progress import TransferSpeedColumn as Speed
    from rich.text import Text

    both = sys.stdout.isatty()
    # Where both go to the terminal, one has to know of the other.
    console = Console(stderr=not both)

    def above_the_bar(line: str) -> None:
        console.print(Text(line), soft_wrap=True)

    with Progress(
        TextColumn("{task.fields[files]} files"),
        BarColumn(),
        Speed(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    ) as bar:
        yield above_the_bar if both else _print, _watcher(bar)


def _print(line: str) -> None:
    # At once: whoever reads it is to see it when it is found.
    print(line, flush=True)


def _teller() -> Watcher:
    from fastscp.association.account import in_bytes

    said = time.monotonic()

    def watch(*, files: int, size: int, total: int) -> None:
        nonlocal said
        if (now := time.monotonic()) - said < _SAY_S:
            return
        said = now
        # What is found matters more than that this cannot be said.
        with contextlib.suppress(OSError):
            print(
                f"verify: {files:,} files so far, {in_bytes(size)} of about {in_bytes(total)}",
                file=sys.stderr, flush=True,
            )  # fmt: skip

    return watch


def _watcher(bar: Progress) -> Watcher:
    task = bar.add_task("verify", total=None, files=0)
    drawn = 0.0

    def watch(*, files: int, size: int, total: int) -> None:
        nonlocal drawn
        # It costs more than a small file.
        if (now := time.monotonic()) - drawn >= _DRAW_S:
            drawn = now
            bar.update(task, files=files, completed=size, total=total)

    return watch
