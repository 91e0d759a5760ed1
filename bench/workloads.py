"""What is sent: templates of several sizes, a mix of them, and files made from them.

A template is a Part 10 file with a realistic head and random pixels, the same in every run. What is
sent is the template with other UIDs of the same length, patched into its bytes: by bench/load.c as
it sends, or by `Material.files` into files for the programs that send files.
"""

from __future__ import annotations

import functools
import io
import random
import re
import shutil
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Self

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import ExplicitVRLittleEndian

from bench.instances import Instance, part10

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

UID_LENGTH = 46
SOP, SERIES, STUDY = 1, 2, 3
TEMPLATE_TAG = "9"
# Instances in a series of one association, and series in a study.
SERIES_LENGTH, STUDY_LENGTH = 100, 10
# A head ends well before this.
HEAD = 4096
CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Image:
    """What a template is made from. bits: allocated per sample; text: bytes of a report."""

    sop_class: str
    modality: str
    columns: int = 0
    rows: int = 0
    frames: int = 1
    samples: int = 1
    bits: int = 16
    text: int = 0

    @property
    def pixel_bytes(self) -> int:
        return self.columns * self.rows * self.frames * self.samples * self.bits // 8


CT = "1.2.840.10008.5.1.4.1.1.2"
MR = "1.2.840.10008.5.1.4.1.1.4"
US = "1.2.840.10008.5.1.4.1.1.6.1"
US_MULTI = "1.2.840.10008.5.1.4.1.1.3.1"
DX = "1.2.840.10008.5.1.4.1.1.1.1"
MG = "1.2.840.10008.5.1.4.1.1.1.2"
SR = "1.2.840.10008.5.1.4.1.1.88.11"

# Sizes are of the data set, in 10^3 and 10^6 bytes, rounded.
IMAGES = {
    "3KB": Image(CT, "CT", 32, 32),
    "34KB": Image(CT, "CT", 128, 128),
    "525KB": Image(CT, "CT", 512, 512),
    "10MB": Image(DX, "DX", 2048, 2560),
    "100MB": Image(US_MULTI, "US", 640, 480, frames=325, bits=8),
    "400MB": Image(US_MULTI, "US", 640, 480, frames=1302, bits=8),
    "mix-CT": Image(CT, "CT", 512, 512),
    "mix-MR": Image(MR, "MR", 256, 256),
    "mix-US": Image(US, "US", 640, 480, samples=3, bits=8),
    "mix-MG": Image(MG, "MG", 2560, 3328),
    "mix-DX": Image(DX, "DX", 2048, 2560),
    "mix-SR": Image(SR, "SR", text=20_000),
    # Its file is just below 64 KiB.
    "64KB": Image(CT, "CT", 178, 178),
    "128KB": Image(CT, "CT", 248, 256),
}
SIZES = ("3KB", "34KB", "525KB", "10MB", "400MB")
MIX = {"mix-CT": 70, "mix-MR": 17, "mix-US": 6, "mix-MG": 2, "mix-DX": 3, "mix-SR": 2}


def uid(tag: str, kind: int, number: int) -> str:
    """A UID of UID_LENGTH characters; bench/load.c makes the same ones.

    tag: digits that keep runs apart, not 0 first. kind: SOP, SERIES or STUDY. Raises ValueError if
    the number does not fit.
    """
    start = f"1.2.5.{tag}.{kind}"
    made = start + str(number).zfill(UID_LENGTH - len(start))
    if len(made) != UID_LENGTH:
        raise ValueError(f"no room for {number} after {start}")
    return made


@dataclass(frozen=True, slots=True)
class Template:
    """A Part 10 file to be sent under other UIDs. size: bytes of its data set."""

    name: str
    path: Path
    number: int
    size: int

    @property
    def own(self) -> dict[int, bytes]:
        """The UIDs in the file, by kind."""
        return {kind: _ascii(TEMPLATE_TAG, kind, self.number) for kind in (SOP, SERIES, STUDY)}

    def patched(self, data: bytes, new: dict[int, bytes]) -> bytes:
        """The file's bytes, or its data set's, with other UIDs, by kind."""
        head = data[:HEAD]
        for kind, value in new.items():
            head = head.replace(self.own[kind], value)
        return head + data[HEAD:]

    def data_set(self) -> bytes:
        """Its data set, encoded."""
        with part10(self.path).open() as stream:
            return stream.read()


