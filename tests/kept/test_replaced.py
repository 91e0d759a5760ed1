"""An acknowledged instance that another one replaces is there until that one is acknowledged.

Whatever fails, is killed or loses its power in between: the path holds one of both, whole, the
journal says which one, and a sender that was refused has changed nothing.
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import cycle
from typing import TYPE_CHECKING, Final

import pytest

from fastscp.store.journal import find_path
from fastscp.store.leftovers import settle_alone
from fastscp.store.names import REPLACED
from fastscp.store.replaced import where
from fastscp.store.verify import verify
from fastscp_ext import crc32c
from tests.kept.device.disk import scratch
from tests.kept.kit_kept import (
    COUNT,
    FAIL,
    FLUSH,
    HOLD_AFTER,
    HOLD_BEFORE,
    KILL_AFTER,
    KILL_ALL_AFTER,
    KILL_ALL_BEFORE,
    KILL_BEFORE,
    LINK,
    OPEN,
    RENAME,
    SEND,
    UNLINK,
    WRITE,
    Disk,
    Event,
    Interposed,
    Item,
    acknowledged,
    facts_of,
    items,
    write_tree,
)
from tests.kept.test_order import mutate
from tests.kit import DEADLINE_S, Peer, Service, store, wait_for
from tests.stores import amiss

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from tests.kept.test_order import Changes

DURABILITIES: Final = ("stable", "buffered")


@dataclass(frozen=True)
class Pair:
    """Two instances of one path."""

    old: Item
    new: Item


def pair(number: int = 1) -> Pair:
    (old,), (new,) = items(f"{number}", 1), items(f"{number}", 1, seed=77)
    return Pair(old, new)


def replacing(
    tmp_path: Path,
    library: Path,
    durability: str = "stable",
    *,
    log: bool = False,
    env: Mapping[str, str] | None = None,
    store: Path | None = None,
) -> Interposed:
    flags = ("--on-duplicate", "replace", "--durability", durability)
    return Interposed(tmp_path, library, *flags, workers=1, log=log, env=env, store=store)


def put(peer: Peer, number: int, item: Item) -> int:
    peer.send(store(number, item.data, sop=item.sop))
    return peer.read_response().status


def kept(folder: Path) -> list[str]:
    where = folder / REPLACED
    return sorted(os.listdir(where)) if where.exists() else []


def in_hand(folder: Path) -> list[str]:
    """What is kept, except records that have nothing in them."""
    found = []
    for name in kept(folder):
        with contextlib.suppress(FileNotFoundError):
            there = folder / REPLACED / name
            # What is over is nobody's once its record is gone; the next start removes it.
            if there.suffix == ".over" and not there.with_suffix(".record").exists():
                continue
            if not name.endswith(".record") or there.stat().st_size:
                found.append(name)
    return found


def check(folder: Path, path: str, *allowed: Item, nothing_left: bool = True) -> Item:
    """What the path holds is one of these, the journal says so, and nothing else is amiss."""
    store_fd = os.open(folder, os.O_RDONLY)
    try:
        assert amiss(store_fd) == []
        fact = find_path(store_fd, path)
    finally:
        os.close(store_fd)
    assert fact is not None
    found = [item for item in allowed if (folder / path).read_bytes().endswith(item.data)]
    assert len(found) == 1, "the path holds something else"
    assert fact["digest"] == f"crc32c:{crc32c(found[0].data):08x}"
    assert not (nothing_left and kept(folder))
    return found[0]


# Something fails ----------------------------------------------------------------------------------

# What fails -> kind of call, part of its path, how many of these come first. The older file's flush
# is the first below its study. The commit and whoever compares have tried the name before. A folder
# gets nothing any more when its flush fails with an error of the disk, so it has another one.
FAULTS: Final = {
    "the record": (OPEN, ".record", 0),
    "writing the record": (WRITE, ".record", 0),
    "the flush of the record": (FLUSH, ".record", 0),
    "the flush of the record's name": (FLUSH, "/replaced", 1),
    "the second name": (LINK, ".copy", 0),
    "the flush of the second name": (FLUSH, "/replaced", 2),
    "the name": (RENAME, "/store/1.2.", 2),
    "the flush of the directory": (FLUSH, "/store/1.2.", 1),
    "the journal": (WRITE, ".jsonl", 0),
    "the flush of the journal": (FLUSH, ".jsonl", 0),
    "the note that it stays": (RENAME, ".over", 0),
    "the flush of the note": (FLUSH, "/replaced", 3),
}


@pytest.mark.parametrize("durability", DURABILITIES)
def test_a_refused_newer_one_changes_nothing(
    tmp_path: Path, library: Path, durability: str
) -> None:
    with replacing(tmp_path, library, durability) as service, service.peer() as peer:
        for number, (what, (kind, path, skip)) in enumerate(FAULTS.items(), 1):
            service.control.clear()
            one = pair(number)
            assert put(peer, 1, one.old) == 0
            is_folder = kind == FLUSH and path in ("/replaced", "/store/1.2.")
            error = errno.ENOSPC if is_folder else errno.EIO
            rule = service.control.rule([kind], FAIL, error=error, path=path, skip=skip, left=1)
            assert put(peer, 2, one.new) == 0xA700, what
            assert service.control.hits(rule) == 1, what
            assert check(service.store, one.old.path, one.old) is one.old
            # The same content again is what is there; and the newer one takes the path yet.
            assert put(peer, 3, one.old) == 0
            assert put(peer, 4, one.new) == 0
            assert check(service.store, one.old.path, one.new) is one.new
        peer.release()
        wait_for(lambda: not service.parts(), "no part left")


@pytest.mark.parametrize("durability", DURABILITIES)
def test_an_older_content_that_cannot_be_flushed_is_in_nobodys_way(
    tmp_path: Path, library: Path, durability: str
) -> None:
    one = pair()
    with replacing(tmp_path, library, durability) as service, service.peer() as peer:
        assert put(peer, 1, one.old) == 0
        rule = service.control.rule([FLUSH], FAIL, error=errno.EIO, path="/store/1.2.", left=1)
        assert put(peer, 2, one.new) == 0
        assert service.control.hits(rule) == 1
        check(service.store, one.old.path, one.new)
        peer.release()


@pytest.mark.parametrize("durability", DURABILITIES)
def test_a_file_system_without_second_names(tmp_path: Path, library: Path, durability: str) -> None:
    one, other = pair(1), pair(2)
    with replacing(tmp_path, library, durability) as service, service.peer() as peer:
        service.control.rule([LINK], FAIL, error=errno.EPERM, path="/replaced/")
        for two in (one, other):
            assert put(peer, 1, two.old) == 0
        assert put(peer, 2, one.new) == 0
        check(service.store, one.old.path, one.new)
        rule = service.control.rule([WRITE], FAIL, error=errno.EIO, path=".jsonl", left=1)
        assert put(peer, 3, other.new) == 0xA700
        assert service.control.hits(rule) == 1
        check(service.store, other.old.path, other.old)
        peer.release()


@pytest.mark.parametrize("then", ["the same path again", "a restart"])
def test_a_disk_that_takes_nothing_any_more_forgets_no_refusal(
    tmp_path: Path, library: Path, then: str
) -> None:
    """The line of the refused instance stands in the journal, and nothing can be noted."""
    one = pair()
    with replacing(tmp_path, library) as service, service.peer() as peer:
        assert put(peer, 1, one.old) == 0
        held = service.control.rule([FLUSH], HOLD_BEFORE, path=".jsonl", left=1)
        peer.send(store(2, one.new.data, sop=one.new.sop))
        wait_for(lambda: service.control.hits(held) == 1, "the newer one's line")
        service.control.rule([FLUSH], FAIL, error=errno.EIO, path=".jsonl", left=1)
        service.control.rule([LINK, RENAME, UNLINK, WRITE], FAIL, error=errno.EROFS)
        # Nor is a file made in there.
        service.control.rule([OPEN], FAIL, error=errno.EROFS, path=".undo")
        service.control.lift(held)
        assert peer.read_response().status == 0xA700
        service.in_log("cannot put back what")
        assert service.data_of(one.old.path) == one.new.data
        service.control.clear()
        if then != "a restart":
            service.control.rule([WRITE], FAIL, error=errno.ENOSPC, path="0.part", left=1)
            assert put(peer, 3, one.old) in (0, 0xA700)
            assert put(peer, 4, one.old) == 0
        peer.release()
    with Service(tmp_path, store=service.store, workers=1) as after:
        check(after.store, one.old.path, one.old)


def _refuse_the_note(service: Interposed) -> int:
    """The note that the newer instance stays is made, cannot be flushed, and stands.

    Nor does the older content get its path back. Returns the number of the last rule.
    """
    control = service.control
    control.rule([FLUSH], FAIL, error=errno.EIO, path="/replaced", skip=3, left=1)
    control.rule([RENAME], FAIL, error=errno.EIO, path=".kept", skip=1)
    return control.rule([RENAME], FAIL, error=errno.EIO, path="/store/1.2.", skip=3)


def test_a_note_that_cannot_be_taken_back_makes_nobody_win(tmp_path: Path, library: Path) -> None:
    """The record says that the newer one was refused, and the start gives the path back."""
    one = pair()
    with replacing(tmp_path, library) as service, service.peer() as peer:
        assert put(peer, 1, one.old) == 0
        back = _refuse_the_note(service)
        peer.send(store(2, one.new.data, sop=one.new.sop))
        service.in_log("the sender has no answer until the disk takes a note")
        assert service.control.hits(back) >= 1
        assert service.data_of(one.old.path) == one.new.data
        assert any(name.endswith(".over") for name in kept(service.store))
        service.kill()
    for mark in (service.store / ".fastscp/unflushed").iterdir():
        mark.unlink()  # as after a reboot
    with Service(tmp_path, store=service.store, workers=1) as after:
        check(after.store, one.old.path, one.old)


@pytest.mark.parametrize("then", ["the disk takes it", "the end"])
def test_nobody_is_told_of_a_refusal_that_cannot_be_noted(
    tmp_path: Path, library: Path, then: str
) -> None:
    """Neither in the record nor by any name. So the sender has no answer until then."""
    one, other = pair(), pair(2)
    with (
        replacing(tmp_path, library) as service,
        service.peer() as peer,
        service.peer() as second,
    ):
        assert put(peer, 1, one.old) == 0
        _refuse_the_note(service)
        notes = service.control.rule([WRITE], FAIL, error=errno.EIO, path=".record", skip=1)
        peer.send(store(2, one.new.data, sop=one.new.sop))
        service.in_log("the sender has no answer until the disk takes a note")
        wait_for(lambda: service.control.hits(notes) >= 2, "another try", 60)
        # Nobody else waits for it.
        service.control.clear()
        if then == "the end":
            service.kill()
            for mark in (service.store / ".fastscp/unflushed").iterdir():
                mark.unlink()
            with Service(tmp_path, store=service.store, workers=1) as after:
                check(after.store, one.old.path, one.old, one.new)
            return
        assert peer.read_response().status == 0xA700
        check(service.store, one.old.path, one.old, nothing_left=False)
        assert put(second, 1, other.old) == 0
        second.release()
        peer.release()
    for mark in (service.store / ".fastscp/unflushed").iterdir():
        mark.unlink()
    with Service(tmp_path, store=service.store, workers=1) as after:
        check(after.store, one.old.path, one.old)


FORMS: Final = ("--on-duplicate", "replace", "--compress", "zstd", "--layout-change")


@contextlib.contextmanager
def both_forms(tmp_path: Path, library: Path, *olds: Item) -> Iterator[tuple[Interposed, Peer]]:
    """A service that compresses, in a store with these as they came."""
    with replacing(tmp_path, library) as plain, plain.peer() as peer:
        for number, item in enumerate(olds, 1):
            assert put(peer, number, item) == 0
        peer.release()
    with (
        Interposed(tmp_path, library, *FORMS, workers=1, log=False, store=plain.store) as service,
        service.peer() as peer,
    ):
        yield service, peer


def latest(store: Path, item: Item) -> tuple[str, str]:
    """Path and digest that count for an instance, of both its forms."""
    last = max(
        (fact for fact in facts_of(store) if fact["sop_instance_uid"] == item.sop),
        key=lambda fact: fact["seq"],
    )
    return last["path"], last["digest"]


def counts(item: Item, form: str = "") -> tuple[str, str]:
    return item.path + form, f"crc32c:{crc32c(item.data):08x}"


@pytest.mark.parametrize("then", ["two resends at once", "a restart"])
@pytest.mark.parametrize("line", [True, False])
def test_a_withdrawal_beside_the_other_form_that_fails_is_done_later(
    tmp_path: Path, library: Path, then: str, line: bool
) -> None:
    """Until then the refused instance is there, and its line may be; it never counts."""
    one = pair()
    with both_forms(tmp_path, library, one.old) as (service, peer):
        kind = FLUSH if line else WRITE
        service.control.rule([kind], FAIL, error=errno.EIO, path=".jsonl", left=1)
        # What says again that the older one counts, and what removes the newer one.
        for number in (1, 2):
            service.control.rule([OPEN], FAIL, error=errno.EROFS, path=f"s-{number}.jsonl")
        service.control.rule([UNLINK], FAIL, error=errno.EROFS, path=".dcm.zst")
        assert put(peer, 1, one.new) == 0xA700
        said = service.in_log("cannot take back the refused instance")
        assert "beside its other form" in said
        assert (service.store / f"{one.new.path}.zst").exists()
        if then == "two resends at once":
            with service.peer() as second:
                # Whoever meets what is left settles it, or is refused.
                assert put(second, 1, one.new) == 0xA700
                assert latest(service.store, one.old)[0] == f"{one.old.path}{'.zst' * line}"
                service.control.clear()
                second.send(store(2, one.new.data, sop=one.new.sop))
                peer.send(store(2, one.new.data, sop=one.new.sop))
                assert second.read_response().status == peer.read_response().status == 0
                second.release()
            assert latest(service.store, one.new) == counts(one.new, ".zst")
            assert verify(service.store).findings == ()
            assert kept(service.store) == []
        peer.release()
    if then == "a restart":
        with Service(tmp_path, *FORMS, store=service.store, workers=1):
            assert latest(service.store, one.old) == counts(one.old)
            assert (service.store / f"{one.new.path}.zst").exists() == line
            assert verify(service.store).findings == ()
            assert kept(service.store) == []


@pytest.mark.parametrize("way", ["worker after", "all after"])
def test_killed_beside_the_other_form(tmp_path: Path, library: Path, way: str) -> None:
    """Between the name and the answer: what was acknowledged counts, and nothing is left."""
    one, two = pair(1), pair(2)
    with both_forms(tmp_path, library, one.old, two.old) as (service, peer):
        rule = service.control.rule([WRITE], WAYS[way], path=".jsonl", left=1)
        peer.send(store(1, one.new.data, sop=one.new.sop))
        with pytest.raises((OSError, AssertionError)):
            peer.read_response()
        assert service.control.hits(rule) == 1
        service.control.lift(rule)
        if way == "worker after":
            service.in_log("ended unexpectedly")
            wait_for(lambda: not in_hand(service.store), "the end of the replacement")
            assert latest(service.store, one.old) == counts(one.old)
        else:
            service.process.wait(DEADLINE_S)
        service.kill()
    with Service(tmp_path, *FORMS, store=service.store, workers=1) as after, after.peer() as peer:
        assert latest(service.store, one.old) == counts(one.old)
        assert put(peer, 1, one.new) == 0
        assert latest(service.store, one.new) == counts(one.new, ".zst")
        peer.release()
    assert verify(service.store).findings == ()
    assert kept(service.store) == []


def test_the_form_that_counted_counts_again(tmp_path: Path, library: Path) -> None:
    """Both forms are there, and the plain one was sent again; a newer one is refused."""
    one = pair()
    third = items("1", 1, seed=99)[0]
    with both_forms(tmp_path, library, one.old) as (service, peer):
        assert put(peer, 1, one.new) == 0
        assert latest(service.store, one.new) == counts(one.new, ".zst")
        assert put(peer, 2, one.old) == 0
        assert latest(service.store, one.old) == counts(one.old)
        service.control.rule([FLUSH], FAIL, error=errno.EIO, path=".jsonl", left=1)
        assert put(peer, 3, third) == 0xA700
        assert latest(service.store, one.old) == counts(one.old)
        assert verify(service.store).findings == ()
        peer.release()


def test_a_refused_one_beside_its_other_form_counts_for_nothing(
    tmp_path: Path, library: Path
) -> None:
    """In a store of both forms; with its line in the journal, and without."""
    one, two = pair(1), pair(2)
    with both_forms(tmp_path, library, one.old, two.old) as (service, peer):
        service.control.rule([FLUSH], FAIL, error=errno.EIO, path=".jsonl", left=1)
        assert put(peer, 1, one.new) == 0xA700
        last = max(service.journal(), key=lambda fact: fact["seq"])
        assert (last["path"], last["duplicate"]) == (one.old.path, "restored")
        assert last["digest"] == f"crc32c:{crc32c(one.old.data):08x}"
        service.control.rule([WRITE], FAIL, error=errno.EIO, path=".jsonl", left=1)
        assert put(peer, 2, two.new) == 0xA700
        assert not (service.store / f"{two.old.path}.zst").exists()
        assert verify(service.store).findings == ()
        # What comes again is stored.
        assert put(peer, 3, one.new) == 0
        assert put(peer, 4, two.new) == 0
        assert [fact["path"] for fact in service.journal()[-2:]] == [
            f"{one.old.path}.zst", f"{two.old.path}.zst"
        ]  # fmt: skip
        peer.release()


@pytest.mark.parametrize("what", ["folder", "fifo", "link", "torn"])
def test_what_is_in_the_way_is_named_and_not_the_instance(
    tmp_path: Path, library: Path, what: str
) -> None:
    one = pair()
    with replacing(tmp_path, library) as service, service.peer() as peer:
        assert put(peer, 1, one.old) == 0
        place = service.store / where(one.old.path)
        place.parent.mkdir(exist_ok=True)
        if what == "folder":
            place.mkdir()
        elif what == "fifo":
            os.mkfifo(place)
        elif what == "link":
            place.symlink_to("/dev/null")
        else:
            place.write_bytes(b"torn")
            place.with_suffix(".kept").write_bytes(b"kept")
        assert put(peer, 2, one.new) == 0xA700
        said = service.in_log("cannot replace an existing instance")
        peer.release()
    assert where(one.old.path) in said
    assert one.old.path not in said
    assert service.data_of(one.old.path) == one.old.data


def test_a_folder_of_older_contents_that_is_a_link_is_named(tmp_path: Path, library: Path) -> None:
    one = pair()
    with replacing(tmp_path, library) as service, service.peer() as peer:
        assert put(peer, 1, one.old) == 0
        shutil.rmtree(service.store / REPLACED, ignore_errors=True)
        (service.store / REPLACED).symlink_to("/")
        assert put(peer, 2, one.new) == 0xA700
        said = service.in_log("cannot replace an existing instance")
        (service.store / REPLACED).unlink()
        peer.release()
    assert f"{REPLACED}: a symbolic link" in said
    assert one.old.path not in said


def test_a_full_disk_takes_no_note_and_changes_nothing(tmp_path: Path, library: Path) -> None:
    one = pair()
    with replacing(tmp_path, library) as service, service.peer() as peer:
        assert put(peer, 1, one.old) == 0
        full = errno.ENOSPC
        service.control.rule([WRITE], FAIL, error=full, path=".jsonl")
        assert put(peer, 2, one.new) == 0xA700
        assert "cannot put back" not in service.log()
        check(service.store, one.old.path, one.old)
        service.control.clear()
        assert put(peer, 3, one.new) == 0
        check(service.store, one.old.path, one.new)
        peer.release()


@pytest.mark.parametrize("then", ["the older again", "the newer again", "a restart"])
def test_what_cannot_be_put_back_is_put_back_later(
    tmp_path: Path, library: Path, then: str
) -> None:
    one = pair()
    with replacing(tmp_path, library) as service, service.peer() as peer:
        assert put(peer, 1, one.old) == 0
        service.control.rule([FLUSH], FAIL, error=errno.EIO, path=".jsonl", left=1)
        # The third gives the newer file the path, the fourth would give it back.
        service.control.rule([RENAME], FAIL, error=errno.EIO, path="/store/1.2.", skip=3, left=1)
        assert put(peer, 2, one.new) == 0xA700
        said = service.in_log("cannot put back what")
        assert "comes back with the next instance of that path or at the next start" in said
        assert kept(service.store)
        if then != "a restart":
            item = one.old if then == "the older again" else one.new
            assert put(peer, 3, item) == 0
            check(service.store, one.old.path, item)
        peer.release()
    if then == "a restart":
        with Service(tmp_path, store=service.store, workers=1) as after:
            after.in_log("1 replacements were not through")
            check(after.store, one.old.path, one.old)


def test_what_is_left_does_not_come_back_over_one_that_took_the_free_path(
    tmp_path: Path, library: Path
) -> None:
    """A consumer may take the file at any time, and the next instance finds the name free."""
    one = pair()
    (third,) = items("1", 1, seed=78)
    with replacing(tmp_path, library) as service:
        with service.peer() as peer:
            assert put(peer, 1, one.old) == 0
            service.control.rule([FLUSH], FAIL, error=errno.EIO, path=".jsonl", left=1)
            # What is kept cannot be given its name again.
            service.control.rule([LINK], FAIL, error=errno.ENOSPC, path=".copy", skip=1)
            assert put(peer, 2, one.new) == 0xA700
            peer.release()
        service.in_log("cannot put back what")
        service.control.clear()
        (service.store / one.old.path).rename(tmp_path / "taken")
        with service.peer() as peer:
            assert put(peer, 3, third) == 0
            peer.release()
        check(service.store, one.old.path, third)
    with Service(tmp_path, store=service.store, workers=1) as after:
        check(after.store, one.old.path, third)


def test_what_cannot_be_removed_is_removed_later(tmp_path: Path, library: Path) -> None:
    """The newer instance is acknowledged: its line is flushed."""
    one = pair()
    with replacing(tmp_path, library) as service, service.peer() as peer:
        assert put(peer, 1, one.old) == 0
        service.control.rule([UNLINK], FAIL, error=errno.EIO, path=".record", left=1)
        assert put(peer, 2, one.new) == 0
        service.in_log("cannot remove what")
        assert kept(service.store)
        assert put(peer, 3, one.new) == 0
        check(service.store, one.old.path, one.new)
        peer.release()


def test_an_older_content_that_was_never_journaled_comes_back_without_a_line(
    tmp_path: Path, library: Path
) -> None:
    one = pair()
    with replacing(tmp_path, library) as service, service.peer() as peer:
        service.control.rule([WRITE], FAIL, error=errno.EIO, path=".jsonl", left=1)
        assert put(peer, 1, one.old) == 0xA700
        service.control.rule([WRITE], FAIL, error=errno.EIO, path=".jsonl", left=1)
        assert put(peer, 2, one.new) == 0xA700
        assert service.data_of(one.old.path) == one.old.data
        assert service.journal() == []
        assert kept(service.store) == []
        # A line of the refused one that stands in the journal is taken back, by one that says that
        # nobody acknowledged what is there.
        service.control.rule([FLUSH], FAIL, error=errno.EIO, path=".jsonl", left=1)
        assert put(peer, 3, one.new) == 0xA700
        assert service.data_of(one.old.path) == one.old.data
        refused, again = service.journal()
        assert refused["duplicate"] == "replaced"
        assert (again["event"], again["suspect"]) == ("adopted", True)
        check(service.store, one.old.path, one.old)
        peer.release()


def test_readers_see_one_of_both_and_nobody_else_comes_between(
    tmp_path: Path, library: Path
) -> None:
    one = pair()
    third = items("1", 1, seed=99)[0]
    with (
        replacing(tmp_path, library) as service,
        service.peer() as first,
        service.peer() as second,
    ):
        assert put(first, 1, one.old) == 0
        held = service.control.rule([FLUSH], HOLD_BEFORE, path=".jsonl", left=1)
        first.send(store(2, one.new.data, sop=one.new.sop))
        wait_for(lambda: service.control.hits(held) == 1, "the newer one's line")
        assert service.data_of(one.old.path) == one.new.data
        assert len(kept(service.store)) == 2
        looked = service.control.rule([LINK], COUNT, path=".copy")
        second.send(store(1, third.data, sop=third.sop))
        wait_for(service.parts, "the third being received")
        # The flush that is held fails: the older content comes back before the third is looked at.
        service.control.rule([FLUSH], FAIL, error=errno.EIO, path=".jsonl", left=1)
        assert service.control.hits(looked) == 0
        service.control.lift(held)
        assert first.read_response().status == 0xA700
        assert second.read_response().status == 0
        back = [fact["digest"] for fact in service.journal() if fact.get("duplicate") == "restored"]
        assert back == [f"crc32c:{crc32c(one.old.data):08x}"]
        check(service.store, one.old.path, third)
        second.release()
        first.release()


@pytest.mark.parametrize("refused", [False, True])
def test_verify_beside_a_replacement_under_way(
    tmp_path: Path, library: Path, refused: bool
) -> None:
    """It finds the newer file and the older line, and waits for what becomes of them."""
    one = pair()
    with replacing(tmp_path, library) as service, service.peer() as peer:
        assert put(peer, 1, one.old) == 0
        held = service.control.rule([RENAME], HOLD_AFTER, path="/store/1.2.", skip=2, left=1)
        peer.send(store(2, one.new.data, sop=one.new.sop))
        wait_for(lambda: service.control.hits(held) == 1, "the newer one's name")
        if refused:
            service.control.rule([WRITE], FAIL, error=errno.EIO, path=".jsonl", left=1)
        looked = threading.Event()

        def watch(**_far: int) -> None:
            looked.set()

        with ThreadPoolExecutor(1) as pool:
            report = pool.submit(verify, service.store, watcher=watch, patience_s=60.0)
            assert looked.wait(60)
            service.control.lift(held)
            assert peer.read_response().status == (0xA700 if refused else 0)
            assert report.result(60).findings == ()
        check(service.store, one.old.path, one.old if refused else one.new)
        peer.release()


# Somebody is killed -------------------------------------------------------------------------------

STEPS: Final = {
    "record made": (OPEN, ".record", 0),
    "record written": (WRITE, ".record", 0),
    "record flushed": (FLUSH, ".record", 0),
    "record's name flushed": (FLUSH, "/replaced", 1),
    "second name": (LINK, ".copy", 0),
    "second name flushed": (FLUSH, "/replaced", 2),
    "named": (RENAME, "/store/1.2.", 2),
    "folder flushed": (FLUSH, "/store/1.2.", 1),
    "journaled": (WRITE, ".jsonl", 0),
    "journal flushed": (FLUSH, ".jsonl", 0),
    "noted": (RENAME, ".over", 0),
    "note flushed": (FLUSH, "/replaced", 3),
    "record gone": (UNLINK, ".record", 0),
    "second name gone": (UNLINK, ".over", 1),
}
# Of the way back, after the flush of the newer line has failed.
BACK: Final = {
    "path given back": (RENAME, "/store/1.2.", 3),
    "path flushed": (FLUSH, "/store/1.2.", 2),
    "said again": (WRITE, ".jsonl", 1),
    "flushed again": (FLUSH, ".jsonl", 0),
    "second name gone": (UNLINK, ".kept", 0),
    "record gone": (UNLINK, ".record", 0),
}
# Ahead of the line of a buffered one its whole way is flushed, not only its folder.
BACK_BUFFERED: Final = BACK | {"path flushed": (FLUSH, "/store/1.2.", 3)}
WAYS: Final = {
    "all before": KILL_ALL_BEFORE,
    "worker after": KILL_AFTER,
    "all after": KILL_ALL_AFTER,
    "worker before": KILL_BEFORE,
}


Step = tuple[tuple[int, str, int], str]


def killed(
    tmp_path: Path, library: Path, durability: str, steps: Iterable[Step], *, back: bool
) -> None:
    """Kill at each of these steps in its way, in one store; the next start finds what is left."""
    shelf: Path | None = None
    left: tuple[Pair, list[Item]] | None = None
    for number, ((kind, path, skip), way) in enumerate(steps, 1):
        one = pair(number)
        service = replacing(tmp_path, library, durability, store=shelf)
        with service:
            if left is not None:
                goes_on(service, *left)
            with service.peer() as peer:
                assert put(peer, 1, one.old) == 0
                if back:
                    service.control.rule([FLUSH], FAIL, error=errno.EIO, path=".jsonl", left=1)
                rule = service.control.rule([kind], WAYS[way], path=path, skip=skip, left=1)
                peer.send(store(2, one.new.data, sop=one.new.sop))
                try:
                    status = peer.read_response().status
                except (OSError, AssertionError):
                    status = -1
                assert service.control.hits(rule) == 1, f"{path} was not reached"
                service.control.lift(rule)
            allowed = (
                [one.new] if status == 0 else [one.old] if status == 0xA700 else [one.old, one.new]
            )
            if way.startswith("all"):
                service.process.wait(DEADLINE_S)
            else:
                # The service lives, and ends what its worker had in hand: all but a record that
                # was not whole yet, which nobody can tell from one that is being written.
                service.in_log("ended unexpectedly")
                wait_for(lambda service=service: not in_hand(service.store), "the end of it")  # type: ignore[misc]
                check(service.store, one.old.path, *allowed, nothing_left=False)
            service.kill()
        shelf, left = service.store, (one, allowed)
    assert left is not None
    with Service(tmp_path, "--on-duplicate", "replace", store=shelf, workers=1) as after:
        goes_on(after, *left)


def goes_on(service: Service, one: Pair, allowed: Sequence[Item]) -> None:
    """One of both is there and nothing else is left; the other one takes its place."""
    there = check(service.store, one.old.path, *allowed)
    with service.peer() as peer:
        other = one.new if there is one.old else one.old
        assert put(peer, 1, other) == 0
        check(service.store, one.old.path, other)
        peer.release()


@pytest.mark.parametrize("durability", DURABILITIES)
def test_killed_at_a_step(tmp_path: Path, library: Path, durability: str) -> None:
    # Each step once, with one durability and the ways in turn: the long run has all combinations.
    steps = list(STEPS.values())[durability == "buffered" :: 2]
    killed(tmp_path, library, durability, zip(steps, cycle(WAYS), strict=False), back=False)


def test_killed_on_the_way_back(tmp_path: Path, library: Path) -> None:
    killed(tmp_path, library, "stable", zip(BACK.values(), cycle(WAYS), strict=False), back=True)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("durability", DURABILITIES)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("back", [False, True])
def test_killed_at_every_step(
    tmp_path: Path, library: Path, durability: str, way: str, back: bool
) -> None:
    steps_back = BACK_BUFFERED if durability == "buffered" else BACK
    steps = steps_back if back else STEPS
    killed(tmp_path, library, durability, ((step, way) for step in steps.values()), back=back)


# The power fails ----------------------------------------------------------------------------------


# How much of what was not flushed survives. Only some draws show what a mutant leaves out.
LUCKS: Final = (0.0, 0.3, 0.7, 1.0)
MANY_LUCKS: Final = (*LUCKS, *[0.5] * 8)


def answers(events: Sequence[Event]) -> list[int]:
    return [status for e in events if e.kind == SEND for _uid, status in acknowledged(e.data)]


def started(left: Path, *sent: Item) -> Item:
    """What the path holds once a start has settled what a power cut left."""
    store_fd = os.open(left / "store", os.O_RDONLY)
    try:
        cleared = settle_alone(store_fd, "main")
        assert all(finding.settled for finding in cleared.findings), cleared
        # Once more changes nothing.
        assert settle_alone(store_fd, "main").findings == ()
    finally:
        os.close(store_fd)
    return check(left / "store", sent[0].path, *sent)


def cut(
    tmp_path: Path,
    events: Sequence[Event],
    root: int,
    begin: int,
    sent: Sequence[Item],
    lucks: Sequence[float] = LUCKS,
) -> set[Item]:
    """Cut after each event from `begin` on, and start on what is left; returns what was there.

    sent: to one path, each with its answer before the next.
    """
    found = set()
    with scratch(tmp_path) as folder:
        left = folder / "left"
        for seed, luck in enumerate(lucks):
            rng = random.Random(seed)
            disk = Disk(root)
            for event in events[:begin]:
                disk.play(event)
            for place in range(begin, len(events)):
                disk.play(events[place])
                write_tree(disk.after_cut(luck, rng), left)
                there = started(left, *sent)
                found.add(there)
                told = answers(events[: place + 1])
                if told[-1:] == [0] and len(told) == len(sent):
                    assert there is sent[-1], f"cut {place}: what was acknowledged is lost"
                if told[1:] == [0xA700]:
                    assert there is sent[0], f"cut {place}: a refused instance changed something"
                shutil.rmtree(left)
    return found


@pytest.mark.parametrize("link", [True, False], ids=["link", "copy"])
def test_a_power_cut_at_any_step_of_a_stable_replacement(
    tmp_path: Path, library: Path, link: bool
) -> None:
    one = pair()
    with replacing(tmp_path, library, log=True) as service, service.peer() as peer:
        root = service.root.stat().st_ino
        if not link:
            service.control.rule([LINK], FAIL, error=errno.EPERM, path="/replaced/")
        assert put(peer, 1, one.old) == 0
        begin = len(service.events())
        assert put(peer, 2, one.new) == 0
        peer.release()
        events = service.events()
    assert cut(tmp_path, events, root, begin, (one.old, one.new)) == {one.old, one.new}
    # The answer is worth something: from there on it is the newer one, with no luck at all.
    told = next(n for n in range(begin, len(events)) if len(answers(events[: n + 1])) == 2)
    assert cut(tmp_path, events, root, told, (one.old, one.new)) == {one.new}


def cut_on_the_way_back(
    tmp_path: Path,
    library: Path,
    env: Mapping[str, str] | None = None,
    *,
    fails: bool = False,
) -> set[Item]:
    """The refused instance's line may stand in the journal, whole. fails: the return does."""
    one = pair()
    with replacing(tmp_path, library, log=True, env=env) as service, service.peer() as peer:
        root = service.root.stat().st_ino
        assert put(peer, 1, one.old) == 0
        begin = len(service.events())
        service.control.rule([FLUSH], FAIL, error=errno.EIO, path=".jsonl", left=1)
        if fails:
            service.control.rule([RENAME], FAIL, error=errno.EIO, path="/store/1.2.", skip=3)
        assert put(peer, 2, one.new) == 0xA700
        peer.release()
        events = service.events()
    lucks = MANY_LUCKS if env else LUCKS
    found = cut(tmp_path, events, root, begin, (one.old, one.new), lucks)
    # The newer one stays only where that was noted before its answer.
    assert found == {one.old}
    return found


