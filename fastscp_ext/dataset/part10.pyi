"""Preamble and File Meta Information (PS3.10 7.1), built and taken off."""

from typing_extensions import Buffer

__all__ = ["build_meta", "meta_values", "strip_embedded"]

def build_meta(
    sop_class: bytes,
    sop_instance: bytes,
    transfer_syntax: bytes,
    implementation: bytes,
    version: bytes,
    sender: bytes,
    receiver: bytes,
    other_syntax: bytes = b"",
) -> bytes:
    """Preamble, prefix and File Meta Information for a data set.

    All values without padding; UIDs are cut at 64 bytes, titles and version at 16. `sender` is
    written as source and sending AE title, `_` for what AE does not allow. Empty ones are left out.
    other_syntax: what the data set might have been in, written as Private Information (0002,0102)
    of the implementation; with it and the transfer syntax changed for each other the header is as
    long.
    Source: PS3.10 7.1.
    """

def strip_embedded(data: Buffer, step: int = 0) -> tuple[int, bytes] | None:
    """Take a Part 10 header off the front of `data`, fed in slices of `step` bytes (0: whole).

    Its elements of groups 0000 and 0002 may be in Explicit or Implicit VR Little Endian, with or
    without a preamble.

    Returns (header bytes taken off, its transfer syntax or b"") or None where `data` does not
    begin with a header, or with an unreadable or unfinished one.
    """

def meta_values(data: Buffer) -> dict[int, bytes]:
    """The values of the File Meta Information that `data` begins with, by element number.

    With or without preamble and prefix in front. Trailing spaces and NULs are taken off; of an
    element that is there twice the last one counts. It ends where another group begins, or with
    the last element that is all there; empty where `data` does not begin with group 0002.
    Source: PS3.10 7.1.
    """
