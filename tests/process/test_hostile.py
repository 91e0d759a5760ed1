"""Peers that would take the memory, the turns or the places of others, and what they get instead.

Unlike bad input in general, all of this is about a bound: each test would pass on a service that
only handles single messages right.
"""

from __future__ import annotations

import selectors
import struct
import zlib
from pathlib import Path
from typing import Final

import pytest

from fastscp_ext import UserInformation
from tests.kit import (
    CT,
    DEFLATED,
    Peer,
    Service,
    abort,
    associate_rq,
    data_set,
    echo,
    element,
    pdu,
    store,
    store_rq,
    wait_for,
)

MIB: Final = 1 << 20

# Of a deflated stream: a stored block without bytes, and blocks of the type that is reserved.
EMPTY_BLOCK: Final = b"\x00\x00\x00\xff\xff"
FAULT: Final = b"\x07" * 20


def _memory(service: Service, what: str = "VmRSS") -> int:
    """Of all workers together, in bytes. what: VmHWM is the most there ever was."""
    total = 0
    for pid in service.worker_pids():
        for line in Path("/proc", str(pid), "status").read_text().splitlines():
            if line.startswith(what + ":"):
                total += int(line.split()[1]) * 1024
    return total


def _pdv(header: int, fragment: bytes, context: int = 1) -> bytes:
    return struct.pack(">IBB", len(fragment) + 2, context, header) + fragment


def _short(tag: int, value: int) -> bytes:
    """An element of a command set."""
    return struct.pack("<HHIH", 0, tag, 2, value)


def _read(peer: Peer, n: int) -> bytes:
    got = bytearray()
    while len(got) < n:
        more = peer.socket.recv(min(n - len(got), MIB))
        assert more, f"closed after {len(got)} of {n} bytes"
        got += more
    return bytes(got)


# A peer that does not read --------------------------------------------------------------------


def _queues(local: int, remote: int) -> tuple[int, int] | None:
    """Bytes in the kernel for one end of a connection on 127.0.0.1: (to send, to be read).

    None once no process has that end any more, whatever the kernel still does with it.
    """
    ends = f"0100007F:{local:04X} 0100007F:{remote:04X}"
    for line in Path("/proc/net/tcp").read_text().splitlines():
        words = line.split()
        if f"{words[1]} {words[2]}" == ends and words[9] != "0":
            sending, reading = words[4].split(":")
            return int(sending, 16), int(reading, 16)
    return None


def _fill(service: Service, deaf: Peer, probe: Peer) -> None:
    """Ask, and read no answer, until the kernel takes no more of them and the service keeps some.

    Those are far fewer than make it stop reading, for each step adds only some.
    """
    port = deaf.socket.getsockname()[1]
    probe.send(echo(7))
    answer = probe.read_pdu()
    assert answer is not None
    step, asked = 400, 0
    while True:
        assert asked < 16 * MIB, "the kernel takes everything"
        deaf.send(echo(7) * step)
        asked += step * len(answer)
        wait_for(lambda: (_queues(service.port, port) or (0, 1))[1] == 0, "all requests read")
        # The worker is one thread: its answer here says that those there are written.
        probe.send(echo(7))
        assert probe.read_pdu() == answer
        ours, theirs = _queues(port, service.port), _queues(service.port, port)
        assert ours is not None
        assert theirs is not None
        if theirs[0] + ours[1] < asked:
            return


def test_who_reads_nothing_and_ends_gives_its_place_back(tmp_path: Path) -> None:
    """Unsent responses must not keep a connection that the peer has ended, by either way."""
    with (
        Service(tmp_path, "--max-associations", "3", workers=1) as service,
        service.peer() as probe,
        Peer(service.host, service.port, receive_buffer=1024) as aborting,
        Peer(service.host, service.port, receive_buffer=1024) as closing,
    ):
        for deaf in (aborting, closing):
            answer = deaf.associate(associate_rq())
            assert answer is not None
            assert answer[0] == 2
            _fill(service, deaf, probe)
        places = [deaf.socket.getsockname()[1] for deaf in (aborting, closing)]
        with Peer(service.host, service.port) as early:
            refused = early.associate(associate_rq())
            assert refused is not None
            assert refused[0] == 3
        aborting.send(abort(0, 0))
        closing.half_close()
        wait_for(
            lambda: not any(_queues(service.port, place) for place in places),
            "the end of both connections",
        )
        _places_are_free(service)
        # And it still serves who was there all the time.
        probe.send(echo(9))
        assert probe.read_response().status == 0


