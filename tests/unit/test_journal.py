"""The journal: what is written can be read back, and what is torn is passed over."""

from __future__ import annotations

import errno
import json
import os
import random
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastscp.store import journal
from fastscp.store.journal import (
    Place,
    Segments,
    Tail,
    journal_bytes,
    last_sequence,
    parse_line,
    segment_names,
)
from fastscp.store.names import JOURNAL
from fastscp_ext import crc32c

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("no_descriptor_left")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / JOURNAL
    made.mkdir(parents=True)
    return made


@pytest.fixture
def store_fd(tmp_path: Path, folder: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY)
    yield fd
    os.close(fd)


def line(**members: Any) -> bytes:
    """A line as the format describes it, made without the code under test."""
    text = json.dumps({"v": 1, "event": "stored", **members}, separators=(",", ":")).encode()[:-1]
    return text + b',"crc":"%08x"}' % crc32c(text)


# Lines -------------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.dictionaries(st.text(max_size=20), st.text() | st.integers(0, 2**63) | st.booleans()))
def test_round_trip(members: dict[str, str | int | bool]) -> None:
    members.pop("crc", None)
    whole = line(seq=7, **{f"x{key}": value for key, value in members.items()})
    fact = parse_line(whole)
    assert fact is not None
    assert fact.pop("crc") == whole[-10:-2].decode()
    assert fact == {"v": 1, "event": "stored", "seq": 7} | {f"x{k}": v for k, v in members.items()}


def test_torn_at_every_byte() -> None:
    whole = line(seq=1, path="1/2/3.dcm")
    assert parse_line(whole) is not None
    for end in range(len(whole)):
        assert parse_line(whole[:end]) is None, end


def test_any_byte_changed() -> None:
    whole = line(seq=1, path="1/2/3.dcm")
    random_ = random.Random(1)
    for at in range(len(whole)):
        other = bytearray(whole)
        other[at] ^= 1 << random_.randrange(8)
        # The case of a digit of the checksum is no change.
        if bytes(other).lower() != whole.lower():
            assert parse_line(bytes(other)) is None, (at, bytes(other))


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b"{}",
        b"\xff" * 40,
        b'{"crc":"00000000"}',
        b',"crc":"00000000"}',
        line(seq=1)[:-10] + b'zzzzzzzz"}',
        line(seq=1)[:-10] + b'+1234567"}',
        b'[1,2,"3"' + b',"crc":"%08x"}' % crc32c(b'[1,2,"3"'),
        b"not json" + b',"crc":"%08x"}' % crc32c(b"not json"),
    ],
)
def test_no_line(bad: bytes) -> None:
    assert parse_line(bad) is None


# Files -------------------------------------------------------------------------------------------


