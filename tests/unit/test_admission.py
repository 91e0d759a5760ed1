"""The books of main: rules, limits and exact counts."""

from __future__ import annotations

import random
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from fastscp.config.values import read_allow_rule
from fastscp.main.admission import Admission, Full, Limits

if TYPE_CHECKING:
    from fastscp.messages.worker import Verdict

NONE = Limits(0, 0, 0, 1000)


def admitted(verdict: Verdict) -> bool:
    return verdict.result == 0


def refusal(verdict: Verdict) -> tuple[int, int, int]:
    return verdict.result, verdict.source, verdict.reason


def ask(books: Admission, number: int, host: str = "10.0.0.1", ae: str = "CT1") -> Verdict:
    books.opened(number, host, 0)
    return decided(books.ask(number, ae, "FASTSCP"))


def decided(answer: Verdict | Full) -> Verdict:
    """The answer where no association goes for a newcomer."""
    return answer.verdict if isinstance(answer, Full) else answer


def test_without_limits_everybody_comes_in() -> None:
    books = Admission(NONE)
    assert all(admitted(ask(books, number)) for number in range(500))
    assert books.admitted == books.connections == books.load(0) == 500


@pytest.mark.parametrize(
    ("limits", "host", "ae", "word"),
    [
        (Limits(2), "10.0.0.9", "OTHER", "--max-associations 2"),
        (Limits(0, 2), "10.0.0.1", "OTHER", "--max-associations-per-host 2"),
        (Limits(0, 0, 2), "10.0.0.9", "CT1", "--max-associations-per-ae 2"),
    ],
)
def test_limits(limits: Limits, host: str, ae: str, word: str) -> None:
    books = Admission(limits)
    assert admitted(ask(books, 1))
    assert admitted(ask(books, 2))
    refused = ask(books, 3, host, ae)
    assert refusal(refused) == (2, 3, 2)
    assert word in refused.why
    # A refused one takes no place, and one that ends makes one free.
    books.closed(3)
    books.closed(1)
    assert admitted(ask(books, 4, host, ae))
    assert books.admitted == 2


def test_a_limit_counts_its_own_only() -> None:
    books = Admission(Limits(0, 1, 1))
    assert admitted(ask(books, 1, "10.0.0.1", "A"))
    assert admitted(ask(books, 2, "10.0.0.2", "B"))
    assert not admitted(ask(books, 3, "10.0.0.2", "C"))
    assert not admitted(ask(books, 4, "10.0.0.3", "A"))


def test_rules() -> None:
    rules = [read_allow_rule("CT1@10.1.0.0/16"), read_allow_rule("*@192.168.0.0/24")]
    books = Admission(NONE, rules)
    assert admitted(ask(books, 1, "10.1.2.3", "CT1"))
    assert admitted(ask(books, 2, "192.168.0.7", "ANYONE"))
    for number, host, ae in ((3, "10.2.0.1", "CT1"), (4, "10.1.2.3", "ct1"), (5, "::1", "CT1")):
        refused = ask(books, number, host, ae)
        assert refusal(refused) == (1, 1, 3)
        assert "--allow" in refused.why
    assert books.admitted == 2


def test_a_refusal_is_safe_to_print() -> None:
    books = Admission(NONE, [read_allow_rule("CT1@10.1.0.0/16")])
    refused = ask(books, 1, ae="a\nb\x1b[2J")
    assert refused.why.isprintable()
    books = Admission(Limits(0, 0, 1))
    ask(books, 1, ae="a\nb")
    assert ask(books, 2, ae="a\nb").why.isprintable()


@pytest.mark.parametrize("state", ["draining", "congested"])
def test_put_off(state: str) -> None:
    books = Admission(NONE)
    assert admitted(ask(books, 1))
    setattr(books, state, "not now")
    refused = ask(books, 2)
    assert refusal(refused) == (2, 3, 1)
    assert refused.why == "not now"
    setattr(books, state, "")
    assert admitted(ask(books, 3))


def test_the_rules_come_before_the_state() -> None:
    # Who may not come in at all is not told to try again later.
    books = Admission(NONE, [read_allow_rule("CT1@10.1.0.0/16")])
    books.draining = "shutting down"
    assert refusal(ask(books, 1, "10.9.9.9", "X")) == (1, 1, 3)


def test_nobody_asks_twice_or_unknown() -> None:
    books = Admission(NONE)
    assert refusal(decided(books.ask(9, "A", "B"))) == (2, 3, 1)
    assert admitted(ask(books, 1))
    assert refusal(decided(books.ask(1, "A", "B"))) == (2, 3, 1)
    assert books.admitted == 1


def test_too_many_without_a_request() -> None:
    books = Admission(Limits(0, 0, 0, 10))
    for number in range(8):
        assert books.opened(number, "10.0.0.66", number % 2) == []
    assert books.opened(8, "10.0.0.1", 0) == []
    assert books.opened(9, "10.0.0.2", 0) == []
    # The oldest of the address that has the most, whoever came last.
    assert books.opened(10, "10.0.0.3", 0) == [(0, 0)]
    books.closed(0)
    assert books.opened(11, "10.0.0.66", 0) == [(1, 1)]


