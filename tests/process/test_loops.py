"""What the loops of main and workers do with the store: as little as can hang with its disk.

The real service runs under strace; the thread whose number is its process's runs the loop.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from typing import TYPE_CHECKING, NamedTuple

import pytest

from fastscp.admin.client import ControlClient
from fastscp.messages.control import (
    Abort,
    Aborted,
    Associations,
    AssociationStatus,
    GetStatus,
    Pause,
    Paused,
    Resume,
    Status,
)
from tests.kit import (
    Service,
    abort,
    children_of,
    data_set,
    message,
    send_signal,
    split_pdus,
    store,
    store_rq,
    wait_for,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

# A service that is traced is some ten times as slow.
SLOW_S = 120.0


class Call(NamedTuple):
    """A system call that names the store, or has a file of it. text: as strace shows it."""

    thread: int
    name: str
    text: str


class Traced(Service):
    """A service under strace; its processes are children of that."""

    def __init__(self, tmp_path: Path, *flags: str, workers: int = 1) -> None:
        super().__init__(tmp_path, *flags, workers=workers)
        self.trace = tmp_path / "trace"
        self._command = [
            "strace", "-f", "-y", "-qq", "-e", "signal=none", "-e", "trace=%file,%desc",
            "-o", str(self.trace), *self._command,
        ]  # fmt: skip

    def __enter__(self) -> Traced:
        super().__enter__()
        return self

    @property
    def pid(self) -> int:
        return next(iter(children_of(self.process.pid)), self.process.pid)

    def stop(self, name: signal.Signals = signal.SIGTERM, seconds: float = SLOW_S) -> None:
        self.worker_pids()
        os.kill(self.pid, name)
        self.ends(0, seconds)

    def kill(self) -> None:
        if self._process is not None and self._process.poll() is None:
            send_signal(self.pid, signal.SIGKILL)
        super().kill()

    def calls(self, since: int) -> Iterator[Call]:
        """Those in the store, as far as the trace is longer than `since`."""
        with self.trace.open("rb") as file:
            file.seek(since)
            for line in file:
                # Where a call is in two lines, all that matters is in the first.
                found = re.match(rb"(\d+) +(\w+)\(", line)
                if found and os.fsencode(self.store) in line:
                    text = line.decode("utf-8", "replace").strip()
                    yield Call(int(found[1]), found[2].decode(), text)


def unfold(call: Call, store: Path) -> str:
    """A call on one of the store's files, as `name of what`."""
    text = call.text.rpartition(") = ")[0] or call.text
    quoted = re.findall(r'"([^"]*)"', text)
    folders = [f.removeprefix(str(store)) or "/" for f in re.findall(r"\d+<([^>]*)>", text)]
    return " ".join([call.name, *folders, *quoted])


@pytest.fixture
def strace() -> None:
    works = shutil.which("strace") is not None and (
        subprocess.run(["strace", "-qq", "-o", os.devnull, "true"], check=False).returncode == 0
    )
    if not works and os.environ.get("CI"):
        pytest.fail("strace has to be there and allowed where CI is set")
    if not works:
        pytest.skip("strace is not there, or not allowed to trace")


# What may stand on a worker's loop, each with its stamp: a part is made and written; and in
# buffered mode it is closed and named, under a claim of its path, and its line is written.
_PART = r"/\.fastscp/incoming/[^/ ]+"
_FOLDER = r"/[0-9.]*(/[0-9.]+)?"
_NAMELESS = rf"{_PART}/#\d+( \(deleted\))?"
RECEIVING = (
    rf"openat {_PART} (\w+\.part|\.)",
    rf"writev ({_PART}/\w+\.part|{_NAMELESS}) .*",
)
COMMITTING = (
    rf"close ({_PART}/\w+\.(part|zst)|{_NAMELESS})",
    # A final name; or one to be compared by.
    rf"linkat {_NAMELESS} {_FOLDER}  .*",
    rf"linkat {_NAMELESS} {_PART}  \w+\.part",
    rf"renameat2 {_PART} {_FOLDER} \w+\.(part|zst) .*",
    rf"openat2? {_FOLDER} [0-9.]+(/[0-9.]+)?",
    rf"mkdirat {_FOLDER} [0-9.]+",
    rf"close {_FOLDER}",
    # The claim of the path.
    r"(newfstatat|fstatat64) / \.fastscp/locks",
    r"openat2? / \.fastscp/locks",
    r"(newfstatat|fstat|fcntl|close) /\.fastscp/locks *",
    rf"(faccessat|faccessat2) {_FOLDER} [^ ]*\.dcm(\.zst)?",
    r"write /\.fastscp/journal/[^ ]*\.jsonl .*",
)


