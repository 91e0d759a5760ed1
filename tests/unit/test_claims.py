"""Claims: nobody gives a name where somebody else has the path, up to its journal line."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import subprocess
import sys
import time
from functools import partial
from typing import TYPE_CHECKING, Final

import pytest

from fastscp.store.names import PATH_LOCKS
from fastscp.store.waits import NotYetError, check_locks, lock_of, take_lock, turn_of
from fastscp_ext import crc32c, status
from tests.kit import data_set, store, wait_for
from tests.unit.test_receiver import Association, Site

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("no_descriptor_left")

LAYOUT: Final = "{SOPInstanceUID}.dcm"
# Paths of this layout whose CRC-32C are the same.
ALIKE: Final = ("1.2.2920409607794", "1.2.3388249436091")
FORMS: Final = ("1.2.dcm", "1.2.dcm.zst")


@contextlib.contextmanager
def site_of(path: Path, *, durable: bool = False, life: str = "life") -> Iterator[Site]:
    with Site(path, durable=durable, layout=LAYOUT, life=life) as site:
        site.resolve_at_once = False
        yield site


def instance(n: int, sop: str = "1.2", seed: int = 0) -> bytes:
    return store(n, data_set(sop=sop, seed=seed), sop=sop)


def is_free(site: Site, path: str) -> bool:
    try:
        os.close(take_lock(site.store_fd, lock_of(path)))
    except NotYetError:
        return False
    return True


def test_both_forms_of_a_path_have_one_lock() -> None:
    one, other = map(lock_of, FORMS)
    assert one == other == crc32c(b"1.2.dcm")
    assert lock_of("1.3.dcm") != one
    # As older versions count, whose workers may live beside.
    assert turn_of(FORMS[1]) == crc32c(b"1.2.dcm.zst") % 256


@pytest.mark.parametrize("durable", [False, True])
@pytest.mark.parametrize("locked", FORMS)
def test_a_commit_names_nothing_where_another_has_the_lock(
    tmp_path: Path, durable: bool, locked: str
) -> None:
    """Whoever has it may be about to name something there, or has just done so."""
    with site_of(tmp_path, durable=durable) as site:
        one = site.associate()
        check_locks(site.store_fd)
        fd = take_lock(site.store_fd, lock_of(locked))
        before = site.shared.store.next_sequence()
        site.feed(one, instance(1))
        site.until(lambda: bool(site.waiting))
        assert site.files() == {}
        assert site.journal() == []
        # It takes its number with the path: what gets its name before has a lower one.
        assert site.shared.store.next_sequence() == before + 1
        os.close(fd)
        site.resolve(site.waiting.pop())
        site.settle(one)
        assert one.statuses() == [0]
        assert list(site.files()) == ["1.2.dcm"]
        (line,) = site.journal()
        assert (line["path"], line.get("duplicate")) == ("1.2.dcm", None)
        # A thread closes what a comparison had.
        site.removed()
        assert is_free(site, "1.2.dcm")


@pytest.mark.parametrize("durable", [False, True])
def test_a_claim_ends_with_its_line_and_with_a_failure(tmp_path: Path, durable: bool) -> None:
    with site_of(tmp_path, durable=durable) as site:
        one = site.associate()
        site.feed(one, instance(1))
        site.settle(one)
        assert is_free(site, "1.2.dcm")
        (tmp_path / "1.3.dcm").mkdir()
        site.feed(one, instance(2, "1.3"))
        site.until(lambda: bool(site.waiting))
        assert is_free(site, "1.3.dcm")
        site.resolve(site.waiting.pop())
        site.settle(one)
        assert one.statuses() == [0, status.OUT_OF_RESOURCES]


def test_paths_with_one_number_take_turns(tmp_path: Path) -> None:
    """In one batch the file of locks would not keep them apart."""
    is_ready = False

    def new_journal(durable: bool) -> tuple[int, int]:
        if not is_ready:
            raise BlockingIOError
        return site.segments[durable].next()

    assert lock_of(f"{ALIKE[0]}.dcm") == lock_of(f"{ALIKE[1]}.dcm")
    with Site(tmp_path, layout=LAYOUT, new_journal=new_journal) as site:
        site.resolve_at_once = False
        sops = (*ALIKE, "1.9")
        # An association does not send the second of such a pair before the first has ended.
        ones = [site.associate() for _sop in sops]
        for one, sop in zip(ones, sops, strict=True):
            site.feed(one, instance(1, sop))
        is_ready = True
        site.reception.journal_opened()
        assert [duplicate.path for duplicate in site.waiting] == [f"{ALIKE[1]}.dcm"]
        site.resolve(site.waiting.pop())
        assert [one.statuses() for one in ones] == [[0], [0], [0]]
        assert sorted(site.files()) == sorted(f"{sop}.dcm" for sop in sops)
        assert {line["path"] for line in site.journal()} == set(site.files())


def _removed(path: Path) -> None:
    path.unlink()


def _moved_away(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))


def _replaced(path: Path) -> None:
    path.with_name("other").touch()
    path.with_name("other").rename(path)


@pytest.mark.parametrize("is_old", [False, True])
@pytest.mark.parametrize("change", [_removed, _moved_away, _replaced])
def test_a_file_of_locks_that_is_gone_is_made_anew(
    tmp_path: Path, change: Callable[[Path], None], is_old: bool
) -> None:
    """A lock in the one that was there before would keep nobody away."""
    with site_of(tmp_path) as site:
        one = site.associate()
        site.feed(one, instance(1))
        if is_old:
            # Whoever claims has looked at it, and finds it untouched.
            made = (tmp_path / PATH_LOCKS).stat().st_ctime
            wait_for(lambda: time.time() > made + 0.06, "an age that tells")
            site.feed(one, instance(8, "1.8"))
            site.feed(one, instance(9, "1.9"))
        change(tmp_path / PATH_LOCKS)
        site.feed(one, instance(2, "1.3"))
        fd = take_lock(site.store_fd, lock_of("1.4.dcm"))
        site.feed(one, instance(3, "1.4"))
        assert len(site.waiting) == 1
        os.close(fd)
        site.resolve(site.waiting.pop())
        assert one.statuses() == [0] * (5 if is_old else 3)


def _a_folder(path: Path) -> None:
    path.mkdir()


def _a_link(path: Path) -> None:
    path.symlink_to("lock")


def _a_fifo(path: Path) -> None:
    os.mkfifo(path)


def _a_link_above(path: Path) -> None:
    path.parent.rename(path.parent.with_name("own"))
    path.parent.symlink_to("own")


@pytest.mark.parametrize(
    ("change", "error_no"),
    [
        (_a_folder, errno.EISDIR),
        (_a_link, errno.ELOOP),
        (_a_fifo, errno.ENXIO),
        (_a_link_above, errno.ELOOP),
    ],
)
def test_nothing_is_named_without_locks(
    tmp_path: Path, change: Callable[[Path], None], error_no: int
) -> None:
    with site_of(tmp_path) as site:
        one = site.associate()
        site.feed(one, instance(1))
        locks = tmp_path / PATH_LOCKS
        locks.unlink()
        change(locks)
        site.feed(one, instance(2, "1.3"))
        assert one.statuses() == [0, status.OUT_OF_RESOURCES]
        assert site.errors == [("lock a path", error_no, PATH_LOCKS)]
        assert "1.3.dcm" not in site.files()
        # Whatever was wrong, it is over when the file can be had again.
        if change is _a_link_above:
            (tmp_path / ".fastscp").unlink()
            (tmp_path / "own").rename(tmp_path / ".fastscp")
        elif change is _a_folder:
            locks.rmdir()
        else:
            locks.unlink()
        site.feed(one, instance(3, "1.3"))
        assert one.statuses() == [0, status.OUT_OF_RESOURCES, 0]
        assert site.parts() == []


def test_no_descriptor_for_the_locks(tmp_path: Path) -> None:
    with site_of(tmp_path) as site:
        one = site.associate()
        site.feed(one, instance(1))
        (tmp_path / PATH_LOCKS).unlink()
        again = instance(2, "1.3")
        site.feed(one, again[:-1])
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        try:
            site.feed(one, again[-1:])
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert one.statuses() == [0, status.OUT_OF_RESOURCES]
        assert site.errors == [("lock a path", errno.EMFILE, PATH_LOCKS)]
        site.feed(one, instance(3, "1.3"))
        assert one.statuses() == [0, status.OUT_OF_RESOURCES, 0]


def _is_due(site: Site, one: Association) -> bool:
    return bool(site.waiting) or not one.outbox.owed


def test_two_workers_at_the_same_paths_at_once(tmp_path: Path) -> None:
    """Of each path one is named, and its line has the lower number."""
    with site_of(tmp_path, durable=True) as first:
        second = Site(tmp_path, durable=True, layout=LAYOUT, shared=first.shared, life="other")
        with second:
            second.resolve_at_once = False
            ones = (first.associate(), second.associate())
            sops = [f"1.2.{n}" for n in range(40)]
            for site, one in zip((first, second), ones, strict=True):
                data = b"".join(instance(n, sop, seed=site is second) for n, sop in enumerate(sops))
                site.feed(one, data)
            for site, one in zip((first, second), ones, strict=True):
                while one.outbox.owed:
                    site.until(partial(_is_due, site, one))
                    while site.waiting:
                        site.resolve(site.waiting.pop(0))
            assert [one.statuses() for one in ones] == [[0] * 40] * 2
            lines = sorted(first.journal(), key=lambda line: line["seq"])
            assert len({line["seq"] for line in lines}) == len(lines) == 80
            for sop in sops:
                mine = [line for line in lines if line["sop_instance_uid"] == sop]
                assert [line["path"] for line in mine] == [f"{sop}.dcm", f"{sop}.dcm~2"]


_HOLDING: Final = """
import os, sys, time
from fastscp.store.waits import take_lock
take_lock(os.open(sys.argv[1], os.O_RDONLY), int(sys.argv[2]))
os.write(1, b"1")
time.sleep(3600)
"""


def test_what_a_dead_process_had_is_free(tmp_path: Path) -> None:
    with site_of(tmp_path) as site:
        check_locks(site.store_fd)
        holding = subprocess.Popen(
            [sys.executable, "-c", _HOLDING, tmp_path, str(lock_of("1.2.dcm"))],
            stdout=subprocess.PIPE,
        )
        with holding:
            assert holding.stdout is not None
            assert holding.stdout.read(1) == b"1"
            assert not is_free(site, "1.2.dcm")
            holding.kill()
        one = site.associate()
        site.feed(one, instance(1))
        assert one.statuses() == [0]


def test_the_whole_range_of_numbers(tmp_path: Path) -> None:
    """The numbers of paths are not folded: others wait for none of them."""
    with site_of(tmp_path) as site:
        check_locks(site.store_fd)
        sop = next(
            sop for sop in (f"1.2.{n}" for n in range(1000)) if lock_of(f"{sop}.dcm") >= 1 << 31
        )
        one = site.associate()
        held = take_lock(site.store_fd, lock_of(f"{sop}.dcm") % 256)
        site.feed(one, instance(1, sop))
        assert one.statuses() == [0]
        os.close(held)
