"""The arithmetic of bench/spans.py: what pairs of alternating spans say, and what they do not."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from bench import render, spans
from bench.accounting import Memory
from bench.results import Results
from bench.scenarios_soak import GROUPS, Look, _grown, _judge

if TYPE_CHECKING:
    from pathlib import Path

NOISE = 0.15


def measured(pairs: int, factor: float, *, drift: float = 0.0, seed: int = 1) -> list[float]:
    """Ratios of pairs of which the second way takes `factor` times as long, with noise.

    drift: what all becomes slower by from one span to the next one.
    """
    noise = random.Random(seed)
    ratios, order = [], spans.turns(pairs, 20)
    for number in range(0, 2 * pairs, 2):
        took = {
            second: noise.lognormvariate(0, NOISE / 2**0.5)
            * (1 + drift) ** (number + later)
            * (factor if second else 1.0)
            for later, second in enumerate(order[number : number + 2])
        }
        ratios.append(took[True] / took[False])
    return ratios


@pytest.mark.parametrize("pairs", [1, 6, 45, 90])
def test_each_pair_has_both_and_neither_is_always_the_later_one(pairs: int) -> None:
    order = spans.turns(pairs, 20)
    assert len(order) == 2 * pairs
    for pair in zip(order[::2], order[1::2], strict=True):
        assert sorted(pair) == [False, True]
    assert sum(order[::2]) == pairs // 2
    assert order == spans.turns(pairs, 20)


def test_the_order_is_random_and_the_seed_s() -> None:
    assert spans.turns(90, 20) != spans.turns(90, 21)
    # Nothing that comes back after so many spans meets the same way each time.
    order = spans.turns(90, 20)
    for every in range(1, 20):
        assert set(order[::every]) == {False, True}


@pytest.mark.parametrize(
    ("count", "ranks"),
    # As in the tables of the binomial distribution.
    [(6, (1, 6)), (9, (2, 8)), (10, (2, 9)), (20, (6, 15)), (90, (36, 55)), (100, (40, 61))],
)
def test_the_interval_of_a_median_by_order_statistics(count: int, ranks: tuple[int, int]) -> None:
    values = [float(value) for value in range(1, count + 1)]
    random.Random(3).shuffle(values)
    assert spans.interval(values) == ranks


@pytest.mark.parametrize(
    ("count", "ranks"), [(1023, (480, 544)), (1026, (482, 545)), (5000, (2431, 2570))]
)
def test_no_sample_is_too_large(count: int, ranks: tuple[int, int]) -> None:
    """From 1,024 on no float has 2 ** count."""
    assert spans.interval([float(value) for value in range(1, count + 1)]) == ranks


@pytest.mark.parametrize("count", range(6))
def test_few_values_have_no_interval(count: int) -> None:
    assert spans.interval([1.0] * count) is None


def test_the_interval_holds_as_often_as_it_says() -> None:
    """Also where the values are spread very unevenly."""
    values = random.Random(7)
    held = 0
    for _ in range(2000):
        found = spans.interval([values.expovariate(1) ** 2 for _ in range(25)])
        assert found is not None
        # The median of exp is ln 2.
        held += found[0] <= 0.4804530139 <= found[1]
    assert 0.945 < held / 2000 < 0.98


@pytest.mark.parametrize(
    ("factor", "pairs", "verdict"),
    [
        (1.0, 90, "shown"),
        (0.9, 90, "shown"),
        (1.2, 90, "refuted"),
        (1.05, 90, "not shown"),
        (1.0, 10, "not shown"),
        (1.0, 5, "not shown (5 pairs are too few)"),
        (1.2, 5, "not shown (5 pairs are too few)"),
    ],
)
def test_verdicts(factor: float, pairs: int, verdict: str) -> None:
    found = spans.judged(measured(pairs, factor), 1.05, 7500, 1000)
    assert found.verdict == verdict
    assert found.words == f"at most 5 % more: {verdict}"


def test_a_drift_favours_neither() -> None:
    """Twice as slow after every ten spans, which a fixed order would show as 7 %."""
    found = spans.judged(measured(400, 1.0, drift=2**0.1 - 1), 1.05, 7500, 1000)
    assert found.verdict == "shown"
    assert found.low is not None
    assert found.high is not None
    assert found.low < 1 < found.high


def test_a_span_with_few_responses_shows_nothing() -> None:
    found = spans.judged([1.0] * 90, 1.05, 999, 1000)
    assert found.verdict == "not shown (a span had 999 responses, a p99 takes 1,000)"
    assert (found.low, found.high) == (1.0, 1.0)
    with pytest.raises(ValueError, match="no pairs"):
        spans.judged([], 1.05, 9999, 1000)


def test_a_slope_is_that_of_an_hour() -> None:
    assert spans.slope([0, 10, 20, 30], [5, 6, 7, 8]) == pytest.approx(360)
    assert spans.slope([3], [5]) == spans.slope([], []) == 0


def test_memory_of_each_process_at_rest_early_late_and_its_slope() -> None:
    """The first tenth is in none of them, and a process that is gone is in its own time only."""
    looks = []
    for number in range(20):
        grown = 1000 if number < 2 else number
        memory = {"main": Memory(grown + 7, 500, 0)}
        memory["worker 0"] = Memory(50, 40 + number * 10, 0)
        looks.append(Look(number * 10.0, memory))
    del looks[5].memory["worker 0"]
    found = _grown({"main": Memory(1, 2, 0)}, looks)
    assert found["main"] == pytest.approx(
        {"rest_bytes": 2, "early_bytes": 500, "late_bytes": 500, "slope_bytes": 0,
         "rss_slope_bytes": 360}
    )  # fmt: skip
    assert found["worker 0"] == pytest.approx(
        {"rest_bytes": 60, "early_bytes": 65, "late_bytes": 225, "slope_bytes": 3600,
         "rss_slope_bytes": 0}
    )  # fmt: skip


def test_what_the_spans_say_is_in_the_document_on_the_page_and_said(tmp_path: Path) -> None:
    results = Results(tmp_path / "r.json", {})
    said: list[str] = []
    cells = [results.cell("soak", "spans", "ours", {"scraped": one}) for one in (False, True)]
    for number, factor in enumerate(measured(90, 1.2)):
        for cell, p99 in zip(cells, (100.0, 100.0 * factor), strict=True):
            cell.rounds.append({"sync_p50_us": 50.0, "sync_p99_us": p99})
            cell.rounds[-1]["sync_instances"] = 7500 - number
    _judge(SimpleNamespace(results=results, say=said.append), "ours", cells)  # type: ignore[arg-type]
    assert GROUPS[0].name == "sync"
    half, worst = results.ratios
    assert (half["verdict"], half["low"], half["high"]) == ("at most 5 % more: shown", 1.0, 1.0)
    assert worst["verdict"] == "at most 5 % more: refuted"
    # The spread of the pairs is another thing than the interval of their median.
    assert worst["least"] < worst["low"] < worst["median"] < worst["high"] < worst["most"]
    interval = f"{worst['low']:.3f}..{worst['high']:.3f}"
    assert f"95 % interval {interval} of 90 pairs; at most 5 % more: refuted" in said[1]
    row = next(line for line in render._ratios(results.ratios) if "p99" in line)
    assert row.endswith(f"| 90 | {interval} | at most 5 % more: refuted |")
