"""Older contents that are kept while a newer one is on its way: every step, and every leftover."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from typing import TYPE_CHECKING, Any, Final

import pytest

from fastscp.store import replaced, restore
from fastscp.store.compress import twin
from fastscp.store.findings import Kind
from fastscp.store.flushes import Flushes
from fastscp.store.journal import append_fact, find_path
from fastscp.store.leftovers import settle_alone, settle_beside, tell_left
from fastscp.store.names import JOURNAL, REPLACED
from fastscp.store.reading import describe
from fastscp.store.restore import RESTORED, Secured, Settlement
from fastscp.store.unflushed import Marks
from fastscp.store.verify import verify
from fastscp.store.waits import lock_of, take_lock
from fastscp.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from fastscp_ext import Shared, build_meta
from tests.kit import CT, ELE, data_set
from tests.stores import amiss, opened, replacing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from fastscp.store.restore import Replaced

PATH: Final = "1.2/3.4/5.dcm"
LOCK: Final = lock_of(PATH)

pytestmark = pytest.mark.usefixtures("no_descriptor_left")


def instance(seed: int) -> bytes:
    implementation = IMPLEMENTATION_CLASS_UID.encode(), IMPLEMENTATION_VERSION_NAME.encode()
    header = build_meta(CT.encode(), b"1.2.3", ELE.encode(), *implementation, b"S", b"US")
    return header + data_set(seed=seed)


OLD, NEW = instance(0), instance(1)


class Site:
    """A store whose PATH holds OLD, and a newer file beside it."""

    def __init__(self, folder: Path, *, journaled: bool = True) -> None:
        self.folder = folder
        self.path = folder / PATH
        self.path.parent.mkdir(parents=True)
        (folder / JOURNAL).mkdir(parents=True, exist_ok=True)
        self.path.write_bytes(OLD)
        self.fd = os.open(folder, os.O_RDONLY)
        self.of = replacing(self.fd, after=100)
        if journaled:
            self.journal(OLD, 7)

    def close(self) -> None:
        self.of.lines.close()
        os.close(self.fd)

    def journal(self, content: bytes, sequence: int, **more: object) -> None:
        """Write the line of a content, to a segment of its own."""
        beside = self.folder / ".fastscp/described"
        beside.write_bytes(content)
        members = describe(self.fd, ".fastscp/described").members | {"path": PATH}
        beside.unlink()
        fact = {"v": 1, "event": "stored", "seq": sequence, "time": "", "worker": "w0"}
        with (self.folder / JOURNAL / f"1-w{sequence}-1.jsonl").open("ab") as file:
            append_fact(file.fileno(), {**fact, **members, **more})

    def replace(self, *, doubtful: bool = False) -> None:
        """Another content takes the path, as whoever compares has it."""
        part = self.folder / ".fastscp/part"
        part.write_bytes(NEW)
        self.of.keep(PATH, LOCK, doubtful=doubtful)
        os.rename(part, self.path)

    def end(self, *, refused: bool) -> bool:
        done = Settlement(self.of, PATH, refused=refused).attempt()
        assert done is not None
        return done.undone

    def kept(self) -> list[str]:
        where = self.folder / REPLACED
        return sorted(os.listdir(where)) if where.exists() else []

    def holds(self, content: bytes) -> bool:
        """Whether the path holds this and nothing is amiss."""
        assert self.kept() == []
        assert amiss(self.fd) == []
        return self.path.read_bytes() == content

    def latest(self) -> dict[str, Any]:
        fact = find_path(self.fd, PATH)
        assert fact is not None
        return fact


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.close()


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[Site]:
    """Of which no line tells."""
    made = Site(tmp_path, journaled=False)
    yield made
    made.close()


def test_the_older_content_goes_when_the_newer_line_is_there(site: Site) -> None:
    site.replace()
    assert site.path.read_bytes() == NEW
    assert len(site.kept()) == 2
    site.journal(NEW, 200)
    assert not site.end(refused=False)
    assert site.holds(NEW)


def test_the_older_content_comes_back_and_a_line_says_so(site: Site) -> None:
    inode = site.path.stat().st_ino
    site.replace()
    assert site.end(refused=True)
    assert site.holds(OLD)
    assert site.path.stat().st_ino == inode
    latest = site.latest()
    assert (latest["event"], latest["duplicate"]) == ("stored", RESTORED)
    assert latest["seq"] > 101
    first = {k: v for k, v in site.latest().items() if k in ("bytes", "digest", "path")}
    assert first.items() <= latest.items()


def test_a_line_of_the_refused_instance_counts_for_nothing(site: Site) -> None:
    site.replace()
    # Above the record's number: it was written, and its flush failed.
    site.journal(NEW, site.of.lines.number())
    assert site.end(refused=True)
    assert site.holds(OLD)


def test_what_nobody_acknowledged_is_not_called_stored(bare: Site) -> None:
    bare.replace()
    assert bare.end(refused=True)
    assert find_path(bare.fd, PATH) is None
    assert bare.path.read_bytes() == OLD
    bare.replace()
    bare.journal(NEW, bare.of.lines.number())
    assert bare.end(refused=True)
    assert bare.holds(OLD)
    latest = bare.latest()
    assert (latest["event"], latest["suspect"]) == ("adopted", True)


def test_a_line_of_an_earlier_content_is_not_said_again(site: Site) -> None:
    """What was at the path was never acknowledged, though a line tells of the path."""
    site.path.write_bytes(instance(5))
    site.replace()
    assert site.end(refused=True)
    assert site.path.read_bytes() == instance(5)
    assert site.latest()["seq"] == 7


@pytest.mark.parametrize("refused", [False, True])
def test_a_file_system_without_second_names(
    site: Site, monkeypatch: pytest.MonkeyPatch, refused: bool
) -> None:
    monkeypatch.setattr(os, "link", _no_link)
    site.replace()
    if not refused:
        site.journal(NEW, 200)
    assert site.end(refused=refused) == refused
    assert site.holds(OLD if refused else NEW)


def test_a_folder_that_vanished_is_made_again(site: Site) -> None:
    """The older content comes back under a path whose folders a power cut took."""
    site.replace()
    site.path.unlink()
    site.path.parent.rmdir()
    site.path.parent.parent.rmdir()
    assert site.end(refused=True)
    assert site.holds(OLD)


def test_a_line_that_is_on_its_way_is_waited_for(bare: Site) -> None:
    """The older content may be another worker's, named and not journaled yet."""

    class Batches:
        asked = 0

        def batches(self) -> list[tuple[int, int, int]]:
            return [(0, 1, 1)]

        def under_way(self, _batch: tuple[int, int, int]) -> bool:
            self.asked += 1
            if self.asked == 3:
                bare.journal(OLD, 50)
            return self.asked < 3

    bare.of.batches = Batches()
    bare.replace()
    settlement = Settlement(bare.of, PATH, refused=True)
    assert settlement.attempt() is None
    assert bare.path.read_bytes() == OLD
    assert settlement.attempt() is None
    assert settlement.attempt() is not None
    assert bare.holds(OLD)
    assert bare.latest()["duplicate"] == RESTORED


