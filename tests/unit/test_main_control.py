"""What main tells an operator and does for one, out of its books."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import mmap
import struct
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from fastscp.admin.client import ControlClient
from fastscp.cli.status import rows
from fastscp.config.settings import ServeConfig
from fastscp.config.tables import AeTable, FromTable, Tables
from fastscp.main import control as module
from fastscp.main.control import ControlSocket, Facts, MainControl, taken
from fastscp.main.dispatch import Takers
from fastscp.main.storewatch import Look, StoreWatch
from fastscp.main.summary import Seen
from fastscp.messages.control import Aborted, GetStatus, Paused, Reloaded, Status
from fastscp.messages.worker import Ask
from fastscp.tls.material import Material
from fastscp_ext import Shared, Tally
from tests.block import put_in_flight, regions
from tests.books import limited
from tests.kit import wait_for
from tests.stores import opened

if TYPE_CHECKING:
    from pathlib import Path

    from fastscp.store.store import Store

MIB = 1 << 20
LEAST = 100 * MIB


class Played:
    """Main's books, with a dispatch that notes what it is told."""

    def __init__(self, places: int = 1000) -> None:
        self.shared = Shared()
        self.admission = limited(places, rows=self.shared.rows, tallies=self.shared.tallies)
        self.dispatch = SimpleNamespace(
            takers=Takers(2, 2, 2), told=[], end=self._end, handshakes_failed={}
        )
        self.watch = StoreWatch(LEAST)
        self.facts = Facts("run", 2, LEAST, taken(ServeConfig(), 7), is_open=True)
        dispatch: Any = self.dispatch
        self.control = MainControl(
            self.facts, self.admission, dispatch, self.watch, self.shared.tallies,
            self.shared.liveness, self._seen,
        )  # fmt: skip

    def _seen(self) -> Seen:
        return Seen(0.0, 12, 345, 6, 7, 890, 3, 4, self.admission.admitted, 5)

    def _end(self, number: int, why: str) -> None:
        self.dispatch.told.append((number, why))

    def connect(self, number: int) -> None:
        self.admission.opened(number, "10.0.0.1", number % 2, 104, time.monotonic() - 5)

    def associate(self, number: int, calling_ae: str = "CT") -> int:
        """Returns the slot of its tally."""
        self.connect(number)
        verdict = self.admission.ask(Ask(number, calling_ae, "FASTSCP"))
        assert getattr(verdict, "result", 1) == 0
        return verdict.tally  # type: ignore[union-attr]

    def tally(self, slot: int, **counts: int) -> None:
        """Count in the shared block, as a worker does."""
        offset, size = regions(self.shared.fd)["tallies"]
        words = size // self.shared.tallies.slots // 8
        with mmap.mmap(self.shared.fd, 0) as block:
            for name, count in counts.items():
                at = offset + (slot * words + Tally._fields.index(name)) * 8
                struct.pack_into("=Q", block, at, count)
        assert {name: getattr(self.shared.tallies.read(slot), name) for name in counts} == counts


@pytest.fixture
def played() -> Played:
    return Played()


# What there is ------------------------------------------------------------------------------------


def test_the_state_is_the_first_reason_to_refuse(played: Played) -> None:
    def state() -> str:
        return played.control.status().state

    admission = played.admission
    assert (state(), played.control.status().why) == ("accepting", "")
    played.facts.refusing.why = "every instance is refused"
    assert (state(), played.control.status().why) == ("refusing all", "every instance is refused")
    played.dispatch.takers = Takers(2, 1, 0)
    assert state() == "waiting for the disk"
    played.dispatch.takers = Takers(2, 0, 0)
    assert state() == "no worker answers"
    assert played.control.status().workers_up == 0
    played.dispatch.takers = Takers(0, 0, 0)
    assert state() == "no worker"
    played.watch.judge(Look(1, None), time.monotonic())
    admission.congested = "disk full"
    assert state() == "disk full"
    played.watch.judge(Look(0, "/s is another directory now"), time.monotonic())
    assert state() == "store lost"
    assert "/s is another directory now" in played.control.status().why
    assert abs(played.control.status().since - time.time()) < 60
    played.control.pause("a drill", "uid 0")
    assert (state(), played.control.status().why) == ("paused", "a drill")
    played.facts.is_open = False
    assert state() == "starting"
    admission.draining = "shutting down"
    assert (state(), played.control.status().why) == ("draining", "shutting down")


