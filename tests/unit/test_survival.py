"""What lets the service outlive its parts: waits, watches, calls that hang, processes."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from fastscp import log as logs
from fastscp.config.settings import ServeConfig
from fastscp.errors import StartError
from fastscp.main import leaving, waiting, watching, workers
from fastscp.main import remains as remaining
from fastscp.main import serve as module
from fastscp.main.backoff import BackOff
from fastscp.main.loopwatch import LoopWatch, Pulse, Still
from fastscp.main.members import Place
from fastscp.main.remains import Remains
from fastscp.main.serve import Service
from fastscp.main.spawn import Process, how
from fastscp.main.storewatch import Look, SpaceState
from fastscp.main.threads import in_thread
from fastscp.main.workers import Workers
from fastscp.store.lives import SweepReport
from fastscp.store.redo.recovery import Recovered
from fastscp_ext import Shared
from tests.books import configuration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Waits --------------------------------------------------------------------------------------------


def test_waits_double_up_to_half_a_minute() -> None:
    back_off = BackOff()
    assert back_off.delay_s == 0
    waits = [back_off.failed() for _ in range(12)]
    assert waits[:4] == pytest.approx([0.1, 0.2, 0.4, 0.8])
    assert waits[8:] == [pytest.approx(25.6), 30, 30, 30]
    back_off.failures = 1 << 40
    assert back_off.delay_s == 30
    back_off.reset()
    assert (back_off.delay_s, back_off.failures) == (0, 0)


# Loops that stand still ---------------------------------------------------------------------------


class Clock:
    """A watch over one worker, looked at once a second of a clock that the test holds."""

    def __init__(self, **times: float) -> None:
        self.watch = LoopWatch(**times)
        self.now = 1000.0
        self.beat = 0
        self.life = "a"
        self.up = True
        self.told: list[tuple[str, float]] = []

    def run(self, seconds: int, *, turns: bool = False, on_disk: bool = False) -> None:
        for _ in range(seconds):
            self.now += 1
            self.look(turns=turns, on_disk=on_disk)

    def look(self, *, turns: bool = False, on_disk: bool = False) -> None:
        self.beat += turns
        pulse = Pulse(3, self.life, self.beat, self.up, on_disk)
        for number, what, for_s in self.watch.look(self.now, [pulse]):
            assert number == 3
            self.told.append((what, for_s))


def test_a_loop_that_hangs_is_named_and_then_given_up() -> None:
    clock = Clock()
    clock.run(5, turns=True)
    clock.run(9)
    assert clock.told == []
    clock.run(50)
    assert clock.told == [("named", 10)]
    clock.run(1)
    assert clock.told[1:] == [("hangs", 60)]


def test_a_loop_that_goes_on_in_time() -> None:
    clock = Clock()
    clock.run(60)
    clock.run(1, turns=True)
    assert clock.told == [("named", 10), ("goes on", 59)]
    clock.run(59)
    assert [what for what, _for_s in clock.told] == ["named", "goes on", "named"]


def test_a_disk_that_blocks_is_no_reason() -> None:
    clock = Clock()
    clock.run(1)
    clock.run(1000, on_disk=True)
    assert clock.told == []
    # Nor does it excuse a loop that hangs later.
    clock.run(60)
    assert clock.told[-1][0] == "hangs"


def test_time_that_main_slept_is_held_against_nobody() -> None:
    clock = Clock()
    clock.run(5, turns=True)
    # The machine was suspended, or main was stopped, and the worker's loop with it.
    clock.now += 3600
    clock.look()
    assert clock.told == []
    clock.run(7)
    assert clock.told == []
    clock.run(1)
    assert clock.told == [("named", 10)]
    for _ in range(10):
        clock.now += 600
        clock.look()
    assert [what for what, _for_s in clock.told] == ["named"]


def test_one_that_starts_has_more_time_and_another_life_all_of_it() -> None:
    clock = Clock()
    clock.up = False
    clock.run(30)
    assert clock.told == []
    clock.run(150)
    assert clock.told == [("named", 30)]
    clock.life = "b"
    clock.run(180)
    assert [what for what, _for_s in clock.told] == ["named", "named"]
    clock.run(1)
    assert clock.told[2:] == [("hangs", 180)]
    clock.up = True
    clock.run(61)
    assert clock.told[-2:] == [("named", 10), ("hangs", 60)]
    assert (clock.watch.patience_s(False), clock.watch.patience_s(True)) == (180, 60)


def test_each_worker_for_itself() -> None:
    watch = LoopWatch(named_s=2, hangs_s=4)
    told: list[Still] = []
    for second in range(6):
        pulses = [Pulse(0, "a", second, True, False), Pulse(1, "b", 0, True, False)]
        told += watch.look(float(second), pulses)
    assert [(still.number, still.what) for still in told] == [
        (1, "named"), (1, "hangs"), (1, "hangs"),
    ]  # fmt: skip


# Calls that may hang ------------------------------------------------------------------------------


def test_a_call_in_a_thread() -> None:
    async def calls() -> None:
        assert await in_thread(max, 1, 2) == 2
        assert await in_thread(threading.get_ident) != threading.get_ident()
        with pytest.raises(FileNotFoundError):
            await in_thread(os.stat, "/nowhere/at/all")

    asyncio.run(calls())


def test_nobody_waits_for_a_call_that_hangs() -> None:
    hanging = threading.Event()

    async def calls() -> None:
        call = in_thread(hanging.wait)
        _done, left = await asyncio.wait([call], timeout=0.01)
        assert left == {call}
        call.cancel()
        # This one is left when the loop is closed, and comes back to nobody.
        in_thread(hanging.wait)

    # Other tests may have left threads that end meanwhile.
    before = set(threading.enumerate())
    asyncio.run(calls())
    left = set(threading.enumerate()) - before
    assert len(left) == 2
    hanging.set()
    for thread in left:
        thread.join(60)
        assert not thread.is_alive()


def test_no_thread_to_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def call() -> None:
        monkeypatch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(OSError, match="cannot start a thread for stat"):
            await in_thread(os.stat, "/")

    asyncio.run(call())


# A start ------------------------------------------------------------------------------------------


def test_a_start_ends_though_a_worker_cannot_be_ended(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The system holds it in a call on the disk: it is left behind."""
    process: Any = SimpleNamespace(pid=77, code=None, has_ended=lambda: False, kill=lambda: None)
    monkeypatch.setattr(workers, "spawn", lambda _descriptors: process)
    monkeypatch.setattr(workers, "_PATIENCE_S", 0.01)
    monkeypatch.setattr(workers, "_KILLED_S", 0.01)
    over: list[int] = []
    listener: Any = SimpleNamespace(joined=lambda _worker: None)

    async def start() -> None:
        # Nobody has an association yet: its drain time is nothing to wait for.
        config = ServeConfig(workers=2, drain_timeout=1000.0)
        store = a_store(
            lock_fd=-1, facts=SimpleNamespace(noreplace=True, nameless=0), suspect=False
        )
        made = workers.Workers(
            configuration(config), store, Shared(), listener,
            background=lambda work: work.close(), over=over.append,
        )  # fmt: skip
        starting = asyncio.get_running_loop().create_task(made.start(2))
        while len(made._living()) < 2:  # noqa: ASYNC110 - it has no event
            await asyncio.sleep(0)
        made.drain()
        await asyncio.wait_for(starting, 60)
        assert over == [1]
        for worker in made._living():
            asyncio.get_running_loop().remove_reader(worker.channel.fileno())
            worker.channel.close()
        made.close()

    asyncio.run(start())
    gc.collect()
    assert caplog.text.count("(process 77) is still there after a kill") == 2


