"""Which paths belong to a study, by the layouts of a store."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeAlias

from fastscp.store.components import components
from fastscp_ext import Layout

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["Studies", "Way"]

_STUDY: Final = "{StudyInstanceUID}"
_KEY: Final = re.compile(r"(\{[A-Za-z]+\})")
_UID: Final = "[0-9A-Za-z][0-9A-Za-z._%-]*"
# 147 to 150 bytes, and a hash.
_CUT: Final = r".{36,150}~[0-9a-f]{16}"


@dataclass
class _Step:
    """What a path may go on with.

    names, patterns: of the next component. told: the layouts that the path tells the study by, as
    soon as it does; from there on it may be any.
    """

    names: dict[str, _Step] = field(default_factory=dict)
    patterns: dict[str, tuple[re.Pattern[str], _Step]] = field(default_factory=dict)
    told: list[_Told] = field(default_factory=list)


@dataclass(frozen=True)
class _Told:
    """depth: components that name the study. length: of a path of this layout. place: in order."""

    depth: int
    length: int
    place: int


# How far the layouts go along with the beginning of a path.
Way: TypeAlias = "Sequence[_Step]"


class Studies:
    """The paths that some layouts make for one study, or for any.

    layouts: those of a store, the top level's first. study: its Study Instance UID; "": any.
    tells: whether any layout tells the study of a file. tells_all: whether each does.
    """

    def __init__(self, layouts: Sequence[str], study: str = "") -> None:
        telling = [layout for layout in layouts if _STUDY in layout]
        self.tells = bool(telling)
        self.tells_all = self.tells and len(telling) == len(layouts)
        self._study = study
        self._root = _Step()
        self._depth = _depth(layouts[0]) if layouts else 1
        for place, layout in enumerate(layouts):
            if _STUDY in layout:
                self._add(layout, place)

    def way(self, folder: str) -> Way:
        """How far the layouts go along with a folder, "" for the store itself."""
        return _along([self._root], folder.split("/") if folder else ())

    @staticmethod
    def takes(way: Way, name: str, *, is_folder: bool) -> bool:
        """Whether what has this name at the end of a way is of the study; a folder: may hold some.

        What lies above the folder of a study is of no study.
        """
        steps = _further(way, name)
        return bool(steps) and (is_folder or any(step.told for step in steps))

    def depth(self, path: str, study: str) -> int:
        """How many components of a path name the study it belongs to, 1 where no layout says it.

        study: its Study Instance UID, "" if it is not known.
        """
        parts = path.split("/")
        steps = _along([self._root], parts)
        # The last component is a file's, and names no study that is a folder.
        told = [told for step in steps for told in step.told if told.depth < len(parts)]
        if not told:
            return self._depth

        def rank(one: _Told) -> tuple[bool, bool, int]:
            is_named = bool(study) and study in parts[one.depth - 1]
            return not is_named, one.length != len(parts), one.place

        return min(told, key=rank).depth

    def _add(self, layout: str, place: int) -> None:
        texts = layout.split("/")
        depth = _depth(layout)
        step = self._root
        for number, text in enumerate(texts):
            is_file = number == len(texts) - 1
            step = self._next(step, layout, number, text, is_file=is_file)
            if _STUDY in text:
                step.told.append(_Told(depth, len(texts), place))
                return

    def _next(self, step: _Step, layout: str, number: int, text: str, *, is_file: bool) -> _Step:
        if not _KEY.search(text):
            return step.names.setdefault(_as_named(text), _Step())
        # Behind a file's name may be another suffix, and the mark of a version.
        pattern = self._pattern(text.removesuffix(".dcm") if is_file else text)
        if components(layout)[number].is_cut:
            pattern = f"(?:{pattern}|{_CUT})"
        if is_file:
            pattern += ".*"
        found = step.patterns.get(pattern)
        if found is None:
            found = step.patterns[pattern] = (re.compile(pattern, re.DOTALL), _Step())
        return found[1]

    def _pattern(self, text: str) -> str:
        return "".join(map(self._part, _KEY.split(text)))

    def _part(self, part: str) -> str:
        if part == _STUDY and not self._study:
            return _UID
        if part != _STUDY and _KEY.fullmatch(part):
            return ".+"
        # A folder that would look like a file of the store has its last dot encoded.
        said = self._study if part == _STUDY else part
        return re.escape(said).replace(r"\.", r"(?:\.|%2E)")


def _further(way: Way, name: str) -> Way:
    steps: list[_Step] = []
    for step in way:
        if step.told:
            steps.append(step)
            continue
        if (named := step.names.get(name)) is not None:
            steps.append(named)
        steps += [after for pattern, after in step.patterns.values() if pattern.fullmatch(name)]
    return steps


def _along(way: Way, names: Iterable[str]) -> Way:
    for name in names:
        way = _further(way, name)
    return way


def _depth(layout: str) -> int:
    folders = layout.split("/")[:-1]
    return next((n for n, folder in enumerate(folders, start=1) if _STUDY in folder), 1)


def _as_named(folder: str) -> str:
    """The name of a folder without any key, as the codec makes it."""
    uids = dict.fromkeys(("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"), b"1")
    # Not at the top: there is no folder with a dot in front.
    return Layout(f"x/{folder}/{{SOPInstanceUID}}.dcm").render(uids).split("/")[1]