def cut_where_the_return_fails(
    tmp_path: Path, library: Path, env: Mapping[str, str] | None = None
) -> set[Item]:
    return cut_on_the_way_back(tmp_path, library, env, fails=True)


def cut_where_the_note_fails(
    tmp_path: Path, library: Path, env: Mapping[str, str] | None = None
) -> set[Item]:
    """Its flush does, and it stands; the older content has its path back, or gets it with luck."""
    one = pair()
    with replacing(tmp_path, library, log=True, env=env) as service, service.peer() as peer:
        root = service.root.stat().st_ino
        assert put(peer, 1, one.old) == 0
        begin = len(service.events())
        full = errno.ENOSPC
        service.control.rule([FLUSH], FAIL, error=full, path="/replaced", skip=3, left=1)
        service.control.rule([RENAME], FAIL, error=full, path=".kept", skip=1)
        service.control.rule([RENAME], FAIL, error=full, path="/store/1.2.", skip=3, left=1)
        assert put(peer, 2, one.new) == 0xA700
        peer.release()
        events = service.events()
    told = next(n for n in range(begin, len(events)) if len(answers(events[: n + 1])) == 2)
    return cut(tmp_path, events, root, told, (one.old, one.new))


@pytest.mark.parametrize(
    "way", [cut_on_the_way_back, cut_where_the_return_fails, cut_where_the_note_fails]
)
def test_a_power_cut_at_any_step_of_the_way_back(
    tmp_path: Path, library: Path, way: Callable[..., set[Item]]
) -> None:
    assert len(way(tmp_path, library)) == 1


