"""The books of main: limits and exact counts."""

from __future__ import annotations

import random
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from fastscp.association.account import Terms
from fastscp.config.tables import FromTable, Tables
from fastscp.config.values import AllowRule
from fastscp.main.admission import Full
from fastscp.messages.worker import Ask
from tests.books import limited

if TYPE_CHECKING:
    from fastscp.main.admission import Admission
    from fastscp.messages.worker import Verdict


def admitted(verdict: Verdict) -> bool:
    return verdict.result == 0


def refusal(verdict: Verdict) -> tuple[int, int, int]:
    return verdict.result, verdict.source, verdict.reason


def ask(books: Admission, number: int, host: str = "10.0.0.1", ae: str = "CT1") -> Verdict:
    books.opened(number, host, 0)
    return decided(books.ask(Ask(number, ae, "FASTSCP")))


def decided(answer: Verdict | Full) -> Verdict:
    """The answer where no association goes for a newcomer."""
    return answer.verdict if isinstance(answer, Full) else answer


def test_without_limits_everybody_comes_in() -> None:
    books = limited()
    assert all(admitted(ask(books, number)) for number in range(500))
    assert books.admitted == books.connections == books.load(0) == 500


@pytest.mark.parametrize(
    ("limits", "host", "ae", "word"),
    [
        ({"associations": 2}, "10.0.0.9", "OTHER", "--max-associations 2"),
        (
            {"max_associations_per_host": 2}, "10.0.0.1", "OTHER",
            "--max-associations-per-host 2",
        ),
        ({"max_associations_per_ae": 2}, "10.0.0.9", "CT1", "--max-associations-per-ae 2"),
    ],
)  # fmt: skip
def test_limits(limits: dict[str, Any], host: str, ae: str, word: str) -> None:
    books = limited(**limits)
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
    books = limited(max_associations_per_host=1, max_associations_per_ae=1)
    assert admitted(ask(books, 1, "10.0.0.1", "A"))
    assert admitted(ask(books, 2, "10.0.0.2", "B"))
    assert not admitted(ask(books, 3, "10.0.0.2", "C"))
    assert not admitted(ask(books, 4, "10.0.0.3", "A"))


def test_a_refusal_is_safe_to_print() -> None:
    books = limited(max_associations_per_ae=1)
    ask(books, 1, ae="a\nb")
    assert ask(books, 2, ae="a\nb").why.isprintable()


@pytest.mark.parametrize("state", ["draining", "congested"])
def test_put_off(state: str) -> None:
    books = limited()
    assert admitted(ask(books, 1))
    setattr(books, state, "not now")
    refused = ask(books, 2)
    assert refusal(refused) == (2, 3, 1)
    assert refused.why == "not now"
    setattr(books, state, "")
    assert admitted(ask(books, 3))


def test_nobody_asks_twice_or_unknown() -> None:
    books = limited()
    assert refusal(decided(books.ask(Ask(9, "A", "B")))) == (2, 3, 1)
    assert admitted(ask(books, 1))
    assert refusal(decided(books.ask(Ask(1, "A", "B")))) == (2, 3, 1)
    assert books.admitted == 1


def test_too_many_without_a_request() -> None:
    books = limited(pending=10)
    for number in range(8):
        assert books.opened(number, "10.0.0.66", number % 2) == []
    assert books.opened(8, "10.0.0.1", 0) == []
    assert books.opened(9, "10.0.0.2", 0) == []
    # The oldest of the address that has the most, whoever came last.
    assert books.opened(10, "10.0.0.3", 0) == [(0, 0)]
    books.closed(0)
    assert books.opened(11, "10.0.0.66", 0) == [(1, 1)]


@pytest.mark.parametrize("how", ["refused", "over"])
def test_those_that_have_their_answer_go_first(how: str) -> None:
    """They only wait for the peer to hang up; the request of another may be under way."""
    books = limited(pending=3, max_associations=0)
    for number in (1, 2, 3):
        assert books.opened(number, "10.0.0.66", 0) == []
    if how == "refused":
        books.paused = "not now"
    decided(books.ask(Ask(2, "CT", "US")))
    books.over(2)
    assert books.opened(4, "10.0.0.66", 0) == [(2, 0)]
    assert books.opened(5, "10.0.0.66", 0) == [(1, 0)]
    # What another address has is its own, answered or not.
    books.closed(3)
    assert books.opened(6, "10.0.0.1", 0) == []
    decided(books.ask(Ask(6, "CT", "US")))
    books.over(6)
    assert books.opened(7, "10.0.0.66", 0) == [(4, 0)]


