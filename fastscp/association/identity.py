"""What a requestor shows of its user, and what is made of it. Source: PS3.7 D.3.3.7."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from fastscp.association.negotiation import Rejected
from fastscp.log import shown

if TYPE_CHECKING:
    from fastscp.association.negotiation import Accepted
    from fastscp.users.identities import UserIdentities
    from fastscp_ext import AssociateRQ

__all__ = [
    "Credentials",
    "Token",
    "confirmed",
    "refused",
    "shown_user",
    "to_be_checked",
    "too_many",
]

_NAME_AND_PASSCODE: Final = 2
_TOKEN: Final = 5
_TYPES: Final = {
    1: "a user name without a passcode",
    2: "a user name and a passcode",
    3: "a Kerberos ticket",
    4: "a SAML assertion",
    5: "a JSON Web Token",
}
# The head of a JSON Web Token, which is JSON in base64url; a whole one is longer than a name.
_LIKE_A_TOKEN: Final = re.compile(rb"eyJ[\w-]{5}")
_NAME_SHOWN_MOST: Final = 64
_QUOTE: Final = "'"
_ESCAPED: Final = r"\x27"
# What senders may have put around a token: the end of its file's line, a padding.
_AROUND: Final = b" \t\r\n\0"


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user name and its passcode, as they came. The passcode is in no `repr`, so in no log.

    confirm: whether the requestor wants to hear that they were right.
    """

    name: bytes
    passcode: bytes = field(repr=False)
    confirm: bool = False


@dataclass(frozen=True, slots=True)
class Token:
    """A JSON Web Token as it came, in no `repr`. Whose it is, is known once it was checked.

    confirm: whether the requestor wants to hear that it was right.
    """

    text: bytes = field(repr=False)
    confirm: bool = False


def to_be_checked(rq: AssociateRQ, wanted: UserIdentities) -> Credentials | Token | Rejected | None:
    """What of a request has to be checked; None: nothing, and it may go on.

    What is not required and cannot be checked is ignored, and not confirmed, as by an acceptor that
    does not know of it.
    """
    if not wanted:
        return None
    wanted_type = _NAME_AND_PASSCODE if wanted.keys is None else _TOKEN
    information = rq.user_information
    shown_one = information.identity if information is not None else None
    if shown_one is not None and shown_one.type == wanted_type:
        confirm = shown_one.response_requested
        if wanted_type == _TOKEN:
            return Token(shown_one.primary.strip(_AROUND), confirm)
        return Credentials(shown_one.primary, shown_one.secondary, confirm)
    if not wanted.required:
        return None
    what = "no user identity"
    if shown_one is not None:
        what = _TYPES.get(shown_one.type, f"a user identity of the unknown type {shown_one.type}")
    return Rejected(1, 2, 1, f"shows {what}, and --user-identity wants {_TYPES[wanted_type]}")


def refused(who: Credentials | Token, user: str, why: str) -> Rejected:
    """The answer to what is not right, whatever is wrong with it.

    user: whom a token names, once it is known who has signed that; else empty.
    """
    return Rejected(1, 2, 1, f"{_named(who, user)}: {why}")


def too_many(who: Credentials | Token) -> Rejected:
    """The answer to what nobody has the time to check."""
    return Rejected(2, 3, 1, f"{_named(who)}: too many user identities at a time")


def _named(who: Credentials | Token, user: str = "") -> str:
    if isinstance(who, Credentials):
        return f"user {shown_user(who.name)}"
    return f"JSON Web Token of user '{shown(user)}'" if user else "JSON Web Token"


def shown_user(name: bytes) -> str:
    """A name for the log. It is UTF-8, or should be; a quote in it does not end it there.

    What is too long for a name, or has the form of a token, was meant for another field: only its
    length is told.
    """
    if len(name) > _NAME_SHOWN_MOST or _LIKE_A_TOKEN.search(name):
        return f"of {len(name)} bytes, which may be a secret, so it is not shown"
    return f"'{shown(name.decode('utf-8', 'backslashreplace')).replace(_QUOTE, _ESCAPED)}'"


def confirmed(accepted: Accepted) -> Accepted:
    """The same, with the positive response: an empty one, for there is nothing to add to it.

    Source: PS3.7 D.3.3.7.2.
    """
    information = accepted.ac.user_information
    if information is None:
        return accepted
    told = replace(information, identity_response=b"")
    return replace(accepted, ac=replace(accepted.ac, user_information=told))
