"""The receiving path without a network: bytes in, files, journal and responses out."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import random
import resource
import select
import shutil
import socket
import sys
import threading
import time
import weakref
import zlib
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest

from fastscp.store import duplicates, journal, waits
from fastscp.store.journal import Segments
from fastscp.store.names import JOURNAL, PATH_LOCKS, names_in
from fastscp_ext import (
    CommandSet,
    Duplicate,
    Layout,
    Receiver,
    Reception,
    Replacement,
    Rules,
    Shared,
    build_meta,
    crc32c,
    decode_command,
    decode_pdata,
    encode_command,
    encoding_of,
)
from tests.kit import (
    BIG,
    CT,
    DEFLATED,
    ELE,
    ILE,
    MR,
    SERIES,
    SOP,
    STUDY,
    VERIFICATION,
    abort,
    data_set,
    element,
    message,
    path_of,
    split_pdus,
    store,
    store_rq,
    wait_for,
)
from tests.stores import end_replacement, replacing, resolved
from tests.unit.still import Clock, still

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from fastscp_ext import Compression

LAYOUT = "{StudyInstanceUID}/{SeriesInstanceUID}/{SOPInstanceUID}.dcm"
PRIVATE_SYNTAX = "1.2.3.4.5"
IMPLEMENTATION = b"1.2.3.77"
VERSION = b"UNIT_TEST"
JPEG = "1.2.840.10008.1.2.4.70"
CONTEXTS = (
    (1, CT, ELE), (3, CT, ILE), (5, CT, BIG), (7, CT, DEFLATED), (9, CT, PRIVATE_SYNTAX),
    (13, CT, JPEG),
)  # fmt: skip
# Of the clock in <linux/time.h>; Python has no name for it.
MONOTONIC_COARSE = 6
ECHO_RSP = encode_command({0x0100: 0x8030, 0x0120: 99, 0x0800: 0x0101, 0x0900: 0})
ECHO_RQ = encode_command({0x0002: VERIFICATION, 0x0100: 0x0030, 0x0110: 99, 0x0800: 0x0101})

pytestmark = pytest.mark.usefixtures("no_descriptor_left")


@dataclass
class FakeTransport:
    """What a receiver needs of a transport; `held` bytes count as not yet sent.

    deaf: whether the peer reads nothing. `full` is told then as the loop tells a protocol.
    """

    sent: bytearray = field(default_factory=bytearray)
    paused: bool = False
    held: int = 0
    pauses: int = 0
    deaf: bool = False
    full: Callable[[], object] = lambda: None

    def write(self, data: bytes) -> None:
        self.sent += data
        if self.deaf:
            before, self.held = self.held, self.held + len(data)
            if before <= 65536 < self.held:
                self.full()

    def get_write_buffer_size(self) -> int:
        return self.held

    def is_closing(self) -> bool:
        return False

    def pause_reading(self) -> None:
        assert not self.paused
        self.paused = True
        self.pauses += 1

    def resume_reading(self) -> None:
        assert self.paused
        self.paused = False


class Association(Receiver):
    """Notes what it is told, and answers every command with the same bytes."""

    def __init__(self, reception: Reception, number: int, **_options: object) -> None:
        pace = self.pace
        self.transport = FakeTransport(full=lambda: pace.hold(4))
        self.pdus: list[tuple[int, bytes]] = []
        self.failures: list[tuple[int, int, str]] = []
        self.settled: list[tuple[str, int, str, int, str]] = []
        self.blamed: list[tuple[str, bytes | None] | None] = []
        self.long: list[int] = []
        self.traced: list[tuple[bool, int, int]] = []
        self.commands: list[tuple[bool, int, CommandSet]] = []
        self.all_sent = 0
        self.turns = 0
        self.bugs: list[str] = []
        self.unsendable: list[int] = []
        self.outbox.tell_responses_sent = True
        self.class_status = 0x0122
        self.tolerant = True
        self.attach(self.transport, -1)

    def pdu_received(self, pdu_type: int, pdu: bytes) -> None:
        self.pdus.append((pdu_type, pdu))

    def framing_failed(self, source: int, reason: int, text: str, pdu_type: int) -> None:
        self.failures.append((source, reason, text))
        self.stop()

    def command_received(self, context_id: int, command: bytes) -> bytes | None:
        field_ = decode_command(command).command_field
        return ECHO_RSP if field_ == 0x0030 else None

    def class_judged(self, context_id: int, sop_class: bytes) -> int:
        return self.class_status

    def long_pdu(self, length: int) -> bool:
        self.long.append(length)
        return self.tolerant

    def turn_ended(self) -> None:
        self.turns += 1

    def failed(self, error: Exception) -> None:
        # Not the error itself: its traceback would keep everything alive.
        self.bugs.append(str(error))
        self.stop()

    def send_failed(self, error_no: int) -> None:
        self.unsendable.append(error_no)
        self.detach()

    def responses_sent(self) -> None:
        self.all_sent += 1

    def instance_answered(
        self,
        instance: str,
        status: int,
        path: str,
        size: int,
        comment: str,
        uid: tuple[str, bytes | None] | None,
    ) -> None:
        self.settled.append((instance, status, path, size, comment))
        self.blamed.append(uid)

    def pdu_traced(self, sent: bool, pdu_type: int, length: int) -> None:
        self.traced.append((sent, pdu_type, length))

    def command_traced(self, sent: bool, context_id: int, command: bytes) -> None:
        self.commands.append((sent, context_id, decode_command(command)))

    # What the tests look at

    def responses(self) -> list[CommandSet]:
        """The responses sent so far, put together from their fragments."""
        found, command = [], b""
        for pdu in split_pdus(bytes(self.transport.sent)):
            for _context, header, fragment in decode_pdata(pdu):
                command += fragment
                if header & 2:
                    found.append(decode_command(command))
                    command = b""
        assert not command
        return found

    def statuses(self) -> list[int | None]:
        return [one.status for one in self.responses()]


TREATMENT = {"strict", "digest", "max_instance_size", "compress_level", "discard"}


def rules(**changed: Any) -> Rules:
    settings: dict[str, Any] = {
        "layout": Layout(LAYOUT), "digest": "crc32c", "on_duplicate": "version", "strict": False,
        "durable": False, "compress_level": 0, "max_instance_size": 0,
    }  # fmt: skip
    return Rules(**settings | changed)


def _nothing_to_compress(_compression: Compression) -> None:
    pytest.fail("nothing is to be compressed")


class Site:
    """A store and a reception over it; nothing may be left undone at the end of a `with` block.

    shared, life: of another worker at the same store.
    """

    def __init__(
        self,
        folder: Path,
        *,
        durable: bool = False,
        layout: str = LAYOUT,
        policy: str = "version",
        new_journal: Callable[[bool], tuple[int, int] | tuple[int, int, str]] | None = None,
        on_complete: Callable[[Compression], object] = _nothing_to_compress,
        shared: Shared | None = None,
        life: str = "life",
        **options: Any,
    ) -> None:
        self.store = folder
        self.incoming = folder / ".fastscp" / "incoming" / life
        self.incoming.mkdir(parents=True)
        (folder / JOURNAL).mkdir(exist_ok=True)
        self.durable = durable
        self.store_fd = os.open(folder, os.O_RDONLY)
        self.incoming_fd = os.open(self.incoming, os.O_RDONLY)
        self.segments = {
            kind: Segments(self.store_fd, "1", f"{life}w" if kind else f"{life}wb", durable=kind)
            for kind in (False, True)
        }
        self.shared = shared or Shared()
        self.errors: list[tuple[str, int, str]] = []
        self.waiting: list[Duplicate] = []
        self.resolve_at_once = True
        self.numbers = 0
        self.ones: weakref.WeakSet[Association] = weakref.WeakSet()
        self.rules = rules(
            layout=Layout(layout),
            on_duplicate=policy,
            durable=durable,
            **{name: options.pop(name) for name in TREATMENT & options.keys()},
        )
        self.use_link = options.setdefault("use_link", False)
        self.replaced = replacing(self.store_fd)
        self.replaced.lines.number = self.shared.store.next_sequence
        self.reception = Reception(
            store_fd=self.store_fd, incoming_fd=self.incoming_fd, shared=self.shared, worker=3,
            name="w3", implementation=IMPLEMENTATION, version=VERSION,
            new_journal=new_journal or (lambda durable: self.segments[durable].next()),
            on_duplicate=self._duplicate,
            on_error=lambda *error: self.errors.append(error),
            on_complete=on_complete,
            on_replaced=self._replaced,
            **options,
        )  # fmt: skip

    def __enter__(self) -> Site:
        return self

    def __exit__(self, *error: object) -> None:
        try:
            if self.durable:
                self.until(lambda: self.reception.uncommitted == 0)
            if error[0] is None:
                assert self.reception.uncommitted == self.reception.bytes_in_flight == 0
        finally:
            self.removed()
            for segments in self.segments.values():
                segments.close()
            self.replaced.lines.close()
            os.close(self.store_fd)
            os.close(self.incoming_fd)
            # Its descriptors go with it.
            del self.reception, self.shared, self.replaced
            self.waiting.clear()

    def associate(
        self,
        *,
        rules: Rules | None = None,
        peer_max_pdu_length: int = 0,
        unique_ids: bool = False,
        ae_row: int = 0,
        tally: int = -1,
        **options: Any,
    ) -> Association:
        self.numbers += 1
        one = Association(self.reception, self.numbers, **options)
        self.ones.add(one)
        self.establish(
            one,
            rules=rules,
            peer_max_pdu_length=peer_max_pdu_length,
            unique_ids=unique_ids,
            ae_row=ae_row,
            tally=tally,
        )
        return one

    def establish(
        self,
        one: Association,
        *,
        rules: Rules | None = None,
        peer_max_pdu_length: int = 0,
        unique_ids: bool = False,
        ae_row: int = 0,
        tally: int = -1,
    ) -> None:
        # Whether something may be committed off the loop.
        self.durable = self.durable or (rules or self.rules).durable
        contexts = [
            (number, abstract.encode(), syntax.encode(), *encoding_of(syntax.encode()), True)
            for number, abstract, syntax in CONTEXTS
        ]
        verification = (11, VERIFICATION.encode(), ILE.encode(), 1, False, False)
        one.establish(
            [*contexts, verification],
            rules=rules or self.rules,
            peer_max_pdu_length=peer_max_pdu_length,
            unique_ids=unique_ids,
            journal_members=b',"association":"x.%d"' % one.number,
            calling_ae=b"SENDER",
            called_ae=b"RECEIVER",
            ae_row=ae_row,
            tally=tally,
        )

    def feed(self, one: Association, data: bytes, cuts: Iterable[int] = ()) -> None:
        """Give the receiver bytes as a loop would: in pieces, and none while it is paused."""
        places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
        for begin, end in pairwise(places):
            at = begin
            while at < end:
                self.until(lambda: not one.transport.paused)
                at += self.read(one, data[at:end])
        self.take_turns()

    @staticmethod
    def read(one: Association, data: bytes) -> int:
        """One read, of no more than the receiver asks for; how much that was."""
        with memoryview(one.get_buffer(-1)) as view:
            piece = data[: len(view)]
            view[: len(piece)] = piece
            one.buffer_updated(len(piece))
        return len(piece)

    def take_turns(self, most: int = 1_000_000) -> int:
        """Turns of the loop as long as anybody asks for one; how many there were."""
        turns = 0
        while turns < most and (asking := [one for one in self.ones if one.turns]):
            turns += 1
            for one in sorted(asking, key=lambda one: one.number):
                one.turns -= 1
                one.next_turn()
        return turns

    def until(self, look: Callable[[], bool]) -> None:
        """Wait for what is committed elsewhere."""
        end = time.monotonic() + 20
        while not look():
            if self.take_turns():
                continue
            assert self.durable, "nothing will change it"
            assert time.monotonic() < end
            if select.select([self.reception.done_fd], [], [], 0.05)[0]:
                self.reception.release()

    def settle(self, one: Association) -> None:
        self.until(lambda: one.outbox.owed == 0 and not one.rest_bytes)

    def _duplicate(self, duplicate: Duplicate) -> None:
        if self.resolve_at_once:
            self.resolve(duplicate)
        else:
            self.waiting.append(duplicate)

    def _replaced(self, replacement: Replacement) -> None:
        end_replacement(self.replaced, replacement)

    def resolve(self, duplicate: Duplicate) -> None:
        resolution = duplicates.Resolution(
            self.store_fd, self.incoming_fd, duplicate.part, duplicate.path,
            policy=duplicate.rules.on_duplicate, durable=duplicate.rules.durable,
            use_link=self.use_link, digest=duplicate.digest, replaced=self.replaced,
        )  # fmt: skip
        outcome = resolved(resolution)
        if outcome.kind == "refused":
            duplicate.refuse(outcome.status, outcome.comment, outcome.error_no)
        else:
            kind: Literal["identical", "version", "replaced", "kept"] = outcome.kind  # type: ignore[assignment]
            duplicate.accept(kind, outcome.path, outcome.lock_fd)

    def files(self) -> dict[str, bytes]:
        return {
            str(path.relative_to(self.store)): path.read_bytes()
            for path in sorted(self.store.rglob("*"))
            if path.is_file() and ".fastscp" not in path.parts
        }

    def parts(self) -> list[str]:
        self.removed()
        return sorted(names_in(self.incoming_fd))

    def removed(self) -> None:
        """Wait until what was dropped is closed and removed."""
        wait_for(lambda: self.reception.removals == 0, "the end of dropped parts")

    def counted(self) -> tuple[int, int]:
        """Instances stored and refused, as counted; every family must have the same."""
        rows = self.shared.rows
        families = (rows.by_ae(), rows.by_transfer_syntax(), rows.by_status())
        sums = {
            tuple(map(sum, zip(*family.values(), strict=True))) or (0, 0, 0, 0)
            for family in families
        }
        ((instances, _size, refused, _unfinished),) = sums
        return instances, refused

    def journal(self) -> list[dict[str, Any]]:
        found = []
        for name in journal.segment_names(self.store_fd):
            for line in (self.store / JOURNAL / name).read_bytes().splitlines():
                fact = journal.parse_line(line)
                assert fact is not None, line
                found.append(fact)
        return found


def clock() -> float:
    """The receiver's, in seconds; it stands still for milliseconds at a time."""
    return time.clock_gettime(MONOTONIC_COARSE)


