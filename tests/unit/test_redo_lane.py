"""The redo log as a worker writes it: what takes it, what is in it, and when it is free again."""

from __future__ import annotations

import errno
import itertools
import os
import struct
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import pytest

from fastscp.store.journal import Segments, parse_line
from fastscp_ext import crc32c
from tests.kit import data_set, message, path_of, store, store_rq, wait_for
from tests.redo_files import BLOCK, FOLDER, LOG_BYTES, PUT, mark_of
from tests.stores import LAYOUT, compressed
from tests.unit.test_receiver import Site, meta, rules

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from fastscp_ext import Compression

pytestmark = pytest.mark.usefixtures("no_descriptor_left")

# The age at which a log file gets its checkpoint.
OLD_S: Final = 1.0
# What is asked of the log here, where a test does not say otherwise.
MOST: Final = 65536
ORIGIN: Final = {
    "store": "7f1c", "boot": "b-1", "life": "1-w3", "mount": "unique 5", "system": "77",
}  # fmt: skip


class Record(NamedTuple):
    seq: int
    path: str
    fact: dict[str, Any]
    data: bytes


class Log(NamedTuple):
    """A log file as it is read: its header's fields, and the records that count."""

    salt: int
    number: int
    texts: list[str]
    batches: list[int]
    records: list[Record]