def is_allowed(call: Call, store: Path, allowed: Mapping[int, tuple[str, ...]]) -> bool:
    text = unfold(call, store)
    return any(re.fullmatch(rule, text) for rule in allowed[call.thread])


def exercise(service: Service) -> None:
    """Everything that makes or ends a part."""
    contents = [data_set(sop=f"1.2.{n}", pixels=3000, seed=n) for n in range(6)]
    with service.peer(window=8) as peer:
        peer.socket.settimeout(SLOW_S)
        for n, data in enumerate(contents):
            peer.send(store(n + 1, data, sop=f"1.2.{n}"))
        assert peer.read_statuses(6) == [(n + 1, 0) for n in range(6)]
        # Identical, different, refused after a part was made, and refused by its values.
        peer.send(store(11, contents[0], sop="1.2.0"))
        peer.send(store(12, data_set(sop="1.2.1", pixels=3000, seed=99), sop="1.2.1"))
        large = data_set(sop="1.2.9", pixels=3 << 20)
        peer.send(message(store_rq(13, sop="1.2.9"), large))
        peer.send(message(store_rq(14, sop="1.2.8"), data_set(study="", sop="1.2.8")))
        assert [number for number, _ in peer.read_statuses(4)] == [11, 12, 13, 14]
        peer.release()
    # Aborted inside a message, and gone inside one.
    for end in (abort(0, 0), b""):
        with service.peer() as peer:
            whole = message(store_rq(1, sop="1.2.7"), data_set(sop="1.2.7", pixels=300_000))
            peer.send(b"".join(list(split_pdus(whole))[:12]))
            wait_for(lambda: len(service.parts()) == 1, "the part", SLOW_S)
            peer.send(end)
        wait_for(lambda: not service.parts(), "the end of the part", SLOW_S)


def operate(service: Service) -> None:
    """Everything that an operator asks main for, except a reload."""
    with service.peer() as peer, ControlClient(service.store / ".fastscp", SLOW_S) as client:
        peer.socket.settimeout(SLOW_S)
        assert client.ask(Pause(why="a drill"), Paused).changed
        assert client.ask(GetStatus(), Status).state == "paused"
        (one,) = client.ask(Associations(), list[AssociationStatus])
        assert client.ask(Abort(id=one.id), Aborted).outcome == "over"
        assert peer.read_until_close() == abort(0, 0)
        assert client.ask(Resume(), Paused).changed


@pytest.mark.parametrize(
    "flags",
    [
        (),
        ("--durability", "buffered"),
        ("--compress", "zstd"),
        ("--compress", "zstd", "--durability", "buffered"),
        ("--on-duplicate", "replace", "--durability", "buffered"),
    ],
    ids=" ".join,
)
def test_no_loop_makes_a_call_that_may_hang_with_the_disk(
    tmp_path: Path, strace: None, flags: tuple[str, ...]
) -> None:
    with Traced(tmp_path, *flags, "--max-instance-size", "2 MiB") as service:
        since = service.trace.stat().st_size
        workers = service.worker_pids()
        main = service.pid
        exercise(service)
        operate(service)
        if "buffered" in flags:
            # A segment that was removed is noticed and followed by another.
            journal = service.store / ".fastscp/journal"
            for segment in journal.iterdir():
                segment.unlink()
            wait_for(lambda: list(journal.iterdir()), "a segment in their place", SLOW_S)
            with service.peer() as peer:
                peer.socket.settimeout(SLOW_S)
                peer.send(store(1, data_set(sop="1.2.50"), sop="1.2.50"))
                assert peer.read_statuses(1) == [(1, 0)]
                peer.release()
            assert [fact["sop_instance_uid"] for fact in service.journal()] == ["1.2.50"]
        service.stop()
        allowed: dict[int, tuple[str, ...]] = dict.fromkeys(workers, RECEIVING)
        if "buffered" in flags:
            allowed = {worker: rules + COMMITTING for worker, rules in allowed.items()}
        # Main's watch of the store, its sweeps and its end are none of its loop's.
        allowed[main] = ()
        calls = [call for call in service.calls(since) if call.thread in allowed]
        assert {call.thread for call in calls} >= set(workers)
        assert [call.text for call in calls if not is_allowed(call, service.store, allowed)] == []
