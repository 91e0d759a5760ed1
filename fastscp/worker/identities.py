"""The user identities of a worker that are being checked: off the loop, bounded, in fair turns.

A password takes a processor some 50 ms to check, a token some 1 ms, so whoever sends them makes
work. What stops that: one check at a time in each worker, a queue of bounded length in which
addresses take turns, a bound of the associations that wait for it, a number of failures for each
address, beyond which nothing of it is looked at for a while, and a memory of what was right, which
makes the many associations of one sender cost one check. Addresses from which somebody was right
have a queue of their own, which goes first: many strangers at a time keep none of them out.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import time
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from enum import Enum, auto
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from fastscp.association.identity import Credentials, Token
from fastscp.log import caused, fields
from fastscp.rules.networks import counted_host
from fastscp.users.passwords import PASSCODE_MOST, verify
from fastscp.users.tokens import Look, Tokens
from fastscp.worker.helpers import Helpers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from fastscp.users.identities import UserIdentities
    from fastscp.users.passwords import Entry

__all__ = ["Answer", "Found", "Identities"]

log = logging.getLogger("fastscp.association")

# Checks that wait in a queue, of all addresses and of one. The same that is shown is one.
WAITING_MOST: Final = 64
WAITING_OF_ONE_MOST: Final = 8
# Associations that wait for the same check.
SHARING_MOST: Final = 128
# Associations that wait for any, of strangers, and as many of addresses from which somebody was
# right: each keeps the answer to its request meanwhile. They hold no place of those that are right.
CHECKED_MOST: Final = 128
# So many failures of an address within that time, and until the first of them is so old nothing
# more from there is looked at. Addresses of whom that is known; beyond it the oldest is forgotten.
FAILURES_MOST: Final = 10
FAILURES_WITHIN_S: Final = 60.0
HOSTS_MOST: Final = 4096
# Names and passcodes, and tokens, that are known to be right, and for how long.
KNOWN_MOST: Final = 1024
KNOWN_FOR_S: Final = 60.0


class Found(Enum):
    """What came of it. For the requestor all that are not RIGHT or BUSY are the same."""

    RIGHT = auto()
    WRONG = auto()
    # Its address has failed too often, and nobody has looked.
    LIMITED = auto()
    # There are too many to check, and nobody has looked.
    BUSY = auto()


class Answer(NamedTuple):
    """What came of a check.

    user: who it is, where that is known. why: what is wrong, for the log alone.
    """

    found: Found
    user: str = ""
    why: str = ""


class _Passwords:
    """Looks at names and passcodes by the entries of a file."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self._entries = {one.name.encode("utf-8"): one for one in entries}

    def look(self, name: bytes, passcode: bytes) -> Look:
        entry = self._entries.get(name)
        is_right = verify(entry, passcode)
        if entry is None:
            return Look(False, why="is not in the file of --user-identity")
        if not is_right:
            return Look(False, why="the passcode is wrong")
        return Look(True, entry.name, holds_s=math.inf)


class _Known(NamedTuple):
    """Who was right, and until when that counts, of the monotonic clock."""

    user: str
    until: float


class _Wanted(NamedTuple):
    """Who wants to know what comes of a check. is_first: nobody there is a stranger."""

    address: str
    is_first: bool
    tell: Callable[[Answer], None]


@dataclass(slots=True)
class _Check:
    """What is not decided yet, with who wants to know. What was shown is not in it."""

    key: bytes
    host: str
    known: OrderedDict[bytes, _Known] = field(repr=False)
    tell: list[_Wanted] = field(default_factory=list)


# It is kept no longer than it is looked at.
_Waiting: TypeAlias = "tuple[_Check, Callable[[], Look]]"
_Queues: TypeAlias = "OrderedDict[str, deque[_Waiting]]"