# Killed at any call -------------------------------------------------------------------------------


class KilledError(BaseException):
    """The process ends here."""


@contextlib.contextmanager
def process(kill_at: int, *, link: bool) -> Iterator[None]:
    """A process that is killed at its n-th call that changes or flushes anything."""
    before = set(os.listdir("/proc/self/fd"))
    calls = 0

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def instead(*what: Any, **where: Any) -> Any:
            nonlocal calls
            if call is os_open and not what[1] & os.O_CREAT:
                return call(*what, **where)
            calls += 1
            if calls == kill_at:
                raise KilledError
            return call(*what, **where)

        return instead

    os_open = os.open
    with pytest.MonkeyPatch.context() as patch:
        if not link:
            patch.setattr(os, "link", _no_link)
        for name in ("open", "link", "rename", "unlink", "mkdir", "fsync", "fdatasync", "write"):
            patch.setattr(os, name, counted(getattr(os, name)))
        try:
            yield
        except KilledError:
            patch.undo()
            for fd in set(os.listdir("/proc/self/fd")) - before:
                with contextlib.suppress(OSError):
                    os.close(int(fd))


def _no_link(*_what: object, **_where: object) -> None:
    raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))


def life(site: Site, ending: str) -> None:
    """Replace, and end it; the newer line is there before that, or not."""
    try:
        site.replace()
        if ending != "refused":
            site.journal(NEW, site.of.lines.number())
        site.end(refused=ending != "journaled")
    finally:
        site.of.lines.close()


