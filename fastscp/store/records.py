"""What the journal says of every path, in a file that is gone with the process.

A journal of millions of lines fits into no process that runs beside a service. So the notes are in
an SQLite file below TMPDIR, about 500 bytes a path, read and written through a cache of fixed size.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from fastscp.errors import FastscpError, StartError, reason_for
from fastscp.store.findings import Origin
from fastscp.store.header import Header, header_of
from fastscp.store.journal import Tail, describes_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fastscp.store.journal import Line
    from fastscp.store.selection import Selection

__all__ = ["CHECKSUM", "Record", "Records", "records"]

# What is wrong with a line that a repair takes out.
CHECKSUM: Final = "its checksum is wrong"

_VERSION: Final = 1
_CACHE_KIB: Final = 8192
# Lines that are put into the file together.
_BATCH: Final = 1000
_PAGE: Final = 256
# SQLite keeps integers of 64 bits with a sign.
_MOST: Final = (1 << 63) - 1

_TABLES: Final = """
CREATE TABLE line (
    path BLOB PRIMARY KEY, seq INTEGER, said BLOB, size INTEGER, wanted INTEGER, suspect INTEGER,
    header_seq INTEGER, header BLOB, seen INTEGER
) WITHOUT ROWID;
CREATE TABLE given (
    seq INTEGER PRIMARY KEY, segment INTEGER, number INTEGER, segment2 INTEGER, number2 INTEGER
);
CREATE TABLE damaged (
    segment INTEGER, number INTEGER, why TEXT, PRIMARY KEY (segment, number)
) WITHOUT ROWID;
CREATE TABLE folder (id INTEGER PRIMARY KEY, path BLOB, inside BLOB);
"""
_NOTE: Final = """
INSERT INTO line VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0) ON CONFLICT (path) DO UPDATE SET
    said = CASE WHEN excluded.seq > seq THEN excluded.said ELSE said END,
    size = CASE WHEN excluded.seq > seq THEN excluded.size ELSE size END,
    wanted = CASE WHEN excluded.seq > seq THEN excluded.wanted ELSE wanted END,
    suspect = CASE WHEN excluded.seq > seq THEN excluded.suspect ELSE suspect END,
    header = CASE WHEN excluded.header_seq > header_seq THEN excluded.header ELSE header END,
    header_seq = max(header_seq, excluded.header_seq),
    seq = max(seq, excluded.seq)
"""
_GIVE: Final = """
INSERT INTO given VALUES (?, ?, ?, NULL, NULL) ON CONFLICT (seq) DO UPDATE SET
    segment2 = excluded.segment, number2 = excluded.number
    WHERE (segment, number) != (excluded.segment, excluded.number)
