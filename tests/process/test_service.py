"""The service as processes: how it starts, ends, loses a worker, and what it says meanwhile."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import Final

import pytest

from fastscp.cli import app as cli
from tests.kit import (
    ANY_PORT,
    RELEASE_RP,
    RELEASE_RQ,
    SOP,
    Peer,
    Service,
    abort,
    associate_rq,
    children_of,
    data_set,
    echo,
    path_of,
    reject,
    send_signal,
    store,
    wait_for,
)

OTHER: Final = SOP + ".2"
MIB: Final = 1 << 20


def _failed_start(
    tmp_path: Path, *flags: str, env: dict[str, str] | None = None
) -> tuple[int, str]:
    """Exit code and stderr of a service that is not to come up."""
    command = [*Service.program(), "serve", *flags]
    done = subprocess.run(
        command, cwd=tmp_path, env=Service.environment(env), stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr


# Start --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flags", [(), ("--log-format", "json"), ("-vv",), ("-q",)])
def test_the_first_line_says_where_it_listens(tmp_path: Path, flags: tuple[str, ...]) -> None:
    with Service(tmp_path, *flags, workers=1) as service:
        assert service.log().splitlines()[0] == f"listening on 127.0.0.1:{service.port}"
        service.echoes()


def _has_ipv6() -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
        return True
    return False


@pytest.mark.skipif(not _has_ipv6(), reason="this machine has no ::1")
def test_it_listens_on_all_hosts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Service(tmp_path, hosts=("127.0.0.1", "::1")) as service:
        assert service.addresses == [f"127.0.0.1:{service.port}", f"[::1]:{service.port}"]
        service.echoes()
        assert cli.main(["echo", f"[::1]:{service.port}"]) == 0
        assert capsys.readouterr().out.startswith(f"[::1]:{service.port} ")
        with Peer("::1", service.port) as peer:
            answer = peer.associate(associate_rq())
            assert answer is not None
            assert answer[0] == 2
            peer.send(store())
            assert peer.read_statuses(1) == [(1, 0)]
            port = peer.socket.getsockname()[1]
        assert service.journal()[-1]["peer"] == f"[::1]:{port}"


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, said = _failed_start(tmp_path, "--host", "127.0.0.1", "--port", str(port))
    assert code == 3
    assert said.startswith(f"fastscp: cannot listen on 127.0.0.1 port {port}: ")
    assert "--port" in said
    assert len(said.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []  # no ./dicom-store


def test_a_store_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    code, said = _failed_start(tmp_path, *ANY_PORT, "--store", "file")
    assert code == 3
    assert said.startswith("fastscp: ")
    assert "file" in said
    assert len(said.splitlines()) == 1


def test_a_store_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    code, said = _failed_start(tmp_path, *ANY_PORT, "--store", "file/store")
    assert code == 3
    assert len(said.splitlines()) == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_store_that_cannot_be_written(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    folder.mkdir(mode=0o500)
    code, said = _failed_start(tmp_path, *ANY_PORT, "--store", str(folder))
    assert code == 3
    assert str(folder) in said


def test_a_store_that_must_exist(tmp_path: Path) -> None:
    code, said = _failed_start(tmp_path, *ANY_PORT, "--store", "store", "--store-must-exist")
    assert code == 3
    assert "--store-must-exist" in said
    assert not (tmp_path / "store").exists()


def test_a_store_that_another_service_has(tmp_path: Path) -> None:
    with Service(tmp_path, workers=1) as service:
        code, said = _failed_start(tmp_path, *ANY_PORT, "--store", str(service.store))
        assert code == 3
        assert f"in use by process {service.pid}" in said
        service.echoes()


def test_a_limit_that_leaves_no_room_for_the_start(tmp_path: Path) -> None:
    """Not even for the memory that main shares with its workers."""
    done = subprocess.run(
        [*Service.program(), "serve", *ANY_PORT, "--store", "store"], cwd=tmp_path,
        env=Service.environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)),
        timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 3, done.stderr
    assert done.stderr.startswith("fastscp: cannot set up the memory ")
    assert len(done.stderr.splitlines()) == 1
    assert "ulimit -a" in done.stderr


def test_another_layout(tmp_path: Path) -> None:
    with Service(tmp_path, workers=1) as service:
        store_path = str(service.store)
    layout = ("--layout", "{SOPInstanceUID}.dcm")
    code, said = _failed_start(tmp_path, *ANY_PORT, "--store", store_path, *layout)
    assert code == 2
    assert "--layout-change" in said
    with (
        Service(tmp_path, *layout, "--layout-change", workers=1) as service,
        service.peer() as peer,
    ):
        peer.send(store())
        assert peer.read_statuses(1) == [(1, 0)]
        assert service.instances() == [f"{SOP}.dcm"]


def test_a_store_that_lost_its_journal(tmp_path: Path) -> None:
    with Service(tmp_path, workers=1) as service, service.peer() as peer:
        peer.send(store())
        assert peer.read_statuses(1) == [(1, 0)]
        folder = service.store
    shutil.rmtree(folder / ".fastscp/journal")
    code, said = _failed_start(tmp_path, *ANY_PORT, "--store", "store")
    assert code == 3
    assert "--store-new-life" in said
    assert len(said.splitlines()) == 1
    assert not (folder / ".fastscp/journal").exists()
    with Service(tmp_path, "--store-new-life", workers=1) as service, service.peer() as peer:
        service.in_log("had no .fastscp/journal: begun anew")
        peer.send(store())
        assert peer.read_statuses(1) == [(1, 0)]
    with Service(tmp_path, workers=1):
        pass


def test_a_start_that_fails_late_leaves_nothing(tmp_path: Path) -> None:
    """The workers cannot begin; the store is made by then."""
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "sitecustomize.py").write_text(
        "import sys\n"
        "if 'fastscp.worker.process' in str(getattr(sys, 'orig_argv', '')): sys.exit(1)\n"
    )
    environment = Service.environment()
    environment["PYTHONPATH"] = f"{broken}:{environment['PYTHONPATH']}"
    done = subprocess.run(
        [*Service.program(), "serve", *ANY_PORT, "--store", "a/store", "--workers", "2"],
        cwd=tmp_path, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 3, done.stderr
    assert list(tmp_path.iterdir()) == [broken]


@pytest.mark.parametrize(
    ("flags", "env", "told"),
    [
        (("--layout", "{StudyInstanceUID}.dcm"), {}, ("--layout", "{SOPInstanceUID}")),
        (("--layout", "{Nonsense}/{SOPInstanceUID}.dcm"), {}, ("--layout", "Nonsense")),
        (("--layout", "../{SOPInstanceUID}.dcm"), {}, ("--layout", "..")),
        (("--no-such-flag",), {}, ("--no-such-flag",)),
        (("--workers", "0"), {}, ("--workers",)),
        (("--durability", "hopeful"), {}, ("--durability", "buffered")),
        ((), {"FASTSCP_WORKER": "2"}, ("FASTSCP_WORKER", "FASTSCP_WORKERS")),
        ((), {"FASTSCP_CONFIG": "nowhere.toml"}, ("FASTSCP_CONFIG", "nowhere.toml")),
    ],
)
def test_bad_usage(
    tmp_path: Path, flags: tuple[str, ...], env: dict[str, str], told: tuple[str, ...]
) -> None:
    code, said = _failed_start(tmp_path, *flags, env=env)
    assert code == 2
    assert said.startswith("fastscp: ")
    assert len(said.splitlines()) == 1
    assert all(word in said for word in told)
    assert list(tmp_path.iterdir()) == []


# The end ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("durability", ["stable", "buffered"])
def test_it_ends_when_told(tmp_path: Path, name: signal.Signals, durability: str) -> None:
    with Service(tmp_path, "--durability", durability) as service:
        with service.peer() as peer:
            peer.send(store())
            assert peer.read_statuses(1) == [(1, 0)]
            peer.release()
        service.stop(name)
        assert service.log().splitlines()[-1].endswith("stopped")
        assert service.instances() == [path_of()]


@pytest.mark.parametrize("durability", ["stable", "buffered"])
def test_a_service_with_one_durability_has_no_journal_file_of_the_other(
    tmp_path: Path, durability: str
) -> None:
    journal = tmp_path / "store/.fastscp/journal"
    buffered = durability == "buffered"
    with Service(tmp_path, "--durability", durability) as service:
        service.worker_pids()
        # What is buffered must not wait for its file.
        names = [one.name for one in journal.iterdir()]
        assert [name.endswith("b-1.jsonl") for name in names] == [True] * len(names)
        assert bool(names) is buffered
        with service.peer() as peer:
            peer.send(store())
            assert peer.read_statuses(1) == [(1, 0)]
            peer.release()
        service.stop()
        (name,) = (one.name for one in journal.iterdir())
        assert name.endswith("b-1.jsonl") is buffered


def test_it_ends_when_told_while_it_starts(tmp_path: Path) -> None:
    command = [*Service.program(), "serve", *ANY_PORT, "--store", "store", "--workers", "4"]
    with subprocess.Popen(
        command, cwd=tmp_path, env=Service.environment(), stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            # Some workers are there, and some are still to come.
            workers = wait_for(lambda: children_of(process.pid), "the first worker")
            process.send_signal(signal.SIGTERM)
            _out, said = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 0
    assert "Traceback" not in said
    assert list((tmp_path / "store/.fastscp/incoming").iterdir()) == []
    assert not any(Path("/proc", str(pid)).exists() for pid in workers)


@pytest.mark.parametrize(
    ("command", "code"), [(("serve", *ANY_PORT), 0), (("echo", "127.0.0.1", "9"), 130)]
)
def test_an_interrupt_in_the_first_moments(
    tmp_path: Path, command: tuple[str, ...], code: int
) -> None:
    """While it imports what it needs."""
    early = tmp_path / "early"
    early.mkdir()
    (early / "cyclopts.py").write_text(
        "import os, signal, sys\n"
        "os.kill(os.getpid(), signal.SIGINT)\n"
        f"sys.path.remove({str(early)!r})\n"
        "del sys.modules['cyclopts']\n"
        "import cyclopts\n"
        "sys.modules['cyclopts'] = cyclopts\n"
    )
    environment = Service.environment()
    environment["PYTHONPATH"] = f"{early}:{environment['PYTHONPATH']}"
    done = subprocess.run(
        [*Service.program(), *command], cwd=tmp_path, env=environment, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    if code == 0:
        assert "SIGINT: ending before the start is through" in done.stderr


def test_a_drain_lets_associations_go_on_and_takes_no_new_ones(tmp_path: Path) -> None:
    with Service(tmp_path) as service, service.peer() as one, service.peer() as other:
        stream = store()
        one.send(stream[:-50])
        service.process.send_signal(signal.SIGTERM)
        service.in_log("SIGTERM: 2 associations may go on")
        with Peer(service.host, service.port) as late:
            late.send(associate_rq())
            assert late.read_until_close() == reject(2, 3, 1)
        one.send(stream[-50:])
        assert one.read_statuses(1) == [(1, 0)]
        # A message begun in the drain is as good as any.
        other.send(store(2, sop=OTHER))
        assert other.read_statuses(1) == [(2, 0)]
        one.release()
        other.release()
        service.ends(0)
        assert service.instances() == sorted([path_of(), path_of(OTHER)])


def test_whoever_comes_while_a_worker_leaves_is_its_successors(tmp_path: Path) -> None:
    """A signal to a worker alone recycles it; those that it has end as in any drain."""
    with (
        Service(tmp_path, "--drain-timeout", "50ms", workers=1) as service,
        contextlib.ExitStack() as closed,
    ):
        idle, busy = (closed.enter_context(service.peer()) for _ in range(2))
        busy.send(store()[:-50])
        wait_for(lambda: len(service.parts()) == 1, "the message")
        (worker,) = service.worker_pids()
        os.kill(worker, signal.SIGTERM)
        busy.send(store()[-50:])
        assert busy.read_statuses(1) == [(1, 0)]
        for peer in (idle, busy):
            assert peer.read_until_close() == abort(0, 0)
            peer.close()
        late = closed.enter_context(service.peer())
        late.send(store(1, sop=OTHER))
        assert late.read_statuses(1) == [(1, 0)]
        assert worker not in service.worker_pids()
        late.release()


def test_a_drain_has_an_end(tmp_path: Path) -> None:
    with Service(tmp_path, "--drain-timeout", "300ms") as service, contextlib.ExitStack() as closed:
        idle, finishing, stuck = (closed.enter_context(service.peer()) for _ in range(3))
        stream = store()
        finishing.send(stream[:-50])
        stuck.send(store(1, sop=OTHER)[:-50])
        wait_for(lambda: len(service.parts()) == 2, "both messages")
        service.process.send_signal(signal.SIGTERM)
        assert idle.read_until_close() == abort(0, 0)
        # Its time is over, but not inside a message.
        finishing.send(stream[-50:])
        assert finishing.read_statuses(1) == [(1, 0)]
        assert finishing.read_until_close() == abort(0, 0)
        assert stuck.read_until_close() == abort(0, 0)
        service.ends(0)
        assert service.instances() == [path_of()]


@pytest.mark.parametrize("durability", ["stable", "buffered"])
def test_an_end_leaves_no_instance_unanswered(tmp_path: Path, durability: str) -> None:
    flags = ("--drain-timeout", "0", "--durability", durability)
    with Service(tmp_path, *flags, workers=1) as service, service.peer() as peer:
        names = [f"{SOP}.{n}" for n in range(100)]
        peer.send(store(0, sop=names[0]))
        assert peer.read_statuses(1) == [(0, 0)]
        peer.send(b"".join(store(n, sop=names[n]) for n in range(1, 100)))
        service.process.send_signal(signal.SIGTERM)
        *answers, last = peer.read_pdus_until_close()
        assert last == abort(0, 0)
        peer.close()
        service.ends(0)
        # How far it got is open; what it took it told.
        assert len(service.journal()) == 1 + len(answers)
        assert service.instances() == sorted(map(path_of, names[: 1 + len(answers)]))


def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    with Service(tmp_path) as service, service.peer() as peer, service.peer() as idle:
        peer.send(store(1) + store(2, sop=OTHER)[:-50])
        assert peer.read_statuses(1) == [(1, 0)]
        service.process.send_signal(signal.SIGTERM)
        service.in_log("SIGTERM: 2 associations")
        service.process.send_signal(signal.SIGTERM)
        assert peer.read_until_close() == abort(0, 0)
        assert idle.read_until_close() == abort(0, 0)
        peer.close()
        idle.close()
        service.ends(0)
        assert service.instances() == [path_of()]


# Losing processes ---------------------------------------------------------------------------------


@pytest.mark.parametrize("durability", ["stable", "buffered"])
def test_a_worker_that_dies_takes_only_its_own_with_it(tmp_path: Path, durability: str) -> None:
    with (
        Service(tmp_path, "--durability", durability) as service,
        service.peer() as one,
        service.peer() as other,
    ):
        for n, peer in enumerate((one, other)):
            peer.send(store(1, sop=f"{SOP}.{n}"))
            assert peer.read_statuses(1) == [(1, 0)]
            peer.send(store(2, sop=f"{OTHER}.{n}")[:-50])
        wait_for(lambda: len(service.parts()) == 2, "both messages")
        workers = service.worker_pids()
        lives = {part.parent for part in service.parts()}
        # Two associations at rest go to two workers.
        assert len(lives) == 2
        os.kill(workers[0], signal.SIGKILL)
        assert "killed by SIGKILL" in service.in_log("ended unexpectedly")
        wait_for(lambda: len(service.parts()) == 1, "the part of the dead worker swept")
        wait_for(
            lambda: len(service.worker_pids()) == 2 and workers[0] not in service.worker_pids(),
            "another worker",
        )
        left = []
        for n, peer in enumerate((one, other)):
            with contextlib.suppress(ConnectionError):
                peer.send(store(2, sop=f"{OTHER}.{n}")[-50:])
                if peer.read_pdu() is not None:
                    left.append(n)
                    peer.release()
        assert len(left) == 1
        assert service.instances() == sorted(
            [path_of(f"{SOP}.{n}") for n in range(2)] + [path_of(f"{OTHER}.{left[0]}")]
        )
        for _ in range(4):
            service.echoes()
        if durability == "buffered":
            service.process.send_signal(signal.SIGTERM)
            service.ends(1)
            assert "the mark of an unclean end stays" in service.log()


def test_workers_outlive_main_until_their_messages_are_done(tmp_path: Path) -> None:
    service = Service(tmp_path, "-v")
    with service:
        with service.peer() as peer, service.peer() as idle:
            stream = store(2, sop=OTHER)
            peer.send(store(1) + stream[:-50])
            assert peer.read_statuses(1) == [(1, 0)]
            service.process.kill()
            service.process.wait()
            service.in_log("the main process is gone")
            assert idle.read_until_close() == abort(0, 0)
            peer.send(stream[-50:])
            assert peer.read_statuses(1) == [(2, 0)]
            assert peer.read_until_close() == abort(0, 0)
        service.leaves_nothing()
        assert service.instances() == sorted([path_of(), path_of(OTHER)])
    # Nothing of it stands in the way of the next.
    with Service(tmp_path, store=service.store) as after, after.peer() as peer:
        peer.send(store(3))
        assert peer.read_statuses(1) == [(3, 0)]
        # Rising, with a gap where a number was taken for a name that was taken itself.
        assert [fact["seq"] for fact in after.journal()] == [1, 2, 4]


@pytest.mark.parametrize("then", [signal.SIGCONT, signal.SIGKILL])
def test_connections_go_round_a_worker_that_is_silent(tmp_path: Path, then: signal.Signals) -> None:
    with Service(tmp_path) as service, contextlib.ExitStack() as closed:
        stopped = service.worker_pids()[0]
        os.kill(stopped, signal.SIGSTOP)
        closed.callback(send_signal, stopped, signal.SIGCONT)
        peers = [closed.enter_context(Peer(service.host, service.port)) for _ in range(8)]
        for peer in peers:
            peer.send(associate_rq())
        if then is signal.SIGKILL:
            # What was offered to it goes on at once.
            os.kill(stopped, then)
        for n, peer in enumerate(peers):
            answer = peer.read_pdu()
            assert answer is not None
            assert answer[0] == 2
            peer.send(store(n, sop=f"{SOP}.{n}"))
            assert peer.read_statuses(1) == [(n, 0)]
        send_signal(stopped, signal.SIGCONT)
        for peer in peers:
            peer.release()
        wait_for(lambda: len(service.worker_pids()) == 2, "two workers")
        for _ in range(4):
            service.echoes()


def test_what_came_while_a_worker_was_stalled_is_not_late(tmp_path: Path) -> None:
    """It is read before anybody's time is judged."""
    whole = store(1)
    with (
        Service(tmp_path, "--message-timeout", "2s", workers=1) as service,
        contextlib.ExitStack() as closed,
        service.peer() as peer,
    ):
        (worker,) = service.worker_pids()
        peer.send(whole[:-50])
        wait_for(service.parts, "the part")
        os.kill(worker, signal.SIGSTOP)
        closed.callback(send_signal, worker, signal.SIGCONT)
        stalled = time.monotonic()
        peer.send(whole[-50:])
        # Time is what has to pass here.
        wait_for(lambda: time.monotonic() - stalled > 3, "the end of the stall")
        os.kill(worker, signal.SIGCONT)
        assert peer.read_statuses(1) == [(1, 0)]
        peer.release()


