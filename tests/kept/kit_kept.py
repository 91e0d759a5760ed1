"""What the tests of the promise share: an interposed disk, what its log proves, senders.

`Interposed` is a `Service` whose processes run over `disk.c`; `read_log` reads what that wrote,
`violations` checks the order of the commit in it, and `Disk` replays it as a disk that forgets
what was not flushed.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import mmap
import os
import random
import re
import signal
import struct
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import pytest

from fastscp.store import nameless as nameless_stores
from fastscp.store import probe
from fastscp.store.journal import parse_line
from fastscp_ext import decode_command, decode_pdata
from tests.kit import (
    CT,
    ELE,
    RELEASE_RP,
    RELEASE_RQ,
    Peer,
    Service,
    associate_rq,
    data_set,
    path_of,
    send_signal,
    split_pdus,
    store,
    wait_for,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

# Kinds, actions and layouts as in disk.c.
OPEN, WRITE, BEGIN, FLUSH, RENAME, LINK, UNLINK, MKDIR, RMDIR, CLOSE, SEND, TRUNCATE, SYNC, LOOK = (
    range(1, 15)
)
(
    FAIL, KILL_BEFORE, KILL_ALL_BEFORE, KILL_AFTER, KILL_ALL_AFTER, HOLD_BEFORE, HOLD_AFTER, SHORT,
    COUNT, PRETEND,
) = range(1, 11)  # fmt: skip
_RULE: Final = struct.Struct("<IiqqII64sQ")
_RULES_AT: Final = 528
_RECORD: Final = struct.Struct("<IHHiiiiQQQqHHI")


# How many calls failed, and how many processes or services were killed, by rules of all tests.
INJECTED: Final = Counter[str]()
_INJECTS: Final = {
    FAIL: "calls that failed", SHORT: "calls that failed", PRETEND: "flushes not done",
    KILL_BEFORE: "kills at a step", KILL_AFTER: "kills at a step",
    KILL_ALL_BEFORE: "kills at a step", KILL_ALL_AFTER: "kills at a step",
}  # fmt: skip

# The interposed disk ------------------------------------------------------------------------------


class Control:
    """The page shared with the interposed library: rules, counters, free space."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.write_bytes(struct.pack("<128xq", -1).ljust(4096, b"\0"))
        with path.open("r+b") as file:
            self._page = mmap.mmap(file.fileno(), 4096)
        self._used = 0
        self._actions: list[int] = []

    def rule(
        self,
        calls: Sequence[int],
        action: int,
        *,
        error: int = 0,
        path: str = "",
        skip: int = 0,
        left: int = -1,
        pid: int = 0,
    ) -> int:
        """Add a rule; returns its number. path: part of the path. left: calls it is for, -1 all."""
        number = self._used
        self._used += 1
        assert number < 16
        self._actions.append(action)
        at = _RULES_AT + number * _RULE.size
        mask = sum(1 << kind for kind in calls)
        packed = _RULE.pack(mask, error, skip, left, 0, pid, path.encode(), 0)
        self._page[at : at + _RULE.size] = packed
        # Last: a rule without an action is not looked at.
        self._page[at + 24 : at + 28] = struct.pack("<I", action)
        return number

    def lift(self, number: int) -> None:
        """Take a rule back; who is held by it goes on."""
        at = _RULES_AT + number * _RULE.size + 24
        self._page[at : at + 4] = bytes(4)

    def hits(self, number: int) -> int:
        at = _RULES_AT + number * _RULE.size
        return int(_RULE.unpack_from(self._page, at)[7])

    def clear(self) -> None:
        for number, action in enumerate(self._actions):
            self.lift(number)
            if (what := _INJECTS.get(action)) and (hits := self.hits(number)):
                INJECTED[what] += hits
        self._actions.clear()
        self._used = 0

    def free(self, size: int) -> None:
        """Let statvfs say so many bytes are free; -1: the truth."""
        self._page[128:136] = struct.pack("<q", size)

    def count(self, kind: int) -> int:
        return int(struct.unpack_from("<Q", self._page, 144 + 8 * kind)[0])

    def close(self) -> None:
        self.clear()
        self._page.close()


