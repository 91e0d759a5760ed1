"""The settings in layers: flags over the environment over a file over the defaults.

Every layer is checked whole, so a mistake shows even where it is overridden.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fastscp.config.admin import open_to_all
from fastscp.config.contradictions import (
    between_settings,
    between_settings_of_tls,
    between_tables,
    log_in_store,
)
from fastscp.config.file import FileSettings, one_of_file, read_file, refuse
from fastscp.config.kubernetes import is_of_a_service
from fastscp.config.material import read_material
from fastscp.config.names import BY_NAME, BY_VARIABLE, close_to, known
from fastscp.config.settings import (
    ENVIRONMENT_PREFIX,
    SETTINGS,
    ServeConfig,
    Setting,
    read_value,
)
from fastscp.errors import ConfigError
from fastscp.tls.material import MaterialError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["Loaded", "load", "load_one"]

# Read by setup.py; an installation built and run in one shell must not stumble over them.
_BUILD_SWITCHES: Final = ("SANITIZE", "COVERAGE", "TRACE", "DEBUG")
_FILE_VARIABLE: Final = ENVIRONMENT_PREFIX + "CONFIG"
_OTHER_VARIABLES: Final = frozenset(
    {_FILE_VARIABLE} | {ENVIRONMENT_PREFIX + name for name in _BUILD_SWITCHES}
)


@dataclass(frozen=True)
class Loaded:
    """A configuration and, per field, where its value comes from.

    table_sources: of the tables, `FILE:LINE` by the table's key and the name of a key in it; an
    empty name is the table itself. lines: of the values that are from the file, by field. file: the
    absolute path of the file, as text; empty where there is none.
    """

    config: ServeConfig
    sources: Mapping[str, str]
    table_sources: Mapping[tuple[str, str], str] = field(default_factory=dict)
    lines: Mapping[str, int] = field(default_factory=dict)
    file: str = ""

    def place(self, name: str) -> str:
        """Where the value of a field comes from, with the line in a file."""
        line = self.lines.get(name)
        return f"{self.sources[name]}:{line}" if line else self.sources[name]

    def rows(self) -> list[tuple[Setting, str, str]]:
        """Setting, value as text, and source, in the order of the help."""
        return [
            (
                setting,
                setting.kind.show(getattr(self.config, setting.field)),
                self.place(setting.field),
            )
            for setting in SETTINGS
        ]


def load(
    flags: Mapping[str, object] | None = None,
    environ: Mapping[str, str] | None = None,
    file: Path | None = None,
    spelled: Mapping[str, str] | None = None,
    *,
    again: bool = False,
    for_elsewhere: bool = False,
) -> Loaded:
    """The effective configuration.

    flags: field name to text, list of texts or bool; None is "not given". environ: the process's
    own if None. file: what `--config` names; FASTSCP_CONFIG stands in for it. spelled: fields
    whose flag was given in another spelling, as `-v` for `--log-level debug`. again: for a service
    that runs; see `read_toml`. for_elsewhere: the files of TLS may be on another machine, and are
    not read: `ServeConfig.tls` is None.
    Raises ConfigError for the first thing that is unknown or cannot be used; with it those that
    were found at the same time.
    """
    if environ is None:
        environ = os.environ
    values: dict[str, Any] = {}
    sources = {setting.field: "default" for setting in SETTINGS}
    # Where each value was given, as an error names it.
    options: dict[str, str] = {}
    lines: dict[str, int] = {}

    def take(setting: Setting, value: object, option: str, source: str, line: int = 0) -> None:
        values[setting.field] = value
        options[setting.field] = option
        sources[setting.field] = source
        lines[setting.field] = line

    # Weakest first.
    named = "--config"
    if file is None and (variable := environ.get(_FILE_VARIABLE)):
        file, named = Path(variable), _FILE_VARIABLE
    found = FileSettings()
    if file is not None:
        # Whoever reads a log does not know in which folder the service was started.
        file = file.absolute()
        found = read_file(file, named, again=again)
        for key, setting, value in found.settings:
            take(setting, value, key.mistake("").at(file), str(file), key.line)
    for variable, text in _variables(environ):
        setting = known(variable, variable, BY_VARIABLE, "variable")
        take(setting, read_value(variable, text, setting.kind), variable, variable)
    for name, raw in (flags or {}).items():
        if raw is not None:
            setting = BY_NAME[name.replace("_", "-")]
            flag = (spelled or {}).get(name, setting.flag)
            take(setting, read_value(flag, raw, setting.kind), flag, f"flag {flag}")
    for name, why in (*between_settings(values), *between_settings_of_tls(values)):
        raise ConfigError(options[name], why)
    config = ServeConfig(**values, tables=found.tables.tables)
    if why := open_to_all(config.admin, config.admin_token_file):
        raise ConfigError(options["admin"], why)
    if why := log_in_store(config):
        raise ConfigError(options["log_file"], why)
    if not for_elsewhere:
        config = _with_material(config, options)
    if file is None:
        return Loaded(config, sources)
    keys = found.tables.places
    wrong = [keys[where].mistake(why) for where, why in between_tables(found.tables, config)]
    refuse(file, wrong, by_itself=False)
    places = {where: f"{file}:{key.line}" for where, key in keys.items()}
    config = replace(config, tables=replace(config.tables, places=places))
    return Loaded(config, sources, places, {k: n for k, n in lines.items() if n}, str(file))


def _with_material(config: ServeConfig, options: Mapping[str, str]) -> ServeConfig:
    """The configuration with what is in the files of TLS. Raises ConfigError."""
    try:
        return replace(config, tls=read_material(config))
    except MaterialError as error:
        wrong = [(options.get(name) or options["tls_cert"], why) for name, why in error.mistakes]
        lines = tuple(f"{option}: {why}" for option, why in wrong)
        raise ConfigError(*wrong[0], lines) from None


def load_one(
    field: str,
    flag: object = None,
    file: Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> Any:
    """One setting of the receiver, for a command that needs no other: `load` for that alone.

    What is wrong with others matters to the receiver only. Where this one is not given, a name like
    it that is none may be meant, and one below a table may belong above it. Raises ConfigError.
    """
    if environ is None:
        environ = os.environ
    setting = BY_NAME[field.replace("_", "-")]
    if flag is None and setting.environment not in environ:
        for name, _raw in _variables(environ):
            bare = name.removeprefix(ENVIRONMENT_PREFIX)
            if name not in BY_VARIABLE and close_to(bare, [setting.name]):
                known(name, name, BY_VARIABLE, "variable")
    from_file = None
    if file is not None:
        from_file = one_of_file(setting, file, "--config")
    if flag is not None:
        return read_value(setting.flag, flag, setting.kind)
    if (raw := environ.get(setting.environment)) is not None:
        return read_value(setting.environment, raw, setting.kind)
    # The file that the environment names is a habit, not a request: it is read where it is needed.
    if file is None and (variable := environ.get(_FILE_VARIABLE)):
        from_file = one_of_file(setting, Path(variable), _FILE_VARIABLE)
    return getattr(ServeConfig(), setting.field) if from_file is None else from_file


def _variables(environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """What of an environment is meant for the settings, by name."""
    for variable, raw in sorted(environ.items()):
        if (
            variable.startswith(ENVIRONMENT_PREFIX)
            and variable not in _OTHER_VARIABLES
            and not is_of_a_service(variable, raw)
        ):
            yield variable, raw
