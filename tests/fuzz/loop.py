"""A worker's loop, played by hand over the real reception: conversations in, invariants watched.

Associations of one reception get their conversations in random cuts, as a loop would give them:
none while reading is paused. Between two cuts a turn of the loop passes, in which what was
committed is answered, duplicates are compared, parts are compressed, peers read or do not read what
was sent. After every step the bounds are looked at. Nothing is timed: it is work that is counted.
"""

from __future__ import annotations

import gc
import os
import random
import select
import shutil
import struct
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Self

from fastscp.store import duplicates
from fastscp.store.journal import Segments
from fastscp.store.names import JOURNAL
from fastscp_ext import (
    Layout,
    Receiver,
    Reception,
    Rules,
    Shared,
    decode_command,
    encode_command,
    encoding_of,
)
from tests.fuzz.build import memory
from tests.fuzz.conversations import due, make
from tests.stores import compressed, end_replacement, replacing

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from fastscp_ext import Compression, Duplicate, Replacement

__all__ = ["Most", "Settings", "converse", "run"]

CT: Final = b"1.2.840.10008.5.1.4.1.1.2"
ELE: Final = b"1.2.840.10008.1.2.1"
ILE: Final = b"1.2.840.10008.1.2"
DEFLATED: Final = b"1.2.840.10008.1.2.1.99"
LAYOUT: Final = "{StudyInstanceUID}/{SeriesInstanceUID}/{SOPInstanceUID}.dcm"
HOLD_SENDING: Final = 4

# What may be owed to one association, complete and unsettled in the worker, unsent to a peer; each
# with what one message, or one write of responses, may add when the bound is reached.
OWED: Final = 64 + 1
UNSETTLED: Final = 2 * (256 + 1)  # of each durability
UNREMOVED: Final = 256 + 1
UNSENT: Final = 65536 + 2 * 65536
# Where a peer is slow to read: when its transport asks to be spared, and when no more.
HIGH_WATER: Final = 65536
# Responses that leave in one step: what was owed, and what one turn answers.
ANSWERED: Final = 2 * 64 + 64
# Bytes kept of reads that paused: of one association, of all.
REST: Final = 1 << 20
STILL_S: Final = 60.0


@dataclass(frozen=True)
class Settings:
    """How the service and its peers are, drawn from a seed."""

    # Of each association: whether its instances are flushed.
    durable: tuple[bool, ...]
    policy: Literal["version", "replace", "keep", "refuse"]
    compress: bool
    associations: int
    peer_max_pdu_length: int
    # Of each association: whether it reads what it is sent.
    deaf: tuple[bool, ...]

    @classmethod
    def of(cls, rng: random.Random) -> Settings:
        count = rng.choice((1, 1, 2, 3))
        return cls(
            durable=tuple(rng.randrange(2) == 0 for _ in range(count)),
            policy=rng.choice(("version", "replace", "keep", "refuse")),
            compress=rng.randrange(6) == 0,
            associations=count,
            peer_max_pdu_length=rng.choice((0, 16384, 64, 8)),
            deaf=tuple(rng.randrange(8) == 0 for _ in range(count)),
        )


@dataclass
class Most:
    """The most there was of everything that is bounded."""

    owed: int = 0
    uncommitted: int = 0
    unsent: int = 0
    parts: int = 0
    answered: int = 0
    rests: int = 0
    steps: int = 0
    responses: int = 0

    def __str__(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in vars(self).items())


