"""What operations of one association do to each other: slow files, broken-off messages, floods."""

from __future__ import annotations

import asyncio
import os
import ssl
import threading
from typing import TYPE_CHECKING, Any

import pytest

from fastscp.scu import (
    AssociationReleased,
    PeerTimeout,
    Timeouts,
    UnusableInstance,
    associate,
    opening,
    send_files,
)
from tests.interop.test_send import certificate_of
from tests.kit import CT, DEADLINE_S, ELE, data_set
from tests.scripted import Connection, Scp, accepting, part10, write_files

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path

CONTEXTS = [(CT, [ELE]), ("Verification", ["ImplicitVRLittleEndian"])]


class Hanging:
    """Looks at the head of a file: that of one path hangs until it is let go on."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.goes_on = threading.Event()
        self.look = opening.head_of_file

    def __call__(self, path: str) -> Any:
        if path == self.path:
            self.goes_on.wait(DEADLINE_S)
        return self.look(path)


def test_a_file_that_hangs_holds_up_itself_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one operation at a time as well: it takes no turn before it is open."""
    slow, *paths = write_files(tmp_path, 6)
    hanging = Hanging(slow)
    monkeypatch.setattr(opening, "head_of_file", hanging)

    async def work() -> None:
        async with associate(scp.host, scp.port, CONTEXTS) as association:
            assert association.window == 1
            first = asyncio.ensure_future(association.store(slow))
            others = [association.store(path) for path in paths]
            async with asyncio.timeout(DEADLINE_S / 2):
                await asyncio.gather(*others, association.echo())
            assert not first.done()
            hanging.goes_on.set()
            assert (await first).ok

    with Scp(accepting) as scp:
        asyncio.run(work())


def test_the_end_of_the_loop_does_not_wait_for_a_file_that_hangs(
    run: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (slow,) = write_files(tmp_path, 1)
    hanging = Hanging(slow)
    monkeypatch.setattr(opening, "head_of_file", hanging)

    async def work() -> None:
        async with associate(scp.host, scp.port, CONTEXTS) as association:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(association.store(slow), 0.05)
            assert association.failure is None

    with Scp(accepting) as scp:
        run(work())
        assert not hanging.goes_on.is_set()
        hanging.goes_on.set()


def test_a_file_that_shrinks_while_it_is_sent_is_told_of_alone(tmp_path: Path) -> None:
    shrinks, *others = write_files(tmp_path, 4, pixels=8_000_000)

    def cuts(connection: Connection) -> None:
        connection.accept(max_pdu=16384)
        connection.read_pdu()
        os.truncate(shrinks, 4_000_000)
        connection.until_closed()

    with Scp(cuts, receive_buffer=8192) as scp:
        sent = send_files(scp.host, scp.port, [shrinks, *others])
    mistakes = [one.error for one in sent]
    assert isinstance(mistakes[0], UnusableInstance)
    for error in mistakes[1:]:
        assert isinstance(error, AssociationReleased)
        assert error.transient
        assert str(error) == (
            "we aborted the association: an instance was broken off while it was being sent"
        )


@pytest.mark.parametrize("when", ["sending", "waiting"])
def test_a_cancelled_store_makes_no_other_instance_unusable(
    run: Callable[..., Any], when: str
) -> None:
    file = part10(data_set(pixels=8_000_000 if when == "sending" else 512))
    began = threading.Event()

    def silent(connection: Connection) -> None:
        connection.accept(window=4)
        connection.read_pdu()
        if when == "waiting":
            connection.read_pdu()
        began.set()
        connection.until_closed()

    async def work() -> None:
        async with associate(scp.host, scp.port, CONTEXTS, window=4) as association:
            stores = [asyncio.ensure_future(association.store(file)) for _ in range(3)]
            assert await asyncio.to_thread(began.wait, DEADLINE_S)
            stores[0].cancel()
            cancelled, *others = await asyncio.gather(*stores, return_exceptions=True)
            assert isinstance(cancelled, asyncio.CancelledError)
            for error in others:
                assert isinstance(error, AssociationReleased)
                assert not error.by_peer
                assert error.why
            with pytest.raises(AssociationReleased, match="we aborted the association"):
                await association.store(file)

    with Scp(silent, receive_buffer=8192) as scp:
        run(work())


class Jumping(asyncio.SelectorEventLoop):
    """A loop whose clock can be put on: what takes long for it takes no time."""

    ahead = 0.0

    def time(self) -> float:
        return super().time() + self.ahead


def run_jumping(work: Callable[[Jumping], Coroutine[Any, Any, None]]) -> None:
    with asyncio.Runner(loop_factory=Jumping) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, Jumping)
        runner.run(work(loop))