def test_everything_killed_leaves_nothing_half(tmp_path: Path) -> None:
    service = Service(tmp_path, workers=1)
    with service, service.peer() as peer:
        peer.send(store(1) + store(2, sop=OTHER)[:-50])
        assert peer.read_statuses(1) == [(1, 0)]
        wait_for(service.parts, "the part")
        service.kill()
        assert len(service.parts()) == 1
    with Service(tmp_path, store=service.store, workers=1) as after:
        assert "1 unfinished instance," in after.in_log("swept")
        assert after.parts() == []
        assert after.instances() == [path_of()]
        assert len(after.journal()) == 1


# What it says -------------------------------------------------------------------------------------


def _one_of_each(service: Service) -> None:
    """Everything that makes a line: stored, duplicate, refused, cut short, aborted."""
    secret = {"patient_name": "SECRET^NAME", "patient_id": "SECRETID"}
    whole = data_set(**secret)  # type: ignore[arg-type]
    with service.peer(calling="A\x1b[1m\r\nB") as peer:
        peer.send(store(1, whole) + store(2, whole) + store(3, data_set(seed=1, **secret)))  # type: ignore[arg-type]
        peer.send(store(4, whole, sop="1..2") + store(5, whole, sop=OTHER) + store(6, whole[:-10]))
        peer.send(store(7, data_set(study="", **secret)) + echo(8) + store(9, whole[:60]))  # type: ignore[arg-type]
        assert [status for _id, status in peer.read_statuses(9)] == [
            0, 0, 0, 0x0117, 0xA900, 0, 0xC000, 0, 0xC000,
        ]  # fmt: skip
        peer.send(store(10, whole)[:-20])
        peer.reset()
    with service.peer() as peer:
        peer.send(store(1, whole)[:-20] + b"SECRET^NAME rubbish" * 10)
        assert peer.read_until_close() != b""


