"""How the data sets of a transfer syntax are encoded, as far as a receiver needs to know."""

from __future__ import annotations

from typing import Final

__all__ = ["EXPLICIT_BE", "EXPLICIT_LE", "IMPLICIT_LE", "UNKNOWN", "encoding_of"]

# The numbers of tap.pxd.
UNKNOWN: Final = 0
IMPLICIT_LE: Final = 1
EXPLICIT_LE: Final = 2
EXPLICIT_BE: Final = 3

_STANDARD: Final = b"1.2.840.10008.1.2."
_ODD: Final = {
    b"1.2.840.10008.1.2": (IMPLICIT_LE, False),
    b"1.2.840.10008.1.2.2": (EXPLICIT_BE, False),
    b"1.2.840.10008.1.2.1.99": (EXPLICIT_LE, True),
    # JPIP Referenced Deflate and its HTJ2K sibling.
    b"1.2.840.10008.1.2.4.95": (EXPLICIT_LE, True),
    b"1.2.840.10008.1.2.4.205": (EXPLICIT_LE, True),
    # Private, in wide use: implicit little endian except for its pixel data.
    b"1.2.840.113619.5.2": (IMPLICIT_LE, False),
}


def encoding_of(transfer_syntax: bytes) -> tuple[int, bool]:
    """Encoding of the elements, and whether the whole data set is deflated.

    UNKNOWN for private syntaxes: they have to be recognised by their first bytes.
    Source: PS3.5 Annex A.
    """
    known = _ODD.get(transfer_syntax)
    if known is not None:
        return known
    return (EXPLICIT_LE if transfer_syntax.startswith(_STANDARD) else UNKNOWN), False
