"""The order of the commit, proved by what reached the disk; and that a wrong order is noticed."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

import fastscp
from tests.kept.kit_kept import (
    CLOSE,
    FAIL,
    FLUSH,
    HOLD_BEFORE,
    OPEN,
    RENAME,
    Interposed,
    Sent,
    items,
    losses,
    send_all,
    violations,
)
from tests.kit import store, wait_for

if TYPE_CHECKING:
    from collections.abc import Mapping

EINVAL: Final = 22
PACKAGES: Final = Path(fastscp.__file__).parents[1]


def scenario(
    tmp_path: Path,
    library: Path,
    *flags: str,
    env: Mapping[str, str] | None = None,
    link: bool = False,
    nameless: bool = False,
) -> tuple[int, list[str]]:
    """New folders, known folders, identical and different resends; see `violations`."""
    service = Interposed(tmp_path, library, *flags, env=env, nameless=nameless)
    if link:
        service.control.rule([RENAME], FAIL, error=EINVAL, path="/probe/")
    with service:
        first = items("1", 40)
        again = items("1", 40, seed=1000)
        assert not send_all(service.port, first).broken
        assert not send_all(service.port, items("1", 80)[40:], associations=1, window=1).broken
        assert not send_all(service.port, first[:12], associations=8, all_to_each=True).broken
        assert not send_all(service.port, again[:6]).broken
        events = service.events()
        # The first of each path, where it is not to be compressed. One is the probe's.
        bare = sum(event.kind == OPEN and not event.name for event in events)
        assert bare > 80 if nameless and "--compress" not in flags else bare <= 1
        return violations(events, service.store.stat().st_ino)


@pytest.mark.parametrize("nameless", [False, True])
@pytest.mark.parametrize("flags", [(), ("--compress", "zstd:1"), ("--on-duplicate", "replace")])
def test_every_acknowledged_instance_went_through_all_steps_in_order(
    tmp_path: Path, library: Path, flags: tuple[str, ...], nameless: bool
) -> None:
    count, bad = scenario(tmp_path, library, *flags, nameless=nameless)
    assert bad == []
    assert count == 40 + 40 + 12 * 8 + 6


def test_the_order_holds_where_names_are_given_by_link(tmp_path: Path, library: Path) -> None:
    count, bad = scenario(tmp_path, library, link=True)
    assert bad == []
    assert count == 182


def test_buffered_durability_is_told_apart(tmp_path: Path, library: Path) -> None:
    _count, bad = scenario(tmp_path, library, "--durability", "buffered")
    assert len(bad) > 182


# A worker's rules by called AE title: STABLE has durable ones.
_TITLES: Final = """
from fastscp.worker import requested
from fastscp_ext import Rules, ae_title

establish = requested.establish


def by_title(receiver, accepted, rules, **more):
    if ae_title(accepted.ac.called_ae) == "STABLE":
        names = "layout digest on_duplicate strict compress_level max_instance_size".split()
        rules = Rules(durable=True, **{name: getattr(rules, name) for name in names})
    establish(receiver, accepted, rules, **more)