def test_short_of_space_it_accepts_and_says_so(played: Played) -> None:
    played.watch.judge(Look(LEAST + 1, None), 1.0)
    status = played.control.status()
    assert status.state == "accepting"
    assert "less than twice --min-free-space 100 MiB: reading at most" in status.why
    assert (status.store.free_bytes, status.store.min_free_bytes) == (LEAST + 1, LEAST)


def test_with_all_places_taken_it_says_so() -> None:
    played = Played(1)
    assert played.control.status().why == ""
    played.associate(1)
    status = played.control.status()
    assert (status.state, status.why[:24]) == ("accepting", "all places are taken, as")


def test_free_space_is_told_only_where_it_is_known(played: Played) -> None:
    assert played.control.status().store.free_bytes is None
    played.watch.judge(Look(0, "gone"), 1.0)
    assert played.control.status().store.free_bytes is None


def test_figures(played: Played) -> None:
    played.associate(1)
    played.connect(2)
    played.dispatch.takers = Takers(2, 1, 1)
    status = played.control.status()
    assert (status.workers, status.workers_up) == (2, 1)
    assert (status.associations, status.limit, status.connections) == (1, 1000, 2)
    assert (status.stored, status.bytes, status.refused, status.unfinished) == (12, 345, 6, 7)
    assert (status.received_bytes, status.kept, status.rejected) == (890, 5, 4)
    assert (status.run, status.rules.generation) == ("run", 7)
    assert status.in_flight_bytes == 0
    # Of all workers there may be: one that is retired may be beyond those that are wanted.
    for worker, nbytes in ((0, 1), (1, 20), (255, 300)):
        put_in_flight(played.shared, worker, nbytes)
    assert played.control.status().in_flight_bytes == 321
    played.shared.liveness.end_batches(255)
    assert played.control.status().in_flight_bytes == 21


def test_the_redo_log_is_told_of(played: Played) -> None:
    assert "redo log" not in dict(rows(played.control.status()))
    played.facts.redo = "off: --redo off"
    status = played.control.status()
    assert (status.redo, dict(rows(status))["redo log"]) == ("off: --redo off", "off: --redo off")


def test_what_is_told_of_a_configuration() -> None:
    tables = Tables((AeTable("A"), AeTable("B")), (FromTable("CT"),))
    told = taken(dataclasses.replace(ServeConfig(), tables=tables), 3)
    assert (told.generation, told.tables, told.refused) == (3, 3, ())
    assert abs(told.loaded_at - time.time()) < 60


def test_phases(played: Played) -> None:
    played = Played(5)
    played.connect(1)
    idle, storing, done = (played.associate(number) for number in (2, 3, 4))
    played.tally(idle, begun=3, stored=1, refused=1, kept=1, bytes=10, received=99)
    played.tally(storing, begun=2, stored=1)
    # It told its end, and main has not heard of it.
    played.tally(done, begun=1, stored=1, ended=1)
    played.associate(5)
    played.admission.over(5)
    played.associate(6)
    played.associate(7)
    # All places are taken, by another address.
    played.admission.opened(8, "10.0.0.2", 0)
    played.admission.ask(Ask(8, "MR", "PACS"))
    played.admission.paused = "paused"
    played.connect(9)
    played.admission.ask(Ask(9, "US", "FASTSCP"))
    found = played.control.associations()
    assert [(one.id, one.phase, one.calling_ae) for one in found] == [
        ("run.1", "connected", ""),
        ("run.2", "idle", "CT"),
        ("run.3", "storing", "CT"),
        ("run.4", "ending", "CT"),
        ("run.5", "ending", "CT"),
        ("run.6", "idle", "CT"),
        ("run.7", "idle", "CT"),
        ("run.8", "requesting", "MR"),
        ("run.9", "ending", "US"),
    ]
    assert [one.rules for one in found[:2]] == ["", "default"]
    one = found[1]
    assert (one.stored, one.refused, one.bytes, one.received_bytes) == (2, 1, 10, 99)
    assert (one.called_ae, one.host, one.port, one.worker) == ("FASTSCP", "10.0.0.1", 104, 0)
    assert 5 <= one.age_s < 60