def _ascii(tag: str, kind: int, number: int) -> bytes:
    return uid(tag, kind, number).encode("ascii")


@dataclass(frozen=True, slots=True)
class Workload:
    """Templates and how often each is sent."""

    name: str
    weights: tuple[tuple[Template, int], ...]

    @property
    def templates(self) -> tuple[Template, ...]:
        return tuple(template for template, _ in self.weights)

    @property
    def size(self) -> int:
        """Bytes of a data set, on average."""
        total = sum(weight for _, weight in self.weights)
        return sum(template.size * weight for template, weight in self.weights) // total


@dataclass(frozen=True, slots=True)
class Files:
    """Files made from one template. folders: what each of several senders is given."""

    root: Path
    folders: tuple[Path, ...]
    count: int
    size: int

    def sent(self, _: Sequence[Instance] = ()) -> list[Instance]:
        """What a sender of all of them sends."""
        return [part10(path) for path in sorted(self.root.rglob("*.dcm"))]


class Material:
    """Templates and files below a folder, made when they are asked for, removed at the end."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._templates: dict[str, Template] = {}
        folder.mkdir(parents=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def template(self, name: str) -> Template:
        """The template of that name. Raises KeyError."""
        if name not in self._templates:
            number = list(IMAGES).index(name)
            path = self._folder / f"{name}.dcm"
            _make(IMAGES[name], number, path)
            with part10(path).open() as stream:
                size = path.stat().st_size - stream.tell()
            self._templates[name] = Template(name, path, number, size)
        return self._templates[name]

    def workload(self, name: str) -> Workload:
        """`mix`, or one template. Raises KeyError."""
        weights = MIX if name == "mix" else {name: 1}
        return Workload(
            name, tuple((self.template(one), weight) for one, weight in weights.items())
        )

    def files(self, name: str, count: int, parts: int = 1) -> Files:
        """So many files of a template, dealt to so many folders; the caller drops them."""
        template = self.template(name)
        root = self._folder / f"files-{name}-{count}-{parts}"
        folders = tuple(root / f"{part}" for part in range(parts))
        for folder in folders:
            folder.mkdir(parents=True)
        data = template.path.read_bytes()
        for number in range(count):
            series = number // SERIES_LENGTH
            new = {SOP: number, SERIES: series, STUDY: series // STUDY_LENGTH}
            patched = template.patched(
                data, {kind: _ascii("7", kind, n) for kind, n in new.items()}
            )
            (folders[number % parts] / f"{number:07}.dcm").write_bytes(patched)
        return Files(root, folders, count, count * template.size)

    def drop(self, files: Files) -> None:
        """Make room for others."""
        shutil.rmtree(files.root)


def sent_by_load(
    stored: Iterable[Instance], templates: Sequence[Template], tag: str, count: int
) -> list[Instance]:
    """What bench/load.c sent in one run, to be compared with what was stored.

    The UIDs of the instances follow from their number. Which template each is of, and which series
    it was put in, was a matter of which association was free: the study and the series in what was
    stored say so, and the template patched with them has to be the rest of it.
    """
    there = {instance.uid: instance for instance in stored}
    uids = [uid(tag, SOP, number) for number in range(count)]
    return [
        Instance(
            one,
            str(ExplicitVRLittleEndian),
            functools.partial(_as_sent, templates, tag, one, there.get(one)),
        )
        for one in uids
    ]


@functools.lru_cache(maxsize=8)
def _data_set(template: Template) -> bytes:
    return template.data_set()


def _as_sent(
    templates: Sequence[Template], tag: str, sop: str, stored: Instance | None
) -> BinaryIO:
    head = b""
    if stored is not None:
        with stored.open() as stream:
            head = stream.read(HEAD)
    template = next((one for one in templates if one.own[STUDY] in head), templates[0])
    series = re.search(rb"1\.2\.5\.%b\.%d\d+" % (tag.encode("ascii"), SERIES), head)
    new = {SOP: sop.encode("ascii")}
    if series and len(series[0]) == UID_LENGTH:
        new[SERIES] = series[0]
    return io.BytesIO(template.patched(_data_set(template), new))


# --- making a template ---


def _make(image: Image, number: int, path: Path) -> None:
    """Write the Part 10 file of a template.

    Source: PS3.10 7.1, PS3.3 C.7, PS3.5 8.1.
    """
    own = {kind: uid(TEMPLATE_TAG, kind, number) for kind in (SOP, SERIES, STUDY)}
    data_set = _head(image, own)
    data_set.file_meta = FileMetaDataset()
    data_set.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data_set.save_as(path, enforce_file_format=True)
    if not image.pixel_bytes:
        return
    # Its last element is written by itself: 400 MB need not be in memory.
    vr = b"OW" if image.bits == 16 else b"OB"
    with path.open("ab") as out:
        out.write(struct.pack("<HH2sHI", 0x7FE0, 0x0010, vr, 0, image.pixel_bytes))
        for block in _random(number, image.pixel_bytes):
            out.write(block)


def _random(seed: int, size: int) -> Iterator[bytes]:
    source = random.Random(seed)
    for at in range(0, size, CHUNK):
        yield source.randbytes(min(CHUNK, size - at))


def _head(image: Image, own: dict[int, str]) -> Dataset:
    data_set = Dataset()
    for name, value in {
        "SpecificCharacterSet": "ISO_IR 192",
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "SOPClassUID": image.sop_class,
        "SOPInstanceUID": own[SOP],
        "StudyDate": "20240311",
        "SeriesDate": "20240311",
        "ContentDate": "20240311",
        "StudyTime": "101532",
        "SeriesTime": "101811.250000",
        "ContentTime": "101811.250000",
        "AccessionNumber": "A0045120077",
        "Modality": image.modality,
        "Manufacturer": "BENCHMARK",
        "InstitutionName": "Hospital of the benchmark",
        "ReferringPhysicianName": "Referrer^Robin",
        "StationName": f"{image.modality}01",
        "StudyDescription": "Thorax and abdomen, with contrast medium",
        "SeriesDescription": "Portal venous phase, 5 mm",
        "ManufacturerModelName": "Model 64",
        "PatientName": "Benchmark^Patient",
        "PatientID": "P0077120045",
        "PatientBirthDate": "19610504",
        "PatientSex": "O",
        "PatientAge": "062Y",
        "PatientWeight": "74.5",
        "BodyPartExamined": "ABDOMEN",
        "ProtocolName": "Abdomen, routine",
        "SoftwareVersions": ["VA40A", "SP02"],
        "PatientPosition": "HFS",
        "StudyInstanceUID": own[STUDY],
        "SeriesInstanceUID": own[SERIES],
        "StudyID": "4711",
        "SeriesNumber": 3,
        "AcquisitionNumber": 2,
        "InstanceNumber": 57,
        "ImagePositionPatient": [-175.0, -180.5, -415.25],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "FrameOfReferenceUID": f"{own[STUDY]}.1",
    }.items():
        setattr(data_set, name, value)
    if image.text:
        data_set.ValueType = "CONTAINER"
        data_set.CompletionFlag, data_set.VerificationFlag = "COMPLETE", "UNVERIFIED"
        data_set.ContentSequence = DicomSequence(_report(image.text))
        return data_set
    data_set.SamplesPerPixel = image.samples
    data_set.PhotometricInterpretation = "RGB" if image.samples == 3 else "MONOCHROME2"
    if image.samples == 3:
        data_set.PlanarConfiguration = 0
    if image.frames > 1:
        data_set.NumberOfFrames = image.frames
    data_set.Rows, data_set.Columns = image.rows, image.columns
    data_set.BitsAllocated = data_set.BitsStored = image.bits
    data_set.HighBit, data_set.PixelRepresentation = image.bits - 1, 0
    return data_set


def _report(size: int) -> Iterator[Dataset]:
    line = "No sign of anything that a benchmark would have to be told about. "
    for _ in range(size // 500):
        item = Dataset()
        item.RelationshipType, item.ValueType = "CONTAINS", "TEXT"
        item.TextValue = line * 7
        yield item
