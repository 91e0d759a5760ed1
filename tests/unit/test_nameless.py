"""Parts that have no name until they are whole."""

from __future__ import annotations

import errno
import os
import resource
from typing import TYPE_CHECKING, Final
from unittest.mock import ANY

import pytest

from fastscp.store.waits import lock_of, take_lock, turn_of
from fastscp_ext import nameless_way
from tests.kit import STUDY, data_set, open_paths, path_of, store
from tests.unit.test_receiver import Site, meta

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("no_descriptor_left")

# As `nameless_way` has it.
WAYS: Final = (1, 2)


@pytest.fixture(params=WAYS)
def nameless(request: pytest.FixtureRequest, tmp_path: Path) -> int:
    """A way that the file system of the tests' folder has, and this kernel allows."""
    (tmp_path / "tried").mkdir()
    folder = os.open(tmp_path / "tried", os.O_RDONLY)
    try:
        best = nameless_way(folder)
    finally:
        os.close(folder)
    if not 0 < best <= request.param:
        pytest.skip(f"way {request.param} does not work here, or {best} is better")
    return int(request.param)


def bare(site: Site) -> int:
    """Parts that are open and have no name."""
    return sum(f"{site.incoming}/#" in path for path in open_paths(os.getpid()))


def test_a_part_that_is_written_at_once_needs_no_name(tmp_path: Path, nameless: int) -> None:
    """Until its final one, or until somebody is to compare it, who opens it by its name."""
    with Site(tmp_path / "store", nameless=nameless) as site:
        site.resolve_at_once = False
        one = site.associate()
        site.feed(one, store(1))
        assert (site.reception.uncommitted, bare(site), site.parts()) == (0, 0, [])
        site.feed(one, store(2) + store(3, data_set(seed=1)))
        for bare_parts in (1, 0):
            # The third waits until the second is settled, which has its path.
            assert ([one.part for one in site.waiting], bare(site)) == (site.parts(), bare_parts)
            site.resolve(site.waiting.pop())
        assert one.statuses() == [0, 0, 0]
        assert list(site.files()) == [path_of(), path_of() + "~2"]
        assert site.files()[path_of()] == meta() + data_set()
        assert [fact.get("duplicate") for fact in site.journal()] == [None, "identical", "version"]
        assert site.errors == []
    assert all(os.stat(site.store / name).st_nlink == 1 for name in site.files())
    assert all(os.stat(site.store / name).st_mode & 0o777 == 0o640 for name in site.files())


def test_a_part_that_grows_has_a_name(tmp_path: Path, nameless: int) -> None:
    """Whoever looks for the space that it takes finds it."""
    data = store(1, data_set(pixels=200_000))
    with Site(tmp_path / "store", nameless=nameless) as site:
        one = site.associate()
        assert site.read(one, data[:150_000]) == 150_000
        assert (len(site.parts()), bare(site)) == (1, 0)
        site.feed(one, data[150_000:])
        assert one.statuses() == [0]
        assert site.files() == {path_of(): meta() + data_set(pixels=200_000)}


def test_nothing_is_left_of_a_part_without_a_name(tmp_path: Path, nameless: int) -> None:
    """Nor of its descriptor, whatever it fails at."""
    with Site(tmp_path / "store", nameless=nameless) as site:
        one = site.associate()
        # A file is in the way of its folder.
        (site.store / STUDY).write_bytes(b"")
        site.feed(one, store(1))
        assert one.statuses() == [0xA700]
        (site.store / STUDY).unlink()
        site.feed(one, store(2))
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        try:
            site.feed(one, store(3, data_set(seed=1)))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert one.statuses()[1:] == [0, 0xA700]
        site.removed()
        assert bare(site) == 0
        assert [step for step, _error, _name in site.errors] == [
            "open or make the directory of an instance", "create a part file"
        ]  # fmt: skip
        assert list(site.files()) == [path_of()]


def test_a_folder_that_is_gone_costs_no_descriptor(tmp_path: Path, nameless: int) -> None:
    """Some file systems make a file without a name in it all the same, which is stored then."""
    with Site(tmp_path / "store", nameless=nameless) as site:
        one = site.associate()
        os.rmdir(site.incoming)
        try:
            site.feed(one, store(1))
        finally:
            site.incoming.mkdir()
        (status,) = one.statuses()
        assert status in (0, 0xA700)
        assert list(site.files()) == [path_of()][: status == 0]
        assert site.errors == ([] if status == 0 else [("create a part file", errno.ENOENT, ANY)])
        site.removed()
        assert bare(site) == 0


@pytest.mark.parametrize("durable", [False, True])
def test_a_path_that_somebody_has_is_compared(tmp_path: Path, nameless: int, durable: bool) -> None:
    with Site(tmp_path / "store", nameless=nameless, durable=durable) as site:
        site.resolve_at_once = False
        one = site.associate()
        # Its folder is there.
        site.feed(one, store(9, sop="1.2.9"))
        site.settle(one)
        taken = take_lock(site.store_fd, lock_of(path_of()), turn_of(path_of()))
        try:
            site.feed(one, store(1))
            site.until(lambda: len(site.waiting) == 1)
            assert len(site.parts()) == 1
        finally:
            os.close(taken)
        site.resolve(site.waiting.pop())
        site.settle(one)
        assert one.statuses() == [0, 0]
        assert list(site.files()) == [path_of(), path_of("1.2.9")]
