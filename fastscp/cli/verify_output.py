"""What `fastscp verify` prints, finding by finding: for people, and as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

from fastscp.log import escape, in_json, printable
from fastscp.store.names import HOME

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from fastscp.store.findings import Finding, Report

__all__ = ["JSONOutput", "Output", "Table"]

# Findings shown of one study, and of all.
_SHOWN_OF_STUDY: Final = 20
_SHOWN: Final = 200
_OWN: Final = f"{HOME}/"
# What to do about a kind of which no finding says it.
_ADVICE: Final = {
    "missing": "have it sent again, or restore it from a backup",
    "changed": "move the file out of the store, then have it sent again, or restore it",
}
# Names of journal files that end inside a line.
_SHOWN_TORN: Final = 10


class Output(Protocol):
    """Told of each finding as it comes, and then of the end."""

    def finding(self, finding: Finding, study_depth: int) -> None: ...

    def end(self, report: Report) -> None: ...

    def end_early(self, report: Report) -> None:
        """The run did not come to its end; why is said elsewhere."""


class Table:
    """For people: a line a finding below the name of its study; of many, the first ones.

    line: prints a line. store: what is verified.
    """

    def __init__(self, line: Callable[[str], None], store: Path) -> None:
        self._line = line
        self._store = store
        self._study: str | None = None
        self._of_study = 0
        self._shown = 0
        self._hidden = 0
        # Of instances: what the service has of its own says what to do about it.
        self._kinds: set[str] = set()

    def finding(self, finding: Finding, study_depth: int) -> None:
        folder, name = _divide(finding.path, study_depth)
        if folder != self._study:
            self._end_study()
            is_first = self._study is None
            self._study = folder
            self._of_study = 0
            # One at the top of the store is in no study, nor in the one above it.
            if (folder or not is_first) and self._shown < _SHOWN:
                self._line(f"{printable(folder) or '.'}/")
        self._of_study += 1
        if not finding.path.startswith(_OWN) and not finding.settled:
            self._kinds.add(finding.kind)
        if self._of_study > _SHOWN_OF_STUDY or self._shown >= _SHOWN:
            self._hidden += 1
            return
        self._shown += 1
        self._line(f"  {finding.kind:<12} {printable(name)}  {_why(finding)}")

    def end(self, report: Report) -> None:
        self._end_study()
        for line in _summary(self._store, report):
            self._line(line)
        for kind, advice in _ADVICE.items():
            if kind in self._kinds:
                self._line(f"{kind}: {advice}")
        self._end_hidden()

    def end_early(self, report: Report) -> None:
        self._end_study()
        self._line(f"not finished; so far: {next(_summary(self._store, report))}")
        self._end_hidden()

    def _end_hidden(self) -> None:
        if self._hidden:
            self._line(f"{self._hidden:,} of the findings are not shown: --json prints all")

    def _end_study(self) -> None:
        more = self._of_study - _SHOWN_OF_STUDY
        if more > 0 and self._shown < _SHOWN:
            self._line(f"  and {more:,} more")


def _divide(path: str, depth: int) -> tuple[str, str]:
    """The study that a path belongs to, by its first components, and the rest of the path."""
    parts = path.split("/")
    depth = min(depth, len(parts) - 1)
    return "/".join(parts[:depth]), "/".join(parts[depth:])


def _why(finding: Finding) -> str:
    # A value in it may be escaped already; the name of another store is not.
    said = escape(finding.why)
    origin = finding.origin
    if origin is not None and origin.time:
        sender = f"{origin.calling_ae or '(no title)'} at {origin.peer or 'an unknown address'}"
        said += f"; from {printable(sender)}, {printable(origin.time)}"
    return f"{said}: {finding.settled}" if finding.settled else said


def _summary(path: Path, report: Report) -> Iterator[str]:
    from fastscp.association.account import in_bytes

    said = ", ".join(f"{number} {kind}" for kind, number in sorted(report.left.items()))
    if report.settled:
        said = f"{said or 'nothing left'}, {report.settled} put right"
    yield (
        f"{escape(str(path))}: {report.files} files, {in_bytes(report.bytes)} of journaled "
        f"data sets, {report.lines} journal lines: {said or 'nothing found'}"
    )
    if report.unchecked:
        yield (
            f"the contents of {report.unchecked} files were not checked, only their headers and "
            f"lengths: their journal lines have no digest (--digest none)"
        )
    if not report.searched:
        yield (
            "files without a journal line were not looked for where a layout of this store does "
            "not tell the study of a file; verify without --study finds them"
        )
    if report.torn:
        shown = ", ".join(map(printable, report.torn[:_SHOWN_TORN]))
        more = " and others" if len(report.torn) > _SHOWN_TORN else ""
        yield (
            f"{len(report.torn)} journal files end inside a line, as a crash leaves them: a stable "
            f"instance was not acknowledged before its line was whole, so they may stay as they "
            f"are: {shown}{more}"
        )
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
        case "unproven":
            yield (
                f"the mark of an unclean end stays: the contents of {report.unproven} buffered "
                f"files without a digest cannot be checked; send those instances again to a "
                f"service with --digest crc32c, or --durability stable, which compares them"
            )
        case "in use":
            yield (
                "the mark of an unclean end stays, because a service is running: "
                "verify once without it"
            )
        case "partial":
            yield (
                "the mark of an unclean end stays, because only a part of the store was looked "
                "at: verify once without --study and --since"
            )


class JSONOutput:
    """For programs: one document, a line a finding, the sums behind them."""

    def __init__(self, line: Callable[[str], None], store: Path) -> None:
        self._line = line
        self._store = store
        self._begun = False

    def finding(self, finding: Finding, study_depth: int) -> None:  # noqa: ARG002
        shown: dict[str, Any] = {
            "kind": finding.kind,
            "path": in_json(finding.path),
            "why": in_json(finding.why),
            "settled": finding.settled,
        }
        if finding.origin is not None:
            shown |= {
                "study_instance_uid": finding.origin.study,
                "calling_ae": finding.origin.calling_ae,
                "peer": finding.origin.peer,
                "time": finding.origin.time,
            }
        # The comma stands in front, because nobody knows yet whether another one comes.
        comma = "," if self._begun else " "
        self._begin()
        self._line(f"   {comma}{_json(shown)}")

    def end(self, report: Report) -> None:
        self._end(report, complete=True)

    def end_early(self, report: Report) -> None:
        self._end(report, complete=False)

    def _begin(self) -> None:
        if not self._begun:
            self._line(f'{{\n  "store": {_json(str(self._store))},\n  "findings": [')
        self._begun = True

    def _end(self, report: Report, *, complete: bool) -> None:
        sums = {
            "complete": complete,
            "clean": complete and report.clean,
            "lines": report.lines,
            "files": report.files,
            "bytes": report.bytes,
            "unchecked": report.unchecked,
            "unproven": report.unproven,
            "searched": report.searched,
            "torn": len(report.torn),
            "torn_files": [in_json(one) for one in report.torn],
            "mark": report.mark,
            "suspect": report.suspect,
            "left": report.left,
            "settled": report.settled,
        }
        self._begin()
        told = ",\n".join(f"  {_json(name)}: {_json(value)}" for name, value in sums.items())
        self._line(f"  ],\n{told}\n}}")


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode("utf-8")
