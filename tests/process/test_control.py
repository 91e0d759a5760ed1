"""The commands to a running service, as an operator gives them."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import signal
import stat
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from fastscp.admin.client import ControlClient
from fastscp.admin.place import ControlSocketError
from fastscp.cli import app as cli
from fastscp.messages.control import GetStatus, Status
from tests.kit import (
    DEADLINE_S,
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
    split_pdus,
    store,
    wait_for,
)

if TYPE_CHECKING:
    from pathlib import Path

SOCKET = ".fastscp/admin.sock"


def told(service: Service, *words: str) -> tuple[int, str, str]:
    """What a command to the service ends with and prints: exit code, stdout, stderr."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.main([*words, "--store", str(service.store)])
    return code, out.getvalue(), err.getvalue()


def of_json(service: Service, *words: str) -> Any:
    code, out, err = told(service, *words, "--json")
    assert (code, err) == (0, ""), err
    return json.loads(out)


def status_now(service: Service) -> Status:
    with ControlClient(service.store / ".fastscp") as client:
        return client.ask(GetStatus(), Status)


def id_of(service: Service, peer: Peer) -> str:
    port = peer.socket.getsockname()[1]
    found = of_json(service, "associations", "--once")
    return str(next(one["id"] for one in found if one["port"] == port))


def test_status_pause_and_resume(tmp_path: Path) -> None:
    with Service(tmp_path, "--max-associations", "7") as service:
        socket_ = service.store / SOCKET
        assert stat.S_IMODE(socket_.lstat().st_mode) == 0o600
        code, out, err = told(service, "status")
        assert (code, err) == (0, "")
        assert out.splitlines()[0].split() == ["state", "accepting"]
        assert f"process {service.pid}, up " in out
        assert f"{service.host}:{service.port}" in out
        assert "2 of 2 up" in out
        with service.peer() as peer:
            peer.send(store())
            assert peer.read_response().status == 0
            code, out, _err = told(service, "pause", "--reason", "a new\ndisk")
            assert (code, out.partition("UTC")[2]) == (0, ": a new\\ndisk\n")
            again = of_json(service, "pause", "--reason", "other")
            assert (again["changed"], again["why"]) == (False, "a new\\ndisk")
            # The listener stays; who is there goes on; who comes is rejected, and the log says why.
            with Peer(service.host, service.port) as late:
                assert late.associate(associate_rq()) == reject(2, 3, 1)
            service.in_log("rejected (2,3,1): paused by the operator: a new\\ndisk")
            peer.send(echo(2))
            assert peer.read_response().status == 0
            now = status_now(service)
            assert (now.state, now.why, now.associations, now.limit) == (
                "paused", "a new\\ndisk", 1, 7
            )  # fmt: skip
            wait_for(lambda: status_now(service).rejected == 1, "the rejection counted")
            assert status_now(service).stored == 1
            code, out, err = told(service, "status", "-q")
            assert (code, out, err) == (1, "", "")
            assert told(service, "status")[1].startswith("state         paused since 20")
            assert told(service, "resume")[1].startswith("resumed; it was paused since 20")
            assert told(service, "resume")[1] == "it was not paused, and nothing changed\n"
            service.echoes()
            peer.release()
        service.stop()
        done = subprocess.run(
            [*Service.program(), "status", "--store", str(service.store)],
            env=Service.environment(), capture_output=True, text=True, timeout=DEADLINE_S,
            check=False,
        )  # fmt: skip
        assert (done.returncode, done.stdout) == (3, "")
        assert done.stderr.startswith("fastscp: no service runs on the store ")
        assert told(service, "status", "-q") == (3, "", "")


def test_associations_and_their_end(tmp_path: Path) -> None:
    with Service(tmp_path, workers=1) as service:
        data = data_set(sop=SOP + ".2", pixels=300_000)
        idle, storing = service.peer(calling=b"\xff%"), service.peer(calling="MR")
        silent = Peer(service.host, service.port)
        with idle, storing, silent:
            # One that is complete and one that is not.
            storing.send(store() + b"".join(list(split_pdus(store(2, data, sop=SOP + ".2")))[:9]))
            assert storing.read_response().status == 0
            found = of_json(service, "associations")
            assert [(one["calling_ae"], one["phase"]) for one in found] == [
                ("%FF%25", "idle"), ("MR", "storing"), ("", "connected"),
            ]  # fmt: skip
            assert [one["rate"] for one in found] == [0, 0, 0]
            assert [found[1][name] for name in ("stored", "bytes", "called_ae", "rules")] == [
                1, len(data_set()), "FASTSCP", "default",
            ]  # fmt: skip
            table = told(service, "associations", "--once")[1].splitlines()
            assert table[0].split()[:2] == ["ID", "CALLING"]
            assert "%FF%25 > FASTSCP" in table[1]
            whole, number = found[0]["id"], found[1]["id"].rpartition(".")[2]
            code, out, err = told(service, "abort", whole, number, "99")
            assert (code, out) == (1, f"{whole}: over\n{found[1]['id']}: over\n")
            assert err == (
                "99: there is no such association or connection; see `fastscp associations`\n"
            )
            for peer in (idle, storing):
                assert peer.read_pdus_until_close() == [abort(0, 0)]
            assert told(service, "abort", found[2]["id"])[0] == 0
            assert silent.read_until_close(reset=True) == b""
            # Its own line says who did it, and what became of the one inside.
            service.in_log(f"{found[2]['id']} {silent.name}: by the operator (fastscp abort, uid ")
            said = service.in_log("aborted (0,0): by the operator (fastscp abort, uid ")
            assert said.partition(" ")[2].startswith("INFO worker-0: " + whole)
            assert "stored 1, refused 0, unfinished 1, " in service.in_log(f"{found[1]['id']} MR@")
        assert service.instances() == [path_of()]
        # One that reads nothing of what it is answered.
        with Peer(service.host, service.port, receive_buffer=4096) as deaf:
            assert (deaf.associate(associate_rq()) or b"")[0] == 2
            deaf.socket.setblocking(False)
            many, sent = echo(1) * 1000, 0
            with contextlib.suppress(BlockingIOError):
                while True:
                    sent += deaf.socket.send(many)
            assert sent > 0
            code, out, _err = told(service, "abort", id_of(service, deaf))
            assert (code, out.endswith(": over\n")) == (0, True)
        wait_for(lambda: status_now(service).connections == 0, "the end of the connection")
        assert told(service, "associations")[1] == "no connections\n"