def _places_are_free(service: Service) -> None:
    def both() -> bool:
        with Peer(service.host, service.port) as one, Peer(service.host, service.port) as two:
            answers = [peer.associate(associate_rq()) for peer in (one, two)]
            return [answer[0] for answer in answers if answer] == [2, 2]

    wait_for(both, "two places for associations")


# Memory ---------------------------------------------------------------------------------------

FLOOD: Final = 6800
CANCEL: Final = _short(0x0100, 0x0FFF) + _short(0x0800, 0x0101)
ECHO: Final = _short(0x0100, 0x0030) + _short(0x0110, 9) + _short(0x0800, 0x0101)
STORE_NOTHING: Final = _short(0x0100, 0x0001) + _short(0x0110, 9) + _short(0x0800, 0x0101)


@pytest.mark.parametrize(
    ("command", "status"),
    [
        pytest.param(CANCEL, None, id="C-CANCEL"),
        pytest.param(ECHO, 0, id="C-ECHO"),
        pytest.param(STORE_NOTHING, 0xC000, id="C-STORE"),
    ],
)
def test_tiny_commands_behind_an_instance_take_little_memory(
    tmp_path: Path, command: bytes, status: int | None
) -> None:
    """Each waits for its turn behind a response that waits for the disk, and fits 34 bytes."""
    flood = pdu(4, _pdv(3, command) * (FLOOD // 2)) * 2
    with Service(tmp_path, workers=1) as service:
        service.echoes()
        rest = _memory(service)
        peers = [service.peer() for _ in range(20)]
        for n, peer in enumerate(peers):
            peer.send(store(1, sop=f"1.2.{n + 1}") + flood + echo(8))
        for peer in peers:
            assert peer.read_response().status == 0
            if status is not None:
                answer = peer.read_pdu()
                assert answer is not None
                assert struct.pack("<HHIH", 0, 0x0900, 2, status) in answer
                assert _read(peer, len(answer) * (FLOOD - 1)) == answer * (FLOOD - 1)
            last = peer.read_response()
            assert (last.to, last.status) == (8, 0)
            peer.release()
        assert len(service.instances()) == len(peers)
        assert _memory(service, "VmHWM") - rest < 120 * MIB


def test_an_association_does_not_keep_its_request(tmp_path: Path) -> None:
    """A request may have 1 MiB, which is needed until it is answered, and by nobody after that."""
    rq = associate_rq(
        user_information=UserInformation(max_pdu_length=16384, implementation_class_uid="1.2.3.9")
    )
    # Behind the last item of the request: items of a type there is not, which are passed over.
    padding = (b"\x99\x00" + struct.pack(">H", 65000) + bytes(65000)) * 15
    rq = pdu(1, rq[6:] + padding)
    peers: list[Peer] = []
    with Service(tmp_path, workers=1) as service:
        try:
            service.peer().close()
            rest = _memory(service)
            for _ in range(60):
                peers.append(Peer(service.host, service.port))
                answer = peers[-1].associate(rq)
                assert answer is not None
                assert answer[0] == 2
            assert _memory(service) - rest < 24 * MIB
            for peer in peers:
                peer.send(echo(7))
            assert [peer.read_response().status for peer in peers] == [0] * 60
        finally:
            for peer in peers:
                peer.close()


# Turns ----------------------------------------------------------------------------------------


def test_every_association_gets_its_turn(tmp_path: Path) -> None:
    """More synchronous senders than instances may wait for the commit: none is held for ever."""
    senders, each = 600, 8
    asked = [0] * senders
    received = [b""] * senders
    peers: list[Peer] = []
    with Service(tmp_path, workers=1) as service, selectors.DefaultSelector() as selector:

        def ask(n: int) -> None:
            asked[n] += 1
            sop = f"1.2.{n + 1}.{asked[n]}"
            peers[n].send(store(1, data_set(sop=sop, pixels=2), sop=sop))

        def look(n: int) -> bool:
            """Whether a response is complete; it is taken then."""
            received[n] += peers[n].socket.recv(65536)
            end = 6 + int.from_bytes(received[n][2:6], "big")
            if len(received[n]) < max(6, end):
                return False
            # One request at a time, hence one response.
            assert len(received[n]) == end
            assert struct.pack("<HHIH", 0, 0x0900, 2, 0) in received[n]
            received[n] = b""
            return True

        try:
            for n in range(senders):
                peers.append(service.peer())
                selector.register(peers[n].socket, selectors.EVENT_READ, n)
            for n in range(senders):
                ask(n)
            answered = [0] * senders
            while min(answered) < each:
                # In turns this takes up to twice `each` for each, as disk and loop keep up.
                # Who is passed over stays behind for good.
                assert sum(answered) < senders * each * 3, f"some still have {min(answered)}"
                ready = selector.select(20)
                assert ready, "nothing is answered any more"
                for key, _ in ready:
                    if look(key.data):
                        answered[key.data] += 1
                        ask(key.data)
        finally:
            for peer in peers:
                peer.close()
        service.ends_parts()
        assert len(service.instances()) >= sum(answered)


# Deflated data sets ---------------------------------------------------------------------------


def _plain(size: int) -> bytes:
    """A data set whose Study Instance UID is behind `size` bytes that do not deflate."""
    whole = data_set(sop="1.2.9")
    at = whole.index(struct.pack("<HH", 0x0020, 0x000D))
    state, noise = 1, bytearray()
    while len(noise) < size:
        state = state * 6364136223846793005 + 1442695040888963407 & (1 << 64) - 1
        noise += state.to_bytes(8, "big")[:4]
    return whole[:at] + element(0x00190001, b"OB", bytes(noise[:size])) + whole[at:]


def _deflated(data: bytes) -> bytes:
    deflate = zlib.compressobj(wbits=-15)
    packed = deflate.compress(data) + deflate.flush(zlib.Z_FULL_FLUSH)
    return packed + EMPTY_BLOCK * (len(packed) % 2)


def _in_bytes(message_id: int, data: bytes, sop: str) -> bytes:
    """A message whose data set comes in fragments of one byte."""
    pdvs = [_pdv(0, data[n : n + 1]) for n in range(len(data) - 1)]
    pdvs.append(_pdv(2, data[-1:]))
    pdus = [pdu(4, b"".join(pdvs[n : n + 16000])) for n in range(0, len(pdvs), 16000)]
    return pdu(4, _pdv(3, store_rq(message_id, sop=sop))) + b"".join(pdus)


def test_a_late_fault_in_a_deflated_set(tmp_path: Path) -> None:
    """What is in front of the fault counts as if there were none, and others are served."""
    blocks = EMPTY_BLOCK * 600_000
    known = _deflated(data_set(sop="1.2.2")) + blocks
    with (
        Service(tmp_path, workers=1) as service,
        service.peer((1, CT, DEFLATED)) as sender,
        service.peer() as other,
    ):
        # Without a UID in front of the fault; with them all; with them behind the blocks.
        # Each is one fragment, so that as much as one read has is in front of the fault.
        sender.send(store(1, blocks + FAULT, sop="1.2.1", fragment=4 * MIB))
        other.send(echo(7))
        assert other.read_response().status == 0
        sender.send(store(2, known + FAULT, sop="1.2.2", fragment=4 * MIB))
        late = blocks + _deflated(data_set(sop="1.2.3")) + FAULT
        sender.send(store(3, late, sop="1.2.3", fragment=4 * MIB))
        other.send(echo(9))
        assert other.read_response().to == 9
        assert sender.read_statuses(3) == [(1, 0xC000), (2, 0), (3, 0)]
        sender.release()
        other.release()
        assert len(service.instances()) == 2
        assert next(service.data_of(fact["path"]) for fact in service.journal()) == known + FAULT
        service.echoes()


def test_a_deflated_set_in_fragments_of_a_byte(tmp_path: Path) -> None:
    """Each fragment is inflated as it comes, however many there are."""
    early = _deflated(data_set(sop="1.2.1")) + _deflated(_plain(50_000))
    late = _deflated(_plain(100_000))
    with (
        Service(tmp_path, workers=1) as service,
        service.peer((1, CT, DEFLATED)) as sender,
        service.peer() as other,
    ):
        sender.send(_in_bytes(1, early, "1.2.1"))
        sender.send(_in_bytes(2, late, "1.2.9"))
        other.send(echo(7))
        assert other.read_response().status == 0
        assert sender.read_statuses(2) == [(1, 0), (2, 0)]
        sender.release()
        other.release()
        data = [service.data_of(fact["path"]) for fact in service.journal()]
        assert data == [early, late]


# Paths ----------------------------------------------------------------------------------------


def test_a_duplicate_without_room_for_a_version(tmp_path: Path) -> None:
    """Around the longest path there is, an instance is stored or refused, and so is its double."""
    layout = "/".join(["{PatientID}"] * 9 + ["x" * 27, "{AccessionNumber}", "{SOPInstanceUID}.dcm"])
    whole = 9 * 201 + 28 + 191
    outcomes = {}
    with Service(tmp_path, "--layout", layout, workers=1) as service, service.peer() as peer:
        for size in range(2040, 2052):
            sop = "1." + "2" * (size - whole - len("1..dcm"))

            def instance(seed: int, sop: str = sop) -> bytes:
                data = data_set(sop=sop, patient_id="P" * 200, seed=seed)
                at = data.index(struct.pack("<HH", 0x0008, 0x0060))
                number = element(0x00080050, b"SH", b"A" * 190)
                return store(seed, data[:at] + number + data[at:], sop=sop)

            peer.send(instance(1) + instance(2) + instance(2))
            answers = [peer.read_response() for _ in range(3)]
            assert [answer.to for answer in answers] == [1, 2, 2]
            outcomes[size] = [answer.status for answer in answers]
        peer.release()
        stored = [size for size, statuses in outcomes.items() if statuses == [0, 0, 0]]
        refused = [size for size, statuses in outcomes.items() if statuses == [0xC000] * 3]
        assert sorted(stored + refused) == list(outcomes)
        # Longer is never easier.
        assert max(stored) < min(refused)
        sizes = sorted(len(path) for path in service.instances())
        assert sizes == sorted(size + more for size in stored for more in (0, 2))
        service.echoes()


@pytest.mark.parametrize("compress", ["none", "zstd"])
def test_a_version_of_the_longest_name(tmp_path: Path, compress: str) -> None:
    """Around NAME_MAX every name has room for a version mark, or gets a shorter form."""
    layout = "{PatientID}{SOPInstanceUID}.dcm"
    options = ("--layout", layout, "--compress", compress)
    suffix = ".dcm" if compress == "none" else ".dcm.zst"
    with Service(tmp_path, *options, workers=1) as service, service.peer() as peer:
        for size in (44, 45, 46, 51, 52, 55, 64):
            sop = "1." + "2" * (size - 2)
            for seed in (1, 2, 2):
                data = data_set(sop=sop, patient_id="P" * 200, seed=seed)
                peer.send(store(seed, data, sop=sop))
                answer = peer.read_response()
                assert (answer.to, answer.status) == (seed, 0)
        peer.release()
        names = service.instances()
        assert len(names) == 2 * 7
        plain = [name for name in names if "~" not in name.removesuffix("~2")]
        whole = sorted("P" * 200 + "1." + "2" * (size - 2) + suffix for size in (44, 45))
        assert sorted(plain) == sorted([*whole, *(f"{name}~2" for name in whole)])
        cut = [name for name in names if name not in plain]
        assert all(name.startswith("P" * 150 + "~") and len(name) < 182 for name in cut)
        service.echoes()


# Message IDs ----------------------------------------------------------------------------------


def test_message_ids_with_operations_outstanding(tmp_path: Path) -> None:
    """Only what is owed a response has a Message ID in use, and only until it has it."""
    cancel = _pdv(3, _short(0x0100, 0x0FFF) + _short(0x0120, 3) + _short(0x0800, 0x0101))
    # With a data set, which no C-CANCEL has: dropped, and behind the instance in the queue.
    odd = _pdv(3, _short(0x0100, 0x0FFF) + _short(0x0120, 3) + _short(0x0800, 1)) + _pdv(2, b"xy")
    with Service(tmp_path, workers=1) as service, service.peer(window=8) as peer:
        # Message ID 0 is one like others, and a C-CANCEL has none.
        for n, cancels in enumerate((cancel, odd)):
            peer.send(store(3, sop=f"1.2.{n}1") + pdu(4, cancels) + store(0, sop=f"1.2.{n}2"))
            assert peer.read_statuses(2) == [(3, 0), (0, 0)]
        # Twice outstanding, and a third time: that the second was refused changes nothing.
        twice = [store(5, sop=f"1.3.{n + 1}") for n in range(3)]
        peer.send(b"".join(twice) + store(6, sop="1.3.6"))
        assert peer.read_statuses(4) == [(5, 0), (5, 0x0210), (5, 0x0210), (6, 0)]
        # Free again, whether it was stored or refused; 0 and 65535 too.
        for message_id in (5, 5, 6, 0, 65535, 65535, 0):
            peer.send(store(message_id, sop=f"1.4.{message_id + 1}"))
            assert peer.read_statuses(1) == [(message_id, 0)]
        peer.send(store(7, sop="1.5.1", sop_class="bad\\class"))
        assert peer.read_response().status != 0
        peer.send(store(7, sop="1.5.1"))
        assert peer.read_statuses(1) == [(7, 0)]
        peer.release()
    with Service(tmp_path / "other", workers=1) as service, service.peer() as peer:
        # Without operations outstanding by agreement, nobody looks.
        peer.send(store(5, sop="1.3.1") + store(5, sop="1.3.2"))
        assert peer.read_statuses(2) == [(5, 0), (5, 0)]
        peer.release()
