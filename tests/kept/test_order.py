"""The order of the commit, proved by what reached the disk; and that a wrong order is noticed."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

import fastscp
from tests.kept.kit_kept import FAIL, RENAME, Interposed, items, send_all, violations

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
) -> tuple[int, list[str]]:
    """New folders, known folders, identical and different resends; see `violations`."""
    service = Interposed(tmp_path, library, *flags, env=env)
    if link:
        service.control.rule([RENAME], FAIL, error=EINVAL, path="/probe/")
    with service:
        first = items("1", 40)
        again = items("1", 40, seed=1000)
        assert not send_all(service.port, first).broken
        assert not send_all(service.port, items("1", 80)[40:], associations=1, window=1).broken
        assert not send_all(service.port, first[:12], associations=8, all_to_each=True).broken
        assert not send_all(service.port, again[:6]).broken
        return violations(service.events(), service.store.stat().st_ino)


@pytest.mark.parametrize("flags", [(), ("--compress", "zstd:1"), ("--on-duplicate", "replace")])
def test_every_acknowledged_instance_went_through_all_steps_in_order(
    tmp_path: Path, library: Path, flags: tuple[str, ...]
) -> None:
    count, bad = scenario(tmp_path, library, *flags)
    assert bad == []
    assert count == 40 + 40 + 12 * 8 + 6


def test_the_order_holds_where_names_are_given_by_link(tmp_path: Path, library: Path) -> None:
    count, bad = scenario(tmp_path, library, link=True)
    assert bad == []
    assert count == 182


def test_buffered_durability_is_told_apart(tmp_path: Path, library: Path) -> None:
    _count, bad = scenario(tmp_path, library, "--durability", "buffered")
    assert len(bad) > 182


# Mutants ------------------------------------------------------------------------------------------

_NAMING: Final = """    while i != NULL:
        # The number is taken before the name is given: who replaces that file has a higher one,
        # though its line may be written first. Names given by a comparison are locked till then.
        if i.stage == STAGE_FLUSHED or i.stage == STAGE_NAMED:
            i.sequence = shared_add(site.sequence, 1)
        if i.stage == STAGE_FLUSHED:
            _name(site, c, i)
        i = i.next
"""
_FLUSHING: Final = """    if site.durable:
        _flush_directories(site, c, batch)
"""
_JOURNALING: Final = "    _journal(site, c, batch)\n"
_APPENDING: Final = """    cdef ssize_t got = -1
    while True:
        got = write(site.journal_fd, text, n)
"""
_JOURNAL_FLUSH: Final = """    if site.durable and fdatasync(site.journal_fd) < 0:
        return errno
