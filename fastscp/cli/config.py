"""`fastscp config`: the settings, and where each value comes from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from fastscp.cli.options import ConfigFile, Quiet, Verbose, load_settings, takes_settings
from fastscp.cli.output import plain_table, print_json, table_console
from fastscp.config.settings import SETTINGS

if TYPE_CHECKING:
    from fastscp.config.settings import Loaded

__all__ = ["show_config"]


@takes_settings
def show_config(
    *,
    config: ConfigFile | None = None,
    json: Annotated[
        bool, Parameter(negative="", show_default=False, help="Print JSON instead of a table.")
    ] = False,
    verbose: Verbose = 0,
    quiet: Quiet = False,
    **given: object,
) -> int:
    """Show the effective configuration of the receiver, and where each value comes from.

    Takes the options of serve, and reads the same environment and file.
    """
    loaded = load_settings(given, config, verbose, quiet)
    if json:
        _print_json(loaded)
    else:
        _print_table(loaded)
    return 0


def _print_json(loaded: Loaded) -> None:
    print_json(
        {
            setting.name: {
                "value": _plain(getattr(loaded.config, setting.field)),
                "source": loaded.sources[setting.field],
            }
            for setting in SETTINGS
        }
    )


def _plain(value: object) -> object:
    """A value as JSON knows it, so that it may go back into a TOML file."""
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value if isinstance(value, (bool, int, float, str)) else str(value)


def _print_table(loaded: Loaded) -> None:
    from rich.text import Text

    table = plain_table("setting", "value", "source")
    for setting, value, source in loaded.rows():
        # Text, not str: nothing in a value is markup.
        table.add_row(Text(setting.name), Text(value or setting.default_text), Text(source))
    table_console().print(table)
