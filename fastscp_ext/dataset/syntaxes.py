"""How the data sets of a transfer syntax are encoded, as far as a receiver needs to know."""

from __future__ import annotations

from typing import Final

__all__ = [
    "ANY_PIXELS",
    "ENCAPSULATED",
    "EXPLICIT_BE",
    "EXPLICIT_LE",
    "IMPLICIT_LE",
    "NATIVE",
    "UNKNOWN",
    "encoding_of",
    "pixels_of",
]

# The numbers of tap.pxd.
UNKNOWN: Final = 0
IMPLICIT_LE: Final = 1
EXPLICIT_LE: Final = 2
EXPLICIT_BE: Final = 3

# Likewise, of pixel data.
ANY_PIXELS: Final = 0
NATIVE: Final = 1
ENCAPSULATED: Final = 2

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
_NATIVE: Final = frozenset(
    (
        b"1.2.840.10008.1.2",
        b"1.2.840.10008.1.2.1",
        b"1.2.840.10008.1.2.1.99",
        b"1.2.840.10008.1.2.2",
        b"1.2.840.113619.5.2",
    )
)
# The families of A.4 whose pixel data are compressed. Encapsulated Uncompressed (.1.98) is not
# among them: its pixel data are the same bytes either way, and nobody is misled.
_COMPRESSED: Final = (b"1.2.840.10008.1.2.4.", b"1.2.840.10008.1.2.5", b"1.2.840.10008.1.2.8.1")
# JPIP: the pixel data lie elsewhere, and the data set has their URL.
_JPIP: Final = frozenset(b"1.2.840.10008.1.2.4.%d" % n for n in (94, 95, 204, 205))


def encoding_of(transfer_syntax: bytes) -> tuple[int, bool]:
    """Encoding of the elements, and whether the whole data set is deflated.

    UNKNOWN for private syntaxes: they have to be recognised by their first bytes.
    Source: PS3.5 Annex A.
    """
    known = _ODD.get(transfer_syntax)
    if known is not None:
        return known
    return (EXPLICIT_LE if transfer_syntax.startswith(_STANDARD) else UNKNOWN), False


def pixels_of(transfer_syntax: bytes) -> int:
    """What (7FE0,0010) has to be at the outermost level: NATIVE, ENCAPSULATED or ANY_PIXELS.

    ANY_PIXELS: also where nothing is known of the syntax, and where it has no pixel data.
    Source: PS3.5 A.1 to A.4, 8.2.
    """
    if transfer_syntax in _NATIVE:
        return NATIVE
    if transfer_syntax.startswith(_COMPRESSED) and transfer_syntax not in _JPIP:
        return ENCAPSULATED
    return ANY_PIXELS
