"""The commands that look into a store: `verify` and `cat`.

Plain functions; `cli` makes commands of them. As there, results go to stdout, all else to stderr.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

from cyclopts import Parameter

from fastscp.config.settings import read_value
from fastscp.config.values import Parsed, read_path
from fastscp.errors import ConfigError, FastscpError, StartError, StoreBusyError
from fastscp.log import printable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import IO

    from cyclopts import App

    from fastscp.store.verify import Report, Watcher

__all__ = ["cat", "register", "verify"]

_DIRECTORY: Final = Parsed(read_path, "DIR", "a directory")
_CHUNK: Final = 1 << 20

Store = Annotated[
    str,
    Parameter(
        name="--store",
        metavar="DIR",
        env_var="FASTSCP_STORE",
        help="Directory of the store. Default: ./dicom-store",
        show_default=False,
    ),
]


def register(app: App) -> None:
    """Make the functions of this module commands of an app."""
    app.command(verify)
    app.command(cat)


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

    path = read_value("--store", store, _DIRECTORY)
    with _os_errors(), _progress() as watcher:
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


def cat(
    path: Annotated[
        str,
        Parameter(
            name="PATH", help="A file below the store, as the journal names it; or any other file."
        ),
    ],
    /,
    *,
    store: Store = "dicom-store",
) -> int:
    """Write a stored instance to stdout as a DICOM file, decompressed where it is compressed."""
    import zstandard

    from fastscp.store.compress import open_part10
    from fastscp.store.folders import OWN, is_own

    if sys.stdout.isatty():
        raise ConfigError(
            "cat", "would write binary data to the terminal; redirect it, as in `> instance.dcm`"
        )
    directory = read_value("--store", store, _DIRECTORY)
    found = directory / path
    if not found.is_file():
        found = Path(path)
    if not found.exists():
        raise FastscpError(
            f"cannot write out {printable(path)}: No such file or directory, neither below the "
            f"store {directory} nor by itself; name it as the journal's `path` does, and the "
            f"store with --store"
        )
    if is_own(found):
        raise FastscpError(f"{printable(path)} {OWN}, and the instance as its journal does")
    found = found.resolve()
    with _os_errors():
        folder_fd = os.open(found.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with open_part10(found.name, folder_fd) as file:
                _copy(file)
        except zstandard.ZstdError as error:
            raise FastscpError(f"{printable(path)} is damaged: {error}") from error
        finally:
            os.close(folder_fd)
    return 0


def _copy(file: IO[bytes]) -> None:
    while data := file.read(_CHUNK):
        sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


@contextlib.contextmanager
def _os_errors() -> Iterator[None]:
    """A failure of the system, in one line. A broken pipe is left to who handles it."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        where = f"{printable(os.fsdecode(error.filename))}: " if _is_name(error.filename) else ""
        raise FastscpError(f"{where}{error.strerror or error}") from error


def _is_name(value: object) -> bool:
    return isinstance(value, (str, bytes))


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


# Results ----------------------------------------------------------------------------------------


def _print_json(path: Path, report: Report) -> None:
    import msgspec

    shown = {
        "store": str(path),
        "clean": report.clean,
        "lines": report.lines,
        "files": report.files,
        "bytes": report.bytes,
        "torn": report.torn,
        "mark": report.mark,
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
    print(msgspec.json.format(msgspec.json.encode(shown), indent=2).decode("utf-8"))  # noqa: T201


def _encodable(path: str) -> str:
    """A file name that is no UTF-8, with escapes where it is not."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _print_table(path: Path, report: Report) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    # Lines are cut to a terminal only: another program gets each finding on one line.
    console = Console(width=None if sys.stdout.isatty() else 10_000)
    if report.findings:
        table = Table("finding", "path", "why", box=None, pad_edge=False, header_style="bold")
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
        case "in use":
            yield (
                "the mark of an unclean end stays, because a service is running: "
                "verify once without it"
            )
