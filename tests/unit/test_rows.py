"""What main and its workers share: the block, and what is counted of each instance that ended."""

from __future__ import annotations

import errno
import os
import re
import struct
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pydicom.uid import AllTransferSyntaxes

import fastscp
import fastscp_ext
from fastscp.config.tables import FromTable, Tables
from fastscp.config.values import read_allow_rule
from fastscp.errors import reason_for, words_of
from fastscp.messages.worker import Ask, Verdict
from fastscp_ext import Compression, Counts, Shared
from fastscp_ext.shared.block import Block
from fastscp_ext.shared.tables import reason_of, status_name, syntax_name
from tests.block import HEADER, begin_batch, regions
from tests.books import limited
from tests.kit import ELE, ILE, data_set, message, store, store_rq
from tests.unit.test_receiver import ECHO_RQ, Association, Site, rules

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.usefixtures("no_descriptor_left")

ENDS = Path("/proc/self/fd")
DATA = data_set()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with Site(tmp_path / "store") as made:
        yield made


Key = tuple[int | None, str | None]


def ended(site: Site) -> dict[Key, int]:
    """How often instances ended in each way; the families must agree, and the counts of each."""
    rows = site.shared.rows
    by_status = rows.by_status()
    totals = [
        [sum(column) for column in zip(*family.values(), strict=True)]
        for family in (rows.by_ae(), rows.by_transfer_syntax(), by_status)
    ]
    assert totals[0] == totals[1] == totals[2]
    for key, counts in by_status.items():
        stored = key[0] in (0, 0xB006)
        assert bool(counts.instances) == bool(counts.bytes) == stored
        assert bool(counts.refused) == (not stored and key != UNFINISHED)
    return {key: one.instances + one.refused + one.unfinished for key, one in by_status.items()}


# Each way an instance can end ---------------------------------------------------------------------

STORED: Key = (0, "stored")
UNTOLD: Key = (0, "stored, not answered")
UNFINISHED: Key = (None, "unfinished")


@pytest.mark.parametrize("durable", [False, True])
def test_stored(tmp_path: Path, durable: bool) -> None:
    with Site(tmp_path / "store", durable=durable) as site:
        one = site.associate()
        for number in range(3):
            site.feed(one, store(number, sop=f"1.2.{number}"))
        site.settle(one)
        assert ended(site) == {STORED: 3}
        size = sum(fact["bytes"] for fact in site.journal())
        assert site.shared.rows.by_ae() == {None: Counts(3, size, 0, 0)}
        assert site.shared.rows.by_transfer_syntax() == {ELE: Counts(3, size, 0, 0)}


def test_refused_as_it_came(site: Site) -> None:
    one = site.associate()
    site.feed(one, message(store_rq(more={0x0800: 0x0101}), None))
    site.shared.store.set_state(2)
    site.feed(one, store(2))
    site.shared.store.set_state(3)
    site.feed(one, store(3))
    assert one.statuses() == [0xC000, 0xA700, 0xA700]
    assert ended(site) == {
        (0xC000, "no data set"): 1, (0xA700, "disk full"): 1, (0xA700, "store is not there"): 1,
    }  # fmt: skip


def test_refused_at_its_last_byte(site: Site) -> None:
    one = site.associate()
    site.feed(one, message(store_rq(), data_set(study="")), range(0, 400, 7))
    site.feed(one, message(store_rq(), data_set(study=""), context=3))
    assert ended(site) == {(0xC000, "no Study or Series Instance UID found"): 2}
    assert set(site.shared.rows.by_transfer_syntax()) == {ELE, ILE}


def test_refused_with_a_status_of_somebody_elses(site: Site) -> None:
    one = site.associate()
    one.class_status = 0x0124
    site.feed(one, message(store_rq(sop_class="1.2.3"), DATA))
    assert one.statuses() == [0x0124]
    assert ended(site) == {(None, None): 1}


