"""What a peer can do to a worker, and what stops it: each beside an honest peer of the same worker.

Every test says what is bounded: the honest peer's waits, the worker's memory, its descriptors, the
parts on the disk. The default ones are small; `-m long` has the numbers that were seen to hurt.
"""

from __future__ import annotations

import contextlib
import fcntl
import random
import struct
import termios
import time
import zlib
from typing import TYPE_CHECKING, Final

import pytest

from tests.floods import FLOODS, burst, instance, packed, pdv
from tests.kit import (
    CT,
    DEFLATED,
    ELE,
    VERIFICATION,
    Peer,
    Service,
    associate_rq,
    data_set,
    echo,
    element,
    pdu,
    reject,
    store,
    store_rq,
    wait_for,
)
from tests.process.beside import (
    COMMIT_DESCRIPTORS,
    Talk,
    answers,
    at_once,
    beside,
    converse,
    deaf_peer,
    widen,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

MIB: Final = 1 << 20
LONG = pytest.mark.long


@contextlib.contextmanager
def _peers(service: Service, count: int, **more: object) -> Iterator[list[Peer]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(service.peer(**more)) for _ in range(count)]


def _sized(small: int, large: int) -> list[object]:
    """A small number for every run, and the one that was seen to hurt for `-m long`."""
    return [pytest.param(small, id=f"{small}"), pytest.param(large, id=f"{large}", marks=LONG)]


# Bursts: as many messages as one read holds ------------------------------------------------------

# Durability, compression, redo log. What is buffered has no such log.
FORMS: Final = (
    ("stable", "none", "on"),
    ("buffered", "none", "on"),
    ("stable", "zstd", "off"),
    ("buffered", "zstd", "on"),
    pytest.param("stable", "none", "off", marks=LONG),
    pytest.param("stable", "zstd", "on", marks=LONG),
)


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("durability", "compress", "redo"), FORMS)
@pytest.mark.parametrize("count", _sized(2000, 12724))
def test_a_burst_of_instances(
    tmp_path: Path, durability: str, compress: str, redo: str, count: int
) -> None:
    """82 bytes each: thousands of complete instances in one read of 1 MiB."""
    flags = ("--durability", durability, "--compress", compress, "--redo", redo)
    sops = [f"{n:06}" for n in range(1, count + 1)]
    out = burst(sops, [instance()] * count)
    assert len(out) == 82 * count
    with Service(tmp_path, *flags, workers=1) as service, service.peer() as sender:
        widen(sender)
        with beside(service, more_descriptors=COMMIT_DESCRIPTORS) as (_honest, worker):
            assert worker.has_log == (durability == "stable" and redo == "on")
            talk = Talk(sender, out, due=count, step=2 * MIB)
            at_once(worker, [talk])
            converse([talk])
            assert answers(talk) == [(n & 0xFFFF, 0) for n in range(count)]
        service.ends_parts()
        sender.release()


def test_a_burst_with_few_bytes_in_flight(tmp_path: Path) -> None:
    """Each instance is larger than all that may be in flight; they pass one by one."""
    sops = [f"1.2.{n}" for n in range(20)]
    with Service(tmp_path, "--max-bytes-in-flight", "10", workers=1) as service:
        with service.peer() as sender:
            talk = Talk(sender, burst(sops, [instance()] * len(sops)), due=len(sops))
            converse([talk])
            assert answers(talk) == [(n, 0) for n in range(len(sops))]
        assert len(service.instances()) == len(sops)


def _unsent(peer: Peer) -> int:
    """Bytes that the other end's kernel has not acknowledged."""
    (size,) = struct.unpack("i", fcntl.ioctl(peer.socket, termios.TIOCOUTQ, bytes(4)))
    return int(size)


