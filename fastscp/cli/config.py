"""`fastscp config`: settings and tables, with where each is from; or what is wrong with a file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from fastscp.cli.options import (
    AskedAbout,
    CheckedFile,
    ConfigFile,
    Quiet,
    ShownCertificate,
    Verbose,
    load_settings,
    named_file,
    takes_settings,
)
from fastscp.cli.output import plain, print_columns, print_json
from fastscp.config.file_tables import MATCHERS, TABLE
from fastscp.config.settings import SETTINGS
from fastscp.config.tomlfile import written_path
from fastscp.errors import ConfigError
from fastscp.log import counted, escape, in_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from fastscp.config.layers import Loaded
    from fastscp.config.statements import Mistake

__all__ = ["show_config"]


@takes_settings
def show_config(
    *,
    config: ConfigFile | None = None,
    check: CheckedFile | None = None,
    who: AskedAbout | None = None,
    certificate: ShownCertificate | None = None,
    json: Annotated[
        bool, Parameter(negative="", show_default=False, help="Print JSON instead of a table.")
    ] = False,
    verbose: Verbose = 0,
    quiet: Quiet = False,
    **given: object,
) -> int:
    """Show the effective configuration of the receiver, and where each value comes from.

    Takes the options of serve, and reads the same environment and file. With --check it shows
    instead what is wrong with one file, all of it, each with its line; with --who what becomes of
    a sender, and which tables and settings decide that.
    """
    file = named_file("--check", check)
    if file is not None:
        others = [f"--{field.replace('_', '-')}" for field, one in given.items() if one is not None]
        others += ["--who"] * (who is not None) + ["--certificate"] * bool(certificate)
        others += ["--config"] * (config is not None) + ["-v"] * (verbose > 0) + ["-q"] * quiet
        if others:
            raise ConfigError("--check", f"looks at its file alone; leave {others[0]} out")
        return _check(file, json)
    if certificate and who is None:
        raise ConfigError("--certificate", "is that of a sender; say of which with --who")
    loaded = load_settings(given, config, verbose, quiet)
    if who is not None:
        from fastscp.cli.who import show_who

        return show_who(loaded, who, certificate or [], json)
    if json:
        _print_json(loaded)
    else:
        print_columns([("setting", "value", "source"), *_rows(loaded), *_table_rows(loaded)])
    return 0


def _check(file: Path, json: bool) -> int:
    """Tell all that is wrong with a file: 0 nothing, else 2, as a start with it would give."""
    from fastscp.config.file import check_file

    checked = check_file(file, "--check")
    if json:
        print_json(
            {
                "file": in_json(str(file.absolute())),
                "mistakes": [_told(one) for one in checked.mistakes],
                "doubts": [_told(one) for one in checked.doubts],
            }
        )
    else:
        for one in checked.mistakes + checked.doubts:
            print(f"fastscp: {one.at(file)}: {escape(one.why)}", file=sys.stderr)
        if not checked.mistakes:
            doubts = f"; {counted(len(checked.doubts), 'doubt')}, see above" * bool(checked.doubts)
            print(f"{escape(str(file))}: no mistakes{doubts}")
    return ConfigError.exit_code if checked.mistakes else 0


def _told(one: Mistake) -> dict[str, object]:
    return {
        "line": one.line or None,
        "column": one.column or None,
        "key": one.key,
        "why": one.why,
    }


def _print_json(loaded: Loaded) -> None:
    shown: dict[str, object] = {
        setting.name: {
            "value": plain(getattr(loaded.config, setting.field)),
            "source": in_json(loaded.sources[setting.field]),
        }
        for setting in SETTINGS
    }
    # Whoever reads the settings need not know of tables that no file has.
    for kind, tables in _tables(loaded).items():
        shown[kind] = {
            name: {
                word: {"value": plain(value), "source": in_json(loaded.table_sources[key, word])}
                for word, value, _ in keys
            }
            for key, name, keys in tables
        }
    print_json(shown)


def _tables(loaded: Loaded) -> dict[str, list[tuple[str, str, list[tuple[str, Any, str]]]]]:
    """By kind, of each table: its key, its name, and each key in it with its value and as text."""
    tables = loaded.config.tables
    found: dict[str, list[tuple[str, str, list[tuple[str, Any, str]]]]] = {}
    for one in tables.ae:
        found.setdefault("ae", []).append((one.key, one.title, _values(one.values)))
    for sender in tables.senders:
        matchers = [
            (word, getattr(sender, word), kind.show(getattr(sender, word)))
            for word, kind in MATCHERS.items()
            if getattr(sender, word)
        ]
        keys = matchers + _values(sender.values)
        found.setdefault("from", []).append((sender.key, sender.name, keys))
    return found


def _values(values: Mapping[str, Any]) -> list[tuple[str, Any, str]]:
    """The settings of a table, in the order of the help."""
    return [
        (one.name, values[one.field], one.kind.show(values[one.field]))
        for one in SETTINGS
        if one.field in values
    ]


def _rows(loaded: Loaded) -> Iterator[tuple[str, str, str]]:
    for setting, shown, source in loaded.rows():
        value = getattr(loaded.config, setting.field)
        text = str(value.absolute()) if isinstance(value, Path) else shown
        yield setting.name, escape(text or setting.default_text), escape(source)


def _table_rows(loaded: Loaded) -> Iterator[tuple[str, str, str]]:
    for kind, tables in _tables(loaded).items():
        for key, name, keys in tables:
            yield "", "", ""
            yield f"[{written_path((kind, name))}]", "", escape(loaded.table_sources[key, TABLE])
            for word, _, shown in keys:
                yield f"  {word}", escape(shown), escape(loaded.table_sources[key, word])