def next_tick() -> None:
    """Wait until the receiver's clock has gone on."""
    began = clock()
    while clock() == began:
        select.select([], [], [], 0.001)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with Site(tmp_path / "store") as made:
        yield made


def meta(sop: str = SOP, syntax: str = ELE, sop_class: str = CT) -> bytes:
    return build_meta(
        sop_class.encode(), sop.encode(), syntax.encode(), IMPLEMENTATION, VERSION,
        b"SENDER", b"RECEIVER",
    )  # fmt: skip


def one_pdu(command: bytes, data: bytes, context: int = 1) -> bytes:
    """A message as a single P-DATA-TF of three PDVs."""
    from fastscp_ext import encode_pdata

    half = len(data) // 2 & ~1
    return encode_pdata(
        [(context, 3, command), (context, 0, data[:half]), (context, 2, data[half:])]
    )


# Stored ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("context", "syntax"), [(n, syntax) for n, _, syntax in CONTEXTS])
@pytest.mark.parametrize("fragment", [2, 100, 16000])
def test_every_syntax_is_stored_as_sent(
    site: Site, context: int, syntax: str, fragment: int
) -> None:
    data = data_set(ELE if syntax == PRIVATE_SYNTAX else syntax)
    one = site.associate()
    site.feed(one, message(store_rq(7), data, context=context, fragment=fragment))
    (response,) = one.responses()
    assert response.status == 0
    assert response.message_id_being_responded_to == 7
    assert response.affected_sop_class_uid == CT
    assert response.affected_sop_instance_uid == SOP
    assert not response.has_data_set
    assert site.files() == {path_of(): meta(syntax=syntax) + data}
    assert site.parts() == []
    assert one.outbox.stored == 1
    assert one.all_sent == 1
    assert site.counted() == (1, 0)


def test_the_journal_line(site: Site) -> None:
    data = data_set()
    rq = store_rq(5, more={0x1030: "MOVER", 0x1031: 77})
    before = time.time()
    one = site.associate()
    site.feed(one, message(rq, data))
    (fact,) = site.journal()
    when = fact.pop("time")
    assert when.endswith("Z")
    assert abs(datetime.fromisoformat(when).timestamp() - before) < 60
    fact.pop("crc")
    assert fact == {
        "v": 1,
        "event": "stored",
        "seq": 1,
        "worker": "w3",
        "association": "x.1",
        "move_originator_ae": "MOVER",
        "move_originator_message_id": 77,
        "message_id": 5,
        "sop_class_uid": CT,
        "sop_instance_uid": SOP,
        "study_instance_uid": STUDY,
        "series_instance_uid": SERIES,
        "transfer_syntax_uid": ELE,
        "path": path_of(),
        "bytes": len(data),
        "digest": f"crc32c:{crc32c(data):08x}",
        "durability": "buffered",
    }


@pytest.mark.parametrize("more", [{}, {0x1031: b"\x4d\0\0\0"}])
def test_a_move_originator_without_a_message_id(site: Site, more: dict[int, bytes]) -> None:
    """Absent, or of 4 bytes: none is made up."""
    one = site.associate()
    site.feed(one, message(store_rq(5, more={0x1030: "MOVER", **more}), data_set()))
    (fact,) = site.journal()
    assert fact["move_originator_ae"] == "MOVER"
    assert "move_originator_message_id" not in fact


@pytest.mark.parametrize("digest", ["none", "crc32c", "sha256"])
def test_digest(tmp_path: Path, digest: str) -> None:
    data = data_set(pixels=5000)
    with Site(tmp_path / "store", digest=digest) as site:
        one = site.associate()
        site.feed(one, message(store_rq(), data, fragment=333))
        (fact,) = site.journal()
    expected = {
        "none": None,
        "crc32c": f"crc32c:{crc32c(data):08x}",
        "sha256": f"sha256:{hashlib.sha256(data).hexdigest()}",
    }
    assert fact.get("digest") == expected[digest]


def test_a_deflated_stream_with_its_pad_byte(site: Site) -> None:
    # Names come from the inflated bytes, the file keeps the deflated ones.
    deflate = zlib.compressobj(wbits=-15)
    data = deflate.compress(data_set(sop="1.2.9")) + deflate.flush()
    data += b"\0"
    one = site.associate()
    site.feed(one, message(store_rq(sop="1.2.9"), data, context=7, fragment=10))
    assert one.statuses() == [0]
    assert site.files() == {path_of("1.2.9"): meta("1.2.9", DEFLATED) + data}


def test_naming_by_link(tmp_path: Path) -> None:
    with Site(tmp_path / "store", use_link=True) as site:
        one = site.associate()
        site.feed(one, store(1) + store(2) + store(3, data_set(seed=1)))
        assert one.statuses() == [0, 0, 0]
        assert list(site.files()) == [path_of(), path_of() + "~2"]
        assert [fact.get("duplicate") for fact in site.journal()] == [None, "identical", "version"]
        assert site.parts() == []
        assert all(os.stat(site.store / name).st_nlink == 1 for name in site.files())


def stream() -> bytes:
    """Two stores, one of them in a single PDU and one with an empty last fragment, and an echo."""
    small = data_set(pixels=16)
    first = message(store_rq(1), small, fragment=64)
    last = one_pdu(store_rq(2, sop="1.2.8"), data_set(sop="1.2.8", pixels=16))
    return first + message(ECHO_RQ, context=11) + last


def test_cut_at_every_offset(site: Site) -> None:
    data = stream()
    whole = site.associate()
    site.feed(whole, data)
    files = site.files()
    assert whole.statuses() == [0, 0, 0]
    assert len(files) == 2
    for at in range(1, len(data)):
        shutil.rmtree(site.store / STUDY)
        one = site.associate()
        site.feed(one, data, [at])
        assert one.transport.sent == whole.transport.sent, at
        assert site.files() == files, at
    assert site.parts() == []
    assert site.errors == []


@pytest.mark.parametrize("seed", range(4))
def test_cut_at_random(site: Site, seed: int) -> None:
    data = stream()
    random_ = random.Random(seed)
    cuts = range(len(data)) if seed == 0 else random_.sample(range(len(data)), 40 * seed)
    one, whole = site.associate(), site.associate()
    site.feed(one, data, cuts)
    files = site.files()
    shutil.rmtree(site.store / STUDY)
    site.feed(whole, data)
    assert one.transport.sent == whole.transport.sent
    assert site.files() == files


