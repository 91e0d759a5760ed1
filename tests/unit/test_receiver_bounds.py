"""What a peer can make grow, or hold up, inside one read: each bound is reached here, and holds."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import resource
import socket
import sys
import threading
import time
import traceback
from typing import TYPE_CHECKING, Any, Final

import pytest

from fastscp.store.journal import Segments
from fastscp_ext import encode_command, encode_pdata
from tests.kit import abort, data_set, message, path_of, split_pdus, store, store_rq, wait_for
from tests.unit.still import Clock, still
from tests.unit.test_receiver import (
    ECHO_RQ,
    Association,
    Held,
    Site,
    both,
    meta,
    one_pdu,
    rules,
    wire,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from fastscp_ext import Compression

pytestmark = pytest.mark.usefixtures("no_descriptor_left")

OWED_MOST: Final = 64
UNCOMMITTED_MOST: Final = 256
SHARE: Final = 8
# Of messages that are nothing but a short command set; of stored ones some 64.
TURN_MOST: Final = 68
SHORT_READ: Final = 65536
UNSENT_MOST: Final = 65536
RESTS_MOST: Final = 32 << 20
BESIDE_READ: Final = 131072
LARGE_BYTES: Final = 1 << 20

ECHO: Final = message(ECHO_RQ, context=11)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with Site(tmp_path / "store") as made:
        yield made


@pytest.fixture
def unraisable(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was raised where nobody could take it."""
    told: list[str] = []

    def tell(one: Any) -> None:
        told.append(str(one.exc_value))
        # Whoever keeps the exception keeps no frame, and so no descriptor of a test.
        traceback.clear_frames(one.exc_traceback)
        one.exc_value.__traceback__ = None

    monkeypatch.setattr(sys, "unraisablehook", tell)
    return told


def stores(count: int, first: int = 0) -> bytes:
    return b"".join(store(n, sop=f"1.2.{n}") for n in range(first, first + count))


def room(one: Association) -> int:
    """How much the next read may bring."""
    with memoryview(one.get_buffer(-1)) as view:
        return len(view)


# Owed, uncommitted -------------------------------------------------------------------------------


def test_no_more_is_owed_than_may_be(site: Site) -> None:
    site.resolve_at_once = False
    one = site.associate()
    site.feed(one, store(1) + store(2))
    assert one.outbox.owed == 1
    # They wait behind the comparison of the second, and the rest of the read for them.
    data = ECHO * 100
    assert site.read(one, data) == len(data)
    site.take_turns()
    assert one.outbox.owed == OWED_MOST
    assert one.rest_bytes == len(ECHO) * (100 - OWED_MOST + 1)
    assert one.transport.pauses == 1
    site.resolve(site.waiting.pop())
    # In another turn, not in the middle of whatever let it go.
    assert len(one.statuses()) == 1 + OWED_MOST
    assert one.rest_bytes
    site.settle(one)
    assert [r.message_id_being_responded_to for r in one.responses()] == [1, 2, *[99] * 100]
    assert not one.transport.paused
    assert site.reception.rests == 0


def test_what_waits_behind_an_elder_counts(site: Site) -> None:
    site.resolve_at_once = False
    one = site.associate()
    site.feed(one, store(1) + store(2))
    data = b"".join(store(n) for n in range(3, 103))
    assert site.read(one, data) == len(data)
    site.take_turns()
    assert (one.outbox.owed, site.reception.uncommitted) == (OWED_MOST, OWED_MOST)
    assert len(site.parts()) == OWED_MOST
    while one.outbox.owed:
        assert site.reception.uncommitted <= OWED_MOST
        site.resolve(site.waiting.pop())
        site.take_turns()
    assert [r.message_id_being_responded_to for r in one.responses()] == list(range(1, 103))
    assert list(site.files()) == [path_of()]


def test_one_association_does_not_take_all_helper_threads(tmp_path: Path) -> None:
    asked: list[Compression] = []
    with Site(tmp_path / "store", compress_level=1, on_complete=asked.append) as site:
        one, other = site.associate(), site.associate()
        data = stores(50)
        assert site.read(one, data) == len(data)
        site.take_turns()
        # A part is open for each of these, and none for the one that comes next.
        assert (len(asked), site.reception.uncommitted) == (SHARE, SHARE)
        assert len(site.parts()) == SHARE
        site.read(other, store(99, sop="1.2.99"))
        assert len(asked) == SHARE + 1
        while asked:
            assert len(asked) <= SHARE + 1
            fail(site, asked.pop(0))
            site.take_turns()
        assert one.statuses() == [0xA700] * 50
        assert other.statuses() == [0xA700]


def fail(site: Site, one: Compression) -> None:
    """Have an instance refused. Nobody is held because the thread that removes parts is late."""
    one.failed(errno.EIO)
    if site.reception.removals > 100:
        site.removed()


def test_all_associations_together(tmp_path: Path) -> None:
    asked: list[Compression] = []
    with Site(tmp_path / "store", compress_level=1, on_complete=asked.append) as site:
        ones = [site.associate() for _ in range(50)]
        data = stores(20)
        for one in ones:
            assert site.read(one, data) == len(data)
            site.take_turns()
        assert site.reception.uncommitted == len(asked) == UNCOMMITTED_MOST
        assert len(site.parts()) == UNCOMMITTED_MOST
        # Whoever stores nothing is not held for it.
        echoing = site.associate()
        site.read(echoing, ECHO)
        assert echoing.statuses() == [0]
        assert not echoing.transport.paused
        # Whoever waited longest is served first: nobody is left behind.
        held = sum(one.transport.paused for one in ones)
        time.sleep(0.02)
        least = 0
        while asked:
            fail(site, asked.pop(0))
            site.take_turns()
            assert site.reception.uncommitted <= UNCOMMITTED_MOST
            counts = [len(one.settled) for one in ones]
            least = max(least, max(counts) - min(counts))
        assert least <= 2 * SHARE
        assert [one.statuses() for one in ones] == [[0xA700] * 20] * 50
        assert not any(one.transport.paused for one in ones)
        assert site.shared.rows.throttled_us()["commit"] >= held * 20_000 > 0


