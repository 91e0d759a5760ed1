"""Journal lines written for stored instances that have none. The store's lock is held."""

from __future__ import annotations

import errno
import os
import re
import stat
import time
from dataclasses import replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from fastscp.errors import FastscpError, reason_for
from fastscp.store.findings import Finding, Kind
from fastscp.store.journal import Segments, append_fact, last_sequence, time_text
from fastscp.store.names import JOURNAL, descriptor, flush_folder_at, open_file, status_at
from fastscp.store.reading import NoInstanceError, describe
from fastscp.store.replaced import highest
from fastscp.store.unflushed import Marks
from fastscp.titles import title_text
from fastscp_ext import Layout, LayoutError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fastscp.store.identity import Identity
    from fastscp.store.reading import Described, Pace

__all__ = ["ADOPTED", "Adoption"]

# How the finding of an adopted instance was settled.
ADOPTED: Final = "adopted"

# Instances adopted by one flush of the journal, and bytes after which it gets a new file.
_BATCH: Final = 256
_SEGMENT_BYTES: Final = 64 << 20


# A date that no instance has: in its place any date of arrival will do.
_SOME_DATE: Final = b"00000000"
# A byte that no header of ours has in a title. In its place a path may have whatever the header has
# `_` for.
_SOME_BYTE: Final = b"\x1a"
_SOME_BYTE_IN_PATH: Final = "%1A"
# Directories that are known to be flushed, so that this is not done once an instance.
_FLUSHED_MOST: Final = 4096