@pytest.mark.parametrize("durable", [False, True])
@pytest.mark.parametrize(
    ("policy", "seed", "key"),
    [
        ("version", 0, (0, "identical")),
        ("version", 1, (0, "version")),
        ("replace", 1, (0, "replaced")),
        ("keep", 1, (0xB006, "existing instance kept")),
        ("refuse", 1, (0xC000, "another instance has this UID")),
    ],
)
def test_duplicates(tmp_path: Path, policy: str, seed: int, key: Key, durable: bool) -> None:
    with Site(tmp_path / "store", policy=policy, durable=durable) as site:
        one = site.associate()
        site.feed(one, message(store_rq(1), DATA))
        site.settle(one)
        site.feed(one, message(store_rq(2), data_set(seed=seed)))
        site.settle(one)
        assert ended(site) == {STORED: 1, key: 1}


@pytest.mark.parametrize(
    ("comment", "error_no", "said", "counted"),
    [
        (None, errno.EIO, "I/O error", "I/O error"),
        (None, errno.EACCES, "cannot store now", "cannot store now"),
        (None, 0, "cannot store now", "cannot store now"),
        # What is said stands, whatever it is; the error counts.
        (b"cannot store now", errno.EIO, "cannot store now", "I/O error"),
        (b"disk full", errno.EACCES, "disk full", "disk full"),
    ],
)
def test_a_comparison_that_fails(
    site: Site, comment: bytes | None, error_no: int, said: str, counted: str
) -> None:
    site.resolve_at_once = False
    one = site.associate()
    site.feed(one, message(store_rq(1), DATA) + message(store_rq(2), DATA))
    (duplicate,) = site.waiting
    assert ended(site) == {STORED: 1}
    duplicate.refuse(0xA700, comment, error_no)
    assert one.responses()[1].error_comment == said
    assert ended(site) == {STORED: 1, (0xA700, counted): 1}


@pytest.mark.parametrize(
    ("error_no", "reason"),
    [(errno.ENOSPC, "disk full"), (errno.EIO, "I/O error"), (errno.EACCES, "cannot store now")],
)
def test_a_compression_that_fails(tmp_path: Path, error_no: int, reason: str) -> None:
    asked: list[Compression] = []
    with Site(tmp_path / "store", compress_level=1, on_complete=asked.append) as site:
        one = site.associate()
        site.feed(one, store(1))
        assert ended(site) == {}
        asked.pop().failed(error_no)
        assert [one.error_comment for one in one.responses()] == [reason]
        assert ended(site) == {(0xA700, reason): 1}
        assert site.counted() == (0, 1)


@pytest.mark.parametrize("durable", [False, True])
def test_what_is_refused_beside_the_loop_is_counted_once_everywhere(
    tmp_path: Path, durable: bool
) -> None:
    """In the rows, and for the association's last line."""
    asked: list[Compression] = []
    with Site(
        tmp_path / "store", durable=durable, policy="refuse", on_complete=asked.append
    ) as site:
        one = site.associate()
        site.feed(one, store(1) + store(2, data_set(seed=1)))
        site.settle(one)
        assert one.statuses() == [0, 0xC000]
        assert (one.outbox.stored, one.outbox.refused) == site.counted() == (1, 1)
        packed = site.associate(rules=rules(durable=durable, compress_level=1))
        site.feed(packed, store(1, sop="1.2.9"))
        asked.pop().failed(errno.EIO)
        assert packed.statuses() == [0xA700]
        assert (packed.outbox.stored, packed.outbox.refused) == (0, 1)
        assert site.counted() == (1, 2)


@pytest.mark.parametrize("durable", [False, True])
def test_a_journal_that_fails(tmp_path: Path, durable: bool) -> None:
    def none(_durable: bool) -> tuple[int, int]:
        raise OSError(errno.EDQUOT, "no more")

    with Site(tmp_path / "store", new_journal=none, durable=durable) as site:
        one = site.associate()
        site.feed(one, store(1))
        site.settle(one)
        assert one.statuses() == [0xA700]
        assert ended(site) == {(0xA700, "quota exceeded"): 1}