def test_a_data_set_larger_than_the_buffer(tmp_path: Path) -> None:
    data = data_set(pixels=3_000_000)
    with Site(tmp_path / "store", buffer_bytes=65536) as site:
        one = site.associate()
        site.feed(one, message(store_rq(), data, fragment=100_000))
        assert one.statuses() == [0]
        assert site.files() == {path_of(): meta() + data}


@pytest.mark.parametrize("durable", [False, True])
def test_two_hundred_pipelined(tmp_path: Path, durable: bool) -> None:
    with Site(tmp_path / "store", durable=durable) as site:
        one = site.associate()
        data = b"".join(
            store(n, data_set(sop=f"1.2.{n}", pixels=64), sop=f"1.2.{n}") for n in range(200)
        )
        site.feed(one, data)
        site.settle(one)
        assert one.statuses() == [0] * 200
        answered = [response.message_id_being_responded_to for response in one.responses()]
        assert answered == list(range(200))
        assert len(site.files()) == 200
        assert [fact["seq"] for fact in site.journal()] == list(range(1, 201))
        assert one.transport.pauses > 0
        assert not one.transport.paused


def test_durable_and_buffered_store_the_same(tmp_path: Path) -> None:
    kept = []
    for durable in (False, True):
        with Site(tmp_path / f"store-{durable}", durable=durable) as site:
            one = site.associate()
            for n, syntax in enumerate((ELE, ILE, BIG, DEFLATED)):
                sop = f"1.2.7.{n}"
                data = data_set(syntax, sop=sop)
                site.feed(one, message(store_rq(n, sop=sop), data, context=2 * n + 1))
                # Let each be journaled before the next is, for the order of the lines.
                site.settle(one)
            site.feed(one, store(9, sop="../up"))
            site.settle(one)
            facts = site.journal()
            for fact in facts:
                del fact["time"], fact["crc"]
                assert fact.pop("durability", "stable") == ("stable" if durable else "buffered")
            kept.append((site.files(), facts, bytes(one.transport.sent)))
    assert kept[0] == kept[1]
    assert len(kept[0][0]) == 4


# Refused -----------------------------------------------------------------------------------------

# Command set, data set or None, strict, status.
REFUSED: dict[str, tuple[bytes, bytes | None, bool, int]] = {
    "no data set": (store_rq(more={0x0800: 0x0101}), None, False, 0xC000),
    "empty data set": (store_rq(), b"", False, 0xC000),
    "no instance uid": (store_rq(sop=None), data_set(), False, 0x0117),
    "a uid that climbs": (store_rq(sop="1/../../2"), data_set(sop="1/../../2"), False, 0x0117),
    "a uid of 65": (store_rq(sop=b"1." * 32 + b"11"), data_set(), False, 0x0117),
    "no usable class": (store_rq(sop_class="a b"), data_set(), False, 0x0122),
    "a class of 200 bytes": (store_rq(sop_class=b"1" * 200), data_set(), False, 0x0122),
    "another class": (store_rq(sop_class=MR), data_set(), False, 0x0122),
    "another instance inside": (store_rq(), data_set(sop="1.2.3"), False, 0xA900),
    "another class inside": (store_rq(), data_set(sop_class=MR), False, 0xA900),
    "no study": (store_rq(), data_set(study=""), False, 0xC000),
    "no series": (store_rq(), data_set(series=""), False, 0xC000),
    "neither": (store_rq(), data_set(study="", series=""), False, 0xC000),
    "a study that is no name": (store_rq(), data_set(study="1.2/3"), False, 0x0117),
    "garbage": (store_rq(), b"\xff" * 300, False, 0xC000),
    "cut, strict": (store_rq(), data_set()[:-3], True, 0xC000),
    "letters, strict": (store_rq(sop="1.2.a"), data_set(sop="1.2.a"), True, 0x0117),
    "file header, strict": (store_rq(), meta() + data_set(), True, 0xC000),
    "header without end": (store_rq(), meta()[:200], False, 0xC000),
    "header and nothing": (store_rq(), meta(), False, 0xC000),
    "header garbled": (store_rq(), meta()[:160] + b"\0" * 200, False, 0xC000),
    "header without syntax": (store_rq(), meta(syntax="") + data_set(ILE), False, 0xC000),
    "header of unknown syntax": (store_rq(), meta(syntax="1.2.3") + data_set(ILE), False, 0xC000),
    "header of another syntax": (store_rq(), meta(syntax=BIG) + data_set(ILE), False, 0xC000),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("fragment", [40, 16000])
def test_refused(tmp_path: Path, name: str, fragment: int) -> None:
    command, data, strict, status = REFUSED[name]
    with Site(tmp_path / "store", strict=strict) as site:
        one = site.associate()
        site.feed(one, message(command, data, fragment=fragment) + store(2, sop="1.2.99"))
        assert one.statuses() == [status, 0]
        assert list(site.files()) == [path_of("1.2.99")]
        assert site.parts() == []
        first = one.responses()[0]
        assert first.error_comment
        request = decode_command(command)
        for tag in (0x0002, 0x1000):
            if len(request.elements.get(tag, b"")) <= 128:
                assert first.elements.get(tag) == request.elements.get(tag)
        assert [entry[1] for entry in one.settled] == [status]
        assert (one.outbox.stored, one.outbox.refused) == (1, 1)
        assert site.counted() == (1, 1)
        assert site.errors == []


# Of the refused ones those that a UID is to blame for: its name, and as it came.
BLAMED: dict[str, tuple[str, bytes | None]] = {
    "no usable class": ("SOP Class UID", b"a b"),
    "another class": ("SOP Class UID", MR.encode()),
    "another instance inside": ("SOP Instance UID", b"1.2.3"),
    "another class inside": ("SOP Class UID", MR.encode()),
    "no study": ("Study Instance UID", b""),
    "no series": ("Series Instance UID", b""),
    "neither": ("Study and Series Instance UID", None),
    "garbage": ("Study and Series Instance UID", b""),
    "header garbled": ("Study and Series Instance UID", b""),
    "a study that is no name": ("Study Instance UID", b"1.2/3"),
    "letters, strict": ("SOP Instance UID", b"1.2.a"),
    "a class of 200 bytes": ("SOP Class UID", b""),
}


@pytest.mark.parametrize("waits", [False, True])
def test_which_uid_a_refusal_is_about(tmp_path: Path, waits: bool) -> None:
    """Also where its answer waits behind another one's, and little of it is kept."""
    for name, (command, data, strict, _status) in REFUSED.items():
        with Site(tmp_path / name.replace(" ", "-"), strict=strict) as site:
            site.resolve_at_once = not waits
            one = site.associate()
            site.feed(one, store(7, sop="1.2.98") + store(8, sop="1.2.98"))
            site.feed(one, message(command, data))
            assert len(one.settled) == (not waits)
            while site.waiting:
                site.resolve(site.waiting.pop())
            assert one.blamed == [BLAMED.get(name)], name


def test_an_unusable_uid_is_told_as_far_as_it_fits(site: Site) -> None:
    one = site.associate()
    site.feed(one, store(1, data_set(series="9" * 1000)) + store(2, data_set(series="\r\n1/2 ")))
    (first, second) = one.blamed
    assert first is not None
    assert first[0] == "Series Instance UID"
    assert first[1] in (b"9" * 128, b"9" * 65)
    assert second == ("Series Instance UID", b"1/2")


@pytest.mark.parametrize(
    ("study", "series", "tags"),
    [("", "1.2", (0x0020000D,)), ("1.2", "", (0x0020000E,)), ("", "", (0x0020000D, 0x0020000E))],
)
def test_offending_elements(site: Site, study: str, series: str, tags: tuple[int, ...]) -> None:
    one = site.associate()
    site.feed(one, message(store_rq(), data_set(study=study, series=series)))
    assert one.responses()[0].offending_elements == tags


def test_uids_go_back_as_they_came(site: Site) -> None:
    padded = SOP.encode() + b" "
    assert len(padded) % 2 == 0
    one = site.associate()
    site.feed(one, message(store_rq(sop=padded, sop_class=CT.encode() + b"\0\0"), data_set()))
    (response,) = one.responses()
    assert response.status == 0
    assert response.elements[0x1000] == padded
    assert response.elements[0x0002] == CT.encode() + b"\0\0" + b"\0" * (len(CT) % 2)


def test_a_class_left_out_is_the_contexts(site: Site) -> None:
    one = site.associate()
    site.feed(one, message(store_rq(sop_class=None), data_set()))
    assert one.statuses() == [0]
    assert site.files() == {path_of(): meta() + data_set()}


def test_another_class_where_it_is_let_in(site: Site) -> None:
    one = site.associate()
    one.class_status = 0
    data = data_set(sop_class=MR)
    site.feed(one, message(store_rq(sop_class=MR), data))
    assert one.statuses() == [0]
    assert site.files() == {path_of(): meta(sop_class=MR) + data}


@pytest.mark.parametrize("name", ["truncated", "odd_uid", "syntax_mismatch"])
def test_tolerated_and_told(site: Site, name: str) -> None:
    sop, data, context = {
        "truncated": (SOP, data_set()[:-3], 1),
        "odd_uid": ("1.2.a", data_set(sop="1.2.a"), 1),
        "syntax_mismatch": (SOP, data_set(), 3),
    }[name]
    one = site.associate()
    site.feed(one, message(store_rq(sop=sop), data, context=context))
    assert one.statuses() == [0]
    (fact,) = site.journal()
    assert fact[name] is True
    assert fact["bytes"] == len(data)
    assert next(iter(site.files().values())).endswith(data)


@pytest.mark.parametrize("more", [0, 1])
def test_the_largest_instance(tmp_path: Path, more: int) -> None:
    data = data_set(pixels=4000)
    with Site(tmp_path / "store", max_instance_size=len(data) - more) as site:
        one = site.associate()
        site.feed(one, message(store_rq(), data, fragment=1000) + message(ECHO_RQ, context=11))
        assert one.statuses() == [0xA700 if more else 0, 0]
        assert len(site.files()) == 1 - more
        assert site.parts() == []


def test_a_message_id_still_outstanding(site: Site) -> None:
    site.feed(site.associate(), store(1))
    site.resolve_at_once = False
    for unique, status in ((True, 0x0210), (False, 0)):
        one = site.associate(unique_ids=unique)
        # The same instance again: its answer has to wait for the comparison.
        site.feed(one, store(5))
        site.feed(one, store(5, sop=f"1.2.5.{status}"))
        assert one.statuses() == []
        site.resolve(site.waiting.pop())
        assert one.statuses() == [0, status]
        # Answered, the id is free again.
        site.feed(one, store(5, sop=f"1.2.6.{status}"))
        assert one.statuses() == [0, status, 0]


# An embedded header ------------------------------------------------------------------------------


@pytest.mark.parametrize("preamble", [True, False])
@pytest.mark.parametrize("inner", [ELE, ILE, BIG])
@pytest.mark.parametrize("fragment", [2, 50, 16000])
def test_a_file_header_is_taken_off(site: Site, preamble: bool, inner: str, fragment: int) -> None:
    data = data_set(inner)
    header = build_meta(CT.encode(), SOP.encode(), inner.encode(), b"9.9", b"X", b"Y", b"")
    if not preamble:
        header = header[132:]
    one = site.associate()
    site.feed(one, message(store_rq(), header + data, fragment=fragment))
    assert one.statuses() == [0]
    assert site.files() == {path_of(): meta(syntax=inner) + data}
    (fact,) = site.journal()
    assert fact["stripped"] == len(header)
    assert fact["bytes"] == len(data)
    assert fact["transfer_syntax_uid"] == inner
    assert fact["digest"] == f"crc32c:{crc32c(data):08x}"
    assert "syntax_mismatch" not in fact


def test_what_only_looks_like_a_header(site: Site) -> None:
    # A value in the data set that spells the magic word.
    data = element(0x00080005, b"CS", b"x" * 120 + b"DICM") + data_set()
    one = site.associate()
    site.feed(one, message(store_rq(), data, fragment=7))
    assert one.statuses() == [0]
    assert site.files() == {path_of(): meta() + data}
    assert "stripped" not in site.journal()[0]


# Responses ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("longest", [0, 8, 9, 10, 16, 100, 131072])
def test_responses_fit_the_peer(site: Site, longest: int) -> None:
    one, free = site.associate(peer_max_pdu_length=longest), site.associate()
    data = store(1, sop="1.2.5") + store(2, sop="../x") + message(ECHO_RQ, context=11)
    site.feed(free, data)
    site.feed(one, data)
    pdus = list(split_pdus(bytes(one.transport.sent)))
    assert {pdu[0] for pdu in pdus} == {4}
    if longest:
        assert max(len(pdu) - 6 for pdu in pdus) <= longest
    else:
        assert len(pdus) == 3
    for pdu in pdus:
        ((context, header, fragment),) = decode_pdata(pdu)
        assert context in (1, 11)
        assert header in (1, 3)
        assert len(fragment) % 2 == 0
    assert [one.elements for one in one.responses()] == [one.elements for one in free.responses()]


def test_the_journal_keeps_the_order_of_requests_however_flushes_end(tmp_path: Path) -> None:
    rng = random.Random(7)
    with Site(tmp_path / "store", durable=True) as site:
        one = site.associate()
        for number in range(1, 121):
            sop = f"1.2.{number}"
            tail = bytes(rng.choice((10, 100_000, 2_000_000)))
            site.feed(one, message(store_rq(number, sop=sop), data_set(sop=sop) + tail))
        site.settle(one)
        assert one.statuses() == [0] * 120
        assert [fact["message_id"] for fact in site.journal()] == list(range(1, 121))


@pytest.mark.parametrize("tail", [10, 9 << 20])
@pytest.mark.parametrize(("policy", "kept"), [("replace", 2), ("keep", 1), ("version", 1)])
def test_of_two_with_one_path_the_first_is_named_first(
    tmp_path: Path, policy: str, kept: int, tail: int
) -> None:
    for attempt in range(3 if tail > 10 else 20):
        with Site(tmp_path / f"store{attempt}", durable=True, policy=policy) as site:
            one = site.associate()
            first = message(store_rq(1), data_set() + bytes([1]) * tail)
            site.feed(one, first + message(store_rq(2), data_set() + bytes([2]) * 10))
            site.settle(one)
            assert site.files()[path_of()][-1] == kept
            assert [fact["message_id"] for fact in site.journal()] == [1, 2]


def test_many_with_one_path_are_taken_one_after_the_other(tmp_path: Path) -> None:
    with Site(tmp_path / "store", durable=True, policy="replace") as site:
        one = site.associate()
        data = b"".join(message(store_rq(n), data_set() + bytes([n]) * 10) for n in range(1, 41))
        site.feed(one, data)
        site.settle(one)
        assert one.statuses() == [0] * 40
        assert [fact["message_id"] for fact in site.journal()] == list(range(1, 41))
        assert site.files()[path_of()][-1] == 40
        assert site.parts() == []


def test_what_a_new_journal_raises_is_told_and_does_not_stop_the_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda what: told.append(str(what.exc_value)))
    working: list[Segments] = []

    def new_journal(_durable: bool) -> tuple[int, int]:
        if not working:
            raise RuntimeError("no idea")
        return working[0].next()

    with Site(tmp_path / "store", durable=True, new_journal=new_journal) as site:
        one = site.associate()
        site.feed(one, store(1))
        site.settle(one)
        working.append(site.segments[True])
        site.feed(one, store(2))
        site.settle(one)
        assert one.statuses() == [0xA700, 0]
    assert told == ["no idea"]