@pytest.mark.parametrize("form", ["text", "json"])
def test_no_log_or_journal_names_a_patient(tmp_path: Path, form: str) -> None:
    with Service(tmp_path, "-vv", "--log-format", form, workers=1) as service:
        _one_of_each(service)
        service.stop()
        assert "SECRET" not in service.log()
        assert not any("SECRET" in str(fact) for fact in service.journal())
        # A peer's control characters are shown, not obeyed.
        assert "\x1b" not in service.log()
        lines = service.log().splitlines()
        assert lines[0].startswith("listening on ")
        if form == "json":
            assert all(json.loads(line) for line in lines[1:])
        else:
            assert all(line.startswith("20") for line in lines[1:])


def test_v_and_vv_say_more_and_more(tmp_path: Path) -> None:
    logs = []
    for number, flag in enumerate(("-q", "-v", "-vv")):
        with Service(tmp_path / str(number), flag, workers=1) as service:
            with service.peer() as peer:
                peer.send(store())
                assert peer.read_statuses(1) == [(1, 0)]
                peer.release()
            service.stop()
            logs.append(service.log())
    quiet, debug, trace = logs
    # Whatever there is to warn of, as of the file system that the tests run on.
    assert all(" WARNING " in line for line in quiet.splitlines()[1:])
    for of_debug in (": associated", "stored " + SOP):
        assert of_debug in debug
        assert of_debug in trace
    pdus = ("A-ASSOCIATE-RQ", "A-ASSOCIATE-AC", "P-DATA-TF", "A-RELEASE-RQ", "A-RELEASE-RP")
    assert not any(name in debug for name in pdus)
    for name in pdus:
        direction = "sent" if name.endswith(("AC", "RP")) else "received"
        assert f"{direction} {name}, " in trace
    assert "sent P-DATA-TF, " in trace
    # The items of both sides of the negotiation, decoded.
    for text in (
        "received A-ASSOCIATE-RQ: presentation context 1: CTImageStorage in ExplicitVRLittleEndian",
        "sent A-ASSOCIATE-AC: presentation context 1: accepted in ExplicitVRLittleEndian",
        "max pdu length 16384, implementation class uid '1.2.3.9'",
    ):
        assert text in trace