@pytest.mark.parametrize(
    ("ending", "link", "again"),
    [
        ("journaled", True, True),
        ("refused", True, False),
        ("refused with its line", True, True),
        ("journaled", False, False),
        ("refused with its line", False, False),
    ],
)
def test_killed_at_every_call_and_again_while_it_is_settled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str, link: bool, again: bool
) -> None:
    """Whatever the call: one of both is there in the end, whole, and the journal says which."""
    # No power fails here.
    for name in ("fsync", "fdatasync"):
        monkeypatch.setattr(os, name, lambda _fd: None)
    first = 0
    ended = False
    while not ended:
        first += 1
        second = 0 if again else 1000
        settled = False
        while not settled:
            second += 1
            site = Site(tmp_path / f"{first}-{second}")
            with process(first, link=link):
                life(site, ending)
                ended = True
            with process(second, link=link):
                settle_alone(site.fd, "main")
                settled = True
            cleared = settle_alone(site.fd, "main")
            assert all(finding.settled for finding in cleared.findings)
            newer = site.path.read_bytes() == NEW
            assert site.holds(NEW if newer else OLD), (first, second)
            if ended:
                assert newer == (ending == "journaled")
            os.close(site.fd)
    assert first > 15


# What is left -------------------------------------------------------------------------------------


def left(site: Site) -> None:
    """As a life that was killed between name and line leaves it."""
    site.replace()
    site.of.lines.close()


def spoil_line(segment: Path) -> None:
    """One letter of its first line is another one."""
    line = bytearray(segment.read_bytes())
    line[20] ^= 1
    segment.write_bytes(line)


def test_a_start_undoes_what_has_no_line(site: Site) -> None:
    left(site)
    cleared = settle_alone(site.fd, "main")
    assert [(f.kind, f.path, f.settled) for f in cleared.findings] == [
        (Kind.REPLACED, PATH, "holds the older content again")
    ]
    # The log may not show a path: it may hold a patient's name.
    assert len(cleared.told) == 1
    assert PATH not in cleared.told[0]
    assert site.holds(OLD)
    assert site.latest()["worker"] == "main"
    assert settle_alone(site.fd, "main") == type(cleared)()


def test_the_line_of_what_is_undone_comes_behind_numbers_that_no_line_has_yet(site: Site) -> None:
    left(site)
    settle_alone(site.fd, "main", lambda: 5000)
    assert site.latest()["seq"] == 5001


def test_the_mark_of_what_comes_back_stays(tmp_path: Path) -> None:
    """A file whose flush failed is in doubt again, once the start has put it back."""
    path = tmp_path / "store"
    with opened(path):
        pass
    site = Site(path)
    Marks(site.fd).leave("file", PATH, errno.EIO)
    left(site)
    assert Marks(site.fd).standing() == ()
    site.close()
    with opened(path) as store:
        assert site.path.read_bytes() == OLD
        assert [(mark.what, mark.path) for mark in store.unflushed] == [("file", PATH)]
        assert Marks(store.dir_fd).standing() == store.unflushed


