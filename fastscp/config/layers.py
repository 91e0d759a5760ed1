"""The settings in layers: flags over the environment over a file over the defaults.

Every layer is checked whole, so a mistake shows even where it is overridden.
"""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fastscp.config.kubernetes import is_of_a_service
from fastscp.config.settings import (
    ENVIRONMENT_PREFIX,
    SETTINGS,
    ServeConfig,
    Setting,
    read_value,
)
from fastscp.config.tomlfile import Mistake, read_toml
from fastscp.config.values import Many
from fastscp.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from fastscp.config.tomlfile import Key

__all__ = ["Loaded", "check_file", "load", "load_one"]

# Read by setup.py; an installation built and run in one shell must not stumble over them.
_BUILD_SWITCHES: Final = ("SANITIZE", "COVERAGE", "TRACE", "DEBUG")
_FILE_VARIABLE: Final = ENVIRONMENT_PREFIX + "CONFIG"
_OTHER_VARIABLES: Final = frozenset(
    {_FILE_VARIABLE} | {ENVIRONMENT_PREFIX + name for name in _BUILD_SWITCHES}
)
_BY_NAME: Final = {setting.name: setting for setting in SETTINGS}
_BY_VARIABLE: Final = {setting.environment: setting for setting in SETTINGS}


@dataclass(frozen=True)
class Loaded:
    """A configuration and, per field, where its value comes from."""

    config: ServeConfig
    sources: Mapping[str, str]

    def rows(self) -> list[tuple[Setting, str, str]]:
        """Setting, value as text, and source, in the order of the help."""
        return [
            (
                setting,
                setting.kind.show(getattr(self.config, setting.field)),
                self.sources[setting.field],
            )
            for setting in SETTINGS
        ]


def load(
    flags: Mapping[str, object] | None = None,
    environ: Mapping[str, str] | None = None,
    file: Path | None = None,
    spelled: Mapping[str, str] | None = None,
) -> Loaded:
    """The effective configuration.

    flags: field name to text, list of texts or bool; None is "not given". environ: the process's
    own if None. file: what `--config` names; FASTSCP_CONFIG stands in for it. spelled: fields
    whose flag was given in another spelling, as `-v` for `--log-level debug`.
    Raises ConfigError for the first thing that is unknown or cannot be used.
    """
    if environ is None:
        environ = os.environ
    values: dict[str, Any] = {}
    sources = {setting.field: "default" for setting in SETTINGS}
    # Where each value was given, as an error names it.
    options: dict[str, str] = {}

    def take(setting: Setting, value: object, option: str, source: str) -> None:
        values[setting.field] = value
        options[setting.field] = option
        sources[setting.field] = source

    # Weakest first.
    named = "--config"
    if file is None and (variable := environ.get(_FILE_VARIABLE)):
        file, named = Path(variable), _FILE_VARIABLE
    if file is not None:
        for place, setting, value in _whole_file(file, named):
            take(setting, value, place.at(file), str(file.absolute()))
    for variable, text in _variables(environ):
        setting = _known(variable, variable, _BY_VARIABLE, "variable")
        take(setting, read_value(variable, text, setting.kind), variable, variable)
    for field, raw in (flags or {}).items():
        if raw is not None:
            setting = _BY_NAME[field.replace("_", "-")]
            flag = (spelled or {}).get(field, setting.flag)
            take(setting, read_value(flag, raw, setting.kind), flag, f"flag {flag}")
    for field, why in _contradictions(values):
        raise ConfigError(options[field], why)
    return Loaded(ServeConfig(**values), sources)