def test_a_killed_service_leaves_a_socket_that_the_next_one_replaces(tmp_path: Path) -> None:
    # Far longer than the address of a socket may be.
    place = tmp_path / ("x" * 90) / "store"
    with Service(tmp_path, store=place, workers=1) as service:
        assert status_now(service).state == "accepting"
        service.process.kill()
        service.process.wait(DEADLINE_S)
        assert (place / SOCKET).is_socket()
        assert told(service, "status", "-q")[0] == 3
        service.leaves_nothing()
    with Service(tmp_path, store=place, workers=1) as service:
        assert told(service, "status", "-q")[0] == 0


def test_what_has_the_sockets_name_stays(tmp_path: Path) -> None:
    own = tmp_path / "store" / ".fastscp"
    own.mkdir(parents=True)
    (own / "admin.sock").write_bytes(b"mine")
    with Service(tmp_path, workers=1) as service:
        service.in_log("is there already, and is no socket, so no service made it: move it away")
        assert service.log().count("no control socket") == 1
        service.echoes()
        code, _out, err = told(service, "status")
        assert (code, "is no socket, so a service here has none: move it away" in err) == (2, True)
        # As after somebody moved it away, and before the restart.
        (own / "admin.sock").unlink()
        code, _out, err = told(service, "status")
        assert code == 2
        assert f"process {service.pid} uses the store {service.store}, and has no control" in err


def test_who_gets_no_answer(tmp_path: Path) -> None:
    with Service(tmp_path, workers=1) as service:
        if os.geteuid() == 0:
            another_user_may_not(service)
        service.process.send_signal(signal.SIGSTOP)
        said = f"its main process ({service.pid}) hangs or is stopped"
        refused = pytest.raises(ControlSocketError, match=re.escape(said))
        try:
            with ControlClient(service.store / ".fastscp", 0.3) as client, refused:
                client.ask(GetStatus(), Status)
        finally:
            service.process.send_signal(signal.SIGCONT)
        # What was asked meanwhile is answered to nobody, and the service goes on.
        assert status_now(service).state == "accepting"


def test_a_socket_that_was_removed_is_made_anew(tmp_path: Path) -> None:
    with Service(tmp_path, workers=1) as service:
        (service.store / SOCKET).unlink()
        service.in_log("admin.sock was removed, and is made anew")
        assert told(service, "status")[0] == 0


def test_a_worker_that_is_stopped_takes_none(tmp_path: Path) -> None:
    with Service(tmp_path, workers=1) as service:
        (worker,) = children_of(service.pid)
        os.kill(worker, signal.SIGSTOP)
        try:
            wait_for(lambda: status_now(service).state == "no worker answers", "it to be seen")
            code, out, _err = told(service, "status")
            assert (code, "0 of 1 up" in out) == (1, True)
        finally:
            os.kill(worker, signal.SIGCONT)
        wait_for(lambda: status_now(service).state == "accepting", "its going on")


def another_user_may_not(service: Service) -> None:
    as_nobody = (
        "import os, sys\n"
        # That user may not read them.
        "import fastscp.admin.client, fastscp.store.access, fastscp.messages.control\n"
        "from fastscp.cli.app import main\n"
        "os.setresuid(65534, 65534, 65534)\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", as_nobody, "status", "--store", str(service.store)],
        env=Service.environment(), capture_output=True, text=True, timeout=DEADLINE_S,
        check=False,
    )  # fmt: skip
    # That it runs and does not accept is another code: nobody was asked.
    assert (done.returncode, done.stdout) == (2, "")
    assert "Permission denied): only root and the user it runs as (uid 0) may" in done.stderr


def test_it_answers_while_it_drains(tmp_path: Path) -> None:
    with Service(tmp_path, "--drain-timeout", "60", workers=1) as service, service.peer() as peer:
        peer.send(store()[:400])
        wait_for(lambda: status_now(service).associations == 1, "the association")
        service.process.send_signal(signal.SIGTERM)
        wait_for(lambda: status_now(service).state == "draining", "the drain")
        assert status_now(service).why == "shutting down"
        # Whoever holds up the end is named, and can be ended.
        assert told(service, "abort", id_of(service, peer))[0] == 0
        peer.close()
        service.ends(0)