def _told_of_ext4(folder: Path, root: Path) -> Path:
    """A folder with what the system says of an ext4 where files need no name.

    Skips where the root is on another kind of file system, and they need one whatever it says.
    """
    kind = probe._file_system(root)
    if kind not in nameless_stores._FILE_SYSTEMS:
        pytest.skip(f"every part has a name on {kind}: let the tests' folder be on ext4 or xfs")
    told = folder / "ext4"
    told.mkdir(exist_ok=True)
    (told / "options").write_text("data=ordered\n")
    (told / "fc_info").write_text("0 commits\n0 ineligible\n")
    return told


class Interposed(Service):
    """A service over the interposed disk. Its store is `disk/store` below tmp_path.

    It has no redo log where the flags do not ask for one: who follows each step of the disk follows
    one of the two ways. nameless: its file system has files without a name.
    """

    def __init__(
        self,
        tmp_path: Path,
        library: Path,
        *flags: str,
        log: bool = True,
        env: Mapping[str, str] | None = None,
        store: Path | None = None,
        workers: int = 2,
        nameless: bool = False,
    ) -> None:
        self.nameless = nameless
        self.root = store.parent if store else tmp_path / "disk"
        self.root.mkdir(parents=True, exist_ok=True)
        number = len(list(tmp_path.glob("control-*")))
        self.control = Control(tmp_path / f"control-{number}")
        self.log_path = tmp_path / f"disk-{number}.log"
        more = {
            "LD_PRELOAD": str(library),
            "KEPT_ROOT": str(self.root.resolve()),
            "KEPT_CONTROL": str(self.control.path),
        }
        if log:
            more["KEPT_LOG"] = str(self.log_path)
        if nameless:
            more["KEPT_NAMELESS"] = str(_told_of_ext4(tmp_path, self.root))
        if "--redo" not in flags:
            flags = (*flags, "--redo", "off")
        super().__init__(
            tmp_path,
            *flags,
            env={**more, **(env or {})},
            store=store or self.root / "store",
            workers=workers,
        )

    def __enter__(self) -> Interposed:
        super().__enter__()
        return self

    def __exit__(self, *what: Any) -> None:
        try:
            super().__exit__(*what)
        finally:
            self.control.close()

    def events(self) -> list[Event]:
        return read_log(self.log_path)


class Event(NamedTuple):
    """A record of the log; names and numbers as in disk.c."""

    kind: int
    flags: int
    pid: int
    fd: int
    result: int
    ino: int
    parent: int
    parent2: int
    offset: int
    name: str
    name2: str
    data: bytes


def read_log(path: Path) -> list[Event]:
    """All whole records; the last of a process that was killed may be cut."""
    raw = path.read_bytes()
    events = []
    at = 0
    while at + _RECORD.size <= len(raw):
        (size, kind, flags, pid, _tid, fd, result, ino, parent, parent2, offset, n1, n2, n) = (
            _RECORD.unpack_from(raw, at)
        )
        if at + size > len(raw):
            break
        text = at + _RECORD.size
        name = raw[text : text + n1].decode()
        name2 = raw[text + n1 : text + n1 + n2].decode()
        data = raw[text + n1 + n2 : text + n1 + n2 + n]
        events.append(
            Event(kind, flags, pid, fd, result, ino, parent, parent2, offset, name, name2, data)
        )
        at += size
    return events


def acknowledged(data: bytes) -> list[tuple[str, int]]:
    """SOP Instance UID and status of the C-STORE responses in what was sent."""
    found = []
    for one in split_pdus(data):
        if one[0] == 4:
            for _context, _header, fragment in decode_pdata(one):
                command = decode_command(fragment)
                if command.command_field == 0x8001:
                    uid = command.affected_sop_instance_uid or ""
                    found.append((uid.rstrip("\0 "), int(command.status or 0)))
    return found


@contextlib.contextmanager
def apart(service: Service) -> Iterator[tuple[Peer, Peer]]:
    """Two peers that different workers have."""

    def other() -> Peer | None:
        peer = service.peer()
        if service.worker_of(peer) != worker:
            return peer
        # What is over elsewhere may still count there.
        peer.release()
        return None

    with service.peer() as one:
        worker = service.worker_of(one)
        with wait_for(other, "a peer that the other worker has") as two:
            yield one, two