requested.establish = by_title
"""


def test_stable_and_buffered_associations_of_one_worker(tmp_path: Path, library: Path) -> None:
    """Every stable instance goes through all steps, also one that a buffered one came before."""
    (tmp_path / "titles").mkdir()
    (tmp_path / "titles/sitecustomize.py").write_text(_TITLES)
    env = {"PYTHONPATH": f"{tmp_path / 'titles'}:{PACKAGES}"}
    early, late, kept = items("1", 30), items("2", 60), items("3", 60)
    flags = ("--durability", "buffered")
    with Interposed(tmp_path, library, *flags, env=env, workers=1) as service:
        root, ino = service.root.stat().st_ino, service.store.stat().st_ino
        assert not send_all(service.port, early).broken

        def send_late() -> None:
            late_sent.append(send_all(service.port, late))

        late_sent: list[Sent] = []
        beside = threading.Thread(target=send_late)
        beside.start()
        stable = [send_all(service.port, what, called="STABLE") for what in (kept, early)]
        beside.join()
        sent = [*late_sent, *stable]
        assert not any(one.broken for one in sent)
        assert all(got == [0] for one in sent for got in one.statuses.values())
        events = service.events()
        durabilities = {fact["seq"]: fact.get("durability") for fact in service.journal()}
        assert sorted(map(str, durabilities.values())) == ["None"] * 90 + ["buffered"] * 90
    count, bad = violations(events, ino)
    assert count == 180
    assert {one.sop for one in kept}.isdisjoint(line.split(":")[0] for line in bad)
    assert {one.sop for one in late} <= {line.split(":")[0] for line in bad}
    sets = {one.sop: {one.data} for one in (*early, *late, *kept)}
    for luck in (0.0, 0.5):
        lost = losses(events, root, sets, [len(events)], luck, 1)
        assert lost
        assert all(any(one.sop in line or one.path in line for one in late) for line in lost), lost


def test_a_batch_leaves_what_is_younger_than_one_still_being_flushed(
    tmp_path: Path, library: Path
) -> None:
    """Names and lines are given in the order of completion, however the flushes end."""
    what = items("1", 5)
    with Interposed(tmp_path, library, workers=1) as service, service.peer(window=5) as peer:
        control = service.control

        def hold(path: str) -> int:
            return control.rule([FLUSH], HOLD_BEFORE, path=path, left=1)

        def put(number: int) -> None:
            peer.send(store(number, what[number - 1].data, sop=what[number - 1].sop))

        def held(rule: int) -> None:
            wait_for(lambda: control.hits(rule) == 1, "a flush being held")

        def is_closed(number: int) -> bool:
            """Whether a part is flushed: it is closed right afterwards."""
            made = [e.ino for e in service.events() if (e.kind, e.name) == (OPEN, part(number))]
            return any(e.kind == CLOSE and e.ino in made for e in service.events())

        def lines() -> list[int]:
            return [fact["message_id"] for fact in service.journal()]

        second, fourth, journal = hold(part(2)), hold(part(4)), hold(".jsonl")
        # While the first one's line is flushed, two more come. The next batch is theirs.
        put(1)
        held(journal)
        put(2)
        put(3)
        held(second)
        wait_for(lambda: is_closed(3), "the third being flushed")
        control.lift(journal)
        assert peer.read_statuses(1) == [(1, 0)]
        # Two more for the one after that, of which the younger is flushed first.
        put(4)
        put(5)
        held(fourth)
        wait_for(lambda: is_closed(5), "the fifth being flushed")
        control.lift(second)
        assert peer.read_statuses(2) == [(2, 0), (3, 0)]
        assert lines() == [1, 2, 3]
        control.lift(fourth)
        assert peer.read_statuses(2) == [(4, 0), (5, 0)]
        assert lines() == [1, 2, 3, 4, 5]
        peer.release()


def part(number: int) -> str:
    """What a worker calls its part files."""
    return f"{number:08x}.part"


# Mutants ------------------------------------------------------------------------------------------

COMMIT: Final = "fastscp_ext/commit/commit.pyx"
COMMITTER: Final = "fastscp_ext/commit/committer.pyx"
DIRECTORIES: Final = "fastscp_ext/commit/directories.pyx"

_NAMING: Final = """    while i != NULL:
        if i.stage == STAGE_FLUSHED:
            _name(worker, c, i)
        elif i.stage == STAGE_NAMED:
            # Its path is locked from the comparison on.
            i.sequence = word_add(worker.sequence, 1)
        instances += 1
        i = i.next
"""
_FLUSHING: Final = """    if c.durable:
        named_ns = monotonic_ns()
        flush_directories(worker, &c.directories, threads, batch)
