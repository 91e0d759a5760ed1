"""The store's directory: who holds it, what it was made with, and whether it is still there."""

from __future__ import annotations

import codecs
import contextlib
import errno
import os
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fastscp.errors import ConfigError, FastscpError, StartError, StoreBusyError, reason_for
from fastscp.main.explained import explained
from fastscp.store import access
from fastscp.store.filing import Filing
from fastscp.store.journal import last_sequence
from fastscp.store.store import Store
from fastscp.store.unflushed import Marks
from fastscp.store.verify import verify
from tests.stores import FILED, LAYOUT, filed, mode, opened

if TYPE_CHECKING:
    from collections.abc import Iterator

OTHER_LAYOUT = "{SOPInstanceUID}.dcm"

pytestmark = pytest.mark.usefixtures("no_descriptor_left")


def test_a_new_store(path: Path, store: Store) -> None:
    assert store.created
    home = path / ".fastscp"
    assert sorted(entry.name for entry in home.iterdir()) == [
        "incoming",
        "journal",
        "lock",
        "locks",
        "replaced",
        "store.toml",
    ]
    own = [home / name for name in ("incoming", "journal", "replaced")]
    for folder in (path.parent, path, home, *own):
        assert mode(folder) == 0o750
    for file in (home / "lock", home / "store.toml"):
        assert mode(file) == 0o640
    content = tomllib.loads((home / "store.toml").read_text())
    assert content == {
        "id": store.id,
        "format": 1,
        "layout": LAYOUT,
        "suffix": ".dcm",
        "suffixes": [".dcm"],
    }
    assert (home / "lock").read_text() == f"{os.getpid()}\n"
    assert os.fstat(store.dir_fd).st_ino == path.stat().st_ino
    assert not os.get_inheritable(store.lock_fd)
    assert not os.get_inheritable(store.dir_fd)
    assert store.lost() is None


def test_opening_again_keeps_the_id(path: Path) -> None:
    with opened(path) as first:
        pass
    with opened(path, must_exist=True) as second:
        assert second.id == first.id
        assert not second.created


def test_an_odd_layout_survives_its_file(path: Path) -> None:
    layout = 'a "b" c\\d/é/{SOPInstanceUID}.dcm'
    for _ in range(2):
        with opened(path, filed(layout)) as store:
            assert store.filings.top.layout == layout


def test_the_store_is_busy(path: Path, store: Store) -> None:
    with pytest.raises(StoreBusyError, match=f"in use by process {os.getpid()}; stop") as caught:
        Store.open(path, FILED)
    assert caught.value.exit_code == 3
    assert caught.value.pid == os.getpid()


def test_a_lock_of_a_service_whose_main_process_is_gone(path: Path, store: Store) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    (path / ".fastscp" / "lock").write_text(f"{child.pid}\n")
    with pytest.raises(StoreBusyError) as caught:
        Store.open(path, FILED)
    assert caught.value.is_gone
    said = str(caught.value)
    assert f"its main process ({child.pid}) is gone, its workers still hold the store" in said
    assert "look for `fastscp: worker` processes and check the disk" in said
    assert "stop that service" not in said


def test_a_lock_without_a_process_id(path: Path, store: Store) -> None:
    (path / ".fastscp" / "lock").write_bytes(b"\xff")
    with pytest.raises(StoreBusyError, match="in use by another process"):
        Store.open(path, FILED)


def test_a_successor_inherits_the_lock(path: Path) -> None:
    with opened(path) as store:
        successor = subprocess.Popen(
            [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[store.lock_fd]
        )
    try:
        with pytest.raises(StoreBusyError):
            Store.open(path, FILED)
    finally:
        successor.communicate(b"\n")
    with opened(path):
        pass


def test_must_exist(path: Path) -> None:
    with pytest.raises(StartError, match="is not a store") as caught:
        Store.open(path, FILED, must_exist=True)
    assert caught.value.exit_code == 3
    assert not path.parent.exists()
    path.mkdir(parents=True)
    with pytest.raises(StartError, match="mount the file system"):
        Store.open(path, FILED, must_exist=True)
    assert list(path.iterdir()) == []


@pytest.mark.parametrize("change", [(OTHER_LAYOUT, ".dcm"), (LAYOUT, ".dcm.zst")])
def test_changed_layout(path: Path, change: tuple[str, str]) -> None:
    layout, suffix = change
    with opened(path) as store:
        identity = store.id
    option = "--layout" if suffix == ".dcm" else "--compress"
    with pytest.raises(ConfigError, match=rf"{option}: .* add --layout-change") as caught:
        Store.open(path, filed(layout, suffix))
    assert caught.value.exit_code == 2
    with opened(path, filed(layout, suffix), layout_change=True) as store:
        assert store.id == identity
    with opened(path, filed(layout, suffix)) as store:
        assert store.filings == filed(layout, suffix)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"id = ", "cannot be read"),
        (b"\xff", "cannot be read"),
        (b'id = "x"\n', "cannot be read"),
        (b'id = "x"\nformat = 3\nlayout = "l"\nsuffix = ".dcm"\n', "has format 3"),
    ],
)
def test_unusable_identity(path: Path, content: bytes, why: str) -> None:
    with opened(path):
        pass
    (path / ".fastscp" / "store.toml").write_bytes(content)
    with pytest.raises(StartError, match=why):
        Store.open(path, FILED)


