"""Senders behind a proxy, against the whole service; the test plays the proxy.

Connections from 127.0.0.1 are the proxy's. A sender that is none comes from 127.0.0.9.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.kit import (
    RELEASE_RP,
    RELEASE_RQ,
    Peer,
    Service,
    abort,
    associate_rq,
    echo,
    reject,
    store,
    wait_for,
)
from tests.process.beside import COMMIT_DESCRIPTORS, beside
from tests.streams.proxied import LOCAL, SOUND, line, v2

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PROXY: Final = "127.0.0.1"
ELSEWHERE: Final = "127.0.0.9"
FROM: Final = ("--proxy-protocol-from", PROXY)
RULES: Final = """
proxy-protocol-from = ["127.0.0.1", "::1"]

[from.ct]
who = ["CT1@10.1.2.0/24", "CT1@2001:db8::/32"]

[from.gate]
who = ["GATE@*"]
certificate = ["subject=GATE-1"]

[from.watch]
who = ["WATCH@127.0.0.1"]
"""
# An A-ASSOCIATE-RJ by the rules.
NOT_ALLOWED: Final = reject(1, 1, 3)


@pytest.fixture(scope="module")
def ruled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with RULES, for tests that leave it as it is."""
    folder = tmp_path_factory.mktemp("ruled")
    (folder / "site.toml").write_text(RULES)
    flags = ("--config", str(folder / "site.toml"), "--log-level", "debug")
    with Service(folder, *flags, hosts=("127.0.0.1", "::1")) as service:
        yield service


