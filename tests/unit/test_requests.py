"""How many A-ASSOCIATE-RQs a worker decodes in one pass of its loop, and has decided at a time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from fastscp.worker.requests import DECIDING_MOST, PASS_BYTES, Requests

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any


class Asking:
    """An association whose request main has to decide."""

    def __init__(self, requests: Requests, number: int, *, bug: bool = False) -> None:
        self.requests, self.number, self.bug = requests, number, bug
        self.kept: bytes | None = None
        self.begun = self.is_asked = False
        self.failures: list[Exception] = []

    def send(self, size: int) -> None:
        self.requests.add(self, bytes(size))

    def keep_request(self, pdu: bytes) -> None:
        self.kept = pdu

    def take_request(self) -> bytes | None:
        pdu, self.kept = self.kept, None
        return pdu

    def request_begins(self, pdu: bytes) -> None:
        self.begun = True
        if self.bug:
            raise RuntimeError("a bug")
        self.requests.asked(self.number)

    def ask_main(self) -> None:
        if self.bug:
            raise RuntimeError("a bug")
        self.requests.asked(self.number)
        self.is_asked = True

    def failed(self, error: Exception) -> None:
        self.failures.append(error)


def in_loop(test: Callable[[Requests], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        await test(Requests())

    asyncio.run(run())


def begun(ones: list[Asking]) -> int:
    return sum(one.begun for one in ones)


def test_large_ones_are_decoded_one_in_a_pass() -> None:
    async def test(requests: Requests) -> None:
        ones = [Asking(requests, number) for number in range(20)]
        for one in ones:
            one.send(900_000)
        for passes in range(1, 21):
            assert begun(ones) == passes
            assert [one.begun for one in ones[:passes]] == [True] * passes
            assert sum(one.kept is not None for one in ones) == 20 - passes
            await asyncio.sleep(0)

    in_loop(test)


def test_ordinary_ones_wait_for_nobody() -> None:
    async def test(requests: Requests) -> None:
        ones = [Asking(requests, number) for number in range(100)]
        for one in ones:
            one.send(600)
        assert begun(ones) == 100
        # Until a pass has taken its share.
        more = [Asking(requests, number) for number in range(100, 120)]
        for one in more:
            one.send(PASS_BYTES // 4)
        assert begun(more) == 1
        await asyncio.sleep(0)
        assert begun(more) == 5

    in_loop(test)


def test_main_has_so_many_to_decide() -> None:
    async def test(requests: Requests) -> None:
        ones = [Asking(requests, number) for number in range(DECIDING_MOST + 10)]
        for one in ones:
            one.send(300)
        for _ in range(5):
            await asyncio.sleep(0)
        assert begun(ones) == DECIDING_MOST
        requests.decided(3)
        # Told twice, as where one has ended whom main answers after that.
        requests.decided(3)
        requests.decided(7)
        await asyncio.sleep(0)
        assert begun(ones) == DECIDING_MOST + 2
        assert [one.begun for one in ones[:-8]] == [True] * (DECIDING_MOST + 2)

    in_loop(test)


def test_one_that_has_ended_takes_nobodys_turn() -> None:
    async def test(requests: Requests) -> None:
        ones = [Asking(requests, number) for number in range(4)]
        for one in ones:
            one.send(900_000)
        ones[1].kept = None
        await asyncio.sleep(0)
        assert [one.begun for one in ones] == [True, False, True, False]

    in_loop(test)


def test_a_bug_in_one_leaves_the_others_their_turn() -> None:
    async def test(requests: Requests) -> None:
        ones = [Asking(requests, number, bug=number == 1) for number in range(4)]
        for one in ones:
            one.send(900_000)
        for _ in range(3):
            await asyncio.sleep(0)
        assert begun(ones) == 4
        assert [str(error) for error in ones[1].failures] == ["a bug"]

    in_loop(test)


def test_whose_user_is_right_goes_to_main_before_what_is_not_decoded() -> None:
    """And no sooner than there is room, however many were right at a time."""

    async def test(requests: Requests) -> None:
        right = [Asking(requests, number, bug=number == 1) for number in range(DECIDING_MOST)]
        for one in right[:2]:
            if one.bug:
                with pytest.raises(RuntimeError):
                    requests.let_ask(one)
            else:
                requests.let_ask(one)
        others = [Asking(requests, number) for number in range(1000, 1000 + DECIDING_MOST)]
        for one in others:
            one.send(300)
        assert begun(others) == DECIDING_MOST - 1
        right[3].bug = True
        for one in right[2:]:
            requests.let_ask(one)
        await asyncio.sleep(0)
        assert sum(one.is_asked for one in right) == 1
        for number in range(1000, 1010):
            requests.decided(number)
        await asyncio.sleep(0)
        assert len(requests._deciding) == DECIDING_MOST
        # The one with a bug took no place.
        assert [one.number for one in right if one.is_asked] == [0, 2, *range(4, 13)]
        assert [str(error) for error in right[3].failures] == ["a bug"]
        assert begun(others) == DECIDING_MOST - 1
        for number in (*range(1010, 1000 + DECIDING_MOST), *range(DECIDING_MOST)):
            requests.decided(number)
        await asyncio.sleep(0)
        assert sum(one.is_asked for one in right) == DECIDING_MOST - 2
        assert begun(others) == DECIDING_MOST

    in_loop(test)