def test_the_rules_of_an_association_are_named(played: Played) -> None:
    books = played.admission
    for number, ae, sender in ((1, "", ""), (2, "ae.A", ""), (3, "ae.A", "from.B")):
        played.connect(number)
        books.ask(Ask(number, "CT", "A", ae=ae, sender=sender))
    assert [one.rules for one in played.control.associations()] == [
        "default", "ae.A", "ae.A+from.B",
    ]  # fmt: skip


def test_more_associations_than_are_counted(played: Played) -> None:
    played.admission._tallies = None
    played.associate(1)
    assert [one.phase for one in played.control.associations()] == ["associated"]


# What is done -------------------------------------------------------------------------------------


def abort(played: Played, id_: str, meanwhile: Any = None) -> Aborted:
    async def run() -> Aborted:
        task = asyncio.ensure_future(played.control.abort(id_, "uid 0"))
        await asyncio.sleep(0)
        if meanwhile is not None:
            meanwhile()
        return await task

    return asyncio.run(run())


@pytest.mark.parametrize("id_", ["run.1", "1"])
def test_an_association_is_over_once_it_has_no_place(played: Played, id_: str) -> None:
    played.associate(1)
    assert abort(played, id_, lambda: played.admission.over(1)) == Aborted("run.1", "over")
    assert played.dispatch.told == [(1, "by the operator (uid 0)")]


