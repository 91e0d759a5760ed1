"""A configuration that changes while the service runs: nobody is refused or lost for that."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from fastscp.cli import app as cli
from tests.kit import (
    ELE,
    SECONDARY,
    Peer,
    Service,
    abort,
    associate_rq,
    children_of,
    data_set,
    echo,
    errors_in,
    reject,
    store,
    wait_for,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

# What is repeated very often, under load, takes its time on a machine that has other work.
LONG: Final = (pytest.mark.long, pytest.mark.timeout(1800))
# Of stable instances, whatever file system the tests have.
REDO: Final = ("--redo", "on")
# Each allows CT and MR, and what they send; GUEST only the second.
FIRST: Final = """\
max-associations-per-ae = 50
[ae.RESEARCH]
durability = "buffered"
layout = "+research/{StudyInstanceUID}/{SOPInstanceUID}.dcm"
[from.ct]
who = ["CT@127.0.0.0/8"]
[from.mr]
who = ["MR@*"]
called = ["RESEARCH", "FASTSCP"]
max-associations = 40
"""
SECOND: Final = """\
max-associations-per-ae = 60
idle-timeout = "5m"
digest = "sha256"
[ae.RESEARCH]
durability = "stable"
layout = "+research/{StudyInstanceUID}/{SOPInstanceUID}.dcm"
on-duplicate = "keep"
[from.guests]
who = ["GUEST@127.0.0.1"]
max-associations = 30
[from.all]
who = ["MR@127.0.0.0/8", "CT@*"]
sop-classes = ["storage"]
"""


class Configured:
    """A service that has its settings from a file, which the test changes."""

    def __init__(self, tmp_path: Path, text: str, *flags: str) -> None:
        self.file = tmp_path / "site.toml"
        self.file.write_text(text)
        self.service = Service(tmp_path, "--config", str(self.file), *flags, workers=0)
        self._generation = 1

    def write(self, text: str) -> None:
        """In one step: a reload reads the one or the other."""
        new = self.file.with_suffix(".new")
        new.write_text(text)
        new.rename(self.file)

    def reload(self, text: str, *, in_all: bool = True) -> None:
        """Write the file, have it read, and wait until it is in force, in_all: in all workers."""
        self.write(text)
        self.service.process.send_signal(signal.SIGHUP)
        self._generation += 1
        self.service.in_log(f"reload {self._generation}: taken: ")
        if in_all:
            self.service.followed()


@contextlib.contextmanager
def configured(tmp_path: Path, text: str, *flags: str) -> Iterator[Configured]:
    one = Configured(tmp_path, text, *flags)
    with one.service:
        yield one


@dataclass
class Sender(threading.Thread):
    """Associates, stores a few instances and releases, again and again, until it is told to end.

    may_be_rejected: with (1,1,3); nothing else is in order.
    """

    service: Service
    number: int
    calling: str
    called: str = "FASTSCP"
    may_be_rejected: bool = False
    stored: list[str] = field(default_factory=list)
    rejected: int = 0
    wrong: list[object] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    __hash__ = object.__hash__

    def __post_init__(self) -> None:
        super().__init__(daemon=True)

    def run(self) -> None:
        n = 0
        while not self.over.is_set() and not self.wrong:
            n += 1
            try:
                self._associate(n)
            except (OSError, AssertionError) as error:
                self.wrong.append(repr(error))

    def _associate(self, n: int) -> None:
        with Peer(self.service.host, self.service.port) as peer:
            answer = peer.associate(associate_rq(calling=self.calling, called=self.called))
            if answer == reject(1, 1, 3) and self.may_be_rejected:
                self.rejected += 1
                return
            assert answer is not None, "closed"
            assert answer[0] == 2, answer
            for part in range(3):
                sop = f"1.2.{self.number}.{n}.{part}"
                study = f"1.2.{self.number}"
                peer.send(store(part + 1, data_set(sop=sop, study=study), sop=sop))
                response = peer.read_response()
                if (response.to, response.status) != (part + 1, 0):
                    self.wrong.append((sop, response.to, response.status))
                self.stored.append(sop)
            peer.release()


@contextlib.contextmanager
def under_load(service: Service, *, guest: bool = False, series: int = 0) -> Iterator[list[Sender]]:
    """Senders of two kinds while the block lasts; each of them is served as is in order.

    series: numbers their instances.
    """
    senders = [
        Sender(service, series + 1, "CT"),
        Sender(service, series + 2, "CT"),
        Sender(service, series + 3, "MR"),
        Sender(service, series + 4, "MR", "RESEARCH"),
    ]
    if guest:
        senders.append(Sender(service, series + 9, "GUEST", may_be_rejected=True))
    for one in senders:
        one.start()
    try:
        more_traffic(senders)
        yield senders
        more_traffic(senders)
    finally:
        for one in senders:
            one.over.set()
        for one in senders:
            one.join(60)
    assert [one.wrong for one in senders] == [[]] * len(senders), service.log()


def more_traffic(senders: list[Sender]) -> None:
    """Wait until each has stored more, or is seen to be refused as it may be."""
    before = [(len(one.stored), one.rejected) for one in senders]

    def has_gone_on() -> bool:
        return any(one.wrong for one in senders) or all(
            len(one.stored) > stored + 2 or one.rejected > rejected
            for one, (stored, rejected) in zip(senders, before, strict=True)
        )

    wait_for(has_gone_on, "traffic of every sender")


def all_kept(service: Service, senders: list[Sender]) -> None:
    """What was acknowledged is in the journal, where its file is, and there is nothing else."""
    facts = {fact["sop_instance_uid"]: fact for fact in service.journal()}
    assert {sop for one in senders for sop in one.stored} == set(facts)
    assert sorted(fact["path"] for fact in facts.values()) == service.instances()
    for one in senders:
        for sop in one.stored:
            is_research = facts[sop]["path"].startswith("+research/")
            assert is_research == (one.called == "RESEARCH")


@pytest.mark.parametrize("reloads", [5, pytest.param(50, marks=LONG)])
def test_reloads_under_load(tmp_path: Path, reloads: int) -> None:
    """Whom both configurations allow, neither refuses; and nothing of theirs is lost."""
    with configured(tmp_path, FIRST, "--workers", "2", *REDO) as site:
        with under_load(site.service, guest=True) as senders:
            for n in range(reloads):
                site.reload((SECOND, FIRST)[n % 2])
                more_traffic(senders)
        site.service.stop()
        all_kept(site.service, senders)
        assert senders[-1].rejected
        assert senders[-1].stored
        log = site.service.log()
        assert errors_in(log) == []
        assert "redo log: on" in log
        assert "until it does, its new associations get the rules from before" not in log
        assert "[from.guests]: added (who = GUEST@127.0.0.1/32, max-associations = 30)" in log
        assert "[from.ct]: removed" in log


def test_an_association_keeps_the_rules_that_it_began_with(tmp_path: Path) -> None:
    """Its class is refused to whoever comes now, and so is its title; it goes on."""
    with configured(tmp_path, 'sop-classes = ["any"]\n', "--workers", "1") as site:
        service = site.service
        with service.peer(calling="OLD") as old:
            site.reload(
                'sop-classes = ["CTImageStorage"]\nallow = ["NEW@*"]\nmax-pdu-length = 8192\n'
            )
            data = data_set(sop="1.2.5", sop_class=SECONDARY)
            old.send(store(1, data, sop="1.2.5", sop_class=SECONDARY, context=5))
            assert old.read_statuses(1) == [(1, 0)]
            with Peer(service.host, service.port) as peer:
                assert peer.associate(associate_rq(calling="OLD")) == reject(1, 1, 3)
            with service.peer(calling="NEW") as new:
                new.send(store())
                assert new.read_statuses(1) == [(1, 0)]
                new.release()
            with Peer(service.host, service.port) as peer:
                request = associate_rq((1, SECONDARY, ELE), calling="NEW")
                answer = peer.associate(request)
                assert answer is not None
                assert answer[0] == 2
                # Abstract syntax not supported; then the length that is announced.
                assert bytes((1, 0, 3, 0, 0x40)) in answer
                assert bytes((0x51, 0, 0, 4)) + (8192).to_bytes(4) in answer
            old.release()
        said = service.in_log("allow: anyone -> NEW@*")
        assert " WARNING " in said


def test_mistakes_change_nothing_and_very_many_signals_no_more_than_one(tmp_path: Path) -> None:
    with configured(tmp_path, FIRST, "--workers", "2") as site:
        service = site.service
        with under_load(service) as senders:
            workers = service.worker_pids()
            site.write('max-associations-per-ae = "many"\nworkers = 3\n[from.nobody]\nbogus = 1\n')
            service.process.send_signal(signal.SIGHUP)
            service.in_log("reload refused: nothing was changed")
            refused = [line for line in service.log().splitlines() if "reload refused: " in line]
            assert (
                f"ERROR main: reload refused: {site.file}:1: max-associations-per-ae: "
                in refused[0]
            )
            assert any(f"{site.file}:4: " in line for line in refused)
            # Nor does a layout that the store knows.
            site.write(FIRST.replace("+research/", "+other/"))
            service.process.send_signal(signal.SIGHUP)
            said = service.in_log(f"reload refused: {site.file}:4: [ae.RESEARCH] layout: ")
            assert "--layout-change" in said
            more_traffic(senders)
            assert service.worker_pids() == workers
        # A file that is gone is a mistake, too.
        site.file.unlink()
        service.process.send_signal(signal.SIGHUP)
        wait_for(lambda: service.log().count("nothing was changed") == 3, "the third refusal")
        with under_load(service, series=10) as more:
            for n, text in enumerate((SECOND, FIRST), start=2):
                site.write(text)
                for _ in range(200):
                    service.process.send_signal(signal.SIGHUP)
                service.in_log(f"reload {n}: taken: ")
        service.stop()
        # However many came, the first of them that read the file took it.
        assert "reload 4: " not in service.log()
        all_kept(service, [*senders, *more])


def worker_numbers(service: Service) -> list[str]:
    """What the workers that live are called."""
    found = []
    for pid in children_of(service.pid):
        with contextlib.suppress(OSError):
            line = Path("/proc", str(pid), "cmdline").read_text()
            found.append(line.strip("\0 ").removeprefix("fastscp: worker "))
    return sorted(found)


def is_worker(pid: int, number: int) -> bool:
    with contextlib.suppress(OSError):
        line = Path("/proc", str(pid), "cmdline").read_text()
        return line.startswith(f"fastscp: worker {number},")
    return False


def the_only_one(service: Service) -> str:
    """The number of the one worker that is not retired; empty while there are more, or none."""
    found = [number for number in worker_numbers(service) if "retired" not in number]
    return found[0] if len(found) == 1 else ""


def test_more_workers_and_fewer_under_load(tmp_path: Path) -> None:
    """One association lives on in a worker that is retired, until it ends by itself."""

    def text(workers: int) -> str:
        return f"workers = {workers}\n{FIRST}"

    with configured(tmp_path, text(2)) as site:
        service = site.service
        with under_load(service) as senders, contextlib.ExitStack() as lingering:
            peers = [lingering.enter_context(service.peer(calling="CT")) for _ in range(2)]
            while {service.worker_of(peer) for peer in peers} != {0, 1}:
                peers.append(lingering.enter_context(service.peer(calling="CT")))
            site.reload(text(4))
            wait_for(lambda: worker_numbers(service) == ["0", "1", "2", "3"], "four workers")
            more_traffic(senders)
            site.reload(text(1))
            one = wait_for(lambda: the_only_one(service), "all but one retired")
            # Those that nobody rests in are gone soon.
            left = {int(one), *(service.worker_of(peer) for peer in peers)}
            wait_for(lambda: len(worker_numbers(service)) <= len(left), "the end of the others")
            more_traffic(senders)
            at_work, rests = (
                [peer for peer in peers if service.worker_of(peer) == int(one)],
                [peer for peer in peers if service.worker_of(peer) != int(one)],
            )
            assert rests
            site.reload(text(2))
            wait_for(lambda: len(worker_numbers(service)) == len(left) + 1, "another beside it")
            more_traffic(senders)
            for n, peer in enumerate(rests):
                peer.send(store(1, data_set(sop=f"1.2.77.{n}", study="1.2.77"), sop=f"1.2.77.{n}"))
                assert peer.read_statuses(1) == [(1, 0)]
                senders[0].stored.append(f"1.2.77.{n}")
                peer.release()
            wait_for(lambda: len(worker_numbers(service)) == 2, "its end")
            assert all("retired" not in number for number in worker_numbers(service))
            for peer in at_work:
                peer.release()
        service.stop()
        assert "ended unexpectedly" not in service.log()
        all_kept(service, senders)


def test_the_end_of_a_retired_workers_time_and_one_that_is_killed(tmp_path: Path) -> None:
    """What rests in it is aborted; and nobody follows either of them."""
    with configured(tmp_path, "workers = 3\n") as site:
        service = site.service
        with contextlib.ExitStack() as stack:
            at: dict[int, Peer] = {}
            while len(at) < 3:
                peer = stack.enter_context(service.peer())
                number = service.worker_of(peer)
                if at.setdefault(number, peer) is not peer:
                    peer.release()
            site.reload("workers = 1\n")
            wait_for(
                lambda: sum("retired" in one for one in worker_numbers(service)) == 2,
                "their titles",
            )
            retired = {
                int(one.partition(",")[0]) for one in worker_numbers(service) if "retired" in one
            }
            first, second = sorted(retired)
            (pid,) = (pid for pid in service.worker_pids() if is_worker(pid, first))
            os.kill(pid, signal.SIGKILL)
            said = service.in_log(f"worker {first} ended unexpectedly (killed by SIGKILL): ")
            assert "starting another" not in said
            # A shorter time holds for those that are retired already.
            site.reload('workers = 1\nreload-linger = "2s"\n')
            assert at[second].read_until_close() == abort(0, 0)
            at[second].close()
            service.in_log(f"worker {second}, which was retired, has ended in order")
            (rest,) = set(at) - retired
            at[rest].send(echo(7))
            assert at[rest].read_response().status == 0
        assert worker_numbers(service) == [str(rest)]
        assert " is up" not in service.log()


def test_a_worker_is_killed_in_the_middle_of_a_reload(tmp_path: Path) -> None:
    """It has not taken the rules, and the one that follows it begins with the newest."""
    with configured(tmp_path, 'allow = ["OLD@*", "KIT@*"]\n', "--workers", "2") as site:
        service = site.service
        first, second = service.worker_pids()
        os.kill(first, signal.SIGSTOP)
        try:
            site.reload('allow = ["NEW@*", "KIT@*"]\n', in_all=False)
        finally:
            os.kill(first, signal.SIGKILL)
        wait_for(lambda: len(set(service.worker_pids()) - {first}) == 2, "another worker")
        wait_for(lambda: " is up again" in service.log(), "it is up")
        assert second in service.worker_pids()
        at: set[int] = set()
        with contextlib.ExitStack() as stack:
            while len(at) < 2:
                peer = stack.enter_context(service.peer(calling="NEW"))
                at.add(service.worker_of(peer))
        for _ in range(8):
            with Peer(service.host, service.port) as peer:
                assert peer.associate(associate_rq(calling="OLD")) == reject(1, 1, 3)


def test_by_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever asks is told what was taken, what waits, and all that is wrong."""
    with configured(tmp_path, FIRST, "--workers", "1") as site:
        where = ("--store", str(site.service.store))
        site.write(f'store-must-exist = true\n{FIRST}digest = "none"\n')
        assert cli.main(["reload", *where]) == 2
        site.write(f"store-must-exist = true\nstrict = true\n{FIRST}")
        assert cli.main(["reload", *where, "--json"]) == 0
        refused, _brace, taken = capsys.readouterr().out.partition("{")
        assert json.loads("{" + taken) == {
            "changed": ["strict: off -> on"],
            "waits": ["store-must-exist: off -> on"],
            "mistakes": [],
            "mistakes_more": 0,
            "generation": 2,
            "file": str(site.file),
        }
        assert refused == ""
        assert cli.main(["status", *where, "--json"]) == 0
        rules = json.loads(capsys.readouterr().out)["rules"]
        # What was refused before is over.
        assert (rules["generation"], rules["tables"], rules["refused"]) == (2, 3, [])
        assert rules["waits"] == ["store-must-exist: off -> on"]
        assert rules["file"] == str(site.file)


