"""What is known of transfer syntaxes, beside what pydicom knows of them."""

from __future__ import annotations

import pytest
from pydicom.uid import UID, AllTransferSyntaxes

from fastscp_ext.dataset.syntaxes import (
    ANY_PIXELS,
    ENCAPSULATED,
    EXPLICIT_BE,
    EXPLICIT_LE,
    IMPLICIT_LE,
    NATIVE,
    UNKNOWN,
    encoding_of,
    pixels_of,
)

# Encapsulated, and yet nothing is compressed, or there are no pixel data.
OPEN = {"1.2.840.10008.1.2.1.98"} | {f"1.2.840.10008.1.2.4.{n}" for n in (94, 95, 204, 205)}


@pytest.mark.parametrize("uid", AllTransferSyntaxes)
def test_the_standard_ones(uid: UID) -> None:
    pixels = pixels_of(uid.encode())
    if uid in OPEN or uid.startswith("1.2.840.10008.1.2.7."):
        assert pixels == ANY_PIXELS
    else:
        assert pixels == (ENCAPSULATED if uid.is_encapsulated else NATIVE)
    family, deflated = encoding_of(uid.encode())
    if uid.is_implicit_VR:
        assert family == IMPLICIT_LE
    else:
        assert family == (EXPLICIT_LE if uid.is_little_endian else EXPLICIT_BE)
    assert deflated == uid.is_deflated or uid in OPEN


@pytest.mark.parametrize(
    ("uid", "family", "pixels"),
    [
        (b"1.2.840.10008.1.2.4.110", EXPLICIT_LE, ENCAPSULATED),
        (b"1.2.840.10008.1.2.4.112", EXPLICIT_LE, ENCAPSULATED),
        (b"1.2.840.10008.1.2.8.1", EXPLICIT_LE, ENCAPSULATED),
        (b"1.2.840.113619.5.2", IMPLICIT_LE, NATIVE),
        (b"1.3.46.670589.33.1.4.1", UNKNOWN, ANY_PIXELS),
        (b"", UNKNOWN, ANY_PIXELS),
    ],
)
def test_others(uid: bytes, family: int, pixels: int) -> None:
    assert encoding_of(uid)[0] == family
    assert pixels_of(uid) == pixels