def test_the_rate_of_the_top_counts_those_that_it_holds_for() -> None:
    """The other limits of the top count all associations."""
    for field, others in (("max_association_rate", 2), ("max_associations_per_host", 0)):
        table = FromTable("x", (AllowRule("X", None),), (), (), {field: 50})
        tables = Tables((), (table,))
        settings: dict[str, Any] = {field: 2}
        books = limited(tables=tables, clock=lambda: 5.0, **settings)
        for number in range(10):
            books.opened(number, "10.0.0.1", 0)
            assert admitted(decided(books.ask(Ask(number, "X", "US", sender="from.x"))))
        for number in range(10, 14):
            books.opened(number, "10.0.0.1", 0)
            assert admitted(decided(books.ask(Ask(number, "Y", "US")))) == (number < 10 + others)


def test_who_waits_for_a_place_takes_nothing_of_its_rate() -> None:
    now = [100.0]
    books = limited(2, max_association_rate=1, clock=lambda: now[0])
    for number in (1, 2):
        assert admitted(ask(books, number, host="10.0.0.1"))
        now[0] += 2
    for _ in range(3):
        books.opened(3, "10.0.0.2", 0)
        assert isinstance(books.ask(Ask(3, "CT", "US")), Full)
    books.over(1)
    assert admitted(decided(books.ask(Ask(3, "CT", "US"))))
    books.over(3)
    assert admitted(ask(books, 4, host="10.0.0.1"))
    # All places are taken; but whoever comes too often gets nobody's.
    books.opened(5, "10.0.0.2", 0)
    refused = decided(books.ask(Ask(5, "CT", "US")))
    assert refusal(refused) == (2, 3, 2)
    assert "--max-association-rate 1 reached by 10.0.0.2" in refused.why


def test_who_is_behind_a_proxy_counts_as_who_it_is() -> None:
    books = limited(pending=10, max_associations_per_host=1)
    for number in range(8):
        assert books.opened(number, "10.0.0.5", 0) == []
        books.relayed(number, "10.0.0.66" if number else "10.0.0.1", 4000 + number)
    for number in (8, 9):
        assert books.opened(number, "10.0.0.5", 0) == []
    # Neither the one that came first goes, nor one that the proxy has not named yet.
    assert books.opened(10, "10.0.0.5", 0) == [(1, 0)]
    one, other = books.booked(2), books.booked(8)
    assert one is not None
    assert (one.host, one.port) == ("10.0.0.66", 4002)
    assert other is not None
    assert other.host == "10.0.0.5"
    # As the limits see it.
    assert not decided(books.ask(Ask(0, "CT1", "X"))).result
    assert not decided(books.ask(Ask(2, "CT1", "X"))).result
    assert "per-host 1 reached by 10.0.0.66" in decided(books.ask(Ask(3, "CT1", "X"))).why
    # An association stays whose it is, and what is gone is not booked again.
    books.relayed(2, "10.0.0.2", 1)
    books.relayed(99, "10.0.0.2", 1)
    assert books.holders("10.0.0.2") == set()
    for number in range(11):
        books.closed(number)
    assert not books._pending_by_host
    assert not books._by_host


def test_a_request_ends_the_waiting() -> None:
    books = limited(pending=2)
    for number in range(20):
        assert admitted(ask(books, number))
    assert books.opened(20, "10.0.0.1", 0) == []
    assert books.opened(21, "10.0.0.1", 0) == []
    assert books.opened(22, "10.0.0.1", 0) == [(20, 0)]


def test_whoever_is_rejected_still_has_a_connection() -> None:
    """It counts until it is gone, also after it was told to go: peers need not hang up."""
    books = limited(1, 2)
    assert admitted(ask(books, 0))
    for number in (1, 2):
        assert not admitted(ask(books, number, "10.0.0.2"))
    assert books.opened(3, "10.0.0.2", 0) == [(1, 0)]
    # It asks while it is told to go: one more without an association.
    assert not admitted(decided(books.ask(Ask(1, "CT1", "FASTSCP"))))
    # The two that have their answer go, and the one that may still ask stays.
    assert books.opened(4, "10.0.0.2", 0) == [(2, 0), (1, 0)]
    books.over(0)
    books.over(0)
    books.over(99)
    assert (books.admitted, books.connections) == (0, 5)
    # The one whose place another got is one of them now, and the oldest of its address.
    assert books.opened(5, "10.0.0.1", 0) == [(3, 0), (0, 0)]


@pytest.mark.parametrize(
    ("crowd", "newcomers", "thinkable"),
    [(1, 0, False), (2, 0, True), (2, 1, False), (3, 1, True), (4, 2, False)],
)
def test_who_may_get_anothers_place(crowd: int, newcomers: int, thinkable: bool) -> None:
    books = limited(crowd + newcomers)
    for number in range(crowd):
        books.opened(number, "10.0.0.1", number % 3)
        books.ask(Ask(number, "CT1", "FASTSCP"))
    for number in range(newcomers):
        assert admitted(ask(books, 10 + number, "10.0.0.2"))
    books.opened(20, "10.0.0.2", 0)
    answer = books.ask(Ask(20, "MR", "FASTSCP"))
    assert isinstance(answer, Full) == thinkable
    assert refusal(decided(answer)) == (2, 3, 2)
    if isinstance(answer, Full):
        assert (answer.host, answer.crowd) == ("10.0.0.2", "10.0.0.1")
        assert books.holders(answer.crowd) == set(range(min(crowd, 3)))
    # Of one address nobody gets anything.
    books.opened(21, "10.0.0.1", 0)
    assert not isinstance(books.ask(Ask(21, "MR", "FASTSCP")), Full)