def cut_buffered(tmp_path: Path, library: Path, env: Mapping[str, str] | None = None) -> set[Item]:
    """A buffered instance replaces a stable one."""
    one = pair()
    with replacing(tmp_path, library, log=True) as stable, stable.peer() as peer:
        root = stable.root.stat().st_ino
        assert put(peer, 1, one.old) == 0
        peer.release()
    with (
        replacing(tmp_path, library, "buffered", log=True, env=env) as service,
        service.peer() as peer,
    ):
        begin = len(service.events())
        assert put(peer, 1, one.new) == 0
        peer.release()
        events = service.events()
    before = stable.events()
    lucks = MANY_LUCKS if env else LUCKS
    return cut(tmp_path, [*before, *events], root, len(before) + begin, (one.old, one.new), lucks)


def test_a_power_cut_when_a_buffered_instance_replaces_a_stable_one(
    tmp_path: Path, library: Path
) -> None:
    assert len(cut_buffered(tmp_path, library)) == 2


def test_a_power_cut_between_two_replacements_of_a_path(tmp_path: Path, library: Path) -> None:
    one = pair()
    third = items("1", 1, seed=99)[0]
    with replacing(tmp_path, library, log=True) as service, service.peer() as peer:
        root = service.root.stat().st_ino
        assert put(peer, 1, one.old) == 0
        assert put(peer, 2, one.new) == 0
        begin = len(service.events())
        assert put(peer, 3, third) == 0
        peer.release()
        events = service.events()
    # The first of the three is never back.
    assert cut(tmp_path, events, root, begin, (one.old, one.new, third)) == {one.new, third}


