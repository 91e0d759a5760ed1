"""A store that lost its store.toml or its journal, and starts that leave nothing behind."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from fastscp.errors import StartError, StoreBusyError
from fastscp.store import survey
from fastscp.store.journal import Segments, append_fact, last_sequence
from fastscp.store.names import read_folder
from fastscp.store.store import Store
from fastscp.store.survey import first_instance, links
from fastscp.store.verify import verify
from tests.kit import data_set, path_of
from tests.stores import FILED, opened, said_at_start

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("no_descriptor_left")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store with an instance in it, and a journal that has got as far as 41."""
    path = tmp_path / "store"
    with opened(path) as store:
        segments = Segments(store.dir_fd, "0", "w0", durable=False)
        fd, _size = segments.next()
        append_fact(fd, {"v": 1, "event": "stored", "seq": 41})
        segments.close()
    instance = path / path_of()
    instance.parent.mkdir(parents=True)
    instance.write_bytes(data_set())
    return path


def _without(name: str) -> Callable[[Path], None]:
    def remove(path: Path) -> None:
        found = path / ".fastscp" / name
        shutil.rmtree(found) if found.is_dir() else found.unlink()

    return remove


def _without_segments(path: Path) -> None:
    for segment in (path / ".fastscp/journal").iterdir():
        segment.unlink()


LOST = pytest.mark.parametrize(
    ("lose", "named", "last"),
    [
        (_without("store.toml"), (".fastscp/store.toml",), 41),
        (_without("journal"), (".fastscp/journal",), 0),
        (_without_segments, ("file in .fastscp/journal",), 0),
        (_without(""), (".fastscp/store.toml", ".fastscp/journal"), 0),
    ],
)


def _tree(path: Path) -> list[str]:
    return sorted(str(found.relative_to(path)) for found in path.rglob("*"))


@LOST
def test_what_was_lost_stops_the_start(
    path: Path, lose: Callable[[Path], None], named: tuple[str, ...], last: int
) -> None:
    lose(path)
    before = _tree(path)
    with pytest.raises(StartError, match="holds instances") as caught:
        Store.open(path, FILED)
    assert caught.value.exit_code == 3
    assert all(name in str(caught.value) for name in named)
    assert "mount or restore what is missing; or start once with --store-new-life" in str(
        caught.value
    )
    assert _tree(path) == before


@LOST
def test_with_consent_it_begins_anew(
    path: Path, lose: Callable[[Path], None], named: tuple[str, ...], last: int
) -> None:
    lose(path)
    with opened(path, new_life=True) as store:
        (said,) = said_at_start(store)
        assert all(name in said for name in named)
        assert "begun anew" in said
        assert last_sequence(store.dir_fd) == last
    if named[0].endswith("store.toml"):
        assert store.created
    else:
        assert not store.created


@pytest.mark.parametrize("name", ["journal", "store.toml", ""])
def test_without_instances_nothing_was_lost(path: Path, name: str) -> None:
    shutil.rmtree(path / path_of().split("/", maxsplit=1)[0])
    _without(name)(path)
    with opened(path) as store:
        assert said_at_start(store) == ()


def test_a_whole_store_needs_no_consent(path: Path) -> None:
    with opened(path) as store:
        assert said_at_start(store) == ()
    with opened(path, new_life=True) as store:
        assert said_at_start(store) == ()


@pytest.mark.parametrize("name", ["a.dcm", "a.dcm.zst", "a.dcm~2", "a.dcm.zst~9"])
def test_what_is_taken_for_an_instance(tmp_path: Path, name: str) -> None:
    (tmp_path / "b/c").mkdir(parents=True)
    (tmp_path / "b/c/a.dcm.txt").touch()
    (tmp_path / ".fastscp").mkdir()
    (tmp_path / ".fastscp" / name).touch()
    (tmp_path / "link.dcm").symlink_to(name)
    (tmp_path / "d.dcm").mkdir()
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        assert first_instance(fd) is None
        (tmp_path / "b/c" / name).touch()
        assert first_instance(fd) == f"b/c/{name}"
    finally:
        os.close(fd)


