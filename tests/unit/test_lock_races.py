"""Many starts at one store that is not there yet, and some of them fail."""

from __future__ import annotations

import errno
import fcntl
import multiprocessing
import os
import random
from typing import TYPE_CHECKING

import pytest

from fastscp.errors import StartError, StoreBusyError
from fastscp.store import store as store_module
from fastscp.store.store import Store
from tests.stores import FILED

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("no_descriptor_left")

PROCESSES = 6
STARTS = 40


def _at_first_lock(monkeypatch: pytest.MonkeyPatch, meanwhile: Callable[[], None]) -> None:
    """Call `meanwhile` when the next start has opened the lock file and not yet locked it."""
    real = fcntl.flock
    waiting = [meanwhile]

    def flock(fd: int, operation: int) -> None:
        if waiting:
            waiting.pop()()
        real(fd, operation)

    monkeypatch.setattr(fcntl, "flock", flock)


def _holds(store: Store, path: Path) -> bool:
    """Whether the store holds the lock file that everybody else finds."""
    there = (path / ".fastscp/lock").stat()
    return os.path.samestat(os.fstat(store.lock_fd), there)


def test_whoever_made_the_lock_file_and_loses_leaves_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a/store"
    winners: list[Store] = []
    _at_first_lock(monkeypatch, lambda: winners.append(Store.open(path, FILED)))
    with pytest.raises(StoreBusyError, match=f"process {os.getpid()}"):
        Store.open(path, FILED)
    (winner,) = winners
    assert _holds(winner, path)
    # The winner takes away what it holds, whoever made it.
    winner.unmake()
    assert not (path / ".fastscp/lock").exists()
    winner.close()


def test_a_lock_file_that_was_taken_away_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a/store"

    def fail() -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(store_module, "begin_life", _broken)
            with pytest.raises(StartError):
                Store.open(path, FILED)

    _at_first_lock(monkeypatch, fail)
    store = Store.open(path, FILED)
    assert _holds(store, path)
    store.unmake()
    store.close()
    assert not (path / ".fastscp/lock").exists()


def test_a_lock_file_removed_by_hand(tmp_path: Path) -> None:
    """The store may be another service's by then: nothing in it is taken away."""
    path = tmp_path / "store"
    first = Store.open(path, FILED)
    (path / ".fastscp/lock").unlink()
    second = Store.open(path, FILED)
    first.unmake()
    first.close()
    assert _holds(second, path)
    assert (path / ".fastscp/store.toml").exists()
    assert second.lost() is None
    second.close()


def _broken(*_: object, **__: object) -> bool:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def _start_again_and_again(
    number: int, base: Path, begin: tuple[int, int], told: Connection
) -> None:
    chance = random.Random(number)
    faults: list[str] = []
    held = 0
    path = base / "a/store"
    os.close(begin[1])
    os.read(begin[0], 1)  # until everybody has closed the other end
    for _ in range(STARTS):
        fails_late = chance.random() < 0.5
        try:
            with pytest.MonkeyPatch.context() as patch:
                if fails_late:
                    patch.setattr(store_module, "begin_life", _broken)
                store = Store.open(path, FILED)
        except StoreBusyError:
            continue
        except StartError as error:
            if not fails_late or os.strerror(errno.EIO) not in str(error):
                faults.append(f"a start failed: {error}")
            continue
        except Exception as error:
            faults.append(repr(error))
            continue
        held += 1
        alone = base / "alone"
        try:
            alone.touch(exist_ok=False)
        except FileExistsError:
            faults.append("two hold the store")
        if not path.exists() or not _holds(store, path):
            faults.append("the lock file that others find is not the one that is held")
        alone.unlink(missing_ok=True)
        store.unmake()
        store.close()
    told.send((held, faults))


def test_at_most_one_holds_a_store_whatever_fails(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    begin = os.pipe()
    ends = [context.Pipe(duplex=False) for _ in range(PROCESSES)]
    processes = [
        context.Process(target=_start_again_and_again, args=(number, tmp_path, begin, told))
        for number, (_told, told) in enumerate(ends)
    ]
    for process in processes:
        process.start()
    for fd in begin:
        os.close(fd)
    reports = [told.recv() for told, _end in ends]
    for process, end in zip(processes, ends, strict=True):
        process.join()
        process.close()
        for connection in end:
            connection.close()
    assert [fault for _held, faults in reports for fault in faults] == []
    assert sum(held for held, _faults in reports) > 0
    assert not (tmp_path / "a/store/.fastscp/lock").exists()
    # A start that comes later has it for itself.
    store = Store.open(tmp_path / "a/store", FILED)
    store.close()
