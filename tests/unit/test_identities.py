"""Passwords that a worker checks: off its loop, one at a time, in fair turns, and not for ever."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import TYPE_CHECKING

import pytest

from fastscp.association.identity import Credentials, Token
from fastscp.users.identities import UserIdentities
from fastscp.users.keys import Keys
from fastscp.users.passwords import Entry
from fastscp.users.tokens import Look, Tokens
from fastscp.worker import identities
from fastscp.worker.identities import (
    CHECKED_MOST,
    FAILURES_MOST,
    FAILURES_WITHIN_S,
    HOSTS_MOST,
    KNOWN_FOR_S,
    KNOWN_MOST,
    SHARING_MOST,
    WAITING_MOST,
    WAITING_OF_ONE_MOST,
    Answer,
    Found,
    Identities,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator


class Clock:
    """Of `time.monotonic`, set by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


class Checks:
    """Checks without their cost: `SECRET` is everybody's password. They wait while held."""

    SECRET = b"sesame"

    def __init__(self) -> None:
        self.done: list[tuple[str | None, bytes]] = []
        self.threads: set[int] = set()
        self.go = threading.Event()
        self.go.set()

    def verify(self, entry: Entry | None, passcode: bytes) -> bool:
        self.threads.add(threading.get_ident())
        assert self.go.wait(60)
        self.done.append((entry.name if entry else None, passcode))
        if passcode == b"a bug":
            raise MemoryError("no memory for it")
        return entry is not None and passcode == self.SECRET


class Desk:
    """What the worker's association does with it: asks, and notes what it is told."""

    def __init__(self) -> None:
        self.identities = Identities()
        self.told: list[tuple[str, Found]] = []
        # What the log is told of it.
        self.why: list[str] = []

    def tell(self, label: str, answer: Answer) -> None:
        self.told.append((label, answer.found))
        self.why.append(answer.why)

    def show(self, name: str, passcode: bytes, host: str = "10.0.0.1", label: str = "") -> None:
        self.identities.check(
            host,
            Credentials(name.encode(), passcode),
            lambda answer: self.tell(label or name, answer),
        )

    async def shown(self, name: str, passcode: bytes, host: str = "10.0.0.1") -> Found:
        before = len(self.told)
        self.show(name, passcode, host)
        await self.heard(before + 1)
        return self.told[-1][1]

    async def heard(self, number: int) -> None:
        async with asyncio.timeout(60):
            while len(self.told) < number:  # noqa: ASYNC110 - turns of the loop
                await asyncio.sleep(0)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(identities, "time", made)
    return made


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> Iterator[Checks]:
    made = Checks()
    monkeypatch.setattr(identities, "verify", made.verify)
    yield made
    made.go.set()


def known(*names: str) -> UserIdentities:
    return UserIdentities("users", True, tuple(Entry(name, b"", b"") for name in names))


def at_desk(test: Callable[[Desk], Coroutine[object, object, None]]) -> None:
    async def run() -> None:
        desk = Desk()
        try:
            desk.identities.use(known("jo", "mo"), "FASTSCP")
            await test(desk)
        finally:
            await asyncio.to_thread(desk.identities.close)

    asyncio.run(run())


def test_who_is_right_and_who_is_not(checks: Checks) -> None:
    async def test(desk: Desk) -> None:
        assert await desk.shown("jo", b"sesame") is Found.RIGHT
        assert await desk.shown("jo", b"Sesame") is Found.WRONG
        assert await desk.shown("jo", b"") is Found.WRONG
        assert await desk.shown("Jo", b"sesame") is Found.WRONG
        assert desk.why == [
            "",
            *["the passcode is wrong"] * 2,
            "is not in the file of --user-identity",
        ]
        # One and the same look, whoever it is about.
        assert [name for name, _ in checks.done] == ["jo", "jo", "jo", None]
        assert checks.threads.isdisjoint({threading.get_ident()})

    at_desk(test)