@pytest.fixture(scope="module")
def believing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that believes PROXY, and lets one association in from an address."""
    flags = (*FROM, "--max-associations-per-host", "1")
    with Service(tmp_path_factory.mktemp("believing"), *flags, workers=1) as service:
        yield service


def proxied(service: Service, header: bytes, **more: Any) -> tuple[Peer, bytes | None]:
    """A connection that begins with a header, and what its request is answered; to be closed."""
    peer = Peer(service.host, service.port)
    return peer, peer.associate(header + associate_rq(**more))


@pytest.mark.parametrize("how", ["line_4", "line_6", "tcp_4", "tcp_6", "mapped"])
@pytest.mark.parametrize("at_once", [True, False])
def test_the_sender_is_who_the_proxy_says(ruled: Service, how: str, at_once: bool) -> None:
    """By rules, log, journal and `associations`, wherever the stream is cut."""
    header, told = SOUND[how]
    assert told.source is not None
    host, port = told.source
    at = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    sop = f"1.2.3.{1 + list(SOUND).index(how)}.{int(at_once)}"
    with Peer(ruled.host, ruled.port) as peer:
        sent = header + associate_rq(calling="CT1")
        for piece in [sent] if at_once else [sent[n : n + 1] for n in range(len(sent))]:
            peer.send(piece)
        answer = peer.read_pdu()
        assert answer is not None
        assert answer[0] == 2
        peer.send(store(sop=sop))
        assert peer.read_response().status == 0
        here = [one for one in associations(ruled) if (one["host"], one["port"]) == told.source]
        assert [one["rules"] for one in here] == ["from.ct"]
        peer.release()
    (fact,) = [one for one in ruled.journal() if one["sop_instance_uid"] == sop]
    assert fact["peer"] == at
    assert "stored 1," in ruled.in_log(f"{fact['association']} CT1@{at}: released")


def associations(service: Service) -> list[dict[str, Any]]:
    done = subprocess.run(
        [*service.program(), "associations", "--store", str(service.store), "--json", "--once"],
        env=service.environment(), capture_output=True, text=True, check=True,
    )  # fmt: skip
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def test_the_proxys_own_address_opens_no_door(ruled: Service) -> None:
    for header in (line("10.1.3.1", 7), line("192.0.2.1", 8), v2(bytes(12)), LOCAL):
        peer, answer = proxied(ruled, header, calling="CT1")
        with peer:
            assert answer == NOT_ALLOWED
    assert "'CT1' from 10.1.3.1 calling" in ruled.in_log("CT1@10.1.3.1:7: rejected (1,1,3)")
    ruled.in_log("CT1@192.0.2.1:8: rejected")
    # The proxy speaks for itself.
    peer, answer = proxied(ruled, LOCAL, calling="WATCH")
    with peer:
        assert (answer or b"")[:1] == b"\x02"
        peer.send(echo(1))
        assert peer.read_response().status == 0
        peer.release()


@pytest.mark.parametrize(
    ("client", "verify", "name", "is_in"),
    [
        (7, 0, b"GATE-1", True),
        (5, 0, b"GATE-1", True),
        (7, 0, b"GATE-2", False),
        (7, 10, b"GATE-1", False),
        (1, 0, b"GATE-1", False),
        (7, 0, b"GATE-1\0", False),
        (7, 0, b"", False),
    ],
)
def test_what_the_proxy_tells_of_a_certificate(
    ruled: Service, client: int, verify: int, name: bytes, is_in: bool
) -> None:
    inner = bytes((client,)) + verify.to_bytes(4, "big") + b"\x22\0" + bytes((len(name),)) + name
    block = bytes(12) + b"\x20\0" + bytes((len(inner),)) + inner
    peer, answer = proxied(ruled, v2(block), calling="GATE")
    with peer:
        assert answer is not None
        assert (answer[0] == 2) if is_in else answer == NOT_ALLOWED


def test_whoever_looks_whether_it_is_there_makes_no_noise(ruled: Service) -> None:
    names = ["127.0.0.1:5"]
    for sent in (b"", LOCAL, line("127.0.0.1", 5), b"PROXY UNKNOWN\r\n"):
        for is_reset in (False, True):
            peer = Peer(ruled.host, ruled.port)
            names.append(peer.name)
            if sent:
                peer.send(sent)
            (peer.reset if is_reset else peer.close)()
    wait_for(lambda: not associations(ruled), "the end of all connections")
    # Whoever is served later has its line later.
    for _ in range(2):
        peer, answer = proxied(ruled, line("10.1.2.9", 9), calling="CT1")
        with peer:
            assert (answer or b"")[:1] == b"\x02"
            peer.release()
    ruled.in_log("CT1@10.1.2.9:9: released")
    assert [one for one in ruled.log().splitlines() for name in names if f" {name}: " in one] == []


def test_limits_are_of_the_sender(believing: Service) -> None:
    with contextlib.ExitStack() as open_:
        for host, outcome in (("10.0.0.1", 2), ("10.0.0.2", 2), ("10.0.0.1", 3), ("10.0.0.3", 2)):
            peer, answer = proxied(believing, line(host, 104))
            open_.enter_context(peer)
            assert (answer or b"")[:1] == bytes((outcome,)), host
        assert "per-host 1 reached by 10.0.0.1" in believing.in_log("rejected (2,3,2)")


def test_who_pretends_to_be_a_proxy(believing: Service) -> None:
    """From elsewhere a header is another protocol, and from the proxy there is one alone."""
    for header in (line("10.0.0.1", 7), LOCAL):
        with Peer(believing.host, believing.port, source=ELSEWHERE) as peer:
            name = peer.name
            peer.send(header + associate_rq())
            assert peer.read_until_close() == abort(0, 0)
        assert "expects none" in believing.in_log(f" {name}: aborted (0,0): ")
    with Peer(believing.host, believing.port, source=ELSEWHERE) as peer:
        answer = peer.associate(associate_rq())
        assert (answer or b"")[:1] == b"\x02"
        peer.release()
    for twice in (line("10.0.0.8", 7) * 2, line("10.0.0.8", 8) + LOCAL):
        with Peer(believing.host, believing.port) as peer:
            peer.send(twice + associate_rq())
            assert peer.read_until_close() == abort(0, 0)
        port = 8 if LOCAL in twice else 7
        assert "expects none" in believing.in_log(f" 10.0.0.8:{port}: aborted (0,0): ")


def test_what_is_no_header_is_closed(believing: Service) -> None:
    """Its lines are bounded."""
    huge = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff" + bytes(65535)
    kinds = {
        b"\x16\x03\x01\x02" + line("10.0.0.1", 7): "no PROXY header: a TLS client",
        b"GET / HTTP/1.1\r\n": "no PROXY header: an HTTP client",
        huge: "PROXY header refused: more than 4096 bytes",
        b"PROXY TCP4 10.0.0.1 10.0.0.2 7 70000\r\n": "PROXY header refused: a port that is none",
        associate_rq(): "no PROXY header: it sends a request at once",
    }
    for sent, why in kinds.items():
        with Peer(believing.host, believing.port) as peer:
            name = peer.name
            with contextlib.suppress(ConnectionError):
                peer.send(sent)
            assert peer.read_until_close(reset=True) == b""
        assert " WARNING " in believing.in_log(f" {name}: {why}")
    for _ in range(30):
        with Peer(believing.host, believing.port) as peer:
            peer.send(b"\x16")
            assert peer.read_until_close(reset=True) == b""
    assert believing.log().count(": no PROXY header: a TLS client") <= 5


def test_a_header_has_the_time_of_the_request(tmp_path: Path) -> None:
    with Service(tmp_path, *FROM, "--artim-timeout", "500ms", workers=1) as service:
        began = time.monotonic()
        late = Peer(service.host, service.port)
        with late:
            late.send(LOCAL[:-1])
            assert late.read_until_close(reset=True) == b""
        assert time.monotonic() - began >= 0.4
        service.in_log("no complete PROXY header in time")


def test_the_end_waits_for_no_header(tmp_path: Path) -> None:
    """Nor does a worker's death take more with it than the connection."""
    flags = (*FROM, "--drain-timeout", "0s", "--artim-timeout", "10m")
    with Service(tmp_path, *flags, workers=1) as service, contextlib.ExitStack() as open_:
        peers = [open_.enter_context(Peer(service.host, service.port)) for _ in range(3)]
        for peer in peers:
            peer.send(line("10.0.0.1", 7)[:-3])
        wait_for(lambda: len(associations(service)) == 3, "the connections")
        assert {one["phase"] for one in associations(service)} == {"connected"}
        (worker,) = service.worker_pids()
        os.kill(worker, signal.SIGKILL)
        for peer in peers:
            assert peer.read_until_close(reset=True) == b""
        peer, answer = proxied(service, line("10.0.0.1", 7))
        with peer:
            assert (answer or b"")[:1] == b"\x02"
            peer.send(RELEASE_RQ)
            assert peer.read_pdu() == RELEASE_RP
        waits = open_.enter_context(Peer(service.host, service.port))
        waits.send(line("10.0.0.1", 7)[:-3])
        wait_for(lambda: associations(service), "the connection")
        began = time.monotonic()
        service.stop()
        assert time.monotonic() - began < 30
        assert waits.read_until_close(reset=True) == b""


@pytest.mark.timeout(300)
@pytest.mark.parametrize("count", [100, pytest.param(500, marks=pytest.mark.long)])
def test_headers_that_trickle_beside_a_good_sender(tmp_path: Path, count: int) -> None:
    flags = ("--proxy-protocol-from", ELSEWHERE, "--artim-timeout", "5m")
    header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x0f\xff" + bytes(4000)
    with (
        Service(tmp_path, *flags, workers=1) as service,
        beside(service, more_descriptors=count + COMMIT_DESCRIPTORS) as (honest, worker),
        contextlib.ExitStack() as open_,
    ):
        descriptors = worker.descriptors()
        peers = [
            open_.enter_context(Peer(service.host, service.port, source=ELSEWHERE))
            for _ in range(count)
        ]
        for at in range(60):
            for peer in peers:
                peer.send(header[at : at + 1])
            honest.goes_on(1)
        for peer in peers:
            peer.reset()
        wait_for(lambda: worker.descriptors() <= descriptors + 8, "their connections' end")