def test_no_store_in_a_stores_own_folder(path: Path, tmp_path: Path) -> None:
    """The sweep of the one around it would remove its instances."""
    with opened(path):
        pass
    (tmp_path / "link").symlink_to(path / ".fastscp/incoming")
    before = sorted((path / ".fastscp").rglob("*"))
    for inside in (
        path / ".fastscp",
        path / ".fastscp/incoming/x",
        tmp_path / "link/x/y",
        tmp_path / ".fastscp",
    ):
        with pytest.raises(ConfigError, match=r"--store: .* lies in a service's own folder"):
            Store.open(inside, FILED)
    assert sorted((path / ".fastscp").rglob("*")) == before


def test_a_path_through_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StartError, match=r"Not a directory; a part of the path is a file"):
        Store.open(tmp_path / "file" / "store", FILED)


def test_no_permission(path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("takes root to become somebody else")
    path.mkdir(parents=True)
    os.seteuid(65534)
    try:
        with pytest.raises(
            StartError, match=r"Permission denied; this runs as uid 65534"
        ) as caught:
            Store.open(path, FILED)
    finally:
        os.seteuid(0)
    assert "let it write there" in str(caught.value)
    with tempfile.TemporaryDirectory() as folder:
        # Anybody may look there, as in /var/lib.
        os.chmod(folder, 0o755)
        missing = Path(folder) / "store"
        os.seteuid(65534)
        try:
            with pytest.raises(StartError, match="Permission denied") as caught:
                Store.open(missing, FILED)
        finally:
            os.seteuid(0)
    assert f"and cannot make {missing} there: make it, and give it" in str(caught.value)


USER = 20001


@pytest.fixture
def theirs(path: Path) -> Path:
    """A store that belongs to a user, who can reach it; this runs as root."""
    if os.geteuid() != 0:
        pytest.skip("takes root to become somebody else")
    path.mkdir(parents=True)
    # All that this run made, down to the folder of pytest's for the user.
    for folder in (*path.parents, path):
        if folder.stat().st_mode & 0o777 == 0o700:
            folder.chmod(0o711)
    os.chown(path, USER, USER)
    # The user may not reach what has to be imported.
    codecs.lookup("ascii")
    with opened(path.with_name("warm")):
        pass
    verify(path.with_name("warm"))
    with as_user(), opened(path):
        pass
    return path


@contextlib.contextmanager
def as_user() -> Iterator[None]:
    os.setegid(USER)
    os.seteuid(USER)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


def of_others(path: Path) -> list[Path]:
    """What lies in a store, in its own folder or not, and is not the user's."""
    found = [(one, one.lstat()) for one in path.rglob("*")]
    return [one for one, about in found if (about.st_uid, about.st_gid) != (USER, USER)]


def test_what_root_verifies_the_service_can_use(theirs: Path) -> None:
    from tests.unit.test_duplicates import instance

    file = theirs / "1.2.3.1/1.2.3.1.1/1.2.3.dcm"
    with as_user():
        file.parent.mkdir(parents=True)
        file.write_bytes(instance())
    for name in ("journal", "lock"):
        one = theirs / ".fastscp" / name
        one.rmdir() if one.is_dir() else one.unlink()
    report = verify(theirs, adopt=True)
    assert ("unjournaled", "adopted") in [(one.kind, one.settled) for one in report.findings]
    (segment,) = (theirs / ".fastscp/journal").iterdir()
    assert of_others(theirs) == []
    # Nor where damaged lines are taken out, or a folder is made anew.
    with segment.open("ab") as lines:
        lines.write(b"{}\n")
    with as_user(), opened(theirs) as store:
        Marks(store.dir_fd).leave("folder", "1.2.3.1", errno.EIO)
    with opened_folder(theirs) as dir_fd:
        Marks(dir_fd).leave("folder", "1.2.3.1/1.2.3.1.1", errno.EIO)
    assert of_others(theirs) == []
    assert verify(theirs, repair_journal=True).settled == 3
    assert len(list((theirs / ".fastscp/journal").iterdir())) == 2
    assert of_others(theirs) == []
    with as_user(), opened(theirs):
        pass


@contextlib.contextmanager
def opened_folder(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY)
    try:
        yield fd
    finally:
        os.close(fd)


def test_root_does_not_serve_the_store_of_another_user(theirs: Path) -> None:
    (theirs / ".fastscp/lock").unlink()
    before = sorted(theirs.rglob("*"))
    with pytest.raises(StartError, match=f"store of uid {USER}, and this runs as root") as caught:
        Store.open(theirs, FILED)
    assert f"start it as uid {USER}" in str(caught.value)
    assert sorted(theirs.rglob("*")) == before
    # One that was given to root is root's.
    for one in (theirs, *before):
        os.chown(one, 0, 0)
    with opened(theirs):
        pass


def test_root_makes_a_store_in_the_directory_of_another_user(path: Path) -> None:
    """As in a container, into which that directory is mounted."""
    if os.geteuid() != 0:
        pytest.skip("takes root to have such a directory")
    path.mkdir(parents=True)
    os.chown(path, USER, USER)
    for _ in range(2):
        with opened(path):
            pass
    assert {one.lstat().st_uid for one in path.rglob("*")} == {0}


def test_what_root_left_is_said_to_the_service_and_to_verify(theirs: Path) -> None:
    segment = theirs / ".fastscp/journal/1-w0-1.jsonl"
    segment.touch(0o600)
    for call in (lambda: last_sequenceexplained(theirs), lambda: verify(theirs)):
        with as_user(), pytest.raises(FastscpError, match="Permission denied") as caught:
            call()
        assert f"({segment} belongs to uid 0, mode 0600)" in str(caught.value)
        assert f"chown -R {USER}:{USER} {theirs}" in str(caught.value)
        assert "elsewhere" not in str(caught.value)


def last_sequenceexplained(path: Path) -> None:
    """What a start does once it has the store."""
    with opened_folder(path) as dir_fd, explained(path, ".fastscp/journal"):
        last_sequence(dir_fd)


def test_no_permission_names_what_was_refused(path: Path) -> None:
    """Not the store, which may be anybody's: the file that cannot be opened, and whose it is."""
    if os.geteuid() != 0:
        pytest.skip("takes root to become somebody else")
    with opened(path):
        pass
    # All that this run made, down to the folder of pytest's for the user.
    made = [folder for folder in path.parents if folder.stat().st_mode & 0o777 == 0o700]
    for folder in (*made, path.parent, path, path / ".fastscp"):
        folder.chmod(0o777)
    lock = path / ".fastscp/lock"
    lock.chmod(0o600)
    os.seteuid(65534)
    try:
        with pytest.raises(StartError) as caught:
            Store.open(path, FILED)
    finally:
        os.seteuid(0)
    assert f"{lock}: Permission denied; this runs as uid 65534" in str(caught.value)
    assert f"({lock} belongs to uid 0, mode 0600); let it write there" in str(caught.value)


@pytest.mark.parametrize("name", ["incoming", "journal"])
def test_a_file_in_the_place_of_a_folder_is_named(path: Path, name: str) -> None:
    with opened(path):
        pass
    own = path / ".fastscp" / name
    own.rmdir()
    own.touch()
    with pytest.raises(StartError) as caught:
        Store.open(path, FILED)
    assert f"{own} has the name of a folder and is none: move it away" in str(caught.value)


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.EROFS, "mount it writable"),
        (errno.ENOSPC, "free some space"),
        (errno.EIO, "name another directory"),
    ],
)
def test_advice(path: Path, number: int, advice: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(access, "open_store", fail)
    with pytest.raises(StartError, match=f"cannot use .*{reason_for(number)}; .*{advice}"):
        Store.open(path, FILED)


# While it runs -----------------------------------------------------------------------------------


def test_what_is_said_of_a_store_tells_where_it_is(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.parent.mkdir()
    monkeypatch.chdir(path.parent)
    with opened(Path(path.name)) as store:
        assert store.path == path
        path.rename(path.with_name("moved"))
        assert str(store.lost()).startswith(f"{path} cannot be reached ")
        path.with_name("moved").rename(path)


def test_lost_when_replaced(path: Path, store: Store) -> None:
    path.rename(path.with_name("moved"))
    lost = store.lost()
    assert lost is not None
    assert "No such file" in lost
    path.mkdir()
    assert str(store.lost()).startswith(f"{path} is another directory now: mount it again, or put")


@pytest.mark.parametrize("again", [False, True])
def test_lost_when_others_find_another_lock(path: Path, store: Store, again: bool) -> None:
    """Whoever removes the lock lets a second service in, and neither would know."""
    (path / ".fastscp/lock").rename(path / ".fastscp/aside")
    if again:
        with opened(path):
            assert "another service may use this store" in str(store.lost())
    lost = str(store.lost())
    assert "has lost the .fastscp/lock that this service holds" in lost
    # One thing to do for each of what may have happened.
    assert "if somebody only moved it, put it back; else see that no other service" in lost
    assert "and restart this one" in lost
    (path / ".fastscp/aside").rename(path / ".fastscp/lock")
    assert store.lost() is None


def test_lost_when_the_identity_changes(path: Path, store: Store) -> None:
    identity = path / ".fastscp" / "store.toml"
    identity.write_text(identity.read_text().replace(store.id, "another"))
    lost = str(store.lost())
    assert lost.startswith(f"{path} has lost its .fastscp/store.toml: put that back; ")
    identity.write_text("nonsense")
    assert "cannot be read" in str(store.lost())
    identity.unlink()
    assert store.lost() == lost


# Taken over ---------------------------------------------------------------------------------------


def test_a_store_is_taken_over_as_it_is(path: Path) -> None:
    """Nothing of the past is settled: it is no past, but goes on beside."""
    with opened(path, durability="buffered") as old:
        lock = (path / ".fastscp/lock").read_text()
        (path / ".fastscp/incoming/of-a-life").mkdir()
        new = Store.inherit(path, os.dup(old.lock_fd), {}, durabilities={"buffered"})
        assert (new.id, new.suspect, new.buffered, new.lost()) == (old.id, False, True, None)
        assert (path / ".fastscp/buffered").exists()
        assert not (path / ".fastscp/suspect").exists()
        assert (path / ".fastscp/incoming/of-a-life").exists()
        assert (path / ".fastscp/lock").read_text() == lock
        new.take_lock_over()
        assert (path / ".fastscp/lock").read_text() == f"{os.getpid()}\n"
    # It is held until both have given it back.
    with pytest.raises(StoreBusyError), opened(path):
        pass
    new.close()
    with opened(path):
        pass


def test_who_fails_to_take_a_store_over_says_nothing_of_the_log_of_others(path: Path) -> None:
    """The service that goes on keeps one, or makes one at any time."""
    identity = path / ".fastscp/store.toml"
    with opened(path) as old:
        old.begin_log()
        new = Store.inherit(path, os.dup(old.lock_fd), {})
        new.begin_log()
        new.unmake()
        new.close()
        assert "format = 2" in identity.read_text()
        # Who has taken it over is the last one.
        new = Store.inherit(path, os.dup(old.lock_fd), {})
        new.stopped_cleanly()
        new.close()
        assert "format = 1" in identity.read_text()


def test_another_store_is_not_taken_over(path: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    with (
        opened(path) as old,
        opened(other),
        pytest.raises(StartError, match="not the store of the service that is to be taken over"),
    ):
        Store.inherit(other, os.dup(old.lock_fd), {})
    with (
        opened(path) as old,
        pytest.raises(StartError, match="No such file or directory"),
    ):
        Store.inherit(tmp_path / "none", os.dup(old.lock_fd), {})


def test_what_is_filed_otherwise_is_known_before_it_is_noted(path: Path) -> None:
    """And by what the other one filed in its life, though the store has forgotten it."""
    with opened(path) as old:
        identity = (path / ".fastscp/store.toml").read_bytes()
        earlier = {Filing("+a/{Modality}/{SOPInstanceUID}.dcm"): "ae.X"}
        new = Store.inherit(path, os.dup(old.lock_fd), earlier)
        with pytest.raises(ConfigError, match="was made with"):
            new.check_refile(filed(OTHER_LAYOUT), {"stable"})
        at_odds = filed(LAYOUT, Y=Filing("+a/{StudyDate}/{SOPInstanceUID}.dcm"))
        with pytest.raises(ConfigError, match="until now"):
            new.check_refile(at_odds, {"stable"})
        fine = filed(LAYOUT, Y=Filing("+y/{SOPInstanceUID}.dcm", ".dcm.zst"))
        new.check_refile(fine, {"stable"})
        assert (path / ".fastscp/store.toml").read_bytes() == identity
        assert new.refile(fine, {"stable"})
        assert b"+y/" in (path / ".fastscp/store.toml").read_bytes()
        new.close()