@pytest.mark.parametrize("durable", [False, True])
def test_an_instance_that_a_file_error_cost_counts_as_refused(
    tmp_path: Path, durable: bool
) -> None:
    working: list[Segments] = []

    def new_journal(_durable: bool) -> tuple[int, int]:
        if not working:
            raise OSError(errno.ENOSPC, "no journal")
        return working[0].next()

    with Site(tmp_path / "store", durable=durable, new_journal=new_journal) as site:
        one = site.associate()
        site.feed(one, store(1))
        site.settle(one)
        # It has its name, and is not stored: nobody relies on it.
        assert site.counted() == (0, 1)
        working.append(site.segments[durable])
        site.feed(one, store(2, sop="1.2.2") + store(3, sop="1.2.3"))
        site.settle(one)
        assert site.counted() == (2, 1)
        assert one.statuses() == [0xA700, 0, 0]


def test_the_rate_is_judged_over_turns(site: Site) -> None:
    """Neither a turn nor the end of one begins the time anew that the rate is averaged over."""
    one = site.associate()
    buffer = len(memoryview(one.get_buffer(-1)))
    data = message(store_rq(1), data_set() + bytes(10 * buffer), fragment=120_000)
    for at in range(0, 8 * buffer, buffer):
        next_tick()
        before = clock()
        assert site.read(one, data[at:]) == buffer
        assert one.turns
        assert one.overdue(before, 60, 1e12, 0) == ""
        site.take_turns()
    # More than the time since the first byte, and less than that since the last.
    assert one.overdue(before + 60, 60, 1e12, 0) == "slower than the minimum rate"
    one.abandon()


@dataclass
class Wire:
    """Both ends of a connection, of which the receiver has one."""

    site: Site
    one: Association
    peer: socket.socket
    ours: socket.socket

    def move(self, data: bytes) -> None:
        self.peer.sendall(data)
        self.site.feed(self.one, self.ours.recv(len(data), socket.MSG_WAITALL))

    def awaited(self) -> int:
        """How many bytes must be there before the receiver is woken."""
        return self.ours.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT)

    def readable(self, seconds: float = 0.0) -> bool:
        return bool(select.select([self.ours], [], [], seconds)[0])


@contextlib.contextmanager
def wire(site: Site, *, nagle: bool = False) -> Iterator[Wire]:
    one = site.associate()
    with socket.create_server(("127.0.0.1", 0)) as server:
        peer = socket.create_connection(server.getsockname())
        ours, _ = server.accept()
    with peer, ours:
        if not nagle:
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        one.attach(one.transport, ours.fileno())
        yield Wire(site, one, peer, ours)
        one.detach()


def between(wire: Wire, number: int) -> Iterator[None]:
    """Store one; stops between its command, which comes in two pieces, and its data set."""
    command, data = split_pdus(store(number, sop=f"1.2.{number}"))
    wire.move(command[:40])
    wire.move(command[40:])
    yield
    wire.move(data)
    wire.peer.recv(65536)
    yield


def test_acknowledges_at_once_where_the_peer_waits_for_it(site: Site) -> None:
    """The kernel puts off what Nagle's algorithm there waits for."""

    def found(number: int) -> tuple[int, int]:
        """Between command and data set: acknowledged at once? how many bytes are awaited?"""
        message = between(on, number)
        next(message)
        quick = on.ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK)
        awaited = on.awaited()
        next(message)
        return quick, awaited

    with wire(site, nagle=True) as on:
        assert [found(n) for n in range(1, 17)] == [(1, 1)] * 16
        # It is tried without. The peer that was held up by that is held up once.
        for number in range(17, 21):
            found(number)
        assert [found(n) for n in range(21, 60)] == [(1, 1)] * 39


def test_whoever_has_more_on_its_way_waits_for_no_acknowledgement(site: Site) -> None:
    with wire(site) as on:
        data = message(store_rq(1), data_set(pixels=4 << 20), fragment=131_060)
        for is_filled in (True, False):
            on.ours.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 0)
            size = len(memoryview(on.one.get_buffer(-1)))
            site.read(on.one, data[: size if is_filled else 1000])
            data = data[size if is_filled else 1000 :]
            quick = on.ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK)
            assert bool(quick) is not is_filled
            site.take_turns()
        on.one.abandon()


@still
def test_a_peer_that_waits_for_nothing_is_not_acknowledged_at_once(site: Site) -> None:
    clock = Clock()

    def found(number: int, pause: float = 0.0) -> tuple[int, int]:
        """Between command and data set: acknowledged how often? how many bytes are awaited?"""
        message = between(on, number)
        clock.acknowledgements()
        next(message)
        seen = clock.acknowledgements(), on.awaited()
        clock.goes_on(pause)
        next(message)
        return seen

    with wire(site) as on:
        assert [found(n) for n in range(1, 17)] == [(2, 1)] * 16
        assert found(17) == (2, 13)
        assert [found(n) for n in range(18, 60)] == [(0, 13)] * 42
        # Between two messages it may rest, and inside of one for a moment.
        clock.goes_on(10.0)
        assert found(60, pause=0.02) == (0, 13)
        # The rest of this one comes as late as if it had waited for us.
        assert found(61, pause=0.03) == (0, 13)
        assert [found(n) for n in range(62, 99)] == [(2, 1)] * 37


