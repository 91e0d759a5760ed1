"""The index of a suspect journal: what it answers is what reading all of the journal answers."""

from __future__ import annotations

import errno
import gc
import itertools
import json
import os
import random
import sys
import threading
import time
import tracemalloc
from collections import deque
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastscp.store import index as module
from fastscp.store import journal
from fastscp.store.index import IndexBuilder, IndexedJournal, IndexPendingError, new_index
from fastscp.store.journal import LINE_MOST, Tail, describes_file, find_path
from fastscp.store.names import JOURNAL, open_file
from fastscp_ext import LineIndex, crc32c, index_lines, lines_about
from fastscp_ext.shared.line_index import hash_of
from tests.kit import DEADLINE_S

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("no_descriptor_left")

RUN = "5f0"
OLD = "1-w0-1-1.jsonl"
# Of this run: two writers.
OURS = tuple(f"{RUN}-{writer}-{n}.jsonl" for writer in ("w0-1b", "w1-2") for n in (1, 2, 3, 4))
PATHS = (
    "a/1.dcm",
    "é/1.dcm",
    'a"b/1.dcm',
    "a\\b/1.dcm",
    "a\x7fb\t/1.dcm",
    "",
    "\u2028/\x00",
    "a/1.dcm~2",
)


@pytest.fixture(scope="module", autouse=True)
def no_descriptor_left() -> Iterator[None]:
    # What earlier tests left to the collector is not this one's.
    gc.collect()
    before = sorted(os.listdir("/proc/self/fd"))
    yield
    # An index that an error knows goes with the cycle that this is.
    gc.collect()
    assert sorted(os.listdir("/proc/self/fd")) == before


