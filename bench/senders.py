"""The programs that send: bench/load.c, DCMTK's storescu, `fastscp send`.

Each gives a `Sending`: what was sent, how long it took, and what it cost the sender.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from bench import programs
from bench.receiver import HERE, NOT_INHERITED, ROOT, Word
from bench.workloads import SERIES_LENGTH, Files, Workload, sent_by_load

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from bench.instances import Instance
    from bench.workloads import Template

# Longer than this no run should take, whatever the receiver.
LIMIT_S = 3600.0


class SendError(RuntimeError):
    """A sender ended with an error; says which."""


@dataclass(frozen=True, slots=True)
class Sending:
    """What one run of senders came to.

    seconds: bench/load.c's from the first byte to the last response; of programs that send files
    from their start to their end. size: bytes of data sets. figures: what else is known, by the
    names of the tables. sent: gives what was sent, from what was stored.
    """

    instances: int
    size: int
    seconds: float
    cpu_us: int
    figures: Mapping[str, float] = field(default_factory=dict)
    sent: Callable[[Sequence[Instance]], list[Instance]] = lambda _: []


def environment(extra: Mapping[str, str]) -> dict[str, str]:
    """This process's environment without what would tune a program by accident."""
    own = {name: value for name, value in os.environ.items() if name not in NOT_INHERITED}
    return {**own, **extra}


# --- bench/load.c ---


def _load_program() -> str:
    return str(programs.compiled(HERE / "load.c"))


def _answer(command: Sequence[str]) -> dict[str, Any]:
    """What the generator printed. Raises SendError, also for a status other than 0000."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    return _checked(done.returncode, done.stdout, done.stderr)


def _checked(code: int, out: str, error: str) -> dict[str, Any]:
    if code == 0:
        answer: dict[str, Any] = json.loads(out)
        return answer
    if code == 1:
        statuses = json.loads(out).get("statuses", "an association was lost")
        raise SendError(f"load: statuses {statuses}")
    raise SendError(error.strip() or f"load: exit code {code}")


def _times(answer: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for name in ("response_us", "latency_us", "associate_us", "echo_us", "release_us"):
        for part, value in (answer.get(name) or {}).items():
            yield f"{name.removesuffix('_us')}_{part}_us", value


def _words(workload: Workload, tag: str, options: Mapping[str, float]) -> list[str]:
    words = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    words += [f"--tag={tag}", f"--series-every={SERIES_LENGTH}"]
    mixed = [f"{template.path}:{weight}" for template, weight in workload.weights]
    return [*words, f"--mix={','.join(mixed)}"]


def load(
    port: int, workload: Workload, tag: str, big: Workload | None = None, **options: float
) -> Sending:
    """Run the generator with its options (`series_every` is `--series-every`).

    tag: digits, other ones for each run into the same store. big: one template, streamed over one
    more association. Raises SendError.
    """
    words = _words(workload, tag, options)
    if big is not None:
        words.append(f"--big={big.templates[0].path}")
    answer = _answer([_load_program(), *words, str(port)])
    figures = dict(_times(answer))
    counts = answer["per_association"]
    if counts["max"]:
        figures["slowest_over_fastest"] = counts["min"] / counts["max"]
    size, instances, templates = int(answer["bytes"]), int(answer["instances"]), workload.templates
    if big is not None:
        figures["big_mb_per_s"] = answer["big"]["mb_per_s"]
        size, instances = size + answer["big"]["bytes"], instances + 1
        templates += big.templates
    return Sending(
        instances,
        size,
        answer["seconds"],
        answer["cpu_us"],
        figures,
        functools.partial(sent_by_load, templates=templates, tag=tag, count=instances),
    )


@contextlib.contextmanager
def planned(port: int, workload: Workload, tag: str, **options: float) -> Iterator[dict[str, Any]]:
    """Run the generator inside the context, with `slices` and as `load` does.

    What it printed is there at the end. Raises SendError.
    """
    with _held([_load_program(), *_words(workload, tag, options), str(port)]) as answer:
        yield answer


def echoes(port: int, count: int, called: str = "ANY-SCP") -> dict[str, float]:
    """Associate, C-ECHO, release, so many times; the times each took. Raises SendError."""
    answer = _answer([_load_program(), f"--echo={count}", f"--called={called}", str(port)])
    return {"rate": answer["rate"], **dict(_times(answer))}


def pings(port: int, seconds: float) -> dict[str, float]:
    """C-ECHO after C-ECHO over one association; the times they took. Raises SendError."""
    answer = _answer([_load_program(), f"--ping={seconds}", str(port)])
    return {"rate": answer["rate"], **dict(_times(answer))}


def handshakes(port: int, seconds: float) -> dict[str, float]:
    """TLS handshakes without an association, so long: how many, and in what time.

    Raises SendError.
    """
    words = [sys.executable, "-m", "bench.tls_peers", "shake", str(port), str(seconds)]
    return _answer(words)


@contextlib.contextmanager
def tls_associations(port: int, count: int, template: Template | None) -> Iterator[None]:
    """So many associations with TLS inside the context, each behind an instance of the template.

    Without a template behind none. Raises SendError.
    """
    words = [sys.executable, "-m", "bench.tls_peers", "hold", str(port), str(count)]
    if template is not None:
        words += [str(template.path), str(template.number)]
    with _held(words):
        yield


@contextlib.contextmanager
def idle_associations(port: int, count: int) -> Iterator[None]:
    """So many associations, open inside the context and released at its end. Raises SendError."""
    with _held([_load_program(), f"--idle={count}", str(port)]):
        yield


@contextlib.contextmanager
def flood(port: int, kind: str, associations: int) -> Iterator[None]:
    """Associations that send tiny requests without end inside the context: bench/flood.c.

    Raises SendError, also where the receiver ended one of them.
    """
    program = str(programs.compiled(HERE / "flood.c"))
    with _held([program, str(port), kind, str(associations)]) as answer:
        yield
    if answer["lost"]:
        raise SendError(f"the receiver ended {answer['lost']} of {associations} floods")


@contextlib.contextmanager
def crowd(port: int, tls_port: int, counts: Sequence[int]) -> Iterator[None]:
    """Silent, trickling and deaf peers, so many of each, inside the context: bench/crowd.py.

    Raises SendError, also where the receiver keeps none of them.
    """
    if not any(counts):
        yield
        return
    words = [str(word) for word in (port, tls_port, *counts)]
    with _held([sys.executable, "-m", "bench.crowd", *words]) as answer:
        yield
    if answer["there"] < sum(counts) // 2:
        raise SendError(f"{answer['there']} of {sum(counts)} peers were there at the end")


@contextlib.contextmanager
def _held(command: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Run a program inside the context, ready; what it printed is there at the end."""
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    answer: dict[str, Any] = {}
    try:
        if process.stdout.readline() != "ready\n":
            raise SendError(process.communicate()[1].strip())
        yield answer
        out, error = process.communicate(timeout=120)
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
    answer.update(_checked(process.returncode, out, error))


