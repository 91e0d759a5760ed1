"""How many open files the service needs at worst: the numbers of the check, and the check."""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import resource
import subprocess
import threading
from dataclasses import replace
from pathlib import Path

import pytest

import fastscp_ext
from fastscp.config.settings import ServeConfig
from fastscp.config.tables import AeTable, Tables
from fastscp.errors import ConfigError
from fastscp.main import descriptors
from fastscp.main.acceptor import AT_ONCE
from fastscp.main.descriptors import (
    associations_allowed,
    log_needs,
    main_needs,
    redo_files_allowed,
    worker_needs,
)
from fastscp.main.dispatch import OFFERED_MOST, TURNED_AWAY_MOST, WAITING_MOST
from fastscp.store import replaced
from fastscp.store.flushes import Flushes
from fastscp.store.leftovers import AT_ONCE as SETTLED_AT_ONCE
from fastscp.store.leftovers import settle_beside
from fastscp.store.names import JOURNAL, REPLACED
from fastscp.store.waits import lock_of
from tests.kit import Service
from tests.unit.test_jobs import Site


@pytest.fixture
def limit(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """The limit that the system is made to have; `soft` is what the check makes of it."""
    limits = {"soft": 256, "hard": 4096}

    def set_(_what: int, pair: tuple[int, int]) -> None:
        limits["soft"], limits["hard"] = pair

    monkeypatch.setattr(resource, "getrlimit", lambda _what: (limits["soft"], limits["hard"]))
    monkeypatch.setattr(resource, "setrlimit", set_)
    return limits


@pytest.mark.parametrize(
    ("number", "counted"),
    [
        (r"UNCOMMITTED_MOST = (\d+)", descriptors._UNCOMMITTED),
        (r"#define REMOVALS_MOST (\d+)", descriptors._LEFTOVERS),
        (r"\bBATCH_MOST = (\d+)", descriptors._BATCH),
        (r"\bOPEN_MOST = (\d+)", descriptors._PARENTS),
        (r"\bLOG_FILES = (\d+)", descriptors._REDO_FILES),
        (r"\bFOLDERS_AT_ONCE = (\d+)", descriptors._REDO_FOLDERS),
    ],
)
def test_the_codec_keeps_to_the_numbers(number: str, counted: int) -> None:
    sources = Path(fastscp_ext.__file__).parent
    texts = [path.read_text() for kind in ("*.pxd", "*.pyx", "*.h") for path in sources.rglob(kind)]
    assert [int(found) for text in texts for found in re.findall(number, text)] == [counted]


def test_so_many_helpers(tmp_path: Path) -> None:
    async def threads() -> int:
        before = set(threading.enumerate())
        site = Site(tmp_path)
        try:
            return len(set(threading.enumerate()) - before)
        finally:
            await site.close()

    assert asyncio.run(threads()) == descriptors._HELPERS


def test_main_has_room_for_the_locks_of_all_it_settles_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dead worker may have left more of them; main settles them beside all it does."""
    for name in ("fsync", "fdatasync"):
        monkeypatch.setattr(os, name, lambda _fd: None)
    (tmp_path / JOURNAL).mkdir(parents=True)
    paths = {lock_of(f"{n}"): f"{n}" for n in range(SETTLED_AT_ONCE + 3)}
    open_files: list[int] = []

    class Batches:
        def batches(self) -> list[tuple[int, int, int]]:
            open_files.append(len(os.listdir("/proc/self/fd")))
            return []

        def under_way(self, _batch: tuple[int, int, int], /) -> bool:
            return False

    store_fd = os.open(tmp_path, os.O_RDONLY)
    try:
        for lock, path in paths.items():
            (tmp_path / path).write_text(path)
            replaced.keep(Flushes(store_fd), replaced.Record(path, lock, 1))
        before = len(os.listdir("/proc/self/fd"))
        settle_beside(os.dup(store_fd), "1-main-1", itertools.count(2).__next__, Batches())
    finally:
        os.close(store_fd)
    assert not list((tmp_path / REPLACED).iterdir())
    config = ServeConfig()
    on_their_way = OFFERED_MOST + WAITING_MOST + TURNED_AWAY_MOST + AT_ONCE * len(config.host)
    assert main_needs(config) >= max(open_files) - before + on_their_way


def test_the_defaults_fit_where_systems_allow_4096(limit: dict[str, int]) -> None:
    config = ServeConfig(workers=64)
    assert associations_allowed(config) == 1000
    assert limit["soft"] == 4096
    assert worker_needs(config, 1000) <= 4096
    assert main_needs(config) <= 2048


def test_another_listener_needs_its_own() -> None:
    one = main_needs(ServeConfig())
    both = main_needs(ServeConfig(tls_cert="c"))
    assert both - one >= AT_ONCE + 4
    assert main_needs(ServeConfig(tls_cert="c", no_plain=True)) == one


def test_what_does_not_fit_is_refused(limit: dict[str, int]) -> None:
    config = ServeConfig(max_associations=1000)
    needed = worker_needs(config, 1000)
    limit["hard"] = needed
    assert associations_allowed(config) == 1000
    limit["hard"] = needed - 1
    with pytest.raises(ConfigError, match=r"allow at most 999$") as refused:
        associations_allowed(config)
    assert f"having 1000 at a time takes {needed} open files, the limit is {needed - 1}" in str(
        refused.value
    )
    assert associations_allowed(ServeConfig(max_associations=999)) == 999


def test_each_directory_of_the_layout_counts() -> None:
    flat, deep = (
        ServeConfig(layout=f"{folders}{{SOPInstanceUID}}.dcm")
        for folders in ("", "{PatientID}/{StudyInstanceUID}/{SeriesInstanceUID}/")
    )
    assert worker_needs(deep, 0) - worker_needs(flat, 0) == 3 * descriptors._BATCH
    flat, deep = (
        ServeConfig(layout=config.layout, durability="buffered") for config in (flat, deep)
    )
    assert worker_needs(deep, 0) == worker_needs(flat, 0)


def test_tables_count() -> None:
    """The deepest layout of what is flushed; and instances wait for either durability."""

    def needs(*tables: dict[str, str], **settings: str) -> int:
        config = ServeConfig(
            layout="{SOPInstanceUID}.dcm",
            tables=Tables(tuple(AeTable(f"T{n}", values) for n, values in enumerate(tables))),
            **settings,  # type: ignore[arg-type]
        )
        return worker_needs(config, 0)

    deep = {"layout": "a/b/{SOPInstanceUID}.dcm"}
    plain = needs()
    assert needs({}) == needs({"durability": "stable"}) == plain
    assert needs(deep, {"layout": "a/{SOPInstanceUID}.dcm"}) == plain + 2 * descriptors._BATCH
    both = plain + descriptors._UNCOMMITTED + descriptors._LEFTOVERS
    assert needs({"durability": "buffered"}) == needs(deep | {"durability": "buffered"}) == both
    assert needs(durability="buffered") < needs({"durability": "stable"}, durability="buffered")
    assert needs({"durability": "stable"}, durability="buffered") == both
    assert needs(deep | {"durability": "stable"}, durability="buffered") > both


def test_without_a_limit_the_open_files_are_one(limit: dict[str, int]) -> None:
    config = ServeConfig(max_associations=0, redo="off")
    allowed = associations_allowed(config)
    assert worker_needs(config, allowed) <= 4096 < worker_needs(config, allowed + 1)
    limit["hard"] = resource.RLIM_INFINITY
    assert associations_allowed(config) > 100_000


def test_all_that_a_redo_log_keeps_open_counts() -> None:
    """Of each file itself and the lines' journal file; of a checkpoint the folders to their top."""
    folder, rest = "{StudyInstanceUID}/", "{SOPInstanceUID}.dcm"
    flat, deep = (ServeConfig(layout=folder * levels + rest) for levels in (0, 3))
    files, parents = descriptors._REDO_FILES, descriptors._PARENTS
    # The store, and beside its files those that the lane writes lines to.
    assert log_needs(flat, 100) - 100 >= 2 * files + 1 + parents + 1
    assert log_needs(deep, 100) - log_needs(flat, 100) == 3 * descriptors._REDO_FOLDERS
    assert log_needs(deep, 0) == 0


def test_the_redo_log_gets_what_the_associations_leave(limit: dict[str, int]) -> None:
    config = ServeConfig(max_associations=100, redo="auto")
    needed = worker_needs(config, 100)
    beside = log_needs(config, 1) - 1
    for left, allowed in ((0, 0), (beside + 63, 0), (beside + 64, 64), (beside + 5000, 4096)):
        limit["hard"] = needed + left
        assert redo_files_allowed(config) == allowed
        assert associations_allowed(config) == 100
        assert redo_files_allowed(replace(config, redo="off")) == 0
        assert redo_files_allowed(replace(config, log_instance_size=0)) == 0
    # A reload takes nothing away from a log that is there.
    limit["hard"] = needed + beside + 64
    assert associations_allowed(config, 64) == 100
    more = replace(config, max_associations=101)
    assert associations_allowed(more) == 101
    with pytest.raises(ConfigError, match=r"allow at most 100$"):
        associations_allowed(more, 64)


@pytest.mark.parametrize("hard", [1700, 2048, 4096, 1 << 20])
def test_the_redo_log_and_as_many_associations_as_there_may_be(
    limit: dict[str, int], hard: int
) -> None:
    limit["hard"] = hard
    flat = "{SOPInstanceUID}.dcm"
    config = ServeConfig(max_associations=0, redo="on", layout=flat, workers=1)
    files, allowed = redo_files_allowed(config), associations_allowed(config)
    assert files <= hard // 8
    assert worker_needs(config, allowed, files) <= hard < worker_needs(config, allowed + 1, files)
    if hard >= 4096:
        assert files == min(4096, hard // 8 - log_needs(config, 1) + 1)


def test_where_not_even_one_fits(limit: dict[str, int]) -> None:
    limit["hard"] = 512
    with pytest.raises(ConfigError, match="having 1 at a time takes") as caught:
        associations_allowed(ServeConfig(max_associations=0))
    # Nothing that anybody could set makes it fit.
    assert caught.value.why.endswith("; raise it (ulimit -Hn, LimitNOFILE=)")
    flat = ServeConfig(max_associations=0, layout="{SOPInstanceUID}.dcm")
    limit["hard"] = max(main_needs(flat), worker_needs(flat, 1))
    assert associations_allowed(flat) >= 1
    with pytest.raises(ConfigError, match=r", or use a layout of fewer levels$"):
        associations_allowed(ServeConfig(max_associations=0, layout="a/b/c/d/{SOPInstanceUID}"))


def test_main_may_be_what_does_not_fit(limit: dict[str, int]) -> None:
    limit["hard"] = 2100
    config = ServeConfig(max_associations=10, workers=256, layout="{SOPInstanceUID}.dcm")
    assert worker_needs(config, 10) < 2100
    with pytest.raises(ConfigError, match=r", or use fewer workers$"):
        associations_allowed(config)


@pytest.mark.parametrize("limit", [8, 11, 20])
def test_too_few_for_a_loop_are_told_as_too_few(tmp_path: Path, limit: int) -> None:
    done = subprocess.run(
        [
            *("prlimit", f"--nofile={limit}:{limit}", *Service.program(), "serve"),
            *("--store", tmp_path / "store", "--host", "127.0.0.1", "--port", "0"),
        ],
        env=Service.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    (line,) = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (2, "")
    assert f" open files, the limit is {limit}; raise it" in line
