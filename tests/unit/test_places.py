"""A place for a newcomer when all are taken: the exchange between main and its workers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fastscp.main.places import NEWCOMERS_MOST, Places
from fastscp.messages.worker import Ask, Displace, Displaced, Idle, SeekIdle, Verdict
from tests.books import limited

if TYPE_CHECKING:
    from collections.abc import Callable

    import msgspec

CROWD = "10.0.0.1"
WHOM = "run.{} NEW@10.0.0.2"


class Played:
    """The newcomers' side of main, with four associations of one address in two workers."""

    def __init__(self) -> None:
        self.books = limited(4)
        self.sent: list[tuple[int, msgspec.Struct]] = []
        self.silent: set[int] = set()
        self.later: list[tuple[float, Callable[[], None]]] = []
        self.places = Places(
            self.books,
            run_id="run",
            tell=lambda worker, message: self.sent.append((worker, message)),
            listens=lambda worker: worker not in self.silent,
            call_later=self._call_later,
        )
        for number in range(1, 5):
            self.books.opened(number, CROWD, number % 2)
            self.books.ask(Ask(number, "OLD", "X"))

    def _call_later(self, seconds: float, call: Callable[..., None], *arguments: object) -> None:
        self.later.append((seconds, lambda: call(*arguments)))

    def ask(self, number: int, *, worker: int = 0, host: str = "10.0.0.2") -> None:
        self.books.opened(number, host, worker)
        self.places.ask(worker, Ask(number, "NEW", "X"))

    def told(self) -> list[tuple[int, msgspec.Struct]]:
        """What the workers were told since the last look."""
        told, self.sent = self.sent, []
        return told

    def past(self, seconds: float) -> None:
        """Let so much time pass: what is due then is called."""
        due = [call for when, call in self.later if when <= seconds]
        self.later = [one for one in self.later if one[0] > seconds]
        for call in due:
            call()


@pytest.fixture
def played() -> Played:
    return Played()


def verdicts(told: list[tuple[int, msgspec.Struct]]) -> list[tuple[int, int, int]]:
    """Worker, number and reason of each verdict."""
    return [(at, one.number, one.reason) for at, one in told if isinstance(one, Verdict)]


def test_the_longest_idle_goes(played: Played) -> None:
    played.ask(9)
    assert played.told() == [(0, SeekIdle(9, CROWD)), (1, SeekIdle(9, CROWD))]
    played.places.idle(0, Idle(9, 2, 50.0))
    assert played.told() == []
    played.places.idle(1, Idle(9, 3, 40.0))
    assert played.told() == [(1, Displace(3, 9, WHOM.format(9)))]
    played.places.displaced(1, Displaced(3, 9, done=True))
    assert played.told() == [(0, Verdict(9))]
    assert (played.books.admitted, played.books.connections) == (4, 5)
    # The aborted peer may take its time to hang up.
    played.books.closed(3)
    played.places.closed(3)
    played.past(60)
    assert played.told() == []
    assert played.books.admitted == 4


def test_one_that_became_busy_stays(played: Played) -> None:
    played.ask(9)
    played.places.idle(0, Idle(9, 2, 30.0))
    played.places.idle(1, Idle(9, 3, 40.0))
    played.told()
    played.places.displaced(0, Displaced(2, 9, done=False))
    assert played.told() == [(1, Displace(3, 9, WHOM.format(9)))]
    played.places.displaced(1, Displaced(3, 9, done=False))
    assert verdicts(played.told()) == [(0, 9, 2)]
    assert played.books.admitted == 4


def test_one_that_is_stuck_goes_where_none_is_idle(played: Played) -> None:
    for idle in (Idle(9, 2, 30.0), Idle(9)):
        played.ask(9)
        played.places.idle(0, idle)
        played.places.idle(1, Idle(9, 3, 10.0, stuck=True))
        at, number = (0, 2) if idle.number else (1, 3)
        assert played.told()[2:] == [(at, Displace(number, 9, WHOM.format(9)))]
        played.books.closed(9)
        played.places.closed(9)


def test_none_is_idle(played: Played) -> None:
    played.ask(9)
    for worker in (0, 1):
        played.places.idle(worker, Idle(9))
    assert verdicts(played.told()) == [(0, 9, 2)]


def test_nobody_can_be_asked(played: Played) -> None:
    played.silent = {0, 1}
    played.ask(9)
    assert verdicts(played.told()) == [(0, 9, 2)]


