"""The bounds of what a peer can do, through TLS: what pauses, who goes, who reads nothing.

The same as in test_bounds.py, where it stands for the plain path with what is counted there.
"""

from __future__ import annotations

import hashlib
import os
import time
from socket import SO_ERROR, SOL_SOCKET
from typing import TYPE_CHECKING, Final

import pytest

from tests.disks import in_memory
from tests.floods import FLOODS, burst, instance, packed
from tests.kit import (
    CT,
    ELE,
    TLS,
    VERIFICATION,
    Peer,
    Service,
    associate_rq,
    data_set,
    path_of,
    store,
    wait_for,
)
from tests.process.beside import (
    Talk,
    Waits,
    Worker,
    answers,
    at_once,
    beside,
    converse,
    deaf_peer,
    widen,
)
from tests.process.test_tls import client_hello

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MIB: Final = 1 << 20
OUT_OF_RESOURCES: Final = 0xA700
LONG = pytest.mark.long


def test_the_same_bytes_are_stored(tmp_path: Path, secured: TLS) -> None:
    """Plain and behind TLS, as one file and as its data set, in small and large fragments."""
    data = data_set(pixels=300_000)
    kept = set()
    with Service(tmp_path, tls=secured, plain=True, workers=1) as service:
        for through in (False, True):
            for fragment in (700, 16372):
                with service.connect(secured=through) as peer:
                    assert (peer.associate(associate_rq()) or b"")[:1] == b"\2"
                    peer.send(store(1, data, fragment=fragment))
                    assert peer.read_statuses(1) == [(1, 0)]
                    peer.release()
                assert service.data_of(path_of()) == data
                kept.add(hashlib.sha256((service.store / path_of()).read_bytes()).hexdigest())
                (service.store / path_of()).unlink()
    assert len(kept) == 1


@pytest.mark.parametrize("durability", ["stable", pytest.param("buffered", marks=LONG)])
def test_a_burst_of_instances(tmp_path: Path, secured: TLS, durability: str) -> None:
    """Complete by the hundred in one read: it pauses at what may be owed and uncommitted."""
    count = 1500
    sops = [f"{n:06}" for n in range(1, count + 1)]
    out = burst(sops, [instance()] * count)
    with (
        Service(tmp_path, "--durability", durability, tls=secured, workers=1) as service,
        service.peer() as sender,
    ):
        widen(sender)
        with beside(service) as (_honest, worker):
            talk = Talk(sender, out, due=count, step=2 * MIB)
            at_once(worker, [talk])
            converse([talk])
            assert answers(talk) == [(n & 0xFFFF, 0) for n in range(count)]
        service.ends_parts()
        sender.release()