class Transport:
    """Keeps what the peer has not read; asks for a pause where that is much, as a loop's does."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self.unsent = bytearray()
        self.read = bytearray()
        self.paused = False
        self._full = False

    def write(self, data: bytes) -> None:
        self.unsent += data
        if len(self.unsent) > HIGH_WATER and not self._full:
            self._full = True
            self._peer.pace.hold(HOLD_SENDING)

    def drain(self, size: int) -> None:
        """Let the peer read so much."""
        self.read += self.unsent[:size]
        del self.unsent[:size]
        if self._full and len(self.unsent) < HIGH_WATER // 4:
            self._full = False
            self._peer.pace.go_on(HOLD_SENDING)

    def get_write_buffer_size(self) -> int:
        return len(self.unsent)

    def is_closing(self) -> bool:
        return False

    def pause_reading(self) -> None:
        assert not self.paused
        self.paused = True

    def resume_reading(self) -> None:
        assert self.paused
        self.paused = False


class Peer(Receiver):
    """An association; what it does beside storing is the least there is."""

    def __init__(self, *_args: Any, loop: Loop, deaf: bool, **_options: Any) -> None:
        self.loop = loop
        self.deaf = deaf
        self.transport = Transport(self)
        self.data = b""
        self.at = 0
        self.broken = False
        self.over = False
        self.attach(self.transport, -1)
        self.expect_associate(False)

    def pdu_received(self, pdu_type: int, pdu: bytes) -> None:
        # A release or an abort: what comes behind it is nobody's.
        self.over = True
        if pdu_type == 5:
            self.drop_message()
            self.end_transfer()
        else:
            self.broken = True
            self.stop()

    def framing_failed(self, source: int, reason: int, text: str, pdu_type: int) -> None:
        self.over = self.broken = True
        self.stop()

    def command_received(self, context_id: int, command: bytes) -> bytes | None:
        request = decode_command(command)
        field, message_id = request.command_field or 0, request.message_id
        if field & 0x8000 or field == 0x0FFF:
            return None
        if message_id is None:
            self.framing_failed(0, 0, "a request without Message ID", 4)
            return None
        return encode_command(
            {0x0100: field | 0x8000, 0x0120: message_id, 0x0800: 0x0101, 0x0900: 0x0211}
        )

    def class_judged(self, context_id: int, sop_class: bytes) -> int:
        return 0

    def long_pdu(self, length: int) -> bool:
        return True

    def turn_ended(self) -> None:
        self.loop.later.append(self.next_turn)

    def send_failed(self, error_no: int) -> None:
        raise AssertionError("there is no socket")

    def failed(self, error: Exception) -> None:
        self.loop.raised.append(error)

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
    ) -> None: ...

    def pdu_traced(self, sent: bool, pdu_type: int, length: int) -> None: ...

    def command_traced(self, sent: bool, context_id: int, command: bytes) -> None: ...

    def answers(self) -> list[tuple[int, int]]:
        """Message ID and command field of the responses it was sent, read or not."""
        data = bytes(self.transport.read + self.transport.unsent)
        found, command, at = [], b"", 0
        while at < len(data):
            (end,) = struct.unpack_from(">I", data, at + 2)
            end += at + 6
            at += 6
            while at < end:
                length, _context, control = struct.unpack_from(">IBB", data, at)
                command += data[at + 6 : at + 4 + length]
                at += 4 + length
                if control & 2:
                    decoded = decode_command(command)
                    assert decoded.message_id_being_responded_to is not None
                    assert decoded.command_field is not None
                    found.append((decoded.message_id_being_responded_to, decoded.command_field))
                    command = b""
        assert command == b""
        return found


class Loop:
    """One reception and its associations; nothing of it is left at the end of a `with` block."""

    def __init__(self, folder: Path, settings: Settings, rng: random.Random, most: Most) -> None:
        self._settings, self._rng, self._most = settings, rng, most
        self.later: list[Callable[[], None]] = []
        self.raised: list[BaseException] = []
        self._jobs: list[Callable[[], None]] = []
        incoming = folder / ".fastscp/incoming/life"
        incoming.mkdir(parents=True)
        (folder / JOURNAL).mkdir()
        self._store_fd = os.open(folder, os.O_RDONLY)
        self._incoming_fd = os.open(incoming, os.O_RDONLY)
        self._segments = [Segments(self._store_fd, "1", writer, durable=False) for writer in "bw"]
        self._shared = Shared()
        self._replaced = replacing(self._store_fd)
        self._replaced.lines.number = self._shared.store.next_sequence
        self._reception = Reception(
            store_fd=self._store_fd, incoming_fd=self._incoming_fd, shared=self._shared, worker=0,
            name="w0", use_link=False, implementation=b"1.2.3",
            version=b"FUZZ", new_journal=lambda durable: self._segments[durable].next(),
            on_duplicate=self._duplicate, on_error=self._error, on_complete=self._complete,
            on_replaced=self._end_replacement,
        )  # fmt: skip
        self.peers = [
            self._associate(deaf, durable)
            for deaf, durable in zip(settings.deaf, settings.durable, strict=True)
        ]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._until(lambda: self._reception.uncommitted == 0 and self._reception.removals == 0)
        for peer in self.peers:
            peer.detach()
        self.peers.clear()
        self.later.clear()
        del self._reception
        for segments in self._segments:
            segments.close()
        self._replaced.lines.close()
        os.close(self._store_fd)
        os.close(self._incoming_fd)

    def _associate(self, deaf: bool, durable: bool) -> Peer:
        peer = Peer(self._reception, 1, loop=self, deaf=deaf, pdata_cap=1 << 20)
        contexts = ((1, CT, ELE), (3, CT, ILE), (7, CT, DEFLATED), (9, b"1.2.840.10008.1.1", ILE))
        peer.establish(
            [(n, abstract, syntax, *encoding_of(syntax), abstract == CT)
             for n, abstract, syntax in contexts],
            rules=Rules(
                layout=Layout(LAYOUT), digest="crc32c", on_duplicate=self._settings.policy,
                strict=False, durable=durable,
                compress_level=1 if self._settings.compress else 0, max_instance_size=0,
            ),
            peer_max_pdu_length=self._settings.peer_max_pdu_length, unique_ids=False,
            journal_members=b"", calling_ae=b"A", called_ae=b"B",
        )  # fmt: skip
        return peer

    # What the reception asks for, done in a later turn

    def _error(self, step: str, error_no: int, path: str) -> None:
        raise AssertionError(f"cannot {step} ({path}): {os.strerror(error_no)}")

    def _duplicate(self, duplicate: Duplicate) -> None:
        resolution = duplicates.Resolution(
            self._store_fd, self._incoming_fd, duplicate.part, duplicate.path,
            policy=duplicate.rules.on_duplicate, durable=False, use_link=False,
            digest=duplicate.digest, replaced=self._replaced,
        )  # fmt: skip
        self._jobs.append(lambda: self._compare(duplicate, resolution))

    def _compare(self, duplicate: Duplicate, resolution: duplicates.Resolution) -> None:
        outcome = resolution.attempt()
        if outcome is None:
            # A lock is taken: another turn.
            self._jobs.append(lambda: self._compare(duplicate, resolution))
        elif outcome.kind == "refused":
            duplicate.refuse(outcome.status, outcome.comment, outcome.error_no)
        else:
            duplicate.accept(outcome.kind, outcome.path, outcome.lock_fd)  # type: ignore[arg-type]

    def _end_replacement(self, replacement: Replacement) -> None:
        self._jobs.append(lambda: end_replacement(self._replaced, replacement))

    def _complete(self, compression: Compression) -> None:
        def compress() -> None:
            compression.done(*compressed(self._incoming_fd, compression.part, 1))

        self._jobs.append(compress)

    # Steps

    def feed(self, peer: Peer) -> None:
        """Give it some more of its conversation, as one read."""
        space = memoryview(peer.get_buffer(-1))
        size = min(self._rng.choice((1, 10, 700, 65536, 1 << 20)), len(space))
        piece = peer.data[peer.at : peer.at + size]
        space[: len(piece)] = piece
        space.release()
        peer.at += len(piece)
        peer.buffer_updated(len(piece))

    def turn(self) -> bool:
        """What the loop does between two reads; whether there was anything."""
        moved = bool(self.later or self._jobs)
        later, self.later = self.later, []
        for call in later:
            call()
            self.look()
        for _ in range(min(len(self._jobs), self._rng.randrange(1, 4))):
            self._jobs.pop(self._rng.randrange(len(self._jobs)))()
            self.look()
        for peer in self.peers:
            if peer.transport.unsent and not peer.deaf:
                peer.transport.drain(self._rng.choice((100, 20_000, 1 << 20)))
                moved = True
                self.look()
        if any(self._settings.durable) and select.select([self._reception.done_fd], [], [], 0)[0]:
            self._reception.release()
            moved = True
        self.look()
        if self.raised:
            raise self.raised[0]
        return moved

    def _until(self, look: Callable[[], bool]) -> None:
        end = time.monotonic() + STILL_S
        while not look():
            assert time.monotonic() < end, "nothing moves any more"
            if not self.turn() and any(self._settings.durable):
                select.select([self._reception.done_fd], [], [], 0.05)

    def look(self) -> None:
        """The bounds, after a step."""
        most, reception = self._most, self._reception
        most.steps += 1
        most.uncommitted = max(most.uncommitted, reception.uncommitted)
        assert reception.uncommitted <= UNSETTLED, f"{reception.uncommitted} uncommitted"
        parts = len(os.listdir(self._incoming_fd))
        most.parts = max(most.parts, parts)
        # One that is being received for each, a second file where one is compressed, and those
        # that a thread is about to remove.
        bound = (UNSETTLED + len(self.peers)) * (2 if self._settings.compress else 1)
        bound += UNREMOVED
        assert parts <= bound, f"{parts} parts"
        most.rests = max(most.rests, reception.rests)
        assert reception.rests <= REST * len(self.peers), f"{reception.rests} bytes of rests"
        for peer in self.peers:
            outbox = peer.outbox
            most.owed = max(most.owed, outbox.owed)
            assert outbox.owed <= OWED, f"{outbox.owed} owed"
            unsent = len(peer.transport.unsent)
            most.unsent = max(most.unsent, unsent)
            assert unsent <= UNSENT, f"{unsent} bytes unsent"

    def done(self, peer: Peer) -> bool:
        """Whether nothing of its conversation is left to be read."""
        return (peer.at == len(peer.data) or peer.over) and peer.rest_bytes == 0

    def finish(self) -> None:
        """Play until every conversation is read and answered, or its peer reads nothing."""
        still_since = time.monotonic()
        while True:
            ready = [p for p in self.peers if not self.done(p) and not p.transport.paused]
            moved = bool(ready)
            if ready:
                peer = self._rng.choice(ready)
                before = len(peer.transport.read) + len(peer.transport.unsent)
                self.feed(peer)
                self._look_at_answers(peer, before)
                self.look()
            moved |= self.turn()
            if moved:
                still_since = time.monotonic()
            elif self._over():
                break
            assert time.monotonic() - still_since < STILL_S, "nothing moves any more"
            if not moved and any(self._settings.durable):
                select.select([self._reception.done_fd], [], [], 0.05)
        read = [self.done(peer) for peer in self.peers]
        stores = sum(self._judge(peer) for peer in self.peers)
        for peer in self.peers:
            peer.abandon()
        self._until(lambda: self._reception.uncommitted == 0)
        assert self._reception.bytes_in_flight == 0
        self._until(lambda: os.listdir(self._incoming_fd) == [])
        if all(read):
            # Each that was complete is stored or refused, whatever became of its association.
            assert self._counted() == stores, "complete, and neither stored nor refused"

    def _over(self) -> bool:
        hearing = [peer for peer in self.peers if not peer.deaf]
        return self._reception.uncommitted == 0 and all(
            self.done(peer) and peer.outbox.owed == 0 for peer in hearing
        )

    def _counted(self) -> int:
        """Instances stored and refused."""
        counts = self._shared.rows.by_ae().values()
        return sum(stored + refused for stored, _size, refused, _unfinished in counts)

    def _look_at_answers(self, peer: Peer, before: int) -> None:
        grown = len(peer.transport.read) + len(peer.transport.unsent) - before
        # A response has 60 bytes at least, whatever it answers.
        answered = grown // 60 if self._settings.peer_max_pdu_length in (0, 16384) else 0
        self._most.answered = max(self._most.answered, answered)
        assert answered <= 3 * ANSWERED, f"{answered} answered in one step"

    def _judge(self, peer: Peer) -> int:
        """Check what was answered; how many of its C-STOREs were complete."""
        wanted = due(peer.data)
        got = peer.answers()
        self._most.responses += len(got)
        assert got == wanted.answers[: len(got)], "out of order, or of nobody's request"
        if self.done(peer) and not peer.broken:
            assert peer.over is wanted.ended
            assert len(got) == len(wanted.answers), "requests without a response"
        assert not peer.broken or wanted.ended
        return wanted.stores


def converse(seed: int, most_bytes: int, folder: Path, most: Most | None = None) -> Most:
    """Play the conversations of a seed; AssertionError where something does not hold."""
    rng = random.Random(seed)
    settings = Settings.of(rng)
    most = most or Most()
    with Loop(folder, settings, rng, most) as loop:
        for peer in loop.peers:
            peer.data = make(rng.randrange(1 << 40), most_bytes)
        try:
            loop.finish()
        except BaseException:
            for peer in loop.peers:
                peer.abandon()
            raise
    return most


def run(seeds: range, most_bytes: int) -> Most:
    """Play those of many seeds, each in a store of its own."""
    most = Most()
    # What others have left to be collected is not ours.
    gc.collect()
    before = sorted(os.listdir("/proc/self/fd"))
    root = Path(tempfile.mkdtemp(prefix="conversations-", dir=memory()))
    try:
        for seed in seeds:
            try:
                converse(seed, most_bytes, root / "one", most)
            except AssertionError as error:
                raise AssertionError(f"seed {seed}: {error}") from error
            finally:
                shutil.rmtree(root / "one", ignore_errors=True)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    # Associations and their transports know each other.
    gc.collect()
    assert sorted(os.listdir("/proc/self/fd")) == before, "descriptors are left"
    return most