# Many connections ---------------------------------------------------------------------------------


def test_two_associations_go_to_two_workers(tmp_path: Path) -> None:
    with Service(tmp_path) as service, service.peer() as one, service.peer() as other:
        assert service.worker_of(one) != service.worker_of(other)


def _descriptors(service: Service, kind: str = "") -> dict[int, int]:
    """How many of a kind each process of the service has open, all by default."""
    counts = {}
    for pid in (service.pid, *service.worker_pids()):
        counts[pid] = 0
        for entry in Path("/proc", str(pid), "fd").iterdir():
            # One that is closed meanwhile does not count.
            with contextlib.suppress(FileNotFoundError):
                counts[pid] += str(entry.readlink()).startswith(kind)
    return counts


def _resident(service: Service) -> int:
    return sum(
        int(Path("/proc", str(pid), "statm").read_text().split()[1]) * 4096
        for pid in (service.pid, *service.worker_pids())
    )


def _at_once(service: Service, n: int) -> None:
    with contextlib.ExitStack() as closed:
        peers = [closed.enter_context(Peer(service.host, service.port)) for _ in range(n)]
        for peer in peers:
            peer.send(associate_rq())
        for peer in peers:
            answer = peer.read_pdu()
            assert answer is not None
            assert answer[0] == 2
            peer.send(echo() + RELEASE_RQ)
        for peer in peers:
            assert peer.read_response().status == 0
            assert peer.read_until_close() == RELEASE_RP


