"""Another program takes over from the one that runs: nobody is refused, and nothing is lost."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from fastscp.admin.client import ControlClient
from fastscp.messages.control import GetStatus, Status
from tests.kit import (
    RELEASE_RP,
    RELEASE_RQ,
    SOP,
    TLS,
    Peer,
    Service,
    abort,
    associate_rq,
    errors_in,
    store,
    wait_for,
)  # fmt: skip
from tests.measures import Samples, address_of, ask, samples
from tests.process.test_reload import LONG, REDO, Sender, more_traffic, under_load
from tests.process.upgrading import Upgrading, lives

if TYPE_CHECKING:
    from pathlib import Path

    from tests.certificates import Certificates

OF_ANOTHER_FORMAT = f"""\
#!{sys.executable}
import fastscp.store.identity as identity
# It knows none of those that a store of today may have.
identity.FORMAT = identity.FORMAT_LOGGED = 99
from fastscp.__main__ import main
raise SystemExit(main())
"""
HANGS = "#!/bin/sh\nexec sleep 1000\n"
# It says that it has begun, and takes over once it is let go on.
PREPARES_UNTIL = f"""\
#!{sys.executable}
import os, time
from fastscp.main.predecessor import Predecessor
real = Predecessor.prepared
def prepared(self):
    open({{is_there!r}}, "w").close()
    while not os.path.exists({{goes_on!r}}):
        time.sleep(0.01)
    return real(self)
