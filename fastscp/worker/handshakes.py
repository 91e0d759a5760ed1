"""TLS handshakes of a worker: from a connection to whose it is.

Theory of operation: the loop's transport knows nothing of TLS; `Secured` stands between it and the
association. Until the handshake is done the connection is one of these. A handshake may cost a
signature, which keeps the loop for as long as that takes: a few of them go on in each turn of the
loop, however many there are (`Rounds`), so that whoever sends meanwhile waits for these alone.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from fastscp.association.account import Ending, Who
from fastscp.log import TRACE, address, caused, fields, shown
from fastscp.tls import reasons
from fastscp.tls.failures import CLOSED, NOT_IN_TIME, Failure, failure, failure_within
from fastscp.tls.reasons import Reason
from fastscp.tls.shown import shown_by, subject_of
from fastscp.worker.strangers import before_a_handshake
from fastscp_ext import Ciphertext, Secured

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping

    from fastscp.worker.connection import Origin
    from fastscp.worker.rounds import Rounds
    from fastscp.worker.rules import Tls
    from fastscp_ext import Reception

__all__ = ["Handshakes"]

log = logging.getLogger("fastscp.association")

# How long a peer that was told why it cannot go on may take to hang up.
_HANG_UP_S: Final = 5.0


class Handshakes:
    """The connections of a worker whose TLS handshake is not done yet. On the loop's thread.

    run: names this run of the service in ids. known(number, origin, secured): gets each connection
    once its handshake is done, and opens it. closed(number): hears of each one that ended before.
    failed(number, reason): hears of each handshake that fails, as soon as it does, with one of
    `reasons.COUNTED`. rounds: takes their turns. plain_port: where no TLS is spoken; 0: nowhere.
    """

    def __init__(
        self,
        run: str,
        reception: Reception,
        known: Callable[[int, Origin, Secured], None],
        closed: Callable[[int], None],
        failed: Callable[[int, str], None],
        rounds: Rounds,
        *,
        plain_port: int = 0,
    ) -> None:
        self._run = run
        self.plain_port = plain_port
        self.failed = failed
        self._shared = Ciphertext(reception)
        self._known = known
        self._closed = closed
        self._waiting: dict[int, _Keeper] = {}
        self._rounds = rounds
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._waiting)

    def expect(self, number: int, sock: socket.socket, origin: Origin, tls: Tls) -> None:
        """Shake hands with whoever connected. sock: non-blocking, ours."""
        one = self._waiting[number] = _Keeper(self, number, origin, tls)
        one.secured = Secured(self._shared, tls.context, one)
        task = asyncio.get_running_loop().create_task(self._take_over(one, one.secured, sock))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _take_over(self, one: _Keeper, secured: Secured, sock: socket.socket) -> None:
        try:
            # A buffered protocol by its methods, not by its bases.
            await asyncio.get_running_loop().connect_accepted_socket(  # type: ignore[type-var]
                lambda: secured, sock
            )
        except Exception as error:
            if isinstance(error, OSError):
                log.debug("%s: gone before it was taken over (%s)", one.name, error)
            else:
                log.exception(
                    "%s: cannot be taken over, which is a bug", one.name, extra=caused("bug")
                )
            # In any case: main counts it, and waits for its end.
            sock.close()
            self.forget(one)

    def drop(self, number: int, why: str) -> None:
        """Close one of them, if it is one. why: for the log."""
        one = self._waiting.get(number)
        if one is not None:
            one.drop(Failure(why, reason=reasons.ENDED))

    def drop_all(self, why: str) -> None:
        """Close all of which the handshake is not done."""
        for number in list(self._waiting):
            self.drop(number, why)

    def tick(self, now: float, artim_timeout: float) -> None:
        """Close those that take longer than that. now: of the monotonic clock."""
        for one in list(self._waiting.values()):
            if now > one.origin.began + artim_timeout:
                one.drop(NOT_IN_TIME)

    # What keepers call ---------------------------------------------------------------------------

    def due(self, secured: Secured) -> None:
        self._rounds.add(partial(self._turn, secured))

    @staticmethod
    def _turn(secured: Secured) -> None:
        try:
            secured.next_turn()
        except Exception:
            # The loop would only log it.
            log.exception("a TLS handshake fails, which is a bug", extra=caused("bug"))
            secured.abort()

    def done(self, one: _Keeper, origin: Origin, secured: Secured) -> None:
        self._waiting.pop(one.number, None)
        self._known(one.number, origin, secured)

    def forget(self, one: _Keeper) -> None:
        one.secured = None
        if self._waiting.pop(one.number, None) is not None:
            self._closed(one.number)

    def who(self, one: _Keeper) -> Who:
        return Who(f"{self._run}.{one.number}", one.peer)


@dataclass(eq=False, slots=True)
class _Keeper:
    """Has one connection until an association has it; `Secured` calls it."""

    owner: Handshakes
    number: int
    origin: Origin
    tls: Tls
    # None: it is an association's, or gone.
    secured: Secured | None = None
    # Whether its end was told.
    is_told: bool = False

    @property
    def peer(self) -> str:
        return address(self.origin.host, self.origin.port)

    @property
    def name(self) -> str:
        return self.owner.who(self).name

    def drop(self, why: Failure) -> None:
        self._tell(logging.INFO, why)
        if self.secured is not None:
            self.secured.abort()

    def turn_due(self, secured: Secured) -> None:
        # An association's, too: what it takes in of a turn is bounded, but there may be hundreds.
        self.owner.due(secured)

    def stranger(self, _secured: Secured, first: int) -> None:
        why = before_a_handshake(first, self.owner.plain_port)
        self._tell(logging.WARNING, Failure("no TLS", why, Reason.NO_RECORD.label))

    def shaken(self, secured: Secured) -> None:
        peer = secured.ssl_object
        try:
            certificate = shown_by(peer)
        except ssl.SSLCertVerificationError as error:
            # Of a session of TLS 1.2 that is taken up again: the handshake had nothing against it.
            self._tell(logging.WARNING, failure(error, self.tls.material))
            secured.close()
            return
        cipher = peer.cipher()
        session = f"{peer.version()} {cipher[0] if cipher else ''}".strip()
        subject = shown(subject_of(peer)) if certificate else ""
        origin = self.origin._replace(
            # A proxy that we trust says whose the connection is, whatever it shows of its own.
            certificate=self.origin.certificate or certificate, tls=session, subject=subject,
        )  # fmt: skip
        log.debug(
            "%s: %s%s", self.name, session, f", certificate of '{subject}'" if subject else "",
            extra=self._about(),
        )  # fmt: skip
        self.secured = None
        self.owner.done(self, origin, secured)

    def broken(self, secured: Secured, error: OSError) -> Exception:
        why = _why(error, None if self.secured is None else self.tls)
        if self.secured is not None:
            self._tell(logging.WARNING, why)
        # It has been told, and is to hang up.
        secured.last_call = asyncio.get_running_loop().call_later(_HANG_UP_S, secured.abort)
        return ConnectionError(f"{why.kind}: {why.why}" if why.why else why.kind)

    def lost(self, secured: Secured, _error: Exception | None) -> None:
        if not secured.has_begun:
            # That is how many look whether we are there.
            log.log(TRACE, "%s: closed before a TLS handshake", self.name, extra=self._about())
        else:
            self._tell(logging.INFO, CLOSED)
        self.owner.forget(self)

    def _tell(self, level: int, why: Failure) -> None:
        if self.is_told:
            return
        self.is_told = True
        self.owner.failed(self.number, why.reason)
        ending = Ending(why.kind, why=why.why)
        extra = {**self._about(ending), **caused(why.kind, self.origin.host)}
        log.log(level, "%s: %s", self.name, ending.text, extra=extra)

    def _about(self, ending: Ending | None = None) -> Mapping[str, object]:
        return fields(self.owner.who(self).fields(), ending.fields() if ending else {})


def _why(error: OSError, tls: Tls | None) -> Failure:
    """tls: None behind the handshake."""
    if isinstance(error, ssl.SSLError):
        return failure_within(error) if tls is None else failure(error, tls.material)
    return Failure("TLS failed", error.strerror or str(error))
