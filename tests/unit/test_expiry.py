"""What of TLS runs out, and how often it is told; the clock is given."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from fastscp.main.expiry import Expiry, expiring
from fastscp.tls.material import Material

DAY = 86400.0
NOW = 1_800_000_000.0


def material(**of: Any) -> Material:
    of = {"begins": NOW - DAY, "expires": NOW + 365 * DAY} | of
    return Material(chain=b"c", key=b"k", profile="8996", subject="CN=S", **of)


def said(**of: Any) -> list[tuple[str, int, str]]:
    return [tuple(one) for one in expiring(material(**of), NOW)]  # type: ignore[misc]


def test_nothing_runs_out() -> None:
    assert said() == []
    assert said(expires=NOW + 30 * DAY) == []
    assert said(crl_expires=NOW + DAY) == []


@pytest.mark.parametrize(
    ("of", "what", "level", "words"),
    [
        ({"expires": NOW + 29.5 * DAY}, "certificate", logging.WARNING, "expires in 29 days, on"),
        ({"expires": NOW + 7 * DAY}, "certificate", logging.WARNING, "expires in 7 days"),
        ({"expires": NOW + 6.9 * DAY}, "certificate", logging.ERROR, "expires in 6 days"),
        ({"expires": NOW + 100}, "certificate", logging.ERROR, "expires in 0 days"),
        ({"expires": NOW}, "certificate", logging.ERROR, "has expired on 2027-01-15 08:00 UTC"),
        ({"begins": NOW + 1}, "certificate", logging.ERROR, "is not valid before"),
        ({"crl_expires": NOW + DAY / 2}, "lists", logging.WARNING, "is out of date on"),
        ({"crl_expires": NOW}, "lists", logging.ERROR, "is out of date since"),
    ],
)
def test_what_runs_out(of: dict[str, float], what: str, level: int, words: str) -> None:
    [(about, at, text)] = said(**of)
    assert (about, at) == (what, level)
    assert words in text
    assert "; " in text, "says what to do"


def test_both_at_once() -> None:
    assert [one[0] for one in said(expires=NOW, crl_expires=NOW)] == ["certificate", "lists"]


def test_once_a_day_and_what_is_worse_at_once(caplog: pytest.LogCaptureFixture) -> None:
    expiry, one = Expiry(), material(expires=NOW + 8 * DAY)
    told: list[tuple[float, str]] = []
    for hours in range(10 * 24):
        caplog.clear()
        expiry.look(one, NOW + hours * 3600)
        told += [(hours / 24, record.levelname) for record in caplog.records]
    # Day 7 and 2 hours is the first look at which less than a week is left.
    assert told[:2] == [(0.0, "WARNING"), (1.0, "WARNING")] or told[1][0] > 1
    assert [level for _, level in told] == ["WARNING"] * 2 + ["ERROR"] * (len(told) - 2)
    assert 9 <= len(told) <= 11


def test_new_files_are_told_of_anew(caplog: pytest.LogCaptureFixture) -> None:
    expiry = Expiry()
    expiry.look(None, NOW)
    expiry.look(material(expires=NOW + DAY), NOW)
    expiry.look(material(expires=NOW + 2 * DAY), NOW)
    assert [one.message.partition("expires in ")[2][:6] for one in caplog.records] == [
        "1 day,", "2 days",
    ]  # fmt: skip
    expiry.look(material(), NOW)
    assert len(caplog.records) == 2
