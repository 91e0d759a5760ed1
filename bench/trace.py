"""System calls of a receiver, counted by strace."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from bench.programs import Absent

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bench.accounting import Accounting
    from bench.receiver import Word

FLUSHES = ("fsync", "fdatasync", "syncfs", "sync_file_range", "sync", "msync")


def strace() -> str:
    """Path of strace. Raises Absent."""
    found = shutil.which("strace")
    if found is None:
        raise Absent("no strace on PATH (apt-get install strace)")
    return found


def flush_trace(log: Path) -> list[Word]:
    """Words before a command whose flushes are to be logged; nothing else slows it down.

    The program stays the parent of its tracer, so signals reach it as ever.
    """
    names = f"trace={','.join(FLUSHES)}"
    return [strace(), "-D", "-f", "--seccomp-bpf", "-qq", "-ttt", "-o", log, "-e", names]


def flushes_in(log: str, since: float, until: float) -> Counter[str]:
    """Flushes in such a log that began between two moments (seconds since 1970)."""
    found: Counter[str] = Counter()
    for line in log.splitlines():
        words = line.split(maxsplit=2)
        # Those that others interrupt have a second line, "<... fsync resumed>".
        name, call, _ = words[2].partition("(") if len(words) == 3 else ("", "", "")
        if call and name in FLUSHES and since <= float(words[1]) <= until:
            found[name] += 1
    return found


@contextlib.contextmanager
def counted(accounting: Accounting, log: Path) -> Iterator[Counter[str]]:
    """System calls made inside the context by all processes; filled in at its end.

    Everything is stopped at every call: no time can be taken meanwhile. Raises Absent.
    """
    found: Counter[str] = Counter()
    pids = accounting.pids()
    words = [strace(), "-f", "-c", "-qq", "-o", str(log)]
    for pid in pids:
        words += ["-p", str(pid)]
    tracer = subprocess.Popen(words, stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        deadline = time.monotonic() + 30
        while not all(_traced(pid) for pid in pids):
            if tracer.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("strace cannot attach")
            time.sleep(0.01)
        yield found
    finally:
        tracer.send_signal(signal.SIGINT)
        tracer.wait(30)
    found.update(table(log.read_text()))


def _traced(pid: int) -> bool:
    """Whether every thread of a process has a tracer; what has ended needs none."""
    try:
        for status in Path(f"/proc/{pid}/task").glob("*/status"):
            if "TracerPid:\t0\n" in status.read_text():
                return False
    except OSError:
        pass
    return True


def table(text: str) -> Counter[str]:
    """Calls by name, from what `strace -c` prints."""
    found: Counter[str] = Counter()
    for line in text.splitlines():
        words: Sequence[str] = line.split()
        # % time, seconds, usecs/call, calls, errors (if any), name
        if len(words) in (5, 6) and words[3].isdigit() and words[-1] != "total":
            found[words[-1]] += int(words[3])
    return found