@pytest.mark.parametrize("end", [Association.abandon, Association.stop])
def test_the_peer_is_gone_before_the_response(
    tmp_path: Path, end: Callable[[Association], None]
) -> None:
    asked: list[Compression] = []
    with Site(tmp_path / "store", compress_level=1, on_complete=asked.append) as site:
        one = site.associate()
        # The second is refused, and its response waits behind the first.
        site.feed(one, store(1) + message(store_rq(2), data_set(study="")))
        end(one)
        first = asked.pop()
        whole = site.incoming / first.part
        packed = site.incoming / "1.part"
        packed.write_bytes(whole.read_bytes())
        first.done(packed.name, os.open(packed, os.O_WRONLY))
        assert ended(site) == {
            UNTOLD: 1, (0xC000, "no Study or Series Instance UID found"): 1
        }  # fmt: skip
        del first
        assert one.statuses() == []
        assert sum(site.shared.rows.times()["whole"].buckets) == 0


@pytest.mark.parametrize("end", [Association.abandon, Association.stop, Association.drop_message])
@pytest.mark.parametrize("data", [DATA, data_set(pixels=200)])
def test_the_peer_is_gone_before_the_last_byte(
    site: Site, end: Callable[[Association], None], data: bytes
) -> None:
    one = site.associate()
    site.feed(one, store(1))
    site.feed(one, message(store_rq(2), data, fragment=100)[:-1])
    end(one)
    one.abandon()
    assert ended(site) == {STORED: 1, UNFINISHED: 1}
    assert site.shared.rows.by_status()[UNFINISHED] == Counts(0, 0, 0, 1)


def test_other_commands_are_no_instances(site: Site) -> None:
    one = site.associate()
    site.feed(one, message(ECHO_RQ, None, context=11))
    site.feed(one, message(ECHO_RQ, DATA, context=11)[:-1])
    one.abandon()
    assert ended(site) == {}
    assert site.shared.rows.times()["whole"].total_us == 0


# Rows ---------------------------------------------------------------------------------------------


def test_counters_outlive_the_worker(tmp_path: Path) -> None:
    with Site(tmp_path / "store") as site:
        shared = site.shared
        site.feed(site.associate(), store(1))
        before = shared.rows.received(3)
        assert before == shared.rows.received() > 0
        shared.liveness.heartbeat(3, 5)
        shared.liveness.clear(3)
        assert shared.liveness.alive_ms(3) == 0
        assert shared.rows.received(3) == before
        assert ended(site) == {STORED: 1}
        # Another process sees the same, and what is counted from here on.
        other = Shared(os.dup(shared.fd))
        site.feed(site.associate(), store(2, sop="1.2.9"))
        assert other.rows.by_status() == shared.rows.by_status()
        assert other.rows.by_status()[STORED].instances == 2
        assert other.rows.received() == shared.rows.received()
        del other, shared


def test_a_worker_out_of_range() -> None:
    shared = Shared()
    for outside in (-1, 256):
        with pytest.raises(IndexError):
            shared.rows.received(outside)
        with pytest.raises(IndexError):
            shared.liveness.heartbeat(outside, 1)
        with pytest.raises(IndexError):
            shared.liveness.alive_ms(outside)
        with pytest.raises(IndexError):
            shared.liveness.disk_since(outside)


def test_members_keep_the_block() -> None:
    rows = Shared().rows
    assert rows.ae_row(b"CT1") == 1
    assert rows.by_ae() == {}


def test_ae_rows() -> None:
    rows = Shared().rows
    assert rows.ae_row(b"PACS", named=True) == 1
    for number in range(3):
        assert rows.ae_row(b"CT%d" % number) == 2 + number
    assert [rows.ae_row(title) for title in (b"CT1", b"PACS", b"", b"CT1\0")] == [3, 1, 5, 6]
    assert rows.ae_row(b"x" * 31) == 7
    assert rows.ae_row(b"x" * 32) == 0


def test_a_stream_of_titles_grows_nothing() -> None:
    shared = Shared()
    rows = [shared.rows.ae_row(b"%d" % number) for number in range(5000)]
    assert rows == [*range(1, 101), *[0] * 4900]
    named = [shared.rows.ae_row(b"N%d" % number, named=True) for number in range(500)]
    assert named == [*range(101, 256), *[0] * 345]
    assert shared.rows.ae_row(b"7") == 8
    assert shared.rows.ae_row(b"N7") == 108


