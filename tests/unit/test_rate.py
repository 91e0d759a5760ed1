"""New associations of an address in a second: a token bucket beside a slow, exact reference."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastscp.main.rate import KEPT_MOST, Rates
from fastscp.rules.networks import counted_host

A = ("default", "10.0.0.1")
B = ("from.MR", "10.0.0.1")
C = ("default", "2001:db8::1")


class Reference:
    """What a bucket promises, without a bucket: no stretch of time holds more than it may.

    From any association that was allowed to the next one there are at most `per_second` of them,
    and `per_second` more for each second between the two.
    """

    def __init__(self) -> None:
        self._allowed: dict[tuple[str, str], list[Fraction]] = {}

    def allows(self, key: tuple[str, str], per_second: int, now: Fraction) -> bool:
        before = self._allowed.setdefault(key, [])
        for n, then in enumerate(before):
            if len(before) - n + 1 > per_second + per_second * (now - then):
                return False
        before.append(now)
        return True


# Steps in 64ths of a second: a float holds their sums exactly.
STEPS = st.lists(
    st.tuples(st.sampled_from([A, B, C]), st.sampled_from([0, 0, 1, 2, 16, 63, 64, 65, 200])),
    max_size=120,
)


@given(STEPS, st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9)))
def test_it_allows_what_the_reference_allows(
    steps: list[tuple[tuple[str, str], int]], limits: tuple[int, int, int]
) -> None:
    rates, reference = Rates(), Reference()
    of = dict(zip((A, B, C), limits, strict=True))
    now = 1000 * 64
    for key, step in steps:
        now += step
        told = rates.allows(key, of[key], now / 64)
        assert told == reference.allows(key, of[key], Fraction(now, 64))
    assert len(rates) <= 3


@given(st.lists(st.floats(0, 0.3), max_size=200), st.integers(1, 50))
def test_no_second_holds_more_than_twice_the_limit(steps: list[float], limit: int) -> None:
    rates, now = Rates(), 5e6
    allowed: list[float] = []
    for step in steps:
        now += step
        if rates.allows(A, limit, now):
            allowed.append(now)
    for n, then in enumerate(allowed):
        assert sum(at < then + 1 for at in allowed[n:]) <= 2 * limit


def test_a_refused_request_takes_no_token() -> None:
    rates = Rates()
    assert rates.allows(A, 2, 10.0)
    assert rates.allows(A, 2, 10.0)
    # Were these taken into account, the one after half a second would find no token.
    assert not any(rates.allows(A, 2, 10.0 + n / 1000) for n in range(400))
    assert rates.allows(A, 2, 10.5)
    assert not rates.allows(A, 2, 10.5)


def test_zero_is_no_limit_and_costs_nothing() -> None:
    rates = Rates()
    assert all(rates.allows(A, 0, 10.0) for _ in range(10_000))
    assert len(rates) == 0


def test_a_limit_that_a_reload_changes_counts_from_then_on() -> None:
    rates = Rates()
    assert all(rates.allows(A, 10, 10.0) for _ in range(10))
    assert not rates.allows(A, 10, 10.0)
    # A tenth of a second brings a tenth of what the limit is now.
    assert all(rates.allows(A, 100, 10.1) for _ in range(10))
    assert not rates.allows(A, 100, 10.1)
    # And a bucket never holds more than the limit of now.
    assert rates.allows(B, 100, 10.1)
    assert rates.allows(B, 1, 10.2)
    assert not rates.allows(B, 1, 10.2)


def test_a_clock_that_stands_still_brings_nothing() -> None:
    rates = Rates()
    assert rates.allows(A, 1, 10.0)
    assert not rates.allows(A, 1, 10.0)
    assert not rates.allows(A, 1, 9.0)
    assert rates.allows(A, 1, 11.0)


def test_full_buckets_are_forgotten() -> None:
    rates = Rates()
    for n in range(1000):
        assert rates.allows(("default", f"10.0.{n // 250}.{n % 250}"), 1, 10 + n / 1000)
    assert len(rates) == 1000
    # Those of the first half second had their second.
    assert rates.allows(A, 1, 11.4995)
    assert 500 <= len(rates) <= 502
    assert rates.allows(A, 1, 20.0)
    assert len(rates) == 1


def test_a_flood_of_addresses_has_a_bound_and_holds_up_nobody() -> None:
    rates = Rates(kept_most=64)
    assert rates.allows(A, 1, 10.0)
    for n in range(1000):
        assert rates.allows(("default", f"10.1.{n // 250}.{n % 250}"), 1, 10.0)
        assert len(rates) <= 64
    # The newest are still counted, and the oldest may come again.
    assert not rates.allows(("default", "10.1.3.249"), 1, 10.0)
    assert rates.allows(A, 1, 10.0)
    # One that goes on taking is not the oldest.
    for n in range(200):
        assert rates.allows(B, 1000, 10.0)
        assert rates.allows(("default", f"10.2.0.{n}"), 1, 10.0)
    assert len(rates) == 64
    assert sum(rates.allows(B, 1000, 10.0) for _ in range(1000)) == 800
    assert KEPT_MOST == 16_384


@pytest.mark.parametrize(
    ("host", "counted"),
    [
        ("10.1.2.3", "10.1.2.3"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::6", "2001:db8:1:3::/64"),
        ("fe80::1%eth0", "fe80::%eth0/64"),
        ("::ffff:10.1.2.3", "10.1.2.3"),
        ("::1", "::/64"),
        ("no:address", "no:address"),
        ("", ""),
    ],
)
def test_how_an_address_is_counted(host: str, counted: str) -> None:
    assert counted_host(host) == counted


def test_a_network_of_one_host_is_one_host() -> None:
    rates = Rates()
    assert rates.allows(("default", "2001:db8::1"), 1, 10.0)
    assert not rates.allows(("default", "2001:db8::2"), 1, 10.0)
    assert rates.allows(("default", "2001:db8:0:1::1"), 1, 10.0)
    # A table of its own counts for itself.
    assert rates.allows(("from.MR", "2001:db8::2"), 1, 10.0)


@given(STEPS, st.integers(1, 4))
def test_a_look_says_what_would_be_and_takes_nothing(
    steps: list[tuple[tuple[str, str], int]], per_second: int
) -> None:
    looked, taken = Rates(), Rates()
    now = 0.0
    for key, step in steps:
        now += step / 64
        seen = [looked.would_allow(key, per_second, now) for _ in range(3)]
        assert seen == [taken.allows(key, per_second, now)] * 3
        assert looked.allows(key, per_second, now) == seen[0]
    assert Rates().would_allow(A, 0, 1.0)