@contextlib.contextmanager
def standing_still(pid: int) -> Iterator[None]:
    """Let a process do nothing meanwhile."""
    os.kill(pid, signal.SIGSTOP)
    try:
        # Not before it comes to that, however soon the call is back.
        stat = Path(f"/proc/{pid}/stat")
        wait_for(lambda: stat.read_text().rpartition(") ")[2][0] == "T", "a process standing still")
        yield
    finally:
        send_signal(pid, signal.SIGCONT)


# A disk that forgets ------------------------------------------------------------------------------


@dataclass(eq=False)
class Node:
    """A file or a directory: as it is, and as it is on the medium."""

    is_folder: bool
    data: bytearray = field(default_factory=bytearray)
    kept: bytes = b""
    # Of a file: what was written since its last flush; of a folder: name -> what it is now.
    pending: list[tuple[int, bytes | None]] = field(default_factory=list)
    entries: dict[str, Node] = field(default_factory=dict)
    kept_entries: dict[str, Node] = field(default_factory=dict)
    changed: dict[str, Node | None] = field(default_factory=dict)

    def write(self, offset: int, data: bytes | None) -> None:
        """data None: the file ends at offset."""
        self.pending.append((offset, data))
        _apply(self.data, offset, data)

    def set(self, name: str, node: Node | None) -> None:
        if node is None:
            self.entries.pop(name, None)
        else:
            self.entries[name] = node
        self.changed[name] = node


def _apply(data: bytearray, offset: int, piece: bytes | None) -> None:
    if piece is None:
        del data[offset:]
        data.extend(bytes(offset - len(data)))
        return
    data.extend(bytes(max(0, offset - len(data))))
    data[offset : offset + len(piece)] = piece


Tree = dict[str, "bytes | Tree"]


class Disk:
    """Replays a log. root: the inode of the directory that was there before."""

    def __init__(self, root: int) -> None:
        self.root = Node(True)
        self._nodes = {root: self.root}
        # Flushes under way: what was pending when each began.
        self._begun: dict[tuple[int, int, int], tuple[int, dict[str, Node | None]]] = {}

    def play(self, event: Event) -> None:
        node = self._nodes.get(event.ino)
        match event.kind:
            case k if k in (OPEN, MKDIR):
                node = self._nodes[event.ino] = Node(k == MKDIR)
                if event.name:
                    self._nodes[event.parent].set(event.name, node)
            case k if k == WRITE:
                assert node is not None
                node.write(event.offset, event.data)
            case k if k == TRUNCATE:
                assert node is not None
                node.write(event.offset, None)
            case k if k == BEGIN:
                if node is not None:
                    key = (event.pid, event.fd, event.ino)
                    self._begun[key] = (len(node.pending), dict(node.changed))
            case k if k == FLUSH:
                begun = self._begun.pop((event.pid, event.fd, event.ino), None)
                if node is not None and begun is not None and event.result == 0:
                    self.flushed(node, *begun)
            case k if k == RENAME:
                assert node is not None
                self._nodes[event.parent].set(event.name, None)
                self._nodes[event.parent2].set(event.name2, node)
            case k if k == LINK:
                assert node is not None
                self._nodes[event.parent2].set(event.name2, node)
            case k if k in (UNLINK, RMDIR):
                self._nodes[event.parent].set(event.name, None)
            case k if k == SYNC:
                for one in self._nodes.values():
                    self.flushed(one, len(one.pending), dict(one.changed))

    @staticmethod
    def flushed(node: Node, writes: int, changed: dict[str, Node | None]) -> None:
        """Have on the medium the first so many writes that were pending, and these changes."""
        data = bytearray(node.kept)
        for offset, piece in node.pending[:writes]:
            _apply(data, offset, piece)
        node.kept = bytes(data)
        # Flushes of one file may overlap: what one has taken, the other finds gone.
        del node.pending[:writes]
        for name, entry in changed.items():
            if entry is None:
                node.kept_entries.pop(name, None)
            else:
                node.kept_entries[name] = entry
            if node.changed.get(name, node) is entry:
                del node.changed[name]

    def after_cut(self, luck: float, rng: random.Random) -> Tree:
        """What is there after a power cut now: what was flushed, and the rest by luck (0 to 1).

        Every change of a directory and every write not flushed survives or not on its own.
        """

        def look(node: Node) -> Tree:
            entries = dict(node.kept_entries)
            for name, entry in node.changed.items():
                if rng.random() < luck:
                    if entry is None:
                        entries.pop(name, None)
                    else:
                        entries[name] = entry
            tree: Tree = {}
            for name, entry in entries.items():
                if entry.is_folder:
                    tree[name] = look(entry)
                elif not entry.pending:
                    tree[name] = entry.kept
                else:
                    data = bytearray(entry.kept)
                    for offset, piece in entry.pending:
                        if rng.random() < luck:
                            _apply(data, offset, piece)
                    tree[name] = bytes(data)
            return tree

        return look(self.root)


