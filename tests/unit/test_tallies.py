"""What an association did, counted where it outlives the worker."""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING

import pytest

from fastscp.association.account import Terms
from fastscp.main.admission import Lost
from fastscp.messages.worker import Ask
from fastscp_ext import PDUContextsError, Shared, Tally, decode_associate_rq
from tests.block import regions
from tests.books import limited
from tests.kit import ILE, associate_rq, data_set, store
from tests.unit.test_receiver import Site, rules

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with Site(tmp_path / "store") as made:
        yield made


def counted(site: Site, slot: int) -> dict[str, int]:
    """What is not 0 in a slot, as another process reads it."""
    return {name: n for name, n in site.shared.tallies.read(slot)._asdict().items() if n}


@pytest.mark.parametrize("durable", [False, True])
def test_what_was_stored_and_how(tmp_path: Path, durable: bool) -> None:
    with Site(tmp_path / "store", durable=durable) as site:
        one = site.associate(tally=5)
        whole = data_set()
        sent = (
            store(1) + store(2) + store(3, data_set(seed=1)) + store(4, sop="1..2")
            + store(5, data_set(sop="1.2.a")[:-3], sop="1.2.a")
            + store(6, data_set(ILE, sop="1.2.7"), sop="1.2.7")
        )  # fmt: skip
        site.feed(one, sent)
        site.settle(one)
        assert one.statuses() == [0, 0, 0, 0x0117, 0, 0]
        size = 3 * len(whole) + len(data_set(sop="1.2.a")) - 3 + len(data_set(ILE, sop="1.2.7"))
        assert counted(site, 5) == {
            "begun": 6, "stored": 5, "refused": 1, "bytes": size, "received": len(sent),
            "truncated": 1, "mislabelled": 1, "odd_uids": 1, "identical": 1, "versions": 1,
        }  # fmt: skip
        assert one.outbox.done == site.shared.tallies.read(5)
        assert counted(site, 4) == counted(site, 6) == {}


def test_what_another_one_stays_for_is_counted_as_that_alone(site: Site) -> None:
    one = site.associate(rules=rules(on_duplicate="keep"), tally=5)
    site.feed(one, store(1))
    size = len(data_set())
    site.feed(one, store(2, data_set(seed=1)) + store(3, data_set(seed=2)))
    site.settle(one)
    assert one.statuses() == [0, 0xB006, 0xB006]
    done = site.shared.tallies.read(5)
    assert (done.begun, done.stored, done.refused, done.kept, done.bytes) == (3, 1, 0, 2, size)
    assert done.unanswered == 0


def test_what_is_in_hand_is_seen_while_it_is(site: Site) -> None:
    """A worker that dies now leaves this."""
    one = site.associate(tally=0)
    whole = store(1)
    site.feed(one, whole[:-50])
    assert counted(site, 0) == {"begun": 1, "received": len(whole) - 50}
    assert site.shared.tallies.read(0).unanswered == 1
    one.stop()
    assert site.shared.tallies.read(0).unfinished == 1
    assert site.shared.tallies.read(0).unanswered == 0


@pytest.mark.parametrize("in_full", [True, False])
def test_how_it_ended_and_whether_that_is_told_are_two_things(site: Site, in_full: bool) -> None:
    one = site.associate(tally=3)
    site.feed(one, store(1))
    told = one.outbox.end(7)
    assert told is not None
    done = site.shared.tallies.read(3)
    assert (done.ended, done.told, done.is_untold, done.is_told) == (7, 0, True, False)
    # The log has its line later, and the slot is kept until then.
    one.abandon()
    told(in_full)
    done = site.shared.tallies.read(3)
    assert (done.ended, done.is_untold, done.is_told) == (7, False, in_full)
    site.shared.tallies.clear(3)
    assert counted(site, 3) == {}
    # What it did it still knows.
    assert (one.outbox.stored, one.outbox.done.ended) == (1, 7)
    assert site.associate().outbox.end(7) is None


def test_an_association_without_a_slot_counts_for_itself(site: Site) -> None:
    one = site.associate()
    site.feed(one, store(1))
    assert one.outbox.done.stored == 1
    assert not any(counted(site, slot) for slot in range(8))


