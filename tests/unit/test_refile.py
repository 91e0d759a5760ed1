"""What store.toml remembers of how instances are filed, and what may change of it, and when."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tomllib
from typing import TYPE_CHECKING, Any

import pytest

from fastscp.errors import ConfigError, FastscpError, StartError
from fastscp.store import identity as identity_module
from fastscp.store import marks, survey, unused
from fastscp.store import store as store_module
from fastscp.store.filing import Filing, Filings
from fastscp.store.identity import read_identity
from fastscp.store.names import read_folder
from fastscp.store.store import Store
from tests.redo_files import write_log
from tests.stores import FILED, LAYOUT, filed, opened, said_at_start

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("no_descriptor_left")

FLAT = Filing("_flat/{SOPInstanceUID}.dcm")
DEEP = Filing("_deep/{StudyInstanceUID}/{SOPInstanceUID}.dcm")
SAME = Filing(LAYOUT)
PACKED = Filing("+packed/{SOPInstanceUID}.dcm", ".dcm.zst")
BOTH = {"stable", "buffered"}


def toml(path: Path) -> dict[str, Any]:
    return tomllib.loads((path / ".fastscp/store.toml").read_text())


def state(store: Store) -> tuple[bool, bool]:
    return store.mixed, store.buffered


def made(path: Path, filings: Filings) -> None:
    with opened(path, filings):
        pass


def stored(path: Path, *instances: str) -> None:
    """Files of instances, and a journal, which no store that has any is without."""
    for one in instances:
        (path / one).parent.mkdir(parents=True, exist_ok=True)
        (path / one).touch()
    (path / ".fastscp/journal/1-t-1.jsonl").touch()


def test_a_store_without_tables_has_the_file_of_before(path: Path) -> None:
    made(path, FILED)
    text = (path / ".fastscp/store.toml").read_text()
    assert [line.partition(" ")[0] for line in text.splitlines()] == [
        "id", "format", "layout", "suffix", "suffixes"
    ]  # fmt: skip


def test_tables_are_remembered(path: Path) -> None:
    titles = {'A "B" \\C.[x]#': FLAT, "%C3%84 1": PACKED, "SAME": SAME}
    made(path, Filings(SAME, titles))
    told = toml(path)
    assert told["ae"] == {
        title: {"layout": filing.layout, "suffix": filing.suffix}
        for title, filing in titles.items()
    }
    assert told["suffixes"] == [".dcm", ".dcm.zst"]
    before = (path / ".fastscp/store.toml").stat()
    with opened(path, Filings(SAME, titles)) as store:
        assert store.mixed
        identity = read_identity(path, store.dir_fd)
        assert identity is not None
        assert identity.filings == Filings(SAME, titles)
    # Nothing changed, so nothing was written.
    assert (path / ".fastscp/store.toml").stat().st_ino == before.st_ino


def test_a_thousand_tables(path: Path) -> None:
    titles = {f"CT{n}": Filing(f"_{'x' * 200}{n}/{{SOPInstanceUID}}.dcm") for n in range(1000)}
    with opened(path, Filings(SAME, titles)) as store:
        assert store.lost() is None
    assert len(toml(path)["ae"]) == 1000


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ('[ae."A"]\nlayout = "l"\n[ae."A"]\nlayout = "l"\n', "cannot be read"),
        ('[ae."A"]\nsuffix = ".dcm"\n', "required field `layout`"),
        ('[ae."A"]\nlayout = 1\n', "Expected `str`"),
        ('[ae."A"]\nlayout = "l"\nmore = 1\n', "unknown field `more`"),
        ('[ae." A"]\nlayout = "l"\n', r"\[ae.' A'\] has spaces at an end"),
        ('[ae."%c3"]\nlayout = "l"\n', "is written '%C3'"),
        ('[ae."12345678901234567"]\nlayout = "l"\n', "has 17 characters"),
        ('[ae."%"]\nlayout = "l"\n', "a % that begins no %XX"),
    ],
)
def test_tables_are_read_strictly(path: Path, lines: str, why: str) -> None:
    made(path, FILED)
    with (path / ".fastscp/store.toml").open("a") as file:
        file.write(lines)
    with pytest.raises(StartError, match=why) as caught:
        Store.open(path, FILED)
    assert "restore it, or use another --store" in str(caught.value)


def test_a_table_is_added_and_taken_away(path: Path) -> None:
    made(path, FILED)
    made(path, filed(LAYOUT, CT1=SAME, MR1=FLAT))
    assert set(toml(path)["ae"]) == {"CT1", "MR1"}
    # What files as the top level does goes without a word; a new one comes so.
    made(path, filed(LAYOUT, MR1=FLAT, US1=DEEP))
    assert set(toml(path)["ae"]) == {"MR1", "US1"}


@pytest.mark.parametrize(
    ("now", "option", "said"),
    [
        (filed(LAYOUT, A=DEEP), r"\[ae\.A\] layout", f"not as {DEEP}: .*; put layout = '_flat/"),
        (
            filed(LAYOUT, A=Filing(FLAT.layout, ".dcm.zst")), r"\[ae\.A\] compress",
            r'put compress = "none" back into that table',
        ),
        (
            FILED, r"\[ae\.A\] layout",
            r"without a table they would be .*; put \[ae\.A\] with layout = '_flat/.* back",
        ),
        (filed(FLAT.layout, A=SAME), "--layout", "restore the layout"),
    ],
)  # fmt: skip
def test_what_would_file_elsewhere_needs_consent(
    path: Path, now: Filings, option: str, said: str
) -> None:
    made(path, filed(LAYOUT, A=FLAT))
    stored(path, "_flat/1.dcm", "1/2/3.dcm")
    before = (path / ".fastscp/store.toml").read_bytes()
    with pytest.raises(ConfigError, match=rf"^{option}: .*{said}.*or add --layout-change$"):
        Store.open(path, now)
    assert (path / ".fastscp/store.toml").read_bytes() == before
    with opened(path, now, layout_change=True) as store:
        assert store.filings == now
    made(path, now)
    assert set(toml(path).get("ae", {})) == set(now.ae)


def test_what_goes_by_the_top_level_is_told_with_it(path: Path) -> None:
    """Once, and not at a table that sets nothing."""
    made(path, filed(LAYOUT, A=SAME, B=FLAT))
    stored(path, "_flat/1.dcm", "1/2/3.dcm")
    packed = Filing(LAYOUT, ".dcm.zst")
    with pytest.raises(ConfigError) as caught:
        Store.open(path, Filings(packed, {"A": packed, "B": FLAT}))
    assert [one.partition(":")[0] for one in caught.value.mistakes] == ["--compress"]


def test_a_table_that_says_nothing_keeps_its_place_when_the_top_level_moves(path: Path) -> None:
    """The title was filed so before, and nobody consented for it."""
    made(path, filed(LAYOUT, A=SAME))
    stored(path, "1/2/3.dcm")
    with pytest.raises(ConfigError, match=r"^--layout: "):
        Store.open(path, filed(FLAT.layout, A=SAME))
    with opened(path, filed(FLAT.layout, A=SAME), layout_change=True):
        pass
    with pytest.raises(ConfigError, match=r"^\[ae\.A\] layout: .*without a table"):
        Store.open(path, filed(FLAT.layout))


# A layout by which nothing was filed -----------------------------------------------------------


@pytest.mark.parametrize("now", [FILED, filed(LAYOUT, A=DEEP), filed(LAYOUT, A=PACKED)])
@pytest.mark.parametrize("is_running", [False, True])
def test_what_filed_nothing_is_taken_back_without_consent(
    path: Path, now: Filings, is_running: bool
) -> None:
    """The folder that it begins with is not there, or is empty."""
    for there in ((), ("_flat/x/1.txt",)):
        made(path, FILED)
        stored(path, "1/2/3.dcm", *there)
        with opened(path, FILED if is_running else filed(LAYOUT, A=FLAT)) as store:
            if is_running:
                store.refile(filed(LAYOUT, A=FLAT), {"stable"})
                store.refile(now, {"stable"})
        with opened(path, now) as store:
            assert store.filings == now
        assert set(toml(path).get("ae", {})) == set(now.ae)
        with opened(path, FILED, layout_change=True):
            pass


def test_a_store_without_an_instance_lets_any_table_go(path: Path) -> None:
    made(path, filed("{SOPInstanceUID}.dcm", A=SAME))
    made(path, filed("{SOPInstanceUID}.dcm"))
    made(path, filed("{SOPInstanceUID}.dcm", A=SAME))
    stored(path, "1.dcm")
    with pytest.raises(ConfigError, match=r"^\[ae\.A\] layout: .*may hold already"):
        Store.open(path, filed("{SOPInstanceUID}.dcm"))


@pytest.mark.parametrize(
    ("layout", "folder"),
    [
        ("+x.dcm/{SOPInstanceUID}.dcm", "+x%2Edcm"),
        ("+a/b/{Modality}/c/{SOPInstanceUID}.dcm", "+a/b"),
    ],
)
def test_the_folder_is_looked_for_as_the_codec_names_it(
    path: Path, layout: str, folder: str
) -> None:
    made(path, filed(LAYOUT, A=Filing(layout)))
    stored(path, "1/2/3.dcm", f"{folder}/CT/1.dcm.zst~2")
    with pytest.raises(ConfigError, match=r"^\[ae\.A\] layout: "):
        Store.open(path, FILED)


@pytest.mark.parametrize("how", ["link", "file", "many", "renewal", "replacement", "log", "closed"])
def test_where_that_is_not_sure_consent_is_needed(
    path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    made(path, filed(LAYOUT, A=FLAT))
    stored(path, "1/2/3.dcm")
    if how == "link":
        (path / "_flat").symlink_to("1")
    elif how == "file":
        (path / "_flat").touch()
    elif how == "many":
        monkeypatch.setattr(survey, "_LOOKS", 5)
        stored(path, *(f"_flat/{n}.txt" for n in range(10)))
    elif how == "renewal":
        (path / ".fastscp/anew").mkdir()
    elif how == "replacement":
        monkeypatch.setattr(unused, "is_anything_left", lambda _fd: True)
    elif how == "log":
        write_log(path, "6a-w0-1", [], store_id="any")
    else:
        real = read_folder

        def closed(dir_fd: int, name: str = ".") -> Any:
            if name == "_flat":
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            return real(dir_fd, name)

        monkeypatch.setattr(survey, "read_folder", closed)
    with pytest.raises(ConfigError, match=r"^\[ae\.A\] layout: "):
        Store.open(path, FILED)


# What is told ------------------------------------------------------------------------------------


def test_all_that_needs_consent_is_told_at_once(path: Path) -> None:
    titles = {f"T{n}": Filing(f"+{n}/{{SOPInstanceUID}}.dcm") for n in range(8)}
    made(path, Filings(SAME, titles))
    stored(path, *(f"+{n}/1.dcm" for n in range(8)))
    with pytest.raises(ConfigError) as caught:
        Store.open(path, FILED)
    assert [one.partition(":")[0] for one in caught.value.mistakes] == [
        f"[ae.T{n}] layout" for n in range(8)
    ]
    assert str(caught.value).startswith(f"{caught.value.mistakes[0]}; and [ae.T1] layout: ")
    assert str(caught.value).endswith("; and 3 more")
    with opened(path, Filings(SAME, titles)) as store, pytest.raises(ConfigError) as caught:
        store.refile(Filings(SAME, {**titles, "T1": DEEP, "T5": DEEP}), {"stable"})
    assert len(caught.value.mistakes) == 2


def test_the_place_is_told_where_it_is_known(path: Path) -> None:
    made(path, filed(LAYOUT, A=FLAT, B=FLAT, C=FLAT))
    stored(path, "_flat/1.dcm")
    places = {("ae.A", ""): "f.toml:1", ("ae.A", "layout"): "f.toml:2", ("ae.B", ""): "f.toml:3"}
    with pytest.raises(ConfigError) as caught:
        Store.open(path, Filings(SAME, {"A": DEEP, "B": SAME}, places))
    assert [one.partition(" layout: ")[0] for one in caught.value.mistakes] == [
        "f.toml:2: [ae.A]", "f.toml:3: [ae.B]", "[ae.C]"
    ]  # fmt: skip


def test_a_start_with_consent_says_what_it_changed(path: Path) -> None:
    made(path, filed(LAYOUT, A=FLAT, B=DEEP))
    stored(path, "_flat/1.dcm")
    now = filed("{SOPInstanceUID}.dcm", B=FLAT)
    with opened(path, now, layout_change=True) as store:
        told = [one for one in store.warnings if "from now on" in one]
    was = "filed otherwise from now on: "
    no_more = "files, for it has no table any more, as"
    assert told == [
        f"{was}the top level files as {now.top}, and no longer as {SAME}",
        f"{was}[ae.A] {no_more} {now.top}, and no longer as {FLAT}",
        f"{was}[ae.B] files as {FLAT}, and no longer as {DEEP}",
    ]
    with opened(path, now) as store:
        assert not said_at_start(store)


def test_a_table_that_comes_later_says_that_instances_may_come_twice(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    said = r"new tables file otherwise than the top level did: [ae.A]: instances for these titles"
    # Nothing is there that could come twice.
    with opened(path, filed(LAYOUT, Z=FLAT)) as store:
        assert not said_at_start(store)
        store.refile(filed(LAYOUT, Z=FLAT, Y=DEEP), {"stable"})
        stored(path, "1/2/3.dcm")
        assert not caplog.messages
        store.refile(filed(LAYOUT, Z=FLAT, Y=DEEP, A=PACKED, B=SAME), {"stable"})
        assert [said in one for one in caplog.messages] == [True]
        store.refile(filed(LAYOUT, Z=FLAT, Y=DEEP, A=PACKED, B=SAME), {"stable"})
        assert len(caplog.messages) == 1
    with opened(path, filed(LAYOUT, Z=FLAT, Y=DEEP, A=PACKED, B=SAME, C=FLAT)) as store:
        assert [one for one in store.warnings if "[ae.C]: instances for these" in one]
    with opened(path, filed(LAYOUT, Z=FLAT, Y=DEEP, A=PACKED, B=SAME, C=FLAT)) as store:
        assert not said_at_start(store)


def test_a_layout_is_never_forgotten(path: Path) -> None:
    made(path, filed(LAYOUT, A=FLAT))
    stored(path, "_flat/1.dcm")
    assert "earlier_layouts" not in toml(path)
    for now, earlier in (
        (FILED, [FLAT.layout]),
        (filed(DEEP.layout), [LAYOUT, FLAT.layout]),
        (filed(LAYOUT, A=FLAT), [DEEP.layout]),
    ):
        with opened(path, now, layout_change=True) as store:
            identity = read_identity(path, store.dir_fd)
        assert toml(path)["earlier_layouts"] == earlier
        assert identity is not None
        assert identity.layouts == (*now.layouts, *earlier)


def test_a_suffix_is_never_forgotten(path: Path) -> None:
    made(path, filed(LAYOUT, A=PACKED))
    with opened(path, FILED, layout_change=True) as store:
        assert store.mixed
    assert toml(path)["suffixes"] == [".dcm", ".dcm.zst"]


def test_what_would_not_be_read_again_is_not_written(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = Filings(SAME, {"A": FLAT} | {f"T{n}": FLAT for n in range(99)})
    monkeypatch.setattr(identity_module, "_MOST", 4000)
    with pytest.raises(ConfigError, match=r"^\[ae\]: .* of 100 tables, and 4000 are the most"):
        made(path, many)
    assert not path.exists()
    with opened(path, filed(LAYOUT, A=FLAT)) as store:
        before = (path / ".fastscp/store.toml").read_bytes()
        with pytest.raises(ConfigError, match="100 tables, and 4000 are the most that is read"):
            store.refile(many, BOTH)
        assert (path / ".fastscp/store.toml").read_bytes() == before
        assert names(path) == set()
        assert store.lost() is None
    made(path, filed(LAYOUT, A=FLAT))


def test_ten_thousand_tables_are_read_again(path: Path) -> None:
    many = Filings(SAME, {f"T{n}": Filing("+" + "x" * 200 + LAYOUT) for n in range(10_000)})
    made(path, many)
    with opened(path, many) as store:
        assert store.lost() is None


def test_a_look_at_the_store_does_not_read_what_has_not_changed(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[Path] = []

    def counted(*of: Any) -> Any:
        reads.append(of[0])
        return read_identity(*of)

    with opened(path) as store:
        monkeypatch.setattr(store_module, "read_identity", counted)
        for _ in range(3):
            assert store.lost() is None
        assert len(reads) == 1
        store.refile(filed(LAYOUT, A=FLAT), {"stable"})
        del reads[:]
        for _ in range(3):
            assert store.lost() is None
        assert len(reads) == 1
        toml_of = path / ".fastscp/store.toml"
        toml_of.write_text(toml_of.read_text().replace(store.id, "0" * len(store.id)))
        for _ in range(2):
            assert str(store.lost()).startswith(f"{path} has lost its .fastscp/store.toml: ")


# While a service runs ----------------------------------------------------------------------------


def test_a_table_is_added_to_a_running_service(path: Path) -> None:
    with opened(path) as store:
        assert store.refile(filed(LAYOUT, A=FLAT), {"stable"}) is False
        assert state(store) == (False, False)
        assert store.refile(filed(LAYOUT, A=FLAT, B=PACKED), {"stable"}) is True
        assert state(store) == (True, False)
        assert store.filings.of("B") == PACKED
        assert set(toml(path)["ae"]) == {"A", "B"}
        assert store.lost() is None
    made(path, filed(LAYOUT, A=FLAT, B=PACKED))


@pytest.mark.parametrize(
    ("now", "option"),
    [
        (filed(LAYOUT, A=DEEP), r"\[ae\.A\] layout"),
        (filed(LAYOUT, B=DEEP), r"\[ae\.A\] layout"),
        (filed(LAYOUT, ".dcm.zst", A=FLAT), "--compress"),
    ],
)
def test_what_is_known_does_not_change_there(path: Path, now: Filings, option: str) -> None:
    with opened(path, filed(LAYOUT, A=FLAT)) as store:
        stored(path, "_flat/1.dcm")
        before = (path / ".fastscp/store.toml").read_bytes()
        way = "stop the service and start it once with --layout-change"
        with pytest.raises(ConfigError, match=rf"^{option}: .*{way}"):
            store.refile(now, BOTH)
        assert store.filings == filed(LAYOUT, A=FLAT)
        assert not store.mixed
        assert (path / ".fastscp/store.toml").read_bytes() == before
        assert not (path / ".fastscp/buffered").exists()


def test_a_store_that_lost_its_identity_is_not_given_another_one(path: Path) -> None:
    with opened(path) as store:
        (path / ".fastscp/store.toml").unlink()
        with pytest.raises(FastscpError, match=r"has lost its \.fastscp/store\.toml"):
            store.refile(filed(LAYOUT, A=FLAT), {"stable"})
        assert not (path / ".fastscp/store.toml").exists()


def test_nothing_is_filed_otherwise_where_that_cannot_be_noted(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with opened(path) as store:
        with monkeypatch.context() as patch:
            patch.setattr(store_module, "write_identity", full)
            with pytest.raises(FastscpError, match=r"disk full.*as before.*reload again"):
                store.refile(filed(LAYOUT, A=PACKED), {"stable"})
        assert store.filings == FILED
        assert not store.mixed
        assert store.refile(filed(LAYOUT, A=PACKED), {"stable"})


@pytest.mark.parametrize("before", ["stable", "buffered"])
def test_what_cannot_be_noted_leaves_nothing_behind(
    path: Path, monkeypatch: pytest.MonkeyPatch, before: str
) -> None:
    """Nor a mark, for which the next start after a kill would suspect the store."""
    real = os.fsync

    def full(fd: int) -> None:
        if os.readlink(f"/proc/self/fd/{fd}").endswith("store.toml.new"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(fd)

    with opened(path, durability=before) as store:
        there = sorted(os.listdir(path / ".fastscp"))
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            with pytest.raises(FastscpError, match="disk full"):
                store.refile(filed(LAYOUT, A=FLAT), BOTH)
        assert sorted(os.listdir(path / ".fastscp")) == there
        assert store.buffered == (before == "buffered")
        assert not store.refile(filed(LAYOUT, A=FLAT), BOTH)
        assert store.buffered


def test_stable_is_refused_where_it_cannot_be(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.fsync

    def no_directories(fd: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{fd}"):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        real(fd)

    monkeypatch.setattr(os, "fsync", no_directories)
    with opened(path, durability="buffered") as store:
        store.refile(filed(LAYOUT, A=FLAT), {"buffered"})
        with pytest.raises(ConfigError, match="cannot flush a directory"):
            store.refile(FILED, BOTH)
        assert store.filings == filed(LAYOUT, A=FLAT)


# The mark of a buffered life ---------------------------------------------------------------------


def names(path: Path) -> set[str]:
    return {one.name for one in (path / ".fastscp").iterdir()} & {"buffered", "suspect"}


def test_a_life_that_becomes_buffered_is_marked_until_its_end(path: Path) -> None:
    with opened(path) as store:
        assert state(store) == (False, False)
        for _ in range(2):
            store.refile(filed(LAYOUT, A=FLAT), BOTH)
            assert state(store) == (False, True)
            assert names(path) == {"buffered"}
        # What was stored so may not be on the disk yet: the mark stays.
        store.refile(filed(LAYOUT, A=FLAT), {"stable"})
        assert state(store) == (False, True)
        assert names(path) == {"buffered"}
        store.stopped_cleanly()
        store.stopped_cleanly()
    assert names(path) == set()


def test_a_killed_life_that_became_buffered_is_suspect(path: Path) -> None:
    with opened(path) as store:
        store.refile(FILED, BOTH)
    for _ in range(2):
        with opened(path) as store:
            assert store.suspect
            assert not store.buffered
            assert names(path) == {"suspect"}
    with opened(path) as store:
        store.refile(FILED, BOTH)
        assert names(path) == {"suspect", "buffered"}
        store.stopped_cleanly()
        assert names(path) == {"suspect"}


REFILES = """
import sys
from pathlib import Path
from fastscp.store.filing import Filing, Filings
from fastscp.store.store import Store
top = Filing("{SOPInstanceUID}.dcm")
store = Store.open(Path(sys.argv[1]), Filings(top))
tables = {}
for n in range(100_000):
    tables[f"T{n}"] = Filing(f"+{n}/{{SOPInstanceUID}}.dcm", (".dcm", ".dcm.zst")[n % 2])
    store.refile(Filings(top, dict(tables)), {"stable", "buffered"})
    print(n, flush=True)
