"""The check of what one requestor shows of its user, and what its request becomes by it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Protocol

from fastscp.association.identity import refused, too_many
from fastscp.worker.identities import Found

if TYPE_CHECKING:
    from fastscp.association.identity import Credentials, Token
    from fastscp.association.negotiation import Rejected
    from fastscp.worker.identities import Answer, Identities

__all__ = ["UserCheck"]

# How long the answer to credentials that are not right is kept back: whoever guesses has to wait.
_FAILED_S: Final = 1.0
_LIMITED: Final = "too many user identities from this address were wrong"


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

    def __init__(self, one: Checked, shown: Credentials | Token) -> None:
        self._one = one
        self._shown = shown

    def begin(self, identities: Identities) -> None:
        """Have it looked at. The association hears of it, perhaps at once."""
        identities.check(self._one.host, self._shown, self._told)

    def _told(self, answer: Answer) -> None:
        try:
            self._checked(answer)
        except Exception as error:
            # Others wait behind it, and the loop would only log it.
            self._one.failed(error)

    def _checked(self, answer: Answer) -> None:
        one, shown, found = self._one, self._shown, answer.found
        if not one.is_checked:
            # It is over, and nobody waits for the answer.
            return
        if found is Found.RIGHT:
            one.user_is_right(answer.user, confirm=shown.confirm)
            return
        one.forget_answer()
        if found is Found.BUSY:
            one.reject_user(too_many(shown))
            return
        why = _LIMITED if found is Found.LIMITED else answer.why
        rejected = refused(shown, answer.user, why)
        asyncio.get_running_loop().call_later(_FAILED_S, one.reject_user, rejected)
