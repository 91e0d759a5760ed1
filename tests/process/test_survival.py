"""The service outlives its parts: workers that die, hang or cannot be replaced, and signals."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import resource
import shutil
import signal
import socket
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

import fastscp
from tests.compiled import compile_c
from tests.disks import in_memory
from tests.kit import (
    ANY_PORT,
    DEADLINE_S,
    ON_LOOPBACK,
    SOP,
    Peer,
    Service,
    abort,
    associate_rq,
    children_of,
    echo,
    path_of,
    reject,
    send_signal,
    store,
    wait_for,
)
from tests.process.test_reload import LONG, REDO
from tests.process.upgrading import lives
from tests.stores import opened

if TYPE_CHECKING:
    from collections.abc import Iterator

OTHER: Final = SOP + ".2"
HERE: Final = Path(__file__).resolve().parent
NOT_ENDING: Final = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGPIPE)


class Honest:
    """A peer that goes on storing and asking for an echo while the service is in trouble."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self.peer = service.peer()
        self._stored = 0
        self.worker = service.worker_of(self.peer)

    def goes_on(self) -> None:
        self._stored += 1
        self.peer.send(store(self._stored, sop=f"{SOP}.{self._stored}"))
        assert self.peer.read_statuses(1) == [(self._stored, 0)]
        self.echoes()

    def echoes(self) -> None:
        self.peer.send(echo(9))
        assert self.peer.read_response().status == 0


@contextlib.contextmanager
def honest(service: Service) -> Iterator[Honest]:
    one = Honest(service)
    with one.peer:
        one.goes_on()
        yield one
        one.goes_on()
        one.peer.release()


def worker_pid(service: Service, number: int) -> int:
    """The process that is called so."""

    def look() -> int:
        for pid in service.worker_pids():
            with contextlib.suppress(OSError):
                line = Path("/proc", str(pid), "cmdline").read_bytes()
                if line.startswith(b"fastscp: worker %d" % number):
                    return pid
        return 0

    return wait_for(look, f"worker {number}")


def kill_other(service: Service, one: Honest) -> int:
    """Kill the worker that the peer is not at; returns its number."""
    number = 1 - one.worker
    os.kill(worker_pid(service, number), signal.SIGKILL)
    return number


def lines(service: Service, text: str) -> int:
    return sum(text in line for line in service.log().splitlines())