def test_only_the_admitted_get_rows() -> None:
    shared = Shared()
    tables = Tables(
        senders=(FromTable("ct", (read_allow_rule("CT1@10.0.0.0/8"),)),
                 FromTable("any", (read_allow_rule("*@10.0.0.1"),))),
    )  # fmt: skip
    books = limited(3, rows=shared.rows, tables=tables)
    answers = []
    asking = [("1", "X"), ("2", "CT1"), ("1", "%FF"), ("1", "Z")]
    for number, (host, title) in enumerate(asking):
        books.opened(number, f"10.0.0.{host}", 0)
        answer = books.ask(Ask(number, title, "FASTSCP"))
        assert isinstance(answer, Verdict)
        answers.append(answer)
    assert [answer.result for answer in answers] == [0, 0, 0, 2]
    assert [answer.ae_row for answer in answers] == [2, 1, 3, 0]
    assert shared.rows.ae_row(b"Z") == 4


def test_instances_are_counted_where_their_association_belongs(site: Site) -> None:
    rows = site.shared.rows
    one, other = (
        site.associate(ae_row=rows.ae_row(title)) for title in (b"CT1", "\xc4".encode("latin-1"))
    )
    site.feed(one, store(1))
    site.feed(other, message(store_rq(1, sop="1.2.4"), data_set(sop="1.2.4"), context=9))
    site.feed(other, message(store_rq(1, sop="1.2.5"), data_set(study=""), context=9))
    counts = rows.by_ae()
    assert set(counts) == {"CT1", "\xc4"}
    assert counts["\xc4"][::2] == (1, 1)
    # A private transfer syntax has no row.
    assert rows.by_transfer_syntax() == {ELE: counts["CT1"], None: counts["\xc4"]}


@pytest.mark.parametrize("row", [-1, 256])
def test_a_row_that_is_none(site: Site, row: int) -> None:
    with pytest.raises(ValueError, match="no such row"):
        site.associate(ae_row=row)


# Tables -------------------------------------------------------------------------------------------


def test_every_standard_transfer_syntax_has_a_row() -> None:
    names = [syntax_name(row) for row in range(1, 80)]
    assert set(AllTransferSyntaxes) <= set(names)
    known = [name for name in names if name is not None]
    assert len(set(known)) == len(known) == 80 - 1 - names.count(None)
    assert syntax_name(0) is syntax_name(-1) is syntax_name(1000) is None


def test_every_refusal_has_a_row() -> None:
    """What the sources say in an Error Comment is in the table, with its status."""
    known = {status_name(row) for row in range(64)}
    source = "".join(
        path.read_text("utf-8") for path in Path(fastscp_ext.__file__).parent.rglob("*.pyx")
    )
    refused = re.findall(r'instance_refuse\(\s*i, (?:([A-Z_]+)|[^,]+), b"([^"]+)"', source)
    assert len(refused) > 20
    assert len([name for name, _text in refused if not name]) == 2
    for name, text in refused:
        if name:
            assert (getattr(fastscp_ext.status, name), text) in known
        else:
            assert text in {reason for _status, reason in known}
    duplicates = (Path(fastscp.__file__).parent / "store" / "duplicates.py").read_text("utf-8")
    said = re.findall(r'status\.(\w+),\s*b"([^"]+)"', duplicates)
    assert len(set(said)) == 3
    for name, text in said:
        assert (getattr(fastscp_ext.status, name), text) in known
    # One goes on with a place.
    (text,) = set(re.findall(r'memcpy\(out, b"([a-z ]+) \("', source))
    assert (fastscp_ext.status.CANNOT_UNDERSTAND, text) in known
    began = {text}
    # Nor does the table have a comment that nobody sends, except those of an error number.
    table = (Path(fastscp_ext.__file__).parent / "shared" / "tables.pyx").read_text("utf-8")
    listed = set(re.findall(r'\([A-Z_]+, b"([^"]+)", 0\)', table[table.index('b"discarded"') :]))
    assert len(listed) > 20
    # With each of the statuses that others have, too.
    assert {status for status, text in known if text == "refused on purpose"} == {
        status for status, text in known if text is None and status is not None
    }
    listed |= {"refused on purpose"}
    assert listed == began | {text for _name, text in (*refused, *said)}
    assert status_name(-1) == status_name(1000) == status_name(0) == (None, None)


