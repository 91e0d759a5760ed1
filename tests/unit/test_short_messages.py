"""What the kernel keeps between two messages, and that nothing short stays there for long."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.kit import RELEASE_RQ, data_set, echo, message, split_pdus, store, store_rq
from tests.unit.still import Clock, still
from tests.unit.test_receiver import Site, Wire, wire

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("no_descriptor_left")

# Bytes the kernel keeps: of a message, and of what follows its command set.
MESSAGE: Final = 512
HEADERS: Final = 13
# Instances after which a peer's habits are known, and so long they are not looked at again.
FIRST: Final = 256
AGAIN: Final = 256
# Messages in pieces, or late ones, that tell what is to be expected.
PIECES: Final = 16
LATE: Final = 4


class Watched(Site):
    """A site whose worker looks when it is told to; `asked`: how often it was to begin with it."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.asked = 0
        super().__init__(folder, on_short=self._ask, **options)

    def _ask(self) -> None:
        self.asked += 1

    def look(self) -> bool:
        return self.reception.let_short_in()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Watched]:
    made = Watched(tmp_path / "store")
    with made:
        yield made


@contextlib.contextmanager
def known(site: Site) -> Iterator[Wire]:
    """A peer that has sent one message after the other, and what it is connected with."""
    with wire(site) as on:
        for number in range(1, FIRST + 2):
            in_pieces(on, number)
        yield on


def stored(number: int) -> bytes:
    return store(number, sop=f"1.2.{number}")


def in_pieces(on: Wire, number: int) -> None:
    """Send a command set and, once that was read, its data set."""
    command, data = split_pdus(stored(number))
    on.move(command)
    on.move(data)


@still
def test_a_command_set_alone_wakes_nobody(site: Watched) -> None:
    Clock()
    with wire(site) as on:
        awaited = []
        for number in range(1, FIRST + 4):
            in_pieces(on, number)
            awaited.append(on.awaited())
        # Not before it is known what kind of sender this is.
        assert awaited == [1] * (FIRST - 1) + [MESSAGE] * 4
        assert site.asked == 1
        command, data = split_pdus(stored(999))
        on.peer.sendall(command + data[:12])
        assert not on.readable()
        on.peer.sendall(data[12:])
        assert on.readable(20)
        site.feed(on.one, on.ours.recv(len(command + data)))
        assert on.one.outbox.stored == FIRST + 4


@still
def test_a_short_message_waits_for_two_looks(site: Watched) -> None:
    Clock()
    with known(site) as on:
        on.peer.sendall(RELEASE_RQ)
        assert not on.readable()
        assert site.look()
        assert not on.readable()
        assert not site.look()
        assert on.readable(20)
        site.feed(on.one, on.ours.recv(100))
        assert on.one.pdus[-1] == (5, RELEASE_RQ)
        # Nothing is left to be looked at.
        assert not site.look()


@still
def test_messages_put_the_looks_off(site: Watched) -> None:
    Clock()
    with known(site) as on:
        for number in range(300, 310):
            assert site.look()
            on.move(stored(number))
        assert on.awaited() == MESSAGE
        assert site.asked == 1
        # Who rests is read from byte by byte, and looked at no more.
        assert [site.look(), site.look(), site.look()] == [True, False, False]
        assert on.awaited() == 1
        on.move(stored(310))
        assert on.awaited() == MESSAGE
        assert site.asked == 2


@still
def test_whoever_is_late_is_read_from_at_once(site: Watched) -> None:
    clock = Clock()
    with known(site) as on:
        # Once proves nothing.
        awaited = []
        for number in range(300, 300 + LATE + 2):
            clock.goes_on(0.004)
            on.move(stored(number))
            awaited.append(on.awaited())
        assert awaited == [MESSAGE] * (LATE - 1) + [1] * 3
        # In the end it was late six times, each of which three in time make up for.
        awaited = []
        for number in range(400, 406):
            on.move(stored(number))
            awaited.append(on.awaited())
        assert awaited == [1] * 4 + [MESSAGE] * 2


@still
def test_whoever_sends_messages_in_one_piece_is_read_from_at_once(site: Watched) -> None:
    Clock()
    with wire(site) as on:
        for number in range(1, FIRST + 2):
            on.move(stored(number))
        assert on.awaited() == 1
        awaited = []
        for number in range(300, 300 + PIECES + 1):
            in_pieces(on, number)
            awaited.append(on.awaited())
        # One in pieces counts as two, and its end as one that is whole.
        assert awaited == [1] * (PIECES - 2) + [MESSAGE] * 3
        assert site.asked == 1