def test_room_is_given_once(tmp_path: Path) -> None:
    """Whoever was let go and still waits for its turn has its share until then."""
    asked: list[Compression] = []
    with Site(tmp_path / "store", compress_level=1, on_complete=asked.append) as site:
        ones = [site.associate() for _ in range(100)]
        for one in ones:
            site.read(one, stores(20))
        site.take_turns()
        assert site.reception.uncommitted == UNCOMMITTED_MOST
        while asked:
            # Many are settled between two turns of the loop.
            for due in asked[: UNCOMMITTED_MOST // 2]:
                due.failed(errno.EIO)
            del asked[: UNCOMMITTED_MOST // 2]
            # Nobody is let go while many parts wait to be removed.
            site.removed()
            site.reception.release()
            while site.take_turns(1):
                assert site.reception.uncommitted <= UNCOMMITTED_MOST
            # None has a turn any more, and so nobody else's room.
            assert site.reception.uncommitted > UNCOMMITTED_MOST - SHARE or not any(
                one.rest_bytes for one in ones
            )
        assert [one.statuses() for one in ones] == [[0xA700] * 20] * 100


def settle_some(site: Site, asked: list[Compression], count: int) -> None:
    for due in asked[:count]:
        due.failed(errno.EIO)
    del asked[:count]
    # Nobody is let go while many parts wait to be removed.
    site.removed()
    site.reception.release()


def settle_rest(site: Site, asked: list[Compression]) -> None:
    while asked:
        settle_some(site, asked, 1)
        site.take_turns()
        assert site.reception.uncommitted <= UNCOMMITTED_MOST


@pytest.mark.parametrize("when", ["before", "after"])
def test_room_is_not_given_to_whoever_cannot_take_it(tmp_path: Path, when: str) -> None:
    """A peer stops reading before its association is let go, or between that and its turn."""
    asked: list[Compression] = []
    with Site(tmp_path / "store", compress_level=1, on_complete=asked.append) as site:
        ones = [site.associate() for _ in range(UNCOMMITTED_MOST // SHARE)]
        for one in ones:
            site.read(one, stores(SHARE))
        deaf, other = site.associate(), site.associate()
        site.read(deaf, stores(2 * SHARE))
        assert (site.reception.uncommitted, site.take_turns()) == (UNCOMMITTED_MOST, 0)
        if when == "before":
            deaf.pace.hold(4)
        settle_some(site, asked, SHARE)
        deaf.pace.hold(4)
        site.take_turns()
        assert site.reception.uncommitted == UNCOMMITTED_MOST - SHARE
        # Nobody waits for a peer that does not read.
        site.read(other, stores(2 * SHARE))
        site.take_turns()
        assert site.reception.uncommitted == UNCOMMITTED_MOST
        deaf.pace.go_on(4)
        site.take_turns()
        assert site.reception.uncommitted == UNCOMMITTED_MOST
        settle_rest(site, asked)
        assert deaf.statuses() == other.statuses() == [0xA700] * 2 * SHARE
        assert not deaf.transport.paused


def test_room_that_is_promised_is_not_taken_by_others(tmp_path: Path) -> None:
    """Whoever was never held reads before the turn of those that were let go."""
    asked: list[Compression] = []
    with Site(tmp_path / "store", compress_level=1, on_complete=asked.append) as site:
        ones = [site.associate() for _ in range(UNCOMMITTED_MOST // SHARE)]
        for one in ones:
            site.read(one, stores(SHARE))
        held, other = site.associate(), site.associate()
        site.read(held, stores(2 * SHARE))
        settle_some(site, asked, SHARE)
        site.read(other, stores(2 * SHARE))
        site.take_turns()
        assert site.reception.uncommitted == UNCOMMITTED_MOST
        settle_rest(site, asked)
        assert held.statuses() == other.statuses() == [0xA700] * 2 * SHARE


def test_a_bug_in_a_turn_leaves_its_room_to_others(tmp_path: Path) -> None:
    asked: list[Compression] = []
    with Site(tmp_path / "store", compress_level=1, on_complete=asked.append) as site:
        for _ in range(UNCOMMITTED_MOST // SHARE):
            site.read(site.associate(), stores(SHARE))
        # What comes first of each is refused, and leaves nothing that others could wait for.
        failing = [site.associate() for _ in range(UNCOMMITTED_MOST // SHARE)]
        for one in failing:
            one.command_received = None  # type: ignore[assignment, method-assign]
            site.read(one, store(1, data_set(study="")) + ECHO + ECHO)
        last = site.associate()
        site.read(last, stores(1))
        assert site.take_turns() == 0
        while asked:
            asked.pop().failed(errno.EIO)
        site.removed()
        site.reception.release()
        assert ([one.turns for one in failing], last.turns) == ([1] * len(failing), 0)
        for one in failing:
            one.turns = 0
            with pytest.raises(TypeError):
                one.next_turn()
        site.take_turns()
        assert len(asked) == 1
        asked.pop().failed(errno.EIO)
        for one in failing:
            one.stop()


def test_whoever_ends_lets_the_next_go(tmp_path: Path) -> None:
    asked: list[Compression] = []
    with Site(tmp_path / "store", compress_level=1, on_complete=asked.append) as site:
        ones = [site.associate() for _ in range(60)]
        for one in ones:
            site.read(one, stores(20))
        site.take_turns()
        for one in ones[30:]:
            one.abandon()
        while asked:
            fail(site, asked.pop(0))
            site.take_turns()
        assert [one.statuses() for one in ones[:30]] == [[0xA700] * 20] * 30
        assert site.reception.rests == 0
        assert site.parts() == []


# Bytes in flight ---------------------------------------------------------------------------------

SIZE: Final = len(data_set(sop="1.2.1000"))


def thousands(count: int, first: int = 1000) -> bytes:
    """Messages of instances of `SIZE` bytes each."""
    return stores(count, first)


class Gate:
    """No journal file before it opens: until then the commit has what is complete."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self._opened = threading.Event()
        self.site = Site(folder, new_journal=self._new_journal, **options)

    def _new_journal(self, durable: bool) -> tuple[int, int]:
        if durable:
            # On the thread that leads the commit.
            assert self._opened.wait(60)
        elif not self._opened.is_set():
            raise BlockingIOError
        return self.site.segments[durable].next()

    def open(self) -> None:
        self._opened.set()
        self.site.reception.journal_opened()


@contextlib.contextmanager
def gate(folder: Path, **options: Any) -> Iterator[tuple[Site, Gate]]:
    held = Gate(folder, **options)
    with held.site as site:
        try:
            yield site, held
        finally:
            held.open()
            for one in site.ones:
                site.settle(one)


def in_flight(site: Site) -> int:
    told = site.reception.bytes_in_flight
    assert site.shared.liveness.bytes_in_flight(3) == told
    return told


@pytest.mark.parametrize("durable", [False, True])
def test_bytes_in_flight_hold_reading_in_the_middle_of_a_read(
    tmp_path: Path, durable: bool
) -> None:
    with gate(tmp_path / "store", durable=durable, max_bytes_in_flight=5 * SIZE) as (site, held):
        one, other = site.associate(), site.associate()
        data = thousands(20)
        assert site.read(one, data) == len(data)
        # One more is begun, and waits with its association.
        assert in_flight(site) == 5 * SIZE
        assert (one.outbox.owed, one.statuses()) == (5, [])
        assert one.transport.paused
        assert one.mid_message
        assert one.rest_bytes > 14 * SIZE
        assert site.take_turns() == 0
        # Whoever comes now has the beginning of one taken in; whoever stores nothing is not held.
        site.read(other, ECHO + thousands(1, 2000))
        assert other.statuses() == [0]
        assert other.transport.paused
        assert in_flight(site) == 5 * SIZE
        held.open()
        site.settle(one)
        site.settle(other)
        assert [r.message_id_being_responded_to for r in one.responses()] == [*range(1000, 1020)]
        assert set(one.statuses()) == set(other.statuses()) == {0}
        assert not any(x.transport.paused for x in (one, other))
        assert in_flight(site) == 0


def test_no_limit_of_bytes(tmp_path: Path) -> None:
    with gate(tmp_path / "store", max_bytes_in_flight=0) as (site, _held):
        one = site.associate()
        site.read(one, thousands(20))
        assert in_flight(site) == 20 * SIZE
        assert not one.transport.paused


def test_an_instance_larger_than_all_that_may_be_in_flight(tmp_path: Path) -> None:
    with gate(tmp_path / "store", durable=True, max_bytes_in_flight=100) as (site, held):
        ones = [site.associate() for _ in range(3)]
        # All have begun before the first is complete: each of these comes in whole.
        data = [thousands(2, 1000 * n) for n in (1, 2, 3)]
        for one, messages in zip(ones, data, strict=True):
            assert site.read(one, messages[:600]) == 600
            assert not one.transport.paused
        for one, messages in zip(ones, data, strict=True):
            site.read(one, messages[600:])
        assert in_flight(site) == 3 * SIZE
        assert [one.outbox.owed for one in ones] == [1, 1, 1]
        assert all(one.transport.paused for one in ones)
        held.open()
        for one in ones:
            site.settle(one)
            assert one.statuses() == [0, 0]
        assert len(site.files()) == 6


def test_the_limit_of_bytes_changes_while_they_are_held(tmp_path: Path) -> None:
    with gate(tmp_path / "store", max_bytes_in_flight=SIZE) as (site, _held):
        reception = site.reception
        one = site.associate()
        site.read(one, thousands(20))
        assert in_flight(site) == SIZE
        for most, owed in ((4 * SIZE, 4), (2 * SIZE, 4), (5 * SIZE - 1, 5), (0, 20)):
            reception.max_bytes_in_flight = most
            assert reception.max_bytes_in_flight == most
            site.take_turns()
            assert (one.outbox.owed, in_flight(site)) == (owed, owed * SIZE)
            assert one.transport.paused == (most != 0)
        reception.max_bytes_in_flight = SIZE
        site.read(one, thousands(1, 2000))
        assert one.transport.paused
        assert in_flight(site) == 20 * SIZE
        with pytest.raises(OverflowError):
            reception.max_bytes_in_flight = -1


def test_bytes_of_stable_instances_hold_up_no_buffered_ones(tmp_path: Path) -> None:
    held = Held()
    with both(tmp_path / "store", held, durable=True, max_bytes_in_flight=3 * SIZE) as site:
        try:
            kept = site.associate()
            site.read(kept, thousands(20))
            assert in_flight(site) == 3 * SIZE
            assert kept.transport.paused
            quick = site.associate(rules=rules())
            site.read(quick, thousands(20, 2000))
            site.take_turns()
            assert quick.statuses() == [0] * 20
            assert kept.statuses() == []
            assert in_flight(site) == 3 * SIZE
        finally:
            held.go.set()
        site.settle(kept)
        assert kept.statuses() == [0] * 20


def test_what_helper_threads_have_is_not_in_flight(tmp_path: Path) -> None:
    """One that is large, and takes them long, would keep all others waiting."""
    asked: list[Compression] = []
    with gate(
        tmp_path / "store", compress_level=1, on_complete=asked.append, max_bytes_in_flight=2 * SIZE
    ) as (site, _held):
        one = site.associate()
        site.read(one, thousands(4))
        assert (len(asked), in_flight(site), one.transport.paused) == (4, 0, False)
        for n, compression in enumerate(asked):
            name = f"{n}.zst.part"
            fd = os.open(site.incoming / name, os.O_WRONLY | os.O_CREAT, 0o600)
            compression.done(name, fd)
            # With the bytes it had, until its line is written.
            assert in_flight(site) == (n + 1) * SIZE


def test_a_duplicate_is_not_in_flight_while_it_is_compared(tmp_path: Path) -> None:
    with Site(tmp_path / "store", max_bytes_in_flight=100) as site:
        site.resolve_at_once = False
        one = site.associate()
        site.read(one, store(1) + store(2))
        site.take_turns()
        site.read(one, thousands(3))
        # The third waits behind no elder of its path, and is committed meanwhile.
        site.take_turns()
        assert (len(site.waiting), in_flight(site)) == (1, 0)
        assert len(site.files()) == 4
        site.resolve(site.waiting.pop())
        assert one.statuses() == [0] * 5


def test_bytes_in_flight_of_peers_that_go(tmp_path: Path) -> None:
    with gate(tmp_path / "store", durable=True, max_bytes_in_flight=2 * SIZE) as (site, held):
        ones = [site.associate() for _ in range(4)]
        for n, one in enumerate(ones):
            site.read(one, thousands(3, 1000 * (n + 1)))
        assert in_flight(site) == 2 * SIZE
        for one in ones[:3]:
            one.abandon()
        assert in_flight(site) == 2 * SIZE
        held.open()
        site.settle(ones[3])
        assert ones[3].statuses() == [0, 0, 0]
        site.until(lambda: site.reception.uncommitted == 0)
        assert in_flight(site) == 0
        assert site.counted() == (5, 0)


@pytest.mark.parametrize("seed", range(8))
def test_whatever_may_be_in_flight_everybody_is_answered(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    most = rng.choice((1, SIZE, 3 * SIZE, 20 * SIZE))
    with Site(tmp_path / "store", durable=True, max_bytes_in_flight=most) as site:
        ones = [site.associate(rules=rules(durable=rng.random() < 0.7)) for _ in range(6)]
        left = {one: thousands(30, 1000 * (n + 1)) for n, one in enumerate(ones)}
        while any(left.values()):
            one = rng.choice(ones)
            if one.transport.paused:
                site.take_turns(1)
                if all(x.transport.paused or not left[x] for x in ones):
                    site.until(lambda: any(left[x] and not x.transport.paused for x in ones))
                continue
            before = in_flight(site)
            taken = site.read(one, left[one][: rng.randrange(1, 20 * SIZE)]) if left[one] else 0
            left[one] = left[one][taken:]
            # It may have completed what it had begun, and one that crosses the limit.
            assert in_flight(site) <= before + most + 2 * SIZE
            if rng.random() < 0.1:
                site.reception.max_bytes_in_flight = most = rng.choice((SIZE, 5 * SIZE, 1))
        for n, one in enumerate(ones):
            site.settle(one)
            ids = [r.message_id_being_responded_to for r in one.responses()]
            assert ids == [1000 * (n + 1) + k for k in range(30)]
            assert set(one.statuses()) == {0}


def test_a_worker_that_is_gone_has_nothing_in_flight(tmp_path: Path) -> None:
    for forget in ("end_batches", "clear"):
        with gate(tmp_path / forget) as (site, _held):
            site.read(site.associate(), thousands(1))
            assert in_flight(site) == SIZE
            getattr(site.shared.liveness, forget)(3)
            assert site.shared.liveness.bytes_in_flight(3) == 0


# Turns of the loop -------------------------------------------------------------------------------

UNKNOWN = message(encode_command({0x0100: 0x0150, 0x0110: 5, 0x0800: 0x0101}), context=11)
CANCEL = message(encode_command({0x0100: 0x0FFF, 0x0120: 5, 0x0800: 0x0101}), context=11)

# One message each; and how many of them, about, one turn may take.
FLOODS: dict[str, tuple[bytes, int]] = {
    "echo": (ECHO, TURN_MOST),
    "unknown command": (UNKNOWN, TURN_MOST),
    "cancel": (CANCEL, TURN_MOST),
    "refused": (store(1, sop="../x"), TURN_MOST // 2),
    "stored": (store(1), TURN_MOST),
    "no data set": (message(store_rq(more={0x0800: 0x0101}), None), TURN_MOST),
    "fragments": (message(store_rq(1), data_set(pixels=200), fragment=2), 9),
    "long commands": (
        message(encode_command({0x0100: 0x0150, 0x0110: 5, 0x0800: 0x0101, 0x9999: b" " * 5000}),
                context=11), 2,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FLOODS)
def test_no_read_takes_more_than_its_turn(site: Site, name: str) -> None:
    flood, most = FLOODS[name]
    one, other = site.associate(), site.associate()
    # Its answer would be a text, and there are thousands.
    told = 0

    def received(context_id: int, command: bytes) -> bytes | None:
        nonlocal told
        told += 1
        return None

    def begun() -> int:
        return told + one.outbox.stored + one.outbox.refused

    setattr(one, "command_received", received)  # noqa: B010 - an instance's own, for mypy
    count = min(room(one) // len(flood), 200)
    assert count > most
    site.read(one, flood * count)
    seen = begun()
    assert 0 < seen <= most
    while one.rest_bytes:
        assert one.transport.paused
        # Everybody else is served between two turns of it.
        site.read(other, ECHO)
        assert site.take_turns(1) == 1
        assert begun() - seen <= most
        seen = begun()
    assert begun() == count
    assert len(other.statuses()) > 1
    assert not one.transport.paused


def test_a_read_that_ends_with_its_turn_is_no_pause(site: Site) -> None:
    one = site.associate()
    site.read(one, stores(59) + ECHO * 4)
    assert not one.transport.pauses
    assert one.statuses() == [0] * 63


# A peer that does not read -----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["echo", "refused", "stored"])
def test_a_deaf_peer_is_owed_little(site: Site, name: str) -> None:
    flood, _ = FLOODS[name]
    one = site.associate(peer_max_pdu_length=8)
    one.transport.deaf = True
    count = 400
    site.read(one, flood * count)
    site.take_turns()
    # A turn's responses beyond the bound, each cut for the smallest peer.
    assert UNSENT_MOST < one.transport.held <= UNSENT_MOST + TURN_MOST * 4096
    assert one.rest_bytes
    assert one.transport.paused
    # Not taken from it: it is not overdue by what it cannot know.
    assert one.overdue(1e9, 60, 1e9, 60) == ""
    one.transport.deaf, one.transport.held = False, 0
    one.pace.go_on(4)
    site.settle(one)
    assert len(one.statuses()) == count


# What is copied ----------------------------------------------------------------------------------


def test_reads_are_short_after_a_pause(site: Site) -> None:
    one = site.associate()
    whole = room(one)
    assert whole > SHORT_READ
    site.read(one, ECHO * 1000)
    assert one.rest_bytes
    assert room(one) == SHORT_READ
    site.take_turns()
    # A read without a pause is not known of yet.
    assert room(one) == SHORT_READ
    assert site.read(one, ECHO * 1000) == SHORT_READ
    site.take_turns()
    assert room(one) == SHORT_READ
    # What does not fit into it lets the others be read, as a whole buffer does.
    large = message(store_rq(1), data_set(pixels=3 * SHORT_READ), fragment=120_000)
    cut = (len(ECHO) - SHORT_READ % len(ECHO)) % len(ECHO)
    site.read(one, (ECHO * 1000)[-cut:] + large if cut else large)
    assert one.turns == 1
    site.take_turns()
    assert room(one) == whole
    one.abandon()


def test_all_reads_are_short_while_much_is_kept(site: Site) -> None:
    other = site.associate()
    whole = room(other)
    ones = [site.associate() for _ in range(RESTS_MOST // whole + 1)]
    data = ECHO * (whole // len(ECHO))
    for one in ones:
        one.pace.hold(4)
        assert room(other) == whole
        assert site.read(one, data) == len(data)
    assert site.reception.rests == sum(one.rest_bytes for one in ones) > RESTS_MOST
    assert room(other) == SHORT_READ
    ones.pop().abandon()
    assert room(other) == whole
    for one in ones:
        one.stop()
    assert site.reception.rests == 0


# Large beside small ------------------------------------------------------------------------------


def large(number: int = 1, size: int = 4 * LARGE_BYTES) -> bytes:
    """A message with a large data set, in PDUs of the usual size."""
    sop = f"1.3.{number}"
    return message(store_rq(number, sop=sop), data_set(sop=sop, pixels=size), fragment=131_060)


def begin_large(site: Site, one: Association) -> bytes:
    """Give an association so much of a message that it counts as large; the rest of it."""
    data = large()
    at = 0
    while at < LARGE_BYTES + 65536:
        at += site.read(one, data[at : LARGE_BYTES + 65536])
        site.take_turns()
    return data[at:]


def taken_until_answered(site: Site, one: Association, left: bytes, other: Association) -> int:
    """What is read of `one`, which fills every read, until a request of the other is answered.

    The request comes while `one` has its turn: the loop reads of the other in the next one.
    """
    answered = len(other.statuses())
    taken = site.read(one, left)
    assert one.turns == 1
    site.read(other, store(7, sop=f"1.2.7{answered}"))
    assert len(other.statuses()) == answered + 1
    assert one.turns == 1
    site.take_turns()
    return taken


def test_a_small_request_waits_for_little_of_a_large_one(site: Site) -> None:
    one, other = site.associate(), site.associate()
    left = begin_large(site, one)
    whole = room(one)
    assert whole >= LARGE_BYTES
    # Nobody else has shown itself: the first of them waits for a whole read.
    taken = taken_until_answered(site, one, left, other)
    assert taken == whole
    # From now on one that asks again and again does not.
    for _ in range(3):
        left = left[taken:]
        taken = taken_until_answered(site, one, left, other)
        assert taken == BESIDE_READ
        # The one that asks may read as much as ever.
        assert room(other) == whole
    one.abandon()


@pytest.mark.parametrize("what", ["stored", "echo"])
def test_others_are_active_for_a_while(site: Site, what: str) -> None:
    one, other = site.associate(), site.associate()
    left = begin_large(site, one)
    whole = room(one)
    site.read(other, store(7) if what == "stored" else ECHO)
    assert room(one) == BESIDE_READ
    # It reads on, and nobody else asks anything any more.
    at = 0

    def is_alone() -> bool:
        nonlocal at
        at += site.read(one, left[at : at + 1])
        return room(one) == whole

    wait_for(is_alone, "long reads")
    one.abandon()


def test_own_small_messages_make_no_read_short(site: Site) -> None:
    one, other = site.associate(), site.associate()
    whole = room(one)
    site.feed(one, ECHO * 3)
    begin_large(site, one)
    assert room(one) == whole
    site.feed(other, ECHO)
    assert room(one) == BESIDE_READ
    one.abandon()


def test_large_ones_of_others_make_no_read_short(site: Site) -> None:
    """Two leave each other turns, and both have long reads; also when one ends."""
    one, other = site.associate(), site.associate()
    whole = room(one)
    begin_large(site, one)
    site.feed(other, large(2, 2 * LARGE_BYTES))
    assert other.statuses() == [0]
    begin_large(site, other)
    assert room(one) == room(other) == whole
    for each in (one, other):
        each.abandon()


def test_a_refused_large_one_leaves_room_too(site: Site) -> None:
    one, other = site.associate(), site.associate()
    data = message(store_rq(1, sop=".."), bytes(4 * LARGE_BYTES), fragment=131_060)
    site.feed(one, data[: 2 * LARGE_BYTES])
    whole = room(one)
    site.feed(other, ECHO)
    assert (whole >= LARGE_BYTES, room(one)) == (True, BESIDE_READ)
    site.feed(one, data[2 * LARGE_BYTES :])
    assert one.statuses() == [0x0117]
    assert room(one) == whole


def test_main_sees_who_has_a_large_one(site: Site) -> None:
    one = site.associate()
    liveness = site.shared.liveness
    site.feed(one, stores(3))
    site.feed(one, large(2, LARGE_BYTES // 2))
    assert liveness.large_ms(3) == 0
    before = time.monotonic()
    begin_large(site, one)
    assert before - 0.001 <= liveness.large_ms(3) / 1000 <= time.monotonic()
    one.abandon()
    liveness.clear(3)
    assert liveness.large_ms(3) == 0


def test_what_comes_though_reading_is_held_waits_behind(site: Site) -> None:
    """As from a transport that has decrypted more already."""
    one = site.associate()
    data = stores(4)
    one.pace.hold(4)
    for at in range(0, len(data), 500):
        site.read(one, data[at : at + 500])
    assert not one.statuses()
    one.pace.go_on(4)
    site.settle(one)
    assert [r.message_id_being_responded_to for r in one.responses()] == [0, 1, 2, 3]


def test_a_rest_goes_with_its_receiver(site: Site) -> None:
    one = site.associate()
    site.read(one, ECHO * 200)
    assert site.reception.rests
    one.detach()
    del one
    assert site.reception.rests == 0


# Ends --------------------------------------------------------------------------------------------


def paused(site: Site, behind: bytes) -> Association:
    """An association with two instances stored, and the rest of a read: two more and `behind`."""
    one = site.associate()
    site.feed(one, stores(2))
    one.pace.hold(4)
    site.read(one, stores(2, 2) + behind)
    assert one.rest_bytes
    return one


@pytest.mark.parametrize("end", [Association.abandon, Association.stop])
def test_an_end_takes_the_rest_as_not_read(site: Site, end: Callable[[Association], None]) -> None:
    one = paused(site, store(9, sop="1.2.9")[:-1])
    size = one.rest_bytes
    end(one)
    assert (one.rest_bytes, one.ignored_bytes, site.reception.rests) == (0, size, 0)
    one.pace.go_on(4)
    site.take_turns()
    assert one.statuses() == [0, 0]
    assert len(site.files()) == 2
    assert site.parts() == []
    assert not one.transport.paused


def test_pdus_keep_their_order(site: Site) -> None:
    release = b"\x05\0\0\0\0\x04\0\0\0\0"
    one = paused(site, release + abort(0, 0))
    assert one.pdus == []
    one.pace.go_on(4)
    site.settle(one)
    assert one.statuses() == [0] * 4
    assert one.pdus == [(5, release), (7, abort(0, 0))]


def test_a_stream_that_breaks_in_the_rest(site: Site) -> None:
    one = paused(site, store(9, sop="1.2.9", fragment=100)[:-100] + b"\xff" * 1000)
    assert one.failures == []
    one.pace.go_on(4)
    site.take_turns()
    assert [failure[:2] for failure in one.failures] == [(2, 1)]
    assert one.ignored_bytes
    # What was complete is kept; its response would come behind the A-ABORT.
    assert len(site.files()) == 4
    assert site.parts() == []
    assert site.reception.rests == 0
    assert not one.transport.paused


def test_tracing_tells_of_each_pdu_once(site: Site) -> None:
    one = site.associate()
    one.outbox.trace = True
    data = stores(70)
    site.feed(one, data)
    received = [entry for entry in one.traced if not entry[0]]
    assert received == [(False, 4, len(pdu) - 6) for pdu in split_pdus(data)]


# Cut anywhere ------------------------------------------------------------------------------------


def conversation() -> bytes:
    """Longer than a turn; every kind of message, and duplicates among them."""
    parts = []
    for n in range(60):
        sop = f"1.2.{n % 50}"
        small = data_set(sop=sop, pixels=16, seed=n // 50)
        parts += [
            message(store_rq(n, sop=sop), small, fragment=64 if n % 7 == 0 else 16000),
            one_pdu(store_rq(n + 100, sop=f"1.3.{n}"), data_set(sop=f"1.3.{n}", pixels=16)),
            (ECHO, UNKNOWN, CANCEL, store(n, sop="../x"))[n % 4],
        ]
    return b"".join(parts)


@pytest.mark.parametrize("durable", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_cut_at_random(tmp_path: Path, seed: int, durable: bool) -> None:
    data = conversation()
    random_ = random.Random(seed)
    found = []
    for cuts in ([], random_.sample(range(len(data)), 5), random_.sample(range(len(data)), 300)):
        with Site(tmp_path / f"store-{len(cuts)}", durable=durable) as site:
            one = site.associate()
            site.feed(one, data, cuts)
            site.settle(one)
            assert len(one.responses()) == 60 * 3 - 15 - 15
            found.append((bytes(one.transport.sent), site.files()))
            assert site.parts() == []
            assert site.reception.rests == 0
            assert not one.transport.paused
    assert found[0] == found[1] == found[2]


def test_a_pause_moves_what_is_collected(tmp_path: Path) -> None:
    """Fragments that are still to be written point into what was read."""
    data = data_set(pixels=9000)
    with Site(tmp_path / "store") as site:
        one, other = site.associate(), site.associate()
        flood = message(store_rq(1), data, fragment=2)
        at = 0
        while at < len(flood):
            at += site.read(one, flood[at:])
            while one.turns:
                # Another one's bytes take the place of these.
                site.read(other, message(ECHO_RQ, b"\xee" * 100_000, context=11, fragment=50_000))
                site.take_turns(1)
        assert one.statuses() == [0]
        assert site.files() == {path_of(): meta() + data}


# Bugs --------------------------------------------------------------------------------------------


def raising(*_args: object) -> Any:
    raise RuntimeError("a bug")


def test_a_bug_of_one_leaves_the_others_answered(tmp_path: Path) -> None:
    with Site(tmp_path / "store", durable=True) as site:
        ones = [site.associate() for _ in range(3)]
        for number, one in enumerate(ones):
            one.outbox.verbose = True
            if number < 2:
                setattr(one, "instance_answered", raising)  # noqa: B010
            site.read(one, store(1, sop=f"1.2.{number}") + store(2, sop=f"1.3.{number}"))
        site.until(lambda: site.reception.uncommitted == 0)
        site.settle(ones[2])
        assert ones[2].statuses() == [0, 0]
        assert [set(one.bugs) for one in ones] == [{"a bug"}, {"a bug"}, set()]
        assert len(site.files()) == 6
        for one in ones:
            one.abandon()
        assert site.counted() == (6, 0)


def test_a_bug_of_one_leaves_the_others_held_no_longer(tmp_path: Path) -> None:
    asked: list[Compression] = []
    with Site(tmp_path / "store", compress_level=1, on_complete=asked.append) as site:
        ones = [site.associate() for _ in range(40)]
        for one in ones:
            site.read(one, stores(10))
            site.take_turns()
        setattr(ones[0], "turn_ended", raising)  # noqa: B010
        while asked:
            fail(site, asked.pop(0))
            site.take_turns()
        assert ones[0].bugs == ["a bug"]
        assert [one.statuses() for one in ones[1:]] == [[0xA700] * 10] * 39


def test_a_bug_in_a_callback(tmp_path: Path, unraisable: list[str]) -> None:
    with Site(tmp_path / "store", compress_level=1, on_complete=raising) as site:
        one = site.associate()
        site.feed(one, stores(2))
        assert one.statuses() == [0xA700, 0xA700]
        assert unraisable == ["a bug"] * 2
        assert [(step, number) for step, number, _ in site.errors] == [
            ("compress a part file", errno.EIO)
        ] * 2
        assert site.parts() == []


def test_a_bug_where_duplicates_are_compared(
    site: Site, unraisable: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(site, "resolve", raising)
    one = site.associate()
    site.feed(one, store(1) + store(2) + store(3, sop="1.2.3"))
    assert one.statuses() == [0, 0xA700, 0]
    assert unraisable == ["a bug"]
    assert site.parts() == []


def test_a_bug_where_an_error_is_told(
    site: Site, unraisable: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(site, "errors", None)
    (site.store / path_of()).parent.parent.write_bytes(b"")
    one = site.associate()
    site.feed(one, store(1) + ECHO)
    assert one.statuses() == [0xA700, 0]
    assert len(unraisable) == 1


# The socket --------------------------------------------------------------------------------------


def test_a_send_that_fails_ends_the_association(site: Site) -> None:
    ours, theirs = socket.socketpair()
    one = site.associate()
    with ours:
        one.attach(one.transport, ours.fileno())
        theirs.close()
        site.read(one, ECHO + stores(2) + ECHO)
    assert one.unsendable == [errno.EPIPE]
    assert not one.transport.sent
    # What was read with it is kept, and its line says that nobody was told.
    assert [fact["responded"] for fact in site.journal()] == [False, False]
    assert one.outbox.owed == 0


def _ended_empty(number: int) -> tuple[bytes, bytes, bytes]:
    """A C-STORE-RQ, its data set, and the empty fragment in a PDU of its own that ends it."""
    data = data_set(sop=f"1.2.{number}")
    return (
        message(store_rq(number, sop=f"1.2.{number}")),
        encode_pdata([(1, 0, data)]),
        encode_pdata([(1, 2, b"")]),
    )


@still
def test_an_empty_last_fragment_is_not_waited_for(tmp_path: Path) -> None:
    Clock()
    with Site(tmp_path / "store") as site, wire(site) as on:
        awaited = []
        for number in range(40):
            for pdu in _ended_empty(number):
                on.move(pdu)
                awaited.append(on.awaited())
        assert awaited == [1] * 120
        assert on.one.outbox.stored == 40


@still
def test_a_peer_that_begins_to_end_with_an_empty_fragment_waits_once(tmp_path: Path) -> None:
    Clock()
    with Site(tmp_path / "store") as site, wire(site) as on:
        for number in range(20):
            on.move(store(number, sop=f"1.2.{number}"))
        command, data, end = _ended_empty(20)
        on.move(command)
        on.move(data)
        assert on.awaited() == 13
        on.peer.sendall(end)
        assert not on.readable()
        # The look at the timers takes it back.
        assert on.one.overdue(1000.0, 60, 0, 0) == ""
        assert on.readable(20)
        site.feed(on.one, on.ours.recv(len(end), socket.MSG_WAITALL))
        awaited = []
        for number in range(21, 40):
            for pdu in _ended_empty(number):
                on.move(pdu)
                awaited.append(on.awaited())
        assert awaited == [1] * 57
        assert on.one.statuses() == [0] * 40 or on.one.outbox.stored == 40


# What is not whole --------------------------------------------------------------------------------

UNFINISHED_MOST: Final = 32 << 20
LARGEST: Final = 1 << 20


class Waiting(Association):
    """Has its request wait."""

    def pdu_received(self, pdu_type: int, pdu: bytes) -> None:
        self.keep_request(pdu)


def requests(
    site: Site, sizes: list[int], kind: type[Association] = Association
) -> list[Association]:
    """Associations that have sent so much of a request of 1 MiB."""
    peers = []
    for size in sizes:
        site.numbers += 1
        peer = kind(site.reception, site.numbers)
        site.ones.add(peer)
        peers.append(peer)
        site.feed(peer, b"\x01\x00" + LARGEST.to_bytes(4, "big") + bytes(size - 6))
    return peers


def test_requests_that_are_not_whole_are_bounded_together(site: Site) -> None:
    """Whoever holds most goes, and gives it back at once; the others go on."""
    small = requests(site, [16_000] * 100)
    assert site.reception.unfinished.bytes == 0
    large = requests(site, [900_000] * 80)
    ended = [peer for peer in large if peer.failures]
    assert 40 <= len(ended) < 60
    assert {failure[:2] for peer in ended for failure in peer.failures} == {(2, 0)}
    assert LARGEST < site.reception.unfinished.bytes <= UNFINISHED_MOST
    # One of 60 KiB, as a sender with many presentation contexts may have, is whole all the same.
    (honest,) = requests(site, [30_000])
    site.feed(honest, bytes(LARGEST + 6 - 30_000))
    assert [len(pdu) for _type, pdu in honest.pdus] == [LARGEST + 6]
    assert not honest.failures
    assert not any(peer.failures for peer in small)
    for peer in small + large + [honest]:
        peer.abandon()
    assert site.reception.unfinished.bytes == 0


def test_whole_requests_that_wait_count_too(site: Site) -> None:
    """Until they are taken, or their association ends; one that outgrew the bound is gone."""
    peers = requests(site, [LARGEST + 5] * 30, Waiting)
    for peer in peers:
        site.feed(peer, b"\0")
    assert all(peer.request_waits for peer in peers)
    # Each, and the room for an ordinary command set.
    each = site.reception.unfinished.bytes // 30
    assert LARGEST + 6 <= each < LARGEST + 1024
    taken = peers[0].take_request()
    assert taken is not None
    assert len(taken) == LARGEST + 6
    assert (peers[0].take_request(), peers[0].request_waits) == (None, False)
    peers[1].stop()
    assert site.reception.unfinished.bytes == 28 * each
    more = requests(site, [LARGEST + 5] * 10)
    assert site.reception.unfinished.bytes <= UNFINISHED_MOST
    ended = [peer for peer in peers + more if peer.failures]
    assert 6 <= len(ended) <= 10
    assert not any(peer.request_waits for peer in ended)
    for peer in peers + more:
        peer.abandon()
    assert site.reception.unfinished.bytes == 0


def test_command_sets_that_are_not_whole_count_too(site: Site) -> None:
    """A command set of 64 KiB is legal and rare; by the thousand it is an attack."""
    begun = encode_pdata([(1, 0x01, bytes(60_000))])
    peers = [site.associate() for _ in range(700)]
    for peer in peers:
        site.feed(peer, begun)
    assert site.reception.unfinished.bytes <= UNFINISHED_MOST
    assert 0 < sum(bool(peer.failures) for peer in peers) < 300
    for peer in peers:
        peer.abandon()
    assert site.reception.unfinished.bytes == 0


def test_a_batch_opens_no_more_directories_than_are_counted(tmp_path: Path) -> None:
    """However many associations complete what they had begun while the batch before it lasts."""
    count = UNCOMMITTED_MOST + 60
    levels = 4
    may_go_on = threading.Event()
    segments: list[Segments] = []

    def new_journal(*_durable: bool) -> tuple[int, int]:
        # On the thread that leads the first batch.
        assert may_go_on.wait(60)
        return segments[0].next()

    layout = "{PatientID}/{StudyInstanceUID}/{SeriesInstanceUID}/{Modality}/{SOPInstanceUID}.dcm"
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with Site(tmp_path / "store", durable=True, layout=layout, new_journal=new_journal) as site:
        segments.append(Segments(site.store_fd, "1", "x", durable=True))
        ones = [site.associate() for _ in range(count)]
        messages = [
            message(store_rq(1, sop=f"1.2.{n}"), data_set(sop=f"1.2.{n}", patient_id=f"P{n}"))
            for n in range(count)
        ]
        for one, data in zip(ones, messages, strict=True):
            site.feed(one, data[:-1])
        assert len(_open_parts()) == count
        for one, data in zip(ones, messages, strict=True):
            site.feed(one, data[-1:])
        assert site.reception.uncommitted == count
        wait_for(lambda: not _open_parts(), "flushed data of all instances")
        room = UNCOMMITTED_MOST * levels + 1 + 20
        most = len(os.listdir("/proc/self/fd")) + room
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, limits[1]))
            may_go_on.set()
            for one in ones:
                site.settle(one)
        finally:
            may_go_on.set()
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert [one.statuses() for one in ones] == [[0]] * count
        assert site.errors == []
        assert [fact["event"] for fact in site.journal()] == ["stored"] * count
        segments[0].close()


def _open_parts() -> list[str]:
    """The parts that this process has open."""
    found = []
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            found.append(os.readlink(f"/proc/self/fd/{fd}"))
    return [path for path in found if "/incoming/life/" in path]