@still
def test_the_header_of_a_data_set_alone_wakes_nobody(site: Site) -> None:
    Clock()
    with wire(site) as on:
        for number in range(1, 18):
            command, data = split_pdus(store(number, sop=f"1.2.{number}"))
            on.peer.sendall(command[:1])
            # Between messages every byte counts.
            assert on.readable(20)
            site.feed(on.one, on.ours.recv(1))
            on.move(command[1:])
            on.peer.sendall(data[:12])
            # Not before it is known what kind of sender this is.
            if number < 17:
                assert on.readable(20)
            else:
                assert not on.readable()
            on.peer.sendall(data[12:])
            assert on.readable(20)
            site.feed(on.one, on.ours.recv(len(data), socket.MSG_WAITALL))
        command, data = split_pdus(store(18, sop="1.2.18"))
        on.move(command)
        # What is as short as that and comes alone is read at the next look at the timers.
        on.peer.sendall(abort(0, 0))
        assert not on.readable()
        assert on.one.overdue(1000.0, 60, 0, 0) == ""
        assert on.readable(20)
        site.feed(on.one, on.ours.recv(10))
        assert on.one.pdus[-1] == (7, abort(0, 0))


@still
def test_the_header_of_a_large_data_set_wakes_us(site: Site) -> None:
    Clock()
    one = site.associate()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        one.attach(one.transport, ours.fileno())
        awaited = []
        for number in range(1, 21):
            size = 200_000 if number == 18 else 100
            data = data_set(sop=f"1.2.{number}") + bytes(size)
            command, *rest = split_pdus(message(store_rq(number, sop=f"1.2.{number}"), data))
            site.feed(one, command)
            awaited.append(ours.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT))
            site.feed(one, b"".join(rest))
        # The one before tells what is to be expected.
        assert awaited == [1] * 16 + [13, 13, 1, 13]
        one.detach()


def test_a_large_object_lets_others_be_read(tmp_path: Path) -> None:
    buffer = 65536
    with Site(tmp_path / "store", buffer_bytes=buffer) as site:
        one = site.associate()
        assert len(memoryview(one.get_buffer(-1))) == buffer
        large = message(store_rq(1), data_set() + bytes(6) * buffer, fragment=120_000)
        site.feed(one, large)
        assert one.statuses() == [0]
        assert one.transport.pauses == len(large) // buffer
        # Reads that do not fill the buffer are the loop's cue to go on elsewhere by itself.
        site.feed(
            one,
            message(store_rq(2, sop="1.2.5"), data_set(sop="1.2.5") + bytes(6) * buffer),
            range(0, 7 * buffer, buffer - 2),
        )
        assert one.transport.pauses == len(large) // buffer


def test_responses_keep_the_order_of_requests(site: Site) -> None:
    site.resolve_at_once = False
    one = site.associate()
    site.feed(one, store(1))
    assert one.statuses() == [0]
    one.transport.sent.clear()
    # The second is a duplicate and has to be compared; what follows it waits behind it.
    site.feed(one, store(2) + message(ECHO_RQ, context=11) + store(3, sop="1.2.5"))
    site.feed(one, store(4, sop="../x"))
    assert not one.transport.sent
    assert one.outbox.owed == 4
    assert path_of("1.2.5") in site.files()
    site.resolve(site.waiting.pop())
    assert [r.message_id_being_responded_to for r in one.responses()] == [2, 99, 3, 4]
    assert one.statuses() == [0, 0, 0, 0x0117]
    assert one.outbox.owed == 0
    assert one.all_sent == 2
    # Nobody asked to be told: the interpreter is not met for it.
    one.outbox.tell_responses_sent = False
    site.feed(one, store(5, sop="1.2.6"))
    assert one.statuses()[-1] == 0
    assert one.all_sent == 2


def test_a_command_with_a_data_set_is_answered_behind_it(site: Site) -> None:
    find = encode_command({0x0100: 0x0020, 0x0110: 5, 0x0800: 1})
    echo = encode_command({0x0100: 0x0030, 0x0110: 5, 0x0800: 1})
    one = site.associate()
    cut = message(echo, b"query" * 10, fragment=10)
    site.feed(one, cut[:-5])
    assert not one.transport.sent
    site.feed(one, cut[-5:] + message(find, b"query") + store(1))
    assert [r.command_field for r in one.responses()] == [0x8030, 0x8001]


def test_writes_go_to_the_socket_and_the_rest_to_the_transport(site: Site) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        theirs.settimeout(60)
        one = site.associate()
        one.attach(one.transport, ours.fileno())
        big = b"\x07" + os.urandom(300_000)
        one.outbox.send_pdu(big)
        one.transport.held = len(one.transport.sent)
        assert 0 < one.transport.held < len(big)
        # Behind what the transport holds back, and never before it.
        one.outbox.send_pdu(b"second")
        assert one.transport.sent.endswith(b"second")
        got = b""
        while len(got) + len(one.transport.sent) < len(big) + 6:
            got += theirs.recv(65536)
        assert got + one.transport.sent == big + b"second"
        one.transport.held = 0
        one.outbox.send_pdu(b"third")
        assert theirs.recv(100) == b"third"
        one.detach()
        one.outbox.send_pdu(b"lost")
        theirs.setblocking(False)
        with pytest.raises(BlockingIOError):
            theirs.recv(1)


# Ends --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [20, 150, 300, 700])
def test_the_peer_goes_inside_a_message(site: Site, at: int) -> None:
    one = site.associate()
    data = store(2, sop="1.2.5")
    assert at < len(data)
    site.feed(one, store(1) + data[:at])
    one.abandon()
    assert list(site.files()) == [path_of()]
    assert site.parts() == []
    assert one.outbox.owed == 0
    # Nothing is taken in any more.
    site.feed(one, data[at:])
    assert one.ignored_bytes == len(data) - at
    assert list(site.files()) == [path_of()]


def test_a_complete_message_is_kept_though_the_peer_is_gone(tmp_path: Path) -> None:
    with Site(tmp_path / "store", durable=True) as site:
        first = site.associate()
        site.feed(first, store(1))
        site.settle(first)
        site.resolve_at_once = False
        one = site.associate()
        site.feed(one, store(1) + store(2, sop="1.2.5")[:-1])
        site.until(lambda: bool(site.waiting))
        one.abandon()
        one.detach()
        site.resolve(site.waiting.pop())
        site.until(lambda: site.reception.uncommitted == 0)
        assert not one.transport.sent
        fact = site.journal()[1]
        assert fact["responded"] is False
        assert fact["duplicate"] == "identical"
        assert site.parts() == []


def test_drop_message(site: Site) -> None:
    one = site.associate()
    assert not one.drop_message()
    data = store(1)
    site.feed(one, data[:-1])
    assert len(site.parts()) == 1
    states = [one.mid_message, one.drop_message(), one.mid_message, one.drop_message()]
    assert states == [True, True, False, False]
    assert site.parts() == []


@pytest.mark.parametrize("together", [False, True])
def test_a_broken_stream_ends_it(site: Site, together: bool) -> None:
    one = site.associate()
    begun = b"".join(list(split_pdus(store(2, sop="1.2.5", fragment=100)))[:4])
    site.feed(one, store(1) + begun + b"\xff" * 10_000, [] if together else [len(store(1))])
    assert one.failures == [(2, 1, "unrecognized PDU type")]
    # What was complete is kept; no response may follow the A-ABORT that is sent by now.
    assert one.statuses() == ([] if together else [0])
    assert list(site.files()) == [path_of()]
    assert [fact.get("responded") for fact in site.journal()] == [False if together else None]
    assert one.outbox.owed == 0
    assert site.parts() == []
    before = one.ignored_bytes
    site.feed(one, store(3))
    assert one.ignored_bytes == before + len(store(3))
    assert len(one.failures) == 1


def test_a_longer_pdu_than_announced(site: Site) -> None:
    data = message(store_rq(), data_set(pixels=9000), fragment=9000)
    one = site.associate(max_pdu_length=4096)
    site.feed(one, data)
    site.feed(one, data)
    assert len(one.long) == 1
    assert one.statuses() == [0, 0]
    strict = site.associate(max_pdu_length=4096)
    strict.tolerant = False
    site.feed(strict, data)
    assert strict.failures == [(2, 6, "P-DATA-TF longer than announced")]
    assert site.parts() == []


@pytest.mark.parametrize(
    ("command", "text"),
    [
        (encode_command({0x0100: 1, 0x0800: 1}), "command set without"),
        (encode_command({0x0110: 1, 0x0800: 1}), "command set without"),
        (encode_command({0x0100: 1, 0x0110: 1}), "command set without"),
        (b"\0\0\0\1", "cannot be read"),
    ],
)
def test_a_command_that_cannot_be_answered(site: Site, command: bytes, text: str) -> None:
    one = site.associate()
    site.feed(one, message(command))
    assert [failure[:2] for failure in one.failures] == [(0, 0)]
    assert text in one.failures[0][2]


def test_a_pdu_is_handed_over_whole_or_not_at_all(site: Site) -> None:
    one = site.associate()
    release, abort = b"\x05\0\0\0\0\x04\0\0\0\0", b"\x07\0\0\0\0\x04\0\0\2\0"
    site.feed(one, release + abort, range(30))
    assert one.pdus == [(5, release), (7, abort)]
    # Out of its place: its body is not waited for.
    one.expect_associate(False)
    one.pdus.clear()
    site.feed(one, b"\x01\0\0\0\x10\0")
    assert one.pdus == [(1, b"")]


def test_tracing(site: Site) -> None:
    one = site.associate()
    one.outbox.trace = one.outbox.verbose = True
    data = store(1)
    site.feed(one, data)
    received = [(False, 4, len(pdu) - 6) for pdu in split_pdus(data)]
    sent = [(True, 4, len(pdu) - 6) for pdu in split_pdus(bytes(one.transport.sent))]
    assert one.traced == received + sent
    assert one.settled == [(SOP, 0, path_of(), len(data_set()), "")]
    (asked, told) = one.commands
    assert asked == (False, 1, decode_command(store_rq(1)))
    assert told == (True, 1, one.responses()[0])
    # Nobody is told of what cannot be read, nor of anything once nobody wants to know.
    one.outbox.trace = False
    site.feed(one, store(2, sop=f"{SOP}.2"))
    assert len(one.commands) == 2


# Holds and timers --------------------------------------------------------------------------------


def test_reading_goes_on_when_no_reason_is_left(site: Site) -> None:
    one = site.associate()
    paused = []
    for change, why in (
        (one.pace.hold, 1),
        (one.pace.hold, 4),
        (one.pace.go_on, 1),
        (one.pace.go_on, 4),
    ):
        change(why)
        paused.append(one.transport.paused)
    assert paused == [True, True, True, False]
    assert one.transport.pauses == 1


