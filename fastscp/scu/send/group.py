"""What is to be sent over associations that propose the same presentation contexts."""

from __future__ import annotations

import heapq
import time
from collections import deque
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from fastscp.scu.errors import PeerError
    from fastscp.scu.send.files import File
    from fastscp_ext import Parcel

__all__ = ["FileParcel", "Group"]

FileParcel: TypeAlias = "Parcel[File]"

# Parcels made at a time for whoever gives up on them.
_AT_A_TIME: Final = 512


class Group:
    """The instances that share a set of presentation contexts, and those to be tried again.

    contexts: grow as files are found; the first has the id 1, the next one 3, and so on.
    make: a parcel of a file and the number of the round; None if it failed, which is counted.
    abandoned: why nobody takes them any more.
    """

    def __init__(self, rounds: int, make: Callable[[File, int], FileParcel | None]) -> None:
        self.contexts: list[tuple[str, tuple[str]]] = []
        self.workers = 0
        self.abandoned: PeerError | None = None
        self._rounds = rounds
        self._make = make
        self._round = 0
        self._fresh: deque[File] = deque()
        self._kept: list[File] = []
        self._returned: deque[FileParcel] = deque()
        self._later: list[tuple[float, int, FileParcel]] = []
        self._suspects: deque[FileParcel] = deque()
        self._suspected: set[FileParcel] = set()
        self._number = 0

    def add(self, file: File) -> None:
        self._fresh.append(file)
        if self._rounds > 1:
            self._kept.append(file)

    @property
    def fresh(self) -> int:
        """Files of this round that nobody has taken yet."""
        return len(self._fresh)

    @property
    def finished(self) -> bool:
        """Whether nothing is left to be taken, now or later."""
        return self.wait_s() is None

    @property
    def _more_rounds(self) -> bool:
        return bool(self._kept) and self._round + 1 < self._rounds

    def _begin_round(self) -> bool:
        """Put the files of all rounds into the next one; False if there is none."""
        if not self._more_rounds:
            return False
        self._round += 1
        self._fresh.extend(self._kept)
        return True

    def take(self, most: int) -> list[FileParcel]:
        """Up to so many parcels whose time has come, suspects excepted."""
        taken: list[FileParcel] = []
        now = time.monotonic()
        while self._later and len(taken) < most and self._later[0][0] <= now:
            parcel = heapq.heappop(self._later)[2]
            (self._suspects if parcel in self._suspected else taken).append(parcel)
        while self._returned and len(taken) < most:
            taken.append(self._returned.popleft())
        while len(taken) < most and (self._fresh or self._begin_round()):
            made = self._make(self._fresh.popleft(), self._round)
            if made is not None:
                taken.append(made)
        return taken

    def take_suspect(self) -> list[FileParcel]:
        """The next suspect, if nothing else is left that could be sent now; to be sent alone."""
        if self._suspects and not self._others_wait():
            return [self._suspects.popleft()]
        return []

    def give_back(self, parcels: Sequence[FileParcel]) -> None:
        """Parcels that were taken and not sent, to be next again."""
        for parcel in reversed(parcels):
            (self._suspects if parcel in self._suspected else self._returned).appendleft(parcel)

    def suspect(self, parcel: FileParcel) -> None:
        """To be tried again behind all others: an association ended while it was under way."""
        self._suspected.add(parcel)
        self._suspects.append(parcel)

    def is_suspect(self, parcel: FileParcel) -> bool:
        return parcel in self._suspected

    def _others_wait(self) -> bool:
        if self._fresh or self._returned or self._more_rounds:
            return True
        return bool(self._later) and self._later[0][0] <= time.monotonic()

    def put_off(self, parcel: FileParcel, seconds: float) -> None:
        """To be tried again, but not at once."""
        self._number += 1
        heapq.heappush(self._later, (time.monotonic() + seconds, self._number, parcel))

    def wait_s(self) -> float | None:
        """Until there is something to take: 0.0 if there is; None if there will be nothing."""
        if self._suspects or self._others_wait():
            return 0.0
        return max(0.0, self._later[0][0] - time.monotonic()) if self._later else None

    def tried(self) -> list[FileParcel]:
        """Those that were sent before and wait for another time."""
        later = (parcel for _, _, parcel in self._later)
        waiting = (*self._returned, *self._suspects, *later)
        return [parcel for parcel in waiting if parcel.attempts]

    def clear(self) -> Iterator[FileParcel]:
        """All that is left, for whoever gives up on it."""
        while self._later:
            yield heapq.heappop(self._later)[2]
        while self._suspects:
            yield self._suspects.popleft()
        while batch := self.take(_AT_A_TIME):
            yield from batch
