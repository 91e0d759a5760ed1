"""UIDs for people: the name in the dictionary, with the UID itself."""

from __future__ import annotations

from fastscp.log import printable

__all__ = ["name_of"]


def name_of(uid: str) -> str:
    """`CT Image Storage (1.2.840.10008.5.1.4.1.1.2)`, or the UID alone where it has no name."""
    # The dictionary is slow to import, and only needed where something went wrong.
    from pydicom import config
    from pydicom.uid import UID

    name = UID(uid, config.IGNORE).name
    return f"{name} ({uid})" if name != uid else printable(uid) or "an empty UID"
