"""Metrics and health of the real service, as Prometheus and a balancer ask for them."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import re
import resource
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fastscp.main.endings import LOST
from fastscp.messages.totals import OTHER
from tests.kit import (
    CT,
    DEADLINE_S,
    ELE,
    ILE,
    SOP,
    Peer,
    Service,
    associate_rq,
    data_set,
    reject,
    store,
    wait_for,
)
from tests.measures import Samples, address_of, ask, parsed, samples
from tests.process.test_control import told

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.certificates import Certificates
    from tests.kit import TLS

ANY = ("--admin", "127.0.0.1:0")
INSTANCES = "fastscp_instances_total"


def of(now: Samples, name: str, **labels: str) -> float:
    """A sample; 0 where there is none of these labels."""
    return now.get((name, tuple(sorted(labels.items()))), 0.0)


def stored_by(now: Samples, title: str) -> float:
    return of(now, "fastscp_ae_instances_total", calling_ae=title, outcome="stored")


def send(service: Service, title: str, number: int, sops: list[str], syntax: str = ELE) -> int:
    """Send instances in an association of their own; returns the bytes of their data sets."""
    sent = 0
    with service.peer((1, CT, syntax), calling=title) as peer:
        for at, sop in enumerate(sops, 1):
            data = data_set(sop=sop, study=f"1.2.{number}", syntax=syntax)
            peer.send(store(at, data, sop=sop))
            assert peer.read_statuses(1) == [(at, 0)]
            sent += len(data)
        peer.release()
    return sent


def process_of(service: Service, peer: Peer) -> int:
    """The worker process that has a peer's connection."""
    title = f"fastscp: worker {service.worker_of(peer)}".encode()
    (found,) = (
        pid
        for pid in service.worker_pids()
        if Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0 ").split(b",")[0] == title
    )
    return found


def test_counters_are_what_was_sent(tmp_path: Path) -> None:
    """By AE title, syntax, status and bytes, over workers that are killed, and a reload."""
    file = tmp_path / "site.toml"
    file.write_text("idle-timeout = '500 s'\n", encoding="utf-8")
    rng = random.Random(5)
    sent: dict[str, tuple[int, int]] = {}
    by_syntax: dict[str, int] = {ELE: 0, ILE: 0}
    killed = 0
    # Each instance is flushed by itself where none takes the redo log.
    flags = (*ANY, "--redo", "off", "--config", str(file))
    with Service(tmp_path, *flags, workers=2) as service:
        for number in range(9):
            title, syntax = f"AE{number % 3}", (ELE, ILE)[number % 2]
            sops = [f"{SOP}.{number}.{part}" for part in range(rng.randrange(1, 4))]
            done = send(service, title, number, sops, syntax)
            before = sent.get(title, (0, 0))
            sent[title] = before[0] + len(sops), before[1] + done
            by_syntax[syntax] += len(sops)
            if number % 3 == 1:
                wait_for(lambda: len(service.worker_pids()) == 2, "two workers")
                with service.peer() as peer:
                    # In the middle of an instance: it is counted as nothing, and its end as lost.
                    peer.send(store(1)[:-20])
                    worker = process_of(service, peer)
                    os.kill(worker, signal.SIGKILL)
                killed += 1
                wait_for(
                    lambda gone=worker: len({*service.worker_pids()} - {gone}) == 2,  # type: ignore[misc]
                    "another worker",
                )
            if number == 5:
                file.write_text("idle-timeout = '400 s'\n", encoding="utf-8")
                assert told(service, "reload")[0] == 0
        count = sum(one for one, _bytes in sent.values())
        # The end of the last one is told behind its last response.
        now = wait_for(
            lambda: (
                found
                if of(found := samples(service), "fastscp_associations_ended_total", how="released")
                == 9
                else None
            ),
            "all ends",
        )
        for title, (instances, nbytes) in sent.items():
            assert stored_by(now, title) == instances
            assert of(now, "fastscp_ae_stored_bytes_total", calling_ae=title) == nbytes
        for syntax, instances in by_syntax.items():
            name = "fastscp_transfer_syntax_instances_total"
            assert of(now, name, transfer_syntax=syntax, outcome="stored") == instances
        assert of(now, INSTANCES, status="0000", reason="stored") == count
        total = sum(nbytes for _instances, nbytes in sent.values())
        assert of(now, "fastscp_stored_bytes_total", status="0000", reason="stored") == total
        assert of(now, "fastscp_worker_restarts_total", asked="no") == killed
        assert of(now, "fastscp_associations_ended_total", how=LOST) == killed
        assert of(now, "fastscp_associations_accepted_total") == 9 + killed
        assert of(now, "fastscp_rules_generation") == 2
        for name in ("receive", "commit", "answer", "response", "instance"):
            assert of(now, f"fastscp_{name}_seconds_count") == count
        assert of(now, "fastscp_flush_seconds_count", what="data") == count
        batches = of(now, "fastscp_batch_instances_count", durability="stable")
        assert of(now, "fastscp_flush_seconds_count", what="batch") == batches
        assert of(now, "fastscp_batch_instances_sum", durability="stable") == count
        assert of(now, "fastscp_batch_instances_count", durability="buffered") == 0
        service.stop()