def test_a_request_ends_the_waiting() -> None:
    books = Admission(Limits(0, 0, 0, 2))
    for number in range(20):
        assert admitted(ask(books, number))
    assert books.opened(20, "10.0.0.1", 0) == []
    assert books.opened(21, "10.0.0.1", 0) == []
    assert books.opened(22, "10.0.0.1", 0) == [(20, 0)]


def test_whoever_is_rejected_still_has_a_connection() -> None:
    """It counts until it is gone, also after it was told to go: peers need not hang up."""
    books = Admission(Limits(1, 0, 0, 2))
    assert admitted(ask(books, 0))
    for number in (1, 2):
        assert not admitted(ask(books, number, "10.0.0.2"))
    assert books.opened(3, "10.0.0.2", 0) == [(1, 0)]
    # It asks while it is told to go: one more without an association.
    assert not admitted(decided(books.ask(1, "CT1", "FASTSCP")))
    assert books.opened(4, "10.0.0.2", 0) == [(2, 0), (3, 0)]
    books.over(0)
    books.over(0)
    books.over(99)
    assert (books.admitted, books.connections) == (0, 5)
    # The one whose place another got is one of them now, and the oldest of its address.
    assert books.opened(5, "10.0.0.1", 0) == [(1, 0), (0, 0)]


@pytest.mark.parametrize(
    ("crowd", "newcomers", "thinkable"),
    [(1, 0, False), (2, 0, True), (2, 1, False), (3, 1, True), (4, 2, False)],
)
def test_who_may_get_anothers_place(crowd: int, newcomers: int, thinkable: bool) -> None:
    books = Admission(Limits(crowd + newcomers))
    for number in range(crowd):
        books.opened(number, "10.0.0.1", number % 3)
        books.ask(number, "CT1", "FASTSCP")
    for number in range(newcomers):
        assert admitted(ask(books, 10 + number, "10.0.0.2"))
    books.opened(20, "10.0.0.2", 0)
    answer = books.ask(20, "MR", "FASTSCP")
    assert isinstance(answer, Full) == thinkable
    assert refusal(decided(answer)) == (2, 3, 2)
    if isinstance(answer, Full):
        assert (answer.host, answer.crowd) == ("10.0.0.2", "10.0.0.1")
        assert books.holders(answer.crowd) == set(range(min(crowd, 3)))
    # Of one address nobody gets anything.
    books.opened(21, "10.0.0.1", 0)
    assert not isinstance(books.ask(21, "MR", "FASTSCP"), Full)


def test_the_operators_own_numbers_come_first() -> None:
    """Whom they keep out gets nobody's place."""
    for limits in (Limits(2, 1), Limits(2, 0, 1)):
        books = Admission(limits)
        assert admitted(ask(books, 0, "10.0.0.1", "A"))
        assert admitted(ask(books, 1, "10.0.0.2", "B"))
        books.opened(2, "10.0.0.1", 0)
        assert not isinstance(books.ask(2, "A", "FASTSCP"), Full)


def test_the_limit_of_open_files_has_its_own_words() -> None:
    books = Admission(Limits(1, by_files=True))
    ask(books, 1)
    assert ask(books, 2).why == "the limit of open files allows 1 associations"


def test_closing_twice_is_closing_once() -> None:
    books = Admission(Limits(1, 1, 1))
    ask(books, 1)
    books.closed(1)
    books.closed(1)
    books.closed(77)
    assert books.admitted == books.connections == 0
    assert admitted(ask(books, 2))
    assert not admitted(ask(books, 3))


def test_a_worker_dies() -> None:
    books = Admission(NONE)
    for number in range(6):
        books.opened(number, "10.0.0.1", number % 2)
    for number in range(4):
        books.ask(number, "A", "B")
    assert books.died(0) == (2, 3)
    assert books.died(0) == (0, 0)
    assert (books.load(0), books.load(1)) == (0, 3)
    assert (books.admitted, books.connections) == (2, 3)


def test_counts_stay_exact_and_nothing_is_kept() -> None:
    random_ = random.Random(5)
    books = Admission(Limits(40, 12, 9, 15))
    open_: dict[int, tuple[str, str, bool]] = {}
    for number in range(5000):
        if open_ and random_.random() < 0.5:
            gone = random_.choice(list(open_))
            books.closed(gone)
            del open_[gone]
        host, ae = f"10.0.0.{random_.randrange(5)}", f"AE{random_.randrange(8)}"
        too_many = books.opened(number, host, 0)
        open_[number] = (host, ae, False)
        for gone, _worker in too_many:
            books.closed(gone)
            del open_[gone]
        if number in open_ and random_.random() < 0.8:
            hosts = Counter(host for host, _, inside in open_.values() if inside)
            titles = Counter(ae for _, ae, inside in open_.values() if inside)
            inside = sum(hosts.values())
            expected = inside < 40 and hosts[host] < 12 and titles[ae] < 9
            assert admitted(decided(books.ask(number, ae, "X"))) == expected
            open_[number] = (host, ae, expected)
        assert books.admitted == sum(inside for _, _, inside in open_.values())
        assert books.connections == books.load(0) == len(open_)
    for number in list(open_):
        books.closed(number)
    assert books.admitted == books.connections == books.load(0) == 0
    # Keys are the peers' to invent: none may stay.
    assert not any(
        vars(books)[name] for name in vars(books) if name.startswith(("_by", "_pending"))
    )