def test_associations_leave_nothing_behind(tmp_path: Path) -> None:
    with Service(tmp_path, "-q") as service:
        sockets = _descriptors(service, "socket:")
        # The first ones make what lives as long as the service does.
        _at_once(service, 2)
        wait_for(lambda: _descriptors(service, "socket:") == sockets, "all connections closed")
        before = _descriptors(service)
        _at_once(service, 200)
        for _ in range(300):
            service.echoes()
        wait_for(lambda: _descriptors(service) == before, "all descriptors closed")
        resident = _resident(service)
        for _ in range(1000):
            service.echoes()
        _at_once(service, 200)
        wait_for(lambda: _descriptors(service) == before, "all descriptors closed")
        assert _resident(service) - resident <= MIB
        wait_for(lambda: not service.parts(), "no part left")


def test_connections_without_a_request_do_not_stop_others(tmp_path: Path) -> None:
    rq = associate_rq()
    with Service(tmp_path) as service, contextlib.ExitStack() as closed:
        slow = [closed.enter_context(Peer(service.host, service.port)) for _ in range(400)]
        for n, peer in enumerate(slow):
            peer.send(rq[: n % len(rq)])
        with service.peer() as peer:
            peer.send(store())
            assert peer.read_statuses(1) == [(1, 0)]
            peer.release()
        # All of them are still good for an association.
        for n, peer in enumerate(slow):
            peer.send(rq[n % len(rq) :])
        for peer in slow:
            answer = peer.read_pdu()
            assert answer is not None
            assert answer[0] == 2