def test_a_comment_counts_where_its_error_does(site: Site) -> None:
    site.resolve_at_once = False
    one = site.associate()
    said = {text for number in errno.errorcode if (text := reason_of(number)) is not None}
    assert len(said) > 10
    for number, text in enumerate(sorted(said), 2):
        site.feed(one, (message(store_rq(1), DATA) if number == 2 else b"") + store(number))
        site.waiting.pop().refuse(0xA700, text.encode())
    assert ended(site) == {STORED: 1} | {(0xA700, text): 1 for text in said}


def test_a_cause_has_one_name() -> None:
    """In the Error Comment, the counters and the log."""
    for error in (errno.ENOSPC, errno.EDQUOT):
        assert reason_for(error) == reason_for(OSError(error, "words")) == reason_of(error)
    assert reason_for(OSError(errno.ENOENT, "words")) == "words"
    assert reason_for(OSError("no number")) == "no number"
    assert words_of(OSError(errno.ENOSPC, "words", "a/b")) == "a/b: disk full"
    assert words_of(OSError(errno.ENOSPC, "words")) == "disk full"
    assert words_of(ValueError("words")) == "words"
    assert reason_of(0) is reason_of(errno.EPERM) is None


# Times --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("durable", [False, True])
def test_how_long_it_took(tmp_path: Path, durable: bool) -> None:
    asked: list[Compression] = []
    with Site(
        tmp_path / "store", durable=durable, compress_level=1, on_complete=asked.append
    ) as site:
        one = site.associate()
        rq = message(store_rq(1), DATA, fragment=100)
        begun = time.monotonic_ns()
        site.feed(one, rq[:-10])
        time.sleep(0.003)
        site.feed(one, rq[-10:])
        time.sleep(0.02)
        compression = asked.pop()
        part = site.incoming / "1.part"
        part.write_bytes((site.incoming / compression.part).read_bytes())
        compression.done(part.name, os.open(part, os.O_WRONLY))
        del compression
        site.settle(one)
        took_us = (time.monotonic_ns() - begun) // 1000
        times = site.shared.rows.times()
        assert list(times) == ["receive", "commit", "answer", "whole", "response"]
        for stretch in times.values():
            assert sum(stretch.buckets) == 1
            # The bucket is the number of bits.
            assert stretch.buckets[stretch.total_us.bit_length()] == 1
        receive, commit, answer, whole, response = (stretch.total_us for stretch in times.values())
        assert receive >= 3_000
        assert commit >= 20_000
        assert 0 <= whole - receive - commit - answer <= 3
        assert 0 <= response - commit - answer <= 2
        assert whole <= took_us


def test_a_refused_one_has_no_time_of_its_commit(site: Site) -> None:
    site.feed(site.associate(), message(store_rq(), data_set(study="")))
    assert [sum(one.buckets) for one in site.shared.rows.times().values()] == [1, 0, 0, 1, 1]


# The block ----------------------------------------------------------------------------------------


def test_the_header_tells_the_layout() -> None:
    shared = Shared()
    magic, version, count, size, *_places = HEADER.unpack(os.pread(shared.fd, HEADER.size, 0))
    assert (magic, version, count, size) == (b"fastscp\0", 16, 5, os.fstat(shared.fd).st_size)
    end = HEADER.size
    for offset, length in regions(shared.fd).values():
        assert offset >= end
        assert offset % 64 == 0
        end = offset + length
    assert end == size


@pytest.mark.parametrize(
    ("change", "at", "said"),
    [
        (b"postgres", 0, "not one of fastscp"),
        (struct.pack("=I", 99), 8, "has version 99, this program knows version 16"),
        (struct.pack("=I", 7), 12, "regions in other places"),
        (struct.pack("=Q", 4096), 16, "bytes and says 4096"),
        (struct.pack("=Q", 64), 24, "regions in other places"),
    ],
)
def test_a_block_that_is_not_known(change: bytes, at: int, said: str) -> None:
    shared = Shared()
    assert Shared(os.dup(shared.fd)).fd >= 0
    os.pwrite(shared.fd, change, at)
    with pytest.raises(ValueError, match=said):
        Shared(os.dup(shared.fd))


