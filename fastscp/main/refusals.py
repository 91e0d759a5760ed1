"""The last lines of the log, and those of them that tell of a refusal, in words. No I/O."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from fastscp.messages.advice import CONTEXTS, REJECTIONS, advice_for, plain
from fastscp.messages.page import LogLine, Refusal, RefusedSoFar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from fastscp.log import Line
    from fastscp.messages.totals import Counted

__all__ = ["LINES_MOST", "REFUSALS_MOST", "Told", "refused_so_far"]

# Kept of each.
LINES_MOST: Final = 200
REFUSALS_MOST: Final = 100
# Kinds of refusals, the most frequent.
_KINDS_MOST: Final = 30
_SUCCESS: Final = "0000"


class Told:
    """The last lines, and the last refusals among all that came; each has a number, which rises."""

    def __init__(self) -> None:
        self.lines: deque[LogLine] = deque(maxlen=LINES_MOST)
        self.refusals: deque[Refusal] = deque(maxlen=REFUSALS_MOST)
        self._number = 0

    def add(self, lines: Iterable[Line]) -> None:
        for line in lines:
            self._number += 1
            self.lines.append(
                LogLine(
                    n=self._number, at=line.at, level=line.level, role=line.role, text=line.text
                )
            )
            if (refusal := _refusal(self._number, line)) is not None:
                self.refusals.append(refusal)


def _refusal(number: int, line: Line) -> Refusal | None:
    """The refusal that a line tells of; None: of none."""
    told = line.fields
    status, code = told.get("status", _SUCCESS), told.get("code", "")
    if status != _SUCCESS:
        what, advice = _answered(status), advice_for(status=status)
        why = told.get("reason", "")
    elif told.get("ended") == "rejected" and code:
        what, advice = _rejected(code), advice_for(rejection=code)
        why = told.get("reason", "")
    elif "refused_classes" in told:
        what, advice = "presentation contexts refused", plain(CONTEXTS)
        why = told["refused_classes"]
    else:
        return None
    title, peer = told.get("calling_ae", ""), told.get("peer", "")
    who = f"{title}@{peer}" if title else peer
    return Refusal(n=number, at=line.at, what=what, who=who, why=why, advice=advice)


def refused_so_far(
    by_status: Mapping[tuple[str, str], Counted],
    rejected: Mapping[str, int],
    contexts: Mapping[str, int],
    names: Mapping[str, str],
) -> list[RefusedSoFar]:
    """What was refused since the start, the most frequent first, each kind with its number.

    by_status, rejected, contexts: as `Snapshot` has them. names: of UIDs.
    """
    found = [
        *_statuses(by_status),
        *(
            RefusedSoFar(
                what=_rejected(code), count=count, advice=advice_for(rejection=code),
                why=plain(REJECTIONS[code].when) if code in REJECTIONS else "",
            )
            for code, count in rejected.items() if count
        ),
        *(
            RefusedSoFar(
                what="presentation context refused", why=names.get(uid, uid), count=count,
                advice=plain(CONTEXTS),
            )
            for uid, count in contexts.items()
        ),
    ]  # fmt: skip
    return sorted(found, key=lambda one: -one.count)[:_KINDS_MOST]


def _statuses(by_status: Mapping[tuple[str, str], Counted]) -> Iterator[RefusedSoFar]:
    for (status, reason), counts in by_status.items():
        if counts.refused:
            yield RefusedSoFar(
                what=_answered(status), why=reason, count=counts.refused,
                advice=advice_for(status=status),
            )  # fmt: skip


def _answered(status: str) -> str:
    return f"instance answered {status}"


def _rejected(code: str) -> str:
    return f"association rejected ({code})"