@pytest.mark.parametrize(
    ("end", "durability"),
    [
        ("close", "stable"),
        ("reset", "buffered"),
        pytest.param("close", "buffered", marks=LONG),
        pytest.param("reset", "stable", marks=LONG),
    ],
)
def test_a_burst_of_a_peer_that_goes(tmp_path: Path, end: str, durability: str) -> None:
    """What it completed and the service read is stored, however much of it waits its turn."""
    with Service(tmp_path, "--durability", durability, workers=1) as service:
        peer = service.peer()
        sops = [f"1.2.{n}" for n in range(600)]
        peer.send(burst(sops, [instance()] * len(sops)))
        if end == "reset":
            wait_for(lambda: not _unsent(peer), "all of it at the service")
            peer.reset()
        else:
            peer.close()
        wait_for(lambda: len(service.instances()) == len(sops), "every instance")
        wait_for(lambda: len(service.journal()) == len(sops), "a line for each")
        service.ends_parts()
        service.in_log(f"stored {len(sops)}, refused 0")
        service.echoes()


def test_large_instances_that_take_long_to_compress(tmp_path: Path) -> None:
    """Both helper threads have one; that of somebody else waits for a few slices only."""
    large = element(0x7FE00010, b"OW", random.Random(1).randbytes(3 * MIB))
    with Service(tmp_path, "--compress", "zstd:19", workers=1) as service:
        with service.peer() as honest, service.peer() as first, service.peer() as second:
            for n, peer in enumerate((first, second)):
                peer.send(store(1, data_set(sop=f"7.{n}", pixels=2)[:-14] + large, sop=f"7.{n}"))
            # Both are in the hands of the threads when their new parts are there.
            wait_for(lambda: len(list(_compressed_parts(service))) == 2, "both begun")
            honest.send(store(1, sop="1.2.3"))
            assert honest.read_statuses(1) == [(1, 0)]
            assert len(service.instances()) == 1
            for peer in (first, second):
                assert peer.read_statuses(1) == [(1, 0)]
        assert len(service.instances()) == 3
        service.ends_parts()


def _compressed_parts(service: Service) -> Iterator[Path]:
    return (service.store / ".fastscp/incoming").glob("*/*.zst")


def _differing(count: int) -> list[bytes]:
    """Data sets of the same path that differ, of equal length."""
    return [instance(element(0x00204000, b"LT", b"%08d" % n, ELE)) for n in range(count)]


POLICIES: Final[dict[str, Callable[[int], int]]] = {
    "version": lambda n: 0 if n < 9 else 0xC000,
    "replace": lambda n: 0,
    "keep": lambda n: 0xB006 if n else 0,
    "refuse": lambda n: 0xC000 if n else 0,
}


# A buffered instance is compared as a stable one is; where it replaces, it is flushed besides.
COMPARED: Final = (
    *((policy, "stable") for policy in ("identical", *POLICIES)),
    *(
        pytest.param(policy, "buffered", marks=() if policy == "replace" else LONG)
        for policy in ("identical", *POLICIES)
    ),
)


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("policy", "durability"), COMPARED)
@pytest.mark.parametrize("count", _sized(300, 12724))
def test_a_burst_of_duplicates(tmp_path: Path, policy: str, durability: str, count: int) -> None:
    """All of one path: each waits for the one before it, and for a comparison."""
    same = policy == "identical"
    flags = ("--durability", durability, "--on-duplicate", "version" if same else policy)
    data = [instance()] * count if same else _differing(count)
    due = [0 if same else POLICIES[policy](n) for n in range(count)]
    with Service(tmp_path, *flags, workers=1) as service, service.peer() as sender:
        widen(sender)
        with beside(service, more_descriptors=COMMIT_DESCRIPTORS) as (_honest, worker):
            talk = Talk(sender, burst(["1.2"] * count, data), due=count, step=2 * MIB)
            at_once(worker, [talk])
            converse([talk])
            assert answers(talk) == list(zip((n & 0xFFFF for n in range(count)), due, strict=True))
        service.ends_parts()
        sender.release()


# Floods: what is answered without a disk ---------------------------------------------------------


# On a busy machine there are fewer rounds.
FLOOD_S: Final = 40.0
# One kind alone, and all that there are: the others are for the long run.
FLOODED: Final = ("echo", "mixture")


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "kind", [pytest.param(name, marks=() if name in FLOODED else LONG) for name in FLOODS]
)
@pytest.mark.parametrize("rounds", _sized(12, 1000))
def test_floods(tmp_path: Path, kind: str, rounds: int) -> None:
    """Ten peers that send tiny requests without end, and read what is answered."""
    out, _count = packed(FLOODS[kind], MIB)
    with Service(tmp_path, workers=1) as service, _peers(service, 10) as peers:
        for peer in peers:
            widen(peer)
        # For each wait of the honest peer the loop had some tens of ms of others' work, not all.
        with beside(service, p99_loop_s=0.4) as (honest, _worker):
            talks = [Talk(peer, out, endless=True, keep=False) for peer in peers]
            wanted, end = honest.rounds + rounds, time.monotonic() + FLOOD_S
            converse(talks, lambda: honest.rounds >= wanted or time.monotonic() > end)
        assert min(talk.heard for talk in talks) > 0


