"""A worker whose peers have to log in: what main hears of them, and when they go."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import threading
from typing import TYPE_CHECKING, Any

import pytest

from fastscp import log as logs
from fastscp.association.account import Terms
from fastscp.messages.configuration import Configuration, pack
from fastscp.messages.worker import Abandon, Ask, Configured, Gone, Holds, Over, Taken, Verdict
from fastscp.users.identities import UserIdentities
from fastscp.users.passwords import Entry, make_entry, parse, verify
from fastscp.worker import identities, requested, usercheck
from fastscp.worker.requests import DECIDING_MOST
from fastscp_ext import UserIdentity, UserInformation
from tests.books import configuration
from tests.kit import DEADLINE_S, abort, associate_rq, reject, split_pdus
from tests.unit.test_worker import Played, all_of, run

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["run"]


@pytest.fixture(autouse=True)
def _log_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other settings do not change the log of the tests."""
    monkeypatch.setattr(logs, "configure", lambda *_, **__: None)


USERS = UserIdentities("users", True, parse(make_entry("jo", b"sesame").encode())[0])


def logging_in(passcode: bytes) -> bytes:
    return associate_rq(
        calling="CT",
        user_information=UserInformation(
            max_pdu_length=16384, identity=UserIdentity(2, True, b"jo", passcode)
        ),
    )


def with_users(played: Played, users: UserIdentities = USERS) -> None:
    """Have the worker go by other settings, as a reload does."""
    one = configuration()
    config = dataclasses.replace(one.config, user_identity=users)
    fd = pack(Configuration(config, one.rules))
    played.main.send(Configured(one.rules.generation), fd)
    os.close(fd)


def test_main_is_asked_once_the_passcode_is_right(run: Callable[..., None]) -> None:
    """And told who it is; of a wrong one it never hears, except that it is gone."""

    async def test(played: Played) -> None:
        loop = asyncio.get_running_loop()
        with_users(played)
        await played.until(Holds)
        wrong, right = played.offer(1), played.offer(2)
        await loop.sock_sendall(wrong, logging_in(b"Sesame"))
        await loop.sock_sendall(right, logging_in(b"sesame"))
        heard = await played.until(Ask)
        terms = Terms(4, 4, 1, 16384, "", "jo")
        assert heard == [Taken(1), Taken(2), Ask(2, "CT", "FASTSCP", terms)]
        played.main.send(Verdict(2))
        assert (await loop.sock_recv(right, 4096))[0] == 2
        assert await all_of(wrong) == reject(1, 2, 1)
        wrong.close()
        assert await played.until(Gone) == [Over(1, "1,2,1"), Gone(1)]
        # From now on nobody has to, and then another one.
        with_users(played, UserIdentities())
        await played.until(Holds)
        anyone = played.offer(3)
        await loop.sock_sendall(anyone, logging_in(b"Sesame"))
        assert (await played.until(Ask))[-1].terms.user == ""
        with_users(
            played, UserIdentities("users", True, parse(make_entry("jo", b"new").encode())[0])
        )
        await played.until(Holds)
        late = played.offer(4)
        await loop.sock_sendall(late, logging_in(b"sesame"))
        assert await all_of(late) == reject(1, 2, 1)

    run(test)


@pytest.mark.parametrize("passcode", [b"sesame", b"wrong"])
def test_who_is_checked_is_no_association_yet(
    run: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    passcode: bytes,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It goes where there are too many, while it is looked at and while it is kept back."""
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(usercheck, "_FAILED_S", 1e9)
    go = threading.Event()

    def slow(entry: Entry | None, passcode: bytes) -> bool:
        assert go.wait(DEADLINE_S)
        return verify(entry, passcode)

    monkeypatch.setattr(identities, "verify", slow)

    async def test(played: Played) -> None:
        loop = asyncio.get_running_loop()
        with_users(played)
        await played.until(Holds)
        peers = [played.offer(1)]
        await loop.sock_sendall(peers[0], logging_in(passcode))
        one = await checked(played, 1)
        if passcode == b"wrong":
            go.set()
            await turns(lambda: one._deciding is None)
        # It holds no place of those that main decides.
        assert played.worker.requests._deciding == set()
        played.main.send(Abandon(1))
        assert await all_of(peers[0]) == reject(2, 3, 1)
        peers[0].close()
        assert await played.until(Gone) == [Taken(1), Over(1, "2,3,1"), Gone(1)]
        go.set()
        # Whoever comes next is looked at.
        await loop.sock_sendall(played.offer(2), logging_in(b"sesame"))
        assert (await played.until(Ask))[-1].number == 2

    run(test)
    assert "too many connections without an association" in caplog.text


def test_whoever_is_known_waits_for_nobody_who_is_checked(
    run: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """More associations than main may have to decide show what takes its time to check."""
    monkeypatch.setattr(usercheck, "_FAILED_S", 0.0)
    go = threading.Event()
    go.set()

    def slow(entry: Entry | None, passcode: bytes) -> bool:
        assert go.wait(DEADLINE_S)
        return verify(entry, passcode)

    monkeypatch.setattr(identities, "verify", slow)

    async def test(played: Played) -> None:
        loop = asyncio.get_running_loop()
        with_users(played)
        await played.until(Holds)
        await loop.sock_sendall(played.offer(1), logging_in(b"sesame"))
        assert (await played.until(Ask))[-1].number == 1
        go.clear()
        for number in range(2, 2 + DECIDING_MOST + 20):
            await loop.sock_sendall(played.offer(number), logging_in(b"guess %d" % (number % 4)))
            await played.until(Taken)
        await loop.sock_sendall(played.offer(200), logging_in(b"sesame"))
        assert (await played.until(Ask))[-1].number == 200
        go.set()

    run(test)


async def checked(played: Played, number: int) -> Any:
    """An association, once its user is being checked."""
    await turns(lambda: number in played.worker._associations)
    one = played.worker._associations[number]
    await turns(lambda: one.is_checked)
    return one


async def turns(until: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not until():  # noqa: ASYNC110 - turns of the loop
            await asyncio.sleep(0.001)


def test_a_check_that_takes_too_long(
    run: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The peer is told to come again; what comes of the check then matters to nobody."""
    monkeypatch.setattr(requested, "_DECISION_S", 0.0)
    go = threading.Event()
    monkeypatch.setattr(identities, "verify", lambda *_: go.wait(DEADLINE_S))

    async def test(played: Played) -> None:
        loop = asyncio.get_running_loop()
        with_users(played)
        await played.until(Holds)
        peer = played.offer(1)
        await loop.sock_sendall(peer, logging_in(b"sesame"))
        assert await all_of(peer) == reject(2, 3, 1)
        go.set()
        peer.close()
        assert await played.until(Gone) == [Taken(1), Over(1, "2,3,1"), Gone(1)]

    run(test)


def test_a_bug_behind_a_check_ends_that_one_alone(
    run: Callable[..., None], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("a bug")

    async def test(played: Played) -> None:
        loop = asyncio.get_running_loop()
        with_users(played)
        await played.until(Holds)
        peers = [played.offer(number) for number in (1, 2)]
        with monkeypatch.context() as patch:
            patch.setattr(requested, "confirmed", fails)
            await loop.sock_sendall(peers[0], logging_in(b"sesame"))
            assert list(split_pdus(await all_of(peers[0]))) == [abort(0, 0)]
        await loop.sock_sendall(peers[1], logging_in(b"sesame"))
        assert (await played.until(Ask))[-1].number == 2

    run(test)
    assert ": a bug ends it" in caplog.text
