"""A model of the commit through the redo log: what may be on the disk after any end of a service.

The disk is the one of `kit_kept` that forgets what was not flushed: every name and every piece of
4 KiB survives a power cut or not on its own. A failed flush drops what it was for: the page cache
still shows it, and no later flush brings it to the medium. Everything that a worker does is a
generator that stops between two calls of the disk; a test decides who goes on, who is killed, and
when the power goes. Log files, journal lines and files have the bytes that the service writes, so
that another recovery than `redo_recovery` can be tried on the same disk.

A mutant is the name of a step that is left out, or done at the wrong time.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from fastscp.store.journal import parse_line
from tests import redo_files
from tests.kept.redo_disk import Medium
from tests.redo_files import BLOCK, Put, Void

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from tests.kept.kit_kept import Node

__all__ = ["JOURNAL", "REDO", "STORE_ID", "Delivery", "Owner", "Task", "Worker", "World"]

JOURNAL: Final = ".fastscp/journal"
REDO: Final = ".fastscp/redo"
INCOMING: Final = ".fastscp/incoming"
REPLACED: Final = ".fastscp/replaced"
ASIDE: Final = ".fastscp/aside"
STORE_ID: Final = "11111111-2222-3333-4444-555555555555"
# A log file: its first block, and room for some batches.
LOG_BLOCKS: Final = 9
FILES: Final = 2
BATCH: Final = 3
STORED, KEPT, FAILED = 0, 0xB006, 0xA700


@dataclass(eq=False)
class Delivery:
    """An instance that was sent.

    seq: 0 before it has one. final: the path that it has or had, "" before. kind: the word of its
    line. over: nobody works at it any more. removed: somebody took the file away afterwards, or may
    have. voided: the record is, on the medium.
    """

    number: int
    path: str
    data: bytes = field(repr=False)
    is_small: bool
    seq: int = 0
    status: int | None = None
    final: str = ""
    kind: str = ""
    over: bool = False
    removed: bool = False
    voided: bool = False
    part: Node | None = field(default=None, repr=False)
    part_path: str = ""
    by_lane: bool = False


def line_of(seq: int, path: str, data: bytes, kind: str) -> bytes:
    """A line of the journal, with its newline."""
    return redo_files.line_of(seq, path, data, **({"duplicate": kind} if kind else {}))


class LogFile:
    """A file of the log, as the worker knows it that writes it; `made` makes it."""

    def __init__(self, world: World, worker: Worker, number: int) -> None:
        self._world = world
        self.life = worker.life
        self.number = number
        self._path = f"{REDO}/{worker.life}-{number}"
        self.node = world.medium.make(f"{self._path}.new")
        self.salt = world.salt()
        self.begin()

    def made(self) -> Generator[None, None, None]:
        """Under another name until it is whole: whatever has that name counts for nothing."""
        medium, mutant = self._world.medium, self._world.mutant
        yield
        medium.write(self.node, 0, bytes(LOG_BLOCKS * BLOCK))
        medium.write(self.node, 0, self.header())
        yield
        if mutant != "log file named before it is flushed":
            medium.flush(self.node)
        yield
        medium.place(self.node, f"{self._path}.log")
        medium.remove(f"{self._path}.new")
        yield
        if mutant != "log file used before its name is flushed":
            medium.flush(medium.folder(REDO))

    def header(self) -> bytes:
        return redo_files.header(
            self.life, self.number, store_id=STORE_ID, salt=self.salt, when=self._world.when(),
            size=LOG_BLOCKS * BLOCK,
        )  # fmt: skip

    def begin(self) -> None:
        self.at = BLOCK
        self.busy = False
        self.parts: list[tuple[Node, str]] = []

    def has_room(self, size: int) -> bool:
        """One block stays free for the record that takes another one back."""
        return self.at + size + BLOCK <= LOG_BLOCKS * BLOCK

    def append(self, data: bytes) -> None:
        self._world.medium.write(self.node, self.at, data)
        self.at += len(data)


@dataclass(eq=False)
class Task:
    """Something that goes on. worker: whose; None: of the main process."""

    name: str
    steps: Generator[None, None, None]
    worker: Worker | None


@dataclass(eq=False)
class Owner:
    """Who may hold claims, until it or its worker is gone. worker: None: the main process."""

    worker: Worker | None


class Worker:
    """A worker's life."""

    def __init__(self, world: World, life: str) -> None:
        self.life = life
        medium = world.medium
        medium.folder(f"{INCOMING}/{life}")
        medium.flush(medium.folder(INCOMING))
        self.classic = medium.make(f"{JOURNAL}/{life}-1.jsonl")
        self.lines = medium.make(f"{JOURNAL}/{life}r-1.jsonl")
        medium.flush(medium.folder(JOURNAL))
        self.free: list[LogFile] = []
        self.sealed: deque[LogFile] = deque()
        self.active: LogFile | None = None
        self.batch = 0
        self.lane_on = True
        self.waiting: deque[Delivery] = deque()