Predecessor.prepared = prepared
from fastscp.__main__ import main
raise SystemExit(main())
"""


def status_now(service: Service) -> Status:
    with ControlClient(service.store / ".fastscp") as client:
        return client.ask(GetStatus(), Status)


def accepted(peer: Peer) -> None:
    answer = peer.associate(associate_rq())
    assert answer is not None
    assert answer[0] == 2


def acknowledged(service: Upgrading, *sops: str) -> None:
    """Check that these are kept, and that each fact has a number of its own."""
    facts = service.journal()
    assert {fact["sop_instance_uid"] for fact in facts} >= set(sops)
    assert len({fact["seq"] for fact in facts}) == len(facts)


def all_kept(service: Upgrading, senders: list[Sender]) -> None:
    """Check that what was acknowledged is kept, and nothing else is there."""
    facts = service.journal()
    assert {fact["sop_instance_uid"] for fact in facts} == {
        sop for one in senders for sop in one.stored
    }
    assert sorted(fact["path"] for fact in facts) == service.instances()
    assert len({fact["seq"] for fact in facts}) == len(facts)


# It goes well -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rounds", "durability"),
    [
        (1, "buffered"),
        pytest.param(50, "stable", marks=LONG),
        pytest.param(50, "buffered", marks=LONG),
    ],
)
def test_upgrades_under_load(tmp_path: Path, rounds: int, durability: str) -> None:
    """Nobody is rejected, reset or refused; what was acknowledged is there."""
    flags = ("--durability", durability, "--reload-linger", "20s", *REDO)
    with Upgrading(tmp_path, *flags) as service:
        with under_load(service) as senders:
            for _ in range(rounds):
                now = service.upgrade()
                more_traffic(senders)
                assert status_now(service).pid == now
                service.is_alone()
                wait_for(lambda: not status_now(service).predecessor, "the end of the predecessor")
        service.stop()
        all_kept(service, senders)
        assert not (service.store / ".fastscp/buffered").exists()
        log = service.log()
        assert errors_in(log) == []
        assert log.count("redo log: on") == (rounds + 1 if durability == "stable" else 0)
        assert "rejected (" not in log
        assert log.count("all is here now") == rounds


def test_the_counters_go_on(tmp_path: Path) -> None:
    """They are what was sent, over two upgrades, and while the old process still receives."""
    with Upgrading(tmp_path, "--admin", "127.0.0.1:0", workers=2) as service:
        with under_load(service) as senders:
            more_traffic(senders)
            with service.peer(calling="OLD") as old, service.peer(calling="GONE") as gone:
                old.send(store(1, sop=f"{SOP}.1") + store(2, sop="1..2"))
                assert old.read_statuses(2) == [(1, 0), (2, 0x0117)]
                service.upgrade()
                # What it had counted is there at once, and soon what it counts now.
                assert by_ae(service, "OLD") == {"stored": 1, "refused": 1, "unfinished": 0}
                old.send(store(3, sop=f"{SOP}.3"))
                assert old.read_statuses(1) == [(3, 0)]
                wait_for(lambda: by_ae(service, "OLD")["stored"] == 2, "the counts of the old one")
                gone.send(store(1, sop=f"{SOP}.4")[:-50])
                gone.close()
                more_traffic(senders)
                old.release()
            service.is_alone()
            wait_for(lambda: not status_now(service).predecessor, "the end of the predecessor")
            assert by_ae(service, "GONE") == {"stored": 0, "refused": 0, "unfinished": 1}
            more_traffic(senders)
            service.upgrade()
            more_traffic(senders)
        service.is_alone()
        wait_for(lambda: not status_now(service).predecessor, "the end of the predecessor")
        sent = sum(len(one.stored) for one in senders) + 2
        associations = sum(len(one.stored) for one in senders) // 3 + 2

        def all_told() -> Samples | None:
            """The end of the last ones is told behind their last responses."""
            found = samples(service)
            ended = summed(found, "fastscp_associations_ended_total")
            return found if ended == associations else None

        found = wait_for(all_told, "all ends")
        assert by_ae(service, "OLD") == {"stored": 2, "refused": 1, "unfinished": 0}
        assert by_ae(service, "GONE") == {"stored": 0, "refused": 0, "unfinished": 1}
        for title in ("CT", "MR"):
            stored = sum(len(one.stored) for one in senders if one.calling == title)
            assert by_ae(service, title) == {"stored": stored, "refused": 0, "unfinished": 0}
        facts = service.journal()
        assert len(facts) == sent
        for name in ("instances", "ae_instances", "transfer_syntax_instances"):
            assert summed(found, f"fastscp_{name}_total", "stored") == sent, name
        for name in ("", "ae_", "transfer_syntax_"):
            size = sum(fact["bytes"] for fact in facts)
            assert summed(found, f"fastscp_{name}stored_bytes_total") == size, name
        assert found["fastscp_response_seconds_count", ()] >= sent
        assert found["fastscp_commit_seconds_count", ()] == sent
        assert found["fastscp_associations_accepted_total", ()] == associations
        status = status_now(service)
        assert (status.stored, status.bytes) == (sent, size)
        assert (status.refused, status.unfinished) == (1, 1)


def by_ae(service: Service, title: str) -> dict[str, float]:
    found = samples(service)
    outcomes = ("stored", "refused", "unfinished")
    return {
        one: found["fastscp_ae_instances_total", (("calling_ae", title), ("outcome", one))]
        for one in outcomes
    }


def summed(found: Samples, name: str, label: str = "") -> float:
    """All samples of a name; with one of these values of a label alone."""
    return sum(
        value
        for (one, labels), value in found.items()
        if one == name and (not label or label in dict(labels).values())
    )


def test_what_goes_on_in_the_old_one_goes_on(tmp_path: Path) -> None:
    """Also an association that comes to it at the last moment; status is of the new one."""
    with Upgrading(tmp_path, workers=1) as service:
        old = service.pid
        stream = store()
        with service.peer() as one, Peer(service.host, service.port) as late:
            one.send(stream[:-50])
            wait_for(service.parts, "the message")
            now = service.upgrade()
            assert now != old
            status = status_now(service)
            assert (status.pid, status.predecessor, status.state) == (now, old, "accepting")
            assert status.associations == 0
            one.send(stream[-50:])
            assert one.read_statuses(1) == [(1, 0)]
            # It was accepted before, and had not said a word.
            accepted(late)
            late.send(RELEASE_RQ)
            assert late.read_until_close() == RELEASE_RP
            with service.peer() as other:
                other.send(store(1, sop=f"{SOP}.2"))
                assert other.read_statuses(1) == [(1, 0)]
                other.release()
            os.kill(now, signal.SIGUSR2)
            service.in_log("USR2: no upgrade: the process that this one took over from")
            assert lives(old)
            one.release()
        service.is_alone()
        wait_for(lambda: not status_now(service).predecessor, "the end of the predecessor")
        assert service.process.wait(60) == 0
        acknowledged(service, SOP, f"{SOP}.2")
        # And again, from the second.
        assert service.upgrade() not in (old, now)
        service.echoes()


def test_a_changed_configuration_is_taken_with_it(tmp_path: Path) -> None:
    file = tmp_path / "site.toml"
    file.write_text("workers = 1\n")
    with Upgrading(tmp_path, "--config", str(file), workers=0) as service:
        file.write_text('workers = 3\n[ae.RESEARCH]\nlayout = "+r/{SOPInstanceUID}.dcm"\n')
        service.upgrade()
        assert len(service.worker_pids()) == 3
        with service.peer(called="RESEARCH") as peer:
            peer.send(store())
            assert peer.read_statuses(1) == [(1, 0)]
            peer.release()
        assert service.instances() == [f"+r/{SOP}.dcm"]
        assert status_now(service).rules.tables == 1


def test_both_ports_are_handed_over(tmp_path: Path, certificates: Certificates) -> None:
    """That with TLS, too, where a message that is on its way goes on in the old process."""
    tls = TLS(("--tls-cert", str(certificates.server.both)), certificates.client_context())
    with Upgrading(tmp_path, tls=tls, plain=True, workers=1) as service:
        assert service.tls_port not in (0, service.port)
        stream = store()
        with service.connect(secured=True) as one, service.connect(secured=True) as late:
            accepted(one)
            one.send(stream[:-50])
            wait_for(service.parts, "the message")
            now = service.upgrade()
            status = status_now(service)
            assert status.tls_addresses == (f"127.0.0.1:{service.tls_port}",)
            assert status.addresses == (f"127.0.0.1:{service.port}",)
            one.send(stream[-50:])
            assert one.read_statuses(1) == [(1, 0)]
            one.release()
            # Whose handshake was over, and which had not said more.
            accepted(late)
            late.release()
        service.is_alone()
        for number, secured in enumerate((True, False), 2):
            with service.connect(secured=secured) as peer:
                accepted(peer)
                peer.send(store(1, sop=f"{SOP}.{number}"))
                assert peer.read_statuses(1) == [(1, 0)]
                peer.release()
        assert service.main() == now
        acknowledged(service, SOP, f"{SOP}.2", f"{SOP}.3")


def test_who_scrapes_is_answered_throughout(tmp_path: Path) -> None:
    """On the same port, by whoever is the service."""
    with Upgrading(tmp_path, "--admin", "127.0.0.1:0", workers=1) as service:
        address = address_of(service)
        host, _, port = address.rpartition(":")
        # Nobody has for ever to ask: one that is silent is there when the new one has begun. And as
        # long as the old one has an association it answers, however slow this test is.
        is_there, goes_on = tmp_path / "is there", tmp_path / "goes on"
        service.replace(PREPARES_UNTIL.format(is_there=str(is_there), goes_on=str(goes_on)))
        peer = service.peer()
        said: list[tuple[int, int]] = []
        wrong: list[Exception] = []
        over = threading.Event()

        def scrape() -> None:
            while not over.is_set():
                try:
                    status, _kind, body = ask(address, "/healthz")
                except (OSError, http.client.HTTPException) as error:
                    wrong.append(error)
                    return
                said.append((status, json.loads(body)["pid"]))

        scraper = threading.Thread(target=scrape)
        scraper.start()
        try:
            wait_for(lambda: said or wrong, "the first answer")
            service.worker_pids()
            os.kill(service.pid, signal.SIGUSR2)
            wait_for(is_there.exists, "the new one")
            with peer, socket.create_connection((host, int(port))) as waiting:
                peer.send(store())
                assert peer.read_statuses(1) == [(1, 0)]
                # Until it is accepted.
                wait_for(lambda: len(said) > 2 or wrong, "another answer")
                assert samples(service)["fastscp_associations_accepted_total", ()] == 1
                goes_on.touch()
                now = service.taken_over(service.pid)
                waiting.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
                answer = b"".join(iter(lambda: waiting.recv(4096), b""))
                assert answer.startswith(b"HTTP/1.1 200")
                assert json.loads(answer.partition(b"\r\n\r\n")[2])["pid"] == service.pid
                peer.release()
            wait_for(lambda: wrong or said[-1][1] == now, "an answer of the new one")
        finally:
            over.set()
            scraper.join(60)
        assert wrong == []
        assert {one for one, _pid in said} == {200}
        pids = [pid for _status, pid in said]
        assert pids == sorted(pids, key=[service.pid, now].index)
        assert address_of(service) == address
        assert samples(service)["fastscp_associations_accepted_total", ()] == 1
        service.is_alone()
        service.echoes()


# It goes wrong ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("exits", "it ended (exit code 1)"),
        pytest.param("killed", "it ended (killed by SIGKILL)", marks=pytest.mark.long),
        pytest.param("hangs", "no answer for 0.5 s", marks=pytest.mark.long),
        pytest.param("file", "it ended (exit code 2)", marks=pytest.mark.long),
        ("layout", "it ended (exit code 2)"),
        pytest.param("format", "it ended (exit code 3)", marks=pytest.mark.long),
        pytest.param("gone", "cannot be started (No such file", marks=pytest.mark.long),
    ],
)
def test_a_program_that_cannot_start_leaves_the_old_one(
    tmp_path: Path, how: str, said: str
) -> None:
    file = tmp_path / "site.toml"
    file.write_text('layout = "{SOPInstanceUID}.dcm"\n')
    patience = 0.5 if how == "hangs" else 60.0
    flags = ("--config", str(file))
    with Upgrading(tmp_path, *flags, patience=patience, workers=1) as service:
        with service.peer() as peer:
            peer.send(store())
            assert peer.read_statuses(1) == [(1, 0)]
            match how:
                case "exits":
                    service.replace("#!/bin/sh\nexit 1\n")
                case "killed":
                    service.replace("#!/bin/sh\nkill -9 $$\n")
                case "hangs":
                    service.replace(HANGS)
                case "file":
                    file.write_text("workers = many\n")
                case "layout":
                    file.write_text('layout = "x/{SOPInstanceUID}.dcm"\n')
                case "format":
                    service.replace(OF_ANOTHER_FORMAT)
                case "gone":
                    service._script.unlink()
            os.kill(service.pid, signal.SIGUSR2)
            line = service.in_log("goes on as before: put the cause right, and send USR2 again")
            assert said in line
            peer.send(store(2, sop=f"{SOP}.2"))
            assert peer.read_statuses(1) == [(2, 0)]
            peer.release()
        service.echoes()
        assert service.main() == service.pid
        assert status_now(service).pid == service.pid
        assert service.process.poll() is None
        acknowledged(service, SOP, f"{SOP}.2")


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_programs_that_cannot_start_under_load(tmp_path: Path) -> None:
    """Again and again, each in another way; nobody notices, and a good one takes over at last."""
    programs = ("#!/bin/sh\nexit 1\n", "#!/bin/sh\nkill -9 $$\n", OF_ANOTHER_FORMAT)
    with Upgrading(tmp_path) as service:
        good = service._script.read_text()
        with under_load(service) as senders:
            for n in range(50):
                service.replace(programs[n % len(programs)])
                os.kill(service.pid, signal.SIGUSR2)
                wait_for(lambda n=n: service.log().count("goes on as before") > n, "the failure")  # type: ignore[misc]
                more_traffic(senders)
                assert status_now(service).pid == service.pid
            service.replace(good)
            service.upgrade()
            more_traffic(senders)
        service.stop()
        all_kept(service, senders)
        log = service.log()
        assert log.count("has format ") >= 50 // len(programs)
        assert "rejected (" not in log


def test_one_that_fails_at_the_last_moment_leaves_the_old_one(tmp_path: Path) -> None:
    """It has the control socket and the lock by then, and these are the old one's again."""
    with Upgrading(tmp_path, workers=1) as service:
        service.replace(
            f"#!{sys.executable}\n"
            "import os\n"
            "from fastscp.main.predecessor import Predecessor\n"
            "Predecessor.serving = lambda self: os._exit(7)\n"
            "from fastscp.__main__ import main\n"
            "raise SystemExit(main())\n"
        )
        os.kill(service.pid, signal.SIGUSR2)
        line = service.in_log("goes on as before")
        assert "does not take over: it ended (exit code 7)" in line
        service.echoes()
        wait_for(lambda: service.main() == service.pid, "the lock")
        service.in_log("admin.sock was removed, and is made anew")
        assert status_now(service).pid == service.pid