@still
def test_pieces_inside_a_data_set_do_not_count(site: Watched) -> None:
    Clock()
    with wire(site) as on:
        for number in range(1, FIRST + 2):
            data = data_set(sop=f"1.2.{number}") + bytes(2000)
            first, second, third = split_pdus(
                message(store_rq(number, sop=f"1.2.{number}"), data, fragment=len(data) - 500)
            )
            on.move(first + second)
            on.move(third)
        assert on.awaited() == 1


@still
def test_what_is_whole_and_was_not_read_is_not_short(site: Watched) -> None:
    Clock()
    with known(site) as on:
        on.peer.sendall(stored(300))
        assert [site.look(), site.look()] == [True, False]
        site.feed(on.one, on.ours.recv(10_000))
        assert on.awaited() == MESSAGE


@still
def test_after_a_short_message_the_next_ones_are_read_at_once(site: Watched) -> None:
    Clock()
    with known(site) as on:
        on.peer.sendall(echo(7))
        assert site.look()
        assert not site.look()
        site.feed(on.one, on.ours.recv(1000))
        awaited = []
        for number in range(300, 300 + AGAIN + 2):
            in_pieces(on, number)
            awaited.append(on.awaited())
        # One that is as short as that again costs another wait, and no more.
        assert awaited == [1] * (AGAIN - 1) + [MESSAGE] * 3


@still
def test_while_we_owe_an_answer_the_peer_waits_for_us(tmp_path: Path) -> None:
    Clock()
    site = Watched(tmp_path / "store")
    with site, known(site) as on:
        # The name of this one is taken, and somebody is to decide.
        site.resolve_at_once = False
        on.move(store(300, data_set(sop="1.2.1", patient_id="another"), sop="1.2.1"))
        assert on.one.outbox.owed == 1
        assert [site.look() for _ in range(5)] == [True] * 5
        assert on.awaited() == MESSAGE
        site.resolve(site.waiting.pop())
        assert on.one.outbox.owed == 0
        # From the answer on it is looked at as ever.
        assert [site.look(), site.look()] == [True, False]
        assert on.awaited() == 1


@still
def test_inside_a_message_less_is_kept(site: Watched) -> None:
    Clock()
    with known(site) as on:
        assert on.awaited() == MESSAGE
        data = data_set(sop="1.2.300") + bytes(2000)
        first, second, third = split_pdus(
            message(store_rq(300, sop="1.2.300"), data, fragment=len(data) - 500)
        )
        on.move(first[:20])
        assert on.awaited() == 1
        on.move(first[20:])
        assert on.awaited() == HEADERS
        on.move(second[:-1])
        assert on.awaited() == 1
        on.move(second[-1:])
        assert on.awaited() == HEADERS
        on.move(third)
        assert on.awaited() == MESSAGE
        # Whoever looks may do so in the middle of a message.
        on.move(next(split_pdus(stored(301))))
        assert not site.look()
        assert on.awaited() == HEADERS


@still
def test_nothing_is_kept_where_nobody_looks(tmp_path: Path) -> None:
    Clock()
    with Site(tmp_path / "store") as site, known(site) as on:
        assert on.awaited() == 1


@still
def test_an_association_that_is_gone_is_not_looked_at(site: Watched) -> None:
    Clock()
    with known(site) as on:
        on.one.abandon()
        assert not site.look()
    with known(site) as on:
        on.one.detach()
        assert not site.look()
    # The second look ended what the first peer had begun.
    assert site.asked == 2


@still
def test_peers_that_follow_each_other_are_looked_at_by_one(site: Watched) -> None:
    Clock()
    for _ in range(3):
        with known(site) as on:
            on.one.abandon()
    assert site.asked == 1
    assert not site.look()


@still
def test_two_peers_are_looked_at_each_by_itself(site: Watched) -> None:
    Clock()
    with known(site) as one, known(site) as other:
        assert site.asked == 1
        one.peer.sendall(RELEASE_RQ)
        assert site.look()
        other.move(stored(300))
        assert site.look()
        assert one.awaited() == 1
        assert one.readable(20)
        assert other.awaited() == MESSAGE
        one.one.abandon()
        other.one.abandon()
        assert not site.look()
