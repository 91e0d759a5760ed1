"""A TOML file with settings: its keys with the lines they stand in, and all that is wrong with it.

tomllib decides what is TOML. It names no lines of keys, and stops at the first mistake; so each
statement is given to it alone, too.
"""

from __future__ import annotations

import contextlib
import re
import tomllib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from fastscp.errors import ConfigError
from fastscp.log import escape

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["Contents", "Key", "Mistake", "read_toml"]

# No file with settings is longer; a device has no end.
_MOST_BYTES: Final = 1 << 20

# What tomllib says of where it stopped.
_PLACE: Final = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")
_NAME: Final = r"""(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')"""
_HEADER: Final = re.compile(rf"\s*\[\[?\s*{_NAME}")
_ASSIGNMENT: Final = re.compile(rf"\s*{_NAME}(?:\s*\.\s*{_NAME})*\s*=")
_OPENING: Final = re.compile(r"""[^=#]+=\s*(\[|\{|\"""|''')""")
_CLOSING: Final = {"[": "]", "{": "}", '"""': '"""', "'''": "'''"}
_BEGINS_ONE: Final = re.compile(rf"""\s*\[\[?[A-Za-z0-9_."' -]+\]|{_ASSIGNMENT.pattern}""")
# What brackets are counted by: remarks and texts may hold some. A text of several lines ends with
# three to five of its quotes.
_TOKEN: Final = re.compile(r"""#|\"""|'''|"(?:\\.|[^"\\])*"|'[^']*'|[\[\]{}]""")
_TEXT_ENDS: Final = {
    '"""': re.compile(r"""(?:\\.|[^"\\]|"(?!""))*\"{3,5}"""),
    "'''": re.compile(r"""(?:[^']|'(?!''))*'{3,5}"""),
}
# A key and a value as people write them elsewhere.
_LIKE_A_SETTING: Final = re.compile(r"\s*(?:--)?([A-Za-z0-9_][A-Za-z0-9_-]*)\s*[=:]?")
_SWITCHES: Final = {"on": "true", "yes": "true", "off": "false", "no": "false"}


@dataclass(frozen=True)
class Key:
    """A key at the top of the file.

    line: from 1; 0 where it is not known. text: the lines from there to the end of its value.
    """

    name: str
    raw: object
    line: int
    text: tuple[str, ...] = ()

    @property
    def is_table(self) -> bool:
        """Whether it has keys of its own, or is a list of such."""
        if isinstance(self.raw, list) and self.raw:
            return all(isinstance(entry, dict) for entry in self.raw)
        return isinstance(self.raw, dict)

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


@dataclass(frozen=True)
class Mistake:
    """What is wrong at one place. line, column: from 1; 0 where none is meant. key: or empty."""

    line: int
    column: int
    key: str
    why: str

    def at(self, file: Path) -> str:
        """The place, as an error names it."""
        line = f":{self.line}" if self.line else ""
        column = f":{self.column}" if self.column else ""
        return f"{escape(str(file))}{line}{column}" + (f": {escape(self.key)}" if self.key else "")


@dataclass(frozen=True)
class Contents:
    """What a file holds. keys: of all statements that are TOML, in their order."""

    keys: tuple[Key, ...]
    mistakes: tuple[Mistake, ...]


def read_toml(file: Path, option: str) -> Contents:
    """Read a file. option: what named it. Raises ConfigError where it cannot be read as text."""
    text = _text(file, option)
    try:
        whole = tomllib.loads(text)
    except RecursionError:
        raise ConfigError(
            option, f"{escape(str(file))} is nested too deeply; give a TOML file with settings"
        ) from None
    except ValueError as error:
        return _broken(text, error)
    found = {one.name: one for one in reversed(_found(text)) if isinstance(one, Key)}
    nowhere = Key("", None, 0)
    return Contents(
        tuple(replace(found.get(name, nowhere), name=name, raw=raw) for name, raw in whole.items()),
        (),
    )


def _text(file: Path, option: str) -> str:
    named = escape(str(file))
    try:
        with file.open("rb") as opened:
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
        return raw.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        why = f"{named} is not UTF-8 text (line {line}); save it as UTF-8"
        raise ConfigError(option, why) from None


def _broken(text: str, error: ValueError) -> Contents:
    """What is in a file that is not TOML, as far as its statements tell."""
    keys: list[Key] = []
    mistakes: list[Mistake] = []
    before: dict[str, int] = {}
    for found in _found(text):
        if isinstance(found, Mistake):
            mistakes.append(found)
        elif found.name in before and not found.is_table:
            why = f"stands here again, after line {before[found.name]}; take one of them out"
            mistakes.append(Mistake(found.line, 0, found.name, why))
        else:
            before.setdefault(found.name, found.line)
            keys.append(found)
    if not mistakes:
        # It is in how the statements go together.
        why, line, column = _said(error)
        mistakes.append(Mistake(line, column, "", f"not TOML: {why}"))
    return Contents(tuple(keys), tuple(mistakes))


