"""Handshakes of a worker, before associations have them; the test plays main and the peers."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import socket
import ssl
import struct
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from cryptography import x509
from cryptography.x509.oid import ExtensionOID

from fastscp.config.settings import ServeConfig
from fastscp.config.values import read_allow_rule
from fastscp.log import TRACE
from fastscp.messages.worker import (
    Abandon,
    Ask,
    End,
    Gone,
    Relayed,
    Stop,
    Taken,
    Unshaken,
    Verdict,
)
from fastscp.tls.reading import Files, read
from fastscp.worker import rounds
from fastscp.worker.rules import Going
from fastscp.worker.strangers import before_a_handshake
from fastscp_ext import Secured, encode_release_rp
from tests.books import configuration
from tests.kit import RELEASE_RQ, associate_rq, echo, reject, split_pdus
from tests.streams.proxied import line
from tests.unit.test_connection import PROXY, trusting
from tests.unit.test_worker import CLIENT, TERMS, Played, all_of, run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.certificates import Certificates, Signed

__all__ = ["run"]

REJECTED = Verdict(1, 2, 3, 1, "no")


def secure(
    played: Played, certificates: Certificates, *, crl: Path | None = None, **settings: Any
) -> None:
    """Have the worker go by a configuration with certificates, in which clients show theirs."""
    files = Files(
        str(certificates.server.both), "8996", ca=(str(certificates.ca.cert),),
        client_auth="require", crl=(str(crl),) if crl else (),
    )  # fmt: skip
    told = msgspec.structs.replace(configuration(), tls=read(files))
    if settings:
        trusting(played, **settings)
        told = msgspec.structs.replace(told, config=played.worker.going.config)
    played.worker.going = Going(told)


def shaken(
    peer: socket.socket, certificates: Certificates, shown: Signed | None = None
) -> ssl.SSLSocket:
    peer.setblocking(True)
    peer.settimeout(60)
    context = certificates.client_context(shown or certificates.client)
    return context.wrap_socket(peer, server_hostname="localhost")


def told(caplog: pytest.LogCaptureFixture, level: int = logging.INFO) -> list[str]:
    return [
        one.getMessage()
        for one in caplog.records
        if "run.1 " in one.getMessage() and one.levelno >= level
    ]


def test_from_the_handshake_to_the_end(
    run: Callable[..., None], certificates: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)

    def talk(sock: socket.socket) -> bytes:
        with shaken(sock, certificates) as peer:
            peer.sendall(associate_rq(calling="CT"))
            got = peer.recv(4096)
            peer.sendall(echo() + RELEASE_RQ)
            while data := peer.recv(4096):
                got += data
        return got

    async def test(played: Played) -> None:
        secure(played, certificates)
        peer = played.offer(1, tls=True)
        talking = asyncio.create_task(asyncio.to_thread(talk, peer))
        (_taken, ask) = await played.until(Ask)
        assert ask.calling_ae == "CT"
        assert msgspec.structs.replace(ask.terms, tls="", certificate="") == TERMS
        assert ask.terms.tls.startswith("TLSv1.3 TLS_")
        assert "CN=GATE-1" in ask.terms.certificate
        facts = played.worker._associations[1]._origin.certificate
        assert {"subject=GATE-1", "san=10.1.2.3"} < set(facts)
        played.main.send(Verdict(1))
        got = list(split_pdus(await talking))
        assert [one[0] for one in got] == [2, 4, 6]
        assert got[-1] == encode_release_rp()
        # 1: released.
        assert (await played.until(Gone))[-1] == Gone(1, ended=1)
        assert not played.worker._handshakes

    run(test)
    (line_,) = [one for one in told(caplog, logging.DEBUG) if "certificate of" in one]
    assert "TLSv1.3 TLS_" in line_
    said: list[dict[str, Any]] = [getattr(one, "fields", {}) for one in caplog.records]
    (ended,) = [one for one in said if "ended" in one]
    assert ended["ended"] == "released"
    assert ended["tls"].startswith("TLSv1.3")
    assert "CN=GATE-1" in ended["certificate"]


@pytest.mark.parametrize(
    ("shown", "words", "reason"),
    [
        ("unknown", "signed by nobody", "unknown_ca"),
        ("expired", "expired", "expired"),
        ("not_yet", "not valid yet", "not_yet_valid"),
        ("revoked", "revoked", "revoked"),
        ("for_servers", "another purpose", "wrong_purpose"),
        ("", "no client certificate", "no_certificate"),
    ],
)
def test_whom_we_do_not_let_in(
    run: Callable[..., None],
    certificates: Certificates,
    caplog: pytest.LogCaptureFixture,
    shown: str,
    words: str,
    reason: str,
) -> None:
    """Each is refused inside the handshake, hears an alert, and the log says which it is."""

    def talk(sock: socket.socket) -> str:
        sock.setblocking(True)
        context = certificates.client_context(getattr(certificates, shown) if shown else None)
        with context.wrap_socket(sock, server_hostname="localhost") as peer:
            try:
                peer.sendall(associate_rq())
                peer.recv(4096)
            except ssl.SSLError as error:
                return str(error.reason)
        return ""

    async def test(played: Played) -> None:
        secure(played, certificates, crl=certificates.crl)
        peer = played.offer(1, tls=True)
        alert = await asyncio.to_thread(talk, peer)
        assert "ALERT" in alert
        assert await played.until(Gone) == [Taken(1), Unshaken(1, reason), Gone(1)]
        # Nothing of it is kept until a time is over.
        await asyncio.sleep(0)
        gc.collect()
        assert not [one for one in gc.get_objects() if isinstance(one, Secured)]

    run(test)
    (line_,) = told(caplog)
    assert words in line_
    assert caplog.records[-1].levelno == logging.WARNING


def test_a_certificate_that_cannot_be_read(
    run: Callable[..., None], certificates: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    """Its CA has signed a name that is no UTF-8."""
    odd = x509.UnrecognizedExtension(
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME, b"\x30\x07\x82\x05gat\xe9\xff"
    )
    shown = certificates.signed("ODD", extension=odd)

    def talk(sock: socket.socket) -> bytes:
        sock.setblocking(True)
        context = certificates.client_context(shown)
        with context.wrap_socket(sock, server_hostname="localhost") as peer:
            return peer.recv(4096)

    async def test(played: Played) -> None:
        secure(played, certificates)
        assert await asyncio.to_thread(talk, played.offer(1, tls=True)) == b""
        assert await played.until(Gone) == [Taken(1), Unshaken(1, "untrusted"), Gone(1)]

    run(test)
    (line_,) = told(caplog)
    assert "a name or a time in it cannot be read" in line_
    assert "bug" not in line_


def test_what_breaks_an_association_is_no_handshake(
    run: Callable[..., None], certificates: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)

    def talk(sock: socket.socket) -> None:
        sock.setblocking(True)
        context = certificates.client_context(certificates.client)
        with context.wrap_socket(sock, server_hostname="localhost") as peer:
            peer.sendall(associate_rq())
            assert peer.recv(4096)[:1] == b"\2"
            with socket.socket(fileno=os.dup(peer.fileno())) as below:
                below.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))
            with pytest.raises(ssl.SSLError, match="ALERT"):
                peer.recv(4096)

    async def test(played: Played) -> None:
        secure(played, certificates)
        peer = played.offer(1, tls=True)
        talking = asyncio.create_task(asyncio.to_thread(talk, peer))
        await played.until(Ask)
        played.main.send(Verdict(1))
        await talking
        await played.until(Gone)

    run(test)
    (line_,) = [one for one in told(caplog) if "changed on its way" in one]
    assert "TLS broken off" in line_
    assert "handshake" not in line_


@pytest.mark.parametrize(
    ("sent", "words", "level", "reason"),
    [
        (associate_rq(), "plain on the TLS port", logging.WARNING, "no_record"),
        (b"GET / HTTP/1.1\r\n\r\n", "an HTTP client", logging.WARNING, "no_record"),
        (b"\x0bMSH|", "an HL7 client", logging.WARNING, "no_record"),
        (b"\x99", "its first byte is 99", logging.WARNING, "no_record"),
        (b"\x16\x03\x01\x00", "closed inside the TLS handshake", logging.INFO, "closed"),
        (b"\x16\x03\x01\x00\x05hello", "TLS", logging.WARNING, "no_record"),
        (b"", "closed before a TLS handshake", TRACE, ""),
    ],
)
def test_who_does_not_shake_hands(
    run: Callable[..., None],
    certificates: Certificates,
    caplog: pytest.LogCaptureFixture,
    sent: bytes,
    words: str,
    level: int,
    reason: str,
) -> None:
    caplog.set_level(TRACE)

    async def test(played: Played) -> None:
        secure(played, certificates)
        peer = played.offer(1, tls=True)
        if sent:
            await asyncio.get_running_loop().sock_sendall(peer, sent)
        peer.shutdown(socket.SHUT_WR)
        await all_of(peer)
        counted = [Unshaken(1, reason)] if reason else []
        assert await played.until(Gone) == [Taken(1), *counted, Gone(1)]

    run(test)
    (line_,) = told(caplog, TRACE)
    assert words in line_
    assert [one.levelno for one in caplog.records if words in one.getMessage()] == [level]


@pytest.mark.parametrize("how", ["abandon", "end", "artim", "stop"])
def test_a_handshake_that_stalls_is_ended(
    run: Callable[..., None],
    certificates: Certificates,
    caplog: pytest.LogCaptureFixture,
    how: str,
) -> None:
    caplog.set_level(logging.INFO)

    async def test(played: Played) -> None:
        secure(played, certificates, artim_timeout=1000.0)
        peer = played.offer(1, tls=True)
        await asyncio.get_running_loop().sock_sendall(peer, b"\x16\x03\x01")
        await played.until(Taken)
        assert len(played.worker._handshakes) == 1
        if how == "abandon":
            played.main.send(Abandon(1))
        elif how == "end":
            played.main.send(End(1, "told to"))
        elif how == "stop":
            played.main.send(Stop())
        else:
            played.worker._handshakes.tick(1e18, 1.0)
        assert await all_of(peer) == b""
        reason = "not_in_time" if how == "artim" else "ended_here"
        assert (await played.until(Gone))[-2:] == [Unshaken(1, reason), Gone(1)]

    run(test)
    (line_,) = told(caplog)
    assert {
        "abandon": "too many connections",
        "end": "told to",
        "artim": "in time",
        "stop": "shutting down",
    }[how] in line_


def test_behind_a_proxy(run: Callable[..., None], certificates: Certificates) -> None:
    """The PROXY header first, then the handshake, then whose it is."""

    def talk(sock: socket.socket) -> bytes:
        sock.setblocking(True)
        sock.sendall(line("192.0.2.7", 4711))
        with shaken(sock, certificates) as peer:
            peer.sendall(associate_rq(calling="CT"))
            return peer.recv(4096)

    async def test(played: Played) -> None:
        secure(played, certificates, artim_timeout=1000.0)
        peer = played.offer(1, host=PROXY, tls=True)
        talking = asyncio.create_task(asyncio.to_thread(talk, peer))
        heard = await played.until(Ask)
        assert heard[:2] == [Taken(1), Relayed(1, "192.0.2.7", 4711)]
        one = played.worker._associations[1]
        assert one.host == "192.0.2.7"
        assert "subject=GATE-1" in one._origin.certificate
        played.main.send(REJECTED)
        assert await talking == reject(2, 3, 1)

    run(test)


def test_a_peer_that_is_gone_when_we_answer(
    run: Callable[..., None], certificates: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    """A ClientHello and RST: it has closed, and that is no bug of ours."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = certificates.client_context().wrap_bio(incoming, outgoing, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    hello = outgoing.read()

    async def test(played: Played) -> None:
        secure(played, certificates)
        for number in range(1, 6):
            peer = played.offer(number, tls=True)
            await asyncio.get_running_loop().sock_sendall(peer, hello)
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            peer.close()
            heard = await played.until(Gone)
            assert heard == [Taken(number), Unshaken(number, "closed"), Gone(number)]

    run(test)
    said = [one.getMessage() for one in caplog.records]
    assert not [one for one in said if "bug" in one]


