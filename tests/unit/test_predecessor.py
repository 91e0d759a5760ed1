"""What a main process is handed by the one that it takes over from, or is told instead."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import TYPE_CHECKING

import pytest

from fastscp.errors import StartError
from fastscp.main.predecessor import Predecessor
from fastscp.main.successor import VARIABLE
from fastscp.messages.channel import Channel
from fastscp.messages.handover import (
    COMMON,
    HANDOVER_VERSION,
    LOCK,
    Counting,
    FromSuccessor,
    Go,
    Handover,
    Left,
    Passed,
)
from fastscp.messages.totals import Counted, Totals

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.usefixtures("no_descriptor_left")


class Old:
    """The end of the channel that the predecessor has."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.channel = Channel(ours, FromSuccessor)
        self.theirs = theirs
        self.spare = os.open(os.devnull, os.O_RDONLY)

    def hand_over(self, *names: str, version: int = HANDOVER_VERSION, passed: int = -1) -> None:
        count = len(names) if passed < 0 else passed
        self.channel.send(Handover(version=version, pid=7, run="r", passed=count))
        for name in names:
            self.channel.send(Passed(name), self.spare)

    def found(self) -> Predecessor | None:
        environ = {VARIABLE: str(self.theirs.detach()), "HOME": "/"}
        try:
            return Predecessor.found(environ)
        finally:
            assert environ == {"HOME": "/"}

    def close(self) -> None:
        self.channel.close()
        self.theirs.close()
        os.close(self.spare)


@pytest.fixture
def old() -> Iterator[Old]:
    one = Old()
    yield one
    one.close()


def test_what_is_passed_is_taken(old: Old) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        old.channel.send(Handover(version=HANDOVER_VERSION, pid=7, run="r", passed=3))
        old.channel.send(Passed("dicom"), listening.fileno())
        old.channel.send(Passed(LOCK), old.spare)
        old.channel.send(Passed(COMMON), old.spare)
        found = old.found()
        assert found is not None
        (one,) = found.sockets
        assert (one.name, one.sock.getsockname()) == ("dicom", listening.getsockname())
        for name in (LOCK, COMMON):
            fd = found.take(name)
            assert os.path.samestat(os.fstat(fd), os.fstat(old.spare))
            assert not os.get_inheritable(fd)
            os.close(fd)
        # And what nobody took goes.
        found.close()


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("gone", "is gone: it takes over from nobody"),
        ("cut", "is gone: it takes over from nobody"),
        ("version", "hands over in version 99, and this program knows version 1"),
        ("socket", "is no listening TCP|is no socket"),
        ("no lock", "passes no .*lock"),
        ("unknown", "says what fastscp here does not know"),
    ],
)
def test_what_cannot_be_taken_over_is_said(old: Old, what: str, said: str) -> None:
    match what:
        case "cut":
            old.hand_over(LOCK, passed=2)
        case "version":
            old.hand_over(LOCK, COMMON, version=99)
        case "socket":
            old.hand_over(LOCK, COMMON, "dicom")
        case "no lock":
            old.hand_over(COMMON)
        case "unknown":
            # As a later version may say it: a kind that is not known here.
            old.channel.send(Passed("x"))
            old.channel._sock.send(b"\x81\xa4type\xa3New")
    if what in ("gone", "cut"):
        old.channel.close()
    with pytest.raises(StartError, match=said if what != "unknown" else "takes over from nobody"):
        old.found()


@pytest.mark.parametrize("number", ["x", "9999", "0"])
def test_a_variable_that_leads_nowhere(number: str) -> None:
    with pytest.raises(StartError, match="leads to no main process"):
        Predecessor.found({VARIABLE: number})
    assert Predecessor.found({}) is None


@pytest.mark.parametrize("clean", [True, False])
def test_its_end_is_that_of_its_workers(old: Old, clean: bool) -> None:
    """It is over once the last of them is gone, and in order if it said so."""

    async def test() -> None:
        old.hand_over(LOCK, COMMON)
        found = old.found()
        assert found is not None
        worker = await asyncio.create_subprocess_exec("sleep", "1000")
        found.workers = {3: worker.pid}
        said: list[object] = []
        counted: list[Totals] = []
        found.watch(lambda: said.append("orphaned"), said.append, counted.append)
        went_ahead = found.prepared()
        first, last = Totals(accepted=1), Totals(accepted=2, by_ae={"CT": Counted(1, 2, 3, 4)})
        old.channel.send(Go(first))
        await went_ahead
        assert counted == [first]
        if clean:
            old.channel.send(Counting(last))
            old.channel.send(Left(clean=True, totals=last))
        old.channel.close()
        await found.named()
        assert not await found.left(0.05)
        assert said == []
        worker.kill()
        assert await found.left(60)
        await worker.wait()
        assert said == [clean], said
        assert counted == [first, *[last, last] * clean]
        found.close()

    asyncio.run(test())


def test_before_it_lets_go_on_its_end_is_ours(old: Old) -> None:
    async def test() -> None:
        old.hand_over(LOCK, COMMON)
        found = old.found()
        assert found is not None
        over = asyncio.Event()
        found.watch(over.set, lambda _clean: None, lambda _totals: None)
        old.channel.close()
        async with asyncio.timeout(60):
            await over.wait()
        found.close()

    asyncio.run(test())
