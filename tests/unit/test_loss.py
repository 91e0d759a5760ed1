"""Who is told that a power cut may take acknowledged instances."""

from __future__ import annotations

from fastscp.config.settings import ServeConfig
from fastscp.config.tables import AeTable, Tables
from fastscp.main.loss import told_of_loss

RISK = ": a power cut may lose instances already acknowledged"


def configured(top: str, **tables: str) -> ServeConfig:
    """tables: the durability of a title; empty: its table sets none."""
    return ServeConfig(
        durability=top,
        tables=Tables(tuple(
            AeTable(title, {"durability": durability} if durability else {})
            for title, durability in tables.items()
        )),
    )  # fmt: skip


def test_a_start() -> None:
    assert told_of_loss(configured("stable", A="stable", B="")) == ""
    assert told_of_loss(configured("buffered", A="stable", B="")) == f"--durability buffered{RISK}"
    some = configured("stable", A="buffered", B="", C="buffered")
    assert told_of_loss(some) == f"durability buffered in [ae.A], [ae.C]{RISK}"
    both = configured("buffered", A="buffered")
    assert told_of_loss(both) == f"--durability buffered, also in [ae.A]{RISK}"


def test_a_line_names_few_of_many() -> None:
    many = configured("stable", **{f"T{n}": "buffered" for n in range(1000)})
    assert told_of_loss(many).endswith(f"[ae.T7], 992 tables more{RISK}")
    assert len(told_of_loss(many)) < 200
    nine = configured("stable", **{f"T{n}": "buffered" for n in range(9)})
    assert told_of_loss(nine).endswith(f"[ae.T7], 1 table more{RISK}")


def test_a_reload_tells_what_is_new() -> None:
    stable, buffered = configured("stable"), configured("buffered")
    assert told_of_loss(buffered, stable) == f"--durability buffered{RISK}"
    assert told_of_loss(stable, buffered) == told_of_loss(buffered, buffered) == ""
    table = configured("stable", A="buffered")
    assert told_of_loss(table, stable) == f"durability buffered in [ae.A]{RISK}"
    assert told_of_loss(table, table) == told_of_loss(table, buffered) == ""
    # What was stable by its own table goes by the top level from now on.
    kept = configured("buffered", A="stable")
    for now in (buffered, configured("buffered", A=""), configured("buffered", A="buffered")):
        assert told_of_loss(now, kept) == f"durability buffered in [ae.A]{RISK}"
    assert told_of_loss(configured("buffered", A=""), configured("stable", A="stable")) == (
        f"--durability buffered{RISK}"
    )