def test_a_certificate_that_no_table_names(
    run: Callable[..., None], certificates: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    """The line of the rejection says what was shown, as a table would name it."""

    def talk(sock: socket.socket) -> bytes:
        with shaken(sock, certificates) as peer:
            peer.sendall(associate_rq(calling="CT"))
            return peer.recv(4096)

    async def test(played: Played) -> None:
        secure(played, certificates)
        material = played.worker.going.tls
        assert material is not None
        told = configuration(ServeConfig(workers=1, allow=(read_allow_rule("OTHER@*"),)))
        played.worker.going = Going(msgspec.structs.replace(told, tls=material.material))
        peer = played.offer(1, tls=True)
        assert await asyncio.to_thread(talk, peer) == reject(1, 1, 3)
        await played.until(Gone)

    run(test)
    (line_,) = told(caplog)
    assert "rejected (1,1,3)" in line_
    assert "its certificate shows subject=GATE-1, subject=CN=GATE-1, O=Test, san=" in line_
    said: list[dict[str, Any]] = [getattr(one, "fields", {}) for one in caplog.records]
    (ended,) = [one for one in said if "ended" in one]
    assert ended["tls"].startswith("TLSv1.3")
    assert "CN=GATE-1" in ended["certificate"]


def test_where_plain_is_to_go() -> None:
    assert "have it send to port 11112, without TLS" in before_a_handshake(1, 11112)
    assert "no port without TLS (--no-plain)" in before_a_handshake(1, 0)
    assert before_a_handshake(0x99, 0) == "its first byte is 99"


def test_without_a_certificate_nobody_waits(run: Callable[..., None]) -> None:
    async def test(played: Played) -> None:
        peer = played.offer(1, host=CLIENT, tls=True)
        assert await all_of(peer) == b""
        assert await played.until(Gone) == [Taken(1), Gone(1)]

    run(test)


def test_handshakes_go_on_in_turns_of_the_loop(
    run: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many can: whoever sends meanwhile waits for a round of them, and a bug stops none."""
    # Each takes too long.
    monkeypatch.setattr(rounds, "_ROUND_S", 0.0)
    taken: list[tuple[int, int]] = []
    aborted: list[int] = []
    turn = 0

    class Step:
        def __init__(self, number: int, due: Callable[[Any], None]) -> None:
            self.number, self.due = number, due

        def next_turn(self) -> None:
            taken.append((turn, self.number))
            if self.number == 3:
                raise RuntimeError("a bug")
            if len(taken) == 1:
                # It has more that is whole: behind the others.
                self.due(self)

        def abort(self) -> None:
            aborted.append(self.number)

    async def test(played: Played) -> None:
        nonlocal turn
        due = played.worker._handshakes.due
        for number in range(6):
            due(Step(number, due))  # type: ignore[arg-type]
        assert taken == []
        while len(taken) < 7:
            await asyncio.sleep(0)
            turn += 1

    run(test)
    assert [number for _turn, number in taken] == [0, 1, 2, 3, 4, 5, 0]
    assert len({at for at, _number in taken}) == len(taken)
    assert aborted == [3]