def test_one_at_a_time_and_the_end_is_of_both(tmp_path: Path) -> None:
    """Nor is the configuration read meanwhile."""
    with Upgrading(tmp_path, workers=1) as service:
        service.replace(HANGS)
        os.kill(service.pid, signal.SIGUSR2)
        service.in_log("and takes over once it is ready")
        os.kill(service.pid, signal.SIGUSR2)
        service.in_log("USR2: no upgrade: one is under way already")
        os.kill(service.pid, signal.SIGHUP)
        service.in_log("reload refused: an upgrade is under way")
        service.stop()
        assert "SIGTERM: the upgrade that is under way is given up" in service.log()
        assert service.process.returncode == 0


def test_the_end_of_the_new_one_is_that_of_both(tmp_path: Path) -> None:
    with Upgrading(tmp_path, "--drain-timeout", "500ms", workers=1) as service:
        with service.peer() as idle:
            service.upgrade()
            service.worker_pids()
            os.kill(service.main(), signal.SIGTERM)
            assert idle.read_until_close() == abort(0, 0)
        service.all_end()
        assert errors_in(service.log()) == []


def test_the_end_of_the_old_one_is_its_own(tmp_path: Path) -> None:
    with Upgrading(tmp_path, "--drain-timeout", "300ms", workers=1) as service:
        with service.peer() as idle:
            service.upgrade()
            os.kill(service.pid, signal.SIGTERM)
            assert idle.read_until_close() == abort(0, 0)
        service.is_alone()
        assert service.process.wait(60) == 0
        service.echoes()