"""

# name -> file, and text to replace and its replacement: each must be there as often as it says.
MUTANTS: Final[dict[str, tuple[str, list[tuple[str, str, int]]]]] = {
    "no data flush": (
        "fastscp_ext/commit.pyx",
        [
            ("c.jobs[n].whole = 0\n", "c.jobs[n].whole = c.jobs[n].error = 0\n", 1),
            ("    flusher_run(&c.threads, c.jobs, n)\n", "", 1),
        ],
    ),
    "data flush through another descriptor": (
        "fastscp_ext/commit.pyx",
        [
            (
                "            c.jobs[n].fd = i.fd\n",
                (
                    "            close(i.fd)\n"
                    "            i.fd = openat(site.incoming_fd, i.part, O_RDONLY | O_CLOEXEC)\n"
                    "            c.jobs[n].fd = i.fd\n"
                ),
                1,
            )
        ],
    ),
    "name before data flush": (
        "fastscp_ext/commit.pyx",
        [
            (
                "    _flush_parts(site, c, batch)\n" + _NAMING,
                _NAMING.replace("STAGE_FLUSHED", "STAGE_COMPLETE").replace(
                    "            _name(site, c, i)\n",
                    "            _name(site, c, i)\n"
                    "            if i.stage == STAGE_NAMED:\n"
                    "                i.stage = STAGE_COMPLETE\n",
                )
                + "    _flush_parts(site, c, batch)\n"
                "    i = batch\n"
                "    while i != NULL:\n"
                "        if i.stage == STAGE_FLUSHED:\n"
                "            i.stage = STAGE_NAMED\n"
                "        i = i.next\n",
                1,
            )
        ],
    ),
    "no directory flush": (
        "fastscp_ext/commit.pyx",
        [("    flusher_run(&c.threads, c.jobs, c.used)\n", "", 1)],
    ),
    "no flush of the named directory": (
        "fastscp_ext/commit.pyx",
        [
            (
                "    cdef uint32_t size = _parent(i.path, i.path_size)\n",
                "    cdef uint32_t size = _parent(i.path, _parent(i.path, i.path_size))\n",
                2,
            )
        ],
    ),
    "no flush of new parents": (
        "fastscp_ext/commit.pyx",
        [("        if _is_durable(c, ", "        if True or _is_durable(c, ", 2)],
    ),
    "directory flush before the name": (
        "fastscp_ext/commit.pyx",
        [
            (
                _NAMING + _FLUSHING,
                "    while i != NULL:\n"
                "        if i.stage == STAGE_FLUSHED:\n"
                "            make_parents(site.store_fd, i.path, i.path_size)\n"
                "            i.stage = STAGE_NAMED\n"
                "        i = i.next\n"
                "    _flush_directories(site, c, batch)\n"
                "    i = batch\n"
                "    while i != NULL:\n"
                "        if i.stage == STAGE_NAMED and i.has_part:\n"
                "            i.stage = STAGE_FLUSHED\n"
                "        i = i.next\n"
                "    i = batch\n" + _NAMING,
                1,
            )
        ],
    ),
    "journal before the directory flush": (
        "fastscp_ext/commit.pyx",
        [
            (
                _FLUSHING + _JOURNALING,
                _JOURNALING + _FLUSHING.replace("_flush_directories", "_flush_settled"),
                1,
            ),
            ("cdef void commit_batch(", "@FLUSH_SETTLED@cdef void commit_batch(", 1),
        ],
    ),
    "no journal line": (
        "fastscp_ext/commit.pyx",
        [
            (
                _APPENDING,
                "    return 0\n" + _APPENDING.replace("cdef ssize_t got = -1", "got = -1"),
                1,
            ),
            (
                "    # One write of whole lines: a reader sees them or does not. errno or 0.\n",
                "    cdef ssize_t got\n",
                1,
            ),
        ],
    ),
    "no journal flush": ("fastscp_ext/commit.pyx", [(_JOURNAL_FLUSH, "", 1)]),
    "journal flush before its line": (
        "fastscp_ext/commit.pyx",
        [
            (_JOURNAL_FLUSH, "", 1),
            (
                _APPENDING,
                _APPENDING.replace("    while True:\n", _JOURNAL_FLUSH + "    while True:\n"),
                1,
            ),
        ],
    ),
    "no flush of a new journal file's name": (
        "fastscp/store/journal.py",
        [
            (
                "                if self._durable:\n                    os.fsync(folder)\n",
                "                if self._durable:\n                    pass\n",
                1,
            )
        ],
    ),
    "no flush of an identical file": (
        "fastscp/store/duplicates.py",
        [("            os.fsync(fd)\n", "            pass\n", 1)],
    ),
}
# Quick enough for every run: one of each kind.
_ALWAYS: Final = ("no flush of new parents", "no flush of an identical file")


def mutate(name: str, into: Path) -> Path:
    """A copy of the packages with the mutation built in."""
    for package in ("fastscp", "fastscp_ext"):
        shutil.copytree(
            PACKAGES / package, into / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    file, changes = MUTANTS[name]
    source = into / file
    text = source.read_text()
    if name == "journal before the directory flush":
        # The same function, looking at the stage that the journal leaves.
        begin = text.index("cdef void _flush_directories(")
        end = text.index("# ---- journal", begin)
        again = text[begin:end].replace("_flush_directories", "_flush_settled")
        assert again.count("STAGE_NAMED") == 3
        again = again.replace("STAGE_NAMED", "STAGE_SETTLED and not i.error_no")
        changes = [(old, new.replace("@FLUSH_SETTLED@", again), n) for old, new, n in changes]
    for old, new, times in changes:
        assert text.count(old) == times, f"{name}: no longer in {file}:\n{old}"
        text = text.replace(old, new)
    source.write_text(text)
    if source.suffix == ".pyx":
        build(source)
    return into


def build(source: Path) -> None:
    """Compile one extension module in place, quickly rather than well."""
    root = source.parents[1]
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
    mutant = mutate(name, tmp_path / "mutant")
    count, bad = scenario(tmp_path, library, env={"PYTHONPATH": str(mutant)})
    # It answered 0000 as if nothing were wrong, and only the order tells.
    assert count == 182
    assert bad
