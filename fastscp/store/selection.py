"""The part of a store that a check is limited to: one study, or what came since some time."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from fastscp.store.journal import time_text

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

__all__ = ["Selection", "study_depth"]

_STUDY: Final = "{StudyInstanceUID}"
_KEY: Final = re.compile(r"\{[A-Za-z]+\}")


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

    def folders(self, layout: str) -> tuple[re.Pattern[str] | None, ...] | None:
        """What each component of a path must be for files of the study, None where it may be any.

        None in all: the layout does not tell the study, so that no file without a line is found.
        """
        if not self.study:
            return ()
        if _STUDY not in layout:
            return None
        *folders, name = layout.split("/")
        # Behind a file's name may be another suffix, and the mark of a version.
        return tuple(
            _matching(component, self.study) if _STUDY in component else None
            for component in (*folders, name.removesuffix(".dcm") + "{AnySuffix}")
        )


# It is asked once a line, of the same time.
_as_in_a_line: Final = lru_cache(maxsize=1)(time_text)


def _matching(component: str, study: str) -> re.Pattern[str]:
    fixed = [".*".join(map(re.escape, _KEY.split(part))) for part in component.split(_STUDY)]
    return re.compile(re.escape(study).join(fixed))


def study_depth(layout: str) -> int:
    """How many components of a path name the study it belongs to, 1 where the layout has none."""
    folders = layout.split("/")[:-1]
    return next((n for n, folder in enumerate(folders, start=1) if _STUDY in folder), 1)