def test_the_look_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = 0

    class Counted:
        def __init__(self, *arguments: object) -> None:
            self._folder = read_folder(*arguments)  # type: ignore[arg-type]

        def __enter__(self) -> object:
            return self._count(self._folder.__enter__())

        def __exit__(self, *error: object) -> None:
            self._folder.__exit__(*error)  # type: ignore[arg-type]

        @staticmethod
        def _count(entries: object) -> object:
            nonlocal seen
            for entry in entries:  # type: ignore[attr-defined]
                seen += 1
                yield entry

    monkeypatch.setattr(survey, "read_folder", Counted)
    monkeypatch.setattr(survey, "_LOOKS", 20)
    for folder in range(10):
        (tmp_path / str(folder)).mkdir()
        for file in range(10):
            (tmp_path / str(folder) / str(file)).touch()
    for link in range(30):
        (tmp_path / f"link{link}").symlink_to("0")
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        assert first_instance(fd) is None
        assert 0 < seen <= 20
        seen = 0
        assert len(links(fd)) <= 5
        assert 0 < seen <= 20
    finally:
        os.close(fd)


def test_verify_tells_what_was_lost_and_writes_it_anew(path: Path) -> None:
    _without("journal")(path)
    found = {finding.path: finding for finding in verify(path, patience_s=0).findings}
    assert "restore it; or have it written anew" in found[".fastscp/journal"].why
    assert path_of() in found
    report = verify(path, adopt=True, patience_s=0)
    assert {finding.path: finding.settled for finding in report.findings}[
        ".fastscp/journal"
    ] == "made anew"
    assert (path / ".fastscp/journal").is_dir()
    _without("store.toml")(path)
    found = {finding.path: finding for finding in verify(path, patience_s=0).findings}
    assert "--store-new-life" in found[".fastscp/store.toml"].why


# What a failed start leaves -----------------------------------------------------------------------


def _refused(*_: object, **__: object) -> None:
    raise OSError(22, "no such rename")


def test_a_start_that_fails_makes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", _refused)
    with pytest.raises(StartError, match="could overwrite another"):
        Store.open(tmp_path / "a/b/store", FILED, rename_noreplace=_refused)
    assert _tree(tmp_path) == []


def test_only_what_it_made_itself_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "store/.fastscp/journal").mkdir(parents=True)
    (tmp_path / "store/notes").touch()
    before = _tree(tmp_path)
    monkeypatch.setattr(os, "link", _refused)
    with pytest.raises(StartError):
        Store.open(tmp_path / "store", FILED, rename_noreplace=_refused)
    assert _tree(tmp_path) == before


@pytest.mark.parametrize("durability", ["stable", "buffered"])
def test_a_service_that_cannot_go_on_takes_its_store_away(tmp_path: Path, durability: str) -> None:
    with opened(tmp_path / "a/store", durability=durability) as store:
        store.unmake()
        assert _tree(tmp_path) == []
    with opened(tmp_path / "store", durability="stable") as store:
        pass
    before = _tree(tmp_path)
    with opened(tmp_path / "store", durability=durability) as store:
        store.unmake()
        assert _tree(tmp_path) == before
        # Somebody has stored something meanwhile.
    with opened(tmp_path / "other", durability=durability) as store:
        (tmp_path / "other/1.dcm").touch()
        store.unmake()
    assert (tmp_path / "other/1.dcm").exists()


# What is read is bounded --------------------------------------------------------------------------


def test_a_long_store_toml(path: Path) -> None:
    with (path / ".fastscp/store.toml").open("ab") as file:
        file.truncate(1 << 30)
    with pytest.raises(StartError, match=r"store\.toml is longer than 8388608 bytes"):
        Store.open(path, FILED)


@pytest.mark.parametrize("written", [b"9" * 32, b"0", b"-1", b"x" * 99, b""])
def test_a_lock_that_says_nothing(path: Path, written: bytes) -> None:
    with opened(path):
        (path / ".fastscp/lock").write_bytes(written)
        with pytest.raises(StoreBusyError) as caught:
            Store.open(path, FILED)
        assert caught.value.pid is None