"""
_AGAIN: Final = "cdef void flush_directories("
_CIMPORT: Final = "from fastscp_ext.commit.directories cimport flush_settled\n"
_DECLARED: Final = """cdef void flush_directories(
    Worker* worker, Directories* c, flusher* threads, Instance* batch) noexcept nogil
"""
_JOURNALING: Final = "    _journal(worker, c, batch)\n"
_APPENDING: Final = """    while done < n:
        got = write(journal.fd, text + done, n - done)
"""
_JOURNAL_FLUSH: Final = "    failed = flush_file(journal.fd, 0)\n"
_DATA_FLUSH: Final = "    i.flush.fd = i.fd if i.stage == STAGE_COMPLETE else -1\n"

_OF: Final = "parent_of(i.path, i.path_size)"


def _above(call: str) -> str:
    """The same call for the directory above the one that an instance is in."""
    return f"{call}i.path, parent_of(i.path, {_OF}))"


# File, text to replace, its replacement, and how often it must be there.
Changes = list[tuple[str, str, str, int]]
MUTANTS: Final[dict[str, Changes]] = {
    "no data flush": [(COMMITTER, _DATA_FLUSH, "    i.flush.fd = -1\n", 1)],
    "data flush through another descriptor": [
        (
            COMMITTER,
            _DATA_FLUSH,
            "    if i.stage == STAGE_COMPLETE:\n"
            "        close(i.fd)\n"
            "        i.fd = openat(c.worker.incoming_fd, i.part, 0)\n" + _DATA_FLUSH,
            1,
        ),
        (
            COMMITTER,
            "from posix.unistd cimport write\n",
            (
                "from posix.unistd cimport close, write\n"
                'cdef extern from "fcntl.h" nogil:\n'
                "    int openat(int folder, const char* name, int flags, ...)\n"
            ),
            1,
        ),
    ],
    "name before data flush": [
        (COMMITTER, _DATA_FLUSH, "    i.flush.fd = -1\n", 1),
        (
            COMMITTER,
            "        part_flushed(c.worker, i, job.error)\n",
            "        i.stage = 2\n",
            1,
        ),
        (
            COMMIT,
            _NAMING,
            _NAMING.replace(
                "            _name(worker, c, i)\n",
                "            _name(worker, c, i)\n"
                "            flush_file(i.fd, 0)\n"
                "            close(i.fd)\n"
                "            i.fd = -1\n",
            ),
            1,
        ),
    ],
    "no directory flush": [(DIRECTORIES, "    flusher_run(threads, c.jobs, count)\n", "", 1)],
    "no flush of the named directory": [
        (DIRECTORIES, f"_list_due(worker, c, i.path, {_OF})", _above("_list_due(worker, c, "), 1),
        (DIRECTORIES, f"_directory_error(c, i.path, {_OF})", _above("_directory_error(c, "), 1),
    ],
    "no flush of new parents": [
        (DIRECTORIES, "        if _is_durable(c, ", "        if True or _is_durable(c, ", 2)
    ],
    "directory flush before the name": [
        (
            COMMIT,
            _NAMING + _FLUSHING,
            "    while i != NULL:\n"
            "        if i.stage == STAGE_FLUSHED:\n"
            "            make_directory_of(\n"
            "                &c.directories, worker, i.path, parent_of(i.path, i.path_size))\n"
            "            i.stage = STAGE_NAMED\n"
            "        i = i.next\n" + _FLUSHING + "    i = batch\n"
            "    while i != NULL:\n"
            "        if i.stage == STAGE_NAMED and i.has_part:\n"
            "            i.stage = STAGE_FLUSHED\n"
            "        i = i.next\n"
            "    i = batch\n" + _NAMING,
            1,
        )
    ],
    "journal before the directory flush": [
        (
            COMMIT,
            _FLUSHING + _JOURNALING,
            _JOURNALING + _FLUSHING.replace("flush_directories", "flush_settled"),
            1,
        ),
        (
            COMMIT,
            "from fastscp_ext.commit.flush_pool ",
            f"{_CIMPORT}from fastscp_ext.commit.flush_pool ",
            1,
        ),
        (DIRECTORIES, _AGAIN, f"@FLUSH_SETTLED@{_AGAIN}", 1),
        (
            "fastscp_ext/commit/directories.pxd",
            _DECLARED,
            _DECLARED + _DECLARED.replace("flush_directories", "flush_settled"),
            1,
        ),
    ],
    "no journal line": [(COMMIT, _APPENDING, _APPENDING.replace("done < n", "False"), 1)],
    "no journal flush": [(COMMIT, _JOURNAL_FLUSH, "    failed = 0\n", 1)],
    "journal flush before its line": [
        (COMMIT, _JOURNAL_FLUSH, "    failed = 0\n", 1),
        (COMMIT, _APPENDING, "    if durable:\n    " + _JOURNAL_FLUSH + _APPENDING, 1),
    ],
    "no flush of a new journal file's name": [
        (
            "fastscp/store/journal.py",
            "                if self._durable:\n                    os.fsync(folder_fd)\n",
            "                if self._durable:\n                    pass\n",
            1,
        )
    ],
    "no flush of an identical file": [
        ("fastscp/store/duplicates.py", "        os.fsync(fd)\n", "        pass\n", 1)
    ],
}
# Quick enough for every run: one of each kind.
_ALWAYS: Final = ("no flush of new parents", "no flush of an identical file")


def changed(changes: Changes) -> dict[str, str]:
    """The files that a mutation changes, and their texts with it."""
    texts: dict[str, str] = {}
    for file, old, replacement, times in changes:
        text = texts.get(file) or (PACKAGES / file).read_text()
        assert text.count(old) == times, f"no longer in {file}:\n{old}"
        texts[file] = text.replace(old, replacement.replace("@FLUSH_SETTLED@", _again(text)))
    return texts


def mutate(changes: Changes, into: Path) -> Path:
    """A copy of the packages with the mutation built in."""
    for package in ("fastscp", "fastscp_ext"):
        shutil.copytree(PACKAGES / package, into / package)
    texts = changed(changes)
    for file, text in texts.items():
        (into / file).write_text(text)
    for file in texts:
        if file.endswith(".pyx"):
            build(into / file)
    return into


def _again(text: str) -> str:
    """The commit's function that flushes directories, for the stage that the journal leaves."""
    again = text[max(0, text.find(_AGAIN)) :]
    return f"{again}\n\n".replace("flush_directories", "flush_settled").replace(
        "STAGE_NAMED", "STAGE_SETTLED and not i.error_no"
    )