def test_a_peer_that_answers_one_after_the_other_has_its_time_anew() -> None:
    """As it has with `fastscp send`: the last of four comes after twice the limit."""
    limit = 60.0
    all_there, goes_on = threading.Event(), threading.Semaphore(0)

    def slow(connection: Connection) -> None:
        connection.accept(window=4)
        messages = [connection.read_message() for _ in range(4)]
        all_there.set()
        for one in messages:
            assert goes_on.acquire(timeout=DEADLINE_S)
            assert one is not None
            connection.respond(one)
        connection.serve()

    async def work(loop: Jumping) -> None:
        how: dict[str, Any] = {"window": 4, "timeouts": Timeouts(response=limit)}
        async with associate(scp.host, scp.port, CONTEXTS, **how) as association:
            file = part10(data_set())
            stores = {asyncio.ensure_future(association.store(file)) for _ in range(4)}
            assert await asyncio.to_thread(all_there.wait, DEADLINE_S)
            for _ in range(4):
                loop.ahead += limit / 2
                goes_on.release()
                (done,), stores = await asyncio.wait(
                    stores, return_when=asyncio.FIRST_COMPLETED
                )  # fmt: skip
                assert done.result().ok

    with Scp(slow) as scp:
        run_jumping(work)


def test_a_peer_that_falls_silent_has_no_more_than_its_time() -> None:
    limit = 60.0

    def one_only(connection: Connection) -> None:
        connection.accept(window=2)
        first = connection.read_message()
        connection.read_message()
        assert first is not None
        connection.respond(first)
        connection.until_closed()

    async def work(loop: Jumping) -> None:
        how: dict[str, Any] = {"window": 2, "timeouts": Timeouts(response=limit)}
        async with associate(scp.host, scp.port, CONTEXTS, **how) as association:
            file = part10(data_set())
            stores = {asyncio.ensure_future(association.store(file)) for _ in range(2)}
            (answered,), (silent,) = await asyncio.wait(
                stores, return_when=asyncio.FIRST_COMPLETED
            )  # fmt: skip
            assert answered.result().ok
            loop.ahead += limit
            with pytest.raises(PeerTimeout):
                await silent

    with Scp(one_only) as scp:
        run_jumping(work)


def test_what_a_borrower_does_not_read_stays_with_the_peer(
    run: Callable[..., Any], tmp_path: Path
) -> None:
    """Over TLS, where the loop carries it over: memory does not grow with what the peer sends."""
    key, certificate = certificate_of(tmp_path)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate, key)
    client = ssl.create_default_context(cafile=certificate)
    most = 64 << 20
    lent, stopped = threading.Event(), threading.Event()

    def floods(connection: Connection) -> int:
        connection.accept()
        lent.wait(DEADLINE_S)
        connection.socket.settimeout(0.5)
        sent = 0
        try:
            while sent < most:
                sent += connection.socket.send(bytes(65536))
        except TimeoutError:
            pass
        finally:
            stopped.set()
        return sent

    async def work() -> None:
        async with associate("localhost", scp.port, CONTEXTS, tls=client) as association:
            async with association.link.lend():
                lent.set()
                assert await asyncio.to_thread(stopped.wait, DEADLINE_S)
            # What is on its way is read again, and is no PDU.
            await asyncio.wait_for(association.link.ended.wait(), DEADLINE_S)

    with Scp(floods, tls=server) as scp:
        run(work())
    assert scp.results[0] < most / 2
