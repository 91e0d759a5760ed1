"""A path that may be taken in both forms, compressed or not: nobody loses what was acknowledged.

A model of all that may be there, and of what comes then.
"""

from __future__ import annotations

import itertools
import os
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import pytest
import zstandard

from fastscp.store import duplicates
from fastscp.store.compress import SUFFIX, open_part10, twin
from fastscp.store.duplicates import Outcome, Resolution
from fastscp.store.journal import append_fact
from fastscp.store.restore import Settlement
from fastscp_ext import Shared, build_meta, crc32c
from tests.kit import CT, ELE, data_set
from tests.stores import filed, opened, replacing, resolved

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fastscp.store.store import Store

POLICIES: Final = ("version", "keep", "refuse", "replace")
# What comes, and comes again; each is told apart by its length already.
NEW: Final = tuple(data_set(seed=seed, pixels=40 + 2 * seed) for seed in range(3))
# What a form holds before: nothing; another instance or the first that comes, with a line that
# vouches for it or without; the first that comes, whose flush failed.
STATES: Final = ("free", "vouched", "suspect", "same", "suspect same", "unsure same")
# Which versions are there already, each another instance with its line.
VERSIONS: Final = ((), (2,), tuple(range(2, 10)))


class Case(NamedTuple):
    own: str
    other: str
    versions: tuple[int, ...]
    durable: bool
    packed: bool


CASES: Final = tuple(
    itertools.starmap(
        Case, itertools.product(STATES, STATES, VERSIONS, (True, False), (True, False))
    )
)


class Failed:
    """Files whose flush failed."""

    def __init__(self) -> None:
        self.paths: set[str] = set()

    def doubt(self, path: str) -> bool:
        self.paths.add(path)
        return True

    def doubts(self, path: str) -> bool:
        return path in self.paths


class Place:
    """One path of a store that may have lost what was never flushed, and all that is there."""

    def __init__(self, store: Store, folder_fd: int, number: int, case: Case, policy: str) -> None:
        self.store = store
        self.policy = policy
        self.durable, self.packed = case.durable, case.packed
        self._folder_fd = folder_fd
        self.path = f"{number}.dcm" + (SUFFIX if case.packed else "")
        self.doubts = Failed()
        self._replaced = replacing(store.dir_fd, after=number * 1000)
        self._sequence = number * 1000
        # What a sender was told is stored: where, and what.
        self.acknowledged: dict[str, bytes] = {}
        seeds = itertools.count(100)
        for path, state in ((self.path, case.own), (twin(self.path), case.other)):
            if state == "free":
                continue
            data = NEW[0] if "same" in state else data_set(seed=next(seeds), pixels=30)
            self._put(path, data)
            if "suspect" not in state:
                self.acknowledge(path, data)
            if "unsure" in state:
                self.doubts.doubt(path)
        for version in case.versions:
            data = data_set(seed=next(seeds), pixels=30)
            self._put(f"{self.path}~{version}", data)
            self.acknowledge(f"{self.path}~{version}", data)

    def close(self) -> None:
        self._replaced.lines.close()
        # The next one's lines are found sooner.
        for segment in (self.store.path / ".fastscp/journal").iterdir():
            segment.unlink()

    def _put(self, path: str, data: bytes) -> None:
        (self.store.path / path).write_bytes(as_file(data, packed=SUFFIX in path))

    def acknowledge(self, path: str, data: bytes) -> None:
        self.acknowledged[path] = data
        self._sequence += 1
        fact = {"v": 1, "event": "stored", "seq": self._sequence, "path": path, "bytes": len(data)}
        fact |= {"durability": "buffered", "digest": f"crc32c:{crc32c(data):08x}"}
        with (self.store.path / ".fastscp/journal/1-w-1.jsonl").open("ab") as file:
            append_fact(file.fileno(), fact)

    def send(self, data: bytes) -> Outcome:
        """Have it decided, and all done that the commit does then."""
        part = f"part{self.packed}"
        fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600, dir_fd=self._folder_fd)
        with os.fdopen(fd, "wb") as file:
            file.write(as_file(data, packed=self.packed))
        outcome = resolved(
            Resolution(
                self.store.dir_fd, self._folder_fd, part, self.path, policy=self.policy,
                durable=self.durable, replaced=self._replaced, mixed=True,
                suspect=Shared().liveness, doubts=self.doubts,
            )
        )  # fmt: skip
        if outcome.kind == "replaced":
            # Its content and its line are on the disk by now, and the older one's doubt is over.
            self.doubts.paths.discard(outcome.path)
            assert Settlement(self._replaced, outcome.path, refused=False).attempt() is not None
        if outcome.kind not in ("refused", "kept"):
            self.acknowledge(outcome.path, data)
        if outcome.lock_fd >= 0:
            os.close(outcome.lock_fd)
        return outcome

    def holds(self, path: str) -> bytes:
        with open_part10(path, self.store.dir_fd) as file:
            content = file.read()
        return content[144 + int.from_bytes(content[140:144], "little") :]

    def lost(self) -> dict[str, bytes]:
        """What was acknowledged and is not where it was acknowledged."""
        return {
            path: data
            for path, data in self.acknowledged.items()
            if not (self.store.path / path).exists() or self.holds(path) != data
        }