@LONG
def test_commands_without_end(tmp_path: Path, secured: TLS) -> None:
    """What Python answers, and what is refused: each peer has a bounded turn."""
    out, _ = packed(FLOODS["mixture"], MIB // 4)
    with Service(tmp_path, tls=secured, workers=1) as service:
        peers = [service.peer() for _ in range(3)]
        try:
            with beside(service, p99_loop_s=0.4) as (honest, _worker):
                talks = [Talk(peer, out, endless=True, keep=False) for peer in peers]
                wanted = honest.rounds + 10
                converse(talks, lambda: honest.rounds >= wanted)
            assert min(talk.heard for talk in talks) > 0
        finally:
            for peer in peers:
                peer.reset()


def test_many_floods_at_once(tmp_path: Path, secured: TLS) -> None:
    """Others wait for a few turns, and not for one of each flood, through TLS and without."""
    out, _ = packed(FLOODS["echo"], MIB // 8)
    with Service(tmp_path, tls=secured, plain=True, workers=1) as service:
        rq = associate_rq((1, CT, ELE), (7, VERIFICATION, ELE))
        peers = [service.connect(secured=n % 2 == 1) for n in range(60)]
        try:
            for peer in peers:
                assert (peer.associate(rq) or b"")[:1] == b"\2"
            with beside(service) as (honest, _worker):
                talks = [Talk(peer, out, endless=True, keep=False) for peer in peers]
                wanted = honest.rounds + 10
                converse(talks, lambda: honest.rounds >= wanted)
                assert Waits.at(honest.echoes.loop, 0.5) < 0.02
            assert min(talk.heard for talk in talks) > 0
        finally:
            for peer in peers:
                peer.reset()


@LONG
def test_peers_that_never_read(tmp_path: Path, secured: TLS) -> None:
    """Once no more fits they cost nothing; when they go, all that they held is free."""
    out, _ = packed(FLOODS["echo"], MIB)
    rq = associate_rq((1, CT, ELE), (7, VERIFICATION, ELE), max_pdu_length=8)
    with (
        Service(tmp_path, tls=secured, workers=1) as service,
        beside(service) as (honest, worker),
    ):
        before, descriptors = worker.memory(), worker.descriptors()
        peers = [deaf_peer(service, rq) for _ in range(4)]
        talks = [Talk(peer, out, deaf=True) for peer in peers]
        try:
            at_once(worker, talks)
            sent, since = -1, honest.rounds

            def blocked() -> bool:
                nonlocal sent, since
                if (now := sum(talk.at for talk in talks)) != sent:
                    sent, since = now, honest.rounds
                return honest.rounds >= since + 20

            converse(talks, blocked)
            honest.goes_on(20)
        finally:
            for peer in peers:
                peer.reset()
        wait_for(lambda: worker.descriptors() <= descriptors + 8, "their connections' end")
        wait_for(lambda: worker.memory() < before + 16 * MIB, "their memory back")


@LONG
@pytest.mark.parametrize("through", ["plain", "TLS"])
def test_who_is_blocked_costs_nothing(tmp_path: Path, secured: TLS, through: str) -> None:
    """Nobody looks at a peer again before it reads: not the loop, and no timer that is felt."""
    out, _ = packed(FLOODS["echo"], MIB)
    rq = associate_rq((1, CT, ELE), (7, VERIFICATION, ELE), max_pdu_length=8)
    with Service(tmp_path, tls=secured if through == "TLS" else None, workers=1) as service:
        worker = Worker(service)
        peers = [deaf_peer(service, rq) for _ in range(10)]
        try:
            at_once(worker, [Talk(peer, out, deaf=True) for peer in peers])

            def rests() -> bool:
                before, began = worker.loop_s(), time.monotonic()
                time.sleep(1)
                return worker.loop_s() - before < 0.01 * (time.monotonic() - began)

            wait_for(rests, "a second in which the loop hardly runs")
            # All are still there: nobody was given up for it.
            assert all(not peer.raw.getsockopt(SOL_SOCKET, SO_ERROR) for peer in peers)
        finally:
            for peer in peers:
                peer.reset()


@pytest.mark.parametrize("durability", ["stable", pytest.param("buffered", marks=LONG)])
@pytest.mark.parametrize(
    "end", [pytest.param("close_notify", marks=LONG), pytest.param("FIN", marks=LONG), "RST"]
)
def test_a_burst_of_a_peer_that_goes(
    tmp_path: Path, secured: TLS, durability: str, end: str
) -> None:
    """What it completed and the service read is stored, however much of it waits its turn (B37)."""
    sops = [f"1.2.{n}" for n in range(600)]
    out = burst(sops, [instance()] * len(sops))
    # In one read, so that the first line says that the service has it all.
    assert len(out) < 60_000
    with Service(tmp_path, "--durability", durability, tls=secured, workers=1) as service:
        with beside(service) as (_honest, worker), service.peer() as peer:
            at_once(worker, [Talk(peer, out)])
            wait_for(lambda: any(fact["association"] for fact in _lines(service)), "the first")
            if end == "RST":
                peer.reset()
            elif end == "FIN":
                peer.raw.close()
        wait_for(lambda: len(_lines(service)) == len(sops), "a line for each")
        service.ends_parts()
        service.in_log(f"stored {len(sops)}, refused 0")


def _lines(service: Service) -> list[dict[str, object]]:
    """The journal's, without those of the honest peer."""
    return [fact for fact in service.journal() if str(fact["sop_instance_uid"]).startswith("1.2.")]


def test_many_handshakes_at_once_beside_an_honest_sender(tmp_path: Path, secured: TLS) -> None:
    """Each costs a signature, and all of them are there when the loop looks."""
    count = 300
    hello = client_hello()
    with (
        Service(tmp_path, tls=secured, workers=1) as service,
        beside(service, p99_loop_s=0.4) as (honest, worker),
    ):
        peers: list[Peer] = []
        try:
            with worker.stopped():
                for _ in range(count):
                    peers.append(Peer(service.host, service.port))
                    peers[-1].send(hello)
            honest.goes_on(20)
            # Each has its answer; none was passed over for those behind it.
            for peer in peers:
                assert peer.socket.recv(1) == b"\x16"
        finally:
            for peer in peers:
                peer.close()
        honest.goes_on(10)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB in memory, mounted."""
    with in_memory(tmp_path, "size=8m") as point:
        yield point


def test_b61_a_full_disk(tmp_path: Path, secured: TLS, small: Path) -> None:
    """An instance is refused with A700, nothing of it stays, and the association goes on."""
    flags = ("--min-free-space", "0")
    with Service(tmp_path, *flags, store=small / "store", tls=secured, workers=1) as service:
        with service.peer() as peer:
            free = os.statvfs(small)
            (small / "filler").write_bytes(bytes(free.f_bavail * free.f_frsize - MIB // 2))
            sops = [f"1.2.{n}" for n in range(3)]
            for n, (sop, pixels, wanted) in enumerate(
                zip(sops, (MIB, 100, 100), (OUT_OF_RESOURCES, None, 0), strict=True)
            ):
                if n == 2:
                    (small / "filler").unlink()
                    wait_for(lambda: _is_taken(service), "a store with room")
                peer.send(store(n, data_set(sop=sop, pixels=pixels), sop=sop))
                ((number, status),) = peer.read_statuses(1)
                assert number == n
                # While the disk is full it depends on the moment whether a small one fits.
                assert status in ((wanted,) if wanted is not None else (0, OUT_OF_RESOURCES))
            peer.release()
        service.ends_parts()
        assert service.data_of(path_of(sops[2])) == data_set(sop=sops[2], pixels=100)


def _is_taken(service: Service) -> bool:
    """Whether a newcomer's instance is stored: that there is room is seen within a moment."""
    with service.connect() as peer:
        if (peer.associate(associate_rq()) or b"")[:1] != b"\2":
            return False
        peer.send(store(1, data_set(sop="1.2.99"), sop="1.2.99"))
        (answer,) = peer.read_statuses(1)
        peer.release()
        return answer == (1, 0)