# Deaf peers: what is owed to a peer that does not read -------------------------------------------


def _deaf(service: Service, count: int, out: bytes) -> tuple[list[Peer], list[Talk]]:
    rq = associate_rq((1, CT, ELE), (7, VERIFICATION, ELE), max_pdu_length=8)
    peers = [deaf_peer(service, rq) for _ in range(count)]
    return peers, [Talk(peer, out, deaf=True) for peer in peers]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", ["echo", "stores"])
@pytest.mark.parametrize("count", _sized(2, 40))
def test_deaf_peers(tmp_path: Path, kind: str, count: int) -> None:
    """A maximum length of 8: an answer is many times as long as its request, and nobody reads."""
    if kind == "echo":
        out, _ = packed(FLOODS["echo"], MIB)
    else:
        # So many are more than may be owed, and few enough to be stored when their peers are gone.
        out = burst([f"{n:06}" for n in range(2000)], [instance()] * 2000)
    with Service(tmp_path, workers=1) as service:
        with beside(service) as (honest, worker):
            before, descriptors = worker.memory(), worker.descriptors()
            peers, talks = _deaf(service, count, out)
            try:
                at_once(worker, talks)
                _push_until_nothing_goes(talks, lambda: honest.rounds)
                honest.goes_on(20)
            finally:
                for peer in peers:
                    peer.reset()
            wait_for(lambda: worker.descriptors() <= descriptors + 8, "their connections' end", 60)
            wait_for(lambda: worker.memory() < before + 16 * MIB, "their memory back", 60)
        _store_what_is_there(service)


def _store_what_is_there(service: Service) -> None:
    """Wait until no part is left, as long as it goes on."""

    def journaled() -> int:
        journal = service.store / ".fastscp/journal"
        return sum(segment.stat().st_size for segment in journal.iterdir())

    def beyond(before: int) -> Callable[[], bool]:
        return lambda: not service.parts() or journaled() > before

    while service.parts():
        wait_for(beyond(journaled()), "more instances stored")


def _push_until_nothing_goes(talks: list[Talk], rounds: object) -> None:
    """Send all, or as much as the service and the kernel take while others are served."""
    assert callable(rounds)
    still_at = rounds()
    seen = -1

    def no_more() -> bool:
        nonlocal seen, still_at
        sent = sum(talk.at for talk in talks)
        if sent != seen:
            seen, still_at = sent, rounds()
        return all(talk.said for talk in talks) or rounds() >= still_at + 20

    converse(talks, no_more)


# Deflated tails ----------------------------------------------------------------------------------


@pytest.mark.timeout(300)
@pytest.mark.parametrize("mib", _sized(64, 160))
def test_a_tail_behind_a_deflated_stream(tmp_path: Path, mib: int) -> None:
    """It is stored as it came, and nobody inflates it."""
    data = data_set(DEFLATED, sop="1.2.1")
    tail = pdu(4, pdv(0, random.Random(1).randbytes(MIB)))
    with Service(tmp_path, workers=1) as service, service.peer((1, CT, DEFLATED)) as sender:
        with beside(service, more_descriptors=COMMIT_DESCRIPTORS):
            sender.send(pdu(4, pdv(3, store_rq(sop="1.2.1")) + pdv(0, data)))
            for _ in range(mib):
                sender.send(tail)
            sender.send(pdu(4, pdv(2, b"")))
            assert sender.read_statuses(1) == [(1, 0)]
        kept = next(fact for fact in service.journal() if fact["sop_instance_uid"] == "1.2.1")
        assert kept["bytes"] == len(data) + mib * MIB
        sender.release()


