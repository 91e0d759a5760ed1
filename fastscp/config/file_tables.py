"""The tables of a file, read: `[ae.TITLE]` and `[from.NAME]`, each key with the line it stands in.

`tables` says what comes of it, `contradictions` what cannot be meant together.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from fastscp.config.names import BY_NAME, close_to
from fastscp.config.settings import read_value
from fastscp.config.statements import Mistake
from fastscp.config.tables import AeTable, FromTable, Tables
from fastscp.config.values import (
    Many,
    Parsed,
    read_called_title,
    read_certificate_rule,
)
from fastscp.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from fastscp.config.settings import Setting
    from fastscp.config.tomlfile import Key
    from fastscp.config.values import Kind

__all__ = [
    "MATCHERS",
    "TABLE",
    "FileTables",
    "Named",
    "mistakes_in_value",
    "read_tables",
    "tables_in",
]

# The word that stands for the table itself where others stand for keys of it.
TABLE: Final = ""

_TITLE: Final = Parsed(
    read_called_title, "TITLE", "an AE title of 1 to 16 characters, %XX for a byte outside ASCII"
)
_NAME: Final = re.compile("[A-Za-z0-9_-]{1,64}")

# What says whom a table is for: the keys of [from] that are no settings.
MATCHERS: Final[dict[str, Kind]] = {
    "who": BY_NAME["allow"].kind,
    "called": Many(_TITLE),
    "certificate": Many(
        Parsed(
            read_certificate_rule,
            "RULE",
            "subject=NAME, san=NAME or sha256=FINGERPRINT",
        ),
        commas=False,
    ),
}


# Names ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Named:
    """A table whose keys may all stand in it. keys: those that do, each with what reads it."""

    kind: str
    key: Key
    keys: tuple[tuple[Key, Kind], ...]


def tables_in(top: Key, mistakes: list[Mistake]) -> Iterator[Named]:
    """The tables below a key at the top of a file; wrong names go to `mistakes`."""
    kind = top.name
    if kind not in _FORMS:
        mistakes.append(top.mistake(_no_such_table(top)))
        return
    if top.is_list_of_tables or not top.is_table or not top.keys:
        why = f"is a kind of table and needs a name; write {_FORMS[kind]}"
        mistakes.append(top.mistake(why))
        return
    for key in top.keys:
        if key.is_table and not key.is_list_of_tables:
            yield Named(kind, key, tuple(_keys_of(kind, key, mistakes)))
        else:
            mistakes.append(key.mistake(_no_table(kind, key)))


_FORMS: Final = {
    "ae": "[ae.TITLE], with the AE title that is called",
    "from": "[from.NAME], with a name of your own",
}


def _no_such_table(top: Key) -> str:
    if top.name in BY_NAME:
        return f"is no table; write {top.name} = VALUE at the top of the file"
    close = close_to(top.name, _FORMS)
    hint = f"; did you mean {_FORMS[close].partition(',')[0]}?" if close else ""
    return f"no such table{hint or '; settings stand at the top of the file'}" + (
        "" if hint else ", or in [ae.TITLE] and [from.NAME]"
    )


def _no_table(kind: str, key: Key) -> str:
    if key.is_list_of_tables:
        return f"is a list of tables; write [{key.written}] in single brackets, and once"
    if key.name in BY_NAME or key.name in MATCHERS:
        return f"stands in [{kind}], which needs a name; write {_FORMS[kind]}"
    return f"is no table; write [{key.written}], and settings below it"


def _keys_of(kind: str, table: Key, mistakes: list[Mistake]) -> Iterator[tuple[Key, Kind]]:
    for key in table.keys:
        why = ""
        setting = BY_NAME.get(key.name)
        reader = MATCHERS.get(key.name) if kind == "from" else None
        if key.is_table:
            # In TOML a dot parts names.
            title = f'"{table.name}.{key.name}"'
            why = f"is no setting but a table; a name with a dot in it stands in quotes: {title}"
        elif reader is None and setting is None:
            why = _unknown(kind, key.name)
        elif setting is not None and kind not in setting.tables:
            why = _misplaced(setting)
        if why:
            mistakes.append(key.mistake(why))
        else:
            yield key, reader or setting.kind  # type: ignore[union-attr]


def _unknown(kind: str, name: str) -> str:
    if name in MATCHERS:
        return "stands in a [from] table only; here the name of the table says who is called"
    here = [one for one, setting in BY_NAME.items() if kind in setting.tables]
    close = close_to(name, here + list(MATCHERS) * (kind == "from"), 0.6) or close_to(name, BY_NAME)
    hint = f"did you mean {close}?" if close else "take it out, or see the README, Rules"
    return f"no such setting; {hint}"


def _misplaced(setting: Setting) -> str:
    if setting.flag_only:
        return f"is accepted as the flag {setting.flag} only; take it out"
    if setting.tables:
        return (
            "stands at the top of the file or in an [ae] table: who sends does not decide how an "
            "instance is kept"
        )
    return "stands at the top of the file only, above the first table; move it there"


# Values -----------------------------------------------------------------------------------------


@dataclass
class FileTables:
    """The tables of a file.

    places: the keys of the tables, by the table's key and the name; TABLE: the table itself.
    is_whole: whether all names and all of whom they are for could be read. unread: the keys of the
    [from] tables of which that could not.
    """

    tables: Tables = field(default_factory=Tables)
    places: dict[tuple[str, str], Key] = field(default_factory=dict)
    is_whole: bool = True
    unread: set[str] = field(default_factory=set)


def read_tables(named: Iterable[Named], mistakes: list[Mistake]) -> FileTables:
    """The tables with their values; what is wrong goes to `mistakes`."""
    found = FileTables()
    ae: list[AeTable] = []
    senders: list[FromTable] = []
    for one in named:
        try:
            name = _table_name(one, found)
        except ConfigError as error:
            mistakes.append(one.key.mistake(error.why))
            found.is_whole = False
            continue
        values = _read(one, f"{one.kind}.{name}", found, mistakes)
        if one.kind == "ae":
            ae.append(AeTable(name, values))
            continue
        match = {word: values.pop(word) for word in MATCHERS if word in values}
        if not any(key.name in MATCHERS for key in one.key.keys):
            mistakes.append(one.key.mistake(_FOR_EVERYONE))
            found.is_whole = False
            found.unread.add(f"from.{name}")
        senders.append(FromTable(name, values=values, **match))
    found.tables = Tables(tuple(ae), tuple(senders))
    return found


_FOR_EVERYONE: Final = (
    "says nothing of whom it is for and would take everyone; give who, such as "
    'who = ["CT1@10.1.2.0/24"], or called'
)


def _table_name(one: Named, found: FileTables) -> str:
    """The name of a table, a title in its written form. Raises ConfigError."""
    if one.kind == "from":
        if not _NAME.fullmatch(one.key.name):
            why = "is no name of a table; write 1 to 64 letters, digits, - and _"
            raise ConfigError(one.key.name, why)
        title = one.key.name
    else:
        title = read_value(one.key.name, one.key.name, _TITLE)
    first = found.places.setdefault((f"{one.kind}.{title}", TABLE), one.key)
    if first is not one.key:
        why = f"is the title of [{first.written}] in line {first.line}; put both into one table"
        raise ConfigError(one.key.name, why)
    return title


def _read(one: Named, table: str, found: FileTables, mistakes: list[Mistake]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, kind in one.keys:
        try:
            value = read_value(key.name, key.raw, kind)
        except ConfigError as error:
            mistakes += mistakes_in_value(key, kind, error.why)
            if key.name in MATCHERS:
                found.is_whole = False
                found.unread.add(table)
        else:
            values[key.name.replace("-", "_")] = value
            found.places[table, key.name] = key
    return values


def mistakes_in_value(key: Key, kind: Kind, why: str) -> list[Mistake]:
    """What is wrong with a value that could not be read: of a list each entry by itself.

    why: what is wrong with the whole.
    """
    found: list[Mistake] = []
    if isinstance(kind, Many) and isinstance(key.raw, list):
        for entry, line in zip(key.raw, key.entry_lines(key.raw), strict=True):
            for part in kind.parts(entry):
                try:
                    read_value(key.name, part, kind)
                except ConfigError as error:
                    found.append(Mistake(line, 0, key.written, error.why))
    return found or [key.mistake(why)]
