"""A TOML file with settings: its keys with the lines they stand in, and all that is wrong with it.

What the file holds is what tomllib says of it whole; `statements` tells where that stands.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from fastscp.config.nesting import DEPTH_MOST, loads, too_deep
from fastscp.config.statements import (
    Mistake,
    said,
    statements,
    statements_that_are_toml,
)
from fastscp.errors import ConfigError
from fastscp.log import escape

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fastscp.config.statements import Statement

__all__ = ["Contents", "Key", "Mistake", "read_toml", "written_path"]

# No file with settings is longer; a device has no end.
_MOST_BYTES: Final = 1 << 20
# A kind of table, the name of one, a key in it.
_PATH_MOST: Final = 3
# Bits of a number in TOML; whoever writes a longer one in decimal digits takes long, or fails.
_NUMBER_BITS: Final = 64
_BARE: Final = re.compile("[A-Za-z0-9_-]+")


@dataclass(frozen=True)
class Key:
    """A key of the file, or a table.

    path: from the top of the file. line: from 1; 0 where it is not known. text: the lines from
    there to the end of its value. keys: of a table, down to the third level.
    """

    path: tuple[str, ...]
    raw: object
    line: int
    text: tuple[str, ...] = ()
    keys: tuple[Key, ...] = ()

    @property
    def name(self) -> str:
        return self.path[-1]

    @property
    def written(self) -> str:
        """Its whole name, as the file may say it."""
        return written_path(self.path)

    @property
    def is_table(self) -> bool:
        """Whether it has keys of its own, or is a list of such."""
        return isinstance(self.raw, dict) or self.is_list_of_tables

    @property
    def is_list_of_tables(self) -> bool:
        if not isinstance(self.raw, list) or not self.raw:
            return False
        return all(isinstance(entry, dict) for entry in self.raw)

    def mistake(self, why: str, line: int = 0) -> Mistake:
        """What is wrong with it, or in another line of its value."""
        return Mistake(line or self.line, 0, self.written, why)

    def entry_lines(self, entries: list[object]) -> list[int]:
        """The line of each entry of its list, or a line above where that is not plain."""
        found: list[int] = []
        number = column = 0
        for entry in entries:
            for later in range(number, len(self.text)):
                start = self.text[later].find(str(entry), column if later == number else 0)
                if start >= 0:
                    number, column = later, start + len(str(entry))
                    break
            found.append(self.line + number if self.line else 0)
        return found


def written_path(path: tuple[str, ...]) -> str:
    """A dotted name of TOML, its parts in quotes where they need some."""
    return ".".join(
        part
        if _BARE.fullmatch(part)
        else '"' + part.replace("\\", "\\\\").replace('"', '\\"') + '"'
        for part in path
    )


@dataclass(frozen=True)
class Contents:
    """What a file holds. keys: at its top, of all statements that are TOML, in their order."""

    keys: tuple[Key, ...]
    mistakes: tuple[Mistake, ...]


def read_toml(file: Path, option: str, *, again: bool = False) -> Contents:
    """Read a file. option: what named it. Raises ConfigError where it cannot be read as text.

    again: a service that goes by it reads it anew. Then nothing else than a regular file will do,
    which opens and ends in any case, and none that is empty: it was cut short, more likely than
    it means the defaults, which let everybody in.
    """
    text = _text(file, option, again=again)
    lines = text.split("\n")
    found = _Found()
    broken: ValueError | None = None
    if line := too_deep(text):
        raise _too_deep(file, option, line)
    try:
        holds = loads(text)
    except RecursionError:
        raise _too_deep(file, option) from None
    except ValueError as error:
        broken = error
        found.take(statements(lines))
        holds = found.holds
    else:
        found.take(statements_that_are_toml(lines))
    if _is_deep(holds):
        raise _too_deep(file, option)
    keys = tuple(found.keys(holds))
    if broken is None:
        return Contents(keys, tuple(found.too_long))
    if not found.mistakes:
        # It is in how the statements go together.
        why, line, column = said(broken)
        found.mistakes.append(Mistake(line, column, "", f"not TOML: {why}"))
    return Contents(keys, (*found.mistakes, *found.too_long))


def _text(file: Path, option: str, *, again: bool) -> str:
    named = escape(str(file))
    try:
        # A FIFO would have whoever opens it wait.
        with open(file, "rb", opener=_at_once if again else None) as opened:
            if again and not stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
                why = f"{named} cannot be read again: give a regular file, or restart"
                raise ConfigError(option, why)
            raw = opened.read(_MOST_BYTES + 1)
    except OSError as error:
        why = f"cannot read {named} ({error.strerror}); give a readable TOML file"
        raise ConfigError(option, why) from None
    except ValueError:
        raise ConfigError(option, f"{named} is no name of a file; give a TOML file") from None
    if len(raw) > _MOST_BYTES:
        why = f"{named} is longer than {_MOST_BYTES >> 20} MiB; give a TOML file with settings"
        raise ConfigError(option, why)
    try:
        # Some editors put a mark in front.
        text = raw.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        why = f"{named} is not UTF-8 text (line {line}); save it as UTF-8"
        raise ConfigError(option, why) from None
    if again and not text.strip():
        why = f"{named} is empty; write a comment (#) into it if all defaults are meant"
        raise ConfigError(option, why)
    return text


def _at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def _too_deep(file: Path, option: str, line: int = 0) -> ConfigError:
    why = f"{escape(str(file))} is nested too deeply; give a TOML file with settings"
    if line:
        why += f" (line {line} has more than {DEPTH_MOST} levels)"
    return ConfigError(option, why)


def _is_deep(value: object) -> bool:
    level = [value]
    for _ in range(DEPTH_MOST):
        level = [inner for one in level for inner in _inside(one)]
        if not level:
            return False
    return True


def _inside(value: object) -> list[object]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def _has_long_number(value: object) -> bool:
    level = [value]
    while level:
        if any(isinstance(one, int) and one.bit_length() > _NUMBER_BITS for one in level):
            return True
        level = [inner for one in level for inner in _inside(one)]
    return False


class _Found:
    """What statements hold, put together; where each key first stands, and what stands twice."""

    def __init__(self) -> None:
        self.holds: dict[str, Any] = {}
        self.mistakes: list[Mistake] = []
        # Values that nobody is to show, nor to read.
        self.too_long: list[Mistake] = []
        self._places: dict[tuple[str, ...], Statement] = {}
        self._headers: dict[tuple[str, ...], int] = {}

    def take(self, found: Iterator[Statement]) -> None:
        """Take all statements of a file, in their order."""
        # The table that the next keys belong to; None: nobody reads it.
        table: tuple[str, ...] | None = ()
        for one in found:
            if isinstance(one.holds, Mistake):
                self.mistakes.append(one.holds)
                table = None if one.is_header else table
            elif one.is_header:
                table = self._header(one, one.holds)
            elif table is not None:
                for path, raw in _leaves(table, one.holds):
                    self._put(path, raw, one)

    def keys(self, holds: dict[str, Any], above: tuple[str, ...] = ()) -> Iterator[Key]:
        """What a file holds, as keys that know their places."""
        for name, raw in holds.items():
            path = (*above, name)
            is_read = isinstance(raw, dict) and len(path) < _PATH_MOST
            inner = tuple(self.keys(raw, path)) if is_read else ()
            place = self._places.get(path) or self._places.get(above)
            line, text = (place.line, place.text) if place else (0, ())
            key = Key(path, raw, line, text, inner)
            if not is_read and _has_long_number(raw):
                self.too_long.append(
                    key.mistake(
                        f"has a number of more than {_NUMBER_BITS} bits; write a smaller one"
                    )
                )
            else:
                yield key

    def _header(self, one: Statement, raw: object) -> tuple[str, ...] | None:
        path: tuple[str, ...] = ()
        while isinstance(raw, dict) and raw:
            ((name, raw),) = raw.items()
            path = (*path, name)
        if isinstance(raw, list):
            self._place(path, one)
            node = self._node(path[:-1], one)
            if node is not None:
                node.setdefault(path[-1], raw)
            return None
        if path in self._headers:
            self._again(path, one, self._headers[path], "put both into one table")
        self._headers.setdefault(path, one.line)
        self._place(path, one)
        return None if self._node(path, one) is None else path

    def _put(self, path: tuple[str, ...], raw: object, one: Statement) -> None:
        node = self._node(path[:-1], one)
        if node is None:
            return
        if path[-1] in node:
            self._again(path, one, self._places[path[:_PATH_MOST]].line)
            return
        node[path[-1]] = raw
        self._place(path, one)

    def _node(self, path: tuple[str, ...], one: Statement) -> dict[str, Any] | None:
        """The table of this path, made where it is not there; None where it is something else."""
        node = self.holds
        for depth, name in enumerate(path, start=1):
            node = node.setdefault(name, {})
            if not isinstance(node, dict):
                here = path[:depth]
                self._again(here, one, self._places[here[:_PATH_MOST]].line)
                return None
        return node

    def _place(self, path: tuple[str, ...], one: Statement) -> None:
        for length in range(1, min(len(path), _PATH_MOST) + 1):
            self._places.setdefault(path[:length], one)

    def _again(
        self, path: tuple[str, ...], one: Statement, line: int, do: str = "take one of them out"
    ) -> None:
        why = f"stands here again, after line {line}; {do}"
        self.mistakes.append(Mistake(one.line, 0, written_path(path), why))


def _leaves(above: tuple[str, ...], holds: dict[str, Any]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Keys and values, those of a table within a statement by themselves."""
    for name, raw in holds.items():
        path = (*above, name)
        if isinstance(raw, dict) and raw and len(path) < _PATH_MOST:
            yield from _leaves(path, raw)
        else:
            yield path, raw
