"""Connections of a worker before an association has them; the test plays main and the proxies."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import struct
from typing import TYPE_CHECKING, Any

import pytest

from fastscp.config.settings import ServeConfig
from fastscp.log import TRACE
from fastscp.messages.worker import Abandon, Ask, Drain, End, Gone, Relayed, Stop, Taken, Verdict
from fastscp.rules.networks import Networks
from fastscp.worker.connection import _text
from fastscp.worker.rules import Going
from tests.books import configuration
from tests.kit import associate_rq, reject
from tests.streams.proxied import BROKEN, LOCAL, SOUND, line
from tests.unit.test_worker import TERMS, Played, all_of, run

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["run"]

PROXY = "10.0.0.5"
HEADER = line("192.0.2.7", 4711)
REJECTED = Verdict(1, 2, 3, 1, "no")


def trusting(played: Played, **settings: Any) -> None:
    """Have the worker go by settings in which the proxy is one."""
    config = ServeConfig(workers=1, proxy_protocol_from=(f"{PROXY}/32",), **settings)
    played.worker.going = Going(configuration(config))


async def read_by(played: Played, number: int, size: int) -> None:
    """Wait until the worker has taken so many bytes of a header."""
    while played.worker._headers._waiting[number].header.least > 15 - size:  # noqa: ASYNC110
        await asyncio.sleep(0.001)


@pytest.mark.parametrize("name", SOUND)
@pytest.mark.parametrize("step", [1, 5000])
def test_whose_it_is(run: Callable[..., None], name: str, step: int) -> None:
    """Main is told before it is asked, and no byte behind the header is lost."""
    header, told = SOUND[name]
    host, port = told.source or (PROXY, 104)

    async def test(played: Played) -> None:
        trusting(played)
        loop = asyncio.get_running_loop()
        peer = played.offer(1, host=PROXY)
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(0, len(header), step):
            await loop.sock_sendall(peer, header[at : at + step])
            if step == 1:
                # It has taken this one before the next comes.
                await asyncio.sleep(0)
        await loop.sock_sendall(peer, associate_rq(calling="CT"))
        assert await played.until(Ask) == [
            Taken(1), Relayed(1, host, port), Ask(1, "CT", "FASTSCP", TERMS),
        ]  # fmt: skip
        association = played.worker._associations[1]
        assert (association.host, association.peer.rpartition(":")[2]) == (host, str(port))
        facts = (f"subject={told.common_name.decode()}",) if told.common_name else ()
        assert association._origin.certificate == facts
        played.main.send(REJECTED)
        assert await all_of(peer) == reject(2, 3, 1)

    run(test)


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_header(
    run: Callable[..., None], caplog: pytest.LogCaptureFixture, name: str
) -> None:
    data, why = BROKEN[name]

    async def test(played: Played) -> None:
        trusting(played)
        peer = played.offer(1, host=PROXY)
        await asyncio.get_running_loop().sock_sendall(peer, data)
        assert await all_of(peer) == b""
        assert await played.until(Gone) == [Taken(1), Gone(1)]
        assert not played.worker._headers

    run(test)
    (record,) = [one for one in caplog.records if "header" in one.getMessage()]
    assert record.levelno == logging.WARNING
    kind, _, reason = record.getMessage().removeprefix("run.1 10.0.0.5:104: ").partition(": ")
    assert kind == ("no PROXY header" if why == "no PROXY header" else "PROXY header refused")
    assert why == kind or why in reason
    assert record.caused.kind == kind  # type: ignore[attr-defined]
    if name == "request":
        assert "send-proxy" in reason
    if name == "tls":
        assert reason == "a TLS client on the plain port"
    if name == "other_word":
        assert reason == "an HTTP client"
    if name == "other_signature":
        assert reason == "its first byte is 0D"


@pytest.mark.parametrize(
    ("sent", "reset", "level"),
    [
        (b"", False, TRACE),
        (b"", True, TRACE),
        (LOCAL, False, TRACE),
        (LOCAL, True, TRACE),
        (HEADER, False, TRACE),
        (LOCAL[:9], False, logging.INFO),
    ],
)
def test_a_probe_makes_no_noise(
    run: Callable[..., None],
    caplog: pytest.LogCaptureFixture,
    sent: bytes,
    reset: bool,
    level: int,
) -> None:
    caplog.set_level(TRACE)

    async def test(played: Played) -> None:
        trusting(played)
        peer = played.offer(1, host=PROXY)
        if sent:
            await asyncio.get_running_loop().sock_sendall(peer, sent)
        if reset:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()
        heard = await played.until(Gone)
        assert (heard[0], heard[-1]) == (Taken(1), Gone(1))

    run(test)
    told = [record for record in caplog.records if "run.1 " in record.getMessage()]
    assert max(record.levelno for record in told) == level


def test_others_need_none_and_are_not_believed(
    run: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    async def test(played: Played) -> None:
        trusting(played)
        loop = asyncio.get_running_loop()
        peer = played.offer(1, host="10.0.0.6")
        await loop.sock_sendall(peer, associate_rq(calling="CT"))
        assert await played.until(Ask) == [Taken(1), Ask(1, "CT", "FASTSCP", TERMS)]
        played.main.send(REJECTED)
        for number, header in ((2, HEADER), (3, LOCAL)):
            peer = played.offer(number, host="10.0.0.6")
            await loop.sock_sendall(peer, header + associate_rq())
            assert (await all_of(peer))[:1] == b"\x07"
        # Nor is a second header, which might come from whoever is behind the proxy.
        peer = played.offer(4, host=PROXY)
        await loop.sock_sendall(peer, HEADER + line("127.0.0.1", 1) + associate_rq())
        assert (await all_of(peer))[:1] == b"\x07"

    run(test)
    told = [one.getMessage() for one in caplog.records if "expects none" in one.getMessage()]
    assert [one.split(": ")[0] for one in told] == [
        "run.2 10.0.0.6:104", "run.3 10.0.0.6:104", "run.4 192.0.2.7:4711",
    ]  # fmt: skip


@pytest.mark.parametrize("order", [Abandon(1), End(1, "by the operator")], ids=lambda one: str(one))
def test_it_can_be_ended(
    run: Callable[..., None], caplog: pytest.LogCaptureFixture, order: Abandon | End
) -> None:
    caplog.set_level(logging.INFO)

    async def test(played: Played) -> None:
        trusting(played)
        before = len(os.listdir("/proc/self/fd"))
        peer = played.offer(1, host=PROXY)
        await asyncio.get_running_loop().sock_sendall(peer, HEADER[:9])
        assert await played.until(Taken) == [Taken(1)]
        await read_by(played, 1, 9)
        played.main.send(order)
        played.main.send(order)
        assert await all_of(peer) == b""
        assert await played.until(Gone) == [Gone(1)]
        assert len(os.listdir("/proc/self/fd")) == before + 1

    run(test)
    why = order.why if isinstance(order, End) else "too many connections without an association"
    assert f"run.1 10.0.0.5:104: {why}" in caplog.text


@pytest.mark.parametrize("order", [Drain(0.0), Drain(60.0), Stop()], ids=lambda one: str(one))
def test_a_worker_that_ends_waits_for_no_header(
    run: Callable[..., None], order: Drain | Stop
) -> None:
    """While the drain time lasts it does, and rejects whoever comes by then."""

    async def test(played: Played) -> None:
        trusting(played)
        loop = asyncio.get_running_loop()
        peer = played.offer(1, host=PROXY)
        await loop.sock_sendall(peer, HEADER[:9])
        assert await played.until(Taken) == [Taken(1)]
        await read_by(played, 1, 9)
        played.main.send(order)
        if order == Drain(60.0):
            await loop.sock_sendall(peer, HEADER[9:] + associate_rq())
            await played.until(Ask)
            played.main.send(REJECTED)
            assert await all_of(peer) == reject(2, 3, 1)
        else:
            assert await all_of(peer) == b""

    run(test)


def test_a_header_takes_of_the_time_for_the_request(
    run: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    async def test(played: Played) -> None:
        trusting(played, artim_timeout=0.2)
        played.worker.going.tick_s = 0.01
        loop = asyncio.get_running_loop()
        late = played.offer(1, host=PROXY)
        await loop.sock_sendall(late, HEADER[:-1])
        whole = played.offer(2, host=PROXY)
        await loop.sock_sendall(whole, HEADER)
        assert await all_of(late) == await all_of(whole) == b""
        await played.until(Gone, 2)

    run(test)
    assert "run.1 10.0.0.5:104: no complete PROXY header in time" in caplog.text
    assert "run.2 192.0.2.7:4711: no complete A-ASSOCIATE-RQ in time" in caplog.text


def test_what_no_rule_can_name() -> None:
    """A certificate may hold anything; a NUL would be the end of a part of the index's key."""
    assert _text("Gäte 1".encode()) == "Gäte 1"
    for name in (None, b"", b"\xff", b"A\0B", b"A\nB", "A\u202eB".encode()):
        assert _text(name) == ""


def test_networks() -> None:
    networks = Networks(("10.1.0.0/16", "10.2.3.4/32", "2001:db8::/32", "::1/128"))
    inside = ("10.1.255.1", "10.2.3.4", "2001:db8::7", "::1", "::ffff:10.1.0.1")
    assert [one for one in inside if one not in networks] == []
    outside = ("10.2.3.5", "11.1.0.0", "2001:db9::", "::2", "::ffff:10.3.0.1", "", "host")
    assert [one for one in outside if one in networks] == []
    assert "10.0.0.1" not in Networks(())
    assert "10.0.0.1" in Networks(("0.0.0.0/0",))