class Adoption:
    """Writes the lines of instances that have none.

    suspect: a buffered life ended uncleanly, so that a file may be less than was written to it.
    identity: what store.toml says, None if it is not known. has_below: as in `Records`.
    Raises FastscpError where the journal cannot be written; what was told as adopted is.
    """

    def __init__(
        self,
        dir_fd: int,
        *,
        suspect: bool,
        identity: Identity | None,
        has_below: Callable[[str], bool],
        pace: Pace,
    ) -> None:
        self._dir_fd = dir_fd
        self._pace = pace
        self._suspect = suspect
        self._layouts, self._every = _layouts(identity)
        # Files come folder by folder, and the answer may cost a look at every path.
        self._has_below = lru_cache(maxsize=16)(has_below)
        start = f"{time.time_ns() // 1000:x}"
        durable = flush_folder_at(dir_fd, JOURNAL)
        self._segments = Segments(dir_fd, start, f"verify-{os.getpid()}", durable=durable)
        self._sequence = max(last_sequence(dir_fd), highest(dir_fd))
        self._journal_fd = -1
        self._journal_bytes = 0
        self._flushed: set[str] = set()
        self._marks = Marks(dir_fd)
        self._batch: list[tuple[Finding, dict[str, Any]]] = []
        self._adopted = 0

    def take(self, finding: Finding) -> Iterator[Finding]:
        """Adopt what has no line; gives the findings that are done, those of adopted ones settled.

        Some wait for others, until `finish`.
        """
        if finding.kind is not Kind.UNJOURNALED or finding.inside:
            yield finding
            return
        try:
            self._batch.append((finding, self._prepare(finding.path)))
        except NoInstanceError as error:
            yield replace(finding, why=f"{finding.why}, and it {error}: not adopted")
        except OSError as error:
            yield Finding(Kind.UNREADABLE, finding.path, reason_for(error))
        if len(self._batch) == _BATCH:
            yield from self.finish()

    def finish(self) -> Iterator[Finding]:
        """Write the lines of those that wait."""
        batch, self._batch = self._batch, []
        if not batch:
            return
        try:
            self._journal(batch)
        except OSError as error:
            # They were found, at least.
            for finding, _members in batch:
                yield finding
            raise FastscpError(self._explain(error)) from error
        self._adopted += len(batch)
        for finding, _members in batch:
            yield replace(finding, settled=ADOPTED)

    def close(self) -> None:
        self._segments.close()

    def _prepare(self, path: str) -> dict[str, Any]:
        """Read an instance and make it durable; returns the members that it gives its line."""
        if not _is_text(path):
            raise NoInstanceError(
                "has a name that is no UTF-8, which no line can have: rename it, or give it to the "
                "service with `fastscp send`"
            )
        if not stat.S_ISREG(status_at(path, self._dir_fd).st_mode):
            raise NoInstanceError("is no regular file")
        if self._marks.covers(path):
            raise NoInstanceError("may not be on the disk, because a flush failed")
        described = describe(self._dir_fd, path, self._pace)
        self._refuse_foreign(path, described)
        members = described.members
        if self._suspect:
            if members.get("truncated"):
                raise NoInstanceError("ends inside an element after an unclean end of the service")
            members["suspect"] = True
        with descriptor(open_file(path, self._dir_fd)) as fd:
            try:
                os.fsync(fd)
            except OSError as error:
                # The next try would succeed, and mean nothing.
                self._marks.leave("file", path, error.errno or 0)
                raise
        if len(self._flushed) > _FLUSHED_MOST:
            self._flushed.clear()
        folder = path
        # All names were given before, so each directory needs it once, in any order.
        while folder:
            folder = folder.rpartition("/")[0]
            if folder not in self._flushed:
                try:
                    flush_folder_at(self._dir_fd, folder)
                except OSError as error:
                    self._marks.leave("folder", folder, error.errno or 0)
                    raise
                self._flushed.add(folder)
        return members

    def _refuse_foreign(self, path: str, described: Described) -> None:
        """Raise NoInstanceError for a file that no service stored here.

        Under a layout that store.toml does not know it has neighbours that the journal knows.
        """
        if not self._layouts or self._has_below(path.rpartition("/")[0]):
            return
        members = described.members
        values = described.values | {
            "SOPInstanceUID": members["sop_instance_uid"].encode("ascii"),
            "SOPClassUID": members["sop_class_uid"].encode("ascii"),
            "ReceivedDate": _SOME_DATE,
        }
        title = title_text(values.get("CalledAE", b""))
        for key in ("CallingAE", "CalledAE"):
            values[key] = values.get(key, b"").replace(b"_", _SOME_BYTE)
        # A title in the header may be another one than was called, and so may the table have been.
        first = self._layouts.get(title, self._layouts[""])
        why = ""
        for layout in dict.fromkeys((first, *self._every)):
            try:
                place = layout.render(values)
            except LayoutError as error:
                why = why or f"has no place in this store ({error})"
                continue
            if _pattern_of(place).fullmatch(path):
                return
            why = why or (
                f"is not where this store puts it, which is "
                f"{place.replace(_SOME_BYTE_IN_PATH, '_')}, and no instance of this store is near "
                f"it; give it to the service with `fastscp send`"
            )
        raise NoInstanceError(why)

    def _journal(self, batch: list[tuple[Finding, dict[str, Any]]]) -> None:
        if self._journal_fd < 0 or self._journal_bytes >= _SEGMENT_BYTES:
            self._journal_fd, self._journal_bytes = self._segments.next()
        now = time_text(datetime.now(UTC))
        for _finding, members in batch:
            self._sequence += 1
            head = {"v": 1, "event": "adopted", "seq": self._sequence, "time": now}
            self._journal_bytes += append_fact(
                self._journal_fd, {**head, "worker": "verify", **members}
            )
        os.fdatasync(self._journal_fd)

    def _explain(self, error: OSError) -> str:
        # A disk that becomes full takes a part of a line, and has no error for that.
        advice = "look at the free space (df) and the free inodes (df -i) of the store"
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            advice += ", and into the system's log"
        return (
            f"cannot write the journal ({reason_for(error)}): "
            f"{self._adopted} instances were adopted "
            f"before that, the others were not, and nothing was lost; {advice}; the next "
            f"--adopt goes on from there"
        )


def _is_text(path: str) -> bool:
    """Whether a line of the journal, which is UTF-8, can have a path."""
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _layouts(identity: Identity | None) -> tuple[dict[str, Layout], list[Layout]]:
    """The layout of each called AE title, "" for all others; and all that files may lie here by."""
    if identity is None:
        return {}, []
    compiled = {layout: Layout(layout) for layout in identity.layouts}
    titles = {title: compiled[filing.layout] for title, filing in identity.ae.items()}
    return {"": compiled[identity.layout], **titles}, list(compiled.values())


def _pattern_of(place: str) -> re.Pattern[str]:
    """The paths that an instance with this place may have."""
    pattern = re.escape(place).replace(_SOME_DATE.decode(), "[0-9]{8}")
    pattern = pattern.replace(_SOME_BYTE_IN_PATH, "(?:_|%[0-9A-F]{2})")
    return re.compile(rf"{pattern}(?:\.zst)?(?:~[2-9])?")