@pytest.mark.timeout(300)
def test_a_deflated_stream_that_expands_without_end(tmp_path: Path) -> None:
    """A thousand times its size: the tap inflates all of that, in turns, and keeps nothing."""
    bomb = zlib.compressobj(9, wbits=-15)
    head = data_set(sop="1.2.1", pixels=0)
    data = bomb.compress(head + bytes(96 * MIB)) + bomb.flush()
    data += bytes(len(data) % 2)
    with Service(tmp_path, workers=1) as service, service.peer((1, CT, DEFLATED)) as sender:
        with beside(service, more_descriptors=COMMIT_DESCRIPTORS):
            for n in range(2):
                sender.send(store(n, data, sop="1.2.1", fragment=100_000))
            assert sender.read_statuses(2) == [(n, 0) for n in range(2)]
        sender.release()


# Slow, silent and half ---------------------------------------------------------------------------


@pytest.mark.timeout(300)
@pytest.mark.parametrize("count", _sized(40, 400))
def test_a_byte_at_a_time(tmp_path: Path, count: int) -> None:
    """Slow lorises: each keeps a message open and sends a byte of it now and then."""
    with Service(tmp_path, workers=1) as service, _peers(service, count) as peers:
        with beside(service, more_descriptors=COMMIT_DESCRIPTORS):
            messages = [
                store(1, data_set(sop=f"1.2.{n + 1}", pixels=2), sop=f"1.2.{n + 1}")
                for n in range(count)
            ]
            slow = 150
            for at in range(slow):
                for peer, message in zip(peers, messages, strict=True):
                    peer.send(message[at : at + 1])
            for peer, message in zip(peers, messages, strict=True):
                peer.send(message[slow:])
            for peer in peers:
                assert peer.read_statuses(1) == [(1, 0)]
        for peer in peers:
            peer.release()
        service.ends_parts()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("count", _sized(200, 1000))
def test_idle_associations(tmp_path: Path, count: int) -> None:
    with (
        Service(tmp_path, "--max-associations", f"{count + 10}", workers=1) as service,
        beside(service, growth=32 * MIB, more_descriptors=count + COMMIT_DESCRIPTORS) as (
            honest,
            _,
        ),
        _peers(service, count) as peers,
    ):
        honest.goes_on(20)
        for peer in peers:
            peer.send(echo(7))
            assert peer.read_response().status == 0


@pytest.mark.timeout(300)
@pytest.mark.parametrize("count", _sized(100, 500))
@pytest.mark.parametrize("kind", ["ordinary", "large"])
def test_half_open_requests(tmp_path: Path, kind: str, count: int) -> None:
    """A request that never ends takes what came of it, and all of them take a bounded amount."""
    whole = associate_rq()
    if kind == "large":
        # 1 MiB except for a byte, of items of a type there is not.
        more = (b"\x99\x00" + struct.pack(">H", 65000) + bytes(65000)) * 15
        whole = pdu(1, whole[6:] + more)
    growth = (48 + (32 if kind == "large" else 0)) * MIB
    with (
        Service(tmp_path, "--artim-timeout", "5m", workers=1) as service,
        beside(service, growth=growth, more_descriptors=count + COMMIT_DESCRIPTORS) as (
            honest,
            worker,
        ),
    ):
        descriptors = worker.descriptors()
        peers = [Peer(service.host, service.port) for _ in range(count)]
        try:
            talks = [Talk(peer, whole[:-1], deaf=True) for peer in peers]
            _push_until_nothing_goes(talks, lambda: honest.rounds)
            honest.goes_on(20)
        finally:
            for peer in peers:
                peer.reset()
        wait_for(lambda: worker.descriptors() <= descriptors + 8, "their connections' end", 60)


def _full_of_items(contexts: int, syntaxes: int) -> bytes:
    """A legal request of distinct transfer syntaxes."""
    whole = associate_rq()

    def item(kind: int, body: bytes) -> bytes:
        return struct.pack(">BBH", kind, 0, len(body)) + body

    more = b"".join(
        item(
            0x20,
            bytes([n, 0, 0, 0])
            + item(0x30, CT.encode())
            + b"".join(item(0x40, b"1.2.%d.%d" % (n, k)) for k in range(syntaxes)),
        )
        for n in range(2, 2 + contexts)
    )
    return pdu(1, whole[6:] + more)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("syntaxes", [32, 250])