def test_what_comes_back_after_a_start_that_could_not_has_its_mark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Meanwhile the path has another file, and a mark of that one would say nothing."""
    path = tmp_path / "store"
    with opened(path):
        pass
    site = Site(path)
    Marks(site.fd).leave("file", PATH, errno.EIO)
    site.replace(doubtful=True)
    site.of.lines.close()

    def refuse(*_what: object, **_where: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(replaced, "make_way", refuse)
        with opened(path) as store:
            assert site.path.read_bytes() == NEW
            assert store.unflushed == ()
    with opened(path) as store:
        assert site.path.read_bytes() == OLD
        assert [(mark.what, mark.path) for mark in store.unflushed] == [("file", PATH)]
    site.close()


def test_what_comes_back_in_doubt_is_doubted_by_all(site: Site) -> None:
    """A worker may be killed before it has marked what it found."""
    shared = Shared()
    site.replace(doubtful=True)
    lock_fd = os.dup(site.fd)
    number = shared.store.next_sequence
    shared.store.begin_sequence(300)
    (said,) = settle_beside(lock_fd, "9-main-1", number, shared.liveness, shared.doubts)
    assert "1 paths hold the older content again" in said
    assert site.path.read_bytes() == OLD
    assert shared.doubts.doubts(PATH)
    assert [(mark.what, mark.path) for mark in Marks(site.fd).standing()] == [("file", PATH)]
    del shared, number


def test_the_mark_of_what_verify_puts_back_stays(tmp_path: Path) -> None:
    path = tmp_path / "store"
    with opened(path):
        pass
    site = Site(path)
    Marks(site.fd).leave("file", PATH, errno.EIO)
    left(site)
    found = verify(path, patience_s=0).findings
    assert [(one.kind, bool(one.settled)) for one in found] == [
        (Kind.REPLACED, True), (Kind.UNFLUSHED, False),
    ]  # fmt: skip
    assert [(mark.what, mark.path) for mark in Marks(site.fd).standing()] == [("file", PATH)]
    site.close()


def test_a_start_finishes_what_was_noted(site: Site) -> None:
    site.replace()
    site.journal(NEW, 200)
    replaced.decide(site.of.flushes, PATH)
    site.of.lines.close()
    (finding,) = settle_alone(site.fd, "main").findings
    assert finding.settled == "holds the newer instance"
    assert site.holds(NEW)


@pytest.mark.parametrize("journal", ["whole", "damaged", "gone"])
def test_what_was_not_noted_comes_back_whatever_the_journal_says(site: Site, journal: str) -> None:
    """Its flush may have failed: nobody was told that the newer instance is stored."""
    left(site)
    site.journal(NEW, 200)
    if journal == "damaged":
        spoil_line(site.folder / JOURNAL / "1-w200-1.jsonl")
    elif journal == "gone":
        shutil.rmtree(site.folder / JOURNAL)
        (site.folder / JOURNAL).mkdir()
    (finding,) = settle_alone(site.fd, "main").findings
    assert finding.settled == "holds the older content again"
    assert site.path.read_bytes() == OLD
    assert site.kept() == []
    if journal == "whole":
        assert site.holds(OLD)


@pytest.mark.parametrize("call", ["rename", "fsync"])
def test_a_note_that_fails_refuses_the_newer_one(
    site: Site, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    site.replace()
    site.journal(NEW, site.of.lines.number())
    instead = getattr(os, call)

    def once(*_what: object, **_where: object) -> None:
        monkeypatch.setattr(os, call, instead)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, call, once)
    settlement = Settlement(site.of, PATH, refused=False)
    done = settlement.attempt()
    assert done is not None
    assert done.undone
    assert (settlement.error_no, settlement.decided) == (errno.ENOSPC, False)
    assert site.holds(OLD)


def test_a_note_whose_flush_the_disk_refused_is_taken_back(site: Site) -> None:
    """The older content has its path again, and is kept until the folder can be trusted."""
    site.replace()
    site.journal(NEW, site.of.lines.number())
    settlement = Settlement(site.of, PATH, refused=False)
    with failing(site.folder / REPLACED), pytest.raises(OSError, match="failed before"):
        settlement.attempt()
    assert (settlement.error_no, settlement.decided) == (errno.EIO, False)
    assert site.path.read_bytes() == OLD
    assert site.latest()["duplicate"] == RESTORED


def unsure(site: Site) -> Settlement:
    """The note is made, its flush fails, and it cannot be taken back."""
    site.replace()
    site.journal(NEW, site.of.lines.number())
    settlement = Settlement(site.of, PATH, refused=False)
    rename, calls = os.rename, [0]

    def only_first(*what: Any, **where: Any) -> None:
        calls[0] += 1
        if calls[0] > 1:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        rename(*what, **where)

    with failing(site.folder / REPLACED), pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "rename", only_first)
        with pytest.raises(OSError, match="Read-only"):
            settlement.attempt()
    assert site.path.read_bytes() == NEW
    assert any(name.endswith(".over") for name in site.kept())
    return settlement


def lift_all(site: Site) -> None:
    """As a reboot does."""
    for mark in Marks(site.fd).left():
        Marks(site.fd).lift(mark)


@pytest.mark.parametrize("way", ["start", "next"])
def test_a_refusal_is_in_the_record_where_the_note_cannot_be_taken_back(
    site: Site, way: str
) -> None:
    settlement = unsure(site)
    # What is kept may have no name on the disk, and it has not got its path back.
    assert (settlement.unsure, settlement.error_no) == (True, errno.EIO)
    lift_all(site)
    if way == "start":
        (finding,) = settle_alone(site.fd, "main").findings
        assert finding.settled == "holds the older content again"
    else:
        other = replacing(site.fd, after=300)
        done = Settlement(other, PATH).attempt()
        assert done is not None
        assert done.undone
        other.lines.close()
    assert site.path.read_bytes() == OLD
    assert site.latest()["duplicate"] == RESTORED
    assert site.holds(OLD)


def test_a_refusal_that_is_not_in_the_record_is_unsure(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_what: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", refuse)
        settlement = unsure(site)
        assert (settlement.unsure, settlement.decided) == (True, False)
    # Another try notes it.
    with contextlib.suppress(OSError):
        settlement.attempt()
    assert not settlement.unsure
    lift_all(site)
    settle_alone(site.fd, "main")
    assert site.holds(OLD)


def test_what_a_power_cut_brought_back_is_removed(site: Site) -> None:
    (site.folder / REPLACED).mkdir()
    (site.folder / REPLACED / f"{'4' * 32}.over").write_bytes(OLD)
    assert settle_alone(site.fd, "main").findings == ()
    assert site.kept() == []


def test_a_line_without_the_newer_file_is_none(site: Site) -> None:
    """A power cut may have kept a buffered line and lost the name."""
    site.of.keep(PATH, LOCK)
    site.journal(NEW, 200)
    (finding,) = settle_alone(site.fd, "main").findings
    assert finding.settled == "holds the older content again"
    assert site.holds(OLD)


def test_verify_settles_what_is_left_where_nobody_uses_the_store(tmp_path: Path) -> None:
    with opened(tmp_path / "store") as store:
        path = store.path
        site = Site(path)
        left(site)
        # A service that runs has it in hand.
        assert not any(one.kind is Kind.REPLACED for one in verify(path, patience_s=0.0).findings)
        assert site.path.read_bytes() == NEW
    report = verify(path)
    (finding,) = report.findings
    assert (finding.kind, finding.path, bool(finding.settled)) == (Kind.REPLACED, PATH, True)
    assert report.clean
    assert site.holds(OLD)
    assert verify(path).findings == ()
    site.close()


def test_a_start_settles_what_is_left_and_says_so(tmp_path: Path) -> None:
    with opened(tmp_path / "store") as store:
        site = Site(store.path)
        left(site)
    with opened(tmp_path / "store") as store:
        assert any("1 paths hold the older content again" in said for said in store.warnings)
        assert store.sequence == 0
        assert site.holds(OLD)
    site.close()


def test_a_torn_record_is_named_and_removed(site: Site) -> None:
    (site.folder / REPLACED).mkdir()
    torn = site.folder / REPLACED / f"{'0' * 32}.record"
    torn.write_bytes(b'{"path":"1.2/3')
    (finding,) = settle_alone(site.fd, "main").findings
    assert finding.path == f"{REPLACED}/{torn.name}"
    assert "is not whole" in finding.why
    assert finding.settled
    assert site.holds(OLD)


def test_junk_is_named_and_left(site: Site) -> None:
    folder = site.folder / REPLACED
    folder.mkdir()
    # One that may be the only copy of something, and a damaged record beside another one.
    names = {f"{'1' * 32}.kept", f"{'2' * 32}.kept", f"{'2' * 32}.record", "notes.txt"}
    for name in names:
        (folder / name).write_bytes(OLD)
    (folder / "folder").mkdir()
    (folder / f"{'3' * 32}.record").symlink_to(site.path)
    cleared = settle_alone(site.fd, "main")
    named = {finding.path.removeprefix(f"{REPLACED}/") for finding in cleared.findings}
    assert named == {
        f"{'1' * 32}.kept", f"{'2' * 32}.record", "notes.txt", "folder", f"{'3' * 32}.record",
    }  # fmt: skip
    assert not any(finding.settled for finding in cleared.findings)
    assert names < set(site.kept())


def test_junk_is_named_beside_a_service_too(tmp_path: Path) -> None:
    with opened(tmp_path / "store") as store:
        site = Site(store.path)
        folder = site.folder / REPLACED
        names = {"notes.txt", f"{'1' * 32}.kept", f"{'2' * 32}.kept", f"{'2' * 32}.record"}
        for name in names:
            (folder / name).write_bytes(OLD)
        # These are somebody's: a replacement in hand, and a record that is being written.
        left(site)
        (folder / f"{'3' * 32}.record").write_bytes(b"")
        before = site.kept()
        found = verify(store.path, patience_s=0.0).findings
        named = {one.path for one in found if one.kind is Kind.REPLACED and not one.settled}
        assert named == {
            f"{REPLACED}/{name}" for name in ("notes.txt", f"{'1' * 32}.kept", f"{'2' * 32}.record")
        }
        assert site.kept() == before
        shutil.rmtree(folder)
        folder.write_bytes(b"")
        (one,) = [
            one for one in verify(store.path, patience_s=0.0).findings if one.kind is Kind.REPLACED
        ]
        assert "cannot be read" in one.why
        site.close()


def test_a_folder_that_cannot_be_read_is_named(site: Site) -> None:
    (site.folder / REPLACED).write_bytes(b"")
    cleared = settle_alone(site.fd, "main")
    (finding,) = cleared.findings
    assert cleared.left == ()
    assert "cannot be read" in finding.why
    assert not finding.settled
    # It is in nobody's way who replaces nothing.
    assert site.of.left_at(PATH) is None
    with pytest.raises(NotADirectoryError):
        site.of.keep(PATH, LOCK)
    assert site.path.read_bytes() == OLD


def test_what_cannot_be_settled_keeps_the_sequence_above_it(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numbers that a power cut took back would put a later line below the record."""
    left(site)

    def refuse(*_what: object, **_where: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", refuse)
        cleared = settle_alone(site.fd, "main")
    assert (cleared.sequence, cleared.left) == (101, (PATH,))
    doubts = Shared().doubts
    tell_left(cleared.left, doubts)
    assert [doubts.leaves(path) for path in (PATH, twin(PATH), "1.dcm")] == [True, True, False]
    tell_left(None, doubts)
    assert doubts.leaves("1.dcm")
    (finding,) = cleared.findings
    assert not finding.settled
    assert "Input/output error" in finding.why
    assert site.path.read_bytes() == NEW
    settle_alone(site.fd, "main")
    assert site.holds(OLD)
    assert site.latest()["seq"] > 101


def test_a_replacement_in_hand_is_nobody_elses(site: Site) -> None:
    left(site)
    lock_fd = take_lock(site.fd, LOCK)
    shared = Shared()
    number = shared.store.next_sequence
    shared.store.begin_sequence(300)
    try:
        assert settle_beside(os.dup(site.fd), "9-main-1", number, shared.liveness) == ()
        assert site.path.read_bytes() == NEW
    finally:
        os.close(lock_fd)
    (said,) = settle_beside(os.dup(site.fd), "9-main-2", number, shared.liveness)
    assert "1 paths hold the older content again" in said
    assert site.holds(OLD)
    del shared, number


def test_the_next_of_the_path_settles_what_is_left(site: Site) -> None:
    left(site)
    other: Replaced = replacing(site.fd, after=300)
    settlement = other.left_at(PATH)
    assert settlement is not None
    done = settlement.attempt()
    assert done is not None
    assert done.undone
    assert other.left_at(PATH) is None
    assert site.holds(OLD)
    other.lines.close()


def test_two_paths_are_settled_by_one_reading(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    left(site)
    second = "1.2/3.4/6.dcm"
    (site.folder / second).write_bytes(OLD)
    site.of.keep(second, lock_of(second))
    read: list[str] = []
    for name in ("_known_of",):
        call = getattr(restore, name)

        def noted(*what: Any, name: str = name, call: Callable[..., Any] = call) -> Any:
            read.append(name)
            return call(*what)

        monkeypatch.setattr(restore, name, noted)
    assert len(settle_alone(site.fd, "main").findings) == 2
    assert read == ["_known_of"]
    assert site.path.read_bytes() == OLD


def test_what_has_its_name_is_never_overwritten(site: Site) -> None:
    """An older content without a record may be the only copy of something."""
    (site.folder / REPLACED).mkdir()
    orphan = site.folder / REPLACED / f"{replaced.stem_of(PATH)}.kept"
    orphan.write_bytes(b"something else")
    with pytest.raises(FileExistsError):
        site.of.keep(PATH, LOCK)
    assert orphan.read_bytes() == b"something else"
    assert site.path.read_bytes() == OLD


# Lines that say it again --------------------------------------------------------------------------


def test_a_file_system_that_flushes_no_folder(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    fsync = os.fsync

    def only_files(fd: int) -> None:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        fsync(fd)

    monkeypatch.setattr(os, "fsync", only_files)
    site.replace()
    site.journal(NEW, site.of.lines.number())
    assert site.end(refused=True)
    assert site.holds(OLD)
    assert site.latest()["duplicate"] == RESTORED


def test_a_disk_that_refuses_lines_does_not_fill_the_journal_with_files(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_fd: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    names = set(os.listdir(site.folder / JOURNAL))
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", refuse)
        for _ in range(5):
            with pytest.raises(OSError, match="Input/output"):
                site.of.lines.write("stored", {"path": PATH})
    assert set(os.listdir(site.folder / JOURNAL)) == names
    site.of.lines.write("stored", {"path": PATH})
    assert len(os.listdir(site.folder / JOURNAL)) == len(names) + 1


def test_lines_go_to_another_file_when_one_is_full(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restore, "_SEGMENT_BYTES", 200)
    for _ in range(6):
        site.of.lines.write("stored", {"path": PATH})
    files = list((site.folder / JOURNAL).glob("t-r-*"))
    assert len(files) > 1
    assert sum(len(file.read_bytes().splitlines()) for file in files) == 6


# A flush that failed ------------------------------------------------------------------------------


@contextlib.contextmanager
def failing(path: Path, name: str = "fsync") -> Iterator[list[int]]:
    """The first flush of a folder or file fails, and no other does; gives one 1 for each try."""
    inode = path.stat().st_ino
    tried: list[int] = []
    flush = getattr(os, name)

    def first_fails(fd: int) -> None:
        if os.fstat(fd).st_ino == inode:
            tried.append(1)
            if len(tried) == 1:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
        flush(fd)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, name, first_fails)
        yield tried


def test_a_folder_whose_flush_failed_is_not_trusted_by_the_next_flush(site: Site) -> None:
    """The older content has its path again, and stays kept until the folder can be trusted."""
    site.replace()
    site.journal(NEW, site.of.lines.number())
    with failing(site.path.parent) as tried:
        with pytest.raises(OSError, match="Input/output"):
            site.of.flushes.way(PATH)
        for _ in range(2):
            with pytest.raises(OSError, match="failed before"):
                Settlement(site.of, PATH, refused=True).attempt()
        # Nor by another process, or another life of this boot.
        (finding,) = settle_alone(site.fd, "main").findings
        assert "failed before" in finding.why
        assert len(tried) == 1
    assert site.path.read_bytes() == OLD
    assert (site.folder / REPLACED / f"{replaced.stem_of(PATH)}.kept").read_bytes() == OLD
    marks = Marks(site.fd)
    (mark,) = marks.left()
    assert (mark.what, mark.path) == ("folder", "1.2/3.4")
    marks.lift(mark)
    assert settle_alone(site.fd, "main").findings[0].settled
    assert site.holds(OLD)


def test_the_workers_know_of_a_folder_whose_flush_failed(site: Site) -> None:
    shared = Shared()
    told: list[Any] = []
    flushes = Flushes(site.fd, shared.doubts, lambda *what: told.append(what))
    with failing(site.path.parent), pytest.raises(OSError, match="Input/output"):
        flushes.way(PATH)
    assert told == [("1.2/3.4", errno.EIO, True, False)]
    assert shared.doubts.refuses("1.2/3.4")
    with pytest.raises(OSError, match="failed before"):
        Flushes(site.fd, shared.doubts).folder("1.2/3.4")
    del shared, flushes


def test_want_of_space_says_nothing_of_the_disk(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_fd: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse)
        with pytest.raises(OSError, match="No space"):
            site.of.flushes.folder("")
    site.of.flushes.folder("")
    assert Marks(site.fd).left() == ()


def test_where_older_contents_are_kept_nothing_more_is_kept_after_a_failed_flush(
    site: Site,
) -> None:
    (site.folder / REPLACED).mkdir()
    with failing(site.folder / REPLACED):
        for why in ("Input/output", "failed before"):
            with pytest.raises(OSError, match=why):
                site.of.keep(PATH, LOCK)
    assert site.path.read_bytes() == OLD


def test_a_line_whose_flush_failed_is_not_trusted(site: Site) -> None:
    segment = site.folder / JOURNAL / "1-w200-1.jsonl"
    site.replace()
    site.journal(NEW, 200)
    secured = Secured(site.fd, "1-w200")
    with failing(segment, "fdatasync"):
        for why in ("Input/output", "failed before"):
            with pytest.raises(OSError, match=why):
                secured.flush(PATH)
        # What is written afterwards the next flush takes along.
        site.journal(NEW, 201)
        with segment.open("ab") as file:
            file.write((site.folder / JOURNAL / "1-w201-1.jsonl").read_bytes())
        secured.flush(PATH)


# What nobody can tell ----------------------------------------------------------------------------


def test_what_was_refused_comes_back_whatever_the_journal_says(site: Site) -> None:
    site.replace()
    spoil_line(site.folder / JOURNAL / "1-w7-1.jsonl")
    assert site.end(refused=True)
    assert site.path.read_bytes() == OLD
    assert site.kept() == []


@pytest.mark.parametrize("link", [True, False])
def test_the_same_bytes_written_anew_stay(
    site: Site, monkeypatch: pytest.MonkeyPatch, link: bool
) -> None:
    """The older file is in doubt, and its flush failed: that is why they came in its place."""
    if not link:
        monkeypatch.setattr(os, "link", _no_link)
    part = site.folder / ".fastscp/part"
    part.write_bytes(OLD)
    newer = part.stat().st_ino
    site.of.keep(PATH, LOCK)
    os.rename(part, site.path)
    site.journal(OLD, 200, duplicate="replaced")
    replaced.decide(site.of.flushes, PATH)
    (finding,) = settle_alone(site.fd, "main").findings
    assert finding.settled == "holds the newer instance"
    assert site.path.stat().st_ino == newer
    assert site.holds(OLD)


def test_a_copy_that_is_kept_comes_back_where_the_newer_file_is_lost(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As above without second names: the path holds the copy's bytes, not what the line says."""
    monkeypatch.setattr(os, "link", _no_link)
    site.of.keep(PATH, LOCK)
    site.journal(NEW, 200)
    (finding,) = settle_alone(site.fd, "main").findings
    assert finding.settled == "holds the older content again"
    assert site.holds(OLD)


def test_a_line_without_a_number_says_nothing(site: Site) -> None:
    left(site)
    odd_ones: list[dict[str, object]] = [{}, {"seq": "9"}, {"seq": 300, "path": 5}]
    for n, odd in enumerate(odd_ones, 1):
        with (site.folder / JOURNAL / f"1-x{n}-1.jsonl").open("ab") as file:
            fact: dict[str, object] = {"v": 1, "event": "stored", "path": PATH, "bytes": 1}
            append_fact(file.fileno(), {**fact, **odd})
    second = "1.2/3.4/6.dcm"
    (site.folder / second).write_bytes(OLD)
    site.of.keep(second, lock_of(second))
    assert all(finding.settled for finding in settle_alone(site.fd, "main").findings)
    assert site.path.read_bytes() == OLD
    assert site.kept() == []


def test_an_older_line_that_does_not_tell_its_bytes_is_not_said_again(bare: Site) -> None:
    with (bare.folder / JOURNAL / "1-x-1.jsonl").open("ab") as file:
        append_fact(file.fileno(), {"v": 1, "event": "stored", "seq": 5, "path": PATH})
    bare.replace()
    assert bare.end(refused=True)
    assert bare.latest()["seq"] == 5


def test_a_damaged_record_beside_a_content_is_no_fault_of_the_disk(site: Site) -> None:
    left(site)
    record = site.folder / replaced.where(PATH)
    record.write_bytes(b'{"path":"1.2/3')
    settlement = site.of.left_at(PATH)
    assert settlement is not None
    with pytest.raises(replaced.TornError) as refused:
        settlement.attempt()
    assert refused.value.errno == errno.ENOTRECOVERABLE
    (finding,) = settle_alone(site.fd, "verify").findings
    assert "move both files out of the store" in finding.why
    assert site.path.read_bytes() == NEW


def test_no_descriptor_is_left_by_a_copy_that_fails(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_fd: int) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(os, "link", _no_link)
    monkeypatch.setattr(os, "dup", refuse)
    with pytest.raises(OSError, match="Too many open files"):
        site.of.keep(PATH, LOCK)
    assert site.kept() == []


# Buffered -----------------------------------------------------------------------------------------


def test_buffered_lines_are_flushed_before_the_older_content_goes(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    segments = [site.folder / JOURNAL / f"5-w0b-{n}.jsonl" for n in (1, 2)]
    for segment in segments:
        segment.write_bytes(b"{}\n")
    flushed: list[int] = []
    for name in ("fsync", "fdatasync"):
        call = getattr(os, name)

        def noted(fd: int, call: Callable[[int], None] = call) -> None:
            flushed.append(os.fstat(fd).st_ino)
            call(fd)

        monkeypatch.setattr(os, name, noted)
    secured = Secured(site.fd, "5-w0b")
    secured.flush(PATH)
    way = [site.path.parent, site.path.parent.parent, site.folder, site.folder / JOURNAL]
    assert {path.stat().st_ino for path in (*way, *segments)} <= set(flushed)
    # What has not grown is flushed already.
    flushed.clear()
    with segments[1].open("ab") as file:
        file.write(b"{}\n")
    secured.flush(PATH)
    assert segments[1].stat().st_ino in flushed
    assert segments[0].stat().st_ino not in flushed
    # A journal that lies elsewhere has the line with it.
    (site.folder / JOURNAL).rename(site.folder / ".fastscp/away")
    (site.folder / JOURNAL).mkdir()
    with pytest.raises(FileNotFoundError):
        secured.flush(PATH)