def write_tree(tree: Tree, into: Path) -> None:
    """Make real files of it."""
    into.mkdir(exist_ok=True)
    for name, entry in tree.items():
        if isinstance(entry, bytes):
            (into / name).write_bytes(entry)
        else:
            write_tree(entry, into / name)


def at(tree: Tree, path: str) -> bytes | None:
    """The file at a path, None if there is none."""
    found: bytes | Tree = tree
    for name in path.split("/"):
        if isinstance(found, bytes) or name not in found:
            return None
        found = found[name]
    return found if isinstance(found, bytes) else None


def data_in(raw: bytes) -> bytes:
    """The data set of a Part 10 file."""
    return raw[144 + int.from_bytes(raw[140:144], "little") :] if len(raw) >= 144 else b""


def facts_in(tree: Tree) -> list[Mapping[str, Any]]:
    """The journal's whole lines."""
    folder = tree.get("store", {})
    for name in (".fastscp", "journal"):
        assert not isinstance(folder, bytes)
        folder = folder.get(name, {})
    assert not isinstance(folder, bytes)
    lines = (
        line for file in folder.values() if isinstance(file, bytes) for line in file.split(b"\n")
    )
    return [fact for line in lines if (fact := _read_line(line)) is not None]


@functools.lru_cache(maxsize=1 << 14)
def _read_line(line: bytes) -> Mapping[str, Any] | None:
    """As `parse_line`; what a cut leaves has mostly the lines that the one before has left."""
    return parse_line(line)


def files_of(store: Path) -> dict[str, bytes]:
    """The data sets of all files of a store that anybody sees, by their paths."""
    found = {}
    for folder, folders, names in os.walk(store):
        if Path(folder) == store and ".fastscp" in folders:
            folders.remove(".fastscp")
        for name in names:
            path = Path(folder, name)
            found[str(path.relative_to(store))] = data_in(path.read_bytes())
    return found


def facts_of(store: Path) -> list[dict[str, Any]]:
    """The whole lines of a store's journal."""
    return [
        fact
        for segment in (store / ".fastscp/journal").iterdir()
        for line in segment.read_bytes().split(b"\n")
        if (fact := parse_line(line)) is not None
    ]


def losses(
    events: Sequence[Event],
    root: int,
    sent: Mapping[str, set[bytes]],
    cuts: Iterable[int],
    luck: float,
    seed: int,
    recovered: Callable[[Tree], Tree] | None = None,
) -> list[str]:
    """What was acknowledged with 0000 before a power cut and is not there after it.

    sent: the data sets per SOP Instance UID. cuts: how many events happened before each, rising.
    recovered: what a start makes of the disk that a cut left.
    """
    done: set[str] = set()
    lost = []
    for cut, new, tree in _after_cuts(events, root, cuts, luck, seed):
        for event in new:
            if event.kind == SEND:
                done |= {uid for uid, status in acknowledged(event.data) if status == 0}
        if recovered is not None:
            tree = recovered(tree)
        paths: dict[str, set[str]] = {}
        for fact in facts_in(tree):
            paths.setdefault(fact["sop_instance_uid"], set()).add(fact["path"])
        for uid in done:
            if uid not in paths:
                lost.append(f"cut {cut}: no journal line for {uid}")
            lost += [
                f"cut {cut}: {path} is {what}"
                for path in paths.get(uid, ())
                if (what := _missing(tree, path, sent[uid]))
            ]
    return lost


