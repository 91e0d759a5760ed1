"""Real and made up instances as files, what of them must arrive, and what has arrived.

Part 10 files are taken apart here without the package's help; pydicom says what is in a data set.
"""

from __future__ import annotations

import io
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pydicom.data
import pytest
from pydicom import dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import UID

from tests.kit import CT, ELE, SERIES, data_set

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.kit import Service

__all__ = [
    "KEYWORDS",
    "Instance",
    "Stored",
    "data_set_at",
    "dcmtk",
    "instances_below",
    "made_up",
    "pydicom_folder",
    "same_bytes",
    "stored",
    "write_part10",
]

KEYWORDS: Final = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
_LONG_VRS: Final = (b"OB", b"OW", b"SQ", b"UN", b"UT")


def dcmtk(program: str) -> str:
    """One of DCMTK's programs; where CI is set a missing one is an error, elsewhere a skip."""
    path = f"/usr/bin/{program}"
    if not os.access(path, os.X_OK):
        missing = f"{path} is not there: install the package dcmtk"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    return path


@dataclass(frozen=True)
class Instance:
    """An instance in a Part 10 file, with the UIDs its data set has."""

    path: Path
    sop_class: str
    sop_instance: str
    transfer_syntax: str
    data_set: bytes

    @property
    def context(self) -> tuple[str, str]:
        return self.sop_class, self.transfer_syntax


def data_set_at(file: bytes) -> int:
    """Where the data set begins: behind preamble, prefix and all of group 0002.

    Source: PS3.10 7.1, PS3.5 7.1.2.
    """
    assert file[128:132] == b"DICM"
    at = 132
    while file[at : at + 2] == b"\x02\x00":
        vr = file[at + 4 : at + 6]
        if vr in _LONG_VRS:
            at += 12 + struct.unpack_from("<I", file, at + 8)[0]
        else:
            at += 8 + struct.unpack_from("<H", file, at + 6)[0]
    return at


def instances_below(folder: Path) -> tuple[list[Instance], dict[str, tuple[str, ...]]]:
    """The instances in a folder, and its other Part 10 files with the UIDs they lack."""
    instances = []
    others = {}
    for path in sorted(folder.rglob("*")):
        data = path.read_bytes() if path.is_file() else b""
        if data[128:132] != b"DICM":
            continue
        found = dcmread(io.BytesIO(data), specific_tags=[*KEYWORDS, "SOPClassUID"])
        lacks = tuple(keyword for keyword in KEYWORDS if not found.get(keyword))
        if lacks:
            others[str(path.relative_to(folder))] = lacks
        else:
            syntax = str(found.file_meta.TransferSyntaxUID)
            uids = str(found.SOPClassUID), str(found.SOPInstanceUID), syntax
            instances.append(Instance(path, *uids, data[data_set_at(data) :]))
    return instances, others


def pydicom_folder() -> Path:
    """The files that come with pydicom's own package; what it could download is elsewhere."""
    return Path(pydicom.data.__file__).parent


def write_part10(
    path: Path, data: bytes, *, sop_class: str, sop_instance: str, transfer_syntax: str
) -> Instance:
    """A file around a data set, its File Meta Information by pydicom."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(sop_class)
    meta.MediaStorageSOPInstanceUID = UID(sop_instance)
    meta.TransferSyntaxUID = UID(transfer_syntax)
    head = DicomBytesIO()
    write_file_meta_info(head, meta, enforce_standard=True)
    path.write_bytes(bytes(128) + b"DICM" + head.getvalue() + data)
    return Instance(path, sop_class, sop_instance, transfer_syntax, data)


def made_up(folder: Path, root: str, count: int, *, pixels: int = 512) -> list[Instance]:
    """CT images of one series, with UIDs that begin with root and pixels of their own."""
    folder.mkdir()
    instances = []
    for number in range(1, count + 1):
        uid = f"{root}.{number}"
        data = data_set(ELE, study=root, series=SERIES, sop=uid, pixels=pixels, seed=number)
        instances.append(
            write_part10(
                folder / f"{number:04}.dcm",
                data,
                sop_class=CT,
                sop_instance=uid,
                transfer_syntax=ELE,
            )
        )
    return instances


@dataclass(frozen=True)
class Stored:
    """A line of the journal with the file it names."""

    fact: dict[str, Any]
    path: Path
    data_set: bytes
    meta: FileMetaDataset


def stored(service: Service) -> Iterator[Stored]:
    """What a service says that it has kept, in that order; each file readable by pydicom."""
    for fact in service.journal():
        path = service.store / fact["path"]
        file = path.read_bytes()
        read = dcmread(io.BytesIO(file))
        assert [str(read[keyword].value) for keyword in KEYWORDS] == [
            fact["study_instance_uid"],
            fact["series_instance_uid"],
            fact["sop_instance_uid"],
        ]
        yield Stored(fact, path, file[data_set_at(file) :], read.file_meta)


def same_bytes(a: Path, a_from: int, b: Path, b_from: int) -> bool:
    """Whether two files are the same from these offsets to their ends."""
    with a.open("rb") as one, b.open("rb") as other:
        one.seek(a_from)
        other.seek(b_from)
        while (piece := one.read(1 << 20)) == other.read(1 << 20):
            if not piece:
                return True
    return False
