"""What the redo log holds is brought to its files and lines, whatever became of those."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import shutil
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from fastscp.errors import StartError
from fastscp.store import names
from fastscp.store.identity import read_identity
from fastscp.store.journal import Tail, last_sequence, parse_line
from fastscp.store.mounts import Mounted
from fastscp.store.redo import files, logs, recovery
from fastscp.store.redo.logs import DamagedError, is_anything_in, is_anything_logged
from fastscp.store.redo.records import ForeignLogError
from fastscp.store.redo.recovery import Recovered, highest_logged, recover
from fastscp.store.unflushed import Marks
from fastscp.store.waits import lock_of, take_lock
from tests.kit import wait_for
from tests.redo_files import (
    BLOCK,
    ELSEWHEN,
    FOLDER,
    SALT,
    Put,
    Void,
    batch,
    flip,
    line_of,
    write_log,
)  # fmt: skip
from tests.stores import living, opened

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from fastscp.store.identity import Identity

LIFE = "6a-w0-1"
LANE = f"{LIFE}r-1.jsonl"
NOW = ("boot", "7", "99")
P = "st/se/p.dcm"
Q = "st/se/q.dcm"


class Site:
    """A store that nobody uses, with what a life left that is over."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        identity = read_identity(path, self.fd)
        assert identity is not None
        self.identity: Identity = identity

    def log(self, *batches: bytes, life: str = LIFE, n: int = 1, when: tuple[str, str, str] = NOW,
            size: int = 256 << 10) -> Path:  # fmt: skip
        return write_log(
            self.path, life, batches, n, store_id=self.identity.id, when=when, size=size
        )

    def put(self, path: str, data: bytes) -> None:
        (self.path / path).parent.mkdir(parents=True, exist_ok=True)
        (self.path / path).write_bytes(data)

    def named(self, *puts: Put) -> None:
        """Have the files and lines of records there, as a worker left them."""
        for one in puts:
            self.put(one.path, one.data)
        self.segment(LANE, *(line_of(one.seq, one.path, one.data) for one in puts))

    def segment(self, name: str, *lines: bytes) -> None:
        with (self.path / ".fastscp/journal" / name).open("ab") as file:
            file.write(b"".join(lines))

    def recover(self, *, alone: bool = True, **options: Any) -> Recovered:
        return recover(self.fd, self.identity, alone=alone, **options)

    def seqs(self) -> list[int]:
        """The numbers of all whole lines."""
        found = []
        for one in sorted((self.path / ".fastscp/journal").glob("*.jsonl")):
            facts = map(parse_line, one.read_bytes().split(b"\n"))
            found += [fact["seq"] for fact in facts if fact is not None]
        return sorted(found)

    def files(self) -> dict[str, bytes]:
        """All instances."""
        every = (one for one in self.path.rglob("*") if one.is_file())
        below = {str(one.relative_to(self.path)): one for one in every}
        return {name: one.read_bytes() for name, one in below.items() if name[0] != "."}

    def aside(self) -> dict[str, bytes]:
        found = (self.path / ".fastscp/aside").glob("*")
        return {one.name: one.read_bytes() for one in found if one.is_file()}

    def logged(self) -> list[str]:
        return sorted(one.name for one in (self.path / FOLDER).iterdir())


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("redo") / "store"
    with opened(path):
        pass
    return path


