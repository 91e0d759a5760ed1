"""A worker that is told of other settings and rules while it has associations."""

from __future__ import annotations

import asyncio
import os
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from fastscp import log as logs
from fastscp.config.settings import ServeConfig
from fastscp.config.tables import AeTable, Tables
from fastscp.config.values import read_allow_rule
from fastscp.messages.configuration import Configuration, pack
from fastscp.messages.worker import Ask, Configured, Gone, Holds, Relayed, Taken, Verdict
from fastscp.worker import taking
from fastscp.worker.rules import Going
from fastscp_ext import decode_associate_ac, decode_command, decode_pdata, status
from tests.books import configuration
from tests.kit import associate_rq, echo, reject, store
from tests.streams.proxied import line
from tests.unit.test_worker import CLIENT, TERMS, Played, all_of, run

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["run"]

CONFIG = ServeConfig(workers=1)


def tell(played: Played, told: Configuration) -> None:
    fd = pack(told)
    played.main.send(Configured(told.rules.generation), fd)
    os.close(fd)


async def asks(played: Played, number: int, calling: str) -> Any:
    """An association asked for; returns the peer's end."""
    peer = played.offer(number)
    await asyncio.get_running_loop().sock_sendall(peer, associate_rq(calling=calling))
    return peer


def status_of(response: bytes) -> int | None:
    ((_context, _header, command),) = decode_pdata(response)
    return decode_command(command).status


@pytest.fixture(autouse=True)
def levels(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The log levels that a worker sets; the log of the tests stays as it is."""
    found: list[str] = []
    monkeypatch.setattr(logs, "configure", lambda _role, level, *_, **__: found.append(level))
    return found


def test_new_rules_are_for_new_associations(run: Callable[..., None], levels: list[str]) -> None:
    new = replace(
        CONFIG, max_pdu_length=8192, message_timeout=1.0, allow=(read_allow_rule("NEW@*"),),
        max_instance_size=10, log_level="error",
        tables=Tables((AeTable("FASTSCP", {"digest": "sha256"}),)),
    )  # fmt: skip

    async def test(played: Played) -> None:
        loop = asyncio.get_running_loop()
        old = await played.associated(1)
        # This one has asked by the old rules when the new ones come.
        between = await asks(played, 2, "CT")
        assert await played.until(Ask) == [Taken(2), Ask(2, "CT", "FASTSCP", TERMS)]
        before = len(os.listdir("/proc/self/fd"))
        tell(played, configuration(new, generation=5))
        assert await played.until(Holds) == [Holds(5)]
        assert len(os.listdir("/proc/self/fd")) == before
        played.main.send(Verdict(2))
        assert decode_associate_ac(await loop.sock_recv(between, 4096))
        for peer in (old, between):
            await loop.sock_sendall(peer, store())
            # Larger than the new rules allow.
            assert status_of(await loop.sock_recv(peer, 4096)) == status.SUCCESS
        refused = await asks(played, 3, "CT")
        assert await all_of(refused) == reject(1, 1, 3)
        assert Ask not in map(type, played.heard)
        await asks(played, 4, "NEW")
        *_others, asked = await played.until(Ask)
        assert asked == Ask(4, "NEW", "FASTSCP", TERMS, 5, "ae.FASTSCP", "")
        assert played.worker.going.tick_s == pytest.approx(0.25)
        assert levels == ["error"]

    run(test)


def test_who_is_believed_as_a_proxy(run: Callable[..., None]) -> None:
    """A header that is on its way is read though nobody is believed any more."""
    header = line("192.0.2.7", 4711)

    async def test(played: Played) -> None:
        loop = asyncio.get_running_loop()
        tell(played, configuration(replace(CONFIG, proxy_protocol_from=(f"{CLIENT}/32",)), 5))
        assert await played.until(Holds) == [Holds(5)]
        peers = {number: played.offer(number) for number in (1, 2)}
        await loop.sock_sendall(peers[1], header + associate_rq(calling="CT"))
        await loop.sock_sendall(peers[2], header[:9])
        heard = await played.until(Ask)
        assert [one for one in heard if not isinstance(one, Taken)] == [
            Relayed(1, "192.0.2.7", 4711), Ask(1, "CT", "FASTSCP", TERMS, 5),
        ]  # fmt: skip
        tell(played, configuration(CONFIG, 6))
        assert (await played.until(Holds))[-1] == Holds(6)
        await loop.sock_sendall(peers[2], header[9:] + associate_rq(calling="CT"))
        assert await played.until(Ask) == [
            Relayed(2, "192.0.2.7", 4711), Ask(2, "CT", "FASTSCP", TERMS, 6),
        ]  # fmt: skip
        await asks(played, 3, "CT")
        assert await played.until(Ask) == [Taken(3), Ask(3, "CT", "FASTSCP", TERMS, 6)]
        for number in (1, 2, 3):
            played.main.send(Verdict(number, 2, 3, 1, "no"))

    run(test)


def test_rules_that_it_cannot_get_change_nothing(
    run: Callable[..., None], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Main is told which ones it has, and may try again."""
    told = configuration(CONFIG, generation=5)

    async def test(played: Played) -> None:
        # The system had no descriptor left for this process.
        played.main.send(Configured(5))
        assert await played.until(Holds) == [Holds(0)]
        assert "cannot take the new configuration yet (Too many open files)" in caplog.text
        with monkeypatch.context() as patch:
            patch.setattr(taking, "unpack", no_memory)
            before = len(os.listdir("/proc/self/fd"))
            tell(played, told)
            assert await played.until(Holds) == [Holds(0)]
            assert len(os.listdir("/proc/self/fd")) == before
        peer = await played.associated(1)
        tell(played, told)
        assert await played.until(Holds) == [Holds(5)]
        peer.close()
        await played.until(Gone)

    run(test)


def test_associations_go_on_while_a_configuration_is_made(
    run: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenSSL reads long revocation lists for a second. Later ones wait, and come in order."""
    go_on = threading.Event()
    made: list[int] = []

    def slow(told: Configuration) -> Going:
        made.append(told.rules.generation)
        assert go_on.wait(60)
        return Going(told)

    monkeypatch.setattr(taking, "Going", slow)

    async def test(played: Played) -> None:
        loop = asyncio.get_running_loop()
        peer = await played.associated(1)
        try:
            for generation in (4, 4, 5):
                tell(played, configuration(CONFIG, generation=generation))
            await loop.sock_sendall(peer, echo(1))
            assert status_of(await asyncio.wait_for(loop.sock_recv(peer, 4096), 60)) == 0
            assert played.worker.going.book.generation == 0
            assert not [one for one in played.heard if isinstance(one, Holds)]
        finally:
            go_on.set()
        assert await played.until(Holds, 2) == [Holds(4), Holds(5)]
        assert made == [4, 5]
        peer.close()
        await played.until(Gone)

    run(test)


def no_memory(_fd: int) -> Configuration:
    raise OSError(12, "Cannot allocate memory")