class Site:
    """A journal, an index of it, and a worker's look into that."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / JOURNAL
        self.folder.mkdir(parents=True)
        self.fd = os.open(folder, os.O_RDONLY)
        self._opened: list[IndexBuilder] = []
        self.index = LineIndex()
        self.builder = self.build_with(self.index)
        self.reader = LineIndex(os.dup(self.index.fd))
        self.looking = IndexedJournal(self.reader)

    def build_with(self, index: LineIndex) -> IndexBuilder:
        self._opened.append(IndexBuilder(self.fd, index, RUN))
        return self._opened[-1]

    def ready(self) -> None:
        assert self.builder.extend()
        self.index.set_state(LineIndex.READY)

    def write(self, name: str, *lines: bytes) -> None:
        with (self.folder / name).open("ab") as file:
            file.write(b"".join(lines))

    def find(self, path: str) -> dict[str, Any] | None:
        return self.looking.find_path(self.fd, path)

    def close(self) -> None:
        os.close(self.fd)
        for builder in self._opened:
            builder.close()
        # Their descriptors go with them, whoever still knows this site.
        self._opened.clear()
        del self.index, self.reader, self.builder, self.looking


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.close()


def ended(text: bytes) -> bytes:
    """An object without its closing brace, as a line."""
    return text + b',"crc":"%08x"}\n' % crc32c(text)


def line(path: str = "a/1.dcm", seq: int = 1, **members: Any) -> bytes:
    fact = {"v": 1, "event": "stored", "seq": seq, "path": path, "bytes": 1, **members}
    return ended(json.dumps(fact, separators=(",", ":"), ensure_ascii=False).encode()[:-1])


def oracle(store_fd: int, path: str) -> dict[str, Any] | None:
    """What `find_path` promises, line by line in the plainest way."""
    found: dict[str, Any] | None = None
    for one in Tail(store_fd).read():
        if (fact := one.fact) is not None:
            seq = fact.get("seq")
            if fact.get("path") != path or not describes_file(fact):
                continue
            if type(seq) is int and 0 <= seq < 1 << 64 and (not found or seq > found["seq"]):
                found = fact
    return found


# The same answer ----------------------------------------------------------------------------------

SEQUENCES = st.one_of(
    st.integers(0, 4), st.integers(0, 4), st.integers(0, 4),
    st.sampled_from([(1 << 64) - 1, 1 << 64, -1, True, None, "3", 2.0, 10**19]),
)  # fmt: skip


@st.composite
def lines(draw: st.DrawFn) -> bytes:
    """A line, of some sort or other; most say what a file holds."""
    fact: dict[str, Any] = {
        "v": 1,
        "event": draw(st.sampled_from(["stored"] * 6 + ["adopted", "removed", 3])),
        "seq": draw(SEQUENCES),
        "path": draw(st.sampled_from([*PATHS * 2, 3, None])),
    }
    more = {
        "duplicate": st.sampled_from(["kept", "identical", "version", "replaced", "ke\\u0070t"]),
        "calling_ae": st.sampled_from(["CT", 'A"B\\', '","path":"a/1.dcm', "\\", "é"]),
        "suspect": st.booleans(),
        "bytes": st.integers(0, 9),
        "x": st.sampled_from([{"path": "a/1.dcm"}, ["path", {"seq": 9}], -1.5e3, None, ""]),
    }
    fact |= draw(st.fixed_dictionaries({}, optional=more))
    for name in draw(st.lists(st.sampled_from(sorted(fact)), max_size=1)):
        del fact[name]
    keys = draw(st.permutations(list(fact)))
    text = json.dumps(
        {key: fact[key] for key in keys},
        separators=draw(st.sampled_from([(",", ":"), (",", ":"), (",", ":"), (", ", ": ")])),
        ensure_ascii=draw(st.booleans()),
    )
    if draw(st.integers(0, 9)) == 0:
        text = '{"path":"a/1.dcm","seq":7,' + text[1:] if text != "{}" else text
    whole = ended(text.encode("utf-8", "surrogatepass")[:-1])
    how = draw(st.integers(0, 19))
    if how == 0:
        whole = whole[:-11] + whole[-11:-3].upper() + whole[-3:]
    elif how == 1:
        at = draw(st.integers(0, len(whole) - 2))
        whole = whole[:at] + bytes([whole[at] ^ 1 or 1]) + whole[at + 1 :]
        whole = whole[:-1].replace(b"\n", b" ") + b"\n"
    elif how == 2:
        whole = whole[: draw(st.integers(0, len(whole)))]
    elif how == 3:
        whole = draw(st.sampled_from([b"\n", bytes(300), b"\xff" * 20 + b"\n", b'{"path":"', b"{"]))
    return whole


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.data())
def test_the_index_answers_what_the_journal_says(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Whatever is in it, however it grows, and whatever somebody removes or damages meanwhile."""
    site = Site(tmp_path_factory.mktemp("journal"))
    try:
        old = st.lists(
            st.tuples(st.sampled_from([OLD, "0-x.jsonl", "z.jsonl"]), lines()), max_size=9
        )
        for name, text in data.draw(old):
            site.write(name, text)
        site.ready()
        # Each writer at its newest two files.
        newest = {"w0-1b": 1, "w1-2": 1}
        late = 0
        for what in data.draw(st.lists(st.sampled_from("wwwwweorndcs"), max_size=12)):
            names = sorted(path.name for path in site.folder.iterdir())
            writer = data.draw(st.sampled_from(sorted(newest)))
            if what == "w":
                n = max(1, newest[writer] - data.draw(st.integers(0, 1)))
                site.write(f"{RUN}-{writer}-{n}.jsonl", data.draw(lines()))
            elif what == "e":
                assert site.builder.extend()
            elif what == "o":
                newest[writer] += 1
                site.write(f"{RUN}-{writer}-{newest[writer]}.jsonl")
            elif what == "n":
                # Somebody puts one back; under a name that was never there.
                late += 1
                site.write("new", data.draw(lines()))
                (site.folder / "new").rename(site.folder / f"{late}-late.jsonl")
            elif names and what in "rdcs":
                target = site.folder / data.draw(st.sampled_from(names))
                held = target.read_bytes()
                if what == "r":
                    target.unlink()
                    # Nobody writes to a file of its name again.
                    newest = {writer: n + 2 for writer, n in newest.items()}
                elif what == "c":
                    # Put another file in its place.
                    (site.folder / "new").write_bytes(data.draw(lines()) + held[::2])
                    (site.folder / "new").rename(target)
                elif what == "s":
                    # Write it anew, its lines at other places.
                    target.write_bytes(b"#\n" + held)
                elif held:
                    at = data.draw(st.integers(0, len(held) - 1))
                    if held[at] != 10:
                        target.write_bytes(held[:at] + b"#" + held[at + 1 :])
            for path in PATHS:
                assert site.find(path) == oracle(site.fd, path) == find_path(site.fd, path)
    finally:
        site.close()