def losses_by_line(
    events: Sequence[Event],
    root: int,
    sent: Mapping[str, set[bytes]],
    cuts: Iterable[int],
    luck: float,
    seed: int,
) -> dict[str, list[str]]:
    """What `losses` finds of each answer, by the durability that its own journal line says.

    An answer's line is the newest of the instance that its process wrote before it. The rest as
    in `losses`; the same instance may be sent to several tables, one after the other.
    """
    lines: dict[tuple[int, str], dict[str, Any]] = {}
    promised: dict[str, set[tuple[str, str]]] = {"stable": set(), "buffered": set()}
    lost: dict[str, list[str]] = {"stable": [], "buffered": []}
    for cut, new, tree in _after_cuts(events, root, cuts, luck, seed):
        for event in new:
            if event.kind == WRITE and b'"event":' in event.data:
                for line in event.data.split(b"\n"):
                    if (fact := parse_line(line)) is not None:
                        lines[event.pid, fact["sop_instance_uid"]] = fact
            if event.kind == SEND:
                for uid, status in acknowledged(event.data):
                    if status == 0:
                        fact = lines[event.pid, uid]
                        promised[fact.get("durability", "stable")].add((uid, fact["path"]))
        facts = {(fact["sop_instance_uid"], fact["path"]) for fact in facts_in(tree)}
        for durability, answers in promised.items():
            for uid, path in answers:
                what = "without a line" if (uid, path) not in facts else ""
                if what := what or _missing(tree, path, sent[uid]):
                    lost[durability].append(f"cut {cut}: {path} is {what}")
    return lost


def _after_cuts(
    events: Sequence[Event], root: int, cuts: Iterable[int], luck: float, seed: int
) -> Iterator[tuple[int, Sequence[Event], Tree]]:
    """Of each cut: how many events there were, those since the last one, and what survives it."""
    disk = Disk(root)
    rng = random.Random(seed)
    played = 0
    for cut in cuts:
        new = events[played:cut]
        for event in new:
            disk.play(event)
        played = cut
        yield cut, new, disk.after_cut(luck, rng)


def _missing(tree: Tree, path: str, sent: set[bytes]) -> str:
    """What is wrong with an instance's file; empty where nothing is."""
    store_tree = tree.get("store", {})
    assert not isinstance(store_tree, bytes)
    raw = at(store_tree, path)
    if raw is None:
        return "gone"
    return "" if data_in(raw) in sent else "damaged"


# The order ----------------------------------------------------------------------------------------


def is_of_a_lane(name: str) -> bool:
    """Whether a journal file has the lines of instances that took the redo log's lane."""
    return re.search(r"[0-9]r-[0-9]+\.jsonl\Z", name) is not None


class _Flush(NamedTuple):
    pid: int
    fd: int
    began: int
    ended: int