def test_the_operators_own_numbers_come_first() -> None:
    """Whom they keep out gets nobody's place."""
    for limit in ("max_associations_per_host", "max_associations_per_ae"):
        settings: dict[str, Any] = {limit: 1}
        books = limited(2, **settings)
        assert admitted(ask(books, 0, "10.0.0.1", "A"))
        assert admitted(ask(books, 1, "10.0.0.2", "B"))
        books.opened(2, "10.0.0.1", 0)
        assert not isinstance(books.ask(Ask(2, "A", "FASTSCP")), Full)


def test_the_limit_of_open_files_has_its_own_words() -> None:
    books = limited(1, by_files=True)
    ask(books, 1)
    assert ask(books, 2).why == "the limit of open files allows 1 at a time"


def test_closing_twice_is_closing_once() -> None:
    books = limited(1, max_associations_per_host=1, max_associations_per_ae=1)
    ask(books, 1)
    books.closed(1)
    books.closed(1)
    books.closed(77)
    assert books.admitted == books.connections == 0
    assert admitted(ask(books, 2))
    assert not admitted(ask(books, 3))


def test_a_worker_dies() -> None:
    books = limited()
    for number in range(6):
        books.opened(number, "10.0.0.1", number % 2)
    for number in range(4):
        books.ask(Ask(number, "A", "B"))
    assert books.died(0) == (2, 3)
    assert books.died(0) == (0, 0)
    assert (books.load(0), books.load(1)) == (0, 3)
    assert (books.admitted, books.connections) == (2, 3)


def test_counts_stay_exact_and_nothing_is_kept() -> None:
    random_ = random.Random(5)
    books = limited(40, 15, max_associations_per_host=12, max_associations_per_ae=9)
    open_: dict[int, tuple[str, str, bool]] = {}
    for number in range(5000):
        if open_ and random_.random() < 0.5:
            gone = random_.choice(list(open_))
            books.closed(gone)
            del open_[gone]
        host, ae = f"10.0.0.{random_.randrange(5)}", f"AE{random_.randrange(8)}"
        too_many = books.opened(number, host, 0)
        open_[number] = (host, ae, False)
        if random_.random() < 0.3:
            host = f"10.0.0.{random_.randrange(5)}"
            books.relayed(number, host, 104)
            open_[number] = (host, ae, False)
        for gone, _worker in too_many:
            books.closed(gone)
            del open_[gone]
        if number in open_ and random_.random() < 0.8:
            hosts = Counter(host for host, _, inside in open_.values() if inside)
            titles = Counter(ae for _, ae, inside in open_.values() if inside)
            inside = sum(hosts.values())
            expected = inside < 40 and hosts[host] < 12 and titles[ae] < 9
            assert admitted(decided(books.ask(Ask(number, ae, "X")))) == expected
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


def test_put_off_in_this_order() -> None:
    books = limited()
    for name, why in (("congested", "full"), ("paused", "lunch"), ("draining", "the end")):
        setattr(books, name, why)
        refused = ask(books, len(why))
        assert (*refusal(refused), refused.why) == (2, 3, 1, why)
    books.draining = books.paused = books.congested = ""
    assert admitted(ask(books, 99))


def test_what_is_booked_of_a_connection() -> None:
    books = limited(2)
    books.opened(1, "10.0.0.1", 3, 104, 5.0)
    assert books.booked(1) == (1, "10.0.0.1", 104, 3, 5.0, None, "", False, False, -1, "", "")
    books.ask(Ask(1, "CT1", "PACS", Terms(user="jo")))
    assert books.booked(1) == (
        1,
        "10.0.0.1",
        104,
        3,
        5.0,
        "CT1",
        "PACS",
        True,
        False,
        -1,
        "default",
        "jo",
    )
    books.over(1)
    assert books.booked(1) == (
        1,
        "10.0.0.1",
        104,
        3,
        5.0,
        "CT1",
        "PACS",
        False,
        True,
        -1,
        "default",
        "jo",
    )
    # Refused, and waiting for a place.
    books.paused = "lunch"
    ask(books, 2)
    books.paused = ""
    ask(books, 3)
    ask(books, 4)
    ask(books, 5, "10.0.0.2")
    assert [(one.number, one.has_place, one.is_over) for one in books.all_booked()] == [
        (1, False, True), (2, False, True), (3, True, False), (4, True, False), (5, False, False),
    ]  # fmt: skip
    assert [one.rules for one in books.all_booked()] == ["default", "", "default", "default", ""]
    books.closed(1)
    assert books.booked(1) is None
    assert books.places == 2
