"""Requests that show a user, and what is answered: for tests of who is let in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastscp_ext import UserInformation, decode_associate_ac
from tests.kit import Peer, associate_rq

if TYPE_CHECKING:
    from fastscp_ext import UserIdentity
    from tests.kit import Service

__all__ = ["answer", "response", "rq"]


def rq(
    identity: UserIdentity | None = None, *, calling: str = "KIT", called: str = "FASTSCP"
) -> bytes:
    """A request that shows this user; None: it shows none."""
    information = UserInformation(
        max_pdu_length=16384, implementation_class_uid="1.2.3.9", identity=identity
    )
    return associate_rq(user_information=information, calling=calling, called=called)


def answer(service: Service, request: bytes) -> bytes:
    """The PDU that answers; an association is released at once."""
    with Peer(service.host, service.port) as peer:
        got = peer.associate(request)
        assert got is not None
        if got[0] == 2:
            peer.release()
        return got


def response(ac: bytes) -> bytes | None:
    """The server's response in an acceptance; None: it has none."""
    information = decode_associate_ac(ac).user_information
    assert information is not None
    return information.identity_response
