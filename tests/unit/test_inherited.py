"""What was counted before an upgrade: added up by names, in no more rows than there are."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from fastscp.main.dispatch import Takers
from fastscp.main.inherited import KEPT, Inherited
from fastscp.main.measured import Measured
from fastscp.main.summary import Seen
from fastscp.main.takeover import Takeover
from fastscp.messages.handover import Counting, ToSuccessor
from fastscp.messages.totals import OTHER, Aborted, Counted, Distribution, Totals
from fastscp_ext import Shared
from tests.books import limited
from tests.measures import STATUS, snapshot

SYNTAX = "1.2.840.10008.1.2.1"


def everything() -> Totals:
    """Something of everything."""
    made = snapshot()
    return Totals(**{one: getattr(made, one) for one in Totals.__struct_fields__})


def test_each_count_is_added() -> None:
    """Also one that somebody adds later: none is forgotten."""
    one = everything()
    both = one.plus(one)
    for name in Totals.__struct_fields__:
        once, twice = getattr(one, name), getattr(both, name)
        assert once, name
        if isinstance(once, dict):
            assert once.keys() == twice.keys()
            once, twice = [*once.values()], [*twice.values()]
        else:
            once, twice = [once], [twice]
        for a, b in zip(once, twice, strict=True):
            assert _numbers(b) == [2 * n for n in _numbers(a)], name
    assert one.plus(Totals()) == Totals().plus(one) == one


def _numbers(value: Any) -> list[float]:
    if isinstance(value, Distribution):
        return [*value.buckets, value.total]
    return [*value] if isinstance(value, Counted) else [value]


def test_what_only_one_has_is_kept() -> None:
    one = Totals(by_ae={"A": Counted(1, 1, 1, 1)}, rejected={"2,3,1": 1})
    other = Totals(by_ae={"B": Counted(2, 2, 2, 2)}, aborted={Aborted("peer", "0", "0"): 3})
    both = one.plus(other)
    assert [*both.by_ae] == ["A", "B"]
    assert (both.rejected, both.aborted) == (one.rejected, other.aborted)


def test_buckets_of_another_version_begin_anew() -> None:
    ours, theirs = Distribution((1, 2), 3), Distribution((1, 2, 3), 4)
    assert ours.plus(theirs) == ours


def test_it_goes_from_one_version_to_another() -> None:
    """By names: what the other one does not know is left out, what it lacks is nothing."""
    encoded = msgspec.msgpack.encode(Counting(everything()))
    decoder = msgspec.msgpack.Decoder(ToSuccessor)
    assert decoder.decode(encoded) == Counting(everything())
    raw = msgspec.msgpack.decode(encoded)
    # As a later version may send it, and an earlier one.
    raw["totals"]["of_tomorrow"] = {"x": 1}
    del raw["totals"]["handshakes_failed"]
    message = decoder.decode(msgspec.msgpack.encode(raw))
    assert isinstance(message, Counting)
    assert message.totals == msgspec.structs.replace(everything(), handshakes_failed={})
    # With as many rows of all kinds as there may be it is still one message.
    counted = Counted(*[2**63] * 4)
    full = Counting(
        Totals(
            by_ae={f"{number:016}%00%00%00%00%00": counted for number in range(256)},
            by_status={(f"{number:04X}", "r" * 64): counted for number in range(64)},
            by_transfer_syntax={f"{number:064}": counted for number in range(80)},
            times=dict.fromkeys(map(str, range(9)), Distribution((2**63,) * 31, 2**63)),
            contexts_refused={f"{number:064}": 2**63 for number in range(101)},
            handshakes_failed={f"{number:064}": 2**63 for number in range(64)},
        )
    )
    assert len(msgspec.msgpack.encode(full)) < 196608


def test_places_are_not_taken_twice() -> None:
    """Titles that were made up before have rows; whoever makes up more gets none beside them."""
    shared = Shared()
    books = limited(rows=shared.rows)
    for title in ("ONE", "TWO"):
        shared.rows.ae_row(title.encode(), True)
    before = Inherited(shared.rows, books.endings)
    made_up = {f"T{number}": Counted(1, 2, 3, 4) for number in range(150)}
    refused = {f"1.2.{number}": 1 for number in range(150)} | {OTHER: 5}
    before.take(Totals(by_ae={"ONE": Counted(1, 1, 1, 1), **made_up}, contexts_refused=refused))
    titles = before.totals.by_ae
    assert len(titles) == 1 + 100 + 1
    assert titles["ONE"] == Counted(1, 1, 1, 1)
    assert titles[OTHER] == Counted(50, 100, 150, 200)
    assert shared.rows.ae_row(b"NEW") == 0
    assert shared.rows.ae_row(b"T99") > 0
    assert len(before.totals.contexts_refused) == 101
    assert before.totals.contexts_refused[OTHER] == 55
    books.endings.known = {"1.3": "one", "1.2.7": "other"}
    books.endings.refuse_contexts({"1.3": 1, "1.2.7": 1})
    dispatch: Any = SimpleNamespace(takers=Takers(1, 1, 1), blocked_s=0.0, handshakes_failed={})
    now = Measured(lambda: STATUS, shared.rows, books, dispatch, before).snapshot()
    assert now.contexts_refused["1.2.7"] == 2
    assert now.contexts_refused[OTHER] == 56
    assert len(now.contexts_refused) == 101
    # The same again, as it comes each second, changes nothing.
    again = before.totals
    before.take(Totals(by_ae={"ONE": Counted(1, 1, 1, 1), **made_up}, contexts_refused=refused))
    assert before.totals == again


@pytest.mark.parametrize("totals", [None, Totals(accepted=3)])
def test_who_hands_nothing_over_is_named(
    caplog: pytest.LogCaptureFixture, totals: Totals | None
) -> None:
    """As an earlier version of the program does."""
    inherited = Inherited(Shared().rows, limited().endings)

    class Before:
        told = SimpleNamespace(pid=7)

        def watch(self, _orphaned: Any, _left: Any, counted: Any) -> None:
            if totals is not None:
                counted(totals)

        def prepared(self) -> asyncio.Future[None]:
            went_ahead = asyncio.get_running_loop().create_future()
            went_ahead.set_result(None)
            return went_ahead

    class StopError(Exception):
        """The rest is not of this test."""

    class Store:
        def refile(self, *_: object) -> bool:
            raise StopError

    async def take_over() -> None:
        some: Any = SimpleNamespace(stopping=False)
        before: Any = Before()
        takeover = Takeover(before, some, some, some, some, inherited)
        takeover.watch(lambda: None)
        prepared: Any = SimpleNamespace(filings=(), durabilities=())
        store: Any = Store()
        with pytest.raises(StopError):
            await takeover.finish(prepared, store, some, asyncio.Future())

    asyncio.run(take_over())
    assert inherited.totals == (totals or Totals())
    said = "the counters begin anew: process 7 is of a version that does not hand its own over"
    assert (said in caplog.text) == (totals is None)


def test_the_status_says_the_same() -> None:
    before = Inherited(Shared().rows, limited().endings)
    kept = (f"{KEPT[0]:04X}", KEPT[1])
    before.take(
        Totals(
            by_status={("0000", "stored"): Counted(5, 50, 0, 0), kept: Counted(2, 20, 0, 0),
                       ("A700", "disk full"): Counted(0, 0, 3, 0)},
            received_bytes=90, accepted=4, rejected={"2,3,1": 6}, handshakes_failed={"none": 7},
        )
    )  # fmt: skip
    seen = before.added_to(Seen(1.5, 1, 10, 0, 2, 100, 3, 1, 2, 1, 1))
    assert seen == Seen(1.5, 6, 60, 3, 2, 190, 7, 7, 2, 3, 8)