# Mutants ------------------------------------------------------------------------------------------

_KEEP: Final = "fastscp/store/replaced.py"
_END: Final = "fastscp/store/restore.py"
_KEEPING: Final = "        self._replaced.keep(name, lock_of(self.path), doubtful=is_doubtful)\n"
_NAMING: Final = """            with holder(name, self._store_fd) as (folder_fd, base):
                os.rename(self._part, base, src_dir_fd=self._incoming_fd, dst_dir_fd=folder_fd)
        except OSError:
            self._replaced.failed(name)
            raise
"""
_KEPT: Final = "            _keep_content(store_fd, older, fd, folder_fd, stem)\n"
_FLUSHED: Final = "            flushes.folder(REPLACED)\n"
_NOTING: Final = """        try:
            flushes.folder(REPLACED)
        except OSError as error:
            # What was decided"""

# name -> what changes, and the way on which that is noticed.
MUTANTS: Final[dict[str, tuple[Changes, Callable[..., set[Item]]]]] = {
    "the older content is kept after it has lost its path": (
        [
            ("fastscp/store/duplicates.py", _KEEPING, "", 1),
            (
                "fastscp/store/duplicates.py",
                _NAMING,
                _NAMING + _KEEPING,
                1,
            ),
        ],
        cut_buffered,
    ),
    "no flush of what is kept": (
        [(_KEEP, _KEPT + _FLUSHED, _KEPT, 1)],
        cut_buffered,
    ),
    "no flush of the record's name": (
        [(_KEEP, _FLUSHED + _KEPT, _KEPT, 1)],
        cut_buffered,
    ),
    "no flush of the record": (
        [(_KEEP, "        os.fsync(fd)\n\n\ndef _keep", "\n\ndef _keep", 1)],
        cut_buffered,
    ),
    "the older content goes before the buffered line is flushed": (
        [("fastscp/worker/jobs.py", "                self._secured.flush(job.path)\n",
          "                pass\n", 1)],
        cut_buffered,
    ),
    "no flush of the note that the newer one stays": (
        [(_KEEP, _NOTING, _NOTING.replace("flushes.folder(REPLACED)", "pass"), 1)],
        cut_buffered,
    ),
    "the path is not flushed when it has the older content back": (
        [(_KEEP, "    flushes.way(path)\n\n\ndef take_away", "\n\ndef take_away", 1)],
        cut_on_the_way_back,
    ),
    "nothing says again what the path holds": (
        [(_END, "        self._say_again(known)\n", "", 1)],
        cut_on_the_way_back,
    ),
}  # fmt: skip
# Quick enough for every run.
_ALWAYS: Final = "the older content goes before the buffered line is flushed"


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name == _ALWAYS else pytest.mark.long, id=name)
        for name in MUTANTS
    ],
)
def test_a_way_that_leaves_out_or_swaps_a_step_is_caught(
    tmp_path: Path, library: Path, name: str
) -> None:
    changes, way = MUTANTS[name]
    mutant = mutate(changes, tmp_path / "mutant")
    with pytest.raises(AssertionError) as caught:
        way(tmp_path, library, {"PYTHONPATH": str(mutant)})
    # It answered as if nothing were wrong, and only what a power cut leaves tells.
    assert caught.traceback[-1].name in ("check", "cut", "started"), caught.value