def test_read_passes_over_what_is_not_whole(folder: Path, store_fd: int) -> None:
    good = [line(seq=n) for n in range(4)]
    torn = good[1][: len(good[1]) // 2]
    # A write that was cut short, and after it whole lines of nobody's; then a torn end.
    content = b"\n".join((good[0], torn, good[2], b"", good[3].replace(b"v", b"w"), good[3], torn))
    (folder / "a.jsonl").write_bytes(content)
    found = list(Tail(store_fd).read())
    assert [line.fact["seq"] for line in found if line.fact is not None] == [0, 2, 3]
    assert [line.damaged for line in found] == [False, True, False, True, True, False, False]
    assert found[-1].torn


def test_an_empty_file(folder: Path, store_fd: int) -> None:
    (folder / "a.jsonl").write_bytes(b"")
    assert list(Tail(store_fd).read()) == []
    assert last_sequence(store_fd) == 0


def test_no_journal_yet(store_fd: int) -> None:
    assert segment_names(store_fd) == []
    assert last_sequence(store_fd) == 0


def test_names_in_order_and_nothing_else(folder: Path, store_fd: int) -> None:
    for name in ("2-w0-1.jsonl", "1-w1-2.jsonl", "1-w0-1.jsonl", "notes.txt", "1-w0-1.jsonl.zst"):
        (folder / name).write_bytes(b"")
    assert segment_names(store_fd) == ["1-w0-1.jsonl", "1-w1-2.jsonl", "2-w0-1.jsonl"]


def test_how_much_there_is(folder: Path, store_fd: int) -> None:
    assert journal_bytes(store_fd) == 0
    for size, name in ((5, "1-w0-1.jsonl"), (7, "2-w0-1.jsonl"), (100, "notes.txt")):
        (folder / name).write_bytes(b"x" * size)
    (folder / "3-w0-1.jsonl").symlink_to("notes.txt")
    about = (folder / "3-w0-1.jsonl").lstat().st_size
    assert journal_bytes(store_fd) == 12 + about


@pytest.mark.parametrize("durable", [False, True])
def test_segments(folder: Path, store_fd: int, durable: bool) -> None:
    segments = Segments(store_fd, "5", "w0", durable=durable)
    first, size = segments.next()
    assert size == 0
    os.write(first, line(seq=1) + b"\n")
    second, size = segments.next()
    assert size == 0
    os.write(second, line(seq=2) + b"\n")
    segments.close()
    segments.close()
    assert segment_names(store_fd) == ["5-w0-1.jsonl", "5-w0-2.jsonl"]
    assert [line.fact and line.fact["seq"] for line in Tail(store_fd).read()] == [1, 2]
    assert (folder / "5-w0-1.jsonl").stat().st_mode & 0o777 == 0o640 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_file_is_only_appended_to(folder: Path, store_fd: int) -> None:
    segments = Segments(store_fd, "5", "w0", durable=False)
    fd, _ = segments.next()
    os.write(fd, b"one\n")
    os.lseek(fd, 0, os.SEEK_SET)
    os.write(fd, b"two\n")
    assert (folder / "5-w0-1.jsonl").read_bytes() == b"one\ntwo\n"
    segments.close()


def test_a_life_never_writes_to_a_file_that_is_there(folder: Path, store_fd: int) -> None:
    (folder / "5-w0-1.jsonl").write_bytes(b"")
    segments = Segments(store_fd, "5", "w0", durable=False)
    with pytest.raises(FileExistsError):
        segments.next()
    # The number is used up: the next try is another file.
    segments.next()
    segments.close()
    assert segment_names(store_fd) == ["5-w0-1.jsonl", "5-w0-2.jsonl"]


def test_a_file_that_cannot_be_closed_is_closed_once(
    store_fd: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The number is free after the first time, and may be somebody else's."""
    closed = []

    def close(fd: int) -> None:
        closed.append(fd)
        real(fd)
        if closed == [first]:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    segments = Segments(store_fd, "5", "w0", durable=False)
    real = os.close
    first, _ = segments.next()
    second = -1
    with monkeypatch.context() as patch:
        patch.setattr(os, "close", close)
        second, _ = segments.next()
    with open(os.devnull, "rb") as somebodys:
        segments.next()
        os.fstat(somebodys.fileno())
    segments.close()
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(second)


def test_without_a_folder_the_last_file_stays(folder: Path, store_fd: int) -> None:
    segments = Segments(store_fd, "5", "w0", durable=False)
    fd, _ = segments.next()
    (folder / "5-w0-1.jsonl").rename(folder.parent / "elsewhere")
    folder.rmdir()
    with pytest.raises(OSError, match="No such file") as caught:
        segments.next()
    assert caught.value.errno == errno.ENOENT
    assert os.write(fd, b"still open\n")
    segments.close()


# The tail ----------------------------------------------------------------------------------------


def lines(*numbers: int) -> bytes:
    return b"".join(line(seq=number, path="x" * number) + b"\n" for number in numbers)


def read(tail: Tail) -> list[int | str]:
    """The numbers of what is new, and what is wrong with the other lines."""
    said: list[int | str] = []
    for found in tail.read():
        assert found.damaged + found.torn == (found.fact is None)
        if found.fact is not None:
            said.append(found.fact["seq"] if found.ended else f"{found.fact['seq']} so far")
        else:
            said.append("damaged" if found.damaged else "torn")
    return said


def test_a_tail_gives_each_line_once(folder: Path, store_fd: int) -> None:
    tail = Tail(store_fd)
    assert read(tail) == []
    (folder / "a.jsonl").write_bytes(lines(1, 3))
    (folder / "b.jsonl").write_bytes(lines(2))
    assert read(tail) == [1, 3, 2]
    assert read(tail) == []
    with (folder / "a.jsonl").open("ab") as file:
        file.write(lines(4))
    (folder / "c.jsonl").write_bytes(lines(5, 6))
    assert read(tail) == [4, 5, 6]


def test_places(folder: Path, store_fd: int) -> None:
    (folder / "a.jsonl").write_bytes(lines(1, 2)[:-1])
    first, second = Tail(store_fd).read()
    assert first.place == Place("a.jsonl", 0, 1)
    assert second.place == Place("a.jsonl", len(lines(1)), 2)
    assert (first.ended, second.ended) == (True, False)
    assert second.fact is not None


def test_a_tail_resumes_at_a_cursor(folder: Path, store_fd: int) -> None:
    """Wherever it was taken: in the middle, too."""
    (folder / "a.jsonl").write_bytes(lines(1, 2, 3))
    (folder / "b.jsonl").write_bytes(lines(4, 5))
    ends = {Place("a.jsonl", len(lines(1, 2, 3)), 4), Place("b.jsonl", len(lines(4, 5)), 3)}
    everything = [1, 2, 3, 4, 5]
    for taken in range(6):
        tail = Tail(store_fd)
        reading = tail.read()
        for _ in range(taken):
            next(reading)
        del reading
        resumed = Tail(store_fd, tail.cursor)
        assert read(resumed) == everything[taken:]
        assert set(resumed.cursor) == ends
        # The first goes on by itself.
        assert read(tail) == everything[taken:]


def test_a_half_written_line_is_completed_later(folder: Path, store_fd: int) -> None:
    segment = folder / "a.jsonl"
    content = lines(1, 2)
    first = len(lines(1))
    tail = Tail(store_fd)
    for size in range(1, len(content) + 1):
        segment.write_bytes(content[:size])
        known = {
            first - 1: "1 so far", first: 1, len(content) - 1: "2 so far", len(content): 2,
        }  # fmt: skip
        assert read(tail) == [known.get(size, "torn")], size
        number = 1 + (size >= first) + (size == len(content))
        assert tail.cursor == (Place("a.jsonl", (0, first, size)[number - 1], number),)


def test_a_torn_line_stays_torn(folder: Path, store_fd: int) -> None:
    """What a crash leaves: every reading finds it, and goes on with the next segment."""
    (folder / "a.jsonl").write_bytes(lines(1) + line(seq=2)[:-5])
    (folder / "b.jsonl").write_bytes(lines(3))
    tail = Tail(store_fd)
    assert read(tail) == [1, "torn", 3]
    assert read(tail) == ["torn"]
    assert read(Tail(store_fd, tail.cursor)) == ["torn"]


def test_damaged_lines(folder: Path, store_fd: int) -> None:
    bad = lines(2).replace(b"stored", b"st0red")
    (folder / "a.jsonl").write_bytes(lines(1) + bad + b"\n" + lines(3))
    tail = Tail(store_fd)
    found = list(tail.read())
    assert [one.damaged for one in found] == [False, True, True, False]
    assert [one.place.number for one in found] == [1, 2, 3, 4]
    assert [one.place.offset for one in found[1:3]] == [len(lines(1)), len(lines(1) + bad)]
    # Once, too: nothing makes them whole.
    assert read(tail) == []
    with (folder / "a.jsonl").open("ab") as file:
        file.write(bad)
    (again,) = Tail(store_fd, tail.cursor).read()
    assert (again.damaged, again.place.number) == (True, 5)


def test_a_segment_that_vanishes(
    folder: Path, store_fd: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, number in (("a", 1), ("b", 2), ("c", 3)):
        (folder / f"{name}.jsonl").write_bytes(lines(number))
    tail = Tail(store_fd)
    assert read(tail) == [1, 2, 3]
    (folder / "b.jsonl").unlink()
    (folder / "a.jsonl").write_bytes(lines(1, 4))
    assert read(tail) == [4]
    assert [place.segment for place in tail.cursor] == ["a.jsonl", "c.jsonl"]
    # Between the look at the names and the look into the file.
    names = segment_names(store_fd)
    (folder / "a.jsonl").unlink()
    with monkeypatch.context() as late:
        late.setattr(journal, "segment_names", lambda _: names)
        assert read(tail) == []
    assert [place.segment for place in tail.cursor] == ["c.jsonl"]
    # Should the name come back, it is read from its beginning.
    (folder / "b.jsonl").write_bytes(lines(2))
    assert read(tail) == [2]


@pytest.mark.parametrize("left", [0, 1, 2])
def test_a_segment_shorter_than_the_cursor(folder: Path, store_fd: int, left: int) -> None:
    """A power cut took its end, or all of it. It is started over: `seq` says what is known."""
    numbers = (10, 11, 12)
    (folder / "a.jsonl").write_bytes(lines(*numbers))
    tail = Tail(store_fd)
    assert read(tail) == [10, 11, 12]
    rest = lines(*numbers[:left])
    (folder / "a.jsonl").write_bytes(rest)
    for reader in (Tail(store_fd, tail.cursor), tail):
        assert read(reader) == list(numbers[:left])
        assert reader.cursor == (Place("a.jsonl", len(rest), left + 1),)


def test_a_cursor_inside_a_line(folder: Path, store_fd: int) -> None:
    """A repair left a line out: what stands there now is no line's beginning."""
    (folder / "a.jsonl").write_bytes(b"damaged\n" + lines(1, 2))
    tail = Tail(store_fd)
    assert read(tail) == ["damaged", 1, 2]
    (folder / "a.jsonl").write_bytes(lines(1, 2, 3))
    assert read(tail) == [1, 2, 3]


# The sequence ------------------------------------------------------------------------------------


def test_last_sequence_over_many_files(folder: Path, store_fd: int) -> None:
    numbers = list(range(1, 301))
    random.Random(2).shuffle(numbers)
    files: list[list[int]] = [[] for _ in range(12)]
    for n in numbers:
        files[n % 12].append(n)
    for n, numbers in enumerate(files):
        content = b"".join(line(seq=seq, path="x" * 300) + b"\n" for seq in sorted(numbers))
        (folder / f"1-w{n}-1.jsonl").write_bytes(content)
    assert last_sequence(store_fd) == 300


def test_last_sequence_with_a_torn_end(folder: Path, store_fd: int) -> None:
    content = b"".join(line(seq=n) + b"\n" for n in range(1, 6))
    (folder / "1-w0-1.jsonl").write_bytes(content + line(seq=6)[:-4])
    assert last_sequence(store_fd) == 5


def test_last_sequence_reads_ends_only(folder: Path, store_fd: int) -> None:
    lines = b"".join(line(seq=n, path="x" * 500) + b"\n" for n in range(1, 1001))
    assert len(lines) > 500_000
    (folder / "1-w0-1.jsonl").write_bytes(lines)
    assert last_sequence(store_fd) == 1000


@pytest.mark.parametrize(
    "tail",
    [
        bytes(200_000),
        b"x" * 65536,
        b"\n" * 70_000,
        (b"y" * 999 + b"\n") * 300,
        b"z" * 65535 + b"\n" + b"z" * 131072 + b"\n",
    ],
)
@pytest.mark.parametrize("filler", [0, 300, 65000])
def test_last_sequence_behind_much_that_is_no_line(
    folder: Path, store_fd: int, tail: bytes, filler: int
) -> None:
    """What a power cut leaves behind the last line may be longer than any look at the end."""
    text = line(seq=6) + b"\n" + line(seq=7, more="m" * filler) + b"\n"
    (folder / "a-w0-1.jsonl").write_bytes(text + tail)
    assert last_sequence(store_fd) == 7


def test_last_sequence_of_lines_written_at_the_same_time(folder: Path, store_fd: int) -> None:
    (folder / "a-w0-1.jsonl").write_bytes(b"\n".join((line(seq=9), line(seq=8), b"")))
    assert last_sequence(store_fd) == 9


@pytest.mark.parametrize("size", [65535, 65536, 65537, 131072, 200_000])
def test_what_is_too_long_for_a_line_is_not_kept(folder: Path, store_fd: int, size: int) -> None:
    """Somebody else put it there; the lines around it are given all the same."""
    long = b"x" * size
    segment = folder / "a-w0-1.jsonl"
    segment.write_bytes(b"\n".join((line(seq=1), long, line(seq=2), long)))
    tail = Tail(store_fd)
    found = list(tail.read())
    assert [one.fact and one.fact["seq"] for one in found] == [1, None, 2, None]
    assert [one.damaged for one in found] == [False, True, False, True]
    assert found[2].place == Place("a-w0-1.jsonl", len(line(seq=1)) + size + 2, 3)
    with segment.open("ab") as file:
        file.write(b"\n" + line(seq=3) + b"\n")
    assert [one.fact and one.fact["seq"] for one in tail.read()] == [None, 3]
    again = [one.fact["seq"] for one in Tail(store_fd).read() if one.fact is not None]
    assert again == [1, 2, 3]


def test_a_long_line_takes_no_memory(folder: Path, store_fd: int) -> None:
    with (folder / "a-w0-1.jsonl").open("wb") as file:
        file.truncate(64 << 20)
    tracemalloc.start()
    try:
        assert last_sequence(store_fd) == 0
        assert [one.damaged for one in Tail(store_fd).read()] == [True]
        assert tracemalloc.get_traced_memory()[1] < 2 << 20
    finally:
        tracemalloc.stop()
