"""The statements of a TOML file, each given to tomllib alone: where it stands, and what is wrong.

tomllib decides what is TOML. It names no lines of keys, and stops at the first mistake.
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from fastscp.config.nesting import loads
from fastscp.log import escape
from fastscp.log.text import cut

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["Mistake", "Statement", "said", "statements", "statements_that_are_toml"]

# Characters of a value or a name in a message.
SHOWN: Final = 200
# What tomllib says of where it stopped.
_PLACE: Final = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")
_BARE: Final = r"[A-Za-z0-9_-]+"
_NAME: Final = rf"""(?:{_BARE}|"(?:\\.|[^"\\])*"|'[^']*')"""
_PATH: Final = rf"{_NAME}(?:\s*\.\s*{_NAME})*"
_HEADER: Final = re.compile(rf"\s*\[\[?\s*{_NAME}")
_ASSIGNMENT: Final = re.compile(rf"\s*{_PATH}\s*=")
_OPENING: Final = re.compile(rf"""\s*{_PATH}\s*=\s*(\[|\{{|\"""|''')""")
_CLOSING: Final = {"[": "]", "{": "}", '"""': '"""', "'''": "'''"}
_BEGINS_ONE: Final = re.compile(rf"""\s*\[\[?[A-Za-z0-9_."' -]+\]|{_ASSIGNMENT.pattern}""")
# Most statements name their keys as they are, and need no parser for that.
_PLAIN: Final = re.compile(
    rf"\s*(?:\[\s*({_BARE}(?:\.{_BARE})*)\s*\]\s*(?:#.*)?$|({_BARE}(?:\.{_BARE})*)\s*=\s*[^\s{{])"
)
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
        return f"{escape(str(file))}{line}{column}" + (
            f": {cut(escape(self.key), SHOWN)}" if self.key else ""
        )


@dataclass(frozen=True)
class Statement:
    """A statement of a file: the header of a table, or a key with its value.

    line: its first, from 1. text: all of its lines. holds: what tomllib makes of it alone.
    """

    line: int
    is_header: bool
    text: tuple[str, ...]
    holds: dict[str, object] | Mistake


def statements(lines: list[str]) -> Iterator[Statement]:
    """All statements, those that are wrong too. lines: of the file, without their ends."""
    at = 0
    while at < len(lines):
        holds, end = _statement(lines, at)
        is_header = _HEADER.match(lines[at]) is not None
        yield Statement(at + 1, is_header, tuple(lines[at:end]), holds)
        at = end


def statements_that_are_toml(lines: list[str]) -> Iterator[Statement]:
    """The same of a file that is TOML as a whole, sooner: values that hold no keys are None."""
    at = 0
    while at < len(lines):
        line = lines[at]
        opening = _OPENING.match(line)
        end = at + 1 if opening is None else _end(lines, at, opening.start(1))
        text = tuple(lines[at:end])
        plain = _PLAIN.match(line)
        if plain is not None:
            is_header = plain[1] is not None
            holds: object = {} if is_header else None
            for name in reversed((plain[1] or plain[2]).split(".")):
                holds = {name: holds}
            yield Statement(at + 1, is_header, text, holds)  # type: ignore[arg-type]
        elif line.strip():
            with contextlib.suppress(ValueError):
                is_header = _HEADER.match(line) is not None
                yield Statement(at + 1, is_header, text, loads("\n".join(text)))
        at = end


def _statement(lines: list[str], at: int) -> tuple[dict[str, object] | Mistake, int]:
    """The statement that begins in this line, or what is wrong with it, and where the next may be.

    at: counts from 0.
    """
    opening = _OPENING.match(lines[at])
    if opening is None:
        try:
            return loads(lines[at]), at + 1
        except (ValueError, RecursionError) as error:
            return _mistake(lines[at], at, error), at + 1
    end = _end(lines, at, opening.start(1))
    try:
        return loads("\n".join(lines[at:end])), end
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
    why, line, column = said(error)
    if following < end or not line:
        sign = opening[1]
        why = f"the {sign} is never closed; write {_CLOSING[sign]} behind the value"
        return Mistake(at + 1, opening.start(1) + 1, _key_of(lines[at]), why), following
    if end == at + 1:
        return _mistake(lines[at], at, error), end
    return Mistake(at + line, column, _key_of(lines[at]), f"not TOML: {why}"), end


def said(error: ValueError | RecursionError) -> tuple[str, int, int]:
    """What tomllib says, and where: line and column, from 1; 0 for the end of the text."""
    text = str(error)
    place = _PLACE.search(text)
    why = text[: place.start()] if place else text
    where = (int(place[1]), int(place[2])) if place and place[1] else (0, 0)
    return (cut(escape(why[:1].lower() + why[1:]), SHOWN), *where)


def _mistake(line: str, at: int, error: ValueError | RecursionError) -> Mistake:
    """What is wrong with a line; with what to write instead where that is plain."""
    why, _line, column = said(error)
    instead = _instead(line)
    if instead.endswith(('"', "'")):
        why = "a text stands in quotes"
    what = f"not TOML ({why}); write {instead}" if instead else f"not TOML: {why}"
    return Mistake(at + 1, column or len(line.rstrip()), _key_of(line), what)


def _key_of(line: str) -> str:
    found = _LIKE_A_SETTING.match(line)
    return found[1] if found else ""


def _instead(line: str) -> str:
    """The line as TOML, where it is a key and a value in another form; else empty."""
    line = line.partition(" #")[0]
    found = _LIKE_A_SETTING.match(line)
    if found is None or len(line) > SHOWN:
        return ""
    key, value = found[1], line[found.end() :].strip(" \t\r;,")
    if not value:
        return f"{key} = VALUE"
    if value[0] in "\"'[{" or value[-1] in "]}" or not value.isprintable():
        # It has begun as TOML does, or ends so; the rest is not for us to say.
        return ""
    for written in (value, _SWITCHES.get(value.lower(), value.lower()), f'"{value}"', f"'{value}'"):
        with contextlib.suppress(ValueError, RecursionError):
            loads(f"x = {written}")
            return f"{key} = {written}"
    return ""
