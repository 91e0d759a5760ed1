"""The check of what one requestor shows of its user, and what its request becomes by it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Protocol

from fastscp.association.identity import refused, too_many
from fastscp.worker.identities import Found

if TYPE_CHECKING:
    from fastscp.association.identity import Credentials
    from fastscp.association.negotiation import Rejected
    from fastscp.worker.identities import Identities

__all__ = ["UserCheck"]

# How long the answer to credentials that are not right is kept back: whoever guesses has to wait.
_FAILED_S: Final = 1.0
_WRONG: Final = {
    Found.UNKNOWN_NAME: "is not in the file of --user-identity",
    Found.WRONG_PASSCODE: "the passcode is wrong",
    Found.LIMITED: "too many user identities from this address were wrong",
}


class Checked(Protocol):
    """An association whose user is being checked."""

    host: str

    @property
    def is_checked(self) -> bool: ...
    def user_is_right(self, user: str, *, confirm: bool) -> None: ...
    def forget_answer(self) -> None: ...
    def reject_user(self, why: Rejected) -> None: ...
    def failed(self, error: Exception) -> None: ...


class UserCheck:
    """One check. The association keeps none of it: whoever waits for its end, keeps it."""

    def __init__(self, one: Checked, credentials: Credentials) -> None:
        self._one = one
        self._credentials = credentials

    def begin(self, identities: Identities) -> None:
        """Have the credentials looked at. The association hears of it, perhaps at once."""
        identities.check(self._one.host, self._credentials, self._told)

    def _told(self, found: Found) -> None:
        try:
            self._checked(found)
        except Exception as error:
            # Others wait behind it, and the loop would only log it.
            self._one.failed(error)

    def _checked(self, found: Found) -> None:
        one, shown = self._one, self._credentials
        if not one.is_checked:
            # It is over, and nobody waits for the answer.
            return
        if found is Found.RIGHT:
            one.user_is_right(shown.name.decode("utf-8"), confirm=shown.confirm)
            return
        one.forget_answer()
        if found is Found.BUSY:
            one.reject_user(too_many(shown.name))
            return
        rejected = refused(shown.name, _WRONG[found])
        asyncio.get_running_loop().call_later(_FAILED_S, one.reject_user, rejected)