def load_one(
    field: str,
    flag: object = None,
    file: Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> Any:
    """One setting of the receiver, for a command that needs no other: `load` for that alone.

    What is wrong with the values of others matters to the receiver only; but a name that is none
    may be this one's, mistyped. Raises ConfigError.
    """
    if environ is None:
        environ = os.environ
    for name, _raw in _variables(environ):
        _known(name, name, _BY_VARIABLE, "variable")
    setting = _BY_NAME[field.replace("_", "-")]
    from_file = None
    if file is not None:
        from_file = _one_of_file(setting, file, "--config")
    if flag is not None:
        return read_value(setting.flag, flag, setting.kind)
    if (raw := environ.get(setting.environment)) is not None:
        return read_value(setting.environment, raw, setting.kind)
    # The file that the environment names is a habit, not a request: it is read where it is needed.
    if file is None and (variable := environ.get(_FILE_VARIABLE)):
        from_file = _one_of_file(setting, Path(variable), _FILE_VARIABLE)
    return getattr(ServeConfig(), setting.field) if from_file is None else from_file


# A file -----------------------------------------------------------------------------------------


def check_file(file: Path, option: str) -> list[Mistake]:
    """All that is wrong with a file, by itself, in the order of its lines.

    option: what named the file. Raises ConfigError where it cannot be read as text.
    """
    contents = read_toml(file, option)
    mistakes = list(contents.mistakes)
    values: dict[str, Any] = {}
    lines: dict[str, int] = {}
    for place, setting, value in _settings_in(contents.keys, mistakes):
        values[setting.field] = value
        lines[setting.field] = place.line
    for field, why in _contradictions(values):
        mistakes.append(Mistake(lines[field], 0, field.replace("_", "-"), why))
    return sorted(mistakes, key=lambda one: (one.line, one.column))


def _whole_file(file: Path, option: str) -> list[tuple[Mistake, Setting, Any]]:
    """Settings and values, each with its place. Raises ConfigError for the first mistake."""
    contents = read_toml(file, option)
    mistakes = list(contents.mistakes)
    found = list(_settings_in(contents.keys, mistakes))
    _raise_first(file, mistakes)
    return found


def _one_of_file(setting: Setting, file: Path, option: str) -> Any:
    contents = read_toml(file, option)
    mistakes = list(contents.mistakes)
    named = [key for key in contents.keys if _setting_of(key, mistakes) is setting]
    found = list(_settings_in(named, mistakes))
    _raise_first(file, mistakes)
    return found[0][2] if found else None


def _settings_in(
    keys: Iterable[Key], mistakes: list[Mistake]
) -> Iterator[tuple[Mistake, Setting, Any]]:
    """The settings of a file with their places and values; what is wrong goes to `mistakes`."""
    for key in keys:
        setting = _setting_of(key, mistakes)
        if setting is None:
            continue
        try:
            value = read_value(key.name, key.raw, setting.kind)
        except ConfigError as error:
            mistakes += _in_list(key, setting) or [Mistake(key.line, 0, key.name, error.why)]
        else:
            yield Mistake(key.line, 0, key.name, ""), setting, value


def _in_list(key: Key, setting: Setting) -> list[Mistake]:
    """What is wrong with the entries of a list, each by itself; empty where they are no mistake."""
    found: list[Mistake] = []
    if not isinstance(setting.kind, Many) or not isinstance(key.raw, list):
        return found
    for entry, line in zip(key.raw, key.entry_lines(key.raw), strict=True):
        for part in entry.split(",") if isinstance(entry, str) else [entry]:
            try:
                read_value(key.name, part, setting.kind)
            except ConfigError as error:
                found.append(Mistake(line, 0, key.name, error.why))
    return found


def _setting_of(key: Key, mistakes: list[Mistake]) -> Setting | None:
    try:
        if key.is_table and key.name in _BY_NAME:
            why = f"is no table; write {key.name} = VALUE at the top of the file"
            raise ConfigError(key.name, why)
        if key.is_table:
            raise ConfigError(
                key.name,
                "no such table; settings stand at the top of the file, outside of any table",
            )
        return _known(key.name, key.name, _BY_NAME, "setting")
    except ConfigError as error:
        mistakes.append(Mistake(key.line, 0, key.name, error.why))
        return None


def _raise_first(file: Path, mistakes: list[Mistake]) -> None:
    if not mistakes:
        return
    first = min(mistakes, key=lambda one: (one.line, one.column))
    why = first.why
    if len(mistakes) > 1:
        why += (
            f" (the first of {len(mistakes)} mistakes in this file; `fastscp config --check "
            f"{shlex.quote(str(file))}` shows all)"
        )
    raise ConfigError(first.at(file), why)


# Names and contradictions -----------------------------------------------------------------------


def _variables(environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """What of an environment is meant for the settings, by name."""
    for variable, raw in sorted(environ.items()):
        if (
            variable.startswith(ENVIRONMENT_PREFIX)
            and variable not in _OTHER_VARIABLES
            and not is_of_a_service(variable, raw)
        ):
            yield variable, raw


def _known(name: str, option: str, known: Mapping[str, Setting], what: str) -> Setting:
    setting = known.get(name)
    if setting is not None:
        if setting.flag_only:
            raise ConfigError(option, f"is accepted as the flag {setting.flag} only; take it out")
        return setting
    # Where it is needed only: it costs a start some milliseconds.
    import difflib

    # A key written with underscores, or in the wrong case, is as close as one gets.
    folded = {word.replace("_", "-").lower(): word for word in known}
    close = difflib.get_close_matches(name.replace("_", "-").lower(), folded, n=1, cutoff=0.7)
    hint = (
        f"did you mean {folded[close[0]]}?"
        if close
        else "take it out, or see `fastscp serve --help`"
    )
    raise ConfigError(option, f"no such {what}; {hint}")


# The address that stands for all of its kind, and which are of that kind; names are not known.
_FAMILIES: Final[dict[str, Callable[[str], bool]]] = {
    "0.0.0.0": lambda host: re.fullmatch("[0-9.]+", host) is not None,  # noqa: S104
    "::": lambda host: ":" in host,
}


def _contradictions(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Of the values that were given, those that cannot be meant together: field, and why."""
    if values.get("port") == 0:
        # The system picks another port for each address.
        return
    hosts: tuple[str, ...] = values.get("host", ())
    for every, is_of in _FAMILIES.items():
        beside = next((host for host in hosts if host != every and is_of(host)), None)
        if every in hosts and beside is not None:
            why = f"{every} listens on {beside}, too; leave one of the two out"
            yield "host", why
