"""What became of the instances: counts for the summary, a line each for the report."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import msgspec

from fastscp import status as codes
from fastscp.errors import ConfigError, FastscpError
from fastscp.scu.association import Response
from fastscp.status import StatusClass
from fastscp_ext import decode_command

if TYPE_CHECKING:
    from pathlib import Path

    from fastscp.scu.heads import Head

__all__ = ["Outcome", "Report", "Summary"]

# Failures named one by one; the rest is in the counts, and in the report.
_SHOWN: Final = 20


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
            # What is not UTF-8 in a name has no place in JSON.
            "path": os.fsencode(self.path).decode(errors="backslashreplace"),
            "sop_instance_uid": self.sop_instance,
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
                line["error_comment"] = answer.error_comment
            if answer.error_id is not None:
                line["error_id"] = answer.error_id
            if answer.offending_elements:
                line["offending_elements"] = [
                    f"{tag >> 16:04X},{tag & 0xFFFF:04X}" for tag in answer.offending_elements
                ]
        return line


class Report:
    """A file that gets a line of JSON per instance.

    Raises ConfigError where it cannot be made, FastscpError where it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._encoder = msgspec.json.Encoder()
        try:
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

    def write(self, outcome: Outcome) -> None:
        try:
            self._file.write(self._encoder.encode(outcome.line()) + b"\n")
        except OSError as why:
            raise self._failed(why) from None

    def _failed(self, why: OSError) -> FastscpError:
        return FastscpError(f"cannot write the report {self._path}: {why.strerror}")


@dataclass
class Summary:
    """The counts of a run. report: for a line per instance, or None."""

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
    statuses: Counter[int] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    shown: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether everything arrived."""
        return self.failed == 0 and not self.interrupted and self.stored + self.warned > 0

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
            self.reasons[outcome.reason] += 1
            count = self.warned if kind == "warning" else self.failed
            if count <= _SHOWN:
                said = f"{outcome.path}: {outcome.reason}"
            elif count == _SHOWN + 1:
                said = f"further {kind}s are counted, and named in the report only"
        if outcome.status:
            self.statuses[outcome.status] += 1
        if self.report is not None:
            self.report.write(outcome)
        return said

    def outcome(
        self,
        path: str | bytes,
        head: Head | None,
        *,
        status: int | None = None,
        command: bytes | None = None,
        nanoseconds: int = 0,
        attempts: int = 0,
        error: str = "",
        sop_instance: str = "",
    ) -> Outcome:
        """Put an outcome together. command: of a response that was judged usable."""
        response = None
        if command is not None:
            response = Response.of(decode_command(command))
        return Outcome(
            os.fsdecode(path),
            sop_instance or (head.sop_instance if head else ""),
            head.size if head else 0,
            status,
            None if status is None else round(nanoseconds / 1e6, 3),
            attempts,
            response,
            error,
        )

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
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
            "statuses": {f"{status:04X}": n for status, n in sorted(self.statuses.items())}
            | ({"0000": self.stored} if self.stored else {}),
            "reasons": dict(self.reasons.most_common(_SHOWN)),
        }
