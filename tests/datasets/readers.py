"""What pydicom and DCMTK's dcmdump take for the instance's Study and Series Instance UID."""

from __future__ import annotations

import contextlib
import re
import struct
import subprocess
import warnings
from io import BytesIO
from typing import TYPE_CHECKING, Final

import pydicom

from tests.datasets.sound import PADDING

if TYPE_CHECKING:
    from pathlib import Path

    from tests.datasets.tree import Coding

__all__ = ["UIDS", "by_dcmdump", "by_pydicom", "part10"]

UIDS: Final = {0x0020000D: "StudyInstanceUID", 0x0020000E: "SeriesInstanceUID"}
# At the outermost level no path of sequences stands in front.
_FOUND: Final = re.compile(rb"^\((0020,000[de])\) UI \[([^\]]*)\]", re.MULTILINE)
_FILE: Final = re.compile(rb"^# dcmdump \(\d+/\d+\): (.*)$", re.MULTILINE)
_AT_A_TIME: Final = 200
# What it read of a broken one as well.
_OPTIONS: Final = (
    *("-q", "+E", "+F", "+p", "-Un", "+L", "-M"),
    *("+P", "0020,000d", "+P", "0020,000e"),
)


def transfer_syntax(coding: Coding) -> bytes:
    if coding.implicit:
        return b"1.2.840.10008.1.2"
    return b"1.2.840.10008.1.2.2" if coding.order == ">" else b"1.2.840.10008.1.2.1"


def part10(data: bytes, coding: Coding) -> bytes:
    """A file of it (PS3.10 7.1)."""
    meta = struct.pack("<HH2sxxL", 2, 1, b"OB", 2) + b"\0\1"
    for number, value in (
        (0x02, b"1.2.840.10008.5.1.4.1.1.2"),
        (0x03, b"1.2.3.4"),
        (0x10, transfer_syntax(coding)),
        (0x12, b"1.2.3.9"),
    ):
        padded = value + bytes(len(value) % 2)
        meta += struct.pack("<HH2sH", 2, number, b"UI", len(padded)) + padded
    length = struct.pack("<HH2sHL", 2, 0, b"UL", 4, len(meta))
    return bytes(128) + b"DICM" + length + meta + data


def by_pydicom(data: bytes, coding: Coding) -> dict[str, bytes]:
    """What it read of them; it may raise anything at all for a broken one: nothing then."""
    found = {}
    with warnings.catch_warnings(), contextlib.suppress(Exception):
        warnings.simplefilter("ignore")
        read = pydicom.dcmread(BytesIO(part10(data, coding)), force=True)
        for tag, keyword in UIDS.items():
            value = read[tag].value
            raw = value if isinstance(value, bytes) else str(value).encode()
            found[keyword] = raw.strip(PADDING)
    return found


def by_dcmdump(program: str, files: list[Path]) -> list[dict[str, bytes]]:
    """What it read of them in each file; nothing where it gives the file up."""
    told: dict[str, dict[str, bytes]] = {}
    for first in range(0, len(files), _AT_A_TIME):
        some = map(str, files[first : first + _AT_A_TIME])
        ran = subprocess.run(
            [program, *_OPTIONS, *some], capture_output=True, check=False, timeout=240
        )
        _, *parts = _FILE.split(ran.stdout)
        for name, text in zip(parts[::2], parts[1::2], strict=True):
            told[name.decode()] = {
                UIDS[int(tag.replace(b",", b""), 16)]: value.strip(PADDING)
                for tag, value in _FOUND.findall(text)
            }
    return [told.get(str(file), {}) for file in files]
