"""One TLS record: its header, and where it ends."""

from typing_extensions import Buffer

__all__ = ["tls_records"]

def tls_records(data: Buffer) -> tuple[list[int], bool]:
    """The whole records that these bytes begin with: for tests of what cuts them.

    Returns their sizes in bytes, with their headers, and whether what follows them can be the
    beginning of another one. Nothing of what they hold is looked at.
    Source: RFC 8446 5.1, 5.2; RFC 5246 6.2.
    """
