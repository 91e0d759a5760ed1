"""The line of the log that says what a service begins with."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from fastscp import __version__
from fastscp.config.settings import ServeConfig
from fastscp.config.tables import AeTable, FromTable, Tables
from fastscp.log import counted
from fastscp.main.startline import durabilities, start_line

STORE: Any = SimpleNamespace(
    facts=SimpleNamespace(file_system="ext4", noreplace=True), path="/store", id="1", created=False
)


def buffered(*titles: str) -> Tables:
    tables = (AeTable(title, {"durability": "buffered"}) for title in titles)
    return Tables((*tables, AeTable("S", {"durability": "stable"}), AeTable("T")))


def test_the_line() -> None:
    config = ServeConfig(workers=1)
    begin = (
        f"fastscp {__version__}: AE title 'FASTSCP', 1 worker, store /store (ext4, rename names, "
    )
    assert start_line(config, "", STORE) == f"{begin}stable), id 1"
    # Nobody takes a path that was mistyped for the store that was meant.
    made: Any = SimpleNamespace(**vars(STORE) | {"created": True})
    assert start_line(config, "", made) == f"{begin}stable), id 1".replace(" store ", " new store ")
    # A file counts, also one without tables.
    line = start_line(config, "/etc/a\n.toml", STORE)
    assert line == f"{begin}stable), id 1, configuration /etc/a\\n.toml (0 tables)"
    config = ServeConfig(workers=2, tables=Tables((AeTable("X"),), ()))
    assert start_line(config, "/a", STORE).endswith(", configuration /a (1 table)")
    config = ServeConfig(workers=2, tables=Tables((AeTable("X"),), (FromTable("Y"),)))
    line = start_line(config, "/a", STORE)
    assert ", 2 workers, " in line
    assert line.endswith(" (2 tables)")


def test_durabilities_of_tables() -> None:
    assert durabilities(ServeConfig(tables=buffered())) == "stable"
    assert durabilities(ServeConfig(tables=buffered("X"))) == "stable, buffered in [ae.X]"
    some = durabilities(ServeConfig(durability="buffered", tables=buffered("X")))
    assert some == "buffered, stable in [ae.S]"
    many = durabilities(ServeConfig(tables=buffered(*"ABCDE")))
    assert many == "stable, buffered in [ae.A], [ae.B], [ae.C] and 2 more"


@pytest.mark.parametrize(
    ("number", "words", "said"),
    [
        (0, ("worker",), "0 workers"), (1, ("worker",), "1 worker"),
        (1000, ("worker",), "1,000 workers"), (1, ("entry", "entries"), "1 entry"),
        (2, ("entry", "entries"), "2 entries"),
    ],
)  # fmt: skip
def test_counts_of_things(number: int, words: tuple[str, ...], said: str) -> None:
    assert counted(number, *words) == said