def _found(text: str) -> list[Key | Mistake]:
    """Keys and mistakes, statement by statement. What stands in a table is that table's."""
    found: list[Key | Mistake] = []
    in_table = False
    for line, statement in _statements(text.split("\n")):
        if isinstance(statement, Mistake):
            found.append(statement)
            continue
        for name, raw in statement.items():
            is_header = isinstance(raw, dict | list) and line.is_header
            if is_header or not in_table:
                found.append(Key(name, raw, line.number, line.text))
        in_table = in_table or line.is_header
    return found


@dataclass(frozen=True)
class _Line:
    """Where a statement begins. text: all of its lines."""

    number: int
    is_header: bool
    text: tuple[str, ...]


def _statements(lines: list[str]) -> Iterator[tuple[_Line, dict[str, object] | Mistake]]:
    at = 0
    while at < len(lines):
        statement, end = _statement(lines, at)
        is_header = _HEADER.match(lines[at]) is not None
        yield _Line(at + 1, is_header, tuple(lines[at:end])), statement
        at = end


def _statement(lines: list[str], at: int) -> tuple[dict[str, object] | Mistake, int]:
    """The statement that begins in this line, or what is wrong with it, and where the next may be.

    at: counts from 0.
    """
    opening = _OPENING.match(lines[at])
    if opening is None:
        try:
            return tomllib.loads(lines[at]), at + 1
        except (ValueError, RecursionError) as error:
            return _mistake(lines[at], at, error), at + 1
    end = _end(lines, at, opening.start(1))
    try:
        return tomllib.loads("\n".join(lines[at:end])), end
    except (ValueError, RecursionError) as error:
        return _unclosed_or(lines, at, end, opening, error)


def _end(lines: list[str], at: int, column: int) -> int:
    """The line behind a value that begins in this column, or one that must be another's."""
    depth = 0
    text_end: re.Pattern[str] | None = None
    for number in range(at, len(lines)):
        line = lines[number]
        if number > at:
            column = 0
            if text_end is None and _ASSIGNMENT.match(line):
                return number
        while column < len(line):
            found = text_end.match(line, column) if text_end else _TOKEN.search(line, column)
            if found is None or found[0] == "#":
                break
            column = found.end()
            text_end = None if text_end else _TEXT_ENDS.get(found[0])
            depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(found[0], 0)
        if depth <= 0 and text_end is None:
            return number + 1
    return len(lines)


def _unclosed_or(
    lines: list[str],
    at: int,
    end: int,
    opening: re.Match[str],
    error: ValueError | RecursionError,
) -> tuple[Mistake, int]:
    """What is wrong with a value of several lines, and the line to go on with."""
    following = next((n for n in range(at + 1, end) if _BEGINS_ONE.match(lines[n])), end)
    why, line, column = _said(error)
    if following < end or not line:
        sign = opening[1]
        why = f"the {sign} is never closed; write {_CLOSING[sign]} behind the value"
        return Mistake(at + 1, opening.start(1) + 1, _key_of(lines[at]), why), following
    if end == at + 1:
        return _mistake(lines[at], at, error), end
    return Mistake(at + line, column, _key_of(lines[at]), f"not TOML: {why}"), end


def _said(error: ValueError | RecursionError) -> tuple[str, int, int]:
    """What tomllib says, and where: line and column, from 1; 0 for the end of the text."""
    text = str(error)
    place = _PLACE.search(text)
    why = text[: place.start()] if place else text
    where = (int(place[1]), int(place[2])) if place and place[1] else (0, 0)
    return (escape(why[:1].lower() + why[1:]), *where)


def _mistake(line: str, at: int, error: ValueError | RecursionError) -> Mistake:
    """What is wrong with a line; with what to write instead where that is plain."""
    why, _line, column = _said(error)
    instead = _instead(line)
    if instead.endswith(('"', "'")):
        why = "a text stands in quotes"
    said = f"not TOML ({why}); write {instead}" if instead else f"not TOML: {why}"
    return Mistake(at + 1, column or len(line.rstrip()), _key_of(line), said)


def _key_of(line: str) -> str:
    found = _LIKE_A_SETTING.match(line)
    return found[1] if found else ""


def _instead(line: str) -> str:
    """The line as TOML, where it is a key and a value in another form; else empty."""
    line = line.partition(" #")[0]
    found = _LIKE_A_SETTING.match(line)
    if found is None:
        return ""
    key, value = found[1], line[found.end() :].strip(" \t\r;,")
    if not value:
        return f"{key} = VALUE"
    if value[0] in "\"'[{" or value[-1] in "]}" or not value.isprintable():
        # It has begun as TOML does, or ends so; the rest is not for us to say.
        return ""
    for written in (value, _SWITCHES.get(value.lower(), value.lower()), f'"{value}"', f"'{value}'"):
        with contextlib.suppress(ValueError, RecursionError):
            tomllib.loads(f"x = {written}")
            return f"{key} = {written}"
    return ""