def test_what_is_refused_and_how_it_ends(tmp_path: Path) -> None:
    flags = (*ANY, "--allow", "KIT@*", "--sop-classes", "MRImageStorage")
    with Service(tmp_path, *flags, workers=1) as service:
        with Peer(service.host, service.port) as peer:
            answer = peer.associate(associate_rq(calling="STRANGER"))
            assert answer == reject(1, 1, 3)
            # Though it does not hang up; and whoever told of it may die.
            labels = {"result": "1", "source": "1", "reason": "3"}
            wait_for(
                lambda: of(samples(service), "fastscp_associations_rejected_total", **labels),
                "the rejection",
            )
        with service.peer(calling="KIT") as peer:
            peer.send(bytes.fromhex("0700000000040000") + bytes([2, 200]))
            peer.read_until_close()
        now = wait_for(
            lambda: (
                found
                if of(found := samples(service), "fastscp_associations_ended_total",
                      how="aborted by the peer")
                else None
            ),
            "the end",
        )  # fmt: skip
        rejected = "fastscp_associations_rejected_total"
        assert of(now, rejected, result="1", source="1", reason="3") == 1
        assert of(now, rejected, result="2", source="3", reason="1") == 0
        aborted = "fastscp_associations_aborted_total"
        assert of(now, aborted, side="peer", source="2", reason="other") == 1
        assert of(now, "fastscp_contexts_refused_total", abstract_syntax=CT) == 1
        service.stop()


def test_a_stream_of_titles_grows_nothing(tmp_path: Path) -> None:
    with Service(tmp_path, *ANY, workers=1) as service:
        for number in range(1000):
            with service.peer(calling=f"T{number}") as peer:
                if number >= 990:
                    sop = f"{SOP}.{number}"
                    peer.send(store(1, data_set(sop=sop), sop=sop))
                    assert peer.read_statuses(1) == [(1, 0)]
                peer.reset()
        now = samples(service)
        titles = {dict(labels)["calling_ae"] for name, labels in now if "_ae_" in name}
        assert titles == {OTHER}
        assert stored_by(now, OTHER) == 10
        assert len(now) < 600
        service.stop()


# Health -------------------------------------------------------------------------------------------


def ready(service: Service) -> tuple[int, dict[str, Any]]:
    status, _kind, body = ask(address_of(service), "/readyz")
    return status, json.loads(body)


def not_ready(service: Service) -> dict[str, Any]:
    """What it says once it is not ready any more."""

    def look() -> dict[str, Any] | None:
        status, now = ready(service)
        return now if status == 503 else None

    return wait_for(look, "not ready")