def test_a_slot_that_is_not_there(site: Site) -> None:
    tallies = site.shared.tallies
    for slot in (-1, tallies.slots):
        with pytest.raises(IndexError):
            tallies.read(slot)
        with pytest.raises(IndexError):
            tallies.clear(slot)
        with pytest.raises(IndexError):
            tallies.tell(slot, True)
    with pytest.raises(IndexError):
        site.associate(tally=tallies.slots)


# Who gets a slot ----------------------------------------------------------------------------------


def test_slots_are_given_out_again_and_cleared() -> None:
    shared = Shared()
    books = limited(tallies=shared.tallies)
    given = []
    for number in range(3):
        books.opened(number, "10.0.0.1", 0, 104, 7.5)
        verdict = books.ask(Ask(number, "CT", "ROUTER", Terms(1, 2)))
        given.append(verdict.tally)  # type: ignore[union-attr]
    assert given == [0, 1, 2]
    assert books.lost(0)[2] == Lost(2, "10.0.0.1", 104, 7.5, "CT", "ROUTER", Terms(1, 2), 2)
    assert books.lost(1) == []
    # One that has ended keeps its slot until it is gone.
    books.over(1)
    assert [(one.number, one.is_over) for one in books.lost(0)] == [
        (0, False), (1, True), (2, False),
    ]  # fmt: skip
    books.opened(3, "10.0.0.1", 0)
    assert books.ask(Ask(3, "CT", "X")).tally == 3  # type: ignore[union-attr]
    books.closed(1)
    books.opened(4, "10.0.0.1", 0)
    assert books.ask(Ask(4, "CT", "X")).tally == 1  # type: ignore[union-attr]
    assert shared.tallies.read(1) == Tally()
    assert books.begun == 5


def _end(shared: Shared, slot: int, how: int) -> None:
    """Note how the association in a slot ended, as its worker does."""
    os.pwrite(
        shared.fd, struct.pack("=Q", how), regions(shared.fd)["tallies"][0] + slot * 128 + 120
    )


def test_a_slot_is_kept_until_the_end_is_in_the_log() -> None:
    shared = Shared()
    books = limited(tallies=shared.tallies)
    for number in range(3):
        books.opened(number, "10.0.0.1", number // 2)
        assert books.ask(Ask(number, "CT", "ROUTER")).tally == number  # type: ignore[union-attr]
        _end(shared, number, 1)
    for number in (0, 1):
        books.over(number)
        books.closed(number)
    assert books.admitted == 1
    # Its worker may die now: then it is main that tells.
    assert [(one.number, one.tally, one.is_over) for one in books.lost(0)] == [
        (0, 0, True), (1, 1, True),
    ]  # fmt: skip
    books.opened(3, "10.0.0.1", 0)
    assert books.ask(Ask(3, "CT", "X")).tally == 3  # type: ignore[union-attr]
    shared.tallies.tell(0, True)
    books.closed(3)
    assert [one.number for one in books.lost(0)] == [1]
    assert sorted(books._free_tallies) == [0, 3]
    books.died(0)
    assert books.lost(0) == []
    assert sorted(books._free_tallies) == [0, 1, 3]
    assert [one.number for one in books.lost(1)] == [2]


def test_whoever_comes_when_all_are_given_has_none() -> None:
    class Few:
        slots = 1

        def clear(self, slot: int) -> None:
            assert slot == 0

        def read(self, slot: int) -> Tally:
            assert slot == 0
            return Tally(begun=1)

    books = limited(tallies=Few())
    for number in range(2):
        books.opened(number, "10.0.0.1", 0)
    assert [books.ask(Ask(n, "CT", "X")).tally for n in range(2)] == [0, -1]  # type: ignore[union-attr]
    books.closed(1)
    books.closed(0)
    assert books._free_tallies == [0]


def test_a_request_with_too_many_contexts_says_how_many_and_whose() -> None:
    rq = bytearray(associate_rq((1, "1.2.3", ILE), calling="MANY"))
    start = rq.index(b"\x20\x00", 74)
    size = 4 + int.from_bytes(rq[start + 2 : start + 4], "big")
    rq[start:start] = rq[start : start + size] * 342
    rq[2:6] = (len(rq) - 6).to_bytes(4, "big")
    with pytest.raises(PDUContextsError) as raised:
        decode_associate_rq(bytes(rq))
    assert raised.value.contexts == 343
    assert raised.value.calling_ae == b"MANY".ljust(16)
    assert raised.value.called_ae == b"FASTSCP".ljust(16)
    assert raised.value.offset == start + 256 * size
