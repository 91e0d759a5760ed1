"""Every real instance at hand arrives as it was sent, by two senders that know nothing of us."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
from typing import TYPE_CHECKING, Final

import pytest
from pynetdicom import _config, build_context

from fastscp_ext import crc32c
from tests.conftest import shared
from tests.interop.material import (
    Instance,
    Stored,
    dcmtk,
    instances_below,
    pydicom_folder,
    stored,
    write_part10,
)
from tests.interop.senders import associated
from tests.interop.wiretap import Wiretap
from tests.kit import Service

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

# Some of these files are odd on purpose, and pydicom says so.
pytestmark = [pytest.mark.interop, pytest.mark.filterwarnings("ignore::UserWarning")]

_NO_UID: Final = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
_NO_STUDY: Final = ("StudyInstanceUID", "SeriesInstanceUID")

# Part 10 files that are no composite instances, and what they lack to be stored: names of the next
# pydicom show up here.
PYDICOM_OTHERS: Final = {
    # Character sets, private sequences and damaged headers, with little more than that.
    "charset_files/chrSQEncoding.dcm": _NO_UID,
    "charset_files/chrSQEncoding1.dcm": _NO_UID,
    "test_files/UN_sequence.dcm": _NO_UID,
    "test_files/empty_charset_LEI.dcm": _NO_UID,
    "test_files/meta_missing_tsyntax.dcm": _NO_UID,
    "test_files/nested_priv_SQ.dcm": _NO_UID,
    "test_files/no_meta_group_length.dcm": _NO_UID,
    "test_files/priv_SQ.dcm": _NO_UID,
    # Directories of media.
    "test_files/dicomdirtests/DICOMDIR": _NO_UID,
    "test_files/dicomdirtests/DICOMDIR-bigEnd": _NO_UID,
    "test_files/dicomdirtests/DICOMDIR-empty.dcm": _NO_UID,
    "test_files/dicomdirtests/DICOMDIR-implicit": _NO_UID,
    "test_files/dicomdirtests/DICOMDIR-nooffset": _NO_UID,
    "test_files/dicomdirtests/DICOMDIR-nopatient": _NO_UID,
    "test_files/dicomdirtests/DICOMDIR-reordered": _NO_UID,
    "test_files/dicomdirtests/TINY_ALPHA/DICOMDIR": _NO_UID,
    # Pixel data with a header around it.
    "test_files/JPEGLSNearLossless_08.dcm": _NO_STUDY,
    "test_files/JPEGLSNearLossless_16.dcm": _NO_STUDY,
    "test_files/SC_rgb_jls_lossy_line.dcm": _NO_STUDY,
    "test_files/SC_rgb_jls_lossy_sample.dcm": _NO_STUDY,
    # Colour palettes belong to no patient.
    "palettes/fall.dcm": _NO_STUDY,
    "palettes/hotiron.dcm": _NO_STUDY,
    "palettes/hotmetalblue.dcm": _NO_STUDY,
    "palettes/pet.dcm": _NO_STUDY,
    "palettes/pet20step.dcm": _NO_STUDY,
    "palettes/spring.dcm": _NO_STUDY,
    "palettes/summer.dcm": _NO_STUDY,
    "palettes/winter.dcm": _NO_STUDY,
}
SHARED_OTHERS: Final = {
    "HTJ2KLossless_08_RGB.dcm": _NO_STUDY,
    "JLSL_16_15_1_1F.dcm": _NO_STUDY,
}

# What DCMTK 3.6.7 cannot send, and why.
DCMTK_CANNOT: Final = {
    "MR_truncated.dcm": "ends inside an element",
    "SC_rgb_jpeg.dcm": "is implicit VR behind a header that says otherwise",
    "explicit_VR-UN.dcm": "has UIDs of unknown VR",
    "liver_deflate.dcm": "is in a transfer syntax newer than it",
    "rtdose_rle.dcm": "has an element of odd length, behind which it finds no UIDs",
    "rtdose_rle_1frame.dcm": "has an element of odd length, behind which it finds no UIDs",
    "rtplan_truncated.dcm": "ends inside an element",
}

_CONTEXTS_AT_ONCE: Final = 128


@pytest.fixture(scope="module", params=["pydicom", "shared"])
def instances(request: pytest.FixtureRequest) -> list[Instance]:
    """The instances of one collection."""
    if request.param == "pydicom":
        found, others = instances_below(pydicom_folder())
        assert others == PYDICOM_OTHERS
        assert len(found) > 150
    else:
        found, others = instances_below(shared("data"))
        assert others == SHARED_OTHERS
        assert len(found) == 17
    return found


def by_contexts(instances: list[Instance]) -> Iterable[list[Instance]]:
    """The instances in groups that one association has presentation contexts for, in order."""
    group: list[Instance] = []
    for instance in instances:
        if len({one.context for one in [*group, instance]}) > _CONTEXTS_AT_ONCE:
            yield group
            group = []
        group.append(instance)
    yield group


def arrived(kept: Stored, sop_class: str, sop_instance: str, syntax: str, data: bytes) -> None:
    """Check a stored instance against what was sent."""
    assert kept.data_set == data, sop_instance
    assert kept.meta.MediaStorageSOPClassUID == sop_class
    assert kept.meta.MediaStorageSOPInstanceUID == sop_instance
    assert kept.meta.TransferSyntaxUID == syntax
    assert kept.fact["sop_class_uid"] == sop_class
    assert kept.fact["sop_instance_uid"] == sop_instance
    assert kept.fact["transfer_syntax_uid"] == syntax
    assert kept.fact["bytes"] == len(data)
    assert kept.fact["digest"] == f"crc32c:{crc32c(data):08x}"
    assert "stripped" not in kept.fact


def test_pynetdicom(
    tmp_path: Path, instances: list[Instance], monkeypatch: pytest.MonkeyPatch
) -> None:
    # From a path, and in pieces, it sends a file's data set as it is.
    monkeypatch.setattr(_config, "STORE_SEND_CHUNKED_DATASET", True)
    # The command takes its UIDs from the file meta, which in some files tells of another instance.
    files = tmp_path / "files"
    files.mkdir()
    copies = [
        write_part10(
            files / f"{number:04}.dcm",
            one.data_set,
            sop_class=one.sop_class,
            sop_instance=one.sop_instance,
            transfer_syntax=one.transfer_syntax,
        )
        for number, one in enumerate(instances)
    ]
    with Service(tmp_path, "--durability", "buffered", workers=1) as service:
        for group in by_contexts(copies):
            contexts = sorted({one.context for one in group})
            with associated(service, [build_context(uid, [ts]) for uid, ts in contexts]) as scu:
                for one in group:
                    assert scu.send_c_store(one.path).Status == 0, one.path
        for one, kept in zip(instances, stored(service), strict=True):
            arrived(kept, one.sop_class, one.sop_instance, one.transfer_syntax, one.data_set)


def profile(contexts: Iterable[tuple[str, str]]) -> str:
    """A configuration of storescu that proposes each class with each transfer syntax by itself."""
    listed = list(contexts)
    syntaxes = sorted({syntax for _, syntax in listed})
    lines = ["[[TransferSyntaxes]]"]
    for number, syntax in enumerate(syntaxes):
        lines += [f"[TS{number}]", f"TransferSyntax1 = {syntax}"]
    lines += ["[[PresentationContexts]]", "[ALL]"]
    for number, (sop_class, syntax) in enumerate(listed, start=1):
        lines.append(f"PresentationContext{number} = {sop_class}\\TS{syntaxes.index(syntax)}")
    lines += ["[[Profiles]]", "[ALL]", "PresentationContexts = ALL"]
    return "\n".join(lines) + "\n"


def test_storescu(tmp_path: Path, instances: list[Instance]) -> None:
    """What it sends need not be what the file holds, so it is read off the wire."""
    storescu = dcmtk("storescu")
    files = tmp_path / "files"
    files.mkdir()
    copies = {}
    for number, one in enumerate(instances):
        copies[f"{number:04}.dcm"] = one
        shutil.copyfile(one.path, files / f"{number:04}.dcm")
    names = iter(copies)
    config = tmp_path / "storescu.cfg"
    with (
        Service(tmp_path, "--durability", "buffered", workers=1) as service,
        Wiretap(service.host, service.port) as tap,
    ):
        for group in by_contexts(instances):
            config.write_text(profile(sorted({one.context for one in group})))
            # Those sent are renamed to .done, the others to .bad, and do not end the run.
            subprocess.run(
                [
                    *(storescu, "-nh", "+rn", "-xf", config, "ALL"),
                    *("127.0.0.1", str(tap.port), *itertools.islice(names, len(group))),
                ],
                cwd=files,
                env=os.environ | {"TCP_NODELAY": "1"},
                check=False,
                capture_output=True,
                timeout=60,
            )
        refused = {copies[path.stem].path.name for path in files.glob("*.bad")}
        done = [copies[path.stem] for path in sorted(files.glob("*.done"))]
        known = {one.path.name for one in instances}
        assert refused == DCMTK_CANNOT.keys() & known
        assert len(done) == len(instances) - len(refused)
        for one, sent, kept in itertools.zip_longest(done, tap.messages(), stored(service)):
            assert (sent.sop_class, sent.sop_instance) == (one.sop_class, one.sop_instance)
            assert sent.transfer_syntax == one.transfer_syntax
            arrived(kept, sent.sop_class, sent.sop_instance, sent.transfer_syntax, sent.data_set)
