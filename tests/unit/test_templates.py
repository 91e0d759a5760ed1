"""Texts from templates are those that prometheus_client writes, byte by byte, whatever comes."""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from prometheus_client.exposition import choose_encoder, generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_families
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from fastscp.admin.exposition import FAMILIES, Texts, content_type
from fastscp.admin.templates import Templates, number_texts
from fastscp.messages.totals import Aborted, Counted, Distribution
from tests.measures import STATUS, snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from prometheus_client.core import Metric

    from fastscp.messages.metrics import Snapshot

FORMS = (
    "",
    "text/plain;version=1.0.0;escaping=allow-utf-8",
    "application/openmetrics-text",
    "application/openmetrics-text;version=1.0.0;escaping=values",
    "application/openmetrics-text; version=2.0.0; escaping=dots",
)

# What may not end a line, a label, a mark or a form, or be taken for one.
ODD = (
    '"', "\\", "\n", "\\n", 'a"b\\c\nd', "\r", "\r\n", "\x85", "\u2028", "\0", "%", "%s", "%%s",
    "%(a)s", "{}", "{0}", "#", "# EOF", "\n# EOF\n", " ", "", " 0.5", '"} 0.5', '"} 0.5\nx 1.5',
    "é", "\U0001f600", "0.5", "+Inf",
)  # fmt: skip


class _Whole(Collector):
    def __init__(self, now: Snapshot) -> None:
        self._now = now

    def collect(self) -> Iterator[Metric]:
        for family in FAMILIES:
            yield family.metric(family.rows(self._now))


def whole(now: Snapshot, accept: str) -> bytes:
    """What prometheus_client writes by itself."""
    found: bytes = choose_encoder(accept)[0](_Whole(now))
    return found


def drawn(rng: random.Random) -> Snapshot:
    """A snapshot with any labels and numbers that there can be, and some that there cannot."""

    def number() -> int:
        return rng.choice((0, 0, rng.randrange(10), rng.randrange(1 << rng.randrange(1, 64))))

    def counted() -> Counted:
        return Counted(number(), number(), number(), number())

    def distribution() -> Distribution:
        return Distribution(tuple(number() for _ in range(31)), number())

    def label() -> str:
        return rng.choice((rng.choice(ODD), f"T{rng.randrange(30)}", rng.choice(ODD) + "x"))

    def some(make: Callable[[], Any]) -> dict[str, Any]:
        return {label(): make() for _ in range(rng.randrange(6))}

    seconds = rng.choice((0.0, 0.1, 1e-7, rng.random() * 1e9, math.nan, math.inf, -math.inf, -1.5))
    status = msgspec.structs.replace(
        STATUS, version=label(), uptime_s=seconds, associations=number(),
        certificate_expires=rng.choice((0.0, 2e9)), limit=number(),
    )  # fmt: skip
    return snapshot(
        status=status, by_ae=some(counted), by_transfer_syntax=some(counted),
        by_status={(rng.choice(("0000", "B000", "A700", label())), label()): counted()
                   for _ in range(rng.randrange(6))},
        times={name: distribution() for name in snapshot().times}, flushes=some(distribution),
        batches=some(distribution), redo_ways=some(number), throttled_us=some(number),
        aborted={Aborted(label(), label(), label()): number()}, contexts_refused=some(number),
        rejected={",".join(str(rng.randrange(9)) for _ in range(3)): number()},
        journal_bytes=rng.choice((None, number())), disk_blocked_s=seconds / 3,
        received_bytes=number(), handshakes_failed=some(number),
    )  # fmt: skip


@pytest.mark.parametrize("accept", FORMS)
def test_whatever_comes_and_goes(accept: str) -> None:
    """Labels change or stay, and so do the numbers, in any order."""
    rng, texts = random.Random(7), Texts()
    now = drawn(rng)
    for _ in range(80):
        other = drawn(rng)
        if rng.randrange(3):
            # Of most families the labels stay, and of some the numbers, too.
            fields = rng.sample(now.__struct_fields__, rng.randrange(4))
            now = msgspec.structs.replace(now, **{one: getattr(other, one) for one in fields})
            now = msgspec.structs.replace(
                now,
                times=rng.choice((now.times, other.times)),
                by_ae={title: Counted(*rng.sample(range(1 << 40), 4)) for title in now.by_ae},
            )
        else:
            now = other
        text = texts.text(now, accept)
        assert text == whole(now, accept)
        assert texts.text(now, accept) == text


@pytest.mark.parametrize("accept", FORMS[:3])
@pytest.mark.parametrize("odd", ODD)
def test_odd_labels(accept: str, odd: str) -> None:
    texts = Texts()
    read = open_families if "openmetrics" in accept else text_string_to_metric_families
    for stored in (1, 10**6, 2**60):
        now = snapshot(by_ae={odd: Counted(stored, 2, 3, 4), "CT1": Counted(5, 6, 7, 8)})
        text = texts.text(now, accept)
        assert text == whole(now, accept)
        (family,) = (
            one for one in read(text.decode())
            if one.name.removesuffix("_total") == "fastscp_ae_instances"
        )  # fmt: skip
        found = {
            (one.labels["calling_ae"], one.labels["outcome"]): one.value for one in family.samples
        }
        assert found["CT1", "refused"] == 7
        assert found[odd, "stored"] == stored


