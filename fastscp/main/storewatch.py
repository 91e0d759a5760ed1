"""What state the store is in: space, reachability, and what follows for whoever wants in.

Asked by main once a second, off its loop. Pure except for the two calls of `look`.
"""

from __future__ import annotations

import os
from collections import deque
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Final

from fastscp.errors import reason_for

if TYPE_CHECKING:
    from fastscp.store.store import Store

__all__ = ["HANGS_S", "REMIND_S", "Look", "SpaceState", "StoreWatch", "look"]

# A look that takes longer than this hangs, as on a mount whose server is gone. A busy disk makes a
# look wait for seconds, and is no reason to refuse anything.
HANGS_S: Final = 10.0

# Space must grow to this much more than the limit before anything is taken again: without it
# every file removed would let one more instance in.
_RESUME: Final = 1.1
# Between lines about a trouble that goes on.
REMIND_S: Final = 300.0
# Fewer inodes than this count as no space: each instance takes one, and its folders more.
_INODES: Final = 1000
_SLOW: Final = 2.0
_SEE_DISK: Final = "see its disk, or the server of its mount, and the kernel's log (dmesg)"
# Never slower than this for all workers together: a receiver that stands still frees no sender.
_SLOWEST: Final = 1 << 20
_MINUTE_S: Final = 60


class SpaceState(IntEnum):
    """The numbers of the shared block."""

    FINE = 0
    SLOW = 1
    FULL = 2
    LOST = 3


@dataclass(frozen=True)
class Look:
    """What was seen: bytes free to this user, and why the store is not there and what to do, or
    None.

    inodes: how many are free to this user; None: the file system does not tell. unrecovered: as in
    `Store`.
    """

    free: int
    lost: str | None
    inodes: int | None = None
    unrecovered: str = ""

    @classmethod
    def hanging(cls, store: Store) -> Look:
        """A look that has not come back."""
        return cls(
            0,
            f"{store.path} has not answered for {HANGS_S:g} s, its disk or mount hangs: "
            f"{_SEE_DISK}",
        )


def look(store: Store) -> Look:
    """Look at the store. Blocks on the disk. Raises OSError where we lack the means to look."""
    lost = store.lost()
    if lost is not None:
        return Look(0, lost)
    try:
        found = os.statvfs(store.dir_fd)
    except OSError as error:
        return Look(
            0, f"{store.path} cannot be asked for its space ({reason_for(error)}): {_SEE_DISK}"
        )
    if found.f_flag & os.ST_RDONLY:
        # A file system may become so by itself, where its disk fails.
        return Look(
            0, f"{store.path} is on a file system that cannot be written to any more: {_SEE_DISK}"
        )
    # One that makes inodes as it needs them has no number of them.
    inodes = found.f_favail if found.f_files else None
    return Look(found.f_bavail * found.f_frsize, None, inodes, store.unrecovered)


class StoreWatch:
    """Turns looks into a state, with the memory that takes.

    min_free: bytes; 0 switches the space rules off.
    """

    def __init__(self, min_free: int) -> None:
        self._min_free = min_free
        self._received: deque[int] = deque(maxlen=_MINUTE_S + 1)
        self.state = SpaceState.FINE
        self.slow_rate = 0
        # When the log was told last, by the clock of `judge`.
        self._told_at = 0.0
        # What the log says once it is not lost any more.
        self._back = ""
        # The last look, and since when the state is what it is, by that clock.
        self.seen: Look | None = None
        self.since = 0.0

    def limit(self, min_free: int) -> None:
        """Go by another limit from the next look on."""
        self._min_free = min_free

    def received(self, total: int) -> None:
        """Tell, once a second, how many bytes all workers have received since the start."""
        if self._received and total < self._received[-1]:
            # Counters that begin anew say nothing of the rate.
            self._received.clear()
        self._received.append(total)

    def judge(self, seen: Look, now: float = 0.0) -> tuple[SpaceState, str]:
        """The state that follows, and where it changed a line for the log, else "".

        now: seconds of any clock; while nothing can be stored a line comes again now and then.
        """
        self.seen = seen
        state = self._next(seen)
        if seen.lost is not None:
            self._back = "the store is there again"
        elif state is SpaceState.LOST and self.state is not state:
            # Where the store was gone as well, that is what comes back.
            self._back = "the redo log is recovered"
        if state is self.state:
            if state < SpaceState.FULL or now - self._told_at < REMIND_S:
                return state, ""
            self._told_at = now
            return state, f"still: {self._said(state, seen)}"
        self._told_at = self.since = now
        if self.state is SpaceState.FINE:
            # Taken while it is known; being full or lost may come before being slow.
            self.slow_rate = self._half_rate()
        before, self.state = self.state, state
        return state, self._said(before, seen)

    def _next(self, seen: Look) -> SpaceState:
        if seen.lost is not None or seen.unrecovered:
            return SpaceState.LOST
        limit = self._min_free
        if self._is_short_of_inodes(seen):
            return SpaceState.FULL
        if seen.free < limit or (self.state is SpaceState.FULL and seen.free < limit * _RESUME):
            return SpaceState.FULL
        if seen.free < limit * _SLOW:
            return SpaceState.SLOW
        return SpaceState.FINE

    def _is_short_of_inodes(self, seen: Look) -> bool:
        if seen.inodes is None or not self._min_free:
            return False
        return seen.inodes < _INODES * (_RESUME if self.state is SpaceState.FULL else 1)

    def _half_rate(self) -> int:
        seconds = len(self._received) - 1
        if seconds < 1:
            return _SLOWEST
        return max(_SLOWEST, (self._received[-1] - self._received[0]) // seconds // 2)

    def why(self) -> str:
        """Why the state is not fine, or empty; for whoever asks."""
        if self.state is SpaceState.FINE or self.seen is None:
            return ""
        return self._said(self.state, self.seen)

    def _said(self, before: SpaceState, seen: Look) -> str:
        is_back = before is SpaceState.LOST and self.state is not before
        back = f"{self._back}, " if is_back else ""
        free = f"{seen.free >> 20} MiB free"
        limit = f"--min-free-space {self._min_free >> 20} MiB"
        match self.state:
            case SpaceState.LOST if seen.lost is None:
                return (
                    f"what a dead worker left in the redo log cannot be put in place: "
                    f"{seen.unrecovered}; instances are answered A700 and new associations "
                    f"rejected until it can; it is tried again, at least every 30 s"
                )
            case SpaceState.LOST:
                return (
                    f"the store is gone: {seen.lost}; instances are answered A700 and new "
                    f"associations rejected until it is back"
                )
            case SpaceState.FULL if self._is_short_of_inodes(seen):
                return (
                    f"{back}disk full: {seen.inodes:,} inodes free, below {_INODES:,}: instances "
                    f"are answered A700 and new associations rejected until there is a tenth more: "
                    f"remove files, or make a file system with more inodes (df -i)"
                )
            case SpaceState.FULL:
                return (
                    f"{back}disk full: {free}, below {limit}: instances are answered A700 and "
                    f"new associations rejected until there is a tenth more: free some space"
                )
            case SpaceState.SLOW:
                more = "receiving again, " if before > SpaceState.SLOW else ""
                return (
                    f"{back}{free}, less than twice {limit}: {more}reading at most "
                    f"{self.slow_rate >> 10} KiB/s: free some space"
                )
            case _:
                return f"{back}{free}: receiving without limits again"