"""


def test_what_was_noted_before_a_service_was_killed_holds(path: Path) -> None:
    for told in (1, 4):
        with subprocess.Popen(
            [sys.executable, "-c", REFILES, str(path)], stdout=subprocess.PIPE, text=True
        ) as service:
            assert service.stdout is not None
            noted = [int(service.stdout.readline()) for _ in range(told)]
            service.kill()
            noted += [int(line) for line in service.stdout if line.endswith("\n")]
        tables = {title: Filing(**filing) for title, filing in toml(path)["ae"].items()}
        assert {f"T{n}" for n in noted} <= tables.keys()
        # One more may have been noted, before it was said.
        assert len(tables) - len(noted) in (0, 1)
        top = Filing("{SOPInstanceUID}.dcm")
        with opened(path, Filings(top, tables)) as store:
            assert store.suspect
            assert store.mixed is (len(tables) > 1)
        with opened(path, Filings(top), layout_change=True):
            pass


class Killed(BaseException):
    pass


@pytest.mark.parametrize("at", range(8))
def test_a_kill_at_any_call_leaves_no_buffered_life_without_its_mark(
    path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """Nothing is stored before `refile` returns, and after that the mark is there and flushed."""
    calls = 0

    def counted(name: str) -> Any:
        real = getattr(os, name)

        def call(*arguments: Any, **named: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls > at:
                raise Killed
            return real(*arguments, **named)

        return call

    with opened(path) as store:
        returned = False
        with monkeypatch.context() as patch:
            for name in ("fsync", "rename", "unlink"):
                patch.setattr(os, name, counted(name))
            try:
                store.refile(filed(LAYOUT, A=FLAT), BOTH)
                returned = True
            except Killed:
                pass
        has_mark = "buffered" in names(path)
    assert has_mark or not returned
    # It starts again with either configuration, for store.toml knows the table or does not.
    knows = "ae" in toml(path)
    assert knows or not returned
    with opened(path, filed(LAYOUT, A=FLAT)) as store:
        assert store.suspect == has_mark


def test_a_mark_that_could_not_be_flushed_is_made_anew(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second flush of the same name would succeed, and mean nothing."""

    def fails(_fd: int) -> bool:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with opened(path) as store:
        with monkeypatch.context() as patch:
            patch.setattr(marks, "flush_folder", fails)
            with pytest.raises(FastscpError, match="Input/output error"):
                store.refile(FILED, BOTH)
        assert names(path) == set()
        assert not store.buffered
        store.refile(FILED, BOTH)
        assert names(path) == {"buffered"}
        store.stopped_cleanly()


def test_what_has_the_name_of_the_mark_stops_it(path: Path) -> None:
    with opened(path) as store:
        (path / ".fastscp/buffered").symlink_to("store.toml")
        with pytest.raises(FastscpError, match="symbolic link"):
            store.refile(FILED, BOTH)
        assert not store.buffered
