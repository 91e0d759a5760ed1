"""The part of a store that a check is limited to: one study, or what came since some time."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from fastscp.store.journal import time_text

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

__all__ = ["Selection"]


@dataclass(frozen=True)
class Selection:
    """What is looked at.

    study: a Study Instance UID, "" for all. since: by the time in the line, UTC; for a file without
    a line the time its inode changed; None for all.
    """

    study: str = ""
    since: datetime | None = None

    def __bool__(self) -> bool:
        """Whether anything is left out."""
        return bool(self.study) or self.since is not None

    def takes(self, fact: Mapping[str, Any]) -> bool:
        """Whether the file of a fact is looked at."""
        if self.study and fact.get("study_instance_uid") != self.study:
            return False
        return self.since is None or str(fact.get("time", "")) >= _as_in_a_line(self.since)


# It is asked once a line, of the same time.
_as_in_a_line: Final = lru_cache(maxsize=1)(time_text)