def test_a_block_of_another_size() -> None:
    shared = Shared()
    size = os.fstat(shared.fd).st_size
    with pytest.raises(ValueError, match="too short"):
        Block(os.memfd_create("short"))
    os.ftruncate(shared.fd, size + 4096)
    with pytest.raises(ValueError, match=f"has {size + 4096} bytes and says {size}"):
        Shared(os.dup(shared.fd))
    with pytest.raises(OSError, match="Bad file descriptor"):
        Shared(1 << 20)


def test_claims() -> None:
    shared = Shared()
    other = Shared(os.dup(shared.fd))
    slots = shared.claims.slots
    assert not other.claims.claim(3, 7)
    shared.claims.offer(3, 7)
    shared.claims.offer(4, 7 + slots)
    assert not other.claims.claim(3, 8)
    assert [other.claims.claim(3, 7), shared.claims.claim(3, 7)] == [True, False]
    assert other.claims.claim(4, 7 + slots)
    for slot in (-1, slots):
        with pytest.raises(IndexError):
            shared.claims.claim(slot, 1)


@pytest.mark.parametrize(
    ("change", "at", "said"),
    [
        (b"fastscp", 0, "the common block is not one of fastscp"),
        (struct.pack("=I", 2), 8, "the common block has version 2, this program knows version 1"),
        (struct.pack("=Q", 4096), 16, "bytes and says 4096"),
    ],
)
def test_a_common_block_that_is_not_known(change: bytes, at: int, said: str) -> None:
    """It may be a main of another version that made it."""
    shared = Shared()
    assert Shared(-1, os.dup(shared.common_fd)).common_fd >= 0
    os.pwrite(shared.common_fd, change, at)
    with pytest.raises(ValueError, match=said):
        Shared(-1, os.dup(shared.common_fd))
    with pytest.raises(ValueError, match="too short"):
        Shared(-1, os.memfd_create("short"))


def test_a_main_and_its_successor_have_one_journal_and_counters_of_their_own() -> None:
    old = Shared()
    new = Shared(-1, os.dup(old.common_fd))
    old.store.begin_sequence(7)
    assert [new.store.next_sequence(), old.store.next_sequence()] == [8, 9]
    new.store.mixed = True
    assert old.store.mixed
    assert old.doubts.refuse("1.2/3")
    assert new.doubts.refuses("1.2/3")
    begin_batch(old, 3)
    (batch,) = new.liveness.batches()
    assert batch[:2] == (3, 1)
    assert new.liveness.under_way(batch)
    old.liveness.end_batches(3)
    assert not new.liveness.under_way(batch)
    old.liveness.heartbeat(3, 5)
    assert new.liveness.alive_ms(3) == 0
    old.claims.offer(1, 1)
    assert not new.claims.claim(1, 1)


def test_the_sequence_is_one() -> None:
    shared = Shared()
    other = Shared(os.dup(shared.fd), os.dup(shared.common_fd))
    shared.store.begin_sequence(41)
    assert [shared.store.next_sequence(), other.store.next_sequence()] == [42, 43]


def test_a_batch_is_under_way_until_its_lines_are_written(tmp_path: Path) -> None:
    """A journal that takes nothing holds the commit up: a pipe that is full."""
    reader, writer = os.pipe()
    try:
        os.set_blocking(writer, False)
        size = 0
        while True:
            try:
                size += os.write(writer, bytes(4096))
            except BlockingIOError:
                break
        os.set_blocking(writer, True)
        with Site(
            tmp_path / "store", durable=True, new_journal=lambda _durable: (writer, 0)
        ) as site:
            liveness = site.shared.liveness
            one = site.associate()
            assert liveness.batches() == []
            site.feed(one, store(1))
            deadline = time.monotonic() + 20
            while not site.files():
                assert time.monotonic() < deadline
                threading.Event().wait(0.002)
            assert liveness.batches() == [(3, 1, 1)]
            assert liveness.under_way((3, 1, 1))
            assert ended(site) == {}
            os.read(reader, size)
            # It cannot be flushed.
            site.settle(one)
            assert one.statuses() == [0xA700]
            assert liveness.batches() == []
            assert not liveness.under_way((3, 1, 1))
            assert ended(site) == {(0xA700, "cannot store now"): 1}
    finally:
        os.close(reader)
        os.close(writer)
