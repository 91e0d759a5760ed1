"""Journal lines written for stored instances that have none. The store's lock is held."""

from __future__ import annotations

import os
import stat
import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from fastscp.store.findings import Finding, Kind, reason
from fastscp.store.journal import Segments, append_fact, last_sequence
from fastscp.store.names import JOURNAL, descriptor, flush_folder_at, open_file, status_at
from fastscp.store.reading import NoInstanceError, describe
from fastscp.store.unflushed import Marks

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["ADOPTED", "Adoption"]

# How the finding of an adopted instance was settled.
ADOPTED: Final = "adopted"

# Instances adopted by one flush of the journal, and bytes after which it gets a new file.
_BATCH: Final = 256
_SEGMENT_BYTES: Final = 64 << 20


class Adoption:
    """Writes the lines of instances that have none.

    suspect: a buffered life ended uncleanly, so that a file may be less than was written to it.
    """

    def __init__(self, dir_fd: int, *, suspect: bool) -> None:
        self._dir_fd = dir_fd
        self._suspect = suspect
        start = f"{time.time_ns() // 1000:x}"
        durable = flush_folder_at(dir_fd, JOURNAL)
        self._segments = Segments(dir_fd, start, f"verify-{os.getpid()}", durable=durable)
        self._sequence = last_sequence(dir_fd)
        self._journal_fd = -1
        self._journal_bytes = 0
        self._flushed: set[str] = set()
        self._marks = Marks(dir_fd)

    def adopt(self, findings: list[Finding]) -> Iterator[Finding]:
        """The findings, those of adopted instances settled. Raises OSError: some are adopted."""
        try:
            batch: list[tuple[Finding, dict[str, Any]]] = []
            for finding in findings:
                if finding.kind is not Kind.UNJOURNALED:
                    yield finding
                    continue
                try:
                    batch.append((finding, self._prepare(finding.path)))
                except NoInstanceError as error:
                    yield replace(finding, why=f"{finding.why}, and it {error}: not adopted")
                except OSError as error:
                    yield Finding(Kind.UNREADABLE, finding.path, reason(error))
                if len(batch) == _BATCH:
                    yield from self._journal(batch)
                    batch = []
            yield from self._journal(batch)
        finally:
            self._segments.close()

    def _prepare(self, path: str) -> dict[str, Any]:
        """Read an instance and make it durable; returns the members that it gives its line."""
        if not stat.S_ISREG(status_at(path, self._dir_fd).st_mode):
            raise NoInstanceError("is no regular file")
        if self._marks.covers(path):
            raise NoInstanceError("may not be on the disk, because a flush failed")
        members = describe(self._dir_fd, path)
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

    def _journal(self, batch: list[tuple[Finding, dict[str, Any]]]) -> Iterator[Finding]:
        if not batch:
            return
        if self._journal_fd < 0 or self._journal_bytes >= _SEGMENT_BYTES:
            self._journal_fd, self._journal_bytes = self._segments.next()
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        for _finding, members in batch:
            self._sequence += 1
            head = {"v": 1, "event": "adopted", "seq": self._sequence, "time": now}
            self._journal_bytes += append_fact(
                self._journal_fd, {**head, "worker": "verify", **members}
            )
        os.fdatasync(self._journal_fd)
        for finding, _members in batch:
            yield replace(finding, settled=ADOPTED)
