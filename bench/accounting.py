"""What a receiver costs: CPU time, processes and memory, its children included.

CPU time comes from a control group of the receiver's own, so nothing is lost when a child ends.
Where no group can be made, the process tree is walked instead, which undercounts programs that
start a process per association; `Accounting.kind` says which of the two it was.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from types import TracebackType

PROC = Path("/proc")

# Fields of /proc/PID/stat, counted from the state (the third).
PPID, SESSION, UTIME, STIME, CUTIME, CSTIME, STARTED = 1, 3, 11, 12, 13, 14, 19
TICKS = os.sysconf("SC_CLK_TCK")
# The kernel's clock id of another process is ~pid << 3 with one of its three kinds of clock.
CPUCLOCK_SCHED = 2

_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory of a process tree at one moment, in bytes.

    rss counts a page once per process that maps it; pss divides it among them, so only pss adds up
    over forked processes. shmem is the part of pss that is shared memory.
    """

    rss: int = 0
    pss: int = 0
    shmem: int = 0


@dataclass(slots=True)
class Peak:
    """The most that was seen so far, each figure for itself."""

    memory: Memory = Memory()
    processes: int = 0
    threads: int = 0

    def take(self, memory: Memory, processes: int, threads: int) -> None:
        self.memory = Memory(
            max(self.memory.rss, memory.rss),
            max(self.memory.pss, memory.pss),
            max(self.memory.shmem, memory.shmem),
        )
        self.processes = max(self.processes, processes)
        self.threads = max(self.threads, threads)