def as_file(data: bytes, *, packed: bool) -> bytes:
    content = build_meta(CT.encode(), b"1.2.3", ELE.encode(), b"1.9", b"V", b"KIT", b"US") + data
    return zstandard.ZstdCompressor().compress(content) if packed else content


@pytest.fixture(scope="module")
def two_forms(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, int]]:
    path: Path = tmp_path_factory.mktemp("forms") / "store"
    layout = "{SOPInstanceUID}.dcm"
    with opened(path, filed(layout)):
        pass
    with opened(path, filed(layout, ".dcm.zst"), layout_change=True) as store:
        assert store.mixed
        life = path / ".fastscp/incoming/life"
        life.mkdir()
        fd = os.open(life, os.O_RDONLY)
        yield store, fd
        os.close(fd)


# Every so many of the cases; a step that goes through all values of each part of them.
@pytest.mark.parametrize("step", [13, pytest.param(1, marks=pytest.mark.long)])
@pytest.mark.parametrize("policy", POLICIES)
def test_nothing_acknowledged_is_lost(
    two_forms: tuple[Store, int], step: int, policy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is there in either form: each that comes stays, and so does what was there.

    Only where instances are to be replaced, the one at the name itself goes, for the one that its
    outcome names.
    """
    # Some thousand decisions; what a flush says is told by the doubts.
    monkeypatch.setattr(os, "fsync", lambda _fd: None)
    first = (POLICIES.index(policy) + len(POLICIES) * (step > 1)) * len(CASES) + 1
    for number, case in enumerate(CASES[::step], start=first):
        place = Place(two_forms[0], two_forms[1], number, case, policy)
        for data in (*NEW, NEW[0]):
            told = (case, data == NEW[0])
            before = dict(place.acknowledged)
            outcome = place.send(data)
            assert not place.lost(), told
            if outcome.kind == "kept":
                assert policy == "keep", told
                assert outcome.path in before, told
            elif outcome.kind == "refused":
                assert policy in ("refuse", "keep") or len(before) > 8, (told, outcome)
                assert outcome.path in before or policy == "version", (told, outcome)
            elif outcome.kind == "replaced" and policy != "replace":
                # It took the place of itself, or of what nothing vouches for.
                assert before.get(outcome.path, data) == data, told
        place.close()


def test_a_distrusted_other_form_costs_the_own_one_nothing(two_forms: tuple[Store, int]) -> None:
    """The first that comes stands in for the distrusted one, and each other beside the first."""
    place = Place(two_forms[0], two_forms[1], 9001, Case("free", "suspect", (), True, True),
                  "version")  # fmt: skip
    found = [place.send(data) for data in NEW]
    path = place.path
    assert [one.kind for one in found] == ["replaced", "version", "version"]
    assert [one.path for one in found] == [path, f"{path}~2", f"{path}~3"]
    assert (place.store.path / twin(path)).exists()
    place.close()


@pytest.mark.parametrize("policy", ["version", "keep", "refuse"])
def test_what_takes_the_name_meanwhile_is_not_replaced(
    two_forms: tuple[Store, int], monkeypatch: pytest.MonkeyPatch, policy: str
) -> None:
    """Another worker gives the name, without a lock, between the look at it and the taking."""
    case = Case("free", "suspect", (), True, True)
    place = Place(two_forms[0], two_forms[1], 9100 + POLICIES.index(policy), case, policy)
    theirs = data_set(seed=50, pixels=20)
    named = duplicates.Resolution._named_beside
    raced: list[str] = []

    def raced_by(self: Any, name: str, other: str) -> bool:
        if not raced:
            raced.append(name)
            place._put(name, theirs)
            place.acknowledge(name, theirs)
        return named(self, name, other)

    monkeypatch.setattr(duplicates.Resolution, "_named_beside", raced_by)
    outcome = place.send(NEW[1])
    assert raced == [place.path]
    assert not place.lost()
    assert outcome.kind == {"version": "version", "keep": "kept", "refuse": "refused"}[policy]
    place.close()