@pytest.fixture
def site(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    shutil.copytree(made, tmp_path / "store")
    monkeypatch.setattr(recovery, "mounted", lambda _fd: Mounted(*NOW))
    found = Site(tmp_path / "store")
    yield found
    os.close(found.fd)


# The cases ----------------------------------------------------------------------------------------


def test_nothing_to_recover(site: Site) -> None:
    assert site.recover() == Recovered()
    assert Recovered().told == ()
    site.log()
    assert site.recover().logs == 1
    assert site.logged() == []


@pytest.mark.parametrize("left", [b"", b"x", b"x" * 4000, bytes(5000), None])
@pytest.mark.parametrize("has_line", [False, True])
def test_after_a_power_cut_a_file_is_whole_again(
    site: Site, left: bytes | None, has_line: bool
) -> None:
    put = Put(5, P, b"x" * 5000)
    site.log(batch(1, [put]), when=ELSEWHEN)
    if left is not None:
        site.put(P, left)
    if has_line:
        site.segment(LANE, line_of(5, P, put.data))
    done = site.recover()
    assert (done.records, done.restored, done.lines) == (1, 1, not has_line)
    assert site.files() == {P: put.data}
    assert site.seqs() == [5]
    # What a power cut left of it is nobody's.
    assert (site.aside(), done.aside) == ({}, 0)
    assert site.logged() == []
    assert done.sequence == 5
    assert site.recover() == Recovered()


def test_a_file_that_is_there_is_flushed_and_stays(site: Site) -> None:
    put = Put(5, P, b"x" * 50)
    for when in (NOW, ELSEWHEN):
        site.log(batch(1, [put]), when=when)
        site.put(P, put.data)
        inode = (site.path / P).stat().st_ino
        done = site.recover()
        assert (done.restored, done.flushed) == (0, 1)
        assert (site.path / P).stat().st_ino == inode
        assert site.seqs() == [5]


def test_of_the_same_mount_what_was_never_named_goes(site: Site) -> None:
    site.log(batch(1, [Put(5, P, b"x")]))
    done = site.recover()
    assert (done.restored, done.lines, done.passed) == (0, 0, 1)
    assert (site.files(), site.seqs()) == ({}, [])


@pytest.mark.parametrize("has_line", [False, True])
def test_in_a_copy_of_the_store_what_is_missing_comes_back(site: Site, has_line: bool) -> None:
    """Of the same mount: a copy has what was copied, and no more."""
    put = Put(5, P, b"x")
    path = site.log(batch(1, [put]))
    copy = path.with_suffix(".copy")
    shutil.copy2(path, copy)
    copy.rename(path)
    if has_line:
        site.segment(LANE, line_of(5, P, put.data))
    done = site.recover()
    assert (done.restored, done.passed) == (1, 0)
    assert (site.files(), site.seqs()) == ({P: b"x"}, [5])


def test_a_log_that_does_not_say_which_file_it_is_vouches_for_nothing(site: Site) -> None:
    write_log(
        site.path, LIFE, [batch(1, [Put(5, P, b"x")])], store_id=site.identity.id, when=NOW, inode=0
    )
    assert site.recover().restored == 1


def test_what_nobody_was_told_of_does_not_count_as_recovered(site: Site) -> None:
    site.log(batch(1, [Put(5, P, b"x"), Put(6, Q, b"y")]))
    site.named(Put(6, Q, b"y"))
    told = site.recover().told
    assert told[0].startswith("recovered 1 instance from")
    assert told[1].startswith("of 1 more instance in that log nothing was to be done")


def test_of_the_same_mount_what_was_taken_away_stays_away(site: Site) -> None:
    put = Put(5, P, b"x")
    site.log(batch(1, [put]))
    site.segment(LANE, line_of(5, P, put.data))
    site.recover()
    assert (site.files(), site.seqs()) == ({}, [5])


def test_of_the_same_mount_another_one_is_at_the_path_of_what_was_never_named(site: Site) -> None:
    site.log(batch(1, [Put(5, P, b"x")]))
    site.put(P, b"other")
    site.recover()
    assert (site.files(), site.aside()) == ({P: b"other"}, {})


def test_where_the_file_system_cannot_be_told_it_counts_as_mounted_anew(site: Site) -> None:
    site.log(batch(1, [Put(5, P, b"x")]), when=(*NOW[:2], ""))
    site.recover()
    assert site.files() == {P: b"x"}


def test_where_the_file_system_cannot_be_told_any_more_it_counts_as_mounted_anew(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "mounted", lambda _fd: Mounted(*NOW[:2], ""))
    site.log(batch(1, [Put(5, P, b"x")]))
    site.recover()
    assert site.files() == {P: b"x"}


def test_beside_a_running_service_it_counts_as_the_same(site: Site) -> None:
    site.log(batch(1, [Put(5, P, b"x")]), when=(*NOW[:2], ""))
    site.recover(alone=False)
    assert site.files() == {}


@pytest.mark.parametrize("what", ["file", "long", "folder", "link", "fifo"])
def test_a_stranger_at_the_path_is_laid_aside(site: Site, what: str) -> None:
    put = Put(5, P, b"x" * 5000)
    site.log(batch(1, [put]), when=ELSEWHEN)
    (site.path / P).parent.mkdir(parents=True)
    match what:
        case "file":
            site.put(P, b"stranger")
        case "long":
            site.put(P, put.data + b"x")
        case "folder":
            (site.path / P).mkdir()
        case "link":
            (site.path / P).symlink_to("/etc/hostname")
        case _:
            os.mkfifo(site.path / P)
    done = site.recover()
    assert (done.restored, done.aside) == (1, 1)
    assert (site.path / P).read_bytes() == put.data
    assert not (site.path / P).is_symlink()
    assert os.path.lexists(site.path / ".fastscp/aside/5")
    assert "1 thing that lay where" in " ".join(done.told)
    assert "each under the `seq` of the instance" in " ".join(done.told)


def test_two_strangers_lie_beside_each_other(site: Site) -> None:
    for n in (1, 2):
        site.log(batch(1, [Put(5, P, b"x")]), when=ELSEWHEN)
        site.put(P, b"stranger%d" % n)
        site.recover()
    assert site.aside() == {"5": b"stranger1", "5.2": b"stranger2"}


@pytest.mark.parametrize("when", [NOW, ELSEWHEN])
@pytest.mark.parametrize(
    ("more", "path"),
    [
        ({"duplicate": "replaced"}, P),
        ({"duplicate": "restored"}, P),
        ({"event": "adopted"}, P),
        ({"event": "deleted"}, P),
        ({}, P),
        ({"duplicate": "replaced"}, f"{P}.zst"),
    ],
)
def test_what_is_newer_at_the_path_stays(
    site: Site, when: tuple[str, str, str], more: dict[str, str], path: str
) -> None:
    site.log(batch(1, [Put(5, P, b"x")]), when=when)
    site.put(path, b"newer")
    site.segment("6a-w1-1-1.jsonl", line_of(9, path, b"newer", **more))
    site.segment(LANE, line_of(5, P, b"x"))
    done = site.recover()
    assert site.files() == {path: b"newer"}
    assert (site.seqs(), done.restored) == ([5, 9], 0)


@pytest.mark.parametrize("duplicate", ["identical", "kept"])
def test_what_changes_nothing_does_not_supersede(site: Site, duplicate: str) -> None:
    site.log(batch(1, [Put(5, P, b"x")]), when=ELSEWHEN)
    site.segment("6a-w1-1-1.jsonl", line_of(9, P, b"x", duplicate=duplicate))
    site.recover()
    assert (site.files(), site.seqs()) == ({P: b"x"}, [5, 9])


def test_a_version_is_at_another_path(site: Site) -> None:
    site.log(batch(1, [Put(5, P, b"x")]), when=ELSEWHEN)
    site.segment("6a-w1-1-1.jsonl", line_of(9, f"{P}~2", b"y", duplicate="version"))
    site.recover()
    assert site.files() == {P: b"x"}


def test_of_two_records_of_a_path_the_later_one_stays(site: Site) -> None:
    first, second = Put(5, P, b"first"), Put(8, P, b"second")
    site.log(batch(1, [second]), life="6a-w1-1", when=ELSEWHEN)
    site.log(batch(1, [first]), when=ELSEWHEN)
    done = site.recover()
    assert (site.files(), site.seqs()) == ({P: b"second"}, [5, 8])
    assert (done.records, done.restored, done.lines) == (2, 1, 2)


def test_a_void_takes_its_record_back_from_any_file_of_the_life(site: Site) -> None:
    site.log(batch(1, [Put(5, P, b"x"), Put(6, Q, b"y")]), when=ELSEWHEN)
    site.log(batch(2, [Void(5, P)]), n=2, when=ELSEWHEN)
    site.recover()
    assert (site.files(), site.seqs()) == ({Q: b"y"}, [6])


def test_what_went_another_way_with_its_number_is_not_named_here(site: Site) -> None:
    """The flush of the log failed, and the commit found the name taken."""
    site.log(batch(1, [Put(5, P, b"x")]), when=ELSEWHEN)
    site.put(P, b"older")
    site.segment("6a-w0-1-1.jsonl", line_of(5, f"{P}~2", b"x", duplicate="version"))
    site.recover()
    assert (site.files(), site.seqs()) == ({P: b"older"}, [5])


def test_a_torn_batch_was_never_answered(site: Site) -> None:
    whole = batch(1, [Put(5, P, b"x")])
    path = site.log(whole, batch(2, [Put(6, Q, b"y")]), when=ELSEWHEN)
    flip(path, BLOCK + len(whole) + 100)
    site.recover()
    assert (site.files(), site.seqs()) == ({P: b"x"}, [5])


def test_an_old_batch_that_lost_a_bit_is_not_passed_over(site: Site) -> None:
    path = site.log(batch(1, [Put(5, P, b"x")]), batch(2, [Put(6, Q, b"y")]), when=ELSEWHEN)
    flip(path, BLOCK + 100)
    with pytest.raises(DamagedError, match="fastscp recover --accept-damage") as failed:
        site.recover()
    assert failed.value.exit_code == 3
    assert (site.files(), site.seqs(), site.logged()) == ({}, [], [path.name])
    done = site.recover(accept_damage=True)
    assert (site.files(), site.seqs()) == ({Q: b"y"}, [6])
    assert len(done.damage) == 1
    assert path.name in done.damage[0]
    # It may tell somebody more than it does us.
    assert list(site.aside()) == [path.name]
    assert site.logged() == []


@pytest.mark.parametrize("readable", [True, False])
def test_what_a_damaged_log_cannot_tell_of_is_flushed_with_all(
    site: Site, flushed: list[list[str]], readable: bool
) -> None:
    """Its file may be there, named and answered, and not on the disk yet."""
    more = [batch(2, [Put(6, Q, b"y")])] if readable else []
    path = site.log(batch(1, [Put(5, P, b"x")]), *more)
    flip(path, BLOCK + 100 if readable else 100)
    site.put(P, b"x")
    site.recover(accept_damage=True)
    assert len(flushed) == 1
    assert site.logged() == []


def test_a_torn_batch_that_was_not_the_last_of_its_life(site: Site) -> None:
    path = site.log(batch(1, [Put(5, P, b"x")]), when=ELSEWHEN)
    flip(path, BLOCK + 100)
    site.log(batch(2, [Put(6, Q, b"y")]), n=2, when=ELSEWHEN)
    with pytest.raises(DamagedError, match="number 1, though a later one was written"):
        site.recover()
    assert [one.records for one in site.recover(accept_damage=True).lost] == [1]


@pytest.mark.parametrize("how", ["salt", "magic", "zeros", "version", "checksum", "boot"])
@pytest.mark.parametrize("when", [NOW, ELSEWHEN])
def test_behind_a_damaged_header_all_batches_come_back(
    site: Site, how: str, when: tuple[str, str, str]
) -> None:
    path = site.log(batch(1, [Put(5, P, b"x")]), batch(2, [Put(6, Q, b"y")]), when=when)
    if how == "zeros":
        with path.open("r+b") as file:
            file.write(bytes(BLOCK))
    else:
        at = {"magic": 0, "version": 8, "salt": 20, "boot": 84, "checksum": 266}[how]
        flip(path, at)
    with pytest.raises(DamagedError):
        site.recover()
    assert site.logged() == [path.name]
    done = site.recover(accept_damage=True)
    assert (done.restored, done.lost) == (2, ())
    assert (site.files(), site.seqs()) == ({P: b"x", Q: b"y"}, [5, 6])
    assert list(site.aside()) == [path.name]
    assert site.recover() == Recovered()


def test_a_log_that_became_shorter_is_not_passed_over(site: Site) -> None:
    path = site.log(batch(1, [Put(5, P, b"x")]), batch(2, [Put(6, Q, b"y")]), when=ELSEWHEN)
    os.truncate(path, BLOCK + len(batch(1, [Put(5, P, b"x")])))
    with pytest.raises(DamagedError, match="was made with"):
        site.recover()
    done = site.recover(accept_damage=True)
    assert [(one.records, one.after) for one in done.lost] == [(0, 5)]
    assert any("with a `seq` above 5" in one for one in done.told)
    assert site.files() == {P: b"x"}


def test_logs_of_others_are_left_alone(site: Site) -> None:
    site.log(batch(1, [Put(6, Q, b"y")]), when=ELSEWHEN)
    path = write_log(site.path, "6a-w1-1", [batch(1, [Put(5, P, b"x")])], store_id="other")
    for accept_damage in (False, True):
        with pytest.raises(ForeignLogError, match="other"):
            site.recover(accept_damage=accept_damage)
    assert len(site.logged()) == 2
    assert site.files() == {}
    path.unlink()
    site.recover()
    assert site.files() == {Q: b"y"}


@pytest.mark.parametrize("what", ["folder", "link", "fifo"])
def test_what_is_no_file_and_has_the_name_of_a_log(site: Site, what: str) -> None:
    path = site.log()
    path.unlink()
    match what:
        case "folder":
            path.mkdir()
        case "link":
            path.symlink_to("/etc/hostname")
        case _:
            os.mkfifo(path)
    with pytest.raises(OSError, match=r"directory|link|no regular file") as failed:
        site.recover()
    assert failed.value.filename == f"{FOLDER}/{path.name}"


@pytest.mark.parametrize("left", ["nothing", "a byte", "zeros", "zeros of its length"])
def test_a_log_that_lost_all_is_not_passed_over(site: Site, left: str) -> None:
    path = site.log(batch(1, [Put(5, P, b"x")]), when=ELSEWHEN)
    size = {"nothing": 0, "a byte": 1, "zeros": 5000}.get(left, path.stat().st_size)
    path.write_bytes(bytes(size))
    for _ in range(2):
        with pytest.raises(DamagedError, match=r"is empty|does not begin like a log") as failed:
            site.recover()
        assert path.name in str(failed.value)
        assert "fastscp recover --accept-damage" in str(failed.value)
    assert site.logged() == [path.name]
    done = site.recover(accept_damage=True)
    assert len(done.lost) == 1
    assert any("what was there may have been acknowledged" in one for one in done.told)
    assert (list(site.aside()), site.logged()) == ([path.name], [])


def test_a_log_that_was_being_made_counts_for_nothing(site: Site) -> None:
    """No batch is written before it has its name: what looks like one its blocks had before."""
    folder = site.log().parent
    (folder / f"{LIFE}-2.new").write_bytes(b"")
    site.log(n=3).rename(folder / f"{LIFE}-3.new")
    old = batch(1, [Put(5, P, b"x")], salt=SALT + 1)
    site.log(old, n=4).rename(folder / f"{LIFE}-4.new")
    (folder / f"{LIFE}-5.new").write_bytes(bytes(2 * BLOCK))
    os.truncate(folder / f"{LIFE}-5.new", 1 << 40)
    (folder / f"{LIFE}-6.new").symlink_to("/etc/hostname")
    with living(site.fd, "6a-w7-1"):
        (folder / "6a-w7-1-1.new").write_bytes(bytes(BLOCK))
        assert is_anything_logged(site.fd)
        assert site.recover().logs == 1
        assert site.logged() == ["6a-w7-1-1.new"]
        assert site.recover() == Recovered()
    # Nor has anybody to recover because of it.
    assert not is_anything_in(site.fd)
    assert not is_anything_logged(site.fd)
    assert site.recover() == Recovered()
    assert (site.logged(), site.files(), site.seqs()) == ([], {}, [])


@pytest.mark.parametrize("lost", [0, 1])
@pytest.mark.parametrize("name", ["{}.new", "{}.log.new", "{}.log.bak", "old"])
def test_a_used_log_that_somebody_gave_another_name(site: Site, lost: int, name: str) -> None:
    """Also where its first batch cannot be read any more."""
    log = site.log(batch(1, [Put(5, P, b"x")]), batch(2, [Put(6, Q, b"y")]), when=ELSEWHEN)
    if lost:
        flip(log, BLOCK + 64)
    new = log.rename(log.with_name(name.format(log.stem)))
    assert is_anything_in(site.fd)
    assert is_anything_logged(site.fd)
    assert highest_logged(site.fd, site.identity) == 6
    for _ in range(2):
        with pytest.raises(DamagedError) as failed:
            site.recover()
        assert f"{FOLDER}/{new.name} is {log.name} under another name" in str(failed.value)
    assert (site.logged(), site.files()) == ([new.name], {})
    if lost:
        assert site.recover(accept_damage=True).restored == 1
        assert (list(site.aside()), site.files()) == ([new.name], {Q: b"y"})
    else:
        new.rename(log)
        assert site.recover().restored == 2
        assert site.files() == {P: b"x", Q: b"y"}
    assert site.logged() == []


@pytest.mark.parametrize("torn", [False, True])
@pytest.mark.parametrize("header", ["flipped", "zeros", "nothing like it"])
def test_a_used_log_that_lost_its_name_and_its_header(site: Site, header: str, torn: bool) -> None:
    """One that is being made has nothing behind its header."""
    log = site.log(batch(1, [Put(5, P, b"x")]), when=ELSEWHEN)
    if header == "flipped":
        flip(log, 20)
    else:
        with log.open("r+b") as file:
            file.write((b"\0" if header == "zeros" else b"x") * BLOCK)
    if torn:
        flip(log, BLOCK + 64)
    new = log.rename(log.with_suffix(".new"))
    assert is_anything_in(site.fd)
    for _ in range(2):
        with pytest.raises(DamagedError) as failed:
            site.recover()
        assert f"{FOLDER}/{new.name} is {log.name} under another name" in str(failed.value)
        assert site.logged() == [new.name]
    done = site.recover(accept_damage=True)
    assert site.files() == ({} if torn else {P: b"x"})
    assert len(done.lost) == torn
    assert (list(site.aside()), site.logged()) == ([new.name], [])


def test_a_copy_of_a_log_is_nobody_s(site: Site) -> None:
    """Also behind the recovery, when the log is gone."""
    log = site.log(batch(1, [Put(5, P, b"x")]), when=ELSEWHEN)
    copy = log.with_suffix(".bak")
    copy.write_bytes(log.read_bytes())
    for restored in (1, 0):
        assert site.recover().restored == restored
        assert site.logged() == [copy.name]
        assert not is_anything_in(site.fd)


def test_a_stranger_s_file_stops_no_start_and_is_named(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be a log under another name; what has the name of one is not passed over."""
    log = site.log(batch(1, [Put(5, P, b"x")]), when=ELSEWHEN)
    denied = log.rename(log.with_name("a\n.bak"))
    real = names.open_file

    def open_file(path: str, dir_fd: int, flags: int = os.O_RDONLY) -> int:
        if path == f"{FOLDER}/{denied.name}":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return real(path, dir_fd, flags)

    monkeypatch.setattr(logs, "open_file", open_file)
    assert not is_anything_logged(site.fd)
    done = site.recover()
    assert (done.logs, done.told) == (0, done.unread)
    (said,) = done.told
    assert said.startswith(
        f"cannot read {FOLDER}/a\\n.bak (Permission denied), and passed over it: "
    )
    assert site.logged() == [denied.name]
    # Also where something is recovered; and once, by whoever is alone.
    site.log(batch(1, [Put(6, Q, b"y")]), when=ELSEWHEN)
    done = site.recover()
    assert (done.logs, done.restored, done.told[-1]) == (1, 1, said)
    assert site.recover(alone=False) == Recovered()
    for name in (log.name, log.with_suffix(".new").name):
        denied = denied.rename(log.with_name(name))
        with pytest.raises(PermissionError):
            site.recover()
        assert site.logged() == [denied.name]


def test_a_log_that_is_too_long_is_not_read(site: Site) -> None:
    path = site.log()
    os.truncate(path, 1 << 40)
    with pytest.raises(OSError, match="longer than any log"):
        site.recover()


def test_other_names_beside_the_logs_are_nobody_s(site: Site) -> None:
    site.log()
    (site.path / FOLDER / "5.part").write_bytes(b"of a recovery that did not end")
    (site.path / FOLDER / "readme").write_bytes(b"")
    site.recover()
    assert site.logged() == ["readme"]


def test_nothing_is_written_through_a_link(site: Site, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (site.path / "st").symlink_to(outside)
    site.log(batch(1, [Put(5, P, b"x")]), when=ELSEWHEN)
    site.recover()
    assert list(outside.iterdir()) == []
    assert site.aside() == {"5": b"x"}


# Somebody changed the folders, or took the file away ----------------------------------------------


@pytest.mark.parametrize("when", [NOW, ELSEWHEN])
@pytest.mark.parametrize("what", ["link", "file", "denied", "mount"])
def test_a_path_that_cannot_be_reached_keeps_nothing_else_back(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str,
    when: tuple[str, str, str],
) -> None:  # fmt: skip
    other = "other/se/r.dcm"
    puts = [Put(5, P, b"x" * 5000), Put(6, other, b"y")]
    site.log(batch(1, puts), when=when)
    site.segment(LANE, *(line_of(one.seq, one.path, one.data) for one in puts))
    site.put(other, b"y")
    match what:
        case "link":
            (site.path / "st").symlink_to(tmp_path)
        case "file":
            (site.path / "st").write_bytes(b"a file")
        case _:
            errors = {"denied": errno.EACCES, "mount": errno.EXDEV}
            real = names.holder

            def denied(path: str, fd: int) -> Any:
                if path.startswith("st/"):
                    raise OSError(errors[what], os.strerror(errors[what]), path)
                return real(path, fd)

            monkeypatch.setattr(files, "holder", denied)
    done = site.recover()
    assert (site.aside(), site.seqs(), site.logged()) == ({"5": puts[0].data}, [5, 6], [])
    assert site.files()[other] == b"y"
    assert (done.flushed, done.restored, len(done.unreachable)) == (1, 0, 1)
    assert f"to its path: {P} (" in " ".join(done.told)
    assert "it is in .fastscp/aside/5; see who" in " ".join(done.told)


def test_what_cannot_be_reached_and_was_told_to_nobody_goes(site: Site) -> None:
    site.log(batch(1, [Put(5, P, b"x")]))
    (site.path / "st").write_bytes(b"a file")
    assert site.recover().passed == 1
    assert (site.aside(), site.seqs()) == ({}, [])


def test_what_is_aside_already_lies_there_once(site: Site) -> None:
    (site.path / "st").write_bytes(b"a file")
    for data in (b"x", b"x", b"y"):
        site.log(batch(1, [Put(5, P, data)]), when=ELSEWHEN)
        site.recover()
    assert site.aside() == {"5": b"x", "5.2": b"y"}


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC, errno.EMFILE])
def test_what_the_disk_or_the_system_lacks_is_no_such_thing(
    site: Site, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    site.log(batch(1, [Put(5, P, b"x")]), when=ELSEWHEN)

    def fail(*_: Any) -> Any:
        raise OSError(error, os.strerror(error), "p.dcm")

    monkeypatch.setattr(files, "holder", fail)
    with pytest.raises(OSError) as failed:  # noqa: PT011 - the number tells
        site.recover()
    # A name of its own would say nothing.
    assert (failed.value.errno, failed.value.filename) == (error, P)
    assert site.aside() == {}


@pytest.fixture
def flushed(site: Site, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """For each flush of the whole file system: what was in the folder of the log then."""
    found: list[list[str]] = []
    monkeypatch.setattr(recovery, "flush_file_system", lambda _fd: found.append(site.logged()))
    return found


@pytest.mark.parametrize("alone", [True, False])
def test_what_was_taken_away_is_flushed_wherever_it_is(
    site: Site, flushed: list[list[str]], alone: bool
) -> None:
    puts = [Put(5, P, b"x"), Put(6, Q, b"y")]
    log = site.log(batch(1, puts))
    site.named(*puts)
    for one in (P, Q):
        (site.path / one).rename(site.path / f"{one}.taken")
    site.recover(alone=alone)
    assert flushed == [[log.name]]
    assert (site.aside(), site.seqs(), site.logged()) == ({}, [5, 6], [])


def test_what_was_taken_away_before_another_one_came_is_flushed_too(
    site: Site, flushed: list[list[str]]
) -> None:
    site.log(batch(1, [Put(5, P, b"x")]))
    site.put(P, b"newer")
    site.segment(LANE, line_of(5, P, b"x"), line_of(9, P, b"newer"))
    site.recover()
    assert len(flushed) == 1


def test_that_something_was_taken_away_is_never_unsaid(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else one thread, which found nothing, would write over what another one has found."""
    written: list[object] = []

    class Watched(recovery._Recovery):
        def __setattr__(self, name: str, value: object) -> None:
            if name == "_has_gone":
                written.append(value)
            super().__setattr__(name, value)

    monkeypatch.setattr(recovery, "_Recovery", Watched)
    site.log(batch(1, [Put(5, P, b"x")]))
    site.put(P, b"newer")
    site.segment("6a-w1-1-1.jsonl", line_of(9, P, b"newer"))
    site.recover()
    assert written == [False]


def test_a_folder_that_goes_before_its_flush_is_flushed_wherever_it_is(
    site: Site, flushed: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    put = Put(5, P, b"x")
    site.log(batch(1, [put]))
    site.named(put)
    real = names.flush_folder_at

    def gone(fd: int, folder: str) -> bool:
        if folder == "st":
            raise FileNotFoundError(errno.ENOENT, "gone", folder)
        return real(fd, folder)

    monkeypatch.setattr(files, "flush_folder_at", gone)
    site.recover()
    assert len(flushed) == 1


def test_where_all_is_in_its_place_the_file_system_is_not_flushed(
    site: Site, flushed: list[list[str]]
) -> None:
    put = Put(5, P, b"x")
    site.log(batch(1, [put]))
    site.named(put)
    site.recover()
    # After a power cut there is nothing to flush that was taken away.
    site.log(batch(1, [Put(6, Q, b"y")]), when=ELSEWHEN)
    site.segment(LANE, line_of(6, Q, b"y"))
    site.recover()
    assert flushed == []


def test_what_was_taken_away_and_cannot_be_flushed_comes_back(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = Put(5, P, b"x")
    log = site.log(batch(1, [put]))
    site.named(put)
    (site.path / P).rename(site.path / "taken")

    def fail(_fd: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(recovery, "flush_file_system", fail)
    with pytest.raises(OSError, match="Input"):
        site.recover()
    assert site.logged() == [log.name, f"{LIFE}.distrust"]
    # Another flush would say nothing: there is none.
    assert site.recover().restored == 1
    assert site.files() == {P: b"x", "taken": b"x"}
    assert site.logged() == []


# The lives ----------------------------------------------------------------------------------------


def test_the_log_of_a_life_that_goes_on_is_left_alone(site: Site) -> None:
    with living(site.fd, LIFE):
        site.log(batch(1, [Put(5, P, b"x")]), when=ELSEWHEN)
        site.log(batch(1, [Put(6, Q, b"y")]), life="6a-w1-1", when=ELSEWHEN)
        assert is_anything_logged(site.fd)
        assert site.recover(alone=False).records == 1
        assert site.logged() == [f"{LIFE}-1.log"]
        assert is_anything_in(site.fd)
        assert not is_anything_logged(site.fd)
    assert is_anything_logged(site.fd)
    site.recover()
    # Q was never named, and nothing was mounted anew for all that is known beside a service.
    assert site.files() == {P: b"x"}
    assert site.logged() == []


# The journal --------------------------------------------------------------------------------------


def torn(line: bytes) -> list[bytes]:
    return [line[:40], line[:-2], bytes(300), b"\0" * 50 + line[50:]]


@pytest.mark.parametrize("number", range(4))
def test_a_torn_end_of_a_lane_is_cut_off_and_its_lines_come_again(site: Site, number: int) -> None:
    puts = [Put(n, f"st/se/{n}.dcm", b"%d" % n) for n in range(5, 9)]
    every = [line_of(one.seq, one.path, one.data) for one in puts]
    older = line_of(4, "st/se/4.dcm", b"4")
    site.log(batch(1, puts), when=ELSEWHEN)
    # What is behind the torn place was written, and comes again as well.
    site.segment(LANE, older, every[0], torn(every[1])[number], b"\n", *every[2:])
    site.recover()
    assert site.seqs() == [4, 5, 6, 7, 8]
    kept = (site.path / ".fastscp/journal" / LANE).read_bytes()
    assert kept == older + every[0]
    assert all(line.fact is not None for line in Tail(site.fd).read())
    assert last_sequence(site.fd) == 8


def test_a_line_that_lost_a_bit_in_front_of_others_stays_for_verify_to_name(site: Site) -> None:
    put = Put(9, P, b"x")
    site.log(batch(1, [put]), when=ELSEWHEN)
    lines = [line_of(n, f"st/se/{n}.dcm", b"1") for n in (3, 4)]
    site.segment(LANE, b"x" + lines[0][1:], lines[1], line_of(9, P, b"x")[:30])
    site.recover()
    kept = (site.path / ".fastscp/journal" / LANE).read_bytes()
    assert kept == b"x" + lines[0][1:] + lines[1]
    assert site.seqs() == [4, 9]


def test_segments_of_others_are_not_cut(site: Site) -> None:
    names = (f"{LIFE}-1.jsonl", f"{LIFE}b-1.jsonl", "6a-w0-12r-1.jsonl", "69-w0-1r-1.jsonl")
    for name in names:
        site.segment(name, b'{"v":1,"event":"sto')
    site.log(batch(1, [Put(5, P, b"x")]), when=ELSEWHEN)
    site.recover()
    for name in names:
        assert (site.path / ".fastscp/journal" / name).read_bytes() == b'{"v":1,"event":"sto'


def test_a_follower_finds_each_fact_by_its_number(site: Site) -> None:
    puts = [Put(n, f"st/se/{n}.dcm", b"%d" % n) for n in range(5, 9)]
    site.log(batch(1, puts))
    site.named(*puts)
    tail = Tail(site.fd)
    seen = [line.fact["seq"] for line in tail.read() if line.fact]
    assert seen == [5, 6, 7, 8]
    # The power cut takes the last lines, which were not flushed.
    path = site.path / ".fastscp/journal" / LANE
    os.truncate(path, len(line_of(5, puts[0].path, b"5")))
    for one in puts:
        (site.path / one.path).write_bytes(b"")
    for log in (site.path / FOLDER).iterdir():
        log.unlink()
    site.log(batch(1, puts), when=ELSEWHEN)
    site.recover()
    later = [line.fact["seq"] for line in tail.read() if line.fact]
    # A segment that is shorter than before is read from its beginning.
    assert sorted(later) == [5, 6, 7, 8]
    assert site.seqs() == [5, 6, 7, 8]


def test_the_lines_of_many_segments_are_found(site: Site) -> None:
    """Numbers rise in a segment, nearly; the records' lines are far from its end."""
    lines = [line_of(n, f"st/se/{n}.dcm", b"") for n in range(100, 3000)]
    site.segment("6a-w1-1-1.jsonl", *lines)
    site.segment(LANE, line_of(2000, P, b"x"), line_of(2001, Q, b"y"))
    site.log(batch(1, [Put(150, "st/se/150.dcm", b""), Put(2000, P, b"x")]), when=ELSEWHEN)
    done = site.recover()
    assert done.lines == 0
    assert len(site.seqs()) == len(lines) + 2


@pytest.mark.parametrize("size", [0, 3, 1 << 15, 1 << 16, (1 << 16) + 1, 200_000])
def test_what_is_no_line_in_front_of_lines(site: Site, size: int) -> None:
    site.segment("6a-w1-1-1.jsonl", b"z" * size, b"\n" if size else b"", line_of(5, P, b"x"))
    site.log(batch(1, [Put(5, P, b"x")]), when=ELSEWHEN)
    assert site.recover().lines == 0


# Distrust -----------------------------------------------------------------------------------------


def test_after_a_failed_flush_nothing_in_memory_is_believed(site: Site) -> None:
    puts = [Put(5, P, b"x"), Put(6, Q, b"y")]
    site.log(batch(1, puts))
    site.named(*puts)
    (site.path / Q).unlink()
    inode = (site.path / P).stat().st_ino
    segment = site.path / ".fastscp/journal" / LANE
    before = segment.stat().st_ino, segment.read_bytes()
    done = site.recover(alone=False, distrust={LIFE})
    # The one that was taken away is back: wherever it is, it may not be whole there.
    assert (done.restored, done.flushed) == (2, 0)
    assert site.files() == {P: b"x", Q: b"y"}
    assert (site.path / P).stat().st_ino != inode
    assert segment.stat().st_ino != before[0]
    assert segment.read_bytes() == before[1]
    assert (site.seqs(), site.logged()) == ([5, 6], [])


def test_distrust_of_another_life_changes_nothing(site: Site) -> None:
    put = Put(5, P, b"x")
    site.log(batch(1, [put]))
    site.named(put)
    assert site.recover(distrust={"6a-w9-1"}).restored == 0


def test_a_life_that_marked_itself_is_distrusted(site: Site) -> None:
    """Main was killed before it heard of the exit code."""
    put = Put(5, P, b"x")
    site.log(batch(1, [put]))
    site.named(put)
    leave_distrust_in(site, LIFE)
    leave_distrust_in(site, LIFE)
    assert site.recover().restored == 1
    assert site.logged() == []


def leave_distrust_in(site: Site, life: str) -> None:
    folder_fd = os.open(site.path / FOLDER, os.O_RDONLY)
    try:
        logs.leave_distrust(folder_fd, life)
    finally:
        os.close(folder_fd)


def test_a_mark_that_is_made_while_lives_are_looked_at_is_seen(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It lived when the folder was read, and is over at the look at its lock."""
    put = Put(5, P, b"x")
    site.log(batch(1, [put]))
    site.named(put)

    def ends(_fd: int, life: str) -> bool:
        leave_distrust_in(site, life)
        return True

    monkeypatch.setattr(logs, "is_over", ends)
    assert site.recover().restored == 1


def test_the_mark_of_another_life_goes_with_that(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    put, other = Put(5, P, b"x"), Put(6, Q, b"y")
    site.log(batch(1, [put]))
    second = site.log(batch(1, [other]), life="6a-w1-1")
    site.named(put, other)
    living = {"6a-w1-1"}
    monkeypatch.setattr(logs, "is_over", lambda _fd, life: life not in living)
    leave_distrust_in(site, "6a-w1-1")
    # Its mark says nothing of the first, and stays.
    assert (site.recover().restored, site.logged()) == (0, [second.name, "6a-w1-1.distrust"])
    living.clear()
    assert (site.recover().restored, site.logged()) == (1, [])


def test_a_mark_without_a_log_goes_and_what_is_no_mark_stays(site: Site) -> None:
    site.log()
    site.recover()
    leave_distrust_in(site, LIFE)
    (site.path / FOLDER / "..distrust").write_bytes(b"")
    site.recover()
    assert site.logged() == ["..distrust"]


def test_a_mark_lasts_until_its_logs_are_gone_for_good(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut must not bring back the log without it."""
    put = Put(5, P, b"x")
    site.log(batch(1, [put]))
    site.named(put)
    leave_distrust_in(site, LIFE)
    flushes: list[list[str]] = []
    real = names.flush_folder

    def flush(fd: int) -> bool:
        flushes.append(site.logged())
        return real(fd)

    monkeypatch.setattr(logs, "flush_folder", flush)
    site.recover()
    assert flushes[-2:] == [[f"{LIFE}.distrust"], []]


def test_after_a_flush_that_fails_here_the_next_one_is_not_believed(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = Put(5, P, b"x")
    site.log(batch(1, [put]))
    site.named(put)

    def fail(_fd: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as failing:
        failing.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="Input"):
            site.recover()
    # Also by another process.
    done = site.recover()
    assert (done.restored, done.flushed) == (1, 0)
    assert site.logged() == []


@pytest.mark.parametrize("what", ["files", "folders"])
def test_a_flush_that_fails_here_is_noted_before_the_others_end(
    site: Site, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """All may be killed while these hang."""
    puts = [Put(5, "st/s1/a.dcm", b"x"), Put(6, "st/s2/b.dcm", b"y")]
    site.log(batch(1, puts))
    site.named(*puts)
    files = [site.path / one.path for one in puts]
    flushed = files if what == "files" else [one.parent for one in files]
    bad, hangs = (one.stat().st_ino for one in flushed)
    begun = threading.Event()
    seen: list[bool] = []
    real = os.fsync

    def flush(fd: int) -> None:
        inode = os.fstat(fd).st_ino
        if inode == bad:
            assert begun.wait(60)
            raise OSError(errno.EIO, "Input/output error")
        if inode == hangs:
            begun.set()
            mark = site.path / FOLDER / f"{LIFE}.distrust"
            seen.append(wait_for(mark.exists, "the mark"))
        real(fd)

    monkeypatch.setattr(os, "fsync", flush)
    with pytest.raises(OSError, match="Input"):
        site.recover()
    assert seen == [True]


def test_a_folder_whose_flush_failed_before_gets_its_names_anew(site: Site) -> None:
    put = Put(5, P, b"x")
    site.log(batch(1, [put]))
    site.named(put)
    Marks(site.fd).leave("folder", "st/se", errno.EIO)
    assert site.recover().restored == 1


def test_a_folder_above_whose_flush_failed_before_keeps_the_log(site: Site) -> None:
    put = Put(5, P, b"x")
    site.log(batch(1, [put]))
    site.named(put)
    Marks(site.fd).leave("folder", "st", errno.EIO)
    with pytest.raises(OSError, match=r"failed before: .* run `fastscp recover`.* restart the ma"):
        site.recover()
    assert f"{LIFE}-1.log" in site.logged()


def test_a_folder_that_cannot_be_flushed_is_marked(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.log(batch(1, [Put(5, P, b"x")]), when=ELSEWHEN)

    def fail(_fd: int, folder: str) -> bool:
        if folder == "st/se":
            raise OSError(errno.EIO, "Input/output error")
        return True

    class Told:
        def __init__(self) -> None:
            self.folders: list[str] = []

        def refuse(self, folder: str, /) -> bool:
            self.folders.append(folder)
            return True

        def refuses(self, folder: str, /) -> bool:
            return folder in self.folders

    doubts = Told()
    monkeypatch.setattr(files, "flush_folder_at", fail)
    with pytest.raises(OSError, match="Input"):
        site.recover(doubts=doubts)
    assert doubts.folders == ["st/se"]
    assert [mark.path for mark in Marks(site.fd).left()] == ["st/se"]
    assert f"{LIFE}-1.log" in site.logged()


# Beside a service ---------------------------------------------------------------------------------


def test_beside_a_service_a_file_is_written_under_its_path_s_lock(site: Site) -> None:
    put = Put(5, P, b"x")
    site.log(batch(1, [put]))
    site.named(put)
    lock_fd = take_lock(site.fd, lock_of(P))
    done: list[Recovered] = []
    thread = threading.Thread(
        target=lambda: done.append(site.recover(alone=False, distrust={LIFE}))
    )
    thread.start()
    try:
        wait_for(lambda: f"{LIFE}.distrust" in site.logged(), "the recovery")
        # Whoever has the lock replaces the file meanwhile.
        time.sleep(0.1)
        assert thread.is_alive()
        site.put(P, b"newer")
        site.segment("6a-w1-1-1.jsonl", line_of(9, P, b"newer", duplicate="replaced"))
    finally:
        os.close(lock_fd)
    thread.join(60)
    assert done[0].restored == 0
    assert (site.files(), site.seqs()) == ({P: b"newer"}, [5, 9])


def test_a_lock_that_is_never_given_back_ends_the_try(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "_LOCK_S", 0.0)
    site.log(batch(1, [Put(5, P, b"x")]))
    site.named(Put(5, P, b"x"))
    lock_fd = take_lock(site.fd, lock_of(P))
    try:
        with pytest.raises(TimeoutError, match="not given back"):
            site.recover(alone=False, distrust={LIFE})
    finally:
        os.close(lock_fd)
    assert site.recover(alone=False).restored == 1


def test_two_recoveries_take_turns(site: Site) -> None:
    put = Put(5, P, b"x")
    site.log(batch(1, [put]), when=ELSEWHEN)
    with logs.folder(site.fd, site.identity.id):
        done: list[Recovered] = []
        thread = threading.Thread(target=lambda: done.append(site.recover()))
        thread.start()
        time.sleep(0.05)
        assert not done
    thread.join(60)
    assert site.files() == {P: b"x"}


# Cut anywhere -------------------------------------------------------------------------------------


class CutError(BaseException):
    """Nothing more is done: the process is killed here."""


CALLS = ("rename", "unlink", "fsync", "fdatasync", "write", "mkdir", "ftruncate", "pwrite")


@contextlib.contextmanager
def cut_at(number: int, error: Callable[[], BaseException]) -> Iterator[list[int]]:
    """Have the so many-th call that changes the disk not take place, nor any later one."""
    done = [0]
    lock = threading.Lock()
    real = {name: getattr(os, name) for name in CALLS}

    def of(name: str) -> Callable[..., Any]:
        def call(*args: Any, **more: Any) -> Any:
            with lock:
                done[0] += 1
                if done[0] >= number:
                    raise error()
            return real[name](*args, **more)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in CALLS:
            patch.setattr(os, name, of(name))
        yield done


def many(site: Site, when: tuple[str, str, str]) -> None:
    """Records of every kind."""
    site.put("st/se/same.dcm", b"same")
    site.put("st/se/empty.dcm", b"")
    site.put("st/se/strange.dcm", b"stranger")
    site.put("st/se/newer.dcm", b"newer")
    first = [
        Put(5, "st/se/same.dcm", b"same"), Put(6, "st/se/empty.dcm", b"e" * 100),
        Put(7, "st/se/strange.dcm", b"s" * 100), Put(8, "st/se/newer.dcm", b"n" * 9),
        Put(9, "st/se/void.dcm", b"v"),
    ]  # fmt: skip
    second: list[Put | Void | bytes] = [
        Void(9, "st/se/void.dcm"),
        Put(10, "other/one/missing.dcm", b"m" * 5000),
    ]
    site.log(batch(1, first), when=when)
    site.log(batch(2, second), n=2, when=when)
    site.log(batch(1, [Put(12, "st/se/taken.dcm", b"t")]), life="6a-w1-1", when=when)
    site.segment("6a-w2-1-1.jsonl", line_of(11, "st/se/newer.dcm", b"newer", duplicate="replaced"))
    lines = [line_of(one.seq, one.path, one.data) for one in first[:4]]
    site.segment(LANE, lines[0], b"\0" * 40, lines[1], *lines[2:])
    site.segment("6a-w1-1r-1.jsonl", line_of(12, "st/se/taken.dcm", b"t"))


def state(site: Site) -> tuple[Any, ...]:
    return (site.files(), site.seqs(), sorted(site.aside().values()), site.logged())


@pytest.mark.parametrize(
    ("how", "when", "step"),
    [
        ("killed", ELSEWHEN, 9),
        ("refused", NOW, 11),
        *(
            pytest.param(how, when, 1, marks=pytest.mark.long)
            for how in ("killed", "refused")
            for when in (NOW, ELSEWHEN)
        ),
    ],
)
def test_cut_at_any_call_and_taken_again_it_comes_to_the_same(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: tuple[str, str, str],
    how: str, step: int,
) -> None:  # fmt: skip
    monkeypatch.setattr(recovery, "mounted", lambda _fd: Mounted(*NOW))
    # One thread, so that each call has its number.
    monkeypatch.setattr(files, "_THREADS", 1)
    error = CutError if how == "killed" else (lambda: OSError(errno.EIO, "Input/output error"))
    # What was refused may have been a flush.
    distrust = (LIFE, "6a-w1-1") if how == "refused" else ()
    wanted: tuple[Any, ...] | None = None
    for number in itertools.chain((1 << 30,), range(1, 400, step)):
        path = tmp_path / str(number)
        shutil.copytree(made, path)
        site = Site(path)
        try:
            many(site, when)
            is_cut = False
            try:
                with cut_at(number, error):
                    site.recover(distrust=distrust)
            except (CutError, OSError):
                is_cut = True
            if is_cut:
                # Each failure may be a flush of the folder, which is marked.
                for one in (path / ".fastscp").glob("unflushed/*"):
                    one.unlink()
                site.recover(distrust=distrust)
            wanted = wanted or state(site)
            assert state(site) == wanted, number
            assert site.recover() == Recovered()
            assert state(site) == wanted
        finally:
            os.close(site.fd)
        shutil.rmtree(path)
        if not is_cut and number < 1 << 30:
            assert number > 15
            return
    pytest.fail("it never came to its end")


# How long it takes --------------------------------------------------------------------------------


@pytest.mark.long
def test_sixteen_full_logs_are_recovered_in_time(site: Site) -> None:
    numbers = itertools.count(1)
    for worker, n in itertools.product(range(2), range(1, 9)):
        batches, size = [], BLOCK
        for number in range(1, 1024):
            puts = []
            for _ in range(8):
                seq = next(numbers)
                puts.append(Put(seq, f"st/{seq % 97}/{seq}.dcm", os.urandom(8) * 900))
            one = batch(8 * n * 1000 + number, puts)
            if size + len(one) > 8 << 20:
                break
            batches.append(one)
            size += len(one)
        life = f"6a-w{worker}-1"
        site.log(*batches, life=life, n=n, when=ELSEWHEN, size=8 << 20)
    began = time.monotonic()
    done = site.recover()
    took = time.monotonic() - began
    assert (done.logs, site.logged()) == (16, [])
    assert done.restored == done.lines == done.records > 15_000
    assert took < 10, took


def test_what_a_start_is_told(tmp_path: Path) -> None:
    """The number goes on above what was recovered, and the format is that without a log."""
    path = tmp_path / "store"
    with opened(path) as store:
        store.begin_log()
        store_id = store.id
    assert "format = 2" in (path / ".fastscp/store.toml").read_text()
    write_log(path, LIFE, [batch(1, [Put(70, P, b"x"), Void(75, Q)])], store_id=store_id)
    with opened(path) as store:
        assert (path / P).read_bytes() == b"x"
        assert store.sequence == 75
        assert any("recovered 1 instance from the redo log" in one for one in store.warnings)
    assert "format = 1" in (path / ".fastscp/store.toml").read_text()


def test_a_start_that_cannot_recover_says_why(tmp_path: Path) -> None:
    path = tmp_path / "store"
    with opened(path) as store:
        store_id = store.id
    log = write_log(path, LIFE, [batch(1, [Put(7, P, b"x")]), batch(2, [Put(8, Q, b"y")])],
                    store_id=store_id)  # fmt: skip
    flip(log, BLOCK + 100)
    with pytest.raises(StartError, match="the redo log is damaged"), opened(path):
        pass
    log.unlink()
    log.symlink_to("/etc/hostname")
    with pytest.raises(StartError, match=r"redo/6a-w0-1-1\.log.*move it away"), opened(path):
        pass
    log.unlink()
    with opened(path):
        pass


def test_the_format_says_so_as_long_as_there_may_be_a_log(tmp_path: Path) -> None:
    path = tmp_path / "store"
    with opened(path) as store:
        store.begin_log()
        store.begin_log()
        write_log(path, LIFE, [], store_id=store.id)
        store.stopped_cleanly()
        # A log is left: a program that knows none has to keep away.
        assert "format = 2" in (path / ".fastscp/store.toml").read_text()
        assert store.lost() is None
        (path / FOLDER / f"{LIFE}-1.log").unlink()
        store.stopped_cleanly()
        assert "format = 1" in (path / ".fastscp/store.toml").read_text()
    with opened(path) as store:
        store.begin_log()
        # The start failed later on.
        store.unmake()
        assert (path / FOLDER).is_dir()
        assert "format = 1" in (path / ".fastscp/store.toml").read_text()


def test_a_start_that_fails_late_leaves_no_folder_for_a_log(tmp_path: Path) -> None:
    with opened(tmp_path / "store") as store:
        store.begin_log()
        assert (tmp_path / "store" / FOLDER).is_dir()
        store.unmake()
    assert not (tmp_path / "store").exists()
