"""One receiver in one configuration: how it is started, asked and stopped.

with receiver.run(folder) as running:
    send_to(running.port)
    print(running.accounting.cpu_us(), compare(running.stored(), sent))
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import socket
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from bench import programs
from bench.accounting import Accounting
from bench.instances import Instance, stored_below

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator, Mapping, Sequence

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent

START_TIMEOUT_S = 60.0
LISTENING = re.compile(r"^listening on \S+:(\d+)$", re.MULTILINE)

Word: TypeAlias = str | Path


@dataclass(frozen=True, slots=True)
class Setup:
    """What a command line is made from.

    store: the folder for instances, which is there and empty. port: 0 where the receiver picks one.
    workers: None is the receiver's own default. settings: for its file of settings.
    """

    folder: Path
    store: Path
    port: int
    workers: int | None
    settings: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Presence:
    """Whether a receiver can be run here: its version, or the reason why not."""

    version: str | None
    reason: str = ""

    def __bool__(self) -> bool:
        return self.version is not None


@dataclass(frozen=True, slots=True)
class Running:
    """A receiver that takes associations. Valid inside `Receiver.run()`, `stored()` also after."""

    receiver: Receiver
    port: int
    pid: int
    accounting: Accounting
    folder: Path
    log: Path

    def stored(self) -> Iterator[Instance]:
        """Read back what it has stored, straight from its files."""
        return stored_below(self.folder / "store")


@dataclass(frozen=True, slots=True, kw_only=True)
class Receiver:
    """One receiver in one configuration.

    durability: what is on stable storage when it answers 0000, as traced.
    shape: its processes and threads. associations: how many it serves at a time; None is any.
    rewrites: it encodes data sets anew, so they can only be compared by value.
    stores: False if it drops what it receives. tree: where it is run, so that Python finds it.
    """

    name: str
    label: str
    durability: str
    shape: str
    install: str
    command: Callable[[Setup], Sequence[Word]]
    version: Callable[[], str]
    environment: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, object] = field(default_factory=dict)
    associations: int | None = None
    rewrites: bool = False
    stores: bool = True
    picks_port: bool = False
    has_workers: bool = False
    tree: Path = ROOT

    def find(self) -> Presence:
        """Whether it is here; asks the program for its version."""
        try:
            return Presence(self.version())
        except programs.Absent as absent:
            return Presence(None, str(absent))

    def command_line(self) -> str:
        """What is run, for the tables, with names in the place of paths and ports.

        Raises Absent.
        """
        setup = Setup(Path("FOLDER"), Path("FOLDER/store"), 0, None, self.settings)
        words = [str(word) for word in self.command(setup)]
        words = ["PORT" if word == "0" else word.removeprefix(f"{ROOT}/") for word in words]
        words[0] = Path(words[0]).name
        words = [*(f"{name}={value}" for name, value in self.environment.items()), *words]
        settings = f" with {json.dumps(self.settings)}" if self.settings else ""
        return " ".join(words) + settings

    @contextlib.contextmanager
    def run(
        self,
        folder: Path,
        *flags: Word,
        workers: int | None = None,
        group: bool = True,
        before: Sequence[Word] = (),
    ) -> Iterator[Running]:
        """Start it, wait until it takes connections, stop it at the end.

        folder: a folder for this run alone, made if it is not there; the caller removes it. Gets
        `store` (the instances), `log` (what the receiver printed) and files of its configuration.
        flags: added to the command line. workers: for receivers that have such an option.
        group=False accounts without a control group. before: words before the command, such as a
        tracer's that does not come between the program and its signals.
        Raises Absent, and RuntimeError if it does not start or ends before it is told to.
        """
        self.version()
        if workers is not None and not self.has_workers:
            raise ValueError(f"{self.name} has no option for workers")
        folder = folder.resolve()
        store, log = folder / "store", folder / "log"
        store.mkdir(parents=True)
        port = 0 if self.picks_port else free_port()
        setup = Setup(folder, store, port, workers, self.settings)
        command = [*before, *self.command(setup), *flags]
        environment = {
            name: value
            for name, value in os.environ.items()
            if name not in NOT_INHERITED and not name.startswith("FASTSCP_")
        }
        with Accounting(group=group) as accounting:
            process = accounting.start(
                command, folder=self.tree, environment=environment | dict(self.environment), log=log
            )
            if self.picks_port:
                port = self._wait(process, log, functools.partial(_port_in, log))
            else:
                self._wait(process, log, functools.partial(_connects, port))
            yield Running(self, port, process.pid, accounting, folder, log)
            if process.poll() is not None:
                raise RuntimeError(f"{self.name} ended by itself: {_tail(log)}")

    def _wait(self, process: subprocess.Popen[bytes], log: Path, ready: Callable[[], int]) -> int:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not (answer := ready()):
            if process.poll() is not None:
                raise RuntimeError(f"{self.name} did not start: {_tail(log)}")
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self.name} takes no connections: {_tail(log)}")
            time.sleep(0.01)
        return answer


# Would change what a receiver does at its defaults.
NOT_INHERITED = frozenset({"TCP_NODELAY", "TCP_BUFFER_LENGTH", "JAVA_OPTS", "JAVA_TOOL_OPTIONS"})


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _connects(port: int) -> int:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return 0
    return port


def _port_in(log: Path) -> int:
    found = LISTENING.search(log.read_text(errors="replace"))
    return int(found[1]) if found else 0


def _tail(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return " / ".join(lines[-5:]) or "it printed nothing"