def test_how_long_the_peer_does_not_read(site: Site) -> None:
    one = site.associate()
    now = clock()
    assert one.pace.unread(now + 50) == 0
    one.pace.hold(4)
    one.pace.hold(1)
    assert 49 < one.pace.unread(now + 50) < 51
    one.pace.go_on(4)
    assert one.pace.unread(now + 50) == 0


def test_an_outbox_outlives_its_receiver(tmp_path: Path) -> None:
    with Site(tmp_path / "store", durable=True) as site:
        one = site.associate()
        transport, outbox = one.transport, one.outbox
        outbox.verbose = outbox.trace = True
        site.feed(one, store(1))
        del one
        site.until(lambda: outbox.owed == 0)
        assert [pdu[0] for pdu in split_pdus(bytes(transport.sent))] == [4]


def test_reading_slows_while_space_is_short(site: Site) -> None:
    one = site.associate()
    data = message(store_rq(), data_set(pixels=10_000))
    at = 0

    def read(nbytes: int) -> bool:
        """Whether reading goes on after so many bytes more."""
        nonlocal at
        site.feed(one, data[at : at + nbytes])
        at += nbytes
        return not one.transport.paused

    def refill(now: float) -> bool:
        site.reception.refill(now)
        return not one.transport.paused

    assert not site.reception.refill(time.monotonic())
    assert read(5000)
    site.shared.store.set_state(1, slow_rate=10)
    # What is read in one piece is read; then the time pays for it. The reader's clock may be a
    # moment behind ours, so that there is a second in it.
    began = time.monotonic()
    assert not read(600)
    assert site.reception.refill(began + 59)
    assert not refill(began + 59)
    assert refill(time.monotonic() + 60)
    # It owes what it has read: that it was let go on by our clock forgives nothing.
    assert not read(40)
    assert not refill(began + 63)
    assert refill(time.monotonic() + 64)
    assert 0 < site.shared.rows.throttled_us()["space"] < 60_000_000
    # Space is found: at once, and without limits.
    assert not read(40)
    time.sleep(0.02)
    counted = site.shared.rows.throttled_us()["space"]
    site.shared.store.set_state(0)
    assert refill(began)
    # It was held for as long as it was, and not for as long as it might have been.
    assert 20_000 <= site.shared.rows.throttled_us()["space"] - counted < 60_000_000
    assert read(4000)
    assert site.shared.rows.throttled_us()["commit"] == 0
    one.abandon()


def test_those_who_read_get_on_in_order_while_space_is_short(site: Site) -> None:
    """In the order in which they read, and each at its time, whoever else goes on reading."""
    peers = [site.associate() for _ in range(4)]
    data = message(store_rq(), data_set(pixels=10_000))
    site.shared.store.set_state(1, slow_rate=100)
    began = time.monotonic()
    for peer in peers:
        site.feed(peer, data[:1000])
    read_at = time.monotonic()
    # Another worker's read in between, and one that is gone.
    site.shared.store.reserve_reading(100_000, time.monotonic_ns())
    peers[2].abandon()
    for due, going in ((9, 0), (10, 1), (19, 1), (20, 2), (39, 2), (40, 3)):
        site.reception.refill((began if due % 10 else read_at + 0.01) + due)
        held = [peer for n, peer in enumerate(peers) if n != 2 and peer.transport.paused]
        assert len(held) == 3 - going
    site.shared.store.set_state(0)
    for peer in peers:
        peer.abandon()


def test_reads_are_small_while_space_is_short(site: Site) -> None:
    peer = site.associate()
    full = memoryview(peer.get_buffer(-1)).nbytes
    site.shared.store.set_state(1, slow_rate=100)
    assert memoryview(peer.get_buffer(-1)).nbytes == min(full, 65536) < full
    site.shared.store.set_state(0)
    assert memoryview(peer.get_buffer(-1)).nbytes == full
    peer.abandon()


def test_since_when_nothing_is_under_way(site: Site) -> None:
    one = site.associate()
    before = one.idle_since
    assert 0 < before <= time.monotonic()
    data = store(1)
    site.feed(one, data[:100])
    assert one.idle_since == 0
    site.feed(one, data[100:])
    site.until(lambda: one.outbox.owed == 0)
    assert one.idle_since >= before
    one.pace.hold(4)
    assert one.idle_since == 0
    one.pace.go_on(4)
    assert one.idle_since > 0
    one.end_transfer()
    assert one.idle_since == 0


@still
def test_a_state_protects_nobody_progress_does(tmp_path: Path) -> None:
    """A byte of a header, half a command set, a data set that stops or trickles."""
    clock = Clock()
    with Site(tmp_path / "store") as site:
        data = store(1, data_set(pixels=60_000), fragment=4096)

        def since(one: Association) -> tuple[float, float]:
            return one.idle_since, one.stuck_since(clock.now, 1024)

        header, command, silent, slow, busy = ones = [site.associate() for _ in range(5)]
        clock.goes_on(100)
        began = clock.now
        for one, size in zip(ones, (1, 80, 2000, 2000, 2000), strict=True):
            site.feed(one, data[:size])
            assert since(one) == (0, 0)
        clock.goes_on(0.5)
        assert [since(one) for one in ones] == [(0, 0)] * 5
        for n in range(6):
            # Some 1.2 KiB/s, and a byte a second.
            clock.goes_on(1)
            site.feed(slow, data[2000 + n : 2001 + n])
            site.feed(busy, data[2000 + n * 1200 : 3200 + n * 1200])
            assert [one.idle_since for one in (header, command)] == [began] * 2
            assert [one.idle_since for one in (silent, slow, busy)] == [0] * 3
            if n < 4:
                assert [one.stuck_since(clock.now, 1024) for one in (silent, slow)] == [0, 0]
        assert [since(one) for one in (silent, slow, busy)] == [(0, began), (0, began), (0, 0)]
        # Without a minimum rate only silence counts.
        assert slow.stuck_since(clock.now, 0) == 0
        slow.pace.hold(4)
        assert since(slow) == (0, 0)
        slow.pace.go_on(4)
        # What begins is new, however long nothing came before.
        site.feed(busy, data[9200:])
        site.until(lambda: busy.outbox.owed == 0)
        clock.goes_on(60)
        assert busy.idle_since == began + 6.5
        site.feed(busy, data[:2000])
        assert since(busy) == (0, 0)
        clock.goes_on(4)
        site.feed(busy, data[2000:2001])
        assert since(busy) == (0, 0)
        for one in ones:
            one.abandon()


def test_overdue(site: Site) -> None:
    # Both sides round the same moment to a double, each in its own way.
    rounding = 1e-6
    before = clock()
    one = site.associate()
    after = clock()

    def overdue(now: float) -> str:
        return one.overdue(now, 60, 0, 600)

    assert overdue(before + 600 - rounding) == ""
    assert overdue(after + 600.1) == "idle"
    assert one.overdue(after + 1e6, 60, 0, 0) == ""
    before = clock()
    site.feed(one, store(1)[:200])
    after = clock()
    assert overdue(before + 60 - rounding) == ""
    assert overdue(after + 60.1) == "silent inside a message"
    one.pace.hold(1)
    assert overdue(after + 1000) == ""
    before = clock()
    one.pace.go_on(1)
    assert overdue(before + 60 - rounding) == ""


@pytest.mark.parametrize(("rate", "why"), [(1, ""), (1e12, "slower than the minimum rate")])
def test_overdue_by_rate(site: Site, rate: float, why: str) -> None:
    one = site.associate()
    data = message(store_rq(), data_set())
    for at in range(200):
        if at % 50 == 49:
            next_tick()
        before = clock()
        site.feed(one, data[at : at + 1])
        assert one.overdue(before, 60, rate, 0) == ""
    # Longer than the time that the rate is averaged over, and never silent for as long.
    assert one.overdue(before + 60, 60, rate, 0) == why
    one.abandon()


def test_nothing_is_overdue_while_we_owe(site: Site) -> None:
    site.resolve_at_once = False
    one = site.associate()
    site.feed(one, store(1) + store(2) + store(3)[:200])
    assert one.outbox.owed == 1
    assert one.overdue(time.monotonic() + 1e5, 60, 1000, 600) == ""
    site.resolve(site.waiting.pop())
    assert one.outbox.owed == 0
    assert one.overdue(time.monotonic() + 1e5, 60, 1000, 600) == "silent inside a message"


# Files that fail ---------------------------------------------------------------------------------


def test_no_folder_for_parts(site: Site) -> None:
    one = site.associate()
    site.incoming.rmdir()
    site.feed(one, store(1) + message(ECHO_RQ, context=11))
    assert one.statuses() == [0xA700, 0]
    assert [(step, number) for step, number, _ in site.errors] == [
        ("create a part file", errno.ENOENT)
    ]
    assert site.files() == {}