def build(source: Path) -> None:
    """Compile one extension module in place, quickly rather than well."""
    root = source.parents[2]
    subprocess.run(
        [sys.executable, "-m", "cython", "-3", "-X", "wraparound=False", "-X", "cdivision=True",
         "-X", "auto_pickle=False", "-o", source.with_suffix(".c"), source.relative_to(root)],
        cwd=root, check=True,
    )  # fmt: skip
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    subprocess.run(
        ["cc", "-std=c11", "-O0", "-w", "-fno-strict-aliasing", "-shared", "-fPIC",
         f"-I{sysconfig.get_path('include')}", f"-I{source.parent}",
         "-o", source.with_name(source.stem + suffix), source.with_suffix(".c")],
        check=True,
    )  # fmt: skip


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in _ALWAYS else pytest.mark.long, id=name)
        for name in MUTANTS
    ],
)
def test_a_commit_that_leaves_out_or_swaps_a_step_is_caught(
    tmp_path: Path, library: Path, name: str
) -> None:
    mutant = mutate(MUTANTS[name], tmp_path / "mutant")
    count, bad = scenario(tmp_path, library, env={"PYTHONPATH": str(mutant)})
    # It answered 0000 as if nothing were wrong, and only the order tells.
    assert count == 182
    assert bad
