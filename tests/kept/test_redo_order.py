"""The order of the commit through the redo log, proved by what reached the disk; and that a wrong
order is noticed.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from typing import TYPE_CHECKING, Final

import pytest

from tests.kept.kit_kept import (
    FLUSH,
    MKDIR,
    WRITE,
    Interposed,
    Sending,
    items,
    send_all,
    violations,
)
from tests.kept.redo_order import Order, lane_violations
from tests.kept.test_order import Changes, mutate
from tests.kit import Service, wait_for
from tests.redo_files import BLOCK

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from tests.kept.kit_kept import Event

FLAGS: Final = ("--redo", "on", "--min-free-space", "0")


def _heads(store: Path, size: int) -> dict[str, bytes]:
    """What the log files begin with, by name."""
    found = {}
    for path in (store / ".fastscp/redo").glob("*.log"):
        # One that cannot be used any more goes.
        with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
            found[path.name] = file.read(size)
    return found


def salts(store: Path) -> dict[str, bytes]:
    """What tells each use of a log file from the one before it."""
    return {name: head[_SALT] for name, head in _heads(store, BLOCK).items()}


def is_ready(store: Path, count: int) -> bool:
    """Whether there are so many log files that can be used."""
    return sum(any(salt) for salt in salts(store).values()) >= count


def is_at_rest(store: Path) -> bool:
    """Whether no log file has anything that counts: all is checkpointed, and none is under way."""
    heads = _heads(store, BLOCK + _BATCH_SALT.stop).values()
    return not any(head[BLOCK:][_BATCH_SALT] == head[_SALT] for head in heads)


def _all_have_served(store: Path) -> bool:
    """Whether each worker that has a log file has written to one.

    The first has its name a moment before the worker goes by it.
    """
    heads = _heads(store, BLOCK + len(_BATCH))
    served = {name.rpartition("-")[0] for name, head in heads.items() if head[BLOCK:] == _BATCH}
    return served == {name.rpartition("-")[0] for name in heads}


def with_logs(
    service: Service, count: int, clock: Callable[[], int] = time.monotonic_ns
) -> list[Sending]:
    """Send until there are so many log files, with nothing in them; returns what was sent.

    A worker asks for its own. What comes next takes the log, however late it comes: its checkpoint
    is the first from then on.
    """
    sendings = []

    def sent() -> bool:
        number = next(_NUMBERS)
        done = send_all(service.port, items(f"9.{number}", 4), window=1, clock=clock)
        assert not done.broken
        sendings.extend(done.sendings)
        return is_ready(service.store, count) and _all_have_served(service.store)

    wait_for(sent, "log files")
    wait_for(lambda: is_at_rest(service.store), "the checkpoint of what was sent for them")
    return sendings


# In block 0, and in the header of a batch.
_SALT: Final = slice(16, 24)
_BATCH_SALT: Final = slice(8, 16)
_BATCH: Final = b"FSCPBTCH"
_NUMBERS: Final = iter(range(1, 1 << 30))


def scenario(
    tmp_path: Path,
    library: Path,
    *flags: str,
    env: Mapping[str, str] | None = None,
    nameless: bool = False,
) -> tuple[int, list[str], Order]:
    """New folders, known folders, identical and different resends, log files used again."""
    with Interposed(tmp_path, library, *FLAGS, *flags, env=env, nameless=nameless) as service:
        with_logs(service, 2)
        first = items("1", 40)
        assert not send_all(service.port, first).broken
        assert not send_all(service.port, first[:6], associations=8, all_to_each=True).broken
        assert not send_all(service.port, items("1", 40, seed=1000)[:6]).broken
        # Every file that was used is free again, about a second later.
        wait_for(lambda: is_at_rest(service.store), "the checkpoints")
        assert not send_all(service.port, items("1", 80)[40:]).broken
    events, ino = service.events(), service.store.stat().st_ino
    count, bad = violations(events, ino)
    return count, bad, lane_violations(events, ino)


@pytest.mark.parametrize(
    ("flags", "nameless"), [((), False), ((), True), (("--compress", "zstd:1"), False)]
)
def test_every_instance_went_through_all_steps_in_order(
    tmp_path: Path, library: Path, flags: tuple[str, ...], nameless: bool
) -> None:
    count, bad, order = scenario(tmp_path, library, *flags, nameless=nameless)
    assert bad == []
    assert order.bad == []
    assert count >= 40 + 6 * 8 + 6 + 40
    # Those whose paths were free; each log file was renewed or removed once more than filled.
    assert order.laned >= 60
    assert order.renewed >= 3


def test_a_checkpoint_flushes_a_folder_once(tmp_path: Path, library: Path) -> None:
    """Also where files come to several folders by turns."""
    what = items("1", 60, series=1)
    with Interposed(tmp_path, library, *FLAGS, workers=1) as service:
        # A second one for what comes while the first is in a checkpoint.
        with_logs(service, 2)
        before = len(service.events())
        assert not send_all(service.port, what, associations=1).broken
        # Another one may end first, in the middle.
        events = wait_for(lambda: _checkpointed(service.events()[before:]), "the last checkpoint")
    folders = _made(events)
    assert len(folders) == 6
    flushes = Counter(e.ino for e in events if e.kind == FLUSH and e.ino in folders)
    renewals = sum(_is_renewal(e) for e in events)
    # Twenty files of each study come to its one series.
    assert renewals < 10
    assert max(flushes.values()) <= renewals
    assert flushes.keys() == folders


def _made(events: Sequence[Event]) -> set[int]:
    return {e.ino for e in events if e.kind == MKDIR and e.result == 0}


def _is_renewal(event: Event) -> bool:
    return event.kind == WRITE and event.data[:8] == b"FSCPREDO"


def _checkpointed(events: Sequence[Event]) -> Sequence[Event]:
    """What is whole: up to the last log file's renewal, once one is behind the flushes of all
    folders that were made. A checkpoint that is under way has flushed and not renewed.
    """
    last = max((n for n, event in enumerate(events) if _is_renewal(event)), default=-1)
    whole = events[: last + 1]
    return whole if _made(events) <= {e.ino for e in whole if e.kind == FLUSH} else ()


# Mutants ------------------------------------------------------------------------------------------

REDO: Final = "fastscp_ext/commit/redo.pyx"
CHECKPOINT: Final = "fastscp_ext/commit/checkpoint.pyx"
LOGFILE: Final = "fastscp_ext/commit/logfile.pyx"
_WRITE: Final = "    failed = _write_all(log.fd, batch.bytes, <size_t>whole, log.at)"
_HEADER: Final = "    failed = _write_header(log, origin)"
_FLUSH: Final = " or flush_file(log.fd, 0)\n"
_NO_FLUSH: Final = (LOGFILE, _WRITE + _FLUSH, f"{_WRITE}\n", 1)
_STEPS: Final = "    _name_all(r, log)\n    _journal(r, log)\n"
MUTANTS: Final[dict[str, Changes]] = {
    "no flush of the log": [_NO_FLUSH],
    "log flushed after the names": [
        _NO_FLUSH,
        (
            REDO,
            _STEPS,
            _STEPS.replace("    _journal", "    flush_file(log.fd, 0)\n    _journal"),
            1,
        ),
    ],
    "log flushed after the lines": [
        _NO_FLUSH,
        (REDO, _STEPS, f"{_STEPS}    flush_file(log.fd, 0)\n", 1),
    ],
    "answers before the lines": [
        (REDO, "    _journal(r, log)\n", "", 1),
    ],
    "reuse before the files are flushed": [
        (CHECKPOINT, "    cdef int count = log.kept + 1\n", "    cdef int count = 1\n", 1)
    ],
    "reuse before the folders are flushed": [
        (CHECKPOINT, "        failed = _flush_folders(r, log)\n", "", 1)
    ],
    "reuse before the journal is flushed": [
        (CHECKPOINT, "    r.jobs[0].fd = log.journal_fd\n", "    r.jobs[0].fd = -1\n", 1)
    ],
    "log file named before it is flushed": [
        (LOGFILE, "    cdef int failed = flush_file(log.fd, 1)\n", "    cdef int failed = 0\n", 1)
    ],
    "log file used before its name is flushed": [
        (LOGFILE, "    failed = flush_file(folder_fd, 1)\n", "", 1)
    ],
    "reuse before the new salt is flushed": [(LOGFILE, _HEADER + _FLUSH, f"{_HEADER}\n", 1)],
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name == "no flush of the log" else pytest.mark.long, id=name)
        for name in MUTANTS
    ],
)
def test_a_lane_that_leaves_out_or_swaps_a_step_is_caught(
    tmp_path: Path, library: Path, name: str
) -> None:
    mutant = mutate(MUTANTS[name], tmp_path / "mutant")
    count, bad, order = scenario(tmp_path, library, env={"PYTHONPATH": str(mutant)})
    assert count >= 134
    assert bad or order.bad