@pytest.mark.parametrize("durability", ["stable", "buffered"])
def test_the_old_one_is_killed(tmp_path: Path, durability: str) -> None:
    """The new one goes on, and its end tells that not all went in order."""
    with Upgrading(tmp_path, "--durability", durability, workers=1) as service:
        with service.peer() as peer:
            stream = store()
            peer.send(stream[:-50])
            wait_for(service.parts, "the message")
            service.upgrade()
            os.kill(service.pid, signal.SIGKILL)
            service.process.wait()
            peer.send(stream[-50:])
            assert peer.read_statuses(1) == [(1, 0)]
        service.in_log("did not end in order")
        service.echoes()
        os.kill(service.main(), signal.SIGTERM)
        service.all_end()
        acknowledged(service, SOP)
        marked = (service.store / ".fastscp/buffered").exists()
        assert marked == (durability == "buffered")


def test_the_new_one_is_killed(tmp_path: Path) -> None:
    """The old one ends soon, with what it has in hand, and the next start works."""
    with Upgrading(tmp_path, workers=1) as service:
        with service.peer() as peer, service.peer() as idle:
            stream = store()
            peer.send(stream[:-50])
            wait_for(service.parts, "the message")
            now = service.upgrade()
            os.kill(now, signal.SIGKILL)
            assert idle.read_until_close() == abort(0, 0)
            peer.send(stream[-50:])
            assert peer.read_statuses(1) == [(1, 0)]
            with Service(tmp_path, store=service.store, workers=1) as later:
                later.echoes()
                assert {fact["sop_instance_uid"] for fact in later.journal()} == {SOP}
        wait_for(lambda: service.process.poll() is not None, "the end of the old one")
        assert "the successor of this process is gone (killed by SIGKILL)" in service.log()


