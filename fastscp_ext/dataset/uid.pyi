"""What a received UID is good for: one rule with grades, each of which implies those before it."""

from typing import Final

__all__ = ["UID_AS_NAME", "UID_NONE", "UID_STRICT", "UID_USABLE", "uid_grade"]

UID_NONE: Final[int]
UID_USABLE: Final[int]
UID_AS_NAME: Final[int]
UID_STRICT: Final[int]

def uid_grade(uid: str | bytes) -> int:
    """What a UID without its padding is good for; UID_NONE: nothing.

    UID_USABLE: 1 to 64 of `0-9A-Za-z._-`, the first and the last alphanumeric; a presentation
    context may name it. Letters, `_` and `-` are illegal, seen, and harmless. UID_AS_NAME: also
    without `..`, so that it may be a name in a path. UID_STRICT: also digits and dots only.
    """