class Identities:
    """Checks what requestors show of their users. On the loop's thread.

    Raises OSError where it gets no thread.
    """

    def __init__(self) -> None:
        self._helper = Helpers("check user identities", 1)
        self._passwords = _Passwords(())
        self._tokens: Tokens | None = None
        # Addresses from which somebody was right, the last one last.
        self._right: OrderedDict[str, None] = OrderedDict()
        # Of each address, in turns, what waits: theirs, and those of strangers.
        self._first: _Queues = OrderedDict()
        self._others: _Queues = OrderedDict()
        # Associations that wait for a check: those of strangers, and the others.
        self._wanting = [0, 0]
        # By their keys all that is not decided.
        self._undecided: dict[bytes, _Check] = {}
        self._is_checking = False
        self._is_closed = False
        self._failures: OrderedDict[str, deque[float]] = OrderedDict()
        self._limited: set[str] = set()
        # What is right, by key.
        self._known: OrderedDict[bytes, _Known] = OrderedDict()
        self._secret = b""

    def use(self, identities: UserIdentities, title: str) -> None:
        """Go by this file from now on; what was known to be right is forgotten.

        title: our AE title. What waits is decided by the file from before: it came before.
        """
        self._passwords = _Passwords(identities.entries)
        self._tokens = None
        if identities.keys is not None:
            self._tokens = Tokens(identities.keys, (title,))
            # The first token does not wait for it, and neither does the loop.
            self._helper.call(self._tokens.load)
        self._known = OrderedDict()
        # Nobody finds a passcode by its key; and a key of before is not found again.
        self._secret = os.urandom(32)

    def check(self, host: str, shown: Credentials | Token, tell: Callable[[Answer], None]) -> None:
        """Look whether what is shown is right, and tell, perhaps at once. Never raises.

        host: the requestor's address. An association that goes away meanwhile is told, too: that
        it tried counts.
        """
        address = counted_host(host)
        now = time.monotonic()
        if self._is_limited(address, now):
            tell(Answer(Found.LIMITED))
            return
        key = self._key(shown)
        known = self._known.get(key)
        if known is not None and known.until > now:
            tell(Answer(Found.RIGHT, known.user))
            return
        wanted = _Wanted(address, address in self._right, tell)
        check = self._undecided.get(key)
        if self._wanting[wanted.is_first] >= CHECKED_MOST:
            tell(Answer(Found.BUSY))
            return
        if check is not None:
            if len(check.tell) < SHARING_MOST:
                self._want(check, wanted)
            else:
                tell(Answer(Found.BUSY))
            return
        queues = self._first if wanted.is_first else self._others
        queue = queues.get(address, ())
        waiting = sum(map(len, queues.values()))
        if self._is_closed or waiting >= WAITING_MOST or len(queue) >= WAITING_OF_ONE_MOST:
            tell(Answer(Found.BUSY))
            return
        check = _Check(key, address, self._known)
        self._want(check, wanted)
        self._undecided[key] = check
        queues.setdefault(address, deque()).append((check, self._look(shown)))
        self._go_on()

    def _want(self, check: _Check, wanted: _Wanted) -> None:
        check.tell.append(wanted)
        self._wanting[wanted.is_first] += 1

    def close(self) -> None:
        """Begin no check any more, and wait for the one there may be. Off the loop."""
        self._is_closed = True
        self._helper.close()

    def _key(self, shown: Credentials | Token) -> bytes:
        import hashlib

        if isinstance(shown, Token):
            text = b"t" + shown.text
        else:
            size = len(shown.name).to_bytes(4, "big")
            text = b"p" + size + shown.name + shown.passcode[:PASSCODE_MOST]
        return hashlib.blake2b(text, key=self._secret, digest_size=32).digest()

    def _look(self, shown: Credentials | Token) -> Callable[[], Look]:
        if isinstance(shown, Credentials):
            return partial(self._passwords.look, shown.name, shown.passcode)
        if self._tokens is None:
            # No request comes to this: what is asked for and what checks it change together.
            return partial(Look, False, why="nobody checks it")
        return partial(self._tokens.look, shown.text)

    # One at a time -------------------------------------------------------------------------------

    def _go_on(self) -> None:
        """Have the next one looked at: the first of the address whose turn it is."""
        queues = self._first or self._others
        if self._is_checking or self._is_closed or not queues:
            return
        address, queue = queues.popitem(last=False)
        check, look = queue.popleft()
        if queue:
            queues[address] = queue
        self._is_checking = True
        looked = asyncio.wrap_future(self._helper.call(look))
        looked.add_done_callback(lambda done: self._looked(check, done))

    def _looked(self, check: _Check, looked: asyncio.Future[Look]) -> None:
        self._is_checking = False
        self._undecided.pop(check.key, None)
        answer, holds_s = self._answer(looked)
        now = time.monotonic()
        if answer.found is Found.RIGHT:
            # A memory of a file that holds no more is gone with it.
            check.known[check.key] = _Known(answer.user, now + min(KNOWN_FOR_S, holds_s))
            while len(check.known) > KNOWN_MOST:
                check.known.popitem(last=False)
            self._right[check.host] = None
            self._right.move_to_end(check.host)
            while len(self._right) > HOSTS_MOST:
                self._right.popitem(last=False)
        self._go_on()
        for wanted in check.tell:
            self._wanting[wanted.is_first] -= 1
        for wanted in check.tell:
            if answer.found is Found.WRONG:
                self._failed(wanted.address, now)
            wanted.tell(answer)

    @staticmethod
    def _answer(looked: asyncio.Future[Look]) -> tuple[Answer, float]:
        """What is told, and how long it holds."""
        if looked.cancelled():
            return Answer(Found.BUSY), 0.0
        if (error := looked.exception()) is not None:
            # Such as no memory for it: nobody is let in for that.
            log.error("cannot check a user identity", exc_info=error, extra=caused("bug"))
            return Answer(Found.BUSY), 0.0
        look = looked.result()
        found = Found.RIGHT if look.is_right else Found.WRONG
        return Answer(found, look.user, look.why), look.holds_s

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