def test_a_connection_is_over_once_it_is_gone(
    played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    played.connect(1)
    with monkeypatch.context() as soon:
        soon.setattr(module, "_ABORT_S", 0.01)
        assert abort(played, "1") == Aborted("run.1", "going on")
    assert abort(played, "1", lambda: played.admission.closed(1)) == Aborted("run.1", "over")


@pytest.mark.parametrize(
    "id_", ["2", "other.1", "run.x", "run.", "", "run.-1", "run.1.1", "²", "9" * 400]
)
def test_an_id_that_is_none(played: Played, id_: str) -> None:
    played.associate(1)
    assert abort(played, id_) == Aborted(id_, "unknown")
    assert played.dispatch.told == []


def test_a_pause_rejects_and_says_why(played: Played, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    control, admission = played.control, played.admission
    first = control.pause("a\nb", "uid 0")
    assert (first.changed, first.why) == (True, "a\\nb")
    assert control.pause("other", "uid 0") == Paused(False, first.why, first.since)
    played.connect(1)
    verdict: Any = admission.ask(Ask(1, "CT", "FASTSCP"))
    assert (verdict.result, verdict.source, verdict.reason) == (2, 3, 1)
    assert verdict.why == "paused by the operator: a\\nb"
    assert control.resume("uid 0") == Paused(True, first.why, first.since)
    assert control.resume("uid 0") == Paused(False)
    played.associate(2)
    assert [record.getMessage()[:38] for record in caplog.records] == [
        "paused by the operator (uid 0): a\\nb: ",
        "resumed by the operator (uid 0) after ",
    ]


def test_a_reason_is_cut(played: Played) -> None:
    played.control.pause("x" * 100_000, "uid 0")
    assert len(played.control.status().why) < 300


def test_reload_is_whoevers_who_can(played: Played) -> None:
    refused = asyncio.run(played.control.reload("uid 0"))
    assert "restart it instead" in refused.mistakes[0]

    async def reload() -> Reloaded:
        return Reloaded(changed=("layout",), generation=2)

    played.facts.reload = reload
    assert asyncio.run(played.control.reload("uid 0")) == Reloaded(
        changed=("layout",), generation=2
    )


# The socket ---------------------------------------------------------------------------------------


def test_a_service_goes_on_without_a_socket(
    store: Store, path: Path, played: Played, caplog: pytest.LogCaptureFixture
) -> None:
    (path / ".fastscp/admin.sock").write_bytes(b"mine")
    socket_ = ControlSocket(played.control)
    asyncio.run(socket_.open(store))
    assert "no control socket, so `fastscp status`, `reload` and the like cannot" in caplog.text
    assert "is there already, and is no socket, so no service made it: move it away" in caplog.text
    socket_.close()
    socket_.remove()
    assert (path / ".fastscp/admin.sock").read_bytes() == b"mine"


def test_a_store_that_is_lost_keeps_the_socket_of_whoever_has_it(
    store: Store, path: Path, played: Played, caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Two services would take it from each other, once a second."""
    monkeypatch.setattr(module, "_KEEP_S", 0.0)
    socket_path = path / ".fastscp/admin.sock"

    async def run() -> None:
        first, second = ControlSocket(played.control), ControlSocket(played.control)
        await first.open(store)
        (path / ".fastscp/lock").rename(path / ".fastscp/lock.old")
        with opened(path) as other:
            await second.open(other)
            made = socket_path.stat().st_ino
            await first.keep()
            await second.keep()
            assert socket_path.stat().st_ino == made
            # Nor does it make one where there is none.
            socket_path.unlink()
            await first.keep()
            assert not socket_path.exists()
            await second.keep()
            assert socket_path.exists()
            assert caplog.text.count("was removed") == 1
            for one in (first, second):
                one.abandon()
        assert not socket_path.exists()

    asyncio.run(run())


def test_a_socket_that_was_removed_comes_back(
    store: Store, path: Path, played: Played, caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Unless something else has its name, which is said once."""
    monkeypatch.setattr(module, "_KEEP_S", 0.0)
    socket_path = path / ".fastscp/admin.sock"

    def ask() -> int:
        with ControlClient(path / ".fastscp") as client:
            return client.ask(GetStatus(), Status).workers

    async def run() -> None:
        socket_ = ControlSocket(played.control)
        await socket_.open(store)
        await socket_.keep()
        assert caplog.text == ""
        socket_path.unlink()
        socket_path.mkdir()
        await socket_.keep()
        await socket_.keep()
        assert caplog.text.count("was removed, and cannot be made anew yet: ") == 1
        socket_path.rmdir()
        await socket_.keep()
        assert f"{socket_path} was removed, and is made anew" in caplog.text
        assert await asyncio.to_thread(ask) == 2
        socket_path.unlink()
        socket_.close()
        await socket_.keep()
        socket_.remove()
        assert not socket_path.exists()

    asyncio.run(run())


def test_a_start_that_fails_leaves_no_socket(store: Store, path: Path, played: Played) -> None:
    async def run() -> None:
        socket_ = ControlSocket(played.control)
        await socket_.open(store)
        assert (path / ".fastscp/admin.sock").is_socket()
        socket_.abandon()
        socket_.abandon()

    asyncio.run(run())
    wait_for(lambda: not (path / ".fastscp/admin.sock").exists(), "the end of the socket")


def test_what_is_out_of_date_is_told(played: Played) -> None:
    """It may serve still, and whoever looks at the status has to see it."""
    now = time.time()
    far, past = now + 365 * 86400, now - 3600
    material = Material(
        chain=b"c", key=b"k", profile="8996", subject="CN=S", begins=past, expires=far,
        crl_expires=past,
    )  # fmt: skip
    assert played.control.status().warnings == ()
    played.facts.tls = material
    status = played.control.status()
    (warning,) = status.warnings
    assert warning.startswith("a revocation list of --tls-crl is out of date since")
    assert status.is_ready == (status.state == "accepting")
    assert status.crl_expires == past
    played.facts.tls = msgspec.structs.replace(material, crl_expires=far)
    assert played.control.status().warnings == ()
