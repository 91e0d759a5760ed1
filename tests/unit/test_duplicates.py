"""An instance whose path is taken: every policy, on both ways of giving a name."""

from __future__ import annotations

import errno
import os
import shutil
import threading
from typing import TYPE_CHECKING, Any

import pytest
import zstandard

from fastscp.store import contents, duplicates, replaced, waits
from fastscp.store import index as index_module
from fastscp.store.compress import twin
from fastscp.store.contents import Contents
from fastscp.store.duplicates import Batches, Outcome, Resolution
from fastscp.store.index import IndexBuilder, IndexedJournal
from fastscp.store.journal import append_fact
from fastscp.store.names import JOURNAL, PATH_LOCKS
from fastscp.store.reading import open_data_set
from fastscp.store.restore import Settlement
from fastscp_ext import LineIndex, Shared, build_meta, crc32c, status
from tests.block import begin_batch
from tests.kit import CT, ELE, ILE, data_set
from tests.stores import replacing, resolved

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PATH = "1/2/3.dcm"

pytestmark = pytest.mark.usefixtures("no_descriptor_left")


def instance(
    seed: int = 0, *, syntax: str = ELE, sender: bytes = b"SENDER", size: int = 512
) -> bytes:
    header = build_meta(CT.encode(), b"1.2.3", syntax.encode(), b"1.9", b"V", sender, b"US")
    return header + data_set(seed=seed, pixels=size)


class Site:
    """A store with parts in it."""

    def __init__(self, folder: Path, *, use_link: bool, durable: bool = False) -> None:
        self.store = folder
        self.incoming = folder / ".fastscp" / "incoming"
        self.incoming.mkdir(parents=True)
        (folder / PATH).parent.mkdir(parents=True)
        self.use_link = use_link
        self.durable = durable
        self.digest = ""
        self.journal: IndexedJournal | None = None
        self.contents = Contents()
        self.store_fd = os.open(folder, os.O_RDONLY)
        self.incoming_fd = os.open(self.incoming, os.O_RDONLY)
        self.replaced = replacing(self.store_fd, after=100)

    def close(self) -> None:
        self.replaced.lines.close()
        os.close(self.store_fd)
        os.close(self.incoming_fd)

    def resolution(
        self, content: bytes, policy: str, name: str = "a.part", suspect: Batches | None = None
    ) -> Resolution:
        (self.incoming / name).write_bytes(content)
        return Resolution(
            self.store_fd, self.incoming_fd, name, PATH,
            policy=policy, durable=self.durable, use_link=self.use_link, replaced=self.replaced,
            suspect=suspect, journal=self.journal, digest=self.digest, contents=self.contents,
        )  # fmt: skip

    def resolve(
        self, content: bytes, policy: str, name: str = "a.part", suspect: Batches | None = None
    ) -> Outcome:
        outcome = resolved(self.resolution(content, policy, name, suspect))
        assert (outcome.lock_fd >= 0) == (outcome.kind != "refused")
        return outcome

    def done(self, content: bytes, policy: str, name: str = "a.part") -> Outcome:
        """Resolve, and give the lock back as the commit does."""
        outcome = self.resolve(content, policy, name)
        if outcome.kind == "replaced":
            assert Settlement(self.replaced, outcome.path, refused=False).attempt() is not None
        if outcome.lock_fd >= 0:
            os.close(outcome.lock_fd)
        return outcome

    def files(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (self.store / PATH).parent.iterdir()}

    def parts(self) -> list[str]:
        return sorted(path.name for path in self.incoming.iterdir())