class World:
    """A store, its workers, and what was told to whom.

    policy: what becomes of an instance whose path has another one: version, replace or keep.
    """

    def __init__(self, policy: str, mutant: str = "", workers: int = 2) -> None:
        self.policy = policy
        self.mutant = mutant
        self.medium = Medium()
        for name in (JOURNAL, REDO, INCOMING, REPLACED, ASIDE):
            self.medium.folder(name)
        self.medium.load(self.medium.tree())
        self.boot = 1
        self.sequence = 0
        self._salts = 0
        self._lives = 0
        self.deliveries: list[Delivery] = []
        self.tasks: list[Task] = []
        self.claims: dict[str, Owner] = {}
        self.faults: list[str] = []
        self.seen: set[int] = set()
        self.strangers: set[bytes] = set()
        self.workers: list[Worker] = []
        self.count = workers
        self.distrusted: set[str] = set()
        # How many segments there were of no worker.
        self.names = 0
        self.fill()

    # What the service has in memory ---------------------------------------------------------------

    def when(self) -> tuple[str, str, str]:
        """Which time it is that the disk is mounted: boot, mount, file system."""
        return f"boot-{self.boot}", "1", "1"

    def salt(self) -> int:
        self._salts += 1
        return self._salts

    def next_seq(self) -> int:
        self.sequence += 1
        return self.sequence

    def fill(self) -> None:
        """Start workers in places that are free."""
        while len(self.workers) < self.count:
            self._lives += 1
            worker = Worker(self, f"20261126T0000{self._lives:02d}000000Z-0")
            self.workers.append(worker)
            for _step in self._make(worker, 1):
                pass
            for number in range(2, FILES + 1):
                self.spawn("make", self._make(worker, number), worker)

    def _make(self, w: Worker, number: int) -> Generator[None, None, None]:
        log = LogFile(self, w, number)
        yield from log.made()
        if w.active is None and w.lane_on:
            w.active = log
        else:
            w.free.append(log)

    def claim(self, path: str, who: Owner) -> bool:
        """Whether `who` has a path's claim now."""
        return self.claims.setdefault(path, who) is who

    def is_taken(self, path: str) -> bool:
        """Whether the path has a file, or what somebody left who was about to replace it."""
        kept = f"{REPLACED}/{path.replace('/', '%')}.kept"
        return self.medium.node(path) is not None or self.medium.node(kept) is not None

    def give_back(self, who: Owner) -> None:
        for path in [path for path, holder in self.claims.items() if holder is who]:
            del self.claims[path]

    def fails(self, what: str) -> bool:
        """Whether the call is to fail; a fault is for one call."""
        if what in self.faults:
            self.faults.remove(what)
            return True
        return False

    def spawn(self, name: str, steps: Generator[None, None, None], worker: Worker | None) -> None:
        self.tasks.append(Task(name, steps, worker))

    def is_busy(self) -> bool:
        """Whether anybody has something to do."""
        for worker in self.workers:
            if worker.waiting and not self._has(worker, "lane"):
                self.spawn("lane", self._lane(worker), worker)
            if worker.sealed and worker.lane_on and not self._has(worker, "checkpoint"):
                self.spawn("checkpoint", self._checkpoint(worker), worker)
        return bool(self.tasks)

    def step(self, number: int, times: int) -> None:
        """Let one of those that have something to do go on."""
        if not self.is_busy():
            return
        task = self.tasks[number % len(self.tasks)]
        for _ in range(times):
            if task not in self.tasks:
                return
            try:
                next(task.steps)
            except StopIteration:
                if task in self.tasks:
                    self.tasks.remove(task)
                return

    def _has(self, worker: Worker, name: str) -> bool:
        return any(task.worker is worker and task.name == name for task in self.tasks)

    # What comes -----------------------------------------------------------------------------------

    def deliver(self, number: int, path: str, data: bytes, is_small: bool) -> None:
        if not self.workers:
            return
        worker = self.workers[number % len(self.workers)]
        d = Delivery(len(self.deliveries), path, data, is_small)
        d.part_path = f"{INCOMING}/{worker.life}/{d.number:08x}.part"
        d.part = self.medium.make(d.part_path)
        self.medium.write(d.part, 0, data)
        self.deliveries.append(d)
        if is_small and worker.lane_on:
            worker.waiting.append(d)
        else:
            self.spawn("classic", self._classic(worker, d), worker)

    def seal(self, number: int) -> None:
        """The oldest record of a worker is too old, or its file is full."""
        if self.workers:
            self._seal(self.workers[number % len(self.workers)])

    def _seal(self, worker: Worker) -> None:
        # What is on its way through a file has neither its name nor its line yet.
        log = worker.active
        if log is None or log.at == BLOCK:
            return
        if not log.busy or self.mutant == "sealed in the middle of a batch":
            worker.sealed.append(log)
            worker.active = worker.free.pop(0) if worker.free else None

    def stranger(self, path: str) -> None:
        """Somebody puts a file there by hand, where none is and none is on its way."""
        if self.medium.node(path) is None and path not in self.claims:
            data = b"stranger %d" % len(self.strangers)
            self.strangers.add(data)
            node = self.medium.make(path)
            self.medium.write(node, 0, data)
            self.medium.flush(node)
            for folder in self.medium.flush_way(path):
                self.medium.flush(folder)

    def consume(self, path: str) -> None:
        """A consumer takes a file away, in all its versions."""
        for one in [path, *(f"{path}~{n}" for n in range(2, 10))]:
            if self.medium.node(one) is not None:
                self.medium.remove(one)
        for d in self.deliveries:
            # What is about to have the name, or counts on it, may be what was taken.
            if d.path == path and d.final:
                d.removed = True

    def follow(self) -> None:
        """A follower reads all whole lines that it can see."""
        self.seen |= set(self.lines())

    def lines(self) -> Counter[int]:
        """How often each number stands in the journal, as it is seen."""
        return Counter(fact["seq"] for _name, fact in self.facts())

    def facts(self) -> Iterator[tuple[str, dict[str, Any]]]:
        for name, node in sorted(self.medium.folder(JOURNAL).entries.items()):
            for line in bytes(node.data).split(b"\n")[:-1]:
                if (fact := parse_line(line)) is not None:
                    yield name, fact

    # The lane -------------------------------------------------------------------------------------

    def _lane(self, w: Worker) -> Generator[None, None, None]:
        me = Owner(w)
        log = w.active
        taken: list[Delivery] = []
        size = 0
        if log is not None:
            log.busy = True
        while w.waiting and len(taken) < BATCH:
            d = w.waiting[0]
            size += 2 * BLOCK * (1 + len(d.data) // BLOCK)
            if log is None or not w.lane_on or not log.has_room(size):
                break
            w.waiting.popleft()
            yield
            free = self.mutant == "no claim" or self.claim(d.path, me)
            if not free or self.is_taken(d.path) or d.path in (one.path for one in taken):
                if self.claims.get(d.path) is me and d.path not in (one.path for one in taken):
                    del self.claims[d.path]
                self.spawn("resolve", self._resolve(w, d), w)
                continue
            d.seq, d.by_lane, d.final = self.next_seq(), True, d.path
            taken.append(d)
        if not taken:
            # No room: the whole batch goes the other way, and the file is looked after.
            if log is not None:
                log.busy = False
            if w.waiting and (log is None or not log.has_room(size) or not w.lane_on):
                d = w.waiting.popleft()
                self.spawn("classic", self._classic(w, d), w)
                self._seal(w)
            return
        assert log is not None
        yield from self._log(w, log, taken, me)

    def _log(
        self, w: Worker, log: LogFile, taken: list[Delivery], me: Owner
    ) -> Generator[None, None, None]:
        text = [line_of(d.seq, d.path, d.data, "") for d in taken]
        records = [Put(d.seq, d.path, d.data, line) for d, line in zip(taken, text, strict=True)]
        yield
        if self.mutant == "answer before name":
            for d in taken:
                self._answer(d, STORED)
        if self.mutant == "rename before flush":
            yield from self._name(w, log, taken, me)
        if self.mutant == "line before flush":
            self.medium.write(w.lines, len(w.lines.data), b"".join(text))
            yield
        batches = [records]
        if self.mutant == "batch b+1 before b":
            batches = [[one] for one in records]
        for one in batches:
            w.batch += 1
            log.append(redo_files.batch(w.batch, one, salt=log.salt))
            mine = {record.seq for record in one}
            log.parts += [(d.part, d.path) for d in taken if d.part and d.seq in mine]
            yield
        if self.fails("log flush"):
            # This file is left alone from now on; the batch goes the other way.
            self.medium.spoil(log.node)
            w.lane_on = log.busy = False
            self._seal(w)
            for d in taken:
                self.spawn("classic", self._classic(w, d, me=me), w)
            return
        if self.mutant != "no log flush":
            self.medium.flush(log.node)
        yield
        if self.mutant != "rename before flush":
            yield from self._name(w, log, taken, me)
        done = [k for k, d in enumerate(taken) if not d.over]
        if self.mutant != "line before flush":
            self.medium.write(w.lines, len(w.lines.data), b"".join(text[k] for k in done))
        yield
        log.busy = False
        self.give_back(me)
        for k in done:
            yield
            self._answer(taken[k], STORED)

    def _name(
        self, w: Worker, log: LogFile, taken: list[Delivery], me: Owner
    ) -> Generator[None, None, None]:
        for d in taken:
            yield
            assert d.part is not None
            if self.medium.node(d.path) is None and not self.fails("name"):
                self._move(d, d.path)
                continue
            w.batch += 1
            log.append(redo_files.batch(w.batch, [Void(d.seq, d.path)], salt=log.salt))
            yield
            self.medium.flush(log.node)
            d.voided = True
            yield
            if self.claims.get(d.path) is me:
                del self.claims[d.path]
            self._refuse(d)

    def _move(self, d: Delivery, path: str) -> None:
        assert d.part is not None
        self.medium.place(d.part, path)
        self.medium.remove(d.part_path)
        d.final = path

    def _answer(self, d: Delivery, status: int) -> None:
        if d.status is None:
            d.status = status
        d.over = True

    def _refuse(self, d: Delivery) -> None:
        self.medium.remove(d.part_path)
        d.final = ""
        self._answer(d, FAILED)

    def _checkpoint(self, w: Worker) -> Generator[None, None, None]:
        log = w.sealed[0]
        steps: list[tuple[str, Node]] = []
        if self.mutant != "reuse before C2":
            steps += [("file flush", node) for node, _path in log.parts]
        if self.mutant != "reuse before C3":
            ways = dict.fromkeys(
                node for _node, path in log.parts for node in self.medium.flush_way(path)
            )
            steps += [("folder flush", node) for node in ways]
        if self.mutant != "reuse before C4":
            steps.append(("journal flush", w.lines))
        for what, node in steps:
            yield
            if self.fails(what):
                # The worker ends at once, and says why: nobody can kill it in between.
                self.medium.spoil(node)
                self.kill(w, distrust=self.mutant != "page cache believed")
                return
            self.medium.flush(node)
        yield
        if not w.lane_on:
            return
        if self.mutant != "old salt kept":
            log.salt = self.salt()
        self.medium.write(log.node, 0, log.header())
        yield
        self.medium.flush(log.node)
        log.begin()
        w.sealed.popleft()
        if w.active is None:
            w.active = log
        else:
            w.free.append(log)

    # The other way --------------------------------------------------------------------------------

    def _classic(
        self, w: Worker, d: Delivery, me: Owner | None = None
    ) -> Generator[None, None, None]:
        """me: who has the path's claim already; then it has its number, too."""
        own = Owner(w)
        yield
        assert d.part is not None
        d.by_lane = False
        if self.fails("part flush"):
            self.medium.spoil(d.part)
            self._lift(d.path, me)
            self._refuse(d)
            return
        self.medium.flush(d.part)
        yield
        if me is None and not self.claim(d.path, own):
            yield from self._resolve(w, d)
            return
        if self.is_taken(d.path):
            self._lift(d.path, me or own)
            yield from self._resolve(w, d)
            return
        yield from self._keep_at(w, d, d.path, "", me or own)

    def _lift(self, path: str, who: Owner | None) -> None:
        if who is not None and self.claims.get(path) is who:
            del self.claims[path]

    def _keep_at(
        self, w: Worker, d: Delivery, path: str, kind: str, who: Owner
    ) -> Generator[None, None, None]:
        """Give a flushed part its name, and everything after it."""
        d.seq = d.seq or self.next_seq()
        d.kind = kind
        if (d.part is not None and d.final != path) or self.medium.node(path) is not d.part:
            self._move(d, path)
        yield
        yield from self._flush_way(path)
        yield from self._write_line(w, d, who)

    def _flush_way(self, path: str) -> Generator[None, None, None]:
        for node in list(self.medium.flush_way(path)):
            self.medium.flush(node)
            yield

    def _write_line(self, w: Worker, d: Delivery, who: Owner) -> Generator[None, None, None]:
        line = line_of(d.seq, d.final, d.data, d.kind)
        self.medium.write(w.classic, len(w.classic.data), line)
        if d.kind != "replaced":
            self._lift(d.path, who)
        yield
        self.medium.flush(w.classic)
        yield
        if d.kind == "replaced":
            yield from self._decide(d)
            self._lift(d.path, who)
        self._answer(d, KEPT if d.kind == "kept" else STORED)

    def _resolve(self, w: Worker, d: Delivery) -> Generator[None, None, None]:
        """An instance whose path is taken, by anybody."""
        me = Owner(w)
        assert d.part is not None
        d.by_lane = False
        self.medium.flush(d.part)
        yield
        while not self.claim(d.path, me):
            yield
        yield from self.settle_path(d.path, w.classic)
        node = self.medium.node(d.path)
        if node is None:
            yield from self._keep_at(w, d, d.path, "", me)
            return
        if bytes(node.data) == d.data:
            yield from self._identical(w, d, node, d.path, me)
        elif self.policy == "version":
            yield from self._version(w, d, me)
        elif self.policy == "replace":
            yield from self._replace(w, d, node, me)
        else:
            # "existing instance kept"
            d.final = d.path
            yield from self._flush_way(d.path)
            d.seq, d.kind = self.next_seq(), "kept"
            self.medium.remove(d.part_path)
            yield from self._write_line(w, d, me)

    def _identical(
        self, w: Worker, d: Delivery, node: Node, path: str, me: Owner
    ) -> Generator[None, None, None]:
        d.final = path
        self.medium.flush(node)
        yield
        yield from self._flush_way(path)
        d.seq, d.kind = d.seq or self.next_seq(), "identical"
        self.medium.remove(d.part_path)
        yield from self._write_line(w, d, me)

    def _version(self, w: Worker, d: Delivery, me: Owner) -> Generator[None, None, None]:
        d.seq = 0
        for n in range(2, 10):
            path = f"{d.path}~{n}"
            node = self.medium.node(path)
            if node is None:
                yield from self._keep_at(w, d, path, "version", me)
                return
            if bytes(node.data) == d.data:
                yield from self._identical(w, d, node, path, me)
                return
        self._lift(d.path, me)
        self._refuse(d)

    def _replace(
        self, w: Worker, d: Delivery, older: Node, me: Owner
    ) -> Generator[None, None, None]:
        kept = f"{REPLACED}/{d.path.replace('/', '%')}.kept"
        self.medium.flush(older)
        yield
        self.medium.place(older, kept)
        yield
        self.medium.flush(self.medium.folder(REPLACED))
        yield
        d.seq = self.next_seq()
        yield from self._keep_at(w, d, d.path, "replaced", me)

    def _decide(self, d: Delivery) -> Generator[None, None, None]:
        """Note that the newer one stays; then the older one goes."""
        stem = f"{REPLACED}/{d.path.replace('/', '%')}"
        kept = self.medium.node(f"{stem}.kept")
        if kept is not None:
            self.medium.place(kept, f"{stem}.over")
            self.medium.remove(f"{stem}.kept")
            yield
            self.medium.flush(self.medium.folder(REPLACED))
            yield
            self.medium.remove(f"{stem}.over")

    def settle_path(self, path: str, lines: Node) -> Generator[None, None, None]:
        """Put back what a replacement kept that nobody goes on with. lines: a segment."""
        stem = f"{REPLACED}/{path.replace('/', '%')}"
        kept = self.medium.node(f"{stem}.kept")
        if self.medium.node(f"{stem}.over") is None and kept is not None:
            newer = self.medium.node(path)
            if newer is not kept:
                self.medium.place(kept, path)
                yield
            yield from self._flush_way(path)
            if newer is not None and newer is not kept:
                data = bytes(kept.data)
                line = line_of(self.next_seq(), path, data, "restored")
                self.medium.write(lines, len(lines.data), line)
                yield
                self.medium.flush(lines)
                yield
        for suffix in (".kept", ".over"):
            if self.medium.node(stem + suffix) is not None:
                self.medium.remove(stem + suffix)
                self.medium.flush(self.medium.folder(REPLACED))
                yield

    # How it ends ----------------------------------------------------------------------------------

    def kill(self, worker: Worker, *, distrust: bool = False) -> None:
        """A worker is gone; its claims with it, and what it was at is not answered."""
        self.workers.remove(worker)
        for task in [task for task in self.tasks if task.worker is worker]:
            self.tasks.remove(task)
        for path in [path for path, who in self.claims.items() if who.worker is worker]:
            del self.claims[path]
        if distrust:
            self.distrusted.add(worker.life)

    def kill_all(self) -> None:
        for worker in list(self.workers):
            self.kill(worker)
        self.tasks.clear()
        self.claims.clear()
        for d in self.deliveries:
            d.over = True

    def cut_power(self, luck: float, seed: int) -> None:
        """Everything ends, and the disk forgets."""
        self.kill_all()
        self.distrusted.clear()
        self.medium.cut(luck, random.Random(seed))
        self.boot += 1
        self.faults.clear()

    def lives(self) -> list[str]:
        """Whose logs or folders there are, and who is not alive."""
        alive = {worker.life for worker in self.workers}
        found = {name.rpartition("-")[0] for name in self.medium.folder(REDO).entries}
        return sorted(found - alive)

    # What must hold -------------------------------------------------------------------------------

    def wrong(self) -> list[str]:
        """What is wrong after a recovery, while nobody is at work; in words."""
        files = self.medium.files()
        counts = self.lines()
        bad = [f"line {seq} stands {n} times" for seq, n in counts.items() if n > 1]
        by_seq = {d.seq: d for d in self.deliveries if d.seq}
        bad += [
            f"{d} was answered {d.status:04X} and has no line"
            for d in self.deliveries
            if d.status in (STORED, KEPT) and d.seq not in counts
        ]
        bad += [f"{d} was taken back and has a line" for d in self.deliveries
                if d.voided and d.seq in counts]  # fmt: skip
        bad += [
            f"a follower saw line {seq}, and it is gone"
            for seq in sorted(self.seen - set(counts))
            # A line of the other way that was not answered may go with the power.
            if (d := by_seq.get(seq)) is not None and (d.by_lane or d.status in (STORED, KEPT))
        ]
        known: dict[str, set[bytes]] = {}
        for d in self.deliveries:
            known.setdefault(d.path, set()).add(d.data)
        for path, data in files.items():
            base = path.partition("~")[0]
            if data not in known.get(base, set()) | self.strangers:
                bad.append(f"{path} has {len(data)} bytes that nobody sent")
        return bad + self._missing(files)

    def _missing(self, files: dict[str, bytes]) -> list[str]:
        bad = []
        for path in {d.final for d in self.deliveries if d.final}:
            here = [d for d in self.deliveries if d.final == path]
            told = [d for d in here if not d.removed and d.status == STORED]
            if not told:
                continue
            latest = max(told, key=lambda d: d.seq)
            # An unanswered one may have taken its place, where one may.
            newer = {
                d.data
                for d in here
                if d.seq > latest.seq and d.status != STORED and d.kind == "replaced"
            }
            if files.get(path) not in {latest.data} | newer:
                what = "nothing" if path not in files else f"{len(files[path])} other bytes"
                bad.append(f"{path} is to hold {latest}, and holds {what}")
        if left := [n for n in self.medium.folder(REDO).entries if n.rpartition("-")[0] in
                    self.lives()]:  # fmt: skip
            bad.append(f"logs are left: {left}")
        return bad
