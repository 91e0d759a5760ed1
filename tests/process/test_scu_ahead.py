"""`fastscp send` while it still looks for files: what it finds late, and what comes between."""

from __future__ import annotations

import os
import signal
import socket
import threading
from typing import TYPE_CHECKING

import pytest

from fastscp.cli import send_run
from fastscp.scu.send import carrier, source
from fastscp.scu.send.files import Finder, Found
from fastscp.scu.send.options import Options
from fastscp.scu.send.outcomes import Summary
from fastscp.scu.send.shipment import Shipment
from tests.kit import CT, DEADLINE_S, ELE, ILE, MR, RELEASE_RQ, abort, data_set, reject
from tests.process.test_scu import Sent
from tests.scripted import Connection, Message, Scp, part10, write_files

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FIRST = 3


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Three files are looked at before anything is sent; the others not before this is set."""
    opened = threading.Event()
    look = Finder.look

    def gated(finder: Finder, found: Found, most: int, _seconds: float) -> None:
        if finder.seen >= FIRST:
            assert opened.wait(DEADLINE_S)
        look(finder, found, most, DEADLINE_S)

    monkeypatch.setattr(send_run, "_FIRST_FILES", FIRST)
    monkeypatch.setattr(send_run, "_FIRST_S", 1e-9)
    monkeypatch.setattr(send_run, "_AT_A_TIME", 1)
    monkeypatch.setattr(Finder, "look", gated)
    return opened


@pytest.fixture
def send(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., Sent]:
    return lambda *arguments: Sent(capsys, tmp_path, *map(str, arguments))


def write(folder: Path, *kinds: tuple[str, str]) -> list[str]:
    """A file of each SOP class and transfer syntax; returns the UIDs of the instances."""
    folder.mkdir()
    names = [f"1.2.3.{number + 1}" for number in range(len(kinds))]
    for number, (sop, (sop_class, syntax)) in enumerate(zip(names, kinds, strict=True)):
        data = data_set(syntax, sop=sop, sop_class=sop_class)
        (folder / f"{number:02}").write_bytes(
            part10(data, sop=sop, sop_class=sop_class, syntax=syntax)
        )
    return names


def opening(gate: threading.Event, proposed: list[list[str]]) -> Callable[..., list[Message]]:
    """A script that lets the rest be found once it has all that was found first."""

    def script(connection: Connection) -> list[Message]:
        connection.accept()
        assert connection.request is not None
        contexts = connection.request.presentation_contexts
        proposed.append([one.abstract_syntax for one in contexts])
        got: list[Message] = []
        if not gate.is_set():
            for _ in range(FIRST):
                one = connection.read_message()
                assert one is not None
                connection.respond(one)
                got.append(one)
            gate.set()
        return got + connection.serve()

    return script


def test_a_late_context_is_proposed_by_the_next_association(
    gate: threading.Event, send: Callable[..., Sent], tmp_path: Path
) -> None:
    kinds = [(CT, ELE)] * 4 + [(MR, ELE), (CT, ELE), (CT, ILE), (MR, ELE)]
    names = write(tmp_path / "in", *kinds)
    proposed: list[list[str]] = []
    with Scp(opening(gate, proposed)) as scp:
        sent = send(scp.address, tmp_path / "in")
    assert sent.code == 0
    assert proposed == [[CT], [CT, MR, CT]]
    got = [[one.command.affected_sop_instance_uid for one in each] for each in scp.results]
    # What the first one still can carry goes before.
    assert got == [[*names[:4], names[5]], [names[4], *names[6:]]]
    assert [one.context_id for one in scp.results[1]] == [3, 5, 3]
    assert (sent.summary["stored"], sent.summary["associations"]) == (8, 2)
    assert sent.summary["retried"] == 0
    assert set(sent.attempts) == {1}


def test_late_contexts_beyond_what_an_association_holds(
    gate: threading.Event, send: Callable[..., Sent], tmp_path: Path
) -> None:
    kinds = [(CT, ELE)] * 3 + [(f"1.2.3.77.{number}", ELE) for number in range(130)]
    names = write(tmp_path / "in", *kinds)
    proposed: list[list[str]] = []
    with Scp(opening(gate, proposed)) as scp:
        sent = send(scp.address, tmp_path / "in")
    assert sent.code == 0
    assert list(map(len, proposed)) == [1, 128, 3]
    got = [one.command.affected_sop_instance_uid for each in scp.results for one in each]
    assert sorted(map(str, got)) == sorted(names)


def test_what_is_no_instance_is_counted_when_it_is_found(
    gate: threading.Event, send: Callable[..., Sent], tmp_path: Path
) -> None:
    names = write(tmp_path / "in", *[(CT, ELE)] * 5)
    (tmp_path / "in/03a").write_bytes(part10(b""))
    (tmp_path / "in/03b").write_text("text")
    os.symlink(tmp_path / "nowhere", tmp_path / "in/03c")
    with Scp(opening(gate, [])) as scp:
        sent = send(scp.address, tmp_path / "in")
    assert sent.code == 1
    assert [one.command.affected_sop_instance_uid for one in scp.results[0]] == names
    assert (sent.summary["stored"], sent.summary["failed"]) == (5, 2)
    assert sent.summary["skipped"] == 1
    assert sent.lines["03a"]["error"] == "it has no data set"
    assert sent.lines["03c"]["error"] == "cannot be read: No such file or directory"
    assert "03c: cannot be read" in sent.errors


@pytest.mark.parametrize("ahead", [1, 1000])
def test_what_is_found_after_all_hope_is_lost_fails_as_well(
    gate: threading.Event,
    send: Callable[..., Sent],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    ahead: int,
) -> None:
    write(tmp_path / "in", *[(CT, ELE)] * 4, (MR, ELE))
    monkeypatch.setattr(source, "_LOOK_AHEAD", ahead)

    def script(connection: Connection) -> None:
        connection.read_request()
        connection.socket.sendall(reject(1, 1, 7))
        connection.until_closed()
        gate.set()

    with Scp(script) as scp:
        sent = send(scp.address, tmp_path / "in", "--timeout", "60")
        assert scp.connections == 1
    assert sent.code == 1
    assert sent.summary["failed"] == 5
    assert all("called AE title not recognized" in one["error"] for one in sent.lines.values())
    assert sent.errors.count("5 instances were not sent") == 1


@pytest.mark.parametrize("times", [1, 2])
def test_interrupted_while_it_looks(
    gate: threading.Event, send: Callable[..., Sent], tmp_path: Path, times: int
) -> None:
    """Nobody waits for a slow disk to release an association."""
    write(tmp_path / "in", *[(CT, ELE)] * 5)

    def script(connection: Connection) -> list[Message]:
        connection.accept()
        got = []
        for _ in range(FIRST):
            one = connection.read_message()
            assert one is not None
            connection.respond(one)
            got.append(one)
        for _ in range(times):
            os.kill(os.getpid(), signal.SIGINT)
        return got + connection.serve()

    with Scp(script) as scp:
        sent = send(scp.address, tmp_path / "in")
    # The disk has hung all the time.
    gate.set()
    assert sent.code == 130
    assert sent.summary["interrupted"] is True
    assert len(scp.results[0]) == FIRST
    assert len(sent.lines) == sent.summary["stored"] == FIRST


@pytest.mark.parametrize("end", [b"", abort(2, 0), RELEASE_RQ])
def test_a_peer_that_leaves_while_nothing_is_found(
    gate: threading.Event, send: Callable[..., Sent], tmp_path: Path, end: bytes
) -> None:
    """As it may: nothing is lost, though nothing may be tried again."""
    write_files(tmp_path / "in", 40)

    def leaves(connection: Connection) -> None:
        connection.accept()
        for _ in range(FIRST):
            one = connection.read_message()
            assert one is not None
            connection.respond(one)
        connection.socket.sendall(end)
        connection.socket.shutdown(socket.SHUT_WR)
        gate.set()
        connection.until_closed()

    def serves(connection: Connection) -> list[Message]:
        connection.accept()
        return connection.serve()

    with Scp(leaves, serves) as scp:
        sent = send(scp.address, tmp_path / "in", "--retries", "0")
    assert (sent.code, sent.summary["stored"], sent.summary["retried"]) == (0, 40, 0)
    assert scp.connections == 2
    assert set(sent.attempts) == {1}


def test_what_is_found_does_not_wait_for_what_is_put_off(
    gate: threading.Event,
    send: Callable[..., Sent],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_files(tmp_path / "in", 6)
    monkeypatch.setattr(carrier, "_FIRST_BACK_OFF_S", 1.0)

    def script(connection: Connection) -> list[Message]:
        connection.accept()
        got = []
        for status in (0xA700, 0, 0):
            one = connection.read_message()
            assert one is not None
            connection.respond(one, status)
            got.append(one)
        gate.set()
        return got + connection.serve()

    with Scp(script) as scp:
        sent = send(scp.address, tmp_path / "in")
    assert (sent.code, scp.connections) == (0, 1)
    names = [str(one.command.affected_sop_instance_uid)[-2:] for one in scp.results[0]]
    assert names == [".1", ".2", ".3", ".4", ".5", ".6", ".1"]


@pytest.mark.parametrize("associations", [1, 4])
def test_contexts_that_turn_up_one_by_one(
    send: Callable[..., Sent],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    gate: threading.Event,
    associations: int,
) -> None:
    """One association for each, however many there may be at a time."""
    kinds = [(f"1.2.3.77.{number // FIRST}", ELE) for number in range(12 * FIRST)]
    write(tmp_path / "in", *kinds)
    served = threading.Semaphore(0)
    look = Finder.look

    def one_by_one(finder: Finder, found: Found, _most: int, _seconds: float) -> None:
        if finder.seen >= FIRST:
            for _ in range(FIRST):
                assert served.acquire(timeout=DEADLINE_S)
        look(finder, found, FIRST, DEADLINE_S)

    def script(connection: Connection) -> None:
        connection.accept()
        while (one := connection.read_message()) is not None:
            connection.respond(one)
            served.release()

    gate.set()
    monkeypatch.setattr(send_run, "_AT_A_TIME", FIRST)
    monkeypatch.setattr(Finder, "look", one_by_one)
    with Scp(script) as scp:
        sent = send(scp.address, tmp_path / "in", "--associations", associations)
    assert (sent.code, sent.summary["stored"]) == (0, 12 * FIRST)
    assert scp.connections == 12


def test_no_association_for_what_cannot_be_sent(send: Callable[..., Sent], tmp_path: Path) -> None:
    """Without fresh UIDs there is nothing to send, and nobody to be asked."""
    write(tmp_path / "in", (CT, ELE), (MR, ELE))
    with Scp() as scp:
        sent = send(scp.address, tmp_path / "in", "--new-uids")
    assert (sent.code, sent.summary["failed"], scp.connections) == (1, 2, 0)


def test_what_was_found_is_not_held_twice(tmp_path: Path) -> None:
    write_files(tmp_path / "in", 3)
    finder, found = Finder([str(tmp_path / "in")]), Found()
    finder.look(found, 10, DEADLINE_S)
    options = Options(host="", port=1)
    shipment = Shipment(options, finder, found, Summary(), print)
    assert (shipment.source.instances, found) == (3, Found())


def test_looking_keeps_its_distance(
    gate: threading.Event,
    send: Callable[..., Sent],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However many files there are, only so many of them wait in memory."""
    paths = write_files(tmp_path / "in", 60)
    monkeypatch.setattr(source, "_LOOK_AHEAD", 5)
    monkeypatch.setattr(source, "_LOOK_FILES", 2)
    monkeypatch.setattr(carrier, "_LARGEST_BATCH", 1)
    ahead = []
    served = 0
    look = Finder.look

    def watched(finder: Finder, found: Found, most: int, seconds: float) -> None:
        look(finder, found, most, seconds)
        ahead.append(finder.seen - served)

    def script(connection: Connection) -> None:
        nonlocal served
        connection.accept()
        while (one := connection.read_message()) is not None:
            served += 1
            connection.respond(one)

    gate.set()
    monkeypatch.setattr(Finder, "look", watched)
    with Scp(script) as scp:
        sent = send(scp.address, tmp_path / "in")
    assert (sent.code, served) == (0, len(paths))
    # Those that wait, those that were just found, and the batches that are being sent: the first
    # one is of eight.
    assert max(ahead) <= 5 + 2 + 8