def signal_bits(pid: int, field: str) -> int:
    """A set of signals of a process, as /proc tells: SigBlk, SigIgn, SigCgt."""
    for line in Path("/proc", str(pid), "status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1], 16)
    raise AssertionError(field)


def has(bits: int, name: signal.Signals) -> bool:
    return bool(bits >> (name - 1) & 1)


# A worker that cannot be replaced -----------------------------------------------------------------


def test_a_worker_cannot_begin_and_then_can(tmp_path: Path) -> None:
    """The parts' folder is gone, and a file stands in its place."""
    with Service(tmp_path) as service, honest(service) as one:
        incoming = service.store / ".fastscp/incoming"
        incoming.rename(incoming.with_name("aside"))
        incoming.touch()
        number = kill_other(service, one)
        said = service.in_log(f"cannot replace worker {number}: ")
        assert "Not a directory" in said
        assert "; tried again in 0." in said
        assert "1 worker serves meanwhile" in said
        service.in_log("cannot remove unfinished instances")
        # Some tries later it has said so once, and the other worker lives: it answers.
        tried: set[int] = set()

        def more() -> bool:
            tried.update(service.worker_pids())
            return len(tried) > 4

        wait_for(more, "more tries")
        one.echoes()
        # To main this store is gone, for no part has a place there.
        service.in_log("the store is gone")
        assert lines(service, "cannot replace") == 1
        assert lines(service, "cannot remove unfinished instances") == 1
        assert service.process.poll() is None
        incoming.unlink()
        incoming.with_name("aside").rename(incoming)
        service.in_log(f"worker {number} is up again, after ")
        wait_for(lambda: len(service.worker_pids()) == 2, "two workers")
        service.in_log("the store is there again")
        one.goes_on()
        service.ends_parts()


def test_the_folder_of_parts_is_removed(tmp_path: Path) -> None:
    with Service(tmp_path) as service:
        incoming = service.store / ".fastscp/incoming"
        incoming.rename(incoming.with_name("aside"))
        os.kill(worker_pid(service, 0), signal.SIGKILL)
        os.kill(worker_pid(service, 1), signal.SIGKILL)
        for number in range(2):
            said = service.in_log(f"cannot replace worker {number}: ")
            assert "No such file or directory" in said
        service.in_log("no worker is left: new associations are rejected until one is up")
        # Nobody is closed in silence.
        with Peer(service.host, service.port) as peer:
            peer.send(associate_rq())
            assert peer.read_until_close() == reject(2, 3, 1)
        incoming.with_name("aside").rename(incoming)
        for number in range(2):
            service.in_log(f"worker {number} is up again, after ")
        service.in_log("receiving without limits again")
        service.echoes()


@pytest.fixture
def few_inodes(tmp_path: Path) -> Iterator[Path]:
    """A small file system in memory, mounted."""
    with in_memory(tmp_path, "size=8m,nr_inodes=200") as point:
        yield point


def test_a_disk_that_is_full(tmp_path: Path, few_inodes: Path) -> None:
    flags = ("--min-free-space", "0")
    with (
        Service(tmp_path, *flags, store=few_inodes / "store") as service,
        honest(service) as one,
        contextlib.ExitStack() as held,
    ):
        # What main removes of a dead worker goes on to take its room.
        service.ends_parts()
        for left in (service.store / ".fastscp/incoming").rglob("*"):
            held.callback(os.close, os.open(left, os.O_PATH))
        victim = worker_pid(service, 1 - one.worker)
        os.kill(service.pid, signal.SIGSTOP)
        held.callback(send_signal, service.pid, signal.SIGCONT)
        number = kill_other(service, one)
        wait_for(lambda: not lives(victim), "its end")
        # Before there is a successor.
        fillers: list[Path] = []
        with contextlib.suppress(OSError):
            while True:
                filler = few_inodes / f"filler-{len(fillers)}"
                filler.touch()
                fillers.append(filler)
        os.kill(service.pid, signal.SIGCONT)
        said = service.in_log(f"cannot replace worker {number}: ")
        assert "disk full" in said
        one.echoes()
        for filler in fillers:
            filler.unlink()
        service.in_log(f"worker {number} is up again, after ")


def test_no_descriptor_is_left(tmp_path: Path) -> None:
    with Service(tmp_path) as service, honest(service) as one:
        before = resource.prlimit(service.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(service.pid, resource.RLIMIT_NOFILE, (1, before[1]))
        number = kill_other(service, one)
        said = service.in_log(f"cannot replace worker {number}: ")
        assert "Too many open files" in said
        service.in_log("cannot look at the store: ")
        one.goes_on()
        resource.prlimit(service.pid, resource.RLIMIT_NOFILE, before)
        service.in_log(f"worker {number} is up again, after ")
        # That main cannot look at the store says nothing of the store.
        assert "the store is gone" not in service.log()


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package with its compiled modules beside it."""
    source = Path(fastscp.__file__).parent
    copy = tmp_path_factory.mktemp("compiled")
    shutil.copytree(source, copy / "fastscp", ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "fastscp_ext").symlink_to(source.parent / "fastscp_ext")
    command = [sys.executable, "-m", "compileall", "-q", str(copy / "fastscp")]
    subprocess.run(command, env=Service.environment(env(copy)), check=True)
    return copy


@pytest.fixture
def package(tmp_path: Path, compiled: Path) -> Path:
    """A copy of the package that a test may break; run by `env`.

    What was compiled comes along, and is taken for as long as a module has its time and size.
    """
    return Path(shutil.copytree(compiled, tmp_path / "package", symlinks=True))


def env(package: Path) -> dict[str, str]:
    """What was compiled is taken from beside the package, and nothing more is compiled there."""
    return {
        "PYTHONPATH": str(package), "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPYCACHEPREFIX": "",
    }  # fmt: skip


def test_the_package_is_being_upgraded(tmp_path: Path, package: Path) -> None:
    with Service(tmp_path, env=env(package)) as service, honest(service) as one:
        module = package / "fastscp/worker/process.py"
        module.rename(module.with_suffix(".new"))
        number = kill_other(service, one)
        said = service.in_log(f"cannot replace worker {number}: ")
        assert "cannot import the worker's program (ModuleNotFoundError: " in said
        one.goes_on()
        assert "Traceback" not in service.log()
        module.with_suffix(".new").rename(module)
        service.in_log(f"worker {number} is up again, after ")


def test_workers_die_right_after_their_start(tmp_path: Path, package: Path) -> None:
    with Service(tmp_path, env=env(package)) as service, honest(service) as one:
        module = package / "fastscp/worker/process.py"
        good = module.read_text()
        module.write_text(f"{good}\nWorker._tick = lambda self: os._exit(7)\n")
        number = kill_other(service, one)
        wait_for(lambda: lines(service, "ended unexpectedly (exit code 7)") >= 4, "four deaths")
        one.goes_on()
        assert service.process.poll() is None
        module.write_text(good)
        wait_for(lambda: len(service.worker_pids()) == 2, "another worker")
        worker_pid(service, number)


def waiting_worker(tmp_path: Path, package: Path) -> Path:
    """Let workers wait at their beginning while the file that is returned exists."""
    flag = tmp_path / "wait"
    module = package / "fastscp/worker/process.py"
    module.write_text(
        f"{module.read_text()}\n"
        "_main = main\n"
        "def main(arguments):\n"
        f"    while os.path.exists({str(flag)!r}):\n"
        "        time.sleep(0.01)\n"
        "    _main(arguments)\n"
    )
    return flag


@pytest.mark.parametrize("name", [signal.SIGKILL, signal.SIGTERM])
def test_a_worker_that_is_ended_while_it_starts(
    tmp_path: Path, package: Path, name: signal.Signals
) -> None:
    flag = waiting_worker(tmp_path, package)
    with Service(tmp_path, env=env(package)) as service, honest(service) as one:
        flag.touch()
        before = service.worker_pids()
        number = kill_other(service, one)
        (starting,) = wait_for(
            lambda: [pid for pid in service.worker_pids() if pid not in before], "one that starts"
        )
        os.kill(starting, name)
        if name is signal.SIGKILL:
            said = service.in_log(f"cannot replace worker {number}: ")
            assert "it ended while it was starting (killed by SIGKILL)" in said
        one.goes_on()
        flag.unlink()
        if name is signal.SIGTERM:
            service.in_log(f"worker {number} ended as it was told to by a signal")
        assert worker_pid(service, number) != starting


# Signals ------------------------------------------------------------------------------------------


def test_what_ends_nothing_and_nobody(tmp_path: Path) -> None:
    with Service(tmp_path) as service, honest(service):
        workers = service.worker_pids()
        for name in NOT_ENDING:
            # To main USR2 is an upgrade.
            for pid in workers if name is signal.SIGUSR2 else (service.pid, *workers):
                os.kill(pid, name)
        service.in_log("USR1 ignored: ")
        service.in_log("reload: nothing is different")
        service.echoes()
        assert service.worker_pids() == workers
        assert "ended unexpectedly" not in service.log()


def test_signals_without_end_are_counted(tmp_path: Path) -> None:
    with Service(tmp_path, workers=1) as service:
        for n in range(20):
            service.process.send_signal(signal.SIGUSR1)
            # The system keeps one of each kind only: wait until it was heard.
            shown = min(n + 1, 5)
            wait_for(lambda shown=shown: lines(service, "USR1 ignored: ") >= shown, "a line")  # type: ignore[misc]
        service.echoes()
        service.stop()
        said = [line for line in service.log().splitlines() if "USR1 ignored: " in line]
        assert len(said) == 6
        assert "USR1 ignored: and " in said[-1]


def test_what_ends_nothing_as_soon_as_there_is_a_process(tmp_path: Path, package: Path) -> None:
    """Main hears it later, and a worker never."""
    flag = waiting_worker(tmp_path, package)
    flag.touch()
    log = tmp_path / "log"
    with (
        log.open("wb") as stderr,
        subprocess.Popen(
            [*Service.program(), "serve", *ANY_PORT, "--workers", "1"],
            cwd=tmp_path, env=Service.environment(env(package)), stdin=subprocess.DEVNULL,
            stderr=stderr,
        ) as process,
    ):  # fmt: skip
        try:
            wait_for(lambda: has(signal_bits(process.pid, "SigBlk"), signal.SIGHUP), "main's mask")
            for name in NOT_ENDING:
                process.send_signal(name)
            (worker,) = wait_for(lambda: children_of(process.pid), "the worker")
            # From its first instruction on, before its program has said anything.
            for name in NOT_ENDING:
                os.kill(worker, name)
            for name in (*NOT_ENDING[:3], signal.SIGTERM):
                assert has(signal_bits(worker, "SigBlk"), name)
            assert has(signal_bits(worker, "SigIgn"), signal.SIGPIPE)
            flag.unlink()
            wait_for(lambda: "listening on " in log.read_text(), "the service listening")
            wait_for(lambda: "USR2: no upgrade: the start is not " in log.read_text(), "USR2")
            # A reload waits for the end of the start.
            assert "HUP: the configuration is read anew once the start " in log.read_text()
            wait_for(lambda: "reload: nothing is different" in log.read_text(), "the reload")
            assert children_of(process.pid) == [worker]
            process.send_signal(signal.SIGTERM)
            assert process.wait(DEADLINE_S) == 0
        finally:
            process.kill()


@pytest.mark.parametrize("nohup", [False, True])
def test_a_terminal_that_closes(tmp_path: Path, nohup: bool) -> None:
    master, slave = pty.openpty()
    log = tmp_path / "log"

    def begin() -> None:
        os.setsid()
        fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
        # Whatever those who run the tests do with it.
        signal.signal(signal.SIGHUP, signal.SIG_IGN if nohup else signal.SIG_DFL)

    with (
        log.open("wb") as stderr,
        subprocess.Popen(
            [*Service.program(), "serve", *ANY_PORT, "--workers", "1"],
            cwd=tmp_path, env=Service.environment(), stdin=subprocess.DEVNULL, stderr=stderr,
            preexec_fn=begin, restore_signals=False,
        ) as process,
    ):  # fmt: skip
        try:
            os.close(slave)
            wait_for(lambda: "listening on " in log.read_text(), "the service listening")
            # A HUP while the terminal is there is none of its end.
            process.send_signal(signal.SIGHUP)
            wait_for(lambda: "nothing is different" in log.read_text(), "the first HUP")
            os.close(master)
            if nohup:
                wait_for(lambda: "nothing under nohup" in log.read_text(), "the second HUP")
                # Whoever sends it himself is heard, as ever.
                process.send_signal(signal.SIGHUP)
                wait_for(lambda: log.read_text().count("nothing is different") == 2, "the third")
                assert process.poll() is None
                process.send_signal(signal.SIGTERM)
            assert process.wait(DEADLINE_S) == 0
        finally:
            process.kill()
    assert ("the terminal is gone, which ends the service" in log.read_text()) is not nohup


@pytest.mark.parametrize("durability", ["stable", "buffered"])
def test_a_worker_is_recycled(tmp_path: Path, durability: str) -> None:
    """TERM to a worker alone: it ends in order, and another comes."""
    with Service(tmp_path, "--durability", durability) as service:
        with honest(service) as one:
            number = 1 - one.worker
            before = worker_pid(service, number)
            os.kill(before, signal.SIGTERM)
            said = service.in_log(f"worker {number} ended as it was told to")
            assert " INFO " in said
            wait_for(lambda: worker_pid(service, number) != before, "another worker")
        service.stop()
        assert "ended unexpectedly" not in service.log()
    # Nobody was lost, so nothing is suspect.
    assert not (service.store / ".fastscp/buffered").exists()


@pytest.mark.parametrize("durability", ["stable", "buffered"])
@pytest.mark.parametrize(
    "turns", [(0, 1), pytest.param((0, 1) * 10, marks=LONG)], ids=["once", "often"]
)
def test_workers_are_recycled_under_traffic(
    tmp_path: Path, durability: str, turns: tuple[int, ...]
) -> None:
    """Nobody is lost, and nobody is answered otherwise, though the drain time is none."""
    ended = threading.Event()
    answers: list[tuple[str, object]] = []

    def stores(service: Service, sender: int) -> None:
        n = 0
        while not ended.is_set():
            n += 1
            sop = f"1.2.{sender}.{n}"
            try:
                with service.peer() as peer:
                    peer.send(store(sop=sop))
                    answers.append((sop, peer.read_response().status))
            except (OSError, AssertionError) as error:
                answers.append((sop, repr(error)))

    flags = ("--drain-timeout", "0", "--durability", durability, *REDO)
    with Service(tmp_path, *flags) as service:

        def recycle(number: int) -> None:
            told = worker_pid(service, number)
            before = len(answers)
            wait_for(lambda: len(answers) > before + 20, "traffic")
            os.kill(told, signal.SIGTERM)
            wait_for(lambda: worker_pid(service, number) != told, "another worker")

        senders = [threading.Thread(target=stores, args=(service, n)) for n in range(1, 7)]
        for one in senders:
            one.start()
        try:
            for number in turns:
                recycle(number)
        finally:
            ended.set()
            for one in senders:
                one.join()
        assert [one for one in answers if one[1] != 0] == []
        journaled = {fact["sop_instance_uid"] for fact in service.journal()}
        assert {sop for sop, _status in answers} <= journaled
        assert ("redo log: on" in service.log()) == (durability == "stable")
        service.stop()


def test_the_only_worker_is_recycled(tmp_path: Path) -> None:
    """Who comes meanwhile waits for the next one."""
    with Service(tmp_path, workers=1) as service:
        with service.peer() as peer:
            before = worker_pid(service, 0)
            os.kill(before, signal.SIGTERM)
            with Peer(service.host, service.port) as newcomer:
                newcomer.send(associate_rq())
                peer.send(store())
                assert peer.read_statuses(1) == [(1, 0)]
                peer.release()
                answer = newcomer.read_pdu()
                assert answer is not None
                assert answer[0] == 2
        # The old one may have had the newcomer, too: it hears of the signal when its loop turns.
        wait_for(lambda: worker_pid(service, 0) != before, "the next worker")
        service.stop()


# The end ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("told", [False, True])
def test_workers_leave_when_main_is_killed(tmp_path: Path, told: bool) -> None:
    """Also in the middle of a drain: the time that main gave for it does not hold on."""
    with (
        Service(tmp_path, "--drain-timeout", "1h") as service,
        service.peer() as busy,
        service.peer() as stuck,
    ):
        busy.send(store(1)[:-50])
        stuck.send(store(2, sop=OTHER)[:-50])
        wait_for(lambda: len(service.parts()) == 2, "both messages")
        service.worker_pids()
        if told:
            service.process.send_signal(signal.SIGTERM)
            service.in_log("SIGTERM: 2 associations may go on")
        service.process.kill()
        service.process.wait()
        service.in_log("the main process is gone")
        busy.send(store(1)[-50:])
        assert busy.read_statuses(1) == [(1, 0)]
        assert busy.read_until_close() == abort(0, 0)
        assert stuck.read_until_close() == abort(0, 0)
        service.leaves_nothing()
    with Service(tmp_path, store=service.store) as after:
        after.echoes()
        assert after.instances() == [path_of()]


def test_main_is_killed_while_its_workers_start(tmp_path: Path, package: Path) -> None:
    flag = waiting_worker(tmp_path, package)
    flag.touch()
    with (
        (tmp_path / "log").open("wb") as stderr,
        subprocess.Popen(
            [*Service.program(), "serve", *ANY_PORT, "--workers", "2"],
            cwd=tmp_path, env=Service.environment(env(package) | {"FASTSCP_STORE": "store"}),
            stdin=subprocess.DEVNULL, stderr=stderr,
        ) as process,
    ):  # fmt: skip
        try:
            wait_for(lambda: len(children_of(process.pid)) == 2, "both workers")
            workers = children_of(process.pid)
        finally:
            process.kill()
    flag.unlink()
    for pid in workers:
        wait_for(lambda pid=pid: not Path("/proc", str(pid)).exists(), "a worker's end")  # type: ignore[misc]
    with Service(tmp_path, store=tmp_path / "store") as after:
        after.echoes()


@pytest.mark.parametrize("name", [signal.SIGTERM, signal.SIGSTOP])
def test_a_worker_told_or_stopped_in_a_drain(tmp_path: Path, name: signal.Signals) -> None:
    """It drains already; and one that goes on in time is as good as the others."""
    with Service(tmp_path) as service, service.peer() as peer:
        peer.send(store()[:-50])
        wait_for(service.parts, "the message")
        workers = service.worker_pids()
        service.process.send_signal(signal.SIGTERM)
        service.in_log("SIGTERM: 1 association may")
        for pid in workers:
            # The idle one may be through.
            send_signal(pid, name)
            send_signal(pid, signal.SIGCONT)
        peer.send(store()[-50:])
        assert peer.read_statuses(1) == [(1, 0)]
        peer.release()
        service.ends(0)


def test_an_end_by_force_is_none_in_order(tmp_path: Path) -> None:
    with Service(tmp_path) as service:
        stopped = worker_pid(service, 1)
        os.kill(stopped, signal.SIGSTOP)
        service.process.send_signal(signal.SIGTERM)
        service.in_log("SIGTERM: 0 associations")
        service.process.send_signal(signal.SIGTERM)
        service.in_log("worker 1 did not end within 5 s: killed")
        service.ends(1)


def test_a_worker_killed_in_a_drain_is_told_of(tmp_path: Path) -> None:
    with Service(tmp_path) as service, service.peer() as peer:
        peer.send(store()[:-50])
        wait_for(service.parts, "the message")
        busy = worker_pid(service, service.worker_of(peer))
        service.process.send_signal(signal.SIGTERM)
        service.in_log("SIGTERM: 1 association may")
        os.kill(busy, signal.SIGKILL)
        service.ends(1)
        assert "killed by SIGKILL): 1 association lost" in service.log()


@pytest.mark.parametrize("what", ["incoming", "all"])
def test_the_store_is_gone_at_the_end(tmp_path: Path, what: str) -> None:
    with Service(tmp_path, workers=1) as service:
        gone = service.store / ".fastscp/incoming" if what == "incoming" else service.store
        # Main makes its control socket anew as soon as it sees that it is gone.
        os.kill(service.pid, signal.SIGSTOP)
        try:
            shutil.rmtree(gone)
        finally:
            os.kill(service.pid, signal.SIGCONT)
        service.process.send_signal(signal.SIGTERM)
        service.ends(1)
        said = service.in_log("cannot remove unfinished instances")
        assert "is the store's file system still there?" in said
        assert "Traceback" not in service.log()


@pytest.mark.parametrize("what", ["store.toml", "an entry", "no worker"])
def test_what_is_wrong_at_the_end_is_exit_1(tmp_path: Path, what: str) -> None:
    with Service(tmp_path) as service:
        home = service.store / ".fastscp"
        if what == "store.toml":
            (home / "store.toml").rename(tmp_path / "aside")
            wanted = "the store is gone at the end: "
        elif what == "an entry":
            (home / "incoming/file").touch()
            wanted = "cannot remove 1 entry of "
        else:
            (home / "incoming").rename(home / "aside")
            os.kill(worker_pid(service, 0), signal.SIGKILL)
            service.in_log("cannot replace worker 0: ")
            service.worker_pids()
            wanted = "worker 0 was dead and not replaced at the end"
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(60) == 1, service.log()
        (home / "incoming/file").unlink(missing_ok=True)
        service.leaves_nothing()
        assert wanted in service.log()


@pytest.mark.parametrize("what", ["link", "dangling", "file", "journal"])
def test_a_store_that_cannot_be_used(tmp_path: Path, what: str) -> None:
    path = tmp_path / "store"
    with opened(path):
        home = path / ".fastscp"
    if what == "journal":
        (home / "journal/z.jsonl").mkdir()
    else:
        (home / "incoming").rmdir()
        if what == "file":
            (home / "incoming").touch()
        else:
            target = tmp_path / "elsewhere"
            if what == "link":
                target.mkdir()
            (home / "incoming").symlink_to(target)
    done = subprocess.run(
        [*Service.program(), "serve", *ANY_PORT],
        cwd=tmp_path, env=Service.environment({"FASTSCP_STORE": str(path)}),
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 3, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("fastscp: cannot use ")
    assert len(done.stderr.splitlines()) == 1


# What hangs ---------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def hanging_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_c(HERE / "hang.c", tmp_path_factory.mktemp("hang"), "-shared", "-fPIC")


def test_a_start_that_hangs_can_be_ended(tmp_path: Path, hanging_library: Path) -> None:
    (tmp_path / "flock").touch()
    log = tmp_path / "log"
    with contextlib.ExitStack() as stack:
        # It is the service's to listen on, and nobody else gets it meanwhile.
        reserved = stack.enter_context(socket.socket())
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind(("127.0.0.1", 0))
        address = reserved.getsockname()
        stderr = stack.enter_context(log.open("wb"))
        process = stack.enter_context(
            subprocess.Popen(
                [*Service.program(), "serve", *ON_LOOPBACK, "--port", str(address[1])],
                cwd=tmp_path, stdin=subprocess.DEVNULL, stderr=stderr,
                env=Service.environment(
                    {"LD_PRELOAD": str(hanging_library), "HANG": str(tmp_path)}
                ),
            )
        )  # fmt: skip
        try:
            wait_for((tmp_path / "flock.hangs").exists, "a call that hangs")
            # No peer waits for an answer that may never come.
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(address)
            process.send_signal(signal.SIGTERM)
            assert process.wait(DEADLINE_S) == 0
        finally:
            process.kill()
    assert "SIGTERM: ending before the start is through" in log.read_text()


@pytest.mark.long
def test_a_disk_that_hangs_is_noticed_and_holds_up_no_end(
    tmp_path: Path, hanging_library: Path
) -> None:
    hang = {"LD_PRELOAD": str(hanging_library), "HANG": str(tmp_path)}
    with Service(tmp_path, env=hang) as service:
        (tmp_path / "fstatvfs").touch()
        service.in_log("its disk or mount hangs", 60)
        with Peer(service.host, service.port) as peer:
            peer.send(associate_rq())
            assert peer.read_until_close() == reject(2, 3, 1)
        (tmp_path / "fstatvfs").unlink()
        service.in_log("receiving without limits again")
        service.echoes()
        (tmp_path / "flock").touch()
        (tmp_path / "fstatvfs").touch()
        service.worker_pids()
        service.process.send_signal(signal.SIGTERM)
        service.ends(1, 60)
        assert "given up after 10 s" in service.log()


@pytest.mark.long
@pytest.mark.timeout(300)
def test_a_worker_that_hangs_is_named_killed_and_replaced(tmp_path: Path) -> None:
    with Service(tmp_path) as service, honest(service) as one:
        number = 1 - one.worker
        stopped = worker_pid(service, number)
        os.kill(stopped, signal.SIGSTOP)
        began = time.monotonic()
        service.in_log(f"worker {number} (process {stopped}) does not answer for ", 60)
        assert time.monotonic() - began > 9
        one.goes_on()
        said = service.in_log(f"worker {number} (process {stopped}) hangs for ", 120)
        assert time.monotonic() - began > 59
        assert "killed" in said
        wait_for(lambda: worker_pid(service, number) != stopped, "another worker")
        # Main was stopped for longer than anybody may be: nobody is killed for that.
        workers = service.worker_pids()
        for pid in (*workers, service.pid):
            os.kill(pid, signal.SIGSTOP)
        stopped_at = time.monotonic()
        wait_for(lambda: time.monotonic() - stopped_at > 70, "a long stop", 90)
        for pid in (service.pid, *workers):
            os.kill(pid, signal.SIGCONT)
        service.echoes()
        assert service.worker_pids() == workers
        one.goes_on()
