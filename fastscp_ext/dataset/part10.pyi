"""Preamble and File Meta Information (PS3.10 7.1), built and taken off."""

from typing_extensions import Buffer

__all__ = ["build_meta", "strip_embedded"]

def build_meta(
    sop_class: bytes,
    sop_instance: bytes,
    transfer_syntax: bytes,
    implementation: bytes,
    version: bytes,
    sender: bytes,
    receiver: bytes,
) -> bytes:
    """Preamble, prefix and File Meta Information for a data set.

    All values without padding; UIDs are cut at 64 bytes, titles and version at 16. `sender` is
    written as source and sending AE title. Empty titles are left out.
    Source: PS3.10 7.1.
    """

def strip_embedded(data: Buffer, step: int = 0) -> tuple[int, bytes] | None:
    """Take a Part 10 header off the front of `data`, fed in slices of `step` bytes (0: whole).

    Returns (header bytes taken off, its transfer syntax or b"") or None where `data` does not
    begin with a header, or with an unreadable or unfinished one.
    """
