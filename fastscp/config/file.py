"""The settings and tables of a file, and all that is wrong with it."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fastscp.config.contradictions import (
    between_settings,
    between_settings_of_tls,
    between_tables,
    uncalled,
)
from fastscp.config.file_tables import (
    FileTables,
    Named,
    mistakes_in_value,
    read_tables,
    tables_in,
)
from fastscp.config.material import read_material
from fastscp.config.names import BY_NAME, close_to, known
from fastscp.config.settings import ServeConfig, Setting, read_value
from fastscp.config.tomlfile import Mistake, read_toml
from fastscp.errors import ConfigError
from fastscp.tls.material import MaterialError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from fastscp.config.tomlfile import Key

__all__ = ["Checked", "FileSettings", "check_file", "one_of_file", "read_file", "refuse"]


@dataclass
class FileSettings:
    """What a file gives. settings: each with its key and its value."""

    settings: list[tuple[Key, Setting, Any]] = field(default_factory=list)
    tables: FileTables = field(default_factory=FileTables)


def read_file(file: Path, option: str, *, again: bool = False) -> FileSettings:
    """All of a file. option, again: as in `read_toml`. Raises ConfigError for the first mistake."""
    found, mistakes = _read(file, option, again=again)
    refuse(file, mistakes)
    return found


@dataclass(frozen=True)
class Checked:
    """What is wrong with a file, and what is no mistake and hardly meant; in order of its lines."""

    mistakes: list[Mistake]
    doubts: list[Mistake]


def check_file(file: Path, option: str) -> Checked:
    """All that can be told of a file by itself.

    option: what named the file. Raises ConfigError where it cannot be read as text.
    """
    found, mistakes = _read(file, option)
    values = {setting.field: value for _, setting, value in found.settings}
    keys = {setting.field: key for key, setting, _ in found.settings}
    mistakes += [keys[name].mistake(why) for name, why in between_settings(values)]
    config, places = ServeConfig(**values), found.tables.places
    if config.tls_cert:
        of_tls = list(between_settings_of_tls(values))
        of_tls += [] if of_tls else _in_files(config)
        mistakes += [keys.get(name, keys["tls_cert"]).mistake(why) for name, why in of_tls]
    mistakes += [places[where].mistake(why) for where, why in between_tables(found.tables, config)]
    doubts = [places[where].mistake(why) for where, why in uncalled(found.tables, config)]
    return Checked(_in_order(mistakes), _in_order(doubts))


def _in_files(config: ServeConfig) -> tuple[tuple[str, str], ...]:
    """What is wrong with the files that the settings of TLS name: field, and why."""
    try:
        read_material(config)
    except MaterialError as error:
        return error.mistakes
    return ()


def _in_order(mistakes: list[Mistake]) -> list[Mistake]:
    return sorted(mistakes, key=lambda one: (one.line, one.column))


def one_of_file(setting: Setting, file: Path, option: str) -> Any:
    """The value of one setting, or None; whatever else is wrong with the file does not matter.

    Where the file has no such setting, a name like it that is none may be meant, and a statement
    that is no TOML may hold it. Raises ConfigError.
    """
    contents = read_toml(file, option)
    unread: list[Mistake] = []
    named, _tables = _named(contents.keys, unread)
    mistakes = [one for one in contents.mistakes if one.key == setting.name]
    found = list(_values((one for one in named if one[1] is setting), mistakes))
    if not found and not mistakes:
        mistakes = [*contents.mistakes, *(one for one in unread if _may_mean(one, setting))]
    refuse(file, mistakes)
    return found[0][2] if found else None


def _may_mean(mistake: Mistake, setting: Setting) -> bool:
    """Whether the name that is wrong may stand for this setting."""
    name = mistake.key.rpartition(".")[2]
    return name not in BY_NAME.keys() - {setting.name} and bool(close_to(name, [setting.name]))


def _read(file: Path, option: str, *, again: bool = False) -> tuple[FileSettings, list[Mistake]]:
    contents = read_toml(file, option, again=again)
    mistakes = list(contents.mistakes)
    named, tables = _named(contents.keys, mistakes)
    found = FileSettings(list(_values(named, mistakes)), read_tables(tables, mistakes))
    return found, mistakes


def _named(
    keys: Iterable[Key], mistakes: list[Mistake]
) -> tuple[list[tuple[Key, Setting]], list[Named]]:
    """Whose names are settings or tables, unread; what is wrong goes to `mistakes`."""
    settings: list[tuple[Key, Setting]] = []
    tables: list[Named] = []
    for key in keys:
        if key.is_table or key.name in ("ae", "from"):
            tables += tables_in(key, mistakes)
            continue
        try:
            settings.append((key, known(key.name, key.name, BY_NAME, "setting")))
        except ConfigError as error:
            mistakes.append(key.mistake(error.why))
    return settings, tables


def _values(
    named: Iterable[tuple[Key, Setting]], mistakes: list[Mistake]
) -> Iterator[tuple[Key, Setting, Any]]:
    """The settings of a file with their values; what is wrong goes to `mistakes`."""
    for key, setting in named:
        try:
            value = read_value(key.name, key.raw, setting.kind)
        except ConfigError as error:
            mistakes += mistakes_in_value(key, setting.kind, error.why)
        else:
            yield key, setting, value


def refuse(file: Path, mistakes: list[Mistake], *, by_itself: bool = True) -> None:
    """Raise ConfigError for the first of the mistakes, with all of them, if there are any.

    by_itself: whether the file has them whatever stands elsewhere.
    """
    if not mistakes:
        return
    in_order = _in_order(mistakes)
    why = in_order[0].why
    if len(mistakes) > 1:
        # A look at the file alone does not find what flags and variables have a part in.
        shows = (
            f"; `fastscp config --check {shlex.quote(str(file))}` shows all" if by_itself else ""
        )
        why += f" (the first of {len(mistakes)} mistakes in this file{shows})"
    raise ConfigError(
        in_order[0].at(file), why, tuple(f"{one.at(file)}: {one.why}" for one in in_order)
    )