def violations(events: Sequence[Event], store_ino: int) -> tuple[int, list[str]]:
    """How many instances were acknowledged with 0000, and where a step came too early or never.

    For each: data flushed through the descriptor that wrote it, name given, every directory on the
    way whose entry this process had not flushed yet, the journal line written, flushed, response.
    What took the lane of the redo log counts, and is not judged: see redo_order.
    """
    alive: dict[int, int] = {store_ino: 0}  # inode -> number of the object that has it
    named: dict[tuple[int, str], list[tuple[int, int]]] = {}  # (directory, name) -> (when, object)
    made: dict[int, tuple[int, int]] = {}  # directory -> (when, parent)
    last_write: dict[int, tuple[int, int, int]] = {}  # object -> (when, pid, fd)
    closed: list[tuple[int, int, int]] = []
    flushes: dict[int, list[_Flush]] = {}
    begun: dict[tuple[int, int, int], int] = {}
    lines: dict[str, list[tuple[int, int, int, dict[str, Any]]]] = {}  # uid -> when, pid, journal
    journals: dict[int, tuple[int, int]] = {}  # journal -> (when made, directory)
    lanes: set[int] = set()
    folders: dict[tuple[int, str], int] = {}
    answers: list[tuple[int, int, str]] = []

    def of(ino: int) -> int:
        return alive.setdefault(ino, -ino)

    for when, event in enumerate(events):
        if event.kind in (OPEN, MKDIR):
            alive[event.ino] = when + 1
        match event.kind:
            case k if k == MKDIR:
                made[of(event.ino)] = (when, of(event.parent))
                folders[of(event.parent), event.name] = of(event.ino)
            case k if k == OPEN and event.name.endswith(".jsonl"):
                journals[of(event.ino)] = (when, of(event.parent))
                if is_of_a_lane(event.name):
                    lanes.add(of(event.ino))
            case k if k == WRITE:
                last_write[of(event.ino)] = (when, event.pid, event.fd)
                for line in event.data.split(b"\n") if of(event.ino) in journals else ():
                    fact = parse_line(line)
                    if fact is not None:
                        known = lines.setdefault(fact["sop_instance_uid"], [])
                        known.append((when, event.pid, of(event.ino), fact))
            case k if k == BEGIN:
                begun[event.pid, event.fd, event.ino] = when
            case k if k == FLUSH and event.result == 0:
                began = begun[event.pid, event.fd, event.ino]
                one = _Flush(event.pid, event.fd, began, when)
                flushes.setdefault(of(event.ino), []).append(one)
            case k if k == CLOSE:
                closed.append((when, event.pid, event.fd))
            case k if k in (RENAME, LINK):
                given = named.setdefault((of(event.parent2), event.name2), [])
                given.append((when, of(event.ino)))
            case k if k == SEND:
                answers += [
                    (when, event.pid, uid) for uid, status in acknowledged(event.data) if not status
                ]

    def flushed(ino: int, pid: int, after: int, before: int, fd: int = -1) -> bool:
        return any(
            one.pid == pid and one.began > after and one.ended < before and fd in (-1, one.fd)
            for one in flushes.get(ino, ())
        )

    def missing(
        line: tuple[int, int, int, dict[str, Any]], pid: int, uid: str, sent: int
    ) -> list[str]:
        written, _pid, journal, fact = line
        if journal in lanes:
            return []
        bad = []
        if not flushed(journal, pid, written, sent):
            bad.append(f"{uid}: journal not flushed before the response")
        made_at, journal_folder = journals[journal]
        if not flushed(journal_folder, pid, made_at, sent):
            bad.append(f"{uid}: journal file's name not flushed")
        *above, name = fact["path"].split("/")
        way = [of(store_ino)]
        for one in above:
            way.append(folders[way[-1], one])
        given = [one for one in named.get((way[-1], name), ()) if one[0] < written]
        if not given:
            return [*bad, f"{uid}: journal line before the name"]
        name_given, ino = given[-1]
        data_at, data_pid, data_fd = last_write[ino]
        if fact.get("duplicate") == "identical":
            # The name may be another process's: what this one vouches for it flushes itself.
            if not flushed(ino, pid, name_given, written):
                bad.append(f"{uid}: identical file not flushed")
        elif not flushed(ino, data_pid, data_at, name_given, data_fd):
            bad.append(f"{uid}: data not flushed before it was named")
        elif any(
            who == data_pid
            and fd == data_fd
            and data_at < when
            and not flushed(ino, data_pid, data_at, when, data_fd)
            for when, who, fd in closed
        ):
            bad.append(f"{uid}: data not flushed through the descriptor that wrote it")
        if not flushed(way[-1], pid, name_given, written):
            bad.append(f"{uid}: directory not flushed between name and journal line")
        for folder in reversed(way[1:]):
            when, parent = made.get(folder, (-1, 0))
            if not flushed(parent, pid, when, written):
                bad.append(f"{uid}: a new directory's parent not flushed before the journal line")
        return bad

    bad = []
    answered: dict[tuple[int, str], int] = {}
    for sent, pid, uid in answers:
        own = [line for line in lines.get(uid, ()) if line[1] == pid and line[0] < sent]
        # Sent several times at once, a UID has several lines: as many of them must be in order
        # as there were answers.
        place = answered.get((pid, uid), 0)
        answered[pid, uid] = place + 1
        if len(own) <= place:
            bad.append(f"{uid}: answered without a journal line")
            continue
        found = sorted((missing(line, pid, uid, sent) for line in own), key=len)
        bad += found[place]
    return len(answers), bad