def test_health_says_what_the_status_says(tmp_path: Path) -> None:
    with Service(tmp_path, *ANY, workers=1) as service:
        status, now = ready(service)
        assert (status, now["ready"], now["state"]) == (200, True, "accepting")
        assert told(service, "pause", "--reason", "a drill")[0] == 0
        status, now = ready(service)
        shown = json.loads(told(service, "status", "--json")[1])
        assert (status, now["ready"], now["state"]) == (503, False, shown["state"])
        assert now["reasons"] == [shown["why"]] == ["a drill"]
        assert ask(address_of(service), "/healthz")[0] == 200
        assert samples(service)["fastscp_ready", ()] == 0
        assert told(service, "resume")[0] == 0
        assert ready(service)[0] == 200
        assert f"http://{address_of(service)}/metrics" in told(service, "status")[1]
        # A worker that stands still takes nobody.
        (worker,) = service.worker_pids()
        os.kill(worker, signal.SIGSTOP)
        try:
            now = not_ready(service)
            assert now["state"] == "no worker answers"
        finally:
            os.kill(worker, signal.SIGCONT)
        wait_for(lambda: ready(service)[0] == 200, "ready again")
        # And so until the end of a drain.
        with service.peer() as peer:
            peer.send(store(1)[:-20])
            service.process.send_signal(signal.SIGTERM)
            now = not_ready(service)
            assert now["state"] == "draining"
            peer.send(store(1)[-20:])
            assert peer.read_statuses(1) == [(1, 0)]
            peer.release()
        service.ends(0)


def test_the_certificate_says_when_it_expires(
    tmp_path: Path, secured: TLS, certificates: Certificates
) -> None:
    with Service(tmp_path, *ANY, tls=secured, workers=1) as service:
        found = samples(service)
    expires = certificates.server.certificate.not_valid_after_utc.timestamp()
    assert found["fastscp_tls_certificate_expiry_timestamp_seconds", ()] == expires


def test_a_full_disk_is_not_ready(tmp_path: Path) -> None:
    with Service(tmp_path, *ANY, "--min-free-space", "1000 TiB", workers=1) as service:
        now = not_ready(service)
        assert now["state"] == "disk full"
        assert "--min-free-space" in str(now["reasons"])
        space = now["space"]
        assert 0 < space["free_bytes"] < space["min_free_bytes"] == 1000 << 40
        service.stop()


# The port -----------------------------------------------------------------------------------------


