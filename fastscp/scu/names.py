"""UIDs and other values for people."""

from __future__ import annotations

from typing import Final

from fastscp.log import printable

__all__ = ["given", "name_of"]

# Characters of a value that a message repeats.
_SHOWN: Final = 64


def name_of(uid: str) -> str:
    """`CT Image Storage (1.2.840.10008.5.1.4.1.1.2)`, or the UID alone where it has no name."""
    # The dictionary is slow to import, and only needed where something went wrong.
    from pydicom import config
    from pydicom.uid import UID

    name = UID(uid, config.IGNORE).name
    return f"{name} ({uid})" if name != uid else printable(uid) or "an empty UID"


def given(value: object) -> str:
    """A value for a message: short ones as written, of others only what they are.

    A data set may tell about a patient, and a message may end in a log.
    """
    if value is None or isinstance(value, (bool, int, float)):
        return repr(value)
    if isinstance(value, str):
        text = str(value)
        return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}...")
    name = type(value).__name__
    return f"{'an' if name[:1] in 'AEIOUaeiou' else 'a'} {name}"
