"""What the log says at the start: what a service begins with, and what to know of that."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from fastscp import __version__
from fastscp.log import counted, escape
from fastscp.main.aids import told_of_aids
from fastscp.main.exposure import exposed, overheard, told_of_files
from fastscp.main.loss import told_of_loss

if TYPE_CHECKING:
    from fastscp.config.settings import ServeConfig
    from fastscp.main.control import Facts
    from fastscp.store.lives import SweepReport
    from fastscp.store.store import Store

__all__ = ["say_start", "start_line"]

log = logging.getLogger("fastscp.main")

# A file may have thousands of tables.
_TABLES_SHOWN: Final = 3


def start_line(config: ServeConfig, file: str, store: Store) -> str:
    """Who serves which store how. file: that the configuration is from; empty: there is none."""
    facts = store.facts
    names = "rename" if facts.noreplace else "link"
    number = len(config.tables.ae) + len(config.tables.senders)
    source = f", configuration {escape(file)} ({counted(number, 'table')})" if file else ""
    kind = "new store" if store.created else "store"
    return (
        f"fastscp {__version__}: AE title '{config.ae_title}', "
        f"{counted(config.workers, 'worker')}, {kind} {store.path} ({facts.file_system}, "
        f"{names} names, {durabilities(config)}), id {store.id}{source}"
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


def say_start(config: ServeConfig, facts: Facts, store: Store, swept: SweepReport) -> None:
    """Let the log tell what began, and what an operator has to know of it.

    swept: what earlier runs left.
    """
    log.info("%s", start_line(config, facts.rules.file, store))
    if facts.admin:
        log.info(
            "metrics and health: http://%s/metrics, /healthz, /readyz; a page to look at: http://%s/",
            facts.admin, facts.admin,
        )  # fmt: skip
    warnings = [
        *told_of_aids(config), exposed(config, facts.addresses, facts.tls_addresses),
        overheard(config, facts.addresses), *told_of_files(config),
        config.admin_token_file.warning, *store.warnings,
    ]  # fmt: skip
    for warning in filter(None, warnings):
        log.warning("%s", warning)
    facts.expiry.look(facts.tls)
    if swept.folders:
        log.warning(
            "swept %s of an earlier run: %s, %s, none of them acknowledged",
            counted(swept.folders, "part folder"), counted(swept.parts, "unfinished instance"),
            counted(swept.bytes, "byte"),
        )  # fmt: skip
    if store.suspect:
        log.warning(
            "an earlier run that "
            "stored buffered, by --durability or a table, did not stop cleanly: a stored file "
            "that its journal line does not vouch for is replaced when it is sent again; "
            "`fastscp verify` checks all of them and lifts this"
        )
    if warning := told_of_loss(config):
        log.warning("%s", warning)