def _mounted(kind: str, controller: str) -> Iterator[tuple[str, Path]]:
    """Where a hierarchy is mounted: the group that is its root there, and the mount point."""
    for line in (PROC / "self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        name, _, options = right.split(" ", 2)
        if name == kind and (not controller or controller in options.split(",")):
            yield left.split(" ")[3], Path(left.split(" ")[4])


def _own_group(controller: str) -> str | None:
    """This process's group in a v1 hierarchy; in v2 if the name is empty."""
    for line in (PROC / "self/cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        if controller in names.split(","):
            return path
    return None


def _make_group() -> tuple[str, Path, str] | None:
    """A new group below this process's own: kind, directory, file of the CPU time used.

    None where no group may be made. v1 comes first: where both are mounted, v1 has the controllers.
    """
    name = f"bench-{os.getpid()}-{next(_numbers)}"
    for kind, mounted, controller, usage in (
        ("cgroup v1", "cgroup", "cpuacct", "cpuacct.usage"),
        ("cgroup v2", "cgroup2", "", "cpu.stat"),
    ):
        own = _own_group(controller)
        if own is None:
            continue
        for root, point in _mounted(mounted, controller):
            # In a container the mount begins further down than the path in /proc does.
            group = point / own.removeprefix(root).lstrip("/") / name
            try:
                group.mkdir()
            except OSError:
                continue
            if (group / usage).exists() and os.access(group / "cgroup.procs", os.W_OK):
                return kind, group, usage
            group.rmdir()
    return None


class Accounting:
    """The books of one receiver: everything it starts, from its first instruction to its end.

    Use it as a context manager: `start()` the program within, once. Leaving kills what is still
    running in it and removes the group.
    """

    def __init__(self, *, group: bool = True) -> None:
        """group=False walks the process tree even where a group could be made."""
        self.kind = "process tree"
        self._group: Path | None = None
        self._usage = ""
        if group and (made := _make_group()) is not None:
            self.kind, self._group, self._usage = made
        self._root: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def start(
        self,
        command: Sequence[str | Path],
        *,
        folder: Path,
        environment: Mapping[str, str],
        log: Path,
    ) -> subprocess.Popen[bytes]:
        """Start the program in a session (and, where it can be, a group) of its own.

        folder: its working directory; log: file that takes its stdout and stderr.
        """
        words = [str(word) for word in command]
        if self._group is not None:
            # The shell enters the group and then becomes the program, so that no part of it is
            # outside; a function run between fork and exec is not safe beside threads.
            enter = 'echo $$ > "$0" && exec "$@"'
            words = ["sh", "-c", enter, str(self._group / "cgroup.procs"), *words]
        with log.open("ab") as out:
            self._root = subprocess.Popen(
                words,
                cwd=folder,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        return self._root

    def pids(self) -> list[int]:
        """The processes alive now."""
        if self._group is not None:
            # A thread group may be listed twice while it changes.
            return sorted({int(pid) for pid in (self._group / "cgroup.procs").read_text().split()})
        return sorted(self._tree())

    def _tree(self) -> dict[int, list[str]]:
        """The program, what descends from it and what is in its session, with their `stat`."""
        if self._root is None:
            return {}
        everyone = dict(_processes())
        root, found = self._root.pid, dict[int, list[str]]()
        grown = True
        while grown:
            more = {
                pid: stat
                for pid, stat in everyone.items()
                if pid not in found
                and (pid == root or int(stat[SESSION]) == root or int(stat[PPID]) in found)
            }
            found |= more
            grown = bool(more)
        return found

    def cpu_us(self) -> int:
        """CPU time used so far, in microseconds, user and system, ended children included.

        Exact from a group. In the fallback, a child that ended counts in whole clock ticks, and
        only once its parent has waited for it.
        """
        if self._group is None:
            return self._cpu_of_tree_us()
        text = (self._group / self._usage).read_text()
        if self.kind == "cgroup v1":
            return int(text) // 1000
        return int(text.split()[text.split().index("usage_usec") + 1])

    def _cpu_of_tree_us(self) -> int:
        total = 0
        for pid, stat in self._tree().items():
            reaped = int(stat[CUTIME]) + int(stat[CSTIME])
            own = (int(stat[UTIME]) + int(stat[STIME])) * 1_000_000 // TICKS
            with contextlib.suppress(OSError):
                # The clock of that process, in nanoseconds; threads that ended are in it.
                own = time.clock_gettime_ns((~pid << 3) | CPUCLOCK_SCHED) // 1000
            total += own + reaped * 1_000_000 // TICKS
        return total

    def memory(self, pids: Iterable[int] | None = None) -> Memory:
        """What all of them hold now, or these of them, from their `smaps_rollup`."""
        sums = {"Rss:": 0, "Pss:": 0, "Pss_Shmem:": 0}
        for pid in self.pids() if pids is None else pids:
            # One that ends while it is read counts no more.
            with contextlib.suppress(OSError):
                for line in (PROC / f"{pid}/smaps_rollup").read_text().splitlines()[1:]:
                    word = line.split()
                    if word[0] in sums:
                        sums[word[0]] += int(word[1]) * 1024
        return Memory(sums["Rss:"], sums["Pss:"], sums["Pss_Shmem:"])

    def threads(self) -> int:
        """Threads of all processes, their first ones included."""
        count = 0
        for pid in self.pids():
            with contextlib.suppress(OSError):
                count += len(os.listdir(PROC / f"{pid}/task"))
        return count

    @contextlib.contextmanager
    def sampled(self, interval_s: float = 0.2) -> Iterator[Peak]:
        """Look every so often, and once more at the end; gives the peak so far.

        A group's own high-water mark is of no use here: it counts the cached pages of the files
        that are written. Looking costs this process about 0.1 ms per process and look.
        """
        peak, done = Peak(), threading.Event()

        def look() -> None:
            peak.take(self.memory(), len(self.pids()), self.threads())

        def watch() -> None:
            while not done.wait(interval_s):
                look()

        look()
        watcher = threading.Thread(target=watch, name="memory", daemon=True)
        watcher.start()
        try:
            yield peak
        finally:
            done.set()
            watcher.join()
            look()

    def stop(self, timeout_s: float = 60.0) -> int:
        """SIGTERM to the program, then SIGKILL to whatever is left; gives its exit status."""
        if self._root is None:
            return 0
        # Without a group, children whose parent has ended are found no more.
        before = {} if self._group is not None else {p: s[STARTED] for p, s in self._tree().items()}
        if self._root.poll() is None:
            self._root.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._root.wait(timeout_s)
        # Children that outlive their parent, and a program that does not listen.
        deadline = time.monotonic() + 10
        while left := self._left(before):
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._root.poll()
            if time.monotonic() > deadline:
                raise RuntimeError(f"processes {left} do not end")
            time.sleep(0.005)
        return self._root.wait()

    def _left(self, before: Mapping[int, str]) -> list[int]:
        """Processes still running, of the group and of those that were there before."""
        pids = [pid for pid in self.pids() if not _is_zombie(_stat(pid))]
        for pid, started in before.items():
            stat = _stat(pid)
            if not _is_zombie(stat) and stat[STARTED] == started:
                pids.append(pid)
        return pids

    def close(self) -> None:
        """`stop()`, and take the group away; no figure can be had afterwards."""
        try:
            self.stop()
        finally:
            group, self._group, self._root = self._group, None, None
            deadline = time.monotonic() + 5
            while group is not None:
                try:
                    group.rmdir()
                except FileNotFoundError:
                    break
                except OSError:
                    # The kernel lets go of the last process a moment after it has been waited for.
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.005)
                else:
                    break


def _stat(pid: int) -> list[str]:
    """The fields of a process's `stat` from the state on; none if it is gone."""
    try:
        # The name before may hold blanks and parentheses.
        return (PROC / f"{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _processes() -> Iterator[tuple[int, list[str]]]:
    for entry in PROC.iterdir():
        if entry.name.isdigit() and (stat := _stat(int(entry.name))):
            yield int(entry.name), stat


def _is_zombie(stat: Sequence[str]) -> bool:
    return not stat or stat[0] in "ZX"