def test_what_was_right_is_known_for_a_while(checks: Checks, clock: Clock) -> None:
    """500 associations a second of one sender cost one check."""

    async def test(desk: Desk) -> None:
        for number in range(500):
            assert await desk.shown("jo", b"sesame", f"10.0.{number % 4}.1") is Found.RIGHT
        assert len(checks.done) == 1
        # Name and passcode together, not their letters.
        assert await desk.shown("j", b"osesame") is Found.WRONG
        assert len(checks.done) == 2
        clock.now += KNOWN_FOR_S
        assert await desk.shown("jo", b"sesame") is Found.RIGHT
        assert len(checks.done) == 3

    at_desk(test)


def test_what_was_wrong_is_looked_at_again(checks: Checks) -> None:
    async def test(desk: Desk) -> None:
        for _ in range(3):
            assert await desk.shown("jo", b"wrong") is Found.WRONG
        assert len(checks.done) == 3

    at_desk(test)


def test_what_is_known_is_bounded_and_no_passcode(
    checks: Checks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identities, "KNOWN_MOST", 3)
    assert KNOWN_MOST <= 4096

    async def test(desk: Desk) -> None:
        names = [f"user{number}" for number in range(5)]
        desk.identities.use(known(*names), "FASTSCP")
        for name in names:
            assert await desk.shown(name, b"sesame") is Found.RIGHT
        kept = desk.identities._known
        assert len(kept) == 3
        assert all(len(key) == 32 and b"sesame" not in key for key in kept)
        # The first are forgotten, and looked at again.
        assert await desk.shown("user0", b"sesame") is Found.RIGHT
        assert len(checks.done) == 6

    at_desk(test)


