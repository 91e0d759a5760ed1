"""A changed configuration in a service that runs: whole or not at all, and in every worker."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import threading
import time
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from fastscp import log as logs
from fastscp.config.settings import ServeConfig
from fastscp.config.tables import AeTable, Tables
from fastscp.config.values import read_allow_rule
from fastscp.errors import ConfigError, FastscpError
from fastscp.log import LEVELS
from fastscp.main import reload as module
from fastscp.main.control import Facts, taken
from fastscp.main.prepared import Prepared, prepare
from fastscp.main.redo import NO_REDO
from fastscp.main.reload import AFTER_A_RESTART, Reloader, Reloads
from fastscp.messages.configuration import Configuration, unpack
from fastscp.messages.control import Reloaded
from fastscp.tls.material import Material

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from pathlib import Path

    from fastscp.store.filing import Filings

CONFIG = ServeConfig(workers=2)

pytestmark = pytest.mark.usefixtures("no_descriptor_left")


class Played:
    """Reloads of a service whose parts note what they are told."""

    def __init__(self) -> None:
        self.read: list[ServeConfig | Exception] = []
        self.did: list[tuple[str, Any]] = []
        self.refuses: Exception | None = None
        self.laggards: list[Any] = []
        self.reading: threading.Event | None = None
        # Set once the store is being told; until `noting` is set it is not through.
        self.is_noting = threading.Event()
        self.noting: threading.Event | None = None
        # What of all that is called while a configuration is taken fails, as often as it is here.
        self.fails: list[str] = []
        self._tasks: set[asyncio.Task[None]] = set()
        workers: Any = SimpleNamespace(
            stopping=False, retired=0, redo=NO_REDO,
            resize=lambda count, linger_s: self._did("resize", (count, linger_s)),
            following=SimpleNamespace(configure=self._configure, laggards=self._laggards),
        )  # fmt: skip
        self.workers = workers
        store: Any = SimpleNamespace(path="/s", mixed=True, refile=self._refile)
        watch: Any = SimpleNamespace(limit=lambda free: self._did("watch", free))
        admission: Any = SimpleNamespace(
            limit=lambda _limits, book, titles: self._did("limit", (book, titles))
        )
        self.facts = Facts("run", 2, 0, taken(CONFIG, 1))
        shared: Any = SimpleNamespace(store=SimpleNamespace(mixed=False))
        self.shared = shared
        self.reloader = Reloader(
            CONFIG, load=self._load, facts=self.facts, shared=shared, store=store,
            store_watch=watch, admission=admission, workers=workers,
        )  # fmt: skip
        self.reloads = Reloads(self._background)
        self.reloads.begin(self.reloader)

    def _did(self, name: str, what: object) -> None:
        if name in self.fails:
            self.fails.remove(name)
            raise KeyError(f"a bug in {name}")
        self.did.append((name, what))

    async def noted(self) -> None:
        """Wait until the store is being told."""
        while not self.is_noting.is_set():  # noqa: ASYNC110 - a thread sets it
            await asyncio.sleep(0.001)

    def _load(self) -> ServeConfig:
        if self.reading is not None:
            assert self.reading.wait(60)
        read = self.read.pop(0)
        if isinstance(read, Exception):
            raise read
        return read

    def _refile(self, filings: Filings, durabilities: frozenset[str]) -> bool:
        assert threading.current_thread() is not threading.main_thread()
        if self.refuses is not None:
            raise self.refuses
        self.is_noting.set()
        if self.noting is not None:
            assert self.noting.wait(60)
        self.did.append(("refile", (filings, durabilities)))
        return False

    def _configure(self, told: Configuration, fd: int) -> None:
        assert unpack(fd) == told
        self._did("configure", told)
        os.close(fd)

    async def _laggards(self, _seconds: float) -> list[Any]:
        return self.laggards

    def _background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def reload(self, *read: ServeConfig | Exception) -> Reloaded:
        self.read += read
        return await self.reloads.reload()

    def names(self) -> list[str]:
        return [name for name, _what in self.did]


@pytest.fixture
def run(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[Callable[[Played], Coroutine[Any, Any, None]]], None]]:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(logs, "configure", lambda *_, **__: None)

    async def play(test: Callable[[Played], Coroutine[Any, Any, None]]) -> None:
        await test(Played())

    yield lambda test: asyncio.run(play(test))
    gc.collect()


def test_all_of_it_is_taken_and_told(
    run: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    new = replace(
        CONFIG, workers=3, min_free_space=7, max_associations_per_ae=5, reload_linger=60.0,
        tables=Tables((AeTable("A", {"durability": "buffered", "compress": "zstd"}),)),
    )  # fmt: skip

    async def test(played: Played) -> None:
        done = await played.reload(new)
        assert done == Reloaded(
            changed=(
                "workers: 2 -> 3",
                "max-associations-per-ae: 0 -> 5",
                "reload-linger: 1 h -> 60 s",
                "min-free-space: 1 GiB -> 7 B",
                "[ae.A]: added (durability = buffered, compress = zstd)",
            ),
            generation=2,
        )
        # What is noted on the disk comes first, and main's books before anybody can ask.
        assert played.names() == ["refile", "limit", "watch", "configure", "resize"]
        did = dict(played.did)
        filings, durabilities = did["refile"]
        assert durabilities == {"stable", "buffered"}
        assert [(key, filing.suffix) for key, filing in filings] == [
            ("default", ".dcm"),
            ("ae.A", ".dcm.zst"),
        ]
        book, _titles = did["limit"]
        assert book.generation == did["configure"].rules.generation == 2
        assert did["configure"].config == new.for_workers()
        assert did["watch"] == 7
        assert did["resize"] == (3, 60.0)
        assert (played.facts.workers, played.facts.min_free) == (3, 7)
        rules = played.facts.rules
        assert (rules.generation, rules.tables, rules.refused) == (2, 1, ())
        assert played.shared.store.mixed
        # From now on that is what a difference is told from.
        assert await played.reload(new) == Reloaded(generation=2)
        assert len(played.did) == 5

    run(test)
    said = [one.getMessage() for one in caplog.records]
    assert said[0] == "reload 2: taken: 5 differences"
    assert said[1] == "reload 2: workers: 2 -> 3"
    assert said[6].startswith("reload 2: durability buffered in [ae.A]: a power cut")
    assert said[7:] == ["reload: nothing is different that can be taken"]


@pytest.mark.parametrize("differs", [False, True])
def test_a_log_that_cannot_be_opened_anew_refuses_it(
    run: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, differs: bool
) -> None:
    """Every process is told to open it anew; who asks has to hear that it cannot be."""
    beside: list[str] = []
    monkeypatch.setattr(logs, "beside", beside.append)
    (tmp_path / "x.log").mkdir()
    config = replace(CONFIG, log_file=str(tmp_path / "x.log"))

    async def test(played: Played) -> None:
        played.reloader._config = config
        again = replace(config, workers=3) if differs else config
        done = await played.reload(again)
        (why,) = done.mistakes
        assert why.startswith(f"--log-file: cannot write {tmp_path}/x.log: it is no regular file")
        assert (done.changed, done.generation, played.did) == ((), 1, [])
        assert played.facts.rules.refused == done.mistakes
        assert beside == [f"{why}; then reload"]
        (tmp_path / "x.log").rmdir()
        assert (await played.reload(again)).mistakes == ()
        assert played.facts.rules.refused == ()
        # In the store that the service has, whichever the configuration names now.
        inside = replace(
            config, store=tmp_path / "new", log_file=str(config.store.absolute() / "x.log")
        )
        (why,) = (await played.reload(inside)).mistakes
        assert f"is in the store {config.store.absolute()}, where only instances" in why
        assert len(beside) == 1

    run(test)


@pytest.mark.parametrize("where", ["read", "checked", "noted", "no thread"])
def test_nothing_changes_where_anything_is_wrong(
    run: Callable[..., None], caplog: pytest.LogCaptureFixture, where: str
) -> None:
    fine = replace(CONFIG, workers=3)

    async def test(played: Played) -> None:
        match where:
            case "read":
                wrong = ConfigError("c.toml:1: x", "no", ("c.toml:1: x: no", "c.toml:2: y: no"))
                done = await played.reload(wrong)
                assert done.mistakes == ("c.toml:1: x: no", "c.toml:2: y: no")
            case "checked":
                done = await played.reload(replace(CONFIG, max_associations=1_000_000))
                assert "open files" in done.mistakes[0]
            case "noted":
                played.refuses = FastscpError("the disk is full")
                done = await played.reload(fine)
                assert done.mistakes == ("the disk is full",)
            case _:
                played.refuses = OSError(11, "Resource temporarily unavailable")
                done = await played.reload(fine)
        assert (done.changed, done.waits, done.generation) == ((), (), 1)
        assert len(done.mistakes) == (2 if where == "read" else 1)
        assert played.did == []
        rules = played.facts.rules
        assert (rules.generation, rules.refused) == (1, done.mistakes)
        assert rules.refused_at >= rules.loaded_at > 0
        # The next one is as if it had not been.
        played.refuses = None
        assert (await played.reload(fine)).generation == 2
        assert played.facts.rules.refused == ()

    if where == "checked":
        resource = pytest.importorskip("resource")
        if resource.getrlimit(resource.RLIMIT_NOFILE)[1] == resource.RLIM_INFINITY:
            pytest.skip("no limit of open files")
    run(test)
    refused = [one for one in caplog.records if one.getMessage().startswith("reload refused: ")]
    assert {one.levelno for one in refused} == {logging.ERROR}
    assert len(refused) == (3 if where == "read" else 2)
    assert refused[-1].getMessage() == "reload refused: nothing was changed"


def test_the_log_shows_some_of_very_many_mistakes(
    run: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    many = tuple(f"c.toml:{n}: x{n}: no" + "!" * 100_000 for n in range(1, 501))

    async def test(played: Played) -> None:
        done = await played.reload(ConfigError("x", "no", many))
        assert (len(done.mistakes), done.mistakes_more) == (20, 480)
        assert all(len(one) < 1100 for one in done.mistakes)
        assert done.mistakes[19].startswith("c.toml:20: x20: no!")
        rules = played.facts.rules
        assert (rules.refused, rules.refused_more) == (done.mistakes, 480)

    run(test)
    assert len(caplog.records) == 22
    assert "and 480 more mistakes;" in caplog.text


def test_a_reload_that_lets_everybody_in_says_so(
    run: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    named = replace(CONFIG, allow=(read_allow_rule("CT1@10.0.0.0/8"),))

    async def test(played: Played) -> None:
        played.facts.addresses = ("10.1.2.3:104",)
        await played.reload(named)
        assert "whoever reaches" not in caplog.text
        await played.reload(CONFIG)
        # Once: whoever knows it is not told with each reload.
        await played.reload(replace(CONFIG, strict=True))

    run(test)
    warned = [
        one.getMessage()
        for one in caplog.records
        if one.levelno == logging.WARNING and "whoever" in one.getMessage()
    ]
    assert len(warned) == 1
    assert warned[0].startswith("reload 3: whoever reaches 10.1.2.3:104 may store instances here")


def test_what_waits_for_a_restart(
    run: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    new = replace(CONFIG, host=("::1",), port=104, store_must_exist=True, strict=True)

    async def test(played: Played) -> None:
        done = await played.reload(new, new)
        assert done.changed == ("strict: off -> on",)
        assert done.waits == (
            "host: 0.0.0.0 -> ::1", "port: 11112 -> 104", "store-must-exist: off -> on",
        )  # fmt: skip
        assert played.reloader._config == replace(CONFIG, strict=True)
        # It goes on waiting, and is said again.
        done = await played.reloads.reload()
        assert (done.changed, len(done.waits), done.generation) == ((), 3, 2)
        assert played.facts.rules.waits == done.waits
        # One that is refused says nothing of that; one in which nothing waits any more does.
        await played.reload(ConfigError("a.toml:1", "no"))
        rules = played.facts.rules
        assert (rules.waits, rules.refused) == (done.waits, ("a.toml:1: no",))
        await played.reload(replace(CONFIG, strict=True))
        rules = played.facts.rules
        # Though nothing is different, it was not refused.
        assert (rules.waits, rules.refused, rules.refused_at) == ((), (), 0.0)

    run(test)
    warned = [
        one.getMessage()
        for one in caplog.records
        if one.levelno == logging.WARNING and "waits" in one.getMessage()
    ]
    assert warned[1] == "reload: port: 11112 -> 104 waits for a restart of the service"
    assert len(warned) == 6


def test_whoever_asks_meanwhile_gets_the_next_one(run: Callable[..., None]) -> None:
    """However many they are, one more is read for all of them."""
    first, second = replace(CONFIG, workers=3), replace(CONFIG, workers=4)

    async def test(played: Played) -> None:
        played.reading = threading.Event()
        played.read += [first, second]
        asked = [asyncio.ensure_future(played.reloads.reload())]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        asked += [asyncio.ensure_future(played.reloads.reload()) for _ in range(200)]
        await asyncio.sleep(0)
        played.reading.set()
        done = await asyncio.gather(*asked)
        assert done[0].changed == ("workers: 2 -> 3",)
        assert {one.changed for one in done[1:]} == {("workers: 3 -> 4",)}
        assert done[-1].generation == 3
        assert played.read == []

    run(test)


def test_the_end_of_the_service_comes_first(run: Callable[..., None]) -> None:
    """Before a reload, and in the middle of one."""

    async def test(played: Played) -> None:
        played.workers.stopping = True
        done = await played.reload()
        assert done.mistakes == ("the service is shutting down",)
        played.workers.stopping = False
        played.reading = threading.Event()
        played.read.append(replace(CONFIG, workers=3))
        asked = asyncio.ensure_future(played.reloads.reload())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        played.workers.stopping = True
        played.reading.set()
        assert (await asked).mistakes == ("the service is shutting down",)
        # Not even in the store.
        assert played.names() == []

    run(test)


def test_what_is_noted_in_the_store_is_taken(
    run: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    """Though the service began to end meanwhile: "nothing was changed" would be untrue."""

    async def test(played: Played) -> None:
        played.noting = threading.Event()
        played.read.append(replace(CONFIG, workers=3))
        asked = asyncio.ensure_future(played.reloads.reload())
        await played.noted()
        played.workers.stopping = True
        ended = asyncio.ensure_future(played.reloads.end(60))
        await asyncio.sleep(0.01)
        # Whoever leaves the store waits for it.
        assert not ended.done()
        played.noting.set()
        assert await ended
        assert (await asked).generation == 2
        assert played.names() == ["refile", "limit", "watch", "configure", "resize"]

    run(test)
    assert "nothing was changed" not in caplog.text
    assert "reload 2: the service is shutting down: this is for" in caplog.text


def test_the_end_waits_for_nothing_that_only_reads(
    run: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    async def test(played: Played) -> None:
        assert await played.reloads.end(60)
        hanging = played.reading = threading.Event()
        played.read.append(CONFIG)
        second = Reloads(played._background)
        second.begin(
            Reloader(
                CONFIG, load=played._load, facts=played.facts, shared=played.shared,
                store=played.reloader._store, store_watch=played.reloader._store_watch,
                admission=played.reloader._admission, workers=played.workers,
            )
        )  # fmt: skip
        asked = asyncio.ensure_future(second.reload())
        await asyncio.sleep(0.01)
        assert await second.end(60)
        assert (await asked).mistakes == ("the service is shutting down",)
        hanging.set()

    run(test)
    assert "reload refused: nothing was changed" in caplog.text


def test_a_store_that_hangs_keeps_no_end_waiting(run: Callable[..., None]) -> None:
    """Nobody takes then what the thread may note yet."""

    async def test(played: Played) -> None:
        hanging = played.noting = threading.Event()
        played.read.append(replace(CONFIG, workers=3))
        asked = asyncio.ensure_future(played.reloads.reload())
        await played.noted()
        played.workers.stopping = True
        assert not await played.reloads.end(0.01)
        hanging.set()
        while "refile" not in played.names():  # noqa: ASYNC110 - it has no event
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.01)
        assert played.names() == ["refile"]
        asked.cancel()

    run(test)


@pytest.mark.parametrize("step", ["limit", "watch", "configure", "resize", "log"])
def test_a_part_that_fails_to_take_it_takes_it_later(
    run: Callable[..., None], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch,
    step: str,
) -> None:  # fmt: skip
    """And those that need it wait for it, so that all of them agree."""
    monkeypatch.setattr(module, "_AGAIN_S", 0.01)
    new = replace(CONFIG, workers=3, min_free_space=7)

    async def test(played: Played) -> None:
        monkeypatch.setattr(logs, "configure", lambda *_, **__: played._did("log", None))
        played.fails = [step, step]
        done = await played.reload(new)
        assert (len(done.changed), done.mistakes, done.generation) == (2, (), 2)
        order = ["log", "refile", "limit", "watch", "configure", "resize"]
        order.remove("refile")
        assert [name for name in played.names() if name != "refile"] == order[: order.index(step)]
        # The status tells of what all go by.
        assert played.facts.rules.generation == 1
        while played.facts.rules.generation == 1:  # noqa: ASYNC110 - it has no event
            await asyncio.sleep(0.001)
        assert [name for name in played.names() if name != "refile"] == order
        assert dict(played.did)["limit"][0].generation == 2
        assert dict(played.did)["configure"].rules.generation == 2
        assert (played.facts.workers, played.facts.min_free) == (3, 7)
        # A newer one is taken whole, whatever the one before it has left.
        played.did.clear()
        played.fails = [step]
        await played.reload(CONFIG)
        await played.reload(new)
        assert [name for name in played.names() if name != "refile"][-5:] == order
        await asyncio.sleep(0.05)
        assert played.facts.rules.generation == 4

    run(test)
    assert caplog.text.count("a part of the service failed to take it") == 2
    assert caplog.text.count("reload 2: the part that failed has taken it now") == 1


def test_newly_buffered_titles_are_told(
    run: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    table = Tables((AeTable("A", {"durability": "buffered"}),))

    async def test(played: Played) -> None:
        await played.reload(replace(CONFIG, tables=table))
        # Once: whoever knows it is not told with each reload.
        await played.reload(replace(CONFIG, tables=table, strict=True))
        await played.reload(replace(CONFIG, tables=table, durability="buffered"))

    run(test)
    risk = ": a power cut may lose instances already acknowledged"
    told = [one.getMessage() for one in caplog.records if one.getMessage().endswith(risk)]
    assert told == [
        f"reload 2: durability buffered in [ae.A]{risk}",
        f"reload 4: --durability buffered{risk}",
    ]


def test_a_signal_waits_for_the_start_and_not_for_the_end(
    run: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    async def test(played: Played) -> None:
        early = Reloads(played._background)
        for _ in range(3):
            early.hung_up()
        assert (await early.reload()).mistakes == ("the start is not through yet: try again then",)
        played.read.append(replace(CONFIG, workers=3))
        early.begin(played.reloader)
        while "resize" not in played.names():  # noqa: ASYNC110 - it has no event
            await asyncio.sleep(0.001)
        played.workers.stopping = True
        early.hung_up()
        assert played.read == []

    run(test)
    assert caplog.text.count("anew once the start is through") == 3
    assert "HUP: the service is shutting down" in caplog.text


def test_a_bug_ends_no_later_reload(
    run: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    async def test(played: Played) -> None:
        assert (await played.reload(KeyError("a bug"))).mistakes == ("a bug: see the log",)
        assert (await played.reload(replace(CONFIG, workers=3))).generation == 2

    run(test)
    assert "KeyError: 'a bug'" in caplog.text


def test_a_disk_that_hangs_is_named(
    run: Callable[..., None], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_WAITS_S", 0.01)

    async def test(played: Played) -> None:
        played.facts.rules = taken(CONFIG, 1, "/c.toml")
        played.reading = threading.Event()
        played.read.append(CONFIG)
        asked = asyncio.ensure_future(played.reloads.reload())
        while "a reload waits for /c.toml, or a file that" not in caplog.text:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        played.reading.set()
        assert await asked == Reloaded(generation=1)
        played.noting = threading.Event()
        asked = asyncio.ensure_future(played.reload(replace(CONFIG, strict=True)))
        while "a reload waits for the disk of /s: check it" not in caplog.text:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        played.noting.set()
        assert (await asked).generation == 2

    run(test)


def test_whoever_reads_warnings_alone_is_told_of_a_reload(
    run: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    async def test(played: Played) -> None:
        caplog.set_level(logging.WARNING, "fastscp.main")
        await played.reload(replace(CONFIG, strict=True))

    run(test)
    assert "reload 2: taken: 1 difference" in caplog.text
    assert "reload 2: strict: off -> on" in caplog.text


@pytest.mark.parametrize(("before", "after"), [("info", "error"), ("error", "info")])
def test_the_log_tells_of_a_reload_by_the_level_that_shows_more(
    run: Callable[..., None], monkeypatch: pytest.MonkeyPatch, before: str, after: str,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    monkeypatch.setattr(
        logs, "configure",
        lambda _role, level, *_, **__: logging.getLogger("fastscp.main").setLevel(LEVELS[level]),
    )  # fmt: skip
    main = logging.getLogger("fastscp.main")

    async def test(played: Played) -> None:
        played.reloader._config = replace(CONFIG, log_level=before)
        main.setLevel(LEVELS[before])
        await played.reload(replace(CONFIG, log_level=after))
        assert main.level == LEVELS[after]

    try:
        run(test)
    finally:
        main.setLevel(logging.NOTSET)
    assert f"reload 2: log-level: {before} -> {after}" in caplog.text


def test_workers_that_do_not_follow_are_named(
    run: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    async def test(played: Played) -> None:
        played.laggards = [SimpleNamespace(number=7)]
        assert (await played.reload(replace(CONFIG, strict=True))).generation == 2

    run(test)
    assert "reload 2: worker 7 does not answer for 5 s" in caplog.text


def test_all_that_stays_is_a_setting_of_main_alone_or_a_consent() -> None:
    workers = set(CONFIG.for_workers().__dataclass_fields__)
    assert workers & set(AFTER_A_RESTART) == {"layout_change", "discard", "fault"}
    assert set(AFTER_A_RESTART) <= set(CONFIG.__dataclass_fields__)


def test_what_follows_from_a_configuration() -> None:
    config = replace(
        CONFIG, compress="zstd", layout="{SOPInstanceUID}.dcm",
        tables=Tables((
            AeTable("PLAIN", {"compress": "none", "durability": "buffered"}),
            AeTable("SAME"),
            AeTable("OTHER", {"layout": "a/{SOPInstanceUID}.dcm"}),
        )),
    )  # fmt: skip
    found: Prepared = prepare(config, 9)
    assert found.generation == found.configuration.rules.generation == 9
    assert {key: (one.layout, one.suffix) for key, one in found.filings} == {
        "default": ("{SOPInstanceUID}.dcm", ".dcm.zst"),
        "ae.PLAIN": ("{SOPInstanceUID}.dcm", ".dcm"),
        "ae.SAME": ("{SOPInstanceUID}.dcm", ".dcm.zst"),
        "ae.OTHER": ("a/{SOPInstanceUID}.dcm", ".dcm.zst"),
    }
    assert found.durabilities == {"stable", "buffered"}
    assert found.limits.associations == config.max_associations


# TLS ----------------------------------------------------------------------------------------------


def material(**of: Any) -> Material:
    now = time.time()
    given: dict[str, Any] = {"begins": now - 10, "expires": now + 1e8, "chain": b"c"}
    return Material(key=b"k", profile="8996", subject="CN=S", **given | of)


WITH_TLS = replace(CONFIG, tls_cert="s.pem", tls=material())


def test_new_files_of_tls_are_taken(
    run: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    soon = material(chain=b"d", expires=time.time() + 86400 * 3.5, warnings=("k is open",))

    async def test(played: Played) -> None:
        played.reloader._config = WITH_TLS
        new = replace(WITH_TLS, tls=soon)
        done = await played.reload(new)
        assert [one.partition(":")[0] for one in done.changed] == ["certificate"]
        told = dict(played.did)["configure"]
        assert told.tls == soon
        assert played.facts.tls == soon
        # The same files again are no difference.
        assert (await played.reload(new)).changed == ()

    run(test)
    assert "reload 2: k is open" in caplog.messages
    assert any("certificate of CN=S expires in 3 days" in one for one in caplog.messages)


@pytest.mark.parametrize(
    ("of", "words"),
    [
        ({"chain": b"d", "expires": 5.0}, "--tls-cert: the certificate of CN=S has expired on"),
        (
            {"chain": b"d", "begins": 4e9, "expires": 5e9},
            "--tls-cert: the certificate of CN=S is ",
        ),
        (
            {"crl": b"d", "crl_expires": 5.0, "crl_file": "/etc/ca.crl"},
            "--tls-crl: /etc/ca.crl is out of date: get it anew, then `fastscp reload`; until",
        ),
    ],
)
def test_files_that_are_out_of_date_are_not_taken(
    run: Callable[..., None], of: dict[str, Any], words: str
) -> None:
    async def test(played: Played) -> None:
        played.reloader._config = WITH_TLS
        done = await played.reload(replace(WITH_TLS, workers=5, tls=material(**of)))
        assert done.mistakes[0].startswith(words)
        assert played.did == []

    run(test)


def test_files_that_were_out_of_date_before_hold_nothing_up(run: Callable[..., None]) -> None:
    old = replace(WITH_TLS, tls=material(expires=5.0, crl=b"l", crl_expires=5.0))

    async def test(played: Played) -> None:
        played.reloader._config = old
        done = await played.reload(replace(old, workers=5))
        assert done.changed == ("workers: 2 -> 5",)

    run(test)


@pytest.mark.parametrize("begins", [True, False])
def test_tls_begins_and_ends_with_the_service(run: Callable[..., None], begins: bool) -> None:
    old, new = (CONFIG, WITH_TLS) if begins else (WITH_TLS, CONFIG)

    async def test(played: Played) -> None:
        played.reloader._config = old
        done = await played.reload(replace(new, workers=5))
        assert done.changed == ("workers: 2 -> 5",)
        [waits] = done.waits
        assert waits.startswith("tls-cert: ")
        assert dict(played.did)["configure"].tls == old.tls
        # And still with the next one.
        assert (await played.reload(replace(new, workers=5))).waits == done.waits

    run(test)


def test_ports_wait_for_a_restart(run: Callable[..., None]) -> None:
    async def test(played: Played) -> None:
        played.reloader._config = WITH_TLS
        done = await played.reload(replace(WITH_TLS, tls_port=1, no_plain=True))
        assert done.changed == ()
        assert done.waits == ("no-plain: off -> on", "tls-port: 2762 -> 1")

    run(test)
