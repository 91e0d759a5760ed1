"""What is asked of requestors: the setting `--user-identity`, with what was in its file."""

from __future__ import annotations

import msgspec

from fastscp.users.keys import Keys  # noqa: TC001 - msgspec reads the annotations
from fastscp.users.passwords import Entry  # noqa: TC001

__all__ = ["UserIdentities"]


class UserIdentities(msgspec.Struct, frozen=True):
    """What is asked of requestors, with what was in the file when it was read.

    file: as it was written; empty: user identities are ignored. required: whoever shows none is
    rejected, too. entries: names and passwords. warning: what is not as it should be with the file;
    empty: nothing. keys: given where it is a JSON Web Token that is asked for, not a password.
    """

    file: str = ""
    required: bool = False
    entries: tuple[Entry, ...] = ()
    warning: str = ""
    keys: Keys | None = None

    def __bool__(self) -> bool:
        return bool(self.file)

    def __str__(self) -> str:
        """As an operator writes it."""
        if not self.file:
            return "off"
        word = "password" if self.keys is None else "jwt"
        more = "" if self.keys is None else self.keys.claims
        return f"{word}{'' if self.required else '?'}:{self.file}{more}"

    def __repr__(self) -> str:
        held = f"{len(self.entries)} entries" if self.keys is None else repr(self.keys)
        return f"UserIdentities({str(self)!r}, {held})"