def test_a_start_that_fails_blames_no_worker(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It kills those that are up, says itself why it failed, and starts nobody in their place."""

    def kill() -> None:
        process.code = -signal.SIGKILL

    process: Any = SimpleNamespace(
        pid=77, code=None, has_ended=lambda: process.code is not None, kill=kill
    )
    monkeypatch.setattr(workers, "spawn", lambda _descriptors: process)
    listener: Any = SimpleNamespace(
        joined=lambda _worker: None, came_up=lambda _worker: None, left=lambda _worker: 0
    )
    replaced: list[object] = []

    async def start() -> None:
        config = ServeConfig(workers=1)
        store = a_store(
            lock_fd=-1, facts=SimpleNamespace(noreplace=True, nameless=0), suspect=False
        )
        made = workers.Workers(
            configuration(config), store, Shared(), listener,
            background=replaced.append, over=lambda _code: None,
        )  # fmt: skip
        starting = asyncio.get_running_loop().create_task(made.start(1))
        while not made._living():  # noqa: ASYNC110 - it has no event
            await asyncio.sleep(0)
        (worker,) = made._living()
        made._came_up(worker)
        await asyncio.wait_for(starting, 60)
        made.abandon()
        made._reap(worker)
        assert not made._living()
        made.close()

    asyncio.run(start())
    gc.collect()
    assert "ended unexpectedly" not in caplog.text
    assert replaced == []


@pytest.mark.parametrize("how", ["it takes long", "a signal"])
def test_a_start_does_not_keep_the_log_back_for_ever(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    announced: list[bool] = []
    monkeypatch.setattr(module, "_SILENT_S", 0.0 if how == "it takes long" else 1e6)
    monkeypatch.setattr(logs, "announce", lambda: announced.append(True))

    async def serve(service: Service) -> int:
        hangs = asyncio.Event()

        async def start() -> int:
            if how == "a signal":
                os.kill(os.getpid(), signal.SIGTERM)
            while not announced:  # noqa: ASYNC110 - it has no event
                await asyncio.sleep(0.001)
            os.kill(os.getpid(), signal.SIGTERM)
            await hangs.wait()
            return 1

        monkeypatch.setattr(service, "_serve", start)
        return await asyncio.wait_for(service.serve(), 60)

    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        assert run_with(serve) == 0
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    assert announced


# The service --------------------------------------------------------------------------------------


def run_with(use: Callable[[Service], Any], **settings: Any) -> Any:
    """Let a coroutine function use a service that does not serve."""

    async def run() -> Any:
        return await use(Service(ServeConfig(**settings), ready=lambda _plain, _tls: None))

    try:
        return asyncio.run(run())
    finally:
        # The shared block is a descriptor, and goes with the cycle around the service.
        gc.collect()


def a_store(**more: Any) -> Any:
    return SimpleNamespace(
        path=Path("/s"),
        id="an id",
        dir_fd=-1,
        **{
            "stopped_cleanly": lambda: None,
            "lost": lambda: None,
            "buffered": False,
            "unrecovered": "",
            "recover_beside": lambda _distrust, _doubts: Recovered(),
        }
        | more,
    )


@pytest.mark.parametrize("hangs", ["sweep", "flush", "both"])
def test_the_end_does_not_wait_for_a_disk_that_hangs(
    hangs: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """And calls that hang do so side by side: there is one deadline for all."""
    hanging = threading.Event()
    called: list[str] = []

    def sweep(_fd: int) -> SweepReport:
        called.append("sweep")
        if hangs != "flush":
            hanging.wait()
        return SweepReport(0, 0, 0)

    def flush() -> None:
        called.append("flush")
        if hangs != "sweep":
            hanging.wait()

    async def leave(service: Service) -> bool:
        store = a_store()
        store.stopped_cleanly = flush
        held = contextlib.ExitStack()
        held.callback(called.append, "closed")
        return await service._leave(store, held, clean=True)

    monkeypatch.setattr(leaving, "LEAVE_S", 0.3)
    monkeypatch.setattr(leaving, "sweep_incoming", sweep)
    try:
        assert run_with(leave) is False
    finally:
        hanging.set()
    assert sorted(called) == ["flush", "sweep"]
    assert ("cannot remove unfinished instances" in caplog.text) == (hangs != "flush")
    assert ("cannot flush /s" in caplog.text) == (hangs != "sweep")
    assert "given up after 0.3 s" in caplog.text


@pytest.mark.parametrize("hangs", [False, True])
def test_the_end_waits_for_a_reload_that_is_being_noted(
    hangs: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It may set the mark of a buffered life, which nobody would take away any more."""
    called: list[str] = []

    async def leave(service: Service) -> bool:
        store = a_store(stopped_cleanly=lambda: called.append("mark taken away"))
        held = contextlib.ExitStack()
        held.callback(called.append, "closed")

        async def end(seconds: float) -> bool:
            assert seconds == leaving.LEAVE_S
            await asyncio.sleep(0.01)
            store.buffered = True
            called.append("marked")
            return not hangs

        monkeypatch.setattr(service._reloads, "end", end)
        return await service._leave(store, held, clean=True)

    monkeypatch.setattr(leaving, "sweep_incoming", lambda _fd: SweepReport(0, 0, 0))
    assert run_with(leave) is not hangs
    # A thread may still use the descriptors of the store.
    assert called == (["marked"] if hangs else ["marked", "mark taken away", "closed"])
    assert ("a reload still waits for the disk after 10 s" in caplog.text) is hangs


def test_a_sweep_that_fails_keeps_no_flush_from_being_tried(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    flushed: list[bool] = []

    def sweep(_fd: int) -> SweepReport:
        raise NotADirectoryError(20, "Not a directory", ".fastscp/incoming")

    async def leave(service: Service) -> bool:
        store = a_store()
        store.stopped_cleanly = lambda: flushed.append(True)
        return await service._leave(store, contextlib.ExitStack(), clean=True)

    monkeypatch.setattr(leaving, "sweep_incoming", sweep)
    assert run_with(leave) is False
    assert flushed == [True]
    assert "see that /s/.fastscp/incoming is a folder" in caplog.text


def test_the_end_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[str] = []

    async def leave(service: Service) -> bool:
        store = a_store(stopped_cleanly=lambda: called.append("flushed"))
        held = contextlib.ExitStack()
        held.callback(called.append, "closed")
        first = await service._leave(store, held, clean=False)
        return first and await service._leave(store, held, clean=True)

    monkeypatch.setattr(leaving, "sweep_incoming", lambda _fd: SweepReport(0, 0, 0))
    assert run_with(leave) is True
    assert called == ["closed", "flushed"]


def test_an_end_that_leaves_entries_is_none_in_order(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    called: list[str] = []

    async def leave(service: Service) -> bool:
        held = contextlib.ExitStack()
        held.callback(called.append, "closed")
        return await service._leave(a_store(), held, clean=True)

    monkeypatch.setattr(
        leaving, "sweep_incoming", lambda _fd: SweepReport(0, 0, 0, failed=2, why="Is a directory")
    )
    assert run_with(leave) is False
    assert called == ["closed"]
    assert "cannot remove 2 entries of /s/.fastscp/incoming (Is a directory): " in caplog.text


def test_an_end_without_the_store_is_none_in_order(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def leave(service: Service) -> bool:
        store = a_store(lost=lambda: "/s is another directory now")
        return await service._leave(store, contextlib.ExitStack(), clean=True)

    monkeypatch.setattr(leaving, "sweep_incoming", lambda _fd: SweepReport(0, 0, 0))
    assert run_with(leave) is False
    assert "the store is gone at the end: /s is another directory now; " in caplog.text
    assert "then run `fastscp verify`" in caplog.text


@pytest.mark.parametrize("buffered", [False, True])
def test_an_end_that_keeps_the_mark_is_none_in_order(
    buffered: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The mark decides: a table may have been buffered for a while, and the top level never."""

    async def leave(service: Service) -> bool:
        store = a_store(buffered=buffered)
        return await service._leave(store, contextlib.ExitStack(), clean=False)

    monkeypatch.setattr(leaving, "sweep_incoming", lambda _fd: SweepReport(0, 0, 0))
    assert run_with(leave) is not buffered
    assert ("the mark of an unclean end stays in /s" in caplog.text) is buffered


@pytest.mark.parametrize("hangs", [False, True])
def test_a_start_that_waits_for_the_disk_says_so_and_can_be_ended(
    hangs: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def open_store(_config: object) -> None:
        opening.set()
        await asyncio.Event().wait()

    async def start(service: Service) -> int:
        serving = asyncio.create_task(service.serve())
        await opening.wait()
        async with asyncio.timeout(60):
            while hangs and caplog.text.count("still waits for the disk of ") < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        ends[0](signal.SIGTERM)
        return await serving

    @contextlib.contextmanager
    def heard(
        _loop: object, told: Callable[[signal.Signals], None], *_others: Callable[[], None]
    ) -> Iterator[None]:
        ends.append(told)
        yield

    ends: list[Callable[[signal.Signals], None]] = []
    opening = asyncio.Event()
    monkeypatch.setattr(module, "heard", heard)
    monkeypatch.setattr(module, "_open_store", open_store)
    monkeypatch.setattr(waiting, "_WAITS_S", 0.02 if hangs else 1000)
    with caplog.at_level(logging.INFO):
        assert run_with(start, host=("127.0.0.1",), port=0) == int(hangs)
    assert "SIGTERM: ending before the start is through" in caplog.text


def test_an_oserror_of_the_start_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_config: object) -> None:
        raise OSError(27, "File too large")

    monkeypatch.setattr(module, "_open_store", fail)
    monkeypatch.setattr(module, "heard", lambda *_: contextlib.nullcontext())
    with pytest.raises(StartError, match=r"cannot start \(File too large\): see the limits"):
        run_with(lambda service: service.serve(), host=("127.0.0.1",), port=0)


def test_a_look_that_hangs_is_a_state_and_not_begun_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    hanging = threading.Event()
    looks: list[str] = []

    def look(_store: object) -> Look:
        looks.append("look")
        hanging.wait()
        return Look(1 << 40, None)

    async def watch(service: Service) -> None:
        task = asyncio.create_task(service._watching.go_on(a_store()))

        async def until(state: SpaceState) -> None:
            async with asyncio.timeout(60):
                while service._store_watch.state is not state:  # noqa: ASYNC110
                    await asyncio.sleep(0.005)

        await until(SpaceState.LOST)
        assert service._admission.congested
        # Some more rounds, and still the first look.
        await asyncio.sleep(0.05)
        assert looks == ["look"]
        hanging.set()
        await until(SpaceState.FINE)
        assert not service._admission.congested
        service._over(0)
        await task

    monkeypatch.setattr(watching, "look", look)
    monkeypatch.setattr(watching, "HANGS_S", 0.05)
    monkeypatch.setattr(watching, "_LOOK_EVERY_S", 0.01)
    try:
        run_with(watch)
    finally:
        hanging.set()
    assert "its disk or mount hangs" in caplog.text


@pytest.mark.parametrize("looks", [False, True])
def test_a_watch_that_fails_is_told_of_and_goes_on(
    caplog: pytest.LogCaptureFixture, looks: bool
) -> None:
    times: list[int] = []

    async def use(service: Service) -> None:
        async def watch() -> None:
            times.append(1)
            if len(times) < 3:
                raise RuntimeError("a bug in a watch")
            service._over(0)

        await service._for_ever(watch, looks=looks)
        # That the store is looked at again is said of a look alone.
        assert service._watching.has_failed is looks

    run_with(use)
    assert len(times) == 3
    assert caplog.text.count("RuntimeError: a bug in a watch") == 2


def test_a_task_that_fails_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    async def use(service: Service) -> None:
        async def fail() -> None:
            raise KeyError("a bug in a task")

        service._background(fail())
        while service._tasks:  # noqa: ASYNC110
            await asyncio.sleep(0)

    with caplog.at_level(logging.ERROR):
        run_with(use)
    assert "KeyError: 'a bug in a task'" in caplog.text


def test_a_worker_that_cannot_be_replaced_is_told_of_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    place = Place(3)
    service: Any = SimpleNamespace(_living=list)
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    for _ in range(20):
        now += 30
        Workers._failed(service, place, "no space")
    assert caplog.text.count("cannot replace worker 3: no space") == 2
    Workers._failed(service, place, "another reason")
    assert "cannot replace worker 3: another reason" in caplog.text


def test_one_sweep_is_told_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Three places wait for it; and what it cannot remove is news only while it changes."""
    left = 2

    def sweep(_fd: int) -> SweepReport:
        time.sleep(0.01)  # so that all three wait
        return SweepReport(1, 5, 100, left, "Read-only file system" if left else "")

    async def use() -> None:
        nonlocal left
        nobody: Any = None
        remains = Remains(a_store(), nobody, "run")
        await asyncio.gather(*(remains.sweep() for _ in range(3)))
        assert caplog.text.count("swept 5 unfinished instances") == 1
        said = "cannot remove 2 entries of /s/.fastscp/incoming (Read-only file system): "
        assert caplog.text.count(said) == 1
        await remains.sweep()
        assert caplog.text.count("cannot remove") == 1
        left = 3
        await remains.sweep()
        assert "cannot remove 3 entries" in caplog.text
        left = 0
        await remains.sweep()
        left = 3
        await remains.sweep()
        assert caplog.text.count("cannot remove 3 entries") == 2

    monkeypatch.setattr(remaining, "sweep_incoming", sweep)
    with caplog.at_level(logging.INFO):
        asyncio.run(use())


# Processes ----------------------------------------------------------------------------------------


def test_ends_in_words() -> None:
    assert how(0) == "exit code 0"
    assert how(-9) == "killed by SIGKILL"
    assert how(-40) == "killed by signal 40"
    assert how(None) == "no exit code"


def test_a_process_is_reaped_once() -> None:
    pid = os.posix_spawn("/bin/sleep", ["sleep", "100"], os.environ)
    process = Process(pid)
    assert not process.has_ended()
    process.kill()
    deadline = time.monotonic() + 20
    while not process.has_ended():
        assert time.monotonic() < deadline
        time.sleep(0.001)
    assert process.code == -signal.SIGKILL
    # Its id may be somebody else's now.
    process.kill()
    assert process.has_ended()


def test_a_process_that_somebody_else_reaped() -> None:
    pid = os.posix_spawn("/bin/true", ["true"], os.environ)
    os.waitpid(pid, 0)
    process = Process(pid)
    assert process.has_ended()
    assert process.code == 255
