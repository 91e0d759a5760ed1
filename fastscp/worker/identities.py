"""The user identities of a worker that are being checked: off the loop, bounded, in fair turns.

A check takes a processor some 50 ms, so whoever sends passwords makes work. What stops that: one
check at a time in each worker, a queue of bounded length in which addresses take turns, a number of
failures for each address, beyond which its passwords are not looked at for a while, and a memory of
what was right, which makes the many associations of one sender cost one check.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TYPE_CHECKING, Final

from fastscp.log import caused, fields
from fastscp.passwords import PASSCODE_MOST, UserIdentities, verify
from fastscp.rules.networks import counted_host
from fastscp.worker.helpers import Helpers

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastscp.association.identity import Credentials
    from fastscp.passwords import Entry

__all__ = ["Found", "Identities"]

log = logging.getLogger("fastscp.association")

# Checks that wait, of all addresses and of one. Those of one name and passcode are one.
WAITING_MOST: Final = 64
WAITING_OF_ONE_MOST: Final = 8
# Associations that wait for the same check.
SHARING_MOST: Final = 128
# So many failures of an address within that time, and until the first of them is so old nothing
# more from there is looked at. Addresses of whom that is known; beyond it the oldest is forgotten.
FAILURES_MOST: Final = 10
FAILURES_WITHIN_S: Final = 60.0
HOSTS_MOST: Final = 4096
# Names and passcodes that are known to be right, and for how long.
KNOWN_MOST: Final = 1024
KNOWN_FOR_S: Final = 60.0


class Found(Enum):
    """What came of it. For the requestor all that are not RIGHT or BUSY are the same."""

    RIGHT = auto()
    UNKNOWN_NAME = auto()
    WRONG_PASSCODE = auto()
    # Its address has failed too often, and nobody has looked.
    LIMITED = auto()
    # There are too many to check, and nobody has looked.
    BUSY = auto()


@dataclass(slots=True)
class _Check:
    """A name and a passcode that wait, or are being looked at, with who wants to know."""

    key: bytes
    host: str
    entry: Entry | None
    passcode: bytes = field(repr=False)
    known: OrderedDict[bytes, float] = field(repr=False)
    tell: list[tuple[str, Callable[[Found], None]]] = field(default_factory=list)


class Identities:
    """Checks what requestors show of their users. On the loop's thread.

    Raises OSError where it gets no thread.
    """

    def __init__(self) -> None:
        self._helper = Helpers("check passwords", 1)
        self._entries: dict[bytes, Entry] = {}
        # Of each address, in turns, what waits; and by their keys all that is not decided.
        self._queues: OrderedDict[str, deque[_Check]] = OrderedDict()
        self._undecided: dict[bytes, _Check] = {}
        self._is_checking = False
        self._is_closed = False
        self._failures: OrderedDict[str, deque[float]] = OrderedDict()
        self._limited: set[str] = set()
        # What is right, by key, with the time at which that is forgotten.
        self._known: OrderedDict[bytes, float] = OrderedDict()
        self._secret = b""

    def use(self, identities: UserIdentities) -> None:
        """Go by these entries from now on; what was known to be right is forgotten.

        What waits is decided by the entries from before: it came before.
        """
        self._entries = {one.name.encode("utf-8"): one for one in identities.entries}
        self._known = OrderedDict()
        # Nobody finds a passcode by its key; and a key of before is not found again.
        self._secret = os.urandom(32)

    def check(self, host: str, shown: Credentials, tell: Callable[[Found], None]) -> None:
        """Look whether a name and a passcode are right, and tell, perhaps at once. Never raises.

        host: the requestor's address. An association that goes away meanwhile is told, too: that
        it tried counts.
        """
        address = counted_host(host)
        now = time.monotonic()
        if self._is_limited(address, now):
            tell(Found.LIMITED)
            return
        key = self._key(shown)
        if self._known.get(key, 0.0) > now:
            tell(Found.RIGHT)
            return
        check = self._undecided.get(key)
        if check is not None:
            if len(check.tell) < SHARING_MOST:
                check.tell.append((address, tell))
            else:
                tell(Found.BUSY)
            return
        queue = self._queues.get(address, ())
        waiting = sum(map(len, self._queues.values()))
        if self._is_closed or waiting >= WAITING_MOST or len(queue) >= WAITING_OF_ONE_MOST:
            tell(Found.BUSY)
            return
        entry = self._entries.get(shown.name)
        check = _Check(key, address, entry, shown.passcode, self._known, [(address, tell)])
        self._undecided[key] = check
        self._queues.setdefault(address, deque()).append(check)
        self._go_on()

    def close(self) -> None:
        """Begin no check any more, and wait for the one there may be. Off the loop."""
        self._is_closed = True
        self._helper.close()

    def _key(self, shown: Credentials) -> bytes:
        import hashlib

        both = len(shown.name).to_bytes(4, "big") + shown.name + shown.passcode[:PASSCODE_MOST]
        return hashlib.blake2b(both, key=self._secret, digest_size=32).digest()

    # One at a time -------------------------------------------------------------------------------

    def _go_on(self) -> None:
        """Have the next one looked at: the first of the address whose turn it is."""
        if self._is_checking or self._is_closed or not self._queues:
            return
        address, queue = self._queues.popitem(last=False)
        check = queue.popleft()
        if queue:
            self._queues[address] = queue
        self._is_checking = True
        passcode, check.passcode = check.passcode, b""
        looked = asyncio.wrap_future(self._helper.call(verify, check.entry, passcode))
        looked.add_done_callback(lambda done: self._looked(check, done))

    def _looked(self, check: _Check, looked: asyncio.Future[bool]) -> None:
        self._is_checking = False
        self._undecided.pop(check.key, None)
        found = self._found(check, looked)
        now = time.monotonic()
        if found is Found.RIGHT:
            # A memory of entries that hold no more is gone with them.
            check.known[check.key] = now + KNOWN_FOR_S
            while len(check.known) > KNOWN_MOST:
                check.known.popitem(last=False)
        self._go_on()
        for address, tell in check.tell:
            if found in (Found.UNKNOWN_NAME, Found.WRONG_PASSCODE):
                self._failed(address, now)
            tell(found)

    @staticmethod
    def _found(check: _Check, looked: asyncio.Future[bool]) -> Found:
        if looked.cancelled():
            return Found.BUSY
        if (error := looked.exception()) is not None:
            # Such as no memory for it: nobody is let in for that.
            log.error("cannot check a user identity", exc_info=error, extra=caused("bug"))
            return Found.BUSY
        if looked.result():
            return Found.RIGHT
        return Found.UNKNOWN_NAME if check.entry is None else Found.WRONG_PASSCODE

    # Who has failed too often --------------------------------------------------------------------

    def _is_limited(self, address: str, now: float) -> bool:
        failures = self._failures.get(address)
        if failures is None:
            return False
        while failures and now - failures[0] > FAILURES_WITHIN_S:
            failures.popleft()
        if len(failures) >= FAILURES_MOST:
            return True
        self._limited.discard(address)
        if not failures:
            del self._failures[address]
        return False

    def _failed(self, address: str, now: float) -> None:
        failures = self._failures.setdefault(address, deque(maxlen=FAILURES_MOST))
        self._failures.move_to_end(address)
        failures.append(now)
        while len(self._failures) > HOSTS_MOST:
            oldest, _its = self._failures.popitem(last=False)
            self._limited.discard(oldest)
        if len(failures) == FAILURES_MOST and address not in self._limited:
            self._limited.add(address)
            log.warning(
                "%s: %d user identities were wrong within %.0f s: those that come from there are "
                "refused without a look for up to %.0f s",
                address, FAILURES_MOST, FAILURES_WITHIN_S, FAILURES_WITHIN_S,
                extra={**caused("user identities refused", address), **fields(peer=address)},
            )  # fmt: skip
