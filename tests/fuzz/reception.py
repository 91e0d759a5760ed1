"""The whole receiver fed with any bytes, into a store that lives as long as one input."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
import time
from functools import cache
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from fastscp_ext import (
    Ciphertext,
    Duplicate,
    Layout,
    Receiver,
    Reception,
    Rules,
    Secured,
    Shared,
    crc32c,
    decode_command,
    decode_pdata,
    encode_command,
    encoding_of,
)
from tests import reference_record
from tests.fuzz import checks, plaintext
from tests.fuzz.build import memory
from tests.raw import Raw

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable

__all__ = ["check", "check_records", "receive"]

CT = b"1.2.840.10008.5.1.4.1.1.2"
# id, abstract syntax, transfer syntax; 9 is no storage context.
CONTEXTS = (
    (1, CT, b"1.2.840.10008.1.2.1"),
    (3, CT, b"1.2.840.10008.1.2"),
    (5, CT, b"1.2.840.10008.1.2.2"),
    (7, CT, b"1.2.840.10008.1.2.1.99"),
    (9, b"1.2.840.10008.1.1", b"1.2.840.10008.1.2"),
    (11, CT, b"1.2.3.4"),
)
DEFLATED = 7
DUPLICATES = ("identical", "kept", "refuse")
# As long as the codec's: more than any input, so only `guard` says where a read ends.
BUFFER = 65536


class Outcome(NamedTuple):
    """What must not depend on how the bytes were cut."""

    pdus: list[tuple[Any, ...]]
    commands: list[tuple[int, bytes]]
    settled: list[tuple[Any, ...]]
    responses: list[bytes]
    files: dict[str, bytes]
    journal: list[bytes]


class Transport:
    """Takes what is written; never full."""

    def __init__(self) -> None:
        self.written = b""

    def write(self, data: bytes) -> None:
        self.written += bytes(data)

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return False

    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...


class Peer(Receiver):
    """An association that notes what it is told."""

    def __init__(self, *_args: Any, judgement: int = 0, **_options: Any) -> None:
        self.outbox.tell_responses_sent = True
        self.judgement = judgement
        self.pdus: list[tuple[Any, ...]] = []
        self.commands: list[tuple[int, bytes]] = []
        self.settled: list[tuple[Any, ...]] = []
        self.outbox.verbose = True
        self.turns = 0

    def connection_made(self, transport: Any) -> None:
        self.detach()
        self.attach(transport, -1)

    def connection_lost(self, _error: Exception | None) -> None:
        self.disconnected()

    def eof_received(self) -> bool:
        return True

    def pdu_received(self, pdu_type: int, pdu: bytes) -> None:
        self.pdus.append(("pdu", pdu_type, pdu))
        if pdu_type == 0x05:
            # A-RELEASE-RQ: what is owed may still be answered.
            self.drop_message()
            self.end_transfer()
        else:
            self.stop()

    def framing_failed(self, source: int, reason: int, text: str, pdu_type: int) -> None:
        self.pdus.append(("failed", source, reason, text, pdu_type))
        self.stop()

    def command_received(self, context_id: int, command: bytes) -> bytes | None:
        self.commands.append((context_id, command))
        field = decode_command(command).command_field or 0
        if field & 0x8000:
            return None
        return encode_command({0x0100: field | 0x8000, 0x0800: 0x0101, 0x0900: 0x0211})

    def class_judged(self, context_id: int, sop_class: bytes) -> int:
        assert len(sop_class) <= 64
        return self.judgement

    def long_pdu(self, length: int) -> bool:
        return self.judgement == 0

    def turn_ended(self) -> None:
        self.turns += 1

    def send_failed(self, error_no: int) -> None:
        raise AssertionError("nothing is sent to a socket")

    def failed(self, error: Exception) -> None:
        raise error

    def responses_sent(self) -> None:
        assert self.outbox.owed == 0

    def instance_answered(
        self,
        instance: str,
        status: int,
        path: str,
        size: int,
        comment: str,
        uid: tuple[str, bytes | None] | None,
    ) -> None:
        # Of a refused instance, how much was read is for the log and depends on the slices; where
        # it would have gone is forgotten while its response waits for others.
        self.settled.append((instance, status, comment, *(() if status else (path, size))))

    def pdu_traced(self, sent: bool, pdu_type: int, length: int) -> None:
        assert length >= 0

    def command_traced(self, sent: bool, context_id: int, command: bytes) -> None:
        decode_command(command)


def contents(store: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(store)): path.read_bytes()
        for path in store.rglob("*") if path.is_file() and path != store / ".fastscp/locks"
    }  # fmt: skip


def without_time(line: bytes) -> bytes:
    """A journal line without its number, its time, its checksum and whether there was an answer."""
    assert line.endswith(b'"}')
    told, _, crc = line.rpartition(b',"crc":"')
    assert f"{crc32c(told):08x}".encode() + b'"}' == crc
    return told[told.index(b'"worker"') :].removesuffix(b',"responded":false')


def receive(
    option: int,
    pieces: Iterable[bytes],
    root: Path,
    allocation: int = 0,
    *,
    secured: Random | None = None,
) -> Outcome:
    """Feed `pieces` to an association of its own, in a store of its own below `root`.

    secured: they are TLS records, and it says when reading pauses.
    """
    store = root / "store"
    incoming = root / "incoming"
    store.mkdir()
    incoming.mkdir()
    (store / ".fastscp").mkdir()
    store_fd, incoming_fd = (os.open(path, os.O_RDONLY) for path in (store, incoming))
    journal_fd = os.open(root / "journal", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    taken: list[Duplicate] = []
    reception = Reception(
        store_fd=store_fd,
        incoming_fd=incoming_fd,
        shared=Shared(),
        worker=0,
        name="w",
        use_link=bool(option & 2),
        implementation=b"1.2.3",
        version=b"FUZZ",
        new_journal=lambda _durable: (journal_fd, 0),
        on_duplicate=taken.append,
        on_error=lambda *_told: None,
        on_complete=lambda _compression: None,
        buffer_bytes=BUFFER,
    )
    rules = Rules(
        layout=Layout(checks.LAYOUTS[0]),
        digest="sha256" if option & 4 else "crc32c",
        on_duplicate="version",
        strict=bool(option & 1),
        durable=False,
        compress_level=0,
        max_instance_size=300 if option & 8 else 0,
    )
    peer = Peer(
        reception, 1, judgement=0x0122 if option & 16 else 0, max_pdu_length=4096, pdata_cap=1 << 20
    )
    peer.outbox.trace = bool(option & 32)
    transport = Transport()
    peer.attach(transport, -1)
    peer.expect_associate(False)
    peer.establish(
        [(number, abstract, syntax, *encoding_of(syntax), abstract == CT)
         for number, abstract, syntax in CONTEXTS],
        rules=rules,
        peer_max_pdu_length=(0, 8, 64, 16384)[option >> 6],
        unique_ids=False,
        journal_members=b',"association":"x"',
        calling_ae=b"SENDER",
        called_ae=b"",
    )  # fmt: skip
    try:
        answer = DUPLICATES[option % len(DUPLICATES)]
        if secured is None:
            feed(peer, pieces, taken, answer, allocation)
        else:
            transport.written = feed_records(peer, pieces, taken, answer, allocation, secured)
    except MemoryError:
        # Only ever an allocation refused on purpose. The loop would close the connection.
        assert allocation
    midway = peer.mid_message
    peer.drop_message()
    assert not peer.mid_message
    while reception.removals:
        time.sleep(0)
    if not allocation:
        assert peer.outbox.owed == 0
        assert reception.uncommitted == 0
        assert not list(incoming.iterdir())
    peer.abandon()
    peer.detach()
    assert reception.rests == 0
    responses = [fragment for pdu in split(transport.written) for *_, fragment in decode_pdata(pdu)]
    journal = [without_time(line) for line in (root / "journal").read_bytes().splitlines()]
    files = contents(store)
    assert all(not name.startswith((".", "/")) for name in files)
    for descriptor in (store_fd, incoming_fd, journal_fd):
        os.close(descriptor)
    return Outcome(
        [*peer.pdus, ("midway", midway)], peer.commands, peer.settled, responses, files, journal
    )


def feed(
    peer: Peer, pieces: Iterable[bytes], taken: list[Duplicate], answer: str, allocation: int
) -> None:
    """As the event loop would, the buffer guarded behind what was read."""
    checks.refuse_allocation(allocation)
    for piece in pieces:
        for at in range(0, len(piece), BUFFER):
            part = piece[at : at + BUFFER]
            memoryview(peer.get_buffer(-1))[: len(part)] = part
            checks.guard(peer, len(part))
            try:
                peer.buffer_updated(len(part))
            finally:
                checks.guard(peer, 0)
            take_turns(peer, taken, answer)
    checks.refuse_allocation(0)


def take_turns(
    peer: Peer,
    taken: list[Duplicate],
    answer: str,
    secured: tuple[Secured, plaintext.Keeper] | None = None,
) -> None:
    """What the loop would do until nothing is due."""
    while True:
        if taken:
            settle(taken.pop(0), answer)
        elif peer.turns:
            peer.turns -= 1
            peer.next_turn()
        elif secured is not None and secured[1].turns:
            secured[1].turns -= 1
            secured[0].next_turn()
        else:
            return


# Reads of whoever does not read what we send, as the receiver counts them.
SENDING = 4


def feed_records(
    peer: Peer,
    pieces: Iterable[bytes],
    taken: list[Duplicate],
    answer: str,
    allocation: int,
    rng: Random,
) -> bytes:
    """As the event loop would, and now and then what was on its way comes though we pause.

    Returns what was sent, decrypted.
    """
    raw, keeper = Raw(), plaintext.Keeper(peer)
    secured = Secured(
        Ciphertext(peer.reception), cast("ssl.SSLContext", plaintext.Context()), keeper
    )
    secured.connection_made(raw)
    checks.refuse_allocation(allocation)
    try:
        for piece in pieces:
            at = 0
            while at < len(piece):
                if rng.randrange(4) == 0:
                    peer.pace.hold(SENDING)
                with memoryview(secured.get_buffer(-1)) as view:
                    part = piece[at : at + len(view)]
                    view[: len(part)] = part
                at += len(part)
                checks.guard(secured, len(part))
                try:
                    secured.buffer_updated(len(part))
                finally:
                    checks.guard(secured, 0)
                if rng.randrange(2) or not keeper.is_shaken:
                    peer.pace.go_on(SENDING)
                    take_turns(peer, taken, answer, (secured, keeper))
                # What was read while it pauses is one buffer, whoever sent it.
                assert secured.rest_bytes <= BUFFER
                if raw.paused and rng.randrange(8):
                    peer.pace.go_on(SENDING)
                    take_turns(peer, taken, answer, (secured, keeper))
        if rng.randrange(2):
            secured.eof_received()
        if rng.randrange(2):
            peer.pace.go_on(SENDING)
            take_turns(peer, taken, answer, (secured, keeper))
    finally:
        # What waits is taken in though the connection is gone.
        secured.connection_lost(None)
        checks.refuse_allocation(0)
    take_turns(peer, taken, answer, (secured, keeper))
    assert secured.rest_bytes == 0
    return reference_record.walk(bytes(raw.sent)).plain


def settle(duplicate: Duplicate, answer: str) -> None:
    if answer == "refuse":
        duplicate.refuse(0xC000, b"exists")
    elif answer == "identical":
        duplicate.accept("identical", duplicate.path)
    else:
        duplicate.accept("kept", duplicate.path)


def split(written: bytes) -> Iterable[bytes]:
    while written:
        size = 6 + int.from_bytes(written[2:6], "big")
        yield written[:size]
        written = written[size:]


@cache
def root() -> Path:
    """A folder for this process: the one it was given, or one that goes when it ends."""
    given = os.environ.get("FUZZ_SCRATCH")
    if given is not None:
        return Path(given)
    made = tempfile.mkdtemp(prefix="fuzz-", dir=memory())
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return Path(made)


def check(option: int, data: bytes, cut: int, allocation: int) -> None:
    """One input, whole and in slices."""
    folder = root()
    outcomes = []
    runs = [[data], checks.slices(data, cut)] if not allocation else [checks.slices(data, cut)]
    for pieces in runs:
        shutil.rmtree(folder / "one", ignore_errors=True)
        (folder / "one").mkdir()
        outcomes.append(receive(option, pieces, folder / "one", allocation))
    shutil.rmtree(folder / "one")
    whole, sliced = outcomes[0], outcomes[-1]
    if any(told[0] == "failed" for told in whole.pdus) or len(whole.pdus) > 1:
        # What breaks the association also cuts the answers off that had not left yet.
        both = min(len(whole.responses), len(sliced.responses))
        assert whole.responses[:both] == sliced.responses[:both]
        sliced = sliced._replace(responses=whole.responses)
    assert whole == sliced


def check_records(option: int, data: bytes, cut: int, allocation: int) -> None:
    """The same bytes as records, cut anywhere, and as the plaintext that is in them."""
    folder = root()
    records = plaintext.FINISHED + data
    runs: list[tuple[Iterable[bytes], Random | None]] = []
    if not allocation:
        runs += [([reference_record.walk(data).plain], None), ([records], Random(cut))]
    runs.append((checks.slices(records, cut), Random(cut)))
    outcomes = []
    for pieces, secured in runs:
        shutil.rmtree(folder / "one", ignore_errors=True)
        (folder / "one").mkdir()
        outcomes.append(receive(option, pieces, folder / "one", allocation, secured=secured))
    shutil.rmtree(folder / "one")
    for found in outcomes[1:]:
        # Whoever is gone, or broke it, is not answered any more, however much was due.
        both = min(len(found.responses), len(outcomes[0].responses))
        assert found.responses[:both] == outcomes[0].responses[:both]
        assert found._replace(responses=outcomes[0].responses) == outcomes[0]