@pytest.mark.parametrize("count", _sized(60, 500))
def test_requests_full_of_items(tmp_path: Path, count: int, syntaxes: int) -> None:
    """They become whole at the same time, with as much as is taken in each, or with more."""
    out = _full_of_items(252, syntaxes)
    with (
        Service(tmp_path, "--artim-timeout", "5m", workers=1) as service,
        beside(service, growth=(48 + 32) * MIB, more_descriptors=count + COMMIT_DESCRIPTORS) as (
            honest,
            worker,
        ),
        contextlib.ExitStack() as stack,
    ):
        peers = [stack.enter_context(Peer(service.host, service.port)) for _ in range(count)]
        talks = [Talk(peer, out[:-1], deaf=True) for peer in peers]
        _push_until_nothing_goes(talks, lambda: honest.rounds)
        honest.goes_on(5)
        with worker.stopped():
            for peer in peers:
                with contextlib.suppress(OSError):
                    peer.send(out[-1:])
        answered = []
        for peer in peers:
            with contextlib.suppress(OSError):
                answered.append(peer.read_pdu())
        # Those that held most while they were not whole were aborted.
        due = reject(2, 3, 2)[0] if syntaxes == 250 else 2
        kinds = {answer[0] for answer in answered if answer}
        assert due in kinds
        assert kinds <= {due, 7}
        honest.goes_on(20)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("count", _sized(100, 600))
def test_peers_that_vanish(tmp_path: Path, count: int) -> None:
    """With RST, anywhere inside a message or behind one: no part and no descriptor stays."""
    rng = random.Random(7)
    with Service(tmp_path, workers=1) as service:
        with beside(service) as (_honest, worker):
            descriptors = worker.descriptors()
            for n in range(count):
                sop = f"1.2.{n + 1}"
                whole = store(1, data_set(sop=sop, pixels=40_000), sop=sop) * 2
                peer = service.peer()
                peer.send(whole[: rng.randrange(1, len(whole))])
                peer.reset()
            wait_for(lambda: worker.descriptors() <= descriptors + 8, "their connections' end", 60)
            # The honest peer may have one open, that moment.
            wait_for(lambda: len(service.parts()) <= 1, "the end of their parts", 60)
        service.ends_parts()
        service.echoes()


# The log -----------------------------------------------------------------------------------------


def _from_peers(service: Service) -> list[str]:
    """The lines of the log that are about peers of this address."""
    return [line for line in service.log().splitlines() if service.host in line]


def test_a_name_of_64_kib_in_the_log(tmp_path: Path) -> None:
    """Each byte of it would be written as four."""
    whole = associate_rq(calling=b"\x01" * 16, called=b"\x02" * 16)
    # Its user information with another Implementation Version Name: all that fits the item.
    at = whole.index(b"\x55\x00\x00\x03KIT")
    name = b"\x01" * 65000
    item = b"\x55\x00" + struct.pack(">H", len(name)) + name
    user = whole.index(b"\x50\x00\x00", 74)
    information = whole[user + 4 : at] + item
    rq = pdu(1, whole[6:user] + b"\x50\x00" + struct.pack(">H", len(information)) + information)
    with Service(tmp_path, workers=1) as service:
        with Peer(service.host, service.port) as peer:
            answer = peer.associate(rq)
            assert answer is not None
            assert answer[0] == 2
            peer.release()
        service.in_log("released")
        longest = max(map(len, service.log().splitlines()))
        assert longest < 2000, f"a line of {longest}"


@pytest.mark.timeout(300)
@pytest.mark.parametrize("count", _sized(300, 5000))
def test_garbage_from_one_address(tmp_path: Path, count: int) -> None:
    """Lines are counted, not written, once they say the same again."""
    with Service(tmp_path, workers=1) as service:
        for n in range(count):
            with Peer(service.host, service.port) as peer:
                peer.send(b"GET / HTTP/1.1\r\n\r\n" if n % 2 else bytes(range(n % 200, 256)))
                peer.read_until_close(reset=True)
        service.echoes()
        lines = _from_peers(service)
        print(f"{len(lines)} lines of {count} connections")
        assert len(lines) < 120
        service.stop()