@pytest.fixture(params=[False, True], ids=["rename", "link"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path, use_link=request.param)
    yield made
    made.close()


POLICIES = ("version", "replace", "keep", "refuse")


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("durable", [False, True])
def test_identical(site: Site, policy: str, durable: bool) -> None:
    site.durable = durable
    (site.store / PATH).write_bytes(instance())
    # Another sender's header in front of the same data set makes no difference.
    outcome = site.done(instance(sender=b"OTHER"), policy)
    assert (outcome.kind, outcome.path) == ("identical", PATH)
    assert site.files() == {"3.dcm": instance()}
    # The part is the commit's to drop.
    assert site.parts() == ["a.part"]


@pytest.mark.parametrize("policy", POLICIES)
def test_different(site: Site, policy: str) -> None:
    (site.store / PATH).write_bytes(instance())
    outcome = site.done(instance(1), policy)
    old, new = instance(), instance(1)
    expected: dict[str, tuple[str, str, dict[str, bytes]]] = {
        "version": ("version", f"{PATH}~2", {"3.dcm": old, "3.dcm~2": new}),
        "replace": ("replaced", PATH, {"3.dcm": new}),
        "keep": ("kept", PATH, {"3.dcm": old}),
        "refuse": ("refused", PATH, {"3.dcm": old}),
    }
    assert (outcome.kind, outcome.path, site.files()) == expected[policy]
    if policy == "refuse":
        assert outcome.status == status.CANNOT_UNDERSTAND
        assert outcome.comment
        assert outcome.error_no == 0
    gone = policy in ("version", "replace")
    assert site.parts() == ([] if gone else ["a.part"])


@pytest.mark.parametrize(
    "other",
    [
        instance(syntax=ILE),
        instance(size=514),
        instance()[:-1] + b"\x99",
        b"no file of ours" * 20,
        b"",
        instance()[:150],
    ],
    ids=["syntax", "size", "last byte", "foreign", "empty", "cut"],
)
def test_what_counts_as_different(site: Site, other: bytes) -> None:
    (site.store / PATH).write_bytes(other)
    assert site.done(instance(), "version").kind == "version"
    assert site.files() == {"3.dcm": other, "3.dcm~2": instance()}


def test_versions_run_out(site: Site) -> None:
    (site.store / PATH).write_bytes(instance(0))
    for version in range(2, 10):
        outcome = site.done(instance(version), "version")
        assert (outcome.kind, outcome.path) == ("version", f"{PATH}~{version}")
    # One that is there already is found again, whichever it is.
    for version in (2, 9):
        outcome = site.done(instance(version), "version")
        assert (outcome.kind, outcome.path) == ("identical", f"{PATH}~{version}")
    outcome = site.done(instance(10), "version")
    assert (outcome.kind, outcome.status) == ("refused", status.CANNOT_UNDERSTAND)
    assert len(site.files()) == 9


@pytest.mark.parametrize("policy", POLICIES)
def test_the_name_became_free(site: Site, policy: str) -> None:
    outcome = site.done(instance(), policy)
    assert (outcome.kind, outcome.path) == ("named", PATH)
    assert site.files() == {"3.dcm": instance()}
    assert site.parts() == []


def test_a_link_is_not_followed(site: Site) -> None:
    target = site.store / "target"
    target.write_bytes(instance())
    (site.store / PATH).symlink_to(target)
    outcome = site.done(instance(), "version")
    assert (outcome.kind, outcome.status) == ("refused", status.OUT_OF_RESOURCES)
    assert outcome.error_no != 0
    assert target.read_bytes() == instance()


def test_a_directory_has_the_name(site: Site) -> None:
    (site.store / PATH).mkdir()
    outcome = site.done(instance(), "replace")
    assert (outcome.kind, outcome.status) == ("refused", status.OUT_OF_RESOURCES)


def test_failures_are_outcomes(site: Site, tmp_path: Path) -> None:
    (site.store / "file").touch()
    for name, path in (("missing.part", PATH), ("a.part", "file/in/the/way.dcm")):
        (site.incoming / "a.part").write_bytes(instance())
        resolution = Resolution(
            site.store_fd, site.incoming_fd, name, path,
            policy="version", durable=True, use_link=site.use_link, replaced=site.replaced,
        )  # fmt: skip
        outcome = resolved(resolution)
        assert outcome.kind == "refused"
        assert outcome.status == status.OUT_OF_RESOURCES
        assert outcome.error_no != 0
        assert outcome.lock_fd == -1


# Folders that vanish ------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", POLICIES)
def test_a_folder_that_vanished_is_made_again(site: Site, policy: str) -> None:
    (site.store / PATH).write_bytes(instance(1))
    resolution = site.resolution(instance(), policy)
    shutil.rmtree(site.store / PATH.split("/", maxsplit=1)[0])
    outcome = resolved(resolution)
    os.close(outcome.lock_fd)
    assert (outcome.kind, outcome.path) == ("named", PATH)
    assert site.files() == {"3.dcm": instance()}
    assert site.parts() == []


@pytest.mark.parametrize(
    ("at", "policy", "there"),
    [
        *(("_compare", policy, 0) for policy in POLICIES),
        *(("_flush", policy, 1) for policy in POLICIES),
        ("_flush", "keep", 0),
        ("keep", "replace", 0),
        ("holder", "replace", 0),
        ("_give", "version", 0),
    ],
)
def test_a_folder_that_vanishes_meanwhile_is_made_again(
    site: Site, monkeypatch: pytest.MonkeyPatch, at: str, policy: str, there: int
) -> None:
    """Whatever was decided of the file in it: the instance gets the path that is free now.

    there: what the file holds; 1: the same as the part.
    """
    site.durable = True
    (site.store / PATH).write_bytes(instance(there))
    resolution = site.resolution(instance(1), policy)
    owner = {"keep": site.replaced, "_give": resolution}.get(at, duplicates)
    call = getattr(owner, at)

    def remove_first(*given: Any, **named: Any) -> Any:
        monkeypatch.setattr(owner, at, call)
        shutil.rmtree(site.store / PATH.split("/", maxsplit=1)[0])
        return call(*given, **named)

    monkeypatch.setattr(owner, at, remove_first)
    outcome = resolved(resolution)
    assert getattr(owner, at) is not remove_first
    assert (outcome.kind, outcome.path) == ("named", PATH)
    os.close(outcome.lock_fd)
    assert site.files() == {"3.dcm": instance(1)}
    assert site.parts() == []
    assert replaced.left(site.store_fd) == replaced.Left([], [], [], [])


def test_a_folder_that_vanishes_with_the_other_form(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    (site.store / twin(PATH)).write_bytes(zstandard.compress(instance()))
    resolution = site.resolution(instance(1), "replace")
    resolution._mixed = True
    keep = site.replaced.keep

    def remove_then(*given: Any, **named: Any) -> None:
        keep(*given, **named)
        monkeypatch.setattr(site.replaced, "keep", keep)
        shutil.rmtree(site.store / PATH.split("/", maxsplit=1)[0])

    monkeypatch.setattr(site.replaced, "keep", remove_then)
    outcome = resolved(resolution)
    assert (outcome.kind, outcome.path) == ("named", PATH)
    os.close(outcome.lock_fd)
    assert site.files() == {"3.dcm": instance(1)}
    assert replaced.left(site.store_fd) == replaced.Left([], [], [], [])


def test_what_is_removed_as_soon_as_it_has_its_name_is_no_failure(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody can tell that from a removal a moment later."""
    (site.store / PATH).write_bytes(instance())
    resolution = site.resolution(instance(1), "version")
    give = resolution._give

    def remove_then(*given: Any, **named: Any) -> None:
        give(*given, **named)
        shutil.rmtree(site.store / PATH.split("/", maxsplit=1)[0])

    monkeypatch.setattr(resolution, "_give", remove_then)
    outcome = resolved(resolution)
    assert (outcome.kind, outcome.path) == ("version", f"{PATH}~2")
    os.close(outcome.lock_fd)


def test_the_lock_is_held_until_it_is_closed(site: Site) -> None:
    (site.store / PATH).write_bytes(instance())
    first = site.resolve(instance(1), "version")
    (site.store / PATH_LOCKS).stat()
    waiting = threading.Thread(target=site.done, args=(instance(2), "version", "b.part"))
    waiting.start()
    waiting.join(0.2)
    assert waiting.is_alive()
    assert set(site.files()) == {"3.dcm", "3.dcm~2"}
    os.close(first.lock_fd)
    waiting.join(60)
    assert set(site.files()) == {"3.dcm", "3.dcm~2", "3.dcm~3"}


def at_once(site: Site, contents: list[bytes], policy: str) -> list[Outcome]:
    """Resolve all of them from a thread each."""
    outcomes: list[Any] = [None] * len(contents)
    start = threading.Barrier(len(contents))

    def one(n: int) -> None:
        start.wait(60)
        outcomes[n] = site.done(contents[n], policy, f"{n}.part")

    threads = [threading.Thread(target=one, args=(n,)) for n in range(len(contents))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert None not in outcomes
    return outcomes


@pytest.mark.parametrize("policy", POLICIES)
def test_eight_of_the_same_at_once(site: Site, policy: str) -> None:
    outcomes = at_once(site, [instance()] * 8, policy)
    kinds = sorted(outcome.kind for outcome in outcomes)
    assert kinds == ["identical"] * 7 + ["named"]
    assert site.files() == {"3.dcm": instance()}


@pytest.mark.parametrize("policy", POLICIES)
def test_eight_different_at_once(site: Site, policy: str) -> None:
    contents = [instance(seed) for seed in range(8)]
    outcomes = at_once(site, contents, policy)
    kinds = sorted(outcome.kind for outcome in outcomes)
    files = site.files()
    others = {"version": "version", "replace": "replaced", "keep": "kept", "refuse": "refused"}
    assert kinds == sorted(["named"] + [others[policy]] * 7)
    if policy == "version":
        assert sorted(files.values()) == sorted(contents)
        assert len({outcome.path for outcome in outcomes}) == 8
        for content, outcome in zip(contents, outcomes, strict=True):
            assert (site.store / outcome.path).read_bytes() == content
    else:
        assert len(files) == 1
        assert next(iter(files.values())) in contents
    kept = {"keep": 7, "refuse": 7}.get(policy, 0)
    assert len(site.parts()) == kept


# After an unclean buffered life ----------------------------------------------------------------


def journal(site: Site, content: bytes, durability: str = "buffered", **more: object) -> None:
    """Write the line of an instance at PATH."""
    folder = site.store / ".fastscp" / "journal"
    folder.mkdir(exist_ok=True)
    data = content[content.index(b"DICM") + 4 :]
    header = 12 + int.from_bytes(data[8:12], "little")
    data = data[header:]
    fact = {"v": 1, "event": "stored", "seq": 7, "path": PATH, "bytes": len(data)}
    if durability == "buffered":
        fact["durability"] = durability
    with (folder / "1-w0-1.jsonl").open("ab") as file:
        append_fact(file.fileno(), fact | {"digest": f"crc32c:{crc32c(data):08x}"} | more)


class Written:
    """Batches of which one is under way, until it was asked for so often; then its line is there.

    Stands for the commit of another worker, which has named its file and not journaled it yet.
    """

    def __init__(self, site: Site, content: bytes | None, asked: int = 3) -> None:
        self._site = site
        self._content = content
        self._left = asked
        (site.store / ".fastscp" / "journal").mkdir(exist_ok=True)

    def batches(self) -> list[tuple[int, int, int]]:
        return [(0, 1, 1), (3, 0, 9)]

    def under_way(self, batch: tuple[int, int, int]) -> bool:
        assert batch in self.batches()
        if batch == (3, 0, 9):
            return False
        self._left -= 1
        if self._left == 0 and self._content is not None:
            journal(self._site, self._content)
        return self._left > 0


@pytest.mark.parametrize("policy", ["version", "keep", "refuse"])
def test_a_line_on_its_way_vouches_for_its_file(site: Site, policy: str) -> None:
    old, new = instance(), instance(1)
    (site.store / PATH).write_bytes(old)
    outcome = site.resolve(new, policy, suspect=Written(site, old))
    if outcome.lock_fd >= 0:
        os.close(outcome.lock_fd)
    kind = {"version": "version", "keep": "kept", "refuse": "refused"}[policy]
    assert outcome.kind == kind
    assert site.files()["3.dcm"] == old


@pytest.mark.parametrize("policy", ["version", "keep", "refuse"])
def test_without_a_line_a_file_is_replaced(site: Site, policy: str) -> None:
    (site.store / PATH).write_bytes(instance())
    outcome = site.resolve(instance(1), policy, suspect=Written(site, None))
    os.close(outcome.lock_fd)
    assert outcome.kind == "replaced"
    assert site.files() == {"3.dcm": instance(1)}


def test_without_a_line_a_file_is_not_replaced_by_what_a_later_version_holds(site: Site) -> None:
    void, stored = instance(), instance(1)
    (site.store / PATH).write_bytes(void)
    (site.store / f"{PATH}~2").write_bytes(stored)
    for content, name in ((stored, f"{PATH}~2"), (void, PATH)):
        outcome = site.resolve(content, "version", suspect=Written(site, None))
        os.close(outcome.lock_fd)
        assert (outcome.kind, outcome.path) == ("identical", name)
    assert site.files() == {"3.dcm": void, "3.dcm~2": stored}


@pytest.mark.parametrize("versions", [1, 3, 9])
def test_without_a_line_the_first_version_is_replaced(site: Site, versions: int) -> None:
    names = [PATH, *(f"{PATH}~{version}" for version in range(2, versions + 1))]
    for seed, name in enumerate(names):
        (site.store / name).write_bytes(instance(seed))
    outcome = site.resolve(instance(10), "version", suspect=Written(site, None))
    os.close(outcome.lock_fd)
    assert (outcome.kind, outcome.path) == ("replaced", PATH)
    assert list(site.files().values()).count(instance(10)) == 1
    assert (site.store / PATH).read_bytes() == instance(10)
    assert len(site.files()) == versions


@pytest.mark.parametrize("policy", ["version", "keep", "refuse"])
@pytest.mark.parametrize("digest", ["", "blake9:00"])
def test_a_buffered_line_without_a_digest_vouches_for_nothing(
    site: Site, policy: str, digest: str
) -> None:
    """A power cut leaves zeros where contents were not written yet, and the right length."""
    lost = instance()[:-8] + bytes(8)
    (site.store / PATH).write_bytes(lost)
    journal(site, lost, digest=digest)
    outcome = site.resolve(instance(), policy, suspect=Shared().liveness)
    os.close(outcome.lock_fd)
    assert outcome.kind == "replaced"
    assert site.files() == {"3.dcm": instance()}


@pytest.mark.parametrize("policy", ["version", "keep", "refuse"])
def test_a_line_that_was_written_from_the_file_vouches_for_nothing(site: Site, policy: str) -> None:
    """After an unclean life `verify --adopt` takes what is there; what was sent nobody knows."""
    damaged = instance(2)
    (site.store / PATH).write_bytes(damaged)
    journal(site, damaged, "stable", event="adopted", suspect=True)
    outcome = site.resolve(instance(1), policy, suspect=Shared().liveness)
    os.close(outcome.lock_fd)
    assert outcome.kind == "replaced"
    assert site.files() == {"3.dcm": instance(1)}


@pytest.mark.parametrize("policy", ["version", "keep", "refuse"])
@pytest.mark.parametrize("durability", ["stable", "buffered"])
def test_only_what_was_buffered_is_compared_with_its_line(
    site: Site, policy: str, durability: str
) -> None:
    """A file that was flushed before its line is not suspect, and costs no look into it."""
    other = instance(2)
    (site.store / PATH).write_bytes(other)
    journal(site, instance(), durability)
    outcome = site.resolve(instance(1), policy, suspect=Shared().liveness)
    if outcome.lock_fd >= 0:
        os.close(outcome.lock_fd)
    if durability == "buffered":
        assert outcome.kind == "replaced"
        assert site.files() == {"3.dcm": instance(1)}
    else:
        kind = {"version": "version", "keep": "kept", "refuse": "refused"}[policy]
        assert outcome.kind == kind
        assert site.files()["3.dcm"] == other


def indexed(site: Site) -> tuple[IndexedJournal, IndexBuilder, LineIndex]:
    """The journal of a site by an index that is not built yet."""
    (site.store / JOURNAL).mkdir(exist_ok=True)
    index = LineIndex()
    return IndexedJournal(index), IndexBuilder(site.store_fd, index, "run"), index


@pytest.mark.parametrize("vouches", [False, True])
@pytest.mark.parametrize("is_built", [False, True])
def test_a_suspect_file_waits_for_the_index_and_no_other_does(
    site: Site, monkeypatch: pytest.MonkeyPatch, vouches: bool, is_built: bool
) -> None:
    """What it says then is what the journal says; if it cannot be built, the journal is read."""
    old, new = instance(), instance(1)
    looking, builder, index = indexed(site)
    site.journal = looking
    if vouches:
        journal(site, old)
    liveness = Shared().liveness
    # A free name, and what is there already, need no line.
    free = site.resolve(new, "keep", suspect=liveness)
    os.close(free.lock_fd)
    assert free.kind == "named"
    (site.store / PATH).write_bytes(old)
    same = site.resolve(old, "keep", suspect=liveness)
    os.close(same.lock_fd)
    assert same.kind == "identical"
    other = site.resolution(new, "keep", suspect=liveness)
    opened: list[str] = []

    def noted(path: str, dir_fd: int) -> Any:
        opened.append(path)
        return open_data_set(path, dir_fd)

    assert other.attempt() is None
    with monkeypatch.context() as patch:
        # Nor does it read its files again and again meanwhile.
        patch.setattr(duplicates, "open_data_set", noted)
        assert other.attempt() is None
    assert opened == []
    # And keeps nobody from its path.
    same = site.resolve(old, "keep", "b.part", suspect=liveness)
    os.close(same.lock_fd)
    assert same.kind == "identical"
    if is_built:
        assert builder.extend()
    index.set_state(LineIndex.READY if is_built else LineIndex.FAILED)
    outcome = resolved(other)
    os.close(outcome.lock_fd)
    builder.close()
    site.journal = None
    assert outcome.kind == ("kept" if vouches else "replaced")
    assert site.files() == {"3.dcm": old if vouches else new}


def test_an_index_that_takes_too_long_costs_only_those_that_need_it(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    (site.store / PATH).write_bytes(instance())
    looking, builder, _index = indexed(site)
    site.journal = looking
    monkeypatch.setattr(index_module, "WAIT_S", 0.01)
    outcome = site.resolve(instance(1), "version", suspect=Shared().liveness)
    assert (outcome.kind, outcome.error_no) == ("refused", errno.EINPROGRESS)
    assert outcome.status == status.OUT_OF_RESOURCES
    assert site.files() == {"3.dcm": instance()}
    # Its path is free for others.
    outcome = site.resolve(instance(), "version", "b.part", suspect=Shared().liveness)
    os.close(outcome.lock_fd)
    assert outcome.kind == "identical"
    builder.close()
    site.journal = None


def flushes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The inodes of what is flushed from here on."""
    flushed: list[int] = []
    fsync = os.fsync

    def noted(fd: int) -> None:
        flushed.append(os.fstat(fd).st_ino)
        fsync(fd)

    monkeypatch.setattr(os, "fsync", noted)
    return flushed


@pytest.mark.parametrize("durable", [False, True])
@pytest.mark.parametrize("new", [0, 1])
def test_a_stable_instance_flushes_the_file_that_stands_for_it(
    site: Site, monkeypatch: pytest.MonkeyPatch, durable: bool, new: int
) -> None:
    """Identical, or kept instead of it: the file there may be a buffered one."""
    site.durable = durable
    there = site.store / PATH
    there.write_bytes(instance())
    flushed = flushes(monkeypatch)
    assert site.done(instance(new), "keep").kind == ("kept" if new else "identical")
    assert flushed == ([there.stat().st_ino] if durable else [])


def test_a_buffered_instance_is_flushed_before_it_takes_the_place_of_another(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That one may be on stable storage; a power cut must leave one of both."""
    (site.store / PATH).write_bytes(instance())
    flushed = flushes(monkeypatch)
    rename = os.rename
    before: list[int] = []

    def noted(*what: Any, **where: Any) -> None:
        before.extend(flushed)
        rename(*what, **where)

    monkeypatch.setattr(os, "rename", noted)
    assert site.done(instance(1), "replace").kind == "replaced"
    assert before[0] == (site.store / PATH).stat().st_ino


def test_a_batch_that_does_not_end_costs_only_the_newcomer(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waits, "_LINE_S", 0.01)
    (site.store / PATH).write_bytes(instance())
    outcome = site.resolve(instance(1), "version", suspect=Written(site, None, asked=1 << 30))
    assert (outcome.kind, outcome.error_no) == ("refused", errno.ETIMEDOUT)
    assert outcome.status == status.OUT_OF_RESOURCES
    assert site.files() == {"3.dcm": instance()}


@pytest.mark.parametrize("durability", [0, 1])
def test_batches_of_workers(durability: int) -> None:
    shared = Shared()
    liveness = shared.liveness
    assert liveness.batches() == []
    begin_batch(shared, 3, durability)
    assert (batches := liveness.batches()) == [(3, durability, 1)]
    assert liveness.under_way(batches[0])
    assert not liveness.under_way((3, 1 - durability, 1))
    # A worker that is gone, and another one in its place.
    liveness.end_batches(3)
    assert not liveness.under_way(batches[0])
    liveness.clear(3)
    assert not liveness.under_way(batches[0])
    begin_batch(shared, 3, durability)
    liveness.end_batches(3)
    begin_batch(shared, 3, durability)
    assert not liveness.under_way(batches[0])
    assert liveness.under_way((3, durability, 2))
    begin_batch(shared, 3, 1 - durability)
    assert liveness.batches() == sorted([(3, durability, 2), (3, 1 - durability, 1)])
    for outside in (-1, 2):
        with pytest.raises(IndexError):
            liveness.under_way((3, outside, 1))
    for outside in (-1, 256):
        with pytest.raises(IndexError):
            liveness.under_way((outside, 0, 1))
        with pytest.raises(IndexError):
            liveness.end_batches(outside)
        with pytest.raises(IndexError):
            liveness.clear(outside)


# What is remembered ----------------------------------------------------------------------------


@pytest.fixture
def compared(site: Site, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One more for each time that two data sets are read and compared."""
    found: list[int] = []
    compare = duplicates._compare

    def counting(ours: Iterator[bytes], theirs: Iterator[bytes]) -> tuple[bool, int | None]:
        found.append(1)
        return compare(ours, theirs)

    monkeypatch.setattr(duplicates, "_compare", counting)
    # Small files differ soon; these stand for large ones.
    monkeypatch.setattr(duplicates, "_SOON", 0)
    return found


def digest_of(content: bytes) -> str:
    return f"crc32c:{crc32c(content[144 + int.from_bytes(content[140:144], 'little') :]):08x}"


def late(seed: int) -> bytes:
    """Instances that differ in the last byte only."""
    return instance()[:-1] + bytes([seed])


@pytest.mark.parametrize("told", [True, False], ids=["digest", "no digest"])
def test_versions_are_told_apart_without_reading_them_again(
    site: Site, compared: list[int], told: bool
) -> None:
    def arrives(content: bytes) -> Outcome:
        site.digest = digest_of(content) if told else ""
        return site.done(content, "version")

    (site.store / PATH).write_bytes(late(1))
    for version in range(2, 10):
        assert arrives(late(version)).path == f"{PATH}~{version}"
    # The first one was another's: it was read once. What was stored here is known, whatever comes,
    # except for the first of these where its digest was not told.
    read = 1 if told else 2
    assert len(compared) == read
    for seed in range(20, 30):
        assert arrives(late(seed)).kind == "refused"
    assert len(compared) == read
    # Identical still means equal bytes.
    assert arrives(late(9)).path == f"{PATH}~9"
    assert len(compared) == read + 1


def test_another_length_is_told_without_reading(site: Site, compared: list[int]) -> None:
    (site.store / PATH).write_bytes(instance(size=600))
    assert site.done(instance(), "version").kind == "version"
    assert site.done(instance(syntax=ILE), "version").kind == "version"
    assert compared == []


def test_a_file_that_was_changed_is_read_again(site: Site, compared: list[int]) -> None:
    (site.store / PATH).write_bytes(late(1))
    assert site.done(late(2), "keep").kind == "kept"
    assert site.done(late(2), "keep").kind == "kept"
    assert len(compared) == 1
    (site.store / PATH).unlink()
    (site.store / PATH).write_bytes(late(2))
    assert site.done(late(2), "keep").kind == "identical"


def test_files_that_differ_soon_are_not_read_to_their_ends(
    site: Site, compared: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(duplicates, "_SOON", 1000)
    monkeypatch.setattr(duplicates, "_checksum", lambda *_: pytest.fail("read on"))
    (site.store / PATH).write_bytes(late(1))
    for _ in range(2):
        assert site.done(late(2), "keep").kind == "kept"
    assert len(compared) == 2


def test_what_is_remembered_is_bounded(
    site: Site, compared: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contents, "_REMEMBERED", 3)
    (site.store / PATH).write_bytes(late(1))
    for version in range(2, 10):
        site.done(late(version), "version")
    assert len(site.contents._known) == 3


# Nobody waits ----------------------------------------------------------------------------------


def test_a_lock_that_is_taken_is_tried_again(site: Site) -> None:
    (site.store / PATH).write_bytes(instance())
    first = site.resolve(instance(1), "version")
    second = site.resolution(instance(2), "version", "b.part")
    assert second.attempt() is None
    assert second.attempt() is None
    os.close(first.lock_fd)
    outcome = second.attempt()
    assert outcome is not None
    assert outcome.path == f"{PATH}~3"
    os.close(outcome.lock_fd)


def test_a_line_on_its_way_is_asked_for_again_with_the_lock_held(site: Site) -> None:
    old = instance()
    (site.store / PATH).write_bytes(old)
    doubting = site.resolution(instance(1), "version", suspect=Written(site, old))
    assert doubting.attempt() is None
    other = site.resolution(instance(2), "version", "b.part")
    assert other.attempt() is None
    assert doubting.attempt() is None
    outcome = doubting.attempt()
    assert outcome is not None
    assert outcome.kind == "version"
    os.close(outcome.lock_fd)