@pytest.mark.parametrize(
    "accept",
    ["text/plain;version=x", "application/openmetrics-text;version=1.x", "a/b;version=9", "\xff"],
)
def test_who_asks_for_what_is_no_form_gets_the_usual_one(accept: str) -> None:
    now = snapshot()
    assert Texts().text(now, accept) == Texts().text(now, "")
    assert content_type(accept) == content_type("")


def test_numbers() -> None:
    rng = random.Random(3)
    numbers: list[float] = [
        True, False, -1, -0.0, 0.0, 0.1, 1.0, 1e6, 1e21, 5e-324, math.nan, math.inf, -math.inf,
        *(10**k + n for k in range(25) for n in (-1, 0, 1)),
        *((1 << k) + n for k in range(70) for n in (-1, 0, 1)),
        *(rng.randrange(1 << rng.randrange(1, 70)) for _ in range(20_000)),
        *(rng.randrange(1000) * 10 ** rng.randrange(16) for _ in range(2000)),
        *(rng.random() * 10 ** rng.randrange(-9, 20) for _ in range(2000)),
    ]  # fmt: skip
    for number, text in zip(numbers, number_texts(numbers), strict=True):
        assert text == floatToGoString(number), number  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("count", [0, 1, 7, 8, 20, 26, 27, 31, 40])
def test_a_histogram_has_all_up_to_each_bound(count: int) -> None:
    """However many buckets whoever counted had."""
    (family,) = (one for one in FAMILIES if one.name == "fastscp_flush_seconds")
    buckets = tuple(range(1, count + 1))
    now = snapshot(flushes={"data": Distribution(buckets, 2_500_000)})
    ((labels, numbers),) = family.rows(now)
    assert labels == ("data",)
    wanted = [sum(buckets[: k + 1]) for k in range(7, 27)]
    assert list(numbers) == [*wanted, sum(buckets), 2.5]
    assert Texts().text(now, "") == whole(now, "")


def _stamped(registry: Collector) -> bytes:
    """With what is no number behind each number."""
    lines = generate_latest(registry).decode().split("\n")
    stamped = [one if one[:1] in ("#", "") else f"{one} 1700000000" for one in lines]
    return "\n".join(stamped).encode()


def _otherwise(registry: Collector) -> bytes:
    """With other numbers than we would write, in one line of many."""
    return generate_latest(registry).replace(b'le="0.000512"} ', b'le="0.000512"} 0')


def _backwards(registry: Collector) -> bytes:
    """With the samples in another order."""
    lines = generate_latest(registry).decode().split("\n")
    return "\n".join(sorted(lines, key=lambda one: one[::-1])).encode()


@pytest.mark.parametrize("encoder", [_stamped, _otherwise])
def test_an_encoder_that_writes_otherwise(encoder: Callable[[Collector], bytes]) -> None:
    """It is asked each time where its texts cannot be taken apart."""
    templates, rng = Templates(encoder), random.Random(1)
    for _ in range(10):
        now = drawn(rng)
        wanted = encoder(_Whole(now))
        assert templates.text((one, one.rows(now)) for one in FAMILIES) == wanted


def test_an_encoder_with_another_order() -> None:
    """Numbers are told apart by what they are, not by where they were put in."""
    (family,) = (one for one in FAMILIES if one.name == "fastscp_receive_seconds")
    templates, lines = Templates(_backwards), set()
    for total in (1_000_000, 2_000_000):
        now = snapshot(times={"receive": Distribution(tuple(range(31)), total)})
        rows = family.rows(now)
        found = templates.text([(family, rows)]).decode().split("\n")
        assert sorted(found) == sorted(
            generate_latest(_One(family.metric(rows))).decode().split("\n")
        )
        lines.add(tuple(found))
    assert len(lines) == 2
    # A template could be made of it.
    assert templates._known[family.name].text(rows) is not None


class _One(Collector):
    def __init__(self, metric: Metric) -> None:
        self._metric = metric

    def collect(self) -> Iterator[Metric]:
        yield self._metric


def test_the_library_is_asked_for_new_labels_alone() -> None:
    asked = 0

    def encoder(registry: Collector) -> bytes:
        nonlocal asked
        asked += 1
        return generate_latest(registry)

    templates = Templates(encoder)

    def text(now: Snapshot) -> bytes:
        nonlocal asked
        asked = 0
        return templates.text((one, one.rows(now)) for one in FAMILIES)

    text(snapshot())
    assert asked == len(FAMILIES)
    before = text(snapshot(received_bytes=8, redo_ways={"log": 10, "full": 7}, journal_bytes=9))
    assert asked == 0
    assert b"\nfastscp_received_bytes_total 8.0\n" in before
    # Two families have this label.
    text(snapshot(by_ae={"CT1": Counted(1, 2, 3, 4), "CT2": Counted(1, 2, 3, 4)}))
    assert asked == 2


def test_no_more_is_kept_than_there_is() -> None:
    """Whatever clients call the form that they want, and whichever labels there were."""
    texts = Texts()
    for number in range(40):
        accept = f"application/openmetrics-text;version=1.0.{number}"
        assert texts.text(snapshot(), accept) == whole(snapshot(), accept)
    assert len(texts._templates) == 4
    for number in range(40):
        texts.text(snapshot(by_ae={f"T{number}": Counted(1, 2, 3, 4)}), "")
    (known,) = (one._known for kind, one in texts._templates.items() if kind.startswith("text"))
    assert len(known) == len(FAMILIES)
    assert known["fastscp_ae_stored_bytes_total"]._labels == [("T39",)]
