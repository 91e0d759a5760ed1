"""What a requestor shows of its user, and what is made of it. Source: PS3.7 D.3.3.7."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from fastscp.association.negotiation import Rejected
from fastscp.log import shown

if TYPE_CHECKING:
    from fastscp.association.negotiation import Accepted
    from fastscp.passwords import UserIdentities
    from fastscp_ext import AssociateRQ

__all__ = ["Credentials", "confirmed", "refused", "shown_user", "to_be_checked", "too_many"]

_NAME_AND_PASSCODE: Final = 2
_TYPES: Final = {
    1: "a user name without a passcode",
    3: "a Kerberos ticket",
    4: "a SAML assertion",
    5: "a JSON Web Token",
}


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user name and its passcode, as they came. The passcode is in no `repr`, so in no log.

    confirm: whether the requestor wants to hear that they were right.
    """

    name: bytes
    passcode: bytes = field(repr=False)
    confirm: bool = False


def to_be_checked(rq: AssociateRQ, wanted: UserIdentities) -> Credentials | Rejected | None:
    """What of a request has to be checked; None: nothing, and it may go on.

    What is not required and cannot be checked is ignored, and not confirmed, as by an acceptor that
    does not know of it.
    """
    if not wanted:
        return None
    information = rq.user_information
    shown_one = information.identity if information is not None else None
    if shown_one is not None and shown_one.type == _NAME_AND_PASSCODE:
        return Credentials(
            shown_one.primary, shown_one.secondary, confirm=shown_one.response_requested
        )
    if not wanted.required:
        return None
    if shown_one is None:
        return Rejected(
            1, 2, 1, "shows no user identity, and --user-identity wants a user name and a passcode"
        )
    what = _TYPES.get(shown_one.type, f"a user identity of the unknown type {shown_one.type}")
    return Rejected(1, 2, 1, f"shows {what}, and --user-identity wants a user name and a passcode")


def refused(user: bytes, why: str) -> Rejected:
    """The answer to credentials that are not right, whatever is wrong with them."""
    return Rejected(1, 2, 1, f"user {shown_user(user)}: {why}")


def too_many(user: bytes) -> Rejected:
    """The answer to credentials that nobody has the time to check."""
    return Rejected(2, 3, 1, f"user {shown_user(user)}: too many user identities at a time")


def shown_user(name: bytes) -> str:
    """A name for the log. It is UTF-8, or should be."""
    return f"'{shown(name.decode('utf-8', 'backslashreplace'))}'"


def confirmed(accepted: Accepted) -> Accepted:
    """The same, with the positive response of types 1 and 2: an empty one.

    Source: PS3.7 D.3.3.7.2.
    """
    information = accepted.ac.user_information
    if information is None:
        return accepted
    told = replace(information, identity_response=b"")
    return replace(accepted, ac=replace(accepted.ac, user_information=told))