def test_with_a_file_that_has_mistakes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They reach the service, whatever else is wrong with the file than the store."""
    with configured(tmp_path, FIRST, "--workers", "1") as site:
        where = ("--config", str(site.file))
        site.write(f'store = "{site.service.store}"\nprot = 1\n{FIRST}[from.x]\nwho = 5\n')
        for command in (["status"], ["pause"], ["resume"], ["associations"]):
            assert cli.main([*command, *where]) == 0, capsys.readouterr().err
        assert cli.main(["abort", "1", *where]) == 1
        capsys.readouterr()
        assert cli.main(["reload", *where]) == 2
        told = capsys.readouterr().err
        assert "toml:2: prot: no such setting; did you mean port?" in told
        assert "from.x.who: 5 is" in told


def test_the_end_comes_before_a_reload(tmp_path: Path) -> None:
    with configured(tmp_path, "max-associations = 9\n", "--workers", "1") as site:
        service = site.service
        with service.peer() as peer:
            service.process.send_signal(signal.SIGTERM)
            service.in_log("1 association may go on")
            site.write("max-associations = 8\n")
            service.process.send_signal(signal.SIGHUP)
            service.in_log("HUP: the service is shutting down")
            peer.release()
        service.ends(0)
        assert "reload" not in service.log()


@pytest.mark.long
@pytest.mark.parametrize("step", range(24))
def test_the_end_at_any_moment_of_a_reload(tmp_path: Path, step: int) -> None:
    """It is taken or refused, the log says which, and the store holds what the log says."""
    tables = '[ae.NEW]\nlayout = "+new/{SOPInstanceUID}.dcm"\ndurability = "buffered"\n'
    tables += "".join(f"[ae.T{n}]\nstrict = true\n" for n in range(1000))
    with configured(tmp_path, "", "--workers", "1") as site:
        service = site.service
        site.write(tables)
        service.process.send_signal(signal.SIGHUP)
        # A reload of so many tables takes some 0.1 s.
        time.sleep(step / 100)
        # With an association, and without one.
        peer = service.peer() if step % 2 else None
        service.process.send_signal(signal.SIGTERM)
        service.in_log("SIGTERM")
        if peer is not None:
            peer.close()
        service.ends(0)
        log = service.log()
    is_taken = "reload 2: taken: " in log
    assert is_taken != ("reload refused: nothing was changed" in log)
    home = tmp_path / "store/.fastscp"
    assert is_taken == ("NEW" in (home / "store.toml").read_text())
    assert not (home / "buffered").exists()


def test_the_log_and_what_waits_for_a_restart(tmp_path: Path) -> None:
    """Level and form hold for all processes from then on."""
    with configured(tmp_path, 'log-level = "info"\n', "--workers", "1") as site:
        service = site.service
        site.reload('log-level = "debug"\nlog-format = "json"\nstore-must-exist = true\n')
        service.echoes()
        # An association is told of at that level.
        said = json.loads(service.in_log("associated with"))
        assert (said["level"], said["role"]) == ("debug", "worker-0")
        assert json.loads(service.in_log("reload 2: log-format: text -> json"))["role"] == "main"
        said = json.loads(service.in_log("waits for a restart of the service"))
        assert said["level"] == "warning"
        assert said["message"].startswith("reload: store-must-exist: off -> on waits")
        site.reload('log-level = "error"\n')
        service.echoes()
        service.stop()
        assert service.log().count("associated with") == 1