def test_lines_in_blocks_of_any_size(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines across the ends of blocks, too long ones, and an end without a newline."""
    random_ = random.Random(3)
    text = b"".join(line(seq=n, x="y" * random_.choice([0, 10, 300, 5000])) for n in range(1, 40))
    longest = line(seq=100, x="")
    longest = line(seq=100, x="y" * (LINE_MOST - len(longest)))
    assert len(longest) == LINE_MOST
    too_long = line(seq=200, x="y" * (LINE_MOST - len(line(seq=200, x="")) + 1))
    for name, content in (
        ("0.jsonl", text), ("1.jsonl", longest), ("2.jsonl", too_long),
        ("3.jsonl", too_long + line("b", 1) + bytes(3 * LINE_MOST)),
        ("4.jsonl", line("c", 5)[:-1]), ("5.jsonl", longest[:-1]), ("6.jsonl", too_long[:-1]),
        ("7.jsonl", bytes(3 * LINE_MOST) + b"\n" + line("d", 6)),
    ):  # fmt: skip
        (site.folder / name).write_bytes(content)
        for block in (1 << 18, 4096, 777):
            monkeypatch.setattr(journal, "_BLOCK", block)
            index = LineIndex()
            builder = site.build_with(index)
            assert builder.extend()
            index.set_state(LineIndex.READY)
            looking = IndexedJournal(index)
            for path in ("a/1.dcm", "b", "c", "d"):
                expected = oracle(site.fd, path)
                assert looking.find_path(site.fd, path) == expected
                assert find_path(site.fd, path) == expected
        seqs = [(fact or {"seq": None})["seq"] for fact in map(site_fact(site), ("a/1.dcm", "b"))]
    assert seqs == [100, 1]


def site_fact(site: Site) -> Callable[[str], dict[str, Any] | None]:
    return lambda path: find_path(site.fd, path)


def test_a_look_reads_the_line_and_no_segment(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.write(OLD, *(line(f"{n}.dcm", n) for n in range(5000)))
    site.write(OURS[0], *(line(f"{n}.dcm", n) for n in range(5000, 9000)))
    site.ready()
    read: list[int] = []
    pread = os.pread

    def counted(fd: int, size: int, offset: int) -> bytes:
        got = pread(fd, size, offset)
        read.append(len(got))
        return got

    monkeypatch.setattr(os, "pread", counted)
    for n in (0, 4321, 8999):
        assert (site.find(f"{n}.dcm") or {})["seq"] == n
    assert site.find("none.dcm") is None
    assert len(read) == 3
    read.clear()
    # Only what is new is read beside it.
    site.write(OURS[0], new := line("0.dcm", 9001))
    assert (site.find("0.dcm") or {})["seq"] == 9001
    assert sum(read) <= len(new) + LINE_MOST


def test_a_line_that_is_being_written(site: Site) -> None:
    """Wherever its first part ends when main looks, the whole of it is found."""
    for cut in range(0, len(whole := line("1.dcm", 1)), 9):
        site.write(OURS[0], whole[:cut])
        site.ready()
        assert site.find(f"{cut}.dcm") is None
        site.write(OURS[0], whole[cut:-1])
        # A whole line counts also without its newline.
        assert site.find("1.dcm") is not None
        site.ready()
        assert site.find("1.dcm") is not None
        site.write(OURS[0], whole[-1:])
        site.ready()
        assert site.find("1.dcm") is not None
        (site.folder / OURS[0]).unlink()
        site.ready()
        assert site.find("1.dcm") is None


def test_what_goes_on_in_a_run_that_is_taken_over(site: Site) -> None:
    """Its last segments grow as our own do; those of a run that is over are read once."""
    before = "5e9"
    theirs, over = f"{before}-w0-1-1.jsonl", "5e8-w0-1-1.jsonl"
    builder = IndexBuilder(site.fd, site.index, RUN, before)
    site._opened.append(builder)
    for n, name in enumerate((theirs, over), start=1):
        site.write(name, line(f"{n}", n))
    assert builder.extend()
    site.index.set_state(LineIndex.READY)
    for name, seq in ((theirs, 7), (over, 8)):
        site.write(name, line(name, seq))
    assert builder.extend()
    assert site.find(theirs) is not None
    assert [builder._segments[name].complete for name in (theirs, over)] == [False, True]


@pytest.mark.parametrize("front", [b"#\n", b"", line("9.dcm", 9)])
@pytest.mark.parametrize("is_ours", [False, True])
def test_a_file_whose_lines_have_moved(site: Site, front: bytes, is_ours: bool) -> None:
    """Nothing is taken for gone because it is not where the index says."""
    held = [line(f"{n}.dcm", n) for n in range(1, 5)]
    name = OURS[0] if is_ours else OLD
    site.write(name, *held)
    site.ready()
    (site.folder / name).write_bytes(front + b"".join(reversed(held)))
    for n in range(1, 5):
        assert site.find(f"{n}.dcm") == oracle(site.fd, f"{n}.dcm") is not None


def test_a_journal_of_zeros(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a power cut leaves it: read once, and not again for each look."""
    site.write(OLD, line("1.dcm", 1), bytes(1 << 20))
    site.write("2-w0-1.jsonl", bytes(1 << 20))
    site.ready()
    assert site.index.lines == 1
    monkeypatch.setattr(module, "facts_about", None)
    assert (site.find("1.dcm") or {})["seq"] == 1
    assert site.find("2.dcm") is None


def test_paths_that_collide_are_told_apart_by_their_lines(site: Site) -> None:
    """An index says where to look, and not what is there."""
    site.write(OLD, *(line(f"{n}.dcm", n + 1) for n in range(40)))
    site.ready()
    place = {seq: (segment, offset) for n in range(40)
             for (seq, segment, offset), in [site.index.find(f"{n}.dcm".encode())[0]]}  # fmt: skip
    # Lines of fifteen others with higher numbers, as if they had its hash; then of more.
    for seq in range(26, 41):
        site.index.add(b"3.dcm", seq, *place[seq])
    assert len(site.index.find(b"3.dcm")[0]) == 16
    assert site.find("3.dcm") == oracle(site.fd, "3.dcm") != None  # noqa: E711
    for seq in range(10, 26):
        site.index.add(b"3.dcm", seq, *place[seq])
    places, more = site.index.find(b"3.dcm")
    assert more
    assert [seq for seq, *_ in places] == list(range(40, 24, -1))
    assert site.find("3.dcm") == oracle(site.fd, "3.dcm")


def test_a_file_that_is_made_anew_is_read_anew(site: Site) -> None:
    """Its inode may be that of the file before it."""
    site.write(OLD, line("1.dcm", 1), line("2.dcm", 2))
    site.ready()
    inode = (site.folder / OLD).stat().st_ino
    for _ in range(50):
        (site.folder / OLD).unlink()
        site.write(OLD, line("1.dcm", 1), line("2.dcm", 2), line("3.dcm", 3))
        if (site.folder / OLD).stat().st_ino == inode:
            break
    assert (site.find("3.dcm") or {})["seq"] == 3
    assert (site.find("1.dcm") or {})["seq"] == 1
    assert site.builder.extend()
    assert (site.find("3.dcm") or {})["seq"] == 3


def test_another_file_in_the_place_of_one_is_indexed(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.write(OLD, line("1.dcm", 1), line("2.dcm", 2))
    site.ready()
    site.write("new", line("1.dcm", 3))
    (site.folder / "new").rename(site.folder / OLD)
    site.ready()
    monkeypatch.setattr(module, "facts_about", None)
    assert (site.find("1.dcm") or {})["seq"] == 3
    assert site.find("2.dcm") is None


def test_many_lines_of_one_path(site: Site) -> None:
    site.write(OLD, *(line(seq=n, bytes=n) for n in random.Random(1).sample(range(1, 5001), 5000)))
    site.ready()
    assert (site.find("a/1.dcm") or {})["bytes"] == 5000


def test_others_run_while_a_long_chain_is_walked(site: Site) -> None:
    """A worker's loop must not stand still for a path that was sent a million times."""
    for seq in range(100_000):
        site.index.add(b"a/1.dcm", seq, 1, 0)
    over = threading.Event()
    # What the walk has cost whenever the other thread had its turn; its own sleep lets go.
    clock = time.pthread_getcpuclockid(threading.get_ident())
    turns: list[float] = []

    def take_turns() -> None:
        while not over.is_set():
            turns.append(time.clock_gettime(clock))
            time.sleep(0.0001)

    other = threading.Thread(target=take_turns)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    other.start()
    try:
        is_inside, until = False, time.monotonic() + DEADLINE_S
        while not is_inside and time.monotonic() < until:
            turns.clear()
            begin = time.clock_gettime(clock)
            # One call: the interpreter itself lets nobody in before its end.
            found = deque(map(site.reader.find, itertools.repeat(b"a/1.dcm", 50)), maxlen=1)
            cost = time.clock_gettime(clock) - begin
            is_inside = any(0.25 < (turn - begin) / cost < 0.75 for turn in turns)
    finally:
        over.set()
        other.join()
        sys.setswitchinterval(interval)
    assert is_inside
    places, more = found[0]
    assert ([place[0] for place in places], more) == ([*range(99_999, 99_983, -1)], True)


def test_siphash() -> None:
    """The example of the paper, appendix A."""
    assert hash_of(bytes(range(16)), bytes(range(15))) == 0xA129CA6149BE45E5
    with pytest.raises(ValueError, match="16 bytes"):
        hash_of(b"", b"")


# How large, how soon ------------------------------------------------------------------------------


def test_a_line_takes_at_most_32_bytes(site: Site) -> None:
    """Shared by all, and no more beside it while it is built."""
    path = f"{'1.2.826.0.1.3680043.8.498.1234567' * 3}.dcm"
    uids = {"sop_instance_uid": "1.2.826.0.1.3680043.8.498.1234567", "peer": "10.0.0.1:104"}
    count = 30_000
    site.write(OLD, *(line(f"{n}{path}", n, study_instance_uid="1.2" * 20, **uids)
                      for n in range(count)))  # fmt: skip
    size = (site.folder / OLD).stat().st_size
    assert size > 8 << 20
    index = new_index(site.fd)
    builder = site.build_with(index)
    tracemalloc.start()
    try:
        assert builder.extend()
        _now, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert index.lines == count
    assert os.fstat(index.fd).st_blocks * 512 <= index.size
    # Room for as many lines as a block may have.
    assert index.size <= 32 * count + 24 * ((1 << 18) + LINE_MOST) // 48
    assert most < 4 << 20


def test_what_grows_no_more_is_read_once(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (OLD, *OURS):
        site.write(name, line(f"{name}.dcm", 3))
    site.write(OURS[3], b"torn")
    assert site.builder.extend()
    opened: list[str] = []

    def noted(name: str, dir_fd: int) -> int:
        opened.append(name)
        return open_file(name, dir_fd)

    monkeypatch.setattr(module, "open_file", noted)
    assert site.builder.extend()
    assert opened == [OURS[2], OURS[3], OURS[6], OURS[7]]


def test_the_folder_is_read_once_while_it_stays_as_it_is(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.write(OURS[0], line("1.dcm", 1))
    site.ready()
    looks: list[int] = []
    segments_in = module._segments_in

    def counted(folder_fd: int) -> dict[str, int]:
        looks.append(folder_fd)
        return segments_in(folder_fd)

    monkeypatch.setattr(module, "_segments_in", counted)
    for _ in range(3):
        assert site.find("1.dcm") is not None
    # So soon after a change another one may have the same time.
    assert len(looks) == 3
    monkeypatch.setattr(module, "_SETTLED_S", 0.0)
    for _ in range(3):
        assert site.find("1.dcm") is not None
    assert len(looks) == 4
    time.sleep(0.02)  # more than the step of the file system's clock
    site.write(OURS[1], line("1.dcm", 2))
    assert (site.find("1.dcm") or {})["seq"] == 2
    assert len(looks) == 5
    # What is written to a file that is there changes no folder.
    site.write(OURS[0], line("1.dcm", 4))
    assert (site.find("1.dcm") or {})["seq"] == 4
    site.write(OURS[1], line("1.dcm", 5))
    assert (site.find("1.dcm") or {})["seq"] == 5


def test_a_reader_follows_an_index_that_grows(site: Site) -> None:
    for n in range(20_000):
        site.index.add(b"%d.dcm" % n, n, 1, n)
    assert site.reader.find(b"19999.dcm") == ([(19_999, 1, 19_999)], False)
    assert site.reader.lines == 20_000
    slot = site.index.add_segment(b"x.jsonl", 77)
    assert site.reader.segments() == [(slot, b"x.jsonl", 77, False)]
    assert site.reader.segment_name(slot) == b"x.jsonl"
    site.index.complete(slot)
    assert site.reader.segments() == [(slot, b"x.jsonl", 77, True)]
    site.index.leave_out(slot)
    assert site.reader.segments() == []
    assert site.reader.segment_name(slot) is None
    for outside in (0, slot + 1, 1 << 31):
        with pytest.raises(IndexError):
            site.reader.covered(outside)


def test_a_reader_writes_nothing(site: Site) -> None:
    slot = site.index.add_segment(b"x.jsonl", 1)
    reader = site.reader
    for write in (
        lambda: reader.add(b"", 1, 1, 1), lambda: reader.add_segment(b"x", 1),
        lambda: reader.cover(slot, 1), lambda: reader.complete(slot),
        lambda: reader.leave_out(slot), lambda: reader.set_state(1),
        lambda: index_lines(reader, slot, 0, line(), LINE_MOST),
    ):  # fmt: skip
        with pytest.raises(TypeError):
            write()


@pytest.mark.parametrize(
    ("content", "why"),
    [(b"", "too short"), (bytes(4096), "not one of"), (b"fastlin\0\xff", "version 255")],
)
def test_what_is_no_index(content: bytes, why: str) -> None:
    fd = os.memfd_create("test")
    os.write(fd, content)
    if content[8:]:
        os.ftruncate(fd, 8192)
    with pytest.raises(ValueError, match=why):
        LineIndex(fd)


# While it is not there ----------------------------------------------------------------------------


def test_nobody_looks_into_an_index_that_is_being_built(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.write(OLD, line())
    with pytest.raises(IndexPendingError):
        site.find("a/1.dcm")
    assert not site.looking.await_built("one")
    # So many wait, and those that wait already go on to.
    monkeypatch.setattr(module, "WAITING_MOST", 2)
    assert not site.looking.await_built("two")
    with pytest.raises(OSError, match="still being built") as raised:
        site.looking.await_built("three")
    assert raised.value.errno == errno.EINPROGRESS
    assert not site.looking.await_built("one")
    site.ready()
    assert site.looking.await_built("one")
    assert site.looking.await_built("three")
    assert site.find("a/1.dcm") is not None


def test_nobody_waits_for_ever(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAIT_S", 0.0)
    assert not site.looking.await_built("one")
    time.sleep(0.001)  # a clock goes on
    with pytest.raises(OSError, match="still being built"):
        site.looking.await_built("one")
    # Its place is free.
    monkeypatch.setattr(module, "WAITING_MOST", 1)
    assert not site.looking.await_built("two")


def test_without_an_index_the_whole_journal_is_read(site: Site) -> None:
    site.write(OLD, line())
    site.index.set_state(LineIndex.FAILED)
    assert site.looking.await_built("one")
    assert site.find("a/1.dcm") == oracle(site.fd, "a/1.dcm") is not None


def test_a_building_that_fails_goes_on(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    for n, name in enumerate((OLD, "2-w0-1.jsonl", "3-w0-1.jsonl")):
        site.write(name, line(f"{n}.dcm", n))
    pread = os.pread
    bad = (site.folder / "2-w0-1.jsonl").stat().st_ino

    def failing(fd: int, size: int, offset: int) -> bytes:
        if os.fstat(fd).st_ino == bad:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return pread(fd, size, offset)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pread", failing)
        for _ in range(2):
            with pytest.raises(OSError, match="Input/output"):
                site.builder.extend()
    site.ready()
    assert site.index.lines == 3
    assert all(site.find(f"{n}.dcm") == oracle(site.fd, f"{n}.dcm") for n in range(3))


def test_there_is_no_memory(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is there already stays right, and what is missing is found in the journal."""
    site.write(OURS[0], line("1.dcm", 1))
    site.ready()
    size = site.index.size

    def none(_fd: int, _offset: int, _size: int) -> None:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", none)
        with pytest.raises(OSError, match="allocate memory"):
            LineIndex()
        site.write(OURS[0], *(line(f"{n}.dcm", n) for n in range(2, 9000)))
        with pytest.raises(OSError, match="allocate memory"):
            site.builder.extend()
        assert site.index.size == size
        for n in (1, 2, 8999):
            assert (site.find(f"{n}.dcm") or {})["seq"] == n
    site.ready()
    assert site.index.lines == 8999
    assert (site.find("8999.dcm") or {})["seq"] == 8999


def test_what_an_index_cannot_hold(site: Site) -> None:
    (site.folder / ("x" * 80 + ".jsonl")).touch()
    with pytest.raises(OSError, match="more than 71 bytes"):
        site.builder.extend()
    (site.folder / ("x" * 80 + ".jsonl")).unlink()
    site.write(OLD, line())
    os.truncate(site.folder / OLD, (4 << 30) + 1)
    with pytest.raises(OSError, match="more than 4 GiB"):
        site.builder.extend()
    with pytest.raises(OverflowError):
        index_lines(site.index, 1, 0xFFFFFFFF, line(), LINE_MOST)


def test_a_building_can_be_stopped(site: Site) -> None:
    site.write(OLD, *(line(seq=n) for n in range(100)))
    site.builder.stop()
    assert not site.builder.extend()
    assert site.index.lines == 0


def test_it_is_looked_into_while_it_grows(site: Site) -> None:
    """Readers without a lock beside the one who fills it: no line that is there is ever missed."""
    site.ready()
    written, over = [0], threading.Event()
    failed: list[BaseException] = []

    def fill() -> None:
        while not over.is_set():
            site.builder.extend()

    def look() -> None:
        try:
            reader = IndexedJournal(LineIndex(os.dup(site.index.fd)))
            while not over.is_set():
                n = written[0]
                if n:
                    fact = reader.find_path(site.fd, f"{n % 50}.dcm")
                    assert fact is not None
                    assert fact["seq"] >= n
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=one) for one in (fill, look, look)]
    for thread in threads:
        thread.start()
    end = time.monotonic() + min(DEADLINE_S, 3.0)
    n = 0
    while time.monotonic() < end and not failed:
        n += 1
        site.write(OURS[min(n // 2000, 3)], line(f"{n % 50}.dcm", n))
        written[0] = n
    over.set()
    for thread in threads:
        thread.join()
    assert not failed
    assert n > 100


# Lines --------------------------------------------------------------------------------------------


def test_what_is_plain() -> None:
    """Of what the codec writes nothing needs the interpreter."""
    plain = line(calling_ae="\\u0022", truncated=True, stripped=132, digest="crc32c:01234567")
    assert lines_about(plain * 200, b"a/1.dcm", LINE_MOST) == [
        (n * len(plain), len(plain)) for n in range(200)
    ]
    assert lines_about(plain * 200, b"a/2.dcm", LINE_MOST) == []
    index = LineIndex()
    assert index_lines(index, 1, 0, plain * 200, LINE_MOST) == (200 * len(plain), 0)
    assert index.lines == 200
    odd = line('a"b')
    assert index_lines(index, 1, 0, plain + odd + plain, LINE_MOST) == (len(plain), len(odd))
    assert lines_about(plain + odd, b"b", LINE_MOST) == [(len(plain), len(odd))]


def test_any_bytes_are_read_within_bounds() -> None:
    random_ = random.Random(7)
    whole = line(calling_ae='x"\\y', duplicate="version")
    for _ in range(3000):
        text = bytearray(whole * 2)
        for _ in range(random_.randrange(4)):
            text[random_.randrange(len(text))] = random_.choice(b'{}[]",:\\\n09a')
        cut = bytes(text[: random_.randrange(len(text))])
        done = 0
        index = LineIndex()
        while done < len(cut):
            plain, odd = index_lines(index, 1, done, cut[done:], LINE_MOST)
            assert plain + odd
            done += plain + odd
        assert done == len(cut)
        lines_about(cut, b"a/1.dcm", LINE_MOST)