# --- programs that send files ---


@dataclass(frozen=True, slots=True)
class FileSender:
    """A program that sends files. commands: what to start at the same time.

    associations: how many, each over files of its own; most_window: operations outstanding.
    """

    name: str
    label: str
    version: Callable[[], str]
    commands: Callable[[int, Files, int], list[list[Word]]]
    environment: Mapping[str, str] = field(default_factory=dict)
    most_window: int = 1

    def send(self, port: int, files: Files, window: int = 1) -> Sending:
        """Send all files, one association per folder of them. Raises SendError, Absent."""
        if window > self.most_window:
            raise ValueError(f"{self.name} has no more than {self.most_window} outstanding")
        commands = self.commands(port, files, window)
        with tempfile.TemporaryFile() as log:
            began = time.perf_counter()
            processes = [
                subprocess.Popen(
                    [str(word) for word in command],
                    cwd=ROOT,
                    env=environment(self.environment),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                )
                for command in commands
            ]
            cpu_us = sum(_ended(process) for process in processes)
            seconds = time.perf_counter() - began
            log.seek(0)
            said = log.read().decode(errors="replace").strip().splitlines()
        if any(process.returncode for process in processes):
            raise SendError(f"{self.name}: {' / '.join(said[-3:]) or 'it failed'}")
        return Sending(files.count, files.size, seconds, cpu_us, sent=files.sent)


def _ended(process: subprocess.Popen[bytes]) -> int:
    """Wait for a program; the CPU time it used in microseconds, that of its children included."""
    limit = threading.Timer(LIMIT_S, process.kill)
    limit.start()
    try:
        _, status, used = os.wait4(process.pid, 0)
    finally:
        limit.cancel()
    process.returncode = os.waitstatus_to_exitcode(status)
    return int((used.ru_utime + used.ru_stime) * 1e6)


def _storescu(port: int, files: Files, _: int) -> list[list[Word]]:
    return [
        [programs.dcmtk("storescu"), "+sd", "127.0.0.1", str(port), folder]
        for folder in files.folders
    ]


def _fastscp(port: int, files: Files, window: int) -> list[list[Word]]:
    words: list[Word] = [sys.executable, "-m", "fastscp", "send", f"127.0.0.1:{port}", files.root]
    return [[*words, "--associations", str(len(files.folders)), "--window", str(window)]]


def _fastscp_tls(port: int, files: Files, window: int) -> list[list[Word]]:
    return [[*words, "--tls", "--tls-no-verify"] for words in _fastscp(port, files, window)]


STORESCU = FileSender(
    name="storescu",
    label="DCMTK storescu, TCP_NODELAY=1",
    version=functools.partial(programs.dcmtk_version, "storescu"),
    commands=_storescu,
    environment={"TCP_NODELAY": "1"},
)
UNTUNED = FileSender(
    name="storescu-untuned",
    label="DCMTK storescu at its defaults",
    version=functools.partial(programs.dcmtk_version, "storescu"),
    commands=_storescu,
)
FASTSCP = FileSender(
    name="fastscp-send",
    label="fastscp send",
    version=programs.fastscp_version,
    commands=_fastscp,
    most_window=65535,
)
FASTSCP_TLS = replace(
    FASTSCP, name="fastscp-send-tls", label="fastscp send, TLS", commands=_fastscp_tls
)
FILE_SENDERS = (STORESCU, UNTUNED, FASTSCP)