"""


class _Said(msgspec.Struct, frozen=True, array_like=True):
    digest: str
    time: str
    calling_ae: str
    peer: str
    study: str
    buffered: bool


class _Fact(msgspec.Struct):
    """The members of a line that are read here; with other types it is no line."""

    seq: int
    event: str
    v: int = _VERSION
    path: str = ""
    bytes: int = 0
    digest: str = ""
    time: str = ""
    calling_ae: str = ""
    peer: str = ""
    study_instance_uid: str = ""
    durability: str = ""


@dataclass(frozen=True, slots=True)
class Record:
    """What the latest line of a path says; header: what the line that wrote the file says.

    buffered: nothing was flushed before the line. wanted: it is among what is looked at.
    """

    sequence: int
    size: int
    digest: str
    origin: Origin
    header: Header | None
    buffered: bool
    wanted: bool


@contextlib.contextmanager
def records(dir_fd: int, selection: Selection, pace: Callable[[int], None]) -> Iterator[Records]:
    """Notes on a journal, as long as the block lasts. A failure of their file is explained.

    pace: called with the bytes that were read. Raises StartError, FastscpError.
    """
    # Not gettempdir() where TMPDIR is set: that one goes on elsewhere if it cannot write there.
    where = os.environ.get("TMPDIR") or tempfile.gettempdir()
    advice = "name a directory with about 500 bytes of space per stored instance in TMPDIR"
    try:
        fd, name = tempfile.mkstemp(prefix="fastscp-verify-", dir=where)
    except OSError as error:
        raise StartError(
            f"cannot keep notes on the journal in {where} ({reason_for(error)}); {advice}"
        ) from error
    os.close(fd)
    try:
        database = _open_database(name)
        try:
            yield Records(dir_fd, database, selection, pace)
        finally:
            database.close()
    except sqlite3.Error as error:
        raise FastscpError(
            f"cannot keep notes on the journal in {where} ({error}); free some space there, or "
            f"{advice}"
        ) from error


def _open_database(name: str) -> sqlite3.Connection:
    """The file with its tables, which has no name any more: whatever ends us takes it away."""
    try:
        database = sqlite3.connect(name, isolation_level=None)
        # Nothing of it is to survive anything.
        for pragma in ("journal_mode=OFF", "synchronous=OFF", "locking_mode=EXCLUSIVE"):
            database.execute(f"PRAGMA {pragma}")
        database.execute(f"PRAGMA cache_size=-{_CACHE_KIB}")
        database.executescript(_TABLES)
        # One transaction for all: a commit would write every page it changed.
        database.execute("BEGIN")
    finally:
        Path(name).unlink()
    return database


class Records:
    """What the journal says of every path; `read` goes on where it ended the last time.

    torn: segments that end inside a line. tails: bytes at the end of a segment that no line begins
    with; their number as a line, and how many. total: bytes of the data sets that are looked at.
    """

    def __init__(
        self,
        dir_fd: int,
        database: sqlite3.Connection,
        selection: Selection,
        pace: Callable[[int], None],
    ) -> None:
        self._tail = Tail(dir_fd)
        self._database = database
        self._selection = selection
        self._pace = pace
        self._lines: dict[str, int] = {}
        # Segments by number, for the tables.
        self._names: list[str] = []
        self._numbers: dict[str, int] = {}
        self._noted: list[tuple[Any, ...]] = []
        self._given: list[tuple[int, int, int]] = []
        self.torn: set[str] = set()
        self.tails: dict[str, tuple[int, int]] = {}

    # The journal ---------------------------------------------------------------------------------

    @property
    def lines(self) -> int:
        return sum(self._lines.values())

    @property
    def total(self) -> int:
        return int(self._one("SELECT total(size) FROM line WHERE wanted")[0])

    @property
    def wanted(self) -> bool:
        """Whether any path is looked at."""
        return bool(self._one("SELECT EXISTS (SELECT 1 FROM line WHERE wanted)")[0])

    @property
    def last_sequence(self) -> int:
        return int(self._one("SELECT coalesce(max(seq), 0) FROM given")[0])

    @property
    def suspect(self) -> int:
        """Files whose line was written from the file itself, after an unclean buffered life."""
        return int(self._one("SELECT count(*) FROM line WHERE suspect AND seen")[0])

    def read(self) -> None:
        """Take in what is new; nothing where the journal is gone. Raises OSError."""
        try:
            for line in self._tail.read():
                self._pace(line.size)
                self._take(line)
                if len(self._given) >= _BATCH:
                    self._put()
        except FileNotFoundError:
            # The folder of the journal is gone. Where only a segment is gone, the tail raises
            # nothing.
            pass
        self._put()

    def _take(self, line: Line) -> None:
        name = line.place.segment
        if line.place.offset == 0:
            self._begin(name)
        if line.torn:
            self.torn.add(name)
        else:
            self.torn.discard(name)
        self.tails.pop(name, None)
        if line.damaged and not line.ended:
            # Not in the tables: the next reading gives them again, and their writer may be at it.
            self.tails[name] = (line.place.number, line.size)
        elif line.damaged:
            self._damage(line, CHECKSUM)
        elif line.fact is not None:
            self._lines[name] += line.ended
            self._note(line, line.fact)

    def _begin(self, name: str) -> None:
        """A segment that is new, or was made anew under its name."""
        self._lines[name] = 0
        number = self._numbers.get(name)
        if number is None:
            self._numbers[name] = len(self._names)
            self._names.append(name)
            return
        self._put()
        self._database.execute("DELETE FROM damaged WHERE segment = ?", (number,))
        self._database.execute("DELETE FROM given WHERE segment = ?", (number,))
        self._database.execute(
            "UPDATE given SET segment2 = NULL, number2 = NULL WHERE segment2 = ?", (number,)
        )

    def _damage(self, line: Line, why: str) -> None:
        place = (self._numbers[line.place.segment], line.place.number)
        self._database.execute("INSERT OR REPLACE INTO damaged VALUES (?, ?, ?)", (*place, why))

    def _note(self, line: Line, raw: dict[str, Any]) -> None:
        fact = _read_fact(raw)
        if isinstance(fact, str):
            # Without its newline it comes again.
            if line.ended:
                self._damage(line, fact)
            return
        self._given.append((fact.seq, self._numbers[line.place.segment], line.place.number))
        if not describes_file(raw):
            return
        said = _Said(
            fact.digest, fact.time, fact.calling_ae, fact.peer, fact.study_instance_uid,
            fact.durability == "buffered",
        )  # fmt: skip
        # The header is that of whoever sent it first; the line of an identical one counts only
        # where there is no other.
        header = header_of(raw)
        of_header = -1 if header is None else 0 if header.calling_ae is None else fact.seq
        self._noted.append(
            (
                os.fsencode(fact.path),
                fact.seq,
                msgspec.msgpack.encode(said),
                fact.bytes,
                self._selection.takes(raw),
                bool(raw.get("suspect")),
                of_header,
                None if header is None else msgspec.msgpack.encode(header),
            )
        )

    def _put(self) -> None:
        self._database.executemany(_GIVE, self._given)
        self._database.executemany(_NOTE, self._noted)
        self._given.clear()
        self._noted.clear()

    def damaged(self) -> Iterator[tuple[str, int, str]]:
        """Lines that are not what they should be: segment, number, and why."""
        found = self._database.execute("SELECT * FROM damaged ORDER BY segment, number")
        for segment, number, why in found:
            yield self._names[segment], number, why

    def damaged_segments(self) -> list[str]:
        """Segments with lines that a repair takes out."""
        query = "SELECT DISTINCT segment FROM damaged WHERE why = ?"
        found = {self._names[number] for (number,) in self._database.execute(query, (CHECKSUM,))}
        return sorted(found | self.tails.keys())

    def twice(self) -> Iterator[tuple[int, str, int, str, int]]:
        """Lines with the `seq` of another one: the number, segment and line, those of the other."""
        found = self._database.execute("SELECT * FROM given WHERE number2 IS NOT NULL")
        for seq, segment, number, segment2, number2 in found:
            yield seq, self._names[segment2], number2, self._names[segment], number

    # Paths ----------------------------------------------------------------------------------------

    def find(self, path: str) -> Record | None:
        """What the journal says of a path."""
        found = self._database.execute(
            "SELECT seq, said, size, wanted, header FROM line WHERE path = ?", (os.fsencode(path),)
        ).fetchone()
        if found is None:
            return None
        said = msgspec.msgpack.decode(found[1], type=_Said)
        header = None if found[4] is None else msgspec.msgpack.decode(found[4], type=Header)
        origin = Origin(said.calling_ae, said.peer, said.time, said.study)
        return Record(
            found[0], found[2], said.digest, origin, header, said.buffered, bool(found[3])
        )

    def see(self, path: str) -> None:
        """Note that the file of a path was met."""
        self._database.execute("UPDATE line SET seen = 1 WHERE path = ?", (os.fsencode(path),))

    def unseen(self, last: int) -> Iterator[str]:
        """Paths whose file was not met, in their order; of lines up to a `seq`."""
        path = b""
        while True:
            page = self._database.execute(
                "SELECT path FROM line WHERE path > ? AND wanted AND NOT seen AND seq <= ? "
                "ORDER BY path LIMIT ?",
                (path, last, _PAGE),
            ).fetchall()
            for (path,) in page:
                yield os.fsdecode(path)
            if len(page) < _PAGE:
                return

    def has_below(self, folder: str) -> bool:
        """Whether the journal names a file in a folder or below it; "": one at the top itself."""
        if not folder:
            query, values = "SELECT 1 FROM line WHERE instr(path, x'2f') = 0 LIMIT 1", []
        else:
            query = "SELECT 1 FROM line WHERE path > ? AND path < ? LIMIT 1"
            values = [os.fsencode(f"{folder}/"), os.fsencode(f"{folder}0")]
        return self._database.execute(query, values).fetchone() is not None

    # Folders that are to be looked into -----------------------------------------------------------

    def push_folder(self, path: str, inside: str) -> None:
        """Keep a folder for later; inside: as in `Finding`."""
        self._database.execute(
            "INSERT INTO folder (path, inside) VALUES (?, ?)",
            (os.fsencode(path), os.fsencode(inside)),
        )

    def pop_folder(self) -> tuple[str, str] | None:
        """The one that was kept last: so those of one study come together."""
        found = self._database.execute(
            "SELECT id, path, inside FROM folder ORDER BY id DESC LIMIT 1"
        ).fetchone()
        if found is None:
            return None
        self._database.execute("DELETE FROM folder WHERE id = ?", (found[0],))
        return os.fsdecode(found[1]), os.fsdecode(found[2])

    def _one(self, query: str) -> tuple[Any, ...]:
        found: tuple[Any, ...] = self._database.execute(query).fetchone()
        return found


def _read_fact(raw: dict[str, Any]) -> _Fact | str:
    """What a whole line says, or why it says nothing that can be used."""
    try:
        fact = msgspec.convert(raw, _Fact)
    except msgspec.ValidationError as error:
        return f"its checksum is right, and it is no line of a journal ({error})"
    if fact.v != _VERSION:
        return f"it has version {fact.v}, and this program knows {_VERSION}"
    if not 0 <= fact.seq <= _MOST or not 0 <= fact.bytes <= _MOST or "\0" in fact.path:
        return "its checksum is right, and it has a value that no line has"
    if describes_file(raw) and not fact.path:
        return "its checksum is right, and it names no file"
    return fact
