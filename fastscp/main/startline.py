"""The line of the log that says what a service begins with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fastscp import __version__
from fastscp.log import counted, escape

if TYPE_CHECKING:
    from fastscp.config.settings import ServeConfig
    from fastscp.store.store import Store

__all__ = ["start_line"]

# A file may have thousands of tables.
_TABLES_SHOWN: Final = 3


def start_line(config: ServeConfig, file: str, store: Store) -> str:
    """Who serves which store how. file: that the configuration is from; empty: there is none."""
    facts = store.facts
    names = "rename" if facts.noreplace else "link"
    number = len(config.tables.ae) + len(config.tables.senders)
    source = f", configuration {escape(file)} ({counted(number, 'table')})" if file else ""
    return (
        f"fastscp {__version__}: AE title '{config.ae_title}', "
        f"{counted(config.workers, 'worker')}, store {store.path} ({facts.file_system}, {names} "
        f"names, {durabilities(config)}), id {store.id}{source}"
    )


def durabilities(config: ServeConfig) -> str:
    """`stable`, or `stable, buffered in [ae.X], [ae.Y]`."""
    others: dict[str, list[str]] = {}
    for table in config.tables.ae:
        durability = table.values.get("durability", config.durability)
        if durability != config.durability:
            others.setdefault(durability, []).append(f"[{table.key}]")
    said = [config.durability]
    for durability, tables in others.items():
        more = len(tables) - _TABLES_SHOWN
        shown = ", ".join(tables[:_TABLES_SHOWN]) + (f" and {more:,} more" if more > 0 else "")
        said.append(f"{durability} in {shown}")
    return ", ".join(said)