def test_of_too_many_connections_without_a_request_the_oldest_go(tmp_path: Path) -> None:
    with Service(tmp_path) as service, contextlib.ExitStack() as closed:
        slow = [closed.enter_context(Peer(service.host, service.port)) for _ in range(520)]
        for peer in slow[:8]:
            assert peer.read_until_close(reset=True) == b""
        for peer in (slow[8], slow[-1]):
            answer = peer.associate(associate_rq())
            assert answer is not None
            assert answer[0] == 2


def test_many_senders_at_once_lose_nothing(tmp_path: Path) -> None:
    def send(sender: int) -> None:
        with service.peer() as peer:
            for n in range(25):
                sop = f"{SOP}.{sender}.{n}"
                peer.send(store(n, sop=sop, data=data_set(sop=sop, series=f"1.2.{sender}")))
                assert peer.read_statuses(1) == [(n, 0)]
            peer.release()
        done.append(sender)

    done: list[int] = []
    with Service(tmp_path) as service:
        senders = [threading.Thread(target=send, args=(n,)) for n in range(16)]
        for thread in senders:
            thread.start()
        for thread in senders:
            thread.join()
        assert sorted(done) == list(range(16))
        wanted = sorted(
            path_of(f"{SOP}.{sender}.{n}", series=f"1.2.{sender}")
            for sender in range(16)
            for n in range(25)
        )
        assert service.instances() == wanted
        facts = service.journal()
        assert sorted(fact["path"] for fact in facts) == wanted
        assert [fact["seq"] for fact in facts] == list(range(1, 401))