def test_a_token_is_known_as_long_as_it_holds(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And no longer, though what was right is known for a while."""
    looks: list[bytes] = []

    def look(_self: Tokens, token: bytes) -> Look:
        looks.append(token)
        return Look(True, "jo", holds_s=KNOWN_FOR_S / 2)

    monkeypatch.setattr(Tokens, "look", look)

    async def test(desk: Desk) -> None:
        desk.identities.use(UserIdentities("keys", True, keys=Keys(())), "FASTSCP")
        # One more look is needed once it holds no more.
        for number, expected in enumerate((1, 1, 2), start=1):
            desk.identities.check(
                "10.0.0.1", Token(b"a.b.c"), lambda answer: desk.tell(answer.user, answer)
            )
            await desk.heard(number)
            assert looks == [b"a.b.c"] * expected
            clock.now += KNOWN_FOR_S * 0.3
        assert set(desk.told) == {("jo", Found.RIGHT)}

    at_desk(test)


def test_newer_entries_hold_at_once(checks: Checks) -> None:
    async def test(desk: Desk) -> None:
        assert await desk.shown("jo", b"sesame") is Found.RIGHT
        checks.go.clear()
        desk.show("mo", b"sesame")
        desk.identities.use(known("new"), "FASTSCP")
        checks.go.set()
        await desk.heard(2)
        # Who came before is judged by what held then, and not remembered for now.
        assert desk.told[-1] == ("mo", Found.RIGHT)
        assert await desk.shown("jo", b"sesame") is Found.WRONG
        assert await desk.shown("mo", b"sesame") is Found.WRONG
        assert await desk.shown("new", b"sesame") is Found.RIGHT

    at_desk(test)


def test_the_same_at_a_time_is_one_check(checks: Checks) -> None:
    async def test(desk: Desk) -> None:
        checks.go.clear()
        for number in range(SHARING_MOST + 2):
            desk.show("jo", b"sesame", label=str(number))
        assert desk.told == [(str(SHARING_MOST + n), Found.BUSY) for n in range(2)]
        checks.go.set()
        await desk.heard(SHARING_MOST + 2)
        assert {found for _, found in desk.told[2:]} == {Found.RIGHT}
        assert len(checks.done) == 1

    at_desk(test)


def test_what_waits_is_bounded_of_one_address_and_of_all(checks: Checks) -> None:
    async def test(desk: Desk) -> None:
        checks.go.clear()
        # One is being looked at, and waits no more.
        desk.show("first", b"", "10.9.9.9")
        for number in range(WAITING_OF_ONE_MOST + 1):
            desk.show(f"a{number}", b"")
        assert desk.told == [(f"a{WAITING_OF_ONE_MOST}", Found.BUSY)]
        hosts = WAITING_MOST // WAITING_OF_ONE_MOST
        for host in range(2, hosts + 1):
            for number in range(WAITING_OF_ONE_MOST):
                desk.show(f"b{host}-{number}", b"", f"10.0.0.{host}")
        assert len(desk.told) == 1
        desk.show("one more", b"", "10.0.1.1")
        assert desk.told[1:] == [("one more", Found.BUSY)]
        checks.go.set()
        await desk.heard(WAITING_MOST + 3)
        assert len(checks.done) == WAITING_MOST + 1

    at_desk(test)


def test_associations_that_wait_are_bounded_and_those_of_strangers_apart(checks: Checks) -> None:
    """However many share a check: each keeps its request's answer meanwhile."""

    async def test(desk: Desk) -> None:
        assert await desk.shown("jo", b"sesame", "10.0.9.1") is Found.RIGHT
        checks.go.clear()
        for number in range(CHECKED_MOST + 3):
            desk.show(f"a{number % 60}", b"", f"10.0.1.{number % 60}", str(number))
        late = [(str(CHECKED_MOST + n), Found.BUSY) for n in range(3)]
        assert desk.told[1:] == late
        for number in range(CHECKED_MOST + 1):
            desk.show("mo", b"sesame", "10.0.9.1", f"mo{number}")
        assert desk.told[4:] == [(f"mo{CHECKED_MOST}", Found.BUSY)]
        # Whoever is known waits for none of them.
        desk.show("jo", b"sesame", "10.0.9.1", "known")
        assert desk.told[5:] == [("known", Found.RIGHT)]
        checks.go.set()
        await desk.heard(2 * CHECKED_MOST + 6)
        assert desk.identities._wanting == [0, 0]

    at_desk(test)


def test_addresses_take_turns(checks: Checks) -> None:
    """Whoever sends many passwords waits for itself."""

    async def test(desk: Desk) -> None:
        checks.go.clear()
        desk.show("first", b"", "10.9.9.9")
        for number in range(WAITING_OF_ONE_MOST):
            desk.show(f"flood{number}", b"", "10.0.0.1")
        desk.show("jo", b"sesame", "10.0.0.2")
        desk.show("mo", b"sesame", "10.0.0.2")
        checks.go.set()
        await desk.heard(3 + WAITING_OF_ONE_MOST)
        order = [name for name, _ in desk.told]
        assert order[:5] == ["first", "flood0", "jo", "flood1", "mo"]

    at_desk(test)


def test_strangers_keep_nobody_out_who_was_right(checks: Checks) -> None:
    """However many addresses send passwords at a time, those that are known are looked at next."""

    async def test(desk: Desk) -> None:
        assert await desk.shown("jo", b"sesame", "10.0.9.1") is Found.RIGHT
        checks.go.clear()
        for number in range(WAITING_MOST + 1):
            desk.show(f"a{number}", b"", f"10.0.1.{number}")
        assert len(desk.told) == 1
        # No stranger more; of the one that is known as many as of any.
        desk.show("mo", b"sesame", "10.0.9.2")
        assert desk.told[1:] == [("mo", Found.BUSY)]
        for number in range(WAITING_OF_ONE_MOST + 1):
            desk.show("mo", b"%d" % number, "10.0.9.1", f"mo{number}")
        assert desk.told[2:] == [(f"mo{WAITING_OF_ONE_MOST}", Found.BUSY)]
        checks.go.set()
        await desk.heard(WAITING_MOST + WAITING_OF_ONE_MOST + 4)
        order = [name for name, _ in desk.told[3:]]
        assert order[: WAITING_OF_ONE_MOST + 2] == [
            "a0", *(f"mo{number}" for number in range(WAITING_OF_ONE_MOST)), "a1",
        ]  # fmt: skip

    at_desk(test)


def test_who_guesses_is_not_heard_any_more(
    checks: Checks, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    async def test(desk: Desk) -> None:
        assert await desk.shown("mo", b"sesame") is Found.RIGHT
        for number in range(FAILURES_MOST):
            clock.now += 1
            assert await desk.shown("jo", b"guess %d" % number) is Found.WRONG
        looked = len(checks.done)
        # Not even whether one is right, be it known or not: that would tell.
        for name, passcode in (("jo", b"sesame"), ("mo", b"sesame"), ("jo", b"guess")):
            assert await desk.shown(name, passcode) is Found.LIMITED
        assert len(checks.done) == looked
        # The others are.
        assert await desk.shown("jo", b"sesame", "10.0.0.2") is Found.RIGHT
        # Once the first failure is old enough there is another try, and only one.
        clock.now += FAILURES_WITHIN_S - FAILURES_MOST + 1.5
        assert await desk.shown("jo", b"guess") is Found.WRONG
        assert await desk.shown("jo", b"guess") is Found.LIMITED
        clock.now += FAILURES_WITHIN_S + 1
        assert await desk.shown("jo", b"sesame") is Found.RIGHT
        assert "10.0.0.1" not in desk.identities._failures

    with caplog.at_level(logging.WARNING):
        at_desk(test)
    said = [one.getMessage() for one in caplog.records]
    assert len(said) == 2
    assert all("10.0.0.1: 10 user identities were wrong within 60 s" in one for one in said)
    assert "guess" not in "".join(said)


@pytest.mark.parametrize(
    ("first", "second", "is_one"),
    [
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2%eth0", True),
        ("::ffff:10.0.0.1", "10.0.0.1", True),
        ("10.0.0.1", "10.0.0.2", False),
    ],
)
def test_what_is_one_address(checks: Checks, first: str, second: str, is_one: bool) -> None:
    async def test(desk: Desk) -> None:
        for number in range(FAILURES_MOST):
            await desk.shown("jo", b"guess %d" % number, first)
        found = await desk.shown("jo", b"sesame", second)
        assert found is (Found.LIMITED if is_one else Found.RIGHT)

    at_desk(test)


def test_those_who_failed_are_bounded(checks: Checks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identities, "HOSTS_MOST", 20)
    assert HOSTS_MOST <= 65536

    async def test(desk: Desk) -> None:
        for number in range(50):
            await desk.shown("jo", b"wrong", f"10.0.1.{number}")
        assert list(desk.identities._failures) == [f"10.0.1.{n}" for n in range(30, 50)]
        desk.identities.use(known(*(f"u{number}" for number in range(50))), "FASTSCP")
        for number in range(50):
            await desk.shown(f"u{number}", b"sesame", f"10.0.2.{number}")
        assert list(desk.identities._right) == [f"10.0.2.{n}" for n in range(30, 50)]

    at_desk(test)


def test_a_check_that_fails_lets_nobody_in(
    checks: Checks, caplog: pytest.LogCaptureFixture
) -> None:
    async def test(desk: Desk) -> None:
        assert await desk.shown("jo", b"a bug") is Found.BUSY
        assert await desk.shown("jo", b"sesame") is Found.RIGHT

    at_desk(test)
    assert [one.getMessage() for one in caplog.records] == ["cannot check a user identity"]


def test_the_end_waits_for_one_check_alone(checks: Checks) -> None:
    async def run() -> None:
        desk = Desk()
        desk.identities.use(known("jo"), "FASTSCP")
        checks.go.clear()
        for number in range(5):
            desk.show(f"jo{number}", b"")
        closing = asyncio.ensure_future(asyncio.to_thread(desk.identities.close))
        while not desk.identities._is_closed:  # noqa: ASYNC110
            await asyncio.sleep(0)
        checks.go.set()
        await closing
        await desk.heard(1)
        assert len(checks.done) == 1
        assert await desk.shown("late", b"") is Found.BUSY

    asyncio.run(run())