# Senders ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Item:
    """An instance to be sent."""

    sop: str
    data: bytes = field(repr=False)
    path: str


def items(
    prefix: str, n: int, *, studies: int = 3, series: int = 2, pixels: int = 3000, seed: int = 0
) -> list[Item]:
    """n instances with UIDs of their own, spread over folders of their own."""
    made = []
    for k in range(n):
        study = f"1.2.{prefix}.{k % studies}"
        in_series = f"{study}.{k // studies % series}"
        sop = f"{study}.9.{k}"
        data = data_set(study=study, series=in_series, sop=sop, pixels=pixels, seed=seed + k)
        made.append(Item(sop, data, path_of(sop, study=study, series=in_series)))
    return made


def versions_of(item: Item, n: int, pixels: int = 3000) -> list[Item]:
    """Instances with the UID and the path of this one and bytes of their own."""
    study, series = item.path.split("/")[:2]
    return [
        Item(item.sop, data_set(study=study, series=series, sop=item.sop, seed=k, pixels=pixels),
             item.path)
        for k in range(n)
    ]  # fmt: skip


@dataclass(eq=False)
class Sending:
    """One C-STORE. began, ended: by the clock of `send_all`; without an answer it never ended."""

    item: Item
    began: int
    ended: int | None = None
    status: int | None = None


@dataclass
class Sent:
    """What came of sending: statuses in the order they came, and who never got an answer."""

    statuses: dict[str, list[int]] = field(default_factory=dict)
    broken: bool = False
    sendings: list[Sending] = field(default_factory=list)

    @property
    def acknowledged(self) -> set[str]:
        return {sop for sop, got in self.statuses.items() if 0 in got}


def send_all(
    port: int,
    what: Sequence[Item],
    *,
    associations: int = 4,
    window: int = 4,
    all_to_each: bool = False,
    called: str | Sequence[str] = "FASTSCP",
    shares: Sequence[Sequence[Item]] = (),
    clock: Callable[[], int] = time.monotonic_ns,
) -> Sent:
    """Send over several associations at once, until done or until the connections break.

    all_to_each: every association sends all of them, instead of its share. called: AE titles, which
    the associations call in turn. shares: what each association sends, instead of its share.
    clock: tells when a sending began, and when it was answered.
    """
    sent = Sent()
    guard = threading.Lock()
    errors: list[BaseException] = []

    def one(share: Sequence[Item], title: str) -> None:
        with contextlib.ExitStack() as closing:
            try:
                peer = closing.enter_context(Peer("127.0.0.1", port))
                answer = peer.associate(associate_rq((1, CT, ELE), called=title, window=window))
                if answer is None or answer[0] != 2:
                    raise ConnectionError("not admitted")
                outstanding: dict[int, Sending] = {}
                for number, item in enumerate(share, 1):
                    outstanding[number] = sending = Sending(item, clock())
                    with guard:
                        sent.sendings.append(sending)
                    peer.send(store(number, item.data, sop=item.sop))
                    while len(outstanding) >= window:
                        take(peer, outstanding)
                while outstanding:
                    take(peer, outstanding)
                peer.send(RELEASE_RQ)
                end = peer.read_until_close()
                if not end or end[0] == 7:
                    raise ConnectionError("closed or aborted instead of released")
                assert end == RELEASE_RP, f"answer to the release: {end.hex()}"
            except (OSError, AssertionError) as error:
                sent.broken = True
                # The end of a connection, or the A-ABORT of a worker whose main was killed first.
                ends = ("closed", "cut", "no P-DATA-TF: 07")
                if isinstance(error, AssertionError) and not any(e in str(error) for e in ends):
                    errors.append(error)

    def take(peer: Peer, outstanding: dict[int, Sending]) -> None:
        response = peer.read_response()
        sending = outstanding.pop(response.to)
        sending.ended, sending.status = clock(), response.status
        with guard:
            sent.statuses.setdefault(sending.item.sop, []).append(response.status)

    shares = shares or [what if all_to_each else what[k::associations] for k in range(associations)]
    titles = itertools.cycle([called] if isinstance(called, str) else called)
    threads = [
        threading.Thread(target=one, args=(share, title))
        for share, title in zip(shares, titles, strict=False)
        if share
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors, errors
    return sent
