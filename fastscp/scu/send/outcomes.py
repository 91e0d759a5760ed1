"""What became of the instances: counts for the summary, lines for the report and for people."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import stat
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Self

import msgspec

from fastscp import status as codes
from fastscp.errors import ConfigError, FastscpError
from fastscp.log import counted, escape, in_json, printable, shown
from fastscp.scu.errors import ContextRefused, PeerError
from fastscp.scu.heads import is_part10
from fastscp.scu.response import COMMENT_SHOWN, Response
from fastscp.status import StatusClass
from fastscp_ext import decode_command

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from fastscp.scu.contexts import Context
    from fastscp.scu.heads import Head
    from fastscp.scu.send.files import File
    from fastscp.scu.send.group import FileParcel

__all__ = ["INTERRUPTED", "Outcome", "Outcomes", "Report", "Summary", "file_error"]

log = logging.getLogger("fastscp.send")

INTERRUPTED: Final = "interrupted"

# Failures named one by one; the rest is in the counts, and in the report.
_SHOWN: Final = 20
# Different reasons that are kept, and Offending Elements of a line: a peer may make any number.
_REASONS: Final = 1000
_TAGS: Final = 64
# Bytes that tell an instance from a report.
_START: Final = 132


@dataclass(slots=True)
class Outcome:
    """Of one instance, final. status: None where no response came. error: why, if it failed."""

    path: str
    sop_instance: str
    size: int
    status: int | None
    milliseconds: float | None
    attempts: int
    response: Response | None = None
    error: str = ""

    @classmethod
    def of(
        cls,
        path: bytes,
        head: Head | None,
        parcel: FileParcel | None,
        error: str,
    ) -> Self:
        """Put an outcome together. parcel: what was made of the file, if it came so far."""
        response = None
        if parcel is not None and parcel.response is not None:
            response = Response.of(decode_command(parcel.response))
        answered = parcel is not None and parcel.status >= 0
        return cls(
            os.fsdecode(path),
            _sent_uid(parcel) or (head.sop_instance if head else ""),
            head.size if head else 0,
            parcel.status if parcel is not None and answered else None,
            round(parcel.nanoseconds / 1e6, 3) if parcel is not None and answered else None,
            parcel.attempts if parcel is not None else 0,
            response,
            error,
        )

    @property
    def kind(self) -> str:
        """`success`, `warning` or `failure`."""
        if self.error or self.status is None:
            return "failure"
        kind = codes.classify(self.status)
        return kind.value if kind in (StatusClass.SUCCESS, StatusClass.WARNING) else "failure"

    @property
    def reason(self) -> str:
        """For people: what the peer answered, or why it could not."""
        if self.error or self.status is None:
            return self.error
        return str(self.response) if self.response else codes.describe(self.status)

    def line(self) -> dict[str, Any]:
        """As the report has it."""
        line: dict[str, Any] = {
            "path": in_json(self.path),
            "sop_instance_uid": printable(self.sop_instance),
            "outcome": self.kind,
            "status": None if self.status is None else f"{self.status:04X}",
            "meaning": None if self.status is None else codes.describe(self.status)[5:],
            "bytes": self.size,
            "milliseconds": self.milliseconds,
            "attempts": self.attempts,
        }
        if self.error:
            line["error"] = self.error
        if self.response is not None:
            answer = self.response
            if answer.error_comment is not None:
                line["error_comment"] = shown(answer.error_comment, COMMENT_SHOWN)
            if answer.error_id is not None:
                line["error_id"] = answer.error_id
            if answer.offending_elements:
                line["offending_elements"] = [
                    f"{tag >> 16:04X},{tag & 0xFFFF:04X}"
                    for tag in answer.offending_elements[:_TAGS]
                ]
        return line


class Report:
    """A file that gets a line of JSON per instance, and per file that is none.

    A report that is there is overwritten, and nothing else is. inputs: what is to be sent, none of
    which may be the report.
    Raises ConfigError where it cannot be made, FastscpError where it cannot be written.
    """

    def __init__(self, path: Path, inputs: Iterable[str] = ()) -> None:
        self._path = path
        self._encoder = msgspec.json.Encoder()
        try:
            if _is_other(path, inputs):
                raise ConfigError(
                    "--report", f"{path} is there, and is no report; name another file"
                )
            self._file = path.open("wb")
        except OSError as error:
            raise ConfigError(
                "--report", f"cannot write {path} ({error.strerror}); name another file"
            ) from None

    def close(self) -> None:
        try:
            self._file.close()
        except OSError as why:
            raise self._failed(why) from None

    def write(self, line: dict[str, Any]) -> None:
        try:
            self._file.write(self._encoder.encode(line) + b"\n")
        except OSError as why:
            raise self._failed(why) from None

    def _failed(self, why: OSError) -> FastscpError:
        return FastscpError(
            f"cannot write the report {self._path}: {why.strerror}; make room there, or name "
            f"another file (--report)"
        )


def _is_other(path: Path, inputs: Iterable[str]) -> bool:
    """Whether a file with something in it is no report of an earlier run. Raises OSError."""
    try:
        about = path.stat()
        if not stat.S_ISREG(about.st_mode) or not about.st_size:
            return False
    except FileNotFoundError:
        return False
    with path.open("rb") as file:
        start = file.read(_START)
    if not start.startswith(b"{") or is_part10(start):
        return True
    for name in inputs:
        # What cannot be looked at is said of the input.
        with contextlib.suppress(OSError):
            if path.samefile(name):
                return True
    return False


@dataclass
class Summary:
    """The counts of a run. report: for a line per instance, or None.

    left: found, and not begun when the run was interrupted. reasons: instances that failed, or were
    stored with a warning, by reason, up to a number of different ones; `unlisted` have others.
    """

    report: Report | None = None
    skipped: int = 0
    stored: int = 0
    warned: int = 0
    failed: int = 0
    retried: int = 0
    size: int = 0
    seconds: float = 0.0
    associations: int = 0
    interrupted: bool = False
    left: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    unlisted: int = 0

    @property
    def ok(self) -> bool:
        """Whether everything arrived."""
        return self.failed == 0 and not self.interrupted and self.stored + self.warned > 0

    @property
    def nothing(self) -> bool:
        """Whether there was nothing to send at all."""
        found = self.stored + self.warned + self.failed + self.left
        return not found and not self.interrupted

    def skip(self, path: bytes, why: str) -> None:
        """Count a file that is no instance, and write its line."""
        self.skipped += 1
        if self.report is not None:
            line = Outcome.of(path, None, None, why).line()
            self.report.write(line | {"outcome": "skipped"})

    def stored_plainly(self, size: int) -> None:
        """Count a success that nobody wants a line about."""
        self.stored += 1
        self.size += size

    def add(self, outcome: Outcome) -> str | None:
        """Count an outcome, and write its line; returns what to say about it, if anything."""
        said = None
        kind = outcome.kind
        if kind == "success":
            self.stored_plainly(outcome.size)
        elif kind == "warning":
            self.warned += 1
            self.size += outcome.size
        else:
            self.failed += 1
        if kind != "success":
            self._note_reason(outcome.reason)
            count = self.warned if kind == "warning" else self.failed
            if count <= _SHOWN:
                # A reason quotes others in escapes; to escape these again would double them.
                said = f"{printable(outcome.path)}: {escape(outcome.reason)}"
            elif count == _SHOWN + 1:
                said = f"further {kind}s are counted, and named in the report only"
        if outcome.status:
            self.statuses[outcome.status] += 1
        if self.report is not None:
            self.report.write(outcome.line())
        return said

    def _note_reason(self, reason: str) -> None:
        if reason in self.reasons or len(self.reasons) < _REASONS:
            self.reasons[reason] += 1
        else:
            self.unlisted += 1

    def top_reasons(self, most: int) -> tuple[list[tuple[str, int]], int, int]:
        """The reasons of most instances with their counts; and of how many others how many have.

        Of reasons that were not kept nobody knows how different they are: they count as one.
        """
        top = self.reasons.most_common(most)
        others = self.reasons.total() + self.unlisted - sum(count for _, count in top)
        return top, len(self.reasons) - len(top) + bool(self.unlisted), others

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        top, further, theirs = self.top_reasons(_SHOWN)
        return {
            "instances": self.stored + self.warned + self.failed,
            "stored": self.stored,
            "warnings": self.warned,
            "failed": self.failed,
            "skipped": self.skipped,
            "retried": self.retried,
            "bytes": self.size,
            "seconds": round(self.seconds, 6),
            "associations": self.associations,
            "interrupted": self.interrupted,
            "not_sent": self.left,
            "statuses": {f"{status:04X}": n for status, n in sorted(self.statuses.items())}
            | ({"0000": self.stored} if self.stored else {}),
            "reasons": dict(top),
            "further_reasons": {"reasons": further, "instances": theirs},
        }


class Outcomes:
    """Counts what becomes of the instances, and says what people should know at once.

    summary: takes every outcome. say: a line for people.
    """

    def __init__(self, summary: Summary, say: Callable[[str], None]) -> None:
        self.summary = summary
        self._say = say
        self._said: set[str] = set()
        self._lost: Counter[str] = Counter()

    def skipped(self, files: Iterable[tuple[bytes, str]]) -> None:
        """Count files that are no instances, found in folders: path and reason."""
        for path, why in files:
            self.summary.skip(path, why)
            log.info("%s is skipped: %s", printable(os.fsdecode(path)), why)

    def unreadable(self, path: bytes, why: str) -> None:
        """Count what should be an instance, and has no head."""
        self._add(Outcome.of(path, None, None, why))

    def count(self, file: File, parcel: FileParcel | None = None, *, error: str = "") -> None:
        """Count an instance. error: why it failed, where that is not the peer's response."""
        self._add(Outcome.of(*file, parcel, error))

    def put_off(self, parcel: FileParcel) -> None:
        """Say why an instance is tried again, if there was an answer: once for each answer."""
        if parcel.response is None:
            return
        outcome = Outcome.of(*parcel.item, parcel, "")
        said = f"{printable(outcome.path)}: {escape(outcome.reason)}; it is tried again"
        # A peer may have any number of comments.
        if len(self._said) < _REASONS:
            self._say_once(outcome.reason, said)

    def interrupt(self, parcel: FileParcel) -> None:
        """Count an instance that was tried, and has no outcome, for the run was interrupted."""
        error = INTERRUPTED
        if parcel.before is not None:
            error = f"{INTERRUPTED}, last answer {Response.of(decode_command(parcel.before))}"
        self.count(parcel.item, parcel, error=error)

    def lose(self, file: File, parcel: FileParcel | None, why: PeerError) -> None:
        """Count an instance that no association can be had for; `say_lost` says how many."""
        tried = parcel is not None and parcel.attempts
        self.summary.add(Outcome.of(*file, parcel, str(why) if tried else f"not tried: {why}"))
        self._lost[str(why)] += 1

    def refuse(self, parcel: FileParcel, context: Context) -> None:
        """Count an instance whose presentation context the peer refused."""
        syntax = context.transfer_syntaxes[0]
        why = str(ContextRefused(context.abstract_syntax, syntax, context.result))
        self.summary.add(Outcome.of(*parcel.item, parcel, why))
        self._say_once(why, why)

    def _say_once(self, why: str, line: str) -> None:
        """Say a line about the first instance of those that have the same reason."""
        if why not in self._said:
            self._said.add(why)
            self._say(line)

    def say_lost(self) -> None:
        """Say how many instances could not be sent, and why."""
        for why, lost in self._lost.items():
            self._say(f"{counted(lost, 'instance was', 'instances were')} not sent: {why}")

    def _add(self, outcome: Outcome) -> None:
        said = self.summary.add(outcome)
        if said is None:
            return
        if outcome.kind == "failure" and not log.isEnabledFor(logging.WARNING):
            # Whoever wants to hear of failures only wants to hear of which file.
            log.error("%s", said)
        else:
            self._say(said)


def file_error(parcel: FileParcel) -> str:
    """Why the file of a parcel could not be sent."""
    if parcel.error == errno.ESTALE:
        return "it changed since it was looked at"
    if parcel.error == errno.EBADMSG:
        return "its compressed content is damaged"
    if parcel.item[1].compressed and parcel.error in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"cannot be decompressed: {os.strerror(parcel.error)} in {tempfile.gettempdir()}; "
            f"name a folder with space for it in TMPDIR"
        )
    return f"cannot be read: {os.strerror(parcel.error)}"


def _sent_uid(parcel: FileParcel | None) -> str:
    """The SOP Instance UID that was sent: under --new-uids not that of the file."""
    if parcel is None:
        return ""
    return decode_command(parcel.command).affected_sop_instance_uid or ""