def test_the_old_one_is_killed_before_it_hands_over(tmp_path: Path) -> None:
    """The new one is nobody's service then, and the next start works."""
    with Upgrading(tmp_path, workers=1) as service:
        service.replace(
            f"#!{sys.executable}\n"
            "import fastscp.main.serve as serve\n"
            "real = serve.Workers.start\n"
            "async def start(self, count):\n"
            f"    open({str(tmp_path / 'starts')!r}, 'w').close()\n"
            "    import asyncio\n"
            "    await asyncio.sleep(1000)\n"
            "serve.Workers.start = start\n"
            "from fastscp.__main__ import main\n"
            "raise SystemExit(main())\n"
        )
        os.kill(service.pid, signal.SIGUSR2)
        line = service.in_log("and takes over once it is ready")
        new = int(line.partition("upgrade: process ")[2].split()[0])
        service.mains.append(new)
        wait_for((tmp_path / "starts").exists, "the new one")
        os.kill(service.pid, signal.SIGKILL)
        service.process.wait()
        wait_for(lambda: not lives(new), "the end of the new one")
        service.in_log("the main process that started this one to take over from it is gone")
        with Service(tmp_path, store=service.store, workers=1) as later:
            later.echoes()


def test_a_demonstration_is_not_upgraded(tmp_path: Path) -> None:
    log = tmp_path / "log"
    command = [*Service.program(), "demo", "--port", "0", "--workers", "1"]
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            command, cwd=tmp_path, env=Service.environment(), stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=stderr,
        )  # fmt: skip
    with process:
        try:
            wait_for(lambda: "listening on " in log.read_text(), "the service")
            process.send_signal(signal.SIGUSR2)
            wait_for(lambda: "no upgrade: this command cannot" in log.read_text(), "the refusal")
            process.send_signal(signal.SIGTERM)
            process.wait(60)
        finally:
            process.kill()