def read_log(path: Path) -> Log:
    """By the format alone; whatever does not fit in what must fit fails the test."""
    data = path.read_bytes()
    assert len(data) == LOG_BYTES
    magic, version, number, salt, inode, size = struct.unpack_from("<8sIIQQQ", data)
    with path.open("rb") as file:
        assert inode == mark_of(file.fileno())
    assert (magic, version, size) == (b"FSCPREDO", 1, LOG_BYTES)
    assert salt != 0
    assert struct.unpack_from("<I", data, 264)[0] == crc32c(data[:264])
    assert not any(data[268:BLOCK])
    texts = [
        data[at : at + room].rstrip(b"\0").decode("ascii")
        for at, room in ((40, 40), (80, 48), (128, 64), (192, 48), (240, 24))
    ]
    batches, records = [], []
    at = BLOCK
    while data[at : at + 8] == b"FSCPBTCH":
        head = data[at : at + 64]
        used, batch, payload, count, crc = struct.unpack_from("<QQQII", head, 8)
        if used != salt:
            break
        assert struct.unpack_from("<I", head, 60)[0] == crc32c(head[:60])
        assert not any(head[40:60])
        body = data[at + 64 : at + 64 + payload]
        assert crc32c(body) == crc
        found = list(read_records(body))
        assert len(found) == count
        batches.append(batch)
        records += found
        end = at + 64 + payload
        at += -(-(64 + payload) // BLOCK) * BLOCK
        assert not any(data[end:at])
    return Log(salt, number, texts, batches, records)


def read_records(body: bytes) -> Iterator[Record]:
    at = 0
    while at < len(body):
        kind, zero, path, line, seq, size, crc = struct.unpack_from("<BBHIQII", body, at)
        assert (kind, zero) == (PUT, 0)
        at += 24
        name, text, data = (
            body[at : at + path], body[at + path : at + path + line],
            body[at + path + line : at + path + line + size],
        )  # fmt: skip
        at += path + line + size
        assert crc32c(data) == crc
        assert text.endswith(b"\n")
        fact = parse_line(text[:-1])
        assert fact is not None
        assert fact["seq"] == seq
        yield Record(seq, name.decode(), fact, data)


class Logged:
    """A site whose small stable instances take the log."""

    def __init__(self, site: Site, *, most: int = MOST, kept: int = 4096) -> None:
        self.site = site
        self.failed: list[tuple[str, int, str]] = []
        self.folder = site.store / FOLDER
        self.folder.mkdir()
        self.folder_fd = os.open(self.folder, os.O_RDONLY)
        self.segments = Segments(site.store_fd, "1", "wr", durable=True)
        # Called by the lane before it has a new segment.
        self.before_segment: Callable[[], object] = lambda: None
        site.reception.open_log(
            self.folder_fd, most=most, kept=kept, **ORIGIN, new_journal=self._next,
            on_failed=lambda *what: self.failed.append(what),
        )  # fmt: skip

    def _next(self) -> tuple[int, int, str]:
        self.before_segment()
        fd, size = self.segments.next()
        return fd, size, self.segments.path(fd)

    def close(self) -> None:
        try:
            self.site.reception.close_log()
        finally:
            self.segments.close()
            os.close(self.folder_fd)

    def logs(self) -> list[Path]:
        """Those that are whole; what is being made has another name."""
        return sorted(self.folder.glob("*.log"))

    def make_first(self) -> None:
        """The first instance goes the other way, and has a log file made."""
        one = self.site.associate()
        self.site.feed(one, store(1, sop="1.2.0"))
        self.site.settle(one)
        assert one.statuses() == [0]
        wait_for(lambda: [path.stat().st_size for path in self.logs()] == [LOG_BYTES], "a log file")
        # Its name is there before it is used.
        wait_for(lambda: self.taken("1.2.0.0") > 0, "the lane")

    def taken(self, sop: str, nbytes: int = 64) -> int:
        """Store one more, and tell how many instances the log has taken so far."""
        one = self.site.associate()
        sop = f"{sop}.{self.site.numbers}"
        self.site.feed(one, store(1, data_set(sop=sop, pixels=nbytes), sop=sop))
        self.site.settle(one)
        assert one.statuses() == [0]
        return self.count()

    def count(self) -> int:
        return sum(self.site.shared.rows.flushes()["log"].buckets)

    def checkpoints(self) -> int:
        return sum(self.site.shared.rows.flushes()["checkpoint"].buckets)

    def ways(self) -> dict[str, int]:
        """How many took which way, without those that none took."""
        return {way: n for way, n in self.site.shared.rows.redo_ways().items() if n}

    def lines(self) -> list[dict[str, Any]]:
        """What stands in the lane's own segments."""
        found = []
        for path in sorted((self.site.store / ".fastscp/journal").glob("1-wr-*.jsonl")):
            found += [parse_line(line) for line in path.read_bytes().splitlines()]
        assert None not in found
        return [fact for fact in found if fact is not None]


@contextmanager
def logged(folder: Path, *, most: int = MOST, kept: int = 4096, **options: Any) -> Iterator[Logged]:
    with Site(folder, durable=True, **options) as site:
        made = Logged(site, most=most, kept=kept)
        closed = False
        try:
            yield made
            closed = True
            site.until(lambda: site.reception.uncommitted == 0)
            made.close()
            assert list(made.folder.iterdir()) == []
            assert made.failed == []
        finally:
            if not closed:
                made.segments.close()
                os.close(made.folder_fd)


def test_a_small_instance_is_in_the_log_in_its_place_and_in_the_journal(tmp_path: Path) -> None:
    with logged(tmp_path / "store") as log:
        log.make_first()
        data = data_set()
        one = log.site.associate()
        log.site.feed(one, message(store_rq(), data))
        log.site.settle(one)
        assert one.statuses() == [0]
        assert log.site.files()[path_of()] == meta() + data
        (path, *_more) = log.logs()
        found = read_log(path)
        assert path.name == "1-w3-1.log"
        assert found.texts == [
            ORIGIN[name] for name in ("store", "boot", "life", "mount", "system")
        ]
        record = found.records[-1]
        assert record.path == path_of()
        assert record.data == meta() + data
        assert record.fact == log.lines()[-1]
        assert record.fact["bytes"] == len(data)
        assert "durability" not in record.fact
        assert log.site.counted() == (log.site.numbers, 0)
        assert log.site.parts() == []


def test_what_waits_together_takes_one_flush(tmp_path: Path) -> None:
    with logged(tmp_path / "store") as log:
        log.make_first()
        before, numbers = log.count(), log.site.numbers
        one = log.site.associate()
        log.site.feed(one, b"".join(store(n, sop=f"1.2.9.{n}", fragment=4000) for n in range(60)))
        log.site.settle(one)
        assert one.statuses() == [0] * 60
        assert 1 <= log.count() - before < 60
        assert len(log.site.files()) == numbers + 60
        assert len({fact["seq"] for fact in log.site.journal()}) == numbers + 60


def test_numbers_of_batches_rise_over_all_files(tmp_path: Path) -> None:
    with logged(tmp_path / "store") as log:
        log.make_first()
        batches: list[int] = []

        def are_five() -> bool:
            # Those of an earlier use do not count any more: a checkpoint may come in between.
            log.taken("1.3")
            found = {number for path in log.logs() for number in read_log(path).batches}
            batches.extend(sorted(found.difference(batches)))
            return len(batches) >= 5

        wait_for(are_five, "five batches")
        assert batches == sorted(batches)


def test_a_checkpoint_has_the_file_free_again(tmp_path: Path) -> None:
    with logged(tmp_path / "store") as log:
        log.make_first()
        log.taken("1.4")
        # A second one may be there: it was asked for before the first was used.
        path = log.logs()[0]
        # The old batches are there, and count for nothing.
        wait_for(lambda: read_log(path).records == [], "a checkpoint")
        old = path.read_bytes()[BLOCK : BLOCK + 16]
        assert old[:8] == b"FSCPBTCH"
        assert old[8:] != read_log(path).salt.to_bytes(8, "little")
        wait_for(lambda: log.checkpoints() > 0, "its count")
        before = log.count()
        assert log.taken("1.5") == before + 1
        assert path.read_bytes()[BLOCK : BLOCK + 16] != old


def test_a_file_that_becomes_due_while_the_lane_has_it(tmp_path: Path) -> None:
    """The checkpoint finds it in use, and gets it with no other instance that comes along."""
    with logged(tmp_path / "store") as log:
        log.make_first()
        for path in (log.site.store / ".fastscp/journal").glob("1-wr-*.jsonl"):
            path.unlink()
        found = []

        def until_it_is_due() -> None:
            end = time.monotonic() + OLD_S * 1.5
            wait_for(lambda: time.monotonic() >= end, "the age")
            found.append(log.checkpoints())

        log.before_segment = until_it_is_due
        log.taken("1.6")
        (before,) = found
        wait_for(lambda: log.checkpoints() > before, "its checkpoint")


def test_nothing_is_kept_open_behind_a_checkpoint(tmp_path: Path) -> None:
    with logged(tmp_path / "store") as log:
        log.make_first()
        wait_for(lambda: log.checkpoints() >= 1, "a checkpoint")
        before = len(os.listdir("/proc/self/fd"))
        one = log.site.associate()
        numbers = itertools.count()

        def are_kept() -> bool:
            # Whoever looks late finds some of them closed.
            number = next(numbers)
            log.site.feed(one, b"".join(store(n, sop=f"1.2.8.{number}.{n}") for n in range(20)))
            log.site.settle(one)
            return len(os.listdir("/proc/self/fd")) >= before + 20

        wait_for(are_kept, "open files")
        wait_for(lambda: len(os.listdir("/proc/self/fd")) <= before, "closed files")


def test_how_many_took_which_way_is_counted(tmp_path: Path) -> None:
    with logged(tmp_path / "store") as log:
        log.make_first()
        first = log.ways()
        # Before there was a file.
        assert (sorted(first), sum(first.values())) == (["full", "log"], log.site.numbers)
        one = log.site.associate()
        log.site.shared.doubts.refuse("1.9.4")
        for n, (way, sent) in enumerate(
            {
                "log": store(1),
                "taken": store(2),
                "larger": store(3, data_set(sop="1.2.6", pixels=MOST), sop="1.2.6"),
                "other": store(4, data_set(study="1.9.4", sop="1.9.4.1"), sop="1.9.4.1"),
            }.items(),
            1,
        ):
            before = log.ways()
            log.site.feed(one, sent)
            log.site.settle(one)
            assert log.ways() == before | {way: before.get(way, 0) + 1}
            assert sum(log.ways().values()) == sum(first.values()) + n
        assert one.statuses() == [0, 0, 0, 0xA700]
        buffered = log.site.associate(rules=rules(durable=False))
        before = log.ways()
        log.site.feed(buffered, store(5, sop="1.2.6.5"))
        log.site.settle(buffered)
        assert log.ways() == before


def test_without_a_log_no_way_is_counted(tmp_path: Path) -> None:
    with Site(tmp_path / "store", durable=True) as site:
        one = site.associate()
        site.feed(one, store())
        site.settle(one)
        assert one.statuses() == [0]
        assert set(site.shared.rows.redo_ways().values()) == {0}


@pytest.mark.parametrize(("pixels", "more"), [(MOST, 0), (MOST - 2000, 1)])
def test_only_small_ones_take_the_log(tmp_path: Path, pixels: int, more: int) -> None:
    with logged(tmp_path / "store") as log:
        log.make_first()
        before = log.count()
        assert log.taken("1.6", pixels) - before == more


def test_buffered_instances_do_not(tmp_path: Path) -> None:
    with logged(tmp_path / "store") as log:
        log.make_first()
        before = log.count()
        one = log.site.associate(rules=rules(durable=False))
        log.site.feed(one, store())
        log.site.settle(one)
        assert one.statuses() == [0]
        assert log.count() == before


@pytest.mark.parametrize("policy", ["version", "replace", "keep", "refuse"])
def test_a_name_that_is_taken_is_judged_as_without_a_log(tmp_path: Path, policy: str) -> None:
    kept = []
    for with_log in (False, True):
        with Site(tmp_path / f"store{with_log}", durable=True, policy=policy) as site:
            log = Logged(site) if with_log else None
            if log is not None:
                log.make_first()
            one = site.associate()
            for n, tail in enumerate((1, 1, 2)):
                site.feed(one, message(store_rq(n), data_set() + bytes([tail]) * 10))
                site.settle(one)
            ours = {name: data for name, data in site.files().items() if path_of() in name}
            facts = [fact for fact in site.journal() if path_of() in fact["path"]]
            facts.sort(key=lambda fact: int(fact["seq"]))
            kept.append(
                (one.statuses(), ours, [(fact["path"], fact.get("duplicate")) for fact in facts])
            )
            if log is not None:
                log.close()
    assert kept[0] == kept[1]


def test_two_with_one_path_at_once(tmp_path: Path) -> None:
    with logged(tmp_path / "store") as log:
        log.make_first()
        ones = [log.site.associate() for _ in range(2)]
        for n, one in enumerate(ones):
            log.site.feed(one, message(store_rq(), data_set() + bytes([n]) * 10))
        for one in ones:
            log.site.settle(one)
            assert one.statuses() == [0]
        ours = {name for name in log.site.files() if path_of() in name}
        assert ours == {path_of(), f"{path_of()}~2"}
        facts = sorted(
            (int(fact["seq"]), fact["path"]) for fact in log.site.journal() if fact["path"] in ours
        )
        assert [path for _seq, path in facts] == [path_of(), f"{path_of()}~2"]


def test_room_for_files_is_waited_for(tmp_path: Path) -> None:
    """A checkpoint begins when it is needed, and gives room with each file that it flushes."""
    with logged(tmp_path / "store", kept=4) as log:
        log.make_first()

        def took(number: int) -> int:
            """Of twelve, each alone: a batch has one file."""
            one = log.site.associate()
            before = log.count()
            for n in range(12):
                log.site.feed(one, store(n, sop=f"1.2.7.{number}.{n}"))
                log.site.settle(one)
            assert one.statuses() == [0] * 12
            return log.count() - before

        # Where a flush takes long some go the other way; without waiting eight of them always do.
        assert any(took(number) == 12 for number in range(20))


def test_a_batch_has_no_more_files_than_there_is_room_for(tmp_path: Path) -> None:
    with logged(tmp_path / "store", kept=4) as log:
        log.make_first()
        one = log.site.associate()
        before, numbers = log.count(), log.site.numbers - 1
        log.site.feed(one, b"".join(store(n, sop=f"1.2.6.{n}") for n in range(30)))
        log.site.settle(one)
        assert one.statuses() == [0] * 30
        assert log.count() > before
        assert len(log.site.files()) == numbers + 30
        # Each bucket counts numbers below a power of two: none has eight.
        assert not any(log.site.shared.rows.batches()["log"].buckets[4:])


@pytest.mark.parametrize(("count", "pixels"), [(1200, 64), (400, 60_000)])
def test_the_log_has_a_bounded_number_of_files_and_records(
    tmp_path: Path, count: int, pixels: int
) -> None:
    with logged(tmp_path / "store") as log:
        log.make_first()
        one = log.site.associate()
        numbers, most, sent = log.site.numbers - 1, 0, 0
        # A checkpoint that comes between two of these has room again, with one file.
        while sent < count or (len(log.logs()) == 1 and sent < 50 * count):
            log.site.feed(
                one,
                b"".join(
                    store(n % 1000, data_set(sop=f"1.3.{n}", pixels=pixels), sop=f"1.3.{n}")
                    for n in range(sent, sent + 50)
                ),
            )
            log.site.settle(one)
            sent += 50
            for path in log.logs():
                # Whole as soon as it has its name.
                most = max(most, len(read_log(path).records))
        assert one.statuses() == [0] * sent
        assert len(log.site.files()) == sent + numbers
        assert 1 < len(log.logs()) <= 8
        assert 0 < most <= 1024


def test_a_folder_that_was_taken_away_is_no_failure(tmp_path: Path) -> None:
    with logged(tmp_path / "store") as log:
        log.make_first()
        study = data_set(study="1.9.9", sop="1.9.9.1")
        one = log.site.associate()
        log.site.feed(one, message(store_rq(sop="1.9.9.1"), study))
        log.site.settle(one)
        before = log.checkpoints()
        (log.site.store / "1.9.9").rename(tmp_path / "taken")
        wait_for(lambda: log.checkpoints() > before, "a checkpoint")
        assert log.failed == []
        assert log.taken("1.9.8") > 0


def test_lines_go_to_a_new_segment_where_theirs_was_removed(tmp_path: Path) -> None:
    with logged(tmp_path / "store") as log:
        log.make_first()
        for path in (log.site.store / ".fastscp/journal").glob("1-wr-*.jsonl"):
            path.unlink()
        before = log.count()
        assert log.taken("1.7") == before + 1
        (fact,) = log.lines()
        assert fact["path"].endswith(".dcm")
        assert log.taken("1.7.7") == before + 2
        assert len(log.lines()) == 2


def test_a_compressed_instance_counts_by_its_compressed_size(tmp_path: Path) -> None:
    def compress(compression: Compression) -> None:
        compression.done(*compressed(site.incoming_fd, compression.part, 1))

    with Site(
        tmp_path / "store", durable=True, compress_level=1, on_complete=compress, layout=LAYOUT
    ) as site:
        log = Logged(site)
        log.make_first()
        before = log.count()
        # Made of repeats: a tenth of its size compressed.
        sop = "1.2.5"
        data = data_set(sop=sop, pixels=0) + b"\xe0\x7f\x10\x00OW\0\0" + struct.pack("<I", 200_000)
        one = site.associate()
        site.feed(one, message(store_rq(sop=sop), data + bytes(200_000)))
        site.settle(one)
        assert one.statuses() == [0]
        assert log.count() == before + 1
        log.close()
        assert log.logs() == []


def test_a_log_file_that_was_removed_is_used_no_more(tmp_path: Path) -> None:
    with Site(tmp_path / "store", durable=True) as site:
        log = Logged(site)
        log.make_first()
        taken = log.taken("1.8")
        for path in log.logs():
            path.unlink()
        assert log.taken("1.8.1") == taken + 1  # tried, and not believed
        assert [(step, what) for step, _error, what in log.failed] == [
            ("write the redo log", "off")
        ]
        assert log.taken("1.8.2") == taken + 1
        assert log.ways()["other"] == 2
        log.close()


@pytest.mark.parametrize("suffix", ["log", "new"])
def test_a_log_file_that_cannot_be_made_is_told_once(tmp_path: Path, suffix: str) -> None:
    with Site(tmp_path / "store", durable=True) as site:
        log = Logged(site)
        there = log.folder / f"{ORIGIN['life']}-1.{suffix}"
        there.write_bytes(b"somebody else's")
        one = site.associate()
        for n in range(3):
            site.feed(one, store(n, sop=f"1.2.0.{n}"))
            site.settle(one)
        assert one.statuses() == [0] * 3
        wait_for(lambda: log.failed, "a word")
        assert log.failed == [("make a file of the redo log", errno.EEXIST, "waits")]
        log.close()
        assert list(log.folder.iterdir()) == [there]
        assert there.read_bytes() == b"somebody else's"


def test_the_lane_names_nothing_in_a_folder_that_was_moved_away(tmp_path: Path) -> None:
    with logged(tmp_path / "store") as log:
        log.make_first()
        one = log.site.associate()
        log.site.feed(one, store(1, data_set(study="1.9.1", sop="1.9.1.1"), sop="1.9.1.1"))
        log.site.settle(one)
        (log.site.store / "1.9.1").rename(tmp_path / "taken")
        log.site.feed(one, store(2, data_set(study="1.9.1", sop="1.9.1.2"), sop="1.9.1.2"))
        log.site.settle(one)
        assert one.statuses() == [0, 0]
        assert path_of("1.9.1.2", study="1.9.1") in log.site.files()


@pytest.mark.parametrize("kind", ["moved", "made anew", "a link"])
def test_a_folder_that_is_elsewhere_at_its_checkpoint_is_no_failure(
    tmp_path: Path, kind: str
) -> None:
    with logged(tmp_path / "store") as log:
        log.make_first()
        study = log.site.store / "1.9.2"
        one = log.site.associate()
        log.site.feed(one, store(1, data_set(study="1.9.2", sop="1.9.2.1"), sop="1.9.2.1"))
        log.site.settle(one)
        before = log.checkpoints()
        study.rename(tmp_path / "taken")
        if kind == "made anew":
            (study / "1").mkdir(parents=True)
        elif kind == "a link":
            study.symlink_to(tmp_path / "taken")
        wait_for(lambda: log.checkpoints() > before, "a checkpoint")
        assert log.failed == []
        if kind == "a link":
            study.unlink()


def test_nothing_takes_the_log_below_a_folder_that_is_refused(tmp_path: Path) -> None:
    with logged(tmp_path / "store") as log:
        log.make_first()
        log.site.shared.doubts.refuse("1.9.3")
        before = log.count()
        one = log.site.associate()
        log.site.feed(one, store(1, data_set(study="1.9.3", sop="1.9.3.1"), sop="1.9.3.1"))
        log.site.settle(one)
        assert one.statuses() == [0xA700]
        assert log.count() == before


def test_texts_that_do_not_fit_a_log_file(tmp_path: Path) -> None:
    with Site(tmp_path / "store", durable=True) as site:
        for name in ORIGIN:
            with pytest.raises(ValueError, match="too long to be noted"):
                site.reception.open_log(
                    -1, most=1, kept=1, **ORIGIN | {name: "x" * 64}, new_journal=lambda: (0, 0, ""),
                    on_failed=print,
                )  # fmt: skip
