"""How long a requestor waits."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Timeouts"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """How long to wait for a peer, in seconds.

    connect: for TCP and TLS. associate: for the answer to the request. send: while it takes none
    of our data. response: for the response to a message that is sent. release: for its
    confirmation.
    """

    connect: float = 10.0
    associate: float = 30.0
    send: float = 60.0
    response: float = 60.0
    release: float = 10.0