@pytest.fixture
def taken() -> Iterator[str]:
    """An address that another program listens on."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield f"127.0.0.1:{sock.getsockname()[1]}"


def test_a_port_that_is_taken_is_no_start(tmp_path: Path, taken: str) -> None:
    command = [*Service.program(), "serve", "--host", "127.0.0.1", "--port", "0"]
    done = subprocess.run(
        [*command, "--store", "store", "--admin", taken], cwd=tmp_path, timeout=DEADLINE_S,
        env=Service.environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 3
    assert f"cannot listen on {taken} (--admin): " in done.stderr
    assert "choose one with --admin HOST:PORT, port 0 for any, or --admin off" in done.stderr
    assert not (tmp_path / "store").exists()


def test_the_default_port_may_be_taken(tmp_path: Path) -> None:
    """Two services on one machine, with nothing said about it."""
    with contextlib.ExitStack() as others:
        with contextlib.suppress(OSError):
            # Whoever has it: it is taken.
            others.enter_context(socket.create_server(("127.0.0.1", 8112)))
        service = Service(tmp_path, workers=1)
        service._command = [one for one in service._command if one not in ("--admin", "off")]
        with service:
            service.in_log("no metrics, and no health to ask for: cannot listen on 127.0.0.1:8112")
            service.echoes()
            assert "off" in told(service, "status")[1]
            service.stop()


def test_a_reload_changes_nothing_of_it(tmp_path: Path) -> None:
    file = tmp_path / "site.toml"
    file.write_text("admin = '127.0.0.1:0'\n", encoding="utf-8")
    service = Service(tmp_path, "--config", str(file), workers=1)
    service._command = [one for one in service._command if one not in ("--admin", "off")]
    with service:
        address = address_of(service)
        file.write_text("admin = 'off'\n", encoding="utf-8")
        service.process.send_signal(signal.SIGHUP)
        service.in_log("reload: admin: 127.0.0.1:0 -> off waits for a restart of the service")
        assert ask(address, "/healthz")[0] == 200
        service.stop()
    with pytest.raises(OSError, match="refused"):
        ask(address, "/healthz")


def test_a_token_is_in_no_text(tmp_path: Path) -> None:
    token, file = "s3cr3t-s3cr3t-s3cr3t", tmp_path / "token"
    file.write_text(f"{token}\n", encoding="ascii")
    file.chmod(0o644)
    flags = ("--admin", "0.0.0.0:0", "--admin-token-file", str(file), "-vv")
    with Service(tmp_path, *flags, workers=1) as service:
        address = f"127.0.0.1:{address_of(service).rpartition(':')[2]}"
        right = {"Authorization": f"Bearer {token}"}
        assert ask(address, "/metrics")[0] == 401
        assert ask(address, "/metrics", headers={"Authorization": f"Bearer {token}x"})[0] == 401
        assert ask(address, "/metrics", headers=right)[0] == 200
        service.in_log("every user of this machine can read the token")
        command = Path(f"/proc/{service.pid}/cmdline").read_bytes()
        assert token.encode() not in command
        service.stop()
        assert token not in service.log()
    shown = subprocess.run(
        [*Service.program(), "config", "--json", *flags[:4]], cwd=tmp_path, timeout=DEADLINE_S,
        env=Service.environment(), capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert token not in shown.stdout
    assert str(file) in shown.stdout


# What it costs ------------------------------------------------------------------------------------

_WEB = ("starlette", "uvicorn", "prometheus_client", "h11", "anyio")


def test_nobody_imports_what_it_does_not_need(tmp_path: Path) -> None:
    """Workers nothing of it, and main only where it answers: memory is theirs by the process."""
    program = (
        "import sys; import fastscp.worker.process, fastscp.main.serve, fastscp.cli.app\n"
        "print(sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    shown = subprocess.run(
        [*Service.program()[:1], "-c", program], cwd=tmp_path, timeout=DEADLINE_S,
        env=Service.environment(), capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert "fastscp_ext" in shown
    assert not re.search(rf"'({'|'.join(_WEB)})'", shown)


def rss_kib(pid: int) -> int:
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text("ascii"))
    assert found is not None
    return int(found[1])


def _asked_in_circles(address: str, over: threading.Event, wrong: list[object]) -> None:
    """A reader that asks again as soon as it is answered."""
    while not over.is_set():
        try:
            status, _kind, body = ask(address, "/metrics")
            assert status == 200
            parsed(body.decode("utf-8"))
        except (OSError, AssertionError) as error:
            if not over.is_set():
                wrong.append(repr(error))
                return


def _trickled(address: str, over: threading.Event) -> None:
    """Connections that send a byte now and then, and never a whole request."""
    host, _colon, port = address.rpartition(":")
    held: list[socket.socket] = []
    while not over.wait(0.05):
        with contextlib.suppress(OSError):
            held.append(socket.create_connection((host, int(port)), timeout=1))
        for one in held:
            with contextlib.suppress(OSError):
                one.send(b"G")
    for one in held:
        one.close()


@pytest.mark.long
def test_associations_do_not_wait_for_readers(tmp_path: Path) -> None:
    """50 that scrape in circles, and slow ones beside them: main goes on admitting at once."""

    def latencies(service: Service, count: int = 100) -> list[float]:
        found = []
        for _ in range(count):
            began = time.monotonic()
            with service.peer() as peer:
                found.append(time.monotonic() - began)
                peer.release()
        return sorted(found)

    with Service(tmp_path, *ANY, workers=1) as service:
        address = address_of(service)
        assert samples(service)
        before, memory = latencies(service), rss_kib(service.pid)
        over, wrong = threading.Event(), list[object]()
        readers = [
            threading.Thread(target=_asked_in_circles, args=(address, over, wrong))
            for _ in range(50)
        ]
        readers.append(threading.Thread(target=_trickled, args=(address, over)))
        for one in readers:
            one.start()
        try:
            # How much of a processor main needs meanwhile: a fifth, with what is not measured.
            began, cpu = time.monotonic(), _cpu_s(service.pid)
            during = latencies(service)
            share = (_cpu_s(service.pid) - cpu) / (time.monotonic() - began)
            sent = send(service, "KIT", 1, [f"{SOP}.{n}" for n in range(20)])
        finally:
            over.set()
            for one in readers:
                one.join(DEADLINE_S)
        assert wrong == []
        print(
            f"admission: median {before[50] * 1e3:.1f} -> {during[50] * 1e3:.1f} ms, 95 of 100 "
            f"{before[95] * 1e3:.1f} -> {during[95] * 1e3:.1f} ms; main {share:.0%} of a CPU, "
            f"{memory} -> {rss_kib(service.pid)} KiB"
        )
        assert share < 0.5
        assert rss_kib(service.pid) < memory + 8192
        now = wait_for(
            lambda: (
                found if stored_by(found := samples(service), "KIT") == 20 else None
            ), "the counters",
        )  # fmt: skip
        assert of(now, "fastscp_ae_stored_bytes_total", calling_ae="KIT") == sent
        service.stop()


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_scraping_under_load_loses_nothing(tmp_path: Path) -> None:
    """Counters never go back, whoever asks when; and at the end they are what was sent."""
    with Service(tmp_path, *ANY, workers=2) as service:
        seen: list[float] = []
        over = threading.Event()

        def scrape() -> None:
            while not over.is_set():
                seen.append(of(samples(service), INSTANCES, status="0000", reason="stored"))

        reader = threading.Thread(target=scrape)
        reader.start()
        try:
            for number in range(4):
                send(service, "KIT", number, [f"{SOP}.{number}.{n}" for n in range(25)])
        finally:
            over.set()
            reader.join(DEADLINE_S)
        assert seen == sorted(seen)
        assert of(samples(service), INSTANCES, status="0000", reason="stored") == 100
        service.stop()


def test_a_worker_without_descriptors_is_not_ready(tmp_path: Path) -> None:
    """The only one lets peers in, and can store nothing: a balancer is to send them elsewhere."""
    with Service(tmp_path, *ANY, workers=1) as service, service.peer() as peer:
        peer.send(store(1))
        assert peer.read_statuses(1) == [(1, 0)]
        (worker,) = service.worker_pids()
        before = resource.prlimit(worker, resource.RLIMIT_NOFILE)
        resource.prlimit(worker, resource.RLIMIT_NOFILE, (3, before[1]))
        numbers = itertools.count(2)

        def is_refused() -> bool:
            # Of what came in the same second as the one stored nobody knows which was the last.
            number = next(numbers)
            study = f"1.2.9.{number}"
            sop = f"{study}.1"
            peer.send(store(number, data_set(sop=sop, study=study), sop=sop))
            assert peer.read_statuses(1) == [(number, 0xA700)]
            return ready(service)[0] == 503

        wait_for(is_refused, "not ready")
        now = not_ready(service)
        assert now["state"] == "refusing all"
        assert "every instance is refused (A700, too many open files)" in now["reasons"][0]
        service.in_log(now["reasons"][0])
        assert of(samples(service), "fastscp_state", state="refusing all") == 1
        assert told(service, "status", "-q")[0] != 0
        resource.prlimit(worker, resource.RLIMIT_NOFILE, before)
        peer.send(store(1, sop=f"{SOP}.5"))
        assert peer.read_statuses(1) == [(1, 0)]
        wait_for(lambda: ready(service)[0] == 200, "ready again")
        service.in_log("no instance is refused for that any more")
        peer.release()