@pytest.mark.parametrize("answers", [True, False])
def test_a_worker_that_does_not_answer(played: Played, answers: bool) -> None:
    played.ask(9)
    if answers:
        played.places.idle(1, Idle(9, 3, 40.0))
    played.told()
    played.past(1)
    if answers:
        assert played.told() == [(1, Displace(3, 9, WHOM.format(9)))]
        # Nor does the one that was told to abort it.
        played.past(3)
    assert verdicts(played.told()) == [(0, 9, 2)]
    # What comes after that is too late for this one, and good for the next.
    played.places.idle(0, Idle(9, 2, 1.0))
    assert played.told() == []
    played.places.displaced(1, Displaced(3, 9, done=True))
    played.ask(10)
    assert verdicts(played.told()) == [(0, 10, 0)]


def test_two_at_once_get_two_places(played: Played) -> None:
    played.ask(9)
    played.ask(10, worker=1)
    played.places.idle(0, Idle(9, 2, 30.0))
    played.places.idle(1, Idle(9, 3, 40.0))
    played.told()
    played.places.displaced(0, Displaced(2, 9, done=True))
    # Two of four is not fewer than half as many as three.
    assert [type(one) for _at, one in played.told()] == [Verdict, SeekIdle, SeekIdle]
    played.places.idle(0, Idle(10))
    played.places.idle(1, Idle(10, 3, 40.0))
    played.places.displaced(1, Displaced(3, 10, done=True))
    assert verdicts(played.told()) == [(1, 10, 0)]
    assert played.books.admitted == 4
    # With two each nobody has to go any more.
    played.ask(11)
    assert verdicts(played.told()) == [(0, 11, 2)]


@pytest.mark.parametrize("when", ["asked", "told"])
def test_the_newcomer_leaves(played: Played, when: str) -> None:
    played.ask(9)
    played.ask(10)
    if when == "told":
        for worker in (0, 1):
            played.places.idle(worker, Idle(9, 2 + worker, 30.0))
    played.told()
    played.books.closed(9)
    played.places.closed(9)
    assert played.told() == [(0, SeekIdle(10, CROWD)), (1, SeekIdle(10, CROWD))]
    if when == "told":
        # The place that it would have had is the next one's.
        played.places.displaced(0, Displaced(2, 9, done=True))
        assert verdicts(played.told()) == [(0, 10, 0)]
    played.past(60)
    assert all(number == 10 for _at, number, _reason in verdicts(played.told()))
    assert played.books.admitted == 4


def test_a_place_that_is_given_up_meanwhile(played: Played) -> None:
    played.ask(9)
    for worker in (0, 1):
        played.places.idle(worker, Idle(9, 2 + worker, 30.0))
    played.told()
    played.books.closed(4)
    played.places.closed(4)
    assert verdicts(played.told()) == [(0, 9, 0)]
    # It was told to go already: that costs one association more, and leaves a place.
    played.places.displaced(0, Displaced(2, 9, done=True))
    assert (played.told(), played.books.admitted) == ([], 3)


@pytest.mark.parametrize("when", ["asked", "told"])
def test_a_worker_dies(played: Played, when: str) -> None:
    played.ask(9)
    played.ask(10, worker=1)
    played.places.idle(0, Idle(9, 2, 30.0))
    if when == "told":
        played.places.idle(1, Idle(9, 3, 10.0))
    played.told()
    played.books.died(1)
    played.places.left(1)
    # Its places are free, and its newcomer is gone.
    assert verdicts(played.told()) == [(0, 9, 0)]
    played.past(60)
    assert (played.told(), played.books.admitted) == ([], 3)


def test_a_worker_dies_that_had_the_newcomer_and_no_association(played: Played) -> None:
    played.ask(9, worker=2)
    played.ask(10)
    played.told()
    played.books.died(2)
    played.places.left(2)
    assert played.told() == [(0, SeekIdle(10, CROWD)), (1, SeekIdle(10, CROWD))]


def test_so_many_wait(played: Played) -> None:
    for number in range(100, 100 + NEWCOMERS_MOST):
        played.ask(number)
    assert verdicts(played.told()) == []
    played.ask(9)
    assert verdicts(played.told()) == [(0, 9, 2)]
    # Asked twice it is no second newcomer, and all are answered in the end.
    played.past(60)
    answered = [number for _at, number, _reason in verdicts(played.told())]
    assert sorted(answered) == list(range(100, 100 + NEWCOMERS_MOST))


def test_the_service_ends_meanwhile(played: Played) -> None:
    played.ask(9)
    played.told()
    played.books.draining = "shutting down"
    played.past(60)
    assert verdicts(played.told()) == [(0, 9, 1)]


def test_answers_to_nothing(played: Played) -> None:
    played.places.idle(0, Idle(9, 2, 30.0))
    played.places.displaced(0, Displaced(2, 9, done=False))
    played.places.displaced(0, Displaced(77, 9, done=True))
    played.places.closed(77)
    played.places.left(5)
    played.ask(9)
    played.told()
    played.places.idle(7, Idle(9, 2, 30.0))
    played.places.displaced(0, Displaced(2, 9, done=False))
    assert played.told() == []
    assert played.books.admitted == 4