def test_a_part_that_cannot_be_written(site: Site) -> None:
    one = site.associate()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        site.feed(one, store(1, data_set(pixels=30_000)) + store(2, sop="1.2.5"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert one.statuses() == [0xA700, 0]
    assert site.errors == [("write a part file", errno.EFBIG, "00000001.part")]
    assert list(site.files()) == [path_of("1.2.5")]
    assert site.parts() == []


@pytest.mark.parametrize("durable", [False, True])
@pytest.mark.parametrize("where", ["study", "series"])
def test_a_file_where_a_directory_should_be(tmp_path: Path, durable: bool, where: str) -> None:
    with Site(tmp_path / "store", durable=durable) as site:
        if where == "study":
            (site.store / STUDY).write_bytes(b"")
        else:
            (site.store / STUDY).mkdir()
            (site.store / STUDY / SERIES).write_bytes(b"")
        one = site.associate()
        other = data_set(study="1.9", sop="1.2.5")
        site.feed(one, store(1) + store(2, other, sop="1.2.5"))
        site.settle(one)
        assert one.statuses() == [0xA700, 0]
        assert [number for _, number, _ in site.errors] == [errno.ENOTDIR]
        assert site.parts() == []
        assert f"1.9/{SERIES}/1.2.5.dcm" in site.files()
        assert len(site.journal()) == 1


@pytest.mark.parametrize("durable", [False, True])
def test_a_file_of_locks_that_cannot_be_used(tmp_path: Path, durable: bool) -> None:
    """It is the one that is told of, whatever the instance's own name is."""
    with Site(tmp_path / "store", durable=durable) as site:
        (site.store / PATH_LOCKS).mkdir()
        one = site.associate()
        site.feed(one, store(1))
        site.settle(one)
        assert one.statuses() == [0xA700]
        ((_step, *told),) = site.errors
        assert told == [errno.EISDIR, PATH_LOCKS]


def test_a_directory_where_the_file_should_be(site: Site) -> None:
    (site.store / path_of()).mkdir(parents=True)
    one = site.associate()
    site.feed(one, store(1))
    (status,) = one.statuses()
    assert status == 0xA700
    assert site.files() == {}
    assert site.parts() == []


def test_a_directory_that_vanishes_is_made_again(tmp_path: Path) -> None:
    with Site(tmp_path / "store", durable=True) as site:
        one = site.associate()
        for n in range(3):
            site.feed(one, store(n))
            site.settle(one)
            shutil.rmtree(site.store / STUDY)
        assert one.statuses() == [0, 0, 0]
        assert site.errors == []


@pytest.mark.parametrize("durable", [False, True])
def test_a_directory_that_nobody_has_made_yet(tmp_path: Path, durable: bool) -> None:
    """Whoever had the path's lock was about to make it, and did not."""
    with Site(tmp_path / "store", durable=durable) as site:
        site.resolve_at_once = False
        one = site.associate()
        lock_fd = waits.take_lock(site.store_fd, waits.lock_of(path_of()))
        site.feed(one, store())
        site.until(lambda: len(site.waiting) == 1)
        os.close(lock_fd)
        assert not (site.store / STUDY).exists()
        site.resolve(site.waiting.pop())
        site.settle(one)
        assert one.statuses() == [0]
        assert site.errors == []
        assert list(site.files()) == [path_of()]


@pytest.mark.parametrize("how", ["a link", "another folder", "a link to the folder"])
def test_a_journal_file_that_lies_elsewhere(tmp_path: Path, how: str) -> None:
    """Its inode still has a name, and the lines in it are not in the store's journal."""

    def new_journal(durable: bool) -> tuple[int, int, str]:
        fd, size = made.segments[durable].next()
        return fd, size, made.segments[durable].path(fd)

    with Site(tmp_path / "store", durable=True, new_journal=new_journal) as made:
        one = made.associate()
        made.feed(one, store(1) + store(2, sop="1.2.2"))
        made.settle(one)
        folder = made.store / JOURNAL
        (file,) = folder.iterdir()
        if how == "a link":
            file.rename(tmp_path / "aside")
            file.symlink_to(tmp_path / "aside")
        else:
            folder.rename(tmp_path / "aside")
            if how == "another folder":
                folder.mkdir()
            else:
                folder.symlink_to(tmp_path / "aside")
        made.feed(one, store(3, sop="1.2.3"))
        made.settle(one)
        assert one.statuses() == [0, 0, 0xA700]
        made.feed(one, store(4, sop="1.2.4"))
        made.settle(one)
        if how == "a link to the folder":
            assert one.statuses()[3] == 0xA700
        else:
            assert one.statuses()[3] == 0
            newest = max(folder.iterdir())
            assert not newest.is_symlink()
            assert newest.read_text().count("\n") == 1


@pytest.mark.parametrize("durable", [False, True])
def test_a_journal_that_cannot_be_opened(tmp_path: Path, durable: bool) -> None:
    works = [False]

    def new_journal(flushed: bool) -> tuple[int, int]:
        if not works[0]:
            raise OSError(errno.ENOSPC, "full")
        return made.segments[flushed].next()

    with Site(tmp_path / "store", durable=durable, new_journal=new_journal) as made:
        one = made.associate()
        made.feed(one, store(1))
        made.settle(one)
        assert one.statuses() == [0xA700]
        assert [step for step, _, _ in made.errors] == ["write the journal"]
        assert made.journal() == []
        # The file stays; the next try finds it.
        assert list(made.files()) == [path_of()]
        assert made.parts() == []
        works[0] = True
        made.feed(one, store(2))
        made.settle(one)
        assert one.statuses() == [0xA700, 0]
        assert [fact.get("duplicate") for fact in made.journal()] == ["identical"]


def test_a_commit_waits_for_a_journal_file_that_is_being_opened(tmp_path: Path) -> None:
    """Where its loop must not open one; and a full one serves until the next is there."""
    ready: list[bool] = []

    def new_journal(durable: bool) -> tuple[int, int]:
        if not ready:
            raise BlockingIOError
        ready.clear()
        fd, _size = made.segments[durable].next()
        # Full at once.
        return fd, 1 << 30

    with Site(tmp_path / "store", new_journal=new_journal) as made:
        one = made.associate()
        made.feed(one, store(1) + store(2, sop="1.2.2"))
        assert (one.statuses(), made.reception.uncommitted) == ([], 2)
        made.reception.journal_opened()
        assert one.statuses() == []
        ready.append(True)
        made.reception.journal_opened()
        assert (one.statuses(), made.reception.uncommitted) == ([0, 0], 0)
        made.feed(one, store(3, sop="1.2.3"))
        assert one.statuses() == [0, 0, 0]
        # One that was removed is written to no more, another one's descriptor changes nothing.
        (before,) = (made.store / JOURNAL).iterdir()
        made.reception.leave_journal(-5)
        made.feed(one, store(4, sop="1.2.4"))
        fds = {int(fd): os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")
               if os.path.exists(f"/proc/self/fd/{fd}")}  # fmt: skip
        (in_use,) = (fd for fd, name in fds.items() if name == str(before))
        made.reception.leave_journal(in_use)
        made.feed(one, store(5, sop="1.2.5"))
        assert one.statuses() == [0] * 4
        ready.append(True)
        made.reception.journal_opened()
        assert one.statuses() == [0] * 5
        assert [fact["message_id"] for fact in made.journal()] == [1, 2, 3, 4, 5]
        assert len(list((made.store / JOURNAL).iterdir())) == 2


@pytest.mark.parametrize("durable", [False, True])
def test_a_journal_that_cannot_be_written(tmp_path: Path, durable: bool) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    opened: list[int] = []

    def new_journal(flushed: bool) -> tuple[int, int]:
        opened.append(len(opened))
        return (full, 0) if len(opened) == 1 else made.segments[flushed].next()

    try:
        with Site(tmp_path / "store", durable=durable, new_journal=new_journal) as made:
            one = made.associate()
            made.feed(one, store(1))
            made.settle(one)
            made.feed(one, store(2))
            made.settle(one)
            made.feed(one, store(3, sop="1.2.5"))
            made.settle(one)
            assert one.statuses() == [0xA700, 0, 0]
            assert opened == [0, 1]
            assert [(step, number) for step, number, _ in made.errors] == [
                ("write the journal", errno.ENOSPC)
            ]
            assert [fact.get("duplicate") for fact in made.journal()] == ["identical", None]
    finally:
        os.close(full)


def test_a_full_journal_file_is_followed_by_another(tmp_path: Path) -> None:
    with Site(tmp_path / "store", journal_limit=600) as site:
        one = site.associate()
        for n in range(5):
            site.feed(one, store(n, sop=f"1.2.{n}"))
        assert one.statuses() == [0] * 5
        assert len(journal.segment_names(site.store_fd)) > 1
        assert [fact["seq"] for fact in site.journal()] == [1, 2, 3, 4, 5]


# Duplicates --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "status", "kind", "names"),
    [
        ("version", 0, "version", [path_of(), path_of() + "~2"]),
        ("replace", 0, "replaced", [path_of()]),
        ("keep", 0xB006, "kept", [path_of()]),
        ("refuse", 0xC000, None, [path_of()]),
    ],
)
@pytest.mark.parametrize("durable", [False, True])
def test_another_instance_of_the_same_name(
    tmp_path: Path, durable: bool, policy: str, status: int, kind: str | None, names: list[str]
) -> None:
    with Site(tmp_path / "store", durable=durable, policy=policy) as site:
        one = site.associate()
        for seed in (0, 0, 1):
            site.feed(one, store(1, data_set(seed=seed)))
            site.settle(one)
        assert one.statuses() == [0, 0, status]
        files = site.files()
        assert list(files) == names
        newest = names[-1] if policy in ("version", "replace") else None
        for name, content in files.items():
            assert content == meta() + data_set(seed=1 if name == newest else 0)
        kinds = [fact.get("duplicate") for fact in site.journal()]
        assert kinds == [None, "identical", *([kind] if kind else [])]
        assert site.parts() == []
        if kind == "kept":
            assert one.responses()[2].error_comment == "existing instance kept"


def test_a_duplicate_is_settled_once(site: Site) -> None:
    site.resolve_at_once = False
    one = site.associate()
    site.feed(one, store(1) + store(2))
    (duplicate,) = site.waiting
    assert duplicate.path == path_of()
    assert duplicate.part in site.parts()
    duplicate.refuse(0xC000, b"no")
    assert one.statuses() == [0, 0xC000]
    with pytest.raises(ValueError, match="settled already"):
        duplicate.refuse(0xC000, b"no")
    with pytest.raises(ValueError, match="settled already"):
        duplicate.accept("identical", path_of())


@pytest.mark.parametrize("durable", [False, True])
def test_the_other_form_takes_a_name_as_soon_as_main_says_so(tmp_path: Path, durable: bool) -> None:
    """A reload may bring files of another form while associations go on."""
    with Site(tmp_path / "store", durable=durable) as site:
        site.resolve_at_once = False
        one = site.associate()
        packed = site.store / f"{path_of()}.zst"
        packed.parent.mkdir(parents=True)
        packed.touch()
        site.feed(one, message(store_rq(1), data_set()))
        site.settle(one)
        assert one.statuses() == [0]
        (site.store / path_of()).unlink()
        # Main has its own mapping of what is shared.
        shared = Shared(os.dup(site.shared.fd), os.dup(site.shared.common_fd))
        assert shared.store.mixed is False
        shared.store.mixed = True
        assert site.shared.store.mixed is True
        site.feed(one, message(store_rq(2), data_set()))
        site.until(lambda: bool(site.waiting))
        (duplicate,) = site.waiting
        assert duplicate.path == path_of()
        duplicate.refuse(0xC000, b"no", 0)
        assert one.statuses() == [0, 0xC000]


# What it costs -----------------------------------------------------------------------------------


def resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


@pytest.mark.parametrize("durable", [False, True])
def test_memory_and_descriptors_stay_flat(tmp_path: Path, durable: bool) -> None:
    with Site(tmp_path / "store", durable=durable) as site:

        def run(count: int) -> None:
            for _ in range(count // 20):
                one = site.associate()
                data = b"".join(store(k, sop=f"1.2.{k}") for k in range(18))
                site.feed(one, data + store(18, sop="../x") + store(19, meta()[:160]))
                site.settle(one)
                one.abandon()
                one.detach()
                shutil.rmtree(site.store / STUDY)

        run(300)
        open_before = len(os.listdir("/proc/self/fd"))
        before = resident()
        run(2000)
        assert len(os.listdir("/proc/self/fd")) == open_before
        assert site.parts() == []
        # A sanitizer keeps freed memory for a while, to catch who still uses it.
        if "libasan" not in Path("/proc/self/maps").read_text():
            assert resident() - before < 2 << 20


# Construction ------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [{"worker": 256}, {"worker": -1}, {"name": "n" * 24}])
def test_a_reception_that_cannot_be(wrong: dict[str, Any]) -> None:
    settings: dict[str, Any] = {
        "store_fd": -1, "incoming_fd": -1, "shared": Shared(), "worker": 0, "name": "w",
        "use_link": False, "implementation": b"", "version": b"",
        "new_journal": lambda _durable: (-1, 0), "on_duplicate": print, "on_error": print,
        "on_complete": print,
    }  # fmt: skip
    with pytest.raises(ValueError, match=r"out of range|too long"):
        Reception(**settings | wrong)


@pytest.mark.parametrize("wrong", [{"digest": "md5"}, {"on_duplicate": "lose"}])
def test_rules_that_cannot_be(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="unknown"):
        rules(**wrong)


def test_each_association_has_its_rules(site: Site) -> None:
    """Of one worker; and an instance keeps those that its association had when it began."""
    strict = rules(strict=True, layout=Layout("s/{SOPInstanceUID}.dcm"), digest="none")
    small = rules(max_instance_size=10, on_duplicate="keep")
    ones = [site.associate(), site.associate(rules=strict), site.associate(rules=small)]
    for one in ones:
        site.feed(one, store(1) + store(2, data_set(sop="1.2.a"), sop="1.2.a"))
    assert [one.statuses() for one in ones] == [[0, 0], [0, 0x0117], [0xA700, 0xA700]]
    assert set(site.files()) == {path_of(), path_of("1.2.a"), f"s/{SOP}.dcm"}
    assert ["digest" in fact for fact in site.journal()] == [True, True, False]
    keeping = site.associate(rules=rules(on_duplicate="keep"))
    site.feed(keeping, store(1, data_set(seed=1)))
    assert keeping.statuses() == [0xB006]
    begun = store(2, data_set(sop="1.2.b"), sop="1.2.b")
    site.feed(keeping, begun[:-1])
    site.establish(keeping, rules=strict)
    site.feed(keeping, begun[-1:] + store(3, data_set(sop="1.2.c"), sop="1.2.c"))
    assert keeping.statuses() == [0xB006, 0, 0x0117]
    assert path_of("1.2.b") in site.files()


class Held:
    """Stable batches wait with their lines until they are let go; buffered ones are not asked."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.site: Site | None = None

    def new_journal(self, durable: bool) -> tuple[int, int]:
        if durable:
            assert self.go.wait(60)
        assert self.site is not None
        return self.site.segments[durable].next()


def both(folder: Path, held: Held, **options: Any) -> Site:
    """A site of buffered rules by default, whose stable batches are held."""
    held.site = Site(folder, new_journal=held.new_journal, **options)
    return held.site


def stable(site: Site) -> Association:
    return site.associate(rules=rules(durable=True, on_duplicate=site.rules.on_duplicate))


def named(first: int, count: int) -> Iterator[tuple[str, bytes]]:
    """SOP Instance UIDs, and messages of these instances."""
    for n in range(first, first + count):
        sop = f"1.2.{n}"
        yield sop, store(n % 65536, data_set(sop=sop), sop=sop)


def test_stable_and_buffered_side_by_side(tmp_path: Path) -> None:
    """A batch of both: the buffered ones are answered while the stable ones are being flushed."""
    held = Held()
    with both(tmp_path / "store", held) as site:
        try:
            kept, quick = stable(site), site.associate()
            for (_, ours), (_, theirs) in zip(named(1, 30), named(101, 30), strict=True):
                site.feed(kept, ours)
                site.feed(quick, theirs)
            assert quick.statuses() == [0] * 30
            assert kept.statuses() == []
            assert site.reception.uncommitted == 30
            assert {fact["durability"] for fact in site.journal()} == {"buffered"}
        finally:
            held.go.set()
        site.settle(kept)
        assert kept.statuses() == [0] * 30
        facts = {fact["sop_instance_uid"]: fact for fact in site.journal()}
        assert facts.keys() == {sop for at in (1, 101) for sop, _ in named(at, 30)}
        for sop, _ in named(1, 30):
            assert "durability" not in facts[sop]
        # Each kind in a file of its own, and each file in the order of its numbers.
        kinds = []
        lines = list(journal.Tail(site.store_fd).read())
        for name in journal.segment_names(site.store_fd):
            here = [line.fact for line in lines if line.fact and line.place.segment == name]
            kinds.append({fact.get("durability") for fact in here})
            numbers = [fact["seq"] for fact in here]
            assert numbers == sorted(numbers)
        assert sorted(kinds, key=str) == [{"buffered"}, {None}]
        assert [one.message_id_being_responded_to for one in kept.responses()] == [*range(1, 31)]


def test_a_full_commit_of_stable_instances_holds_up_no_buffered_ones(tmp_path: Path) -> None:
    held = Held()
    with both(tmp_path / "store", held) as site:
        try:
            # From half of the number on none has more than its share.
            many = [stable(site) for _ in range(24)]
            for at, one in enumerate(many):
                for _, data in named(at * 60, 60):
                    if not one.transport.paused:
                        site.feed(one, data)
            assert site.reception.uncommitted >= 256
            assert many[-1].transport.paused
            quick = site.associate()
            for _, data in named(1000, 300):
                assert not quick.transport.paused
                site.feed(quick, data)
            assert quick.statuses() == [0] * 300
        finally:
            held.go.set()
        for one in many:
            site.settle(one)
            assert set(one.statuses()) == {0}
            assert not one.transport.paused


def test_only_buffered_instances_wait_for_a_buffered_journal_file(tmp_path: Path) -> None:
    ready: list[bool] = []

    def new_journal(durable: bool) -> tuple[int, int]:
        if not durable and not ready:
            raise BlockingIOError
        return made.segments[durable].next()

    with Site(tmp_path / "store", new_journal=new_journal) as made:
        quick, kept = made.associate(), stable(made)
        for number, (_, data) in enumerate(named(1, 20)):
            made.feed((quick, kept)[number % 2], data)
        made.settle(kept)
        assert kept.statuses() == [0] * 10
        assert quick.statuses() == []
        assert made.reception.uncommitted == 10
        ready.append(True)
        made.reception.journal_opened()
        assert quick.statuses() == [0] * 10
        assert len(made.journal()) == 20


def test_no_thread_flushes_before_there_is_a_stable_instance(site: Site) -> None:
    before = set(os.listdir("/proc/self/task"))
    one = site.associate()
    for _, data in named(1, 20):
        site.feed(one, data)
    assert one.statuses() == [0] * 20
    assert set(os.listdir("/proc/self/task")) <= before
    kept = stable(site)
    site.feed(kept, store(99, sop="1.2.99"))
    assert not set(os.listdir("/proc/self/task")) <= before
    site.settle(kept)


@pytest.mark.parametrize("stable_first", [False, True])
@pytest.mark.parametrize(
    ("seed", "kind", "status"), [(0, "identical", 0), (1, "version", 0), (1, "kept", 0xB006)]
)
def test_one_path_from_a_stable_and_a_buffered_association(
    tmp_path: Path, stable_first: bool, seed: int, kind: str, status: int
) -> None:
    policy = "keep" if kind == "kept" else "version"
    with Site(tmp_path / "store", policy=policy) as site:
        ones = [stable(site), site.associate()]
        first, second = ones if stable_first else reversed(ones)
        site.feed(first, store(1))
        site.settle(first)
        site.feed(second, store(2, data_set(seed=seed)))
        site.settle(second)
        assert (first.statuses(), second.statuses()) == ([0], [status])
        facts = sorted(site.journal(), key=lambda fact: fact["seq"])
        assert [fact.get("duplicate") for fact in facts] == [None, kind]
        assert [fact.get("durability") for fact in facts] == (
            [None, "buffered"] if stable_first else ["buffered", None]
        )


@pytest.mark.parametrize("broken", [False, True])
def test_a_journal_that_fails_costs_only_its_own_durability(tmp_path: Path, broken: bool) -> None:
    def new_journal(durable: bool) -> tuple[int, int]:
        if durable is broken:
            raise OSError(errno.ENOSPC, "full")
        return made.segments[durable].next()

    with Site(tmp_path / "store", new_journal=new_journal) as made:
        kept, quick = stable(made), made.associate()
        made.feed(kept, store(1))
        made.settle(kept)
        made.feed(quick, store(1, data_set(sop="1.2.7"), sop="1.2.7"))
        expected = ([0xA700], [0]) if broken else ([0], [0xA700])
        assert (kept.statuses(), quick.statuses()) == expected


def test_a_peer_that_takes_no_pdv(site: Site) -> None:
    with pytest.raises(ValueError, match="takes no PDV"):
        site.associate(peer_max_pdu_length=7)


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("durable", [False, True])
def test_a_reception_that_is_closed_writes_nowhere(
    tmp_path: Path, durable: bool, begun: bool
) -> None:
    """Its descriptors' numbers may be other files' by then, or a peer's socket."""
    with Site(tmp_path, durable=durable) as site:
        one = site.associate()
        site.feed(one, message(store_rq(), data_set(sop="1.2.3")))
        site.settle(one)
        data = message(store_rq(2, sop="1.2.4"), data_set(sop="1.2.4", pixels=40_000))
        site.feed(one, data[: 20_000 if begun else 0])
        site.removed()
        before, lines = site.files(), site.journal()
        sizes = {path: path.stat().st_size for path in site.store.rglob("*.part")}
        assert len(sizes) == begun
        site.reception.close()
        site.feed(one, data[20_000 if begun else 0 :])
        site.settle(one)
        assert one.statuses()[-1] == 0xA700
        assert (site.files(), site.journal()) == (before, lines)
        assert site.errors[-1][1] == errno.EBADF
        assert site.reception.uncommitted == 0
