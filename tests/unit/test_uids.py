"""Which SOP classes and transfer syntaxes a list of an operator lets in."""

from __future__ import annotations

import pickle
import subprocess
import sys
from importlib.machinery import ModuleSpec
from typing import TYPE_CHECKING

import pytest
from pydicom.uid import UID_dictionary  # type: ignore[attr-defined]

from fastscp import uids
from fastscp.uids import UidSelectionError, sop_class_rule, transfer_syntax_rule
from tests.kit import Service

if TYPE_CHECKING:
    from pathlib import Path

CT = "1.2.840.10008.5.1.4.1.1.2"
MR = "1.2.840.10008.5.1.4.1.1.4"
PRIVATE = "1.3.12.2.1107.5.9.1"
UNKNOWN = "1.2.840.10008.5.1.4.1.1.999.1"
STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
COMMITMENT = "1.2.840.10008.1.20.1"
JPEG_2000_LOSSLESS = "1.2.840.10008.1.2.4.90"


def test_our_own_identifiers_fit_their_fields() -> None:
    assert uids.is_uid(uids.IMPLEMENTATION_CLASS_UID)
    assert len(uids.IMPLEMENTATION_VERSION_NAME) <= 16


@pytest.mark.parametrize(
    "uid",
    [
        "1.2.840.10008.5.1.4.34.7",
        "1.2.840.10008.5.1.4.34.10",
        "1.2.840.10008.5.1.4.38.1",
        "1.2.840.10008.5.1.4.39.1",
        "1.2.840.10008.5.1.4.43.1",
        "1.2.840.10008.5.1.4.44.1",
        "1.2.840.10008.5.1.4.45.1",
        "1.2.840.10008.5.1.1.27",
        "1.2.840.10008.5.1.1.29",
        "1.2.840.10008.5.1.1.30",
        "1.2.840.10008.5.1.4.1.1.104.1",
        CT,
    ],
)
def test_storage_class_wherever_it_lives(uid: str) -> None:
    assert uid in uids.storage_sop_classes()
    assert uid not in uids.known_non_storage_sop_classes()


@pytest.mark.parametrize(
    "uid",
    [
        STUDY_ROOT_FIND,
        COMMITMENT,
        "1.2.840.10008.1.20.2",
        "1.2.840.10008.1.3.10",
        "1.2.840.10008.5.1.4.31",
        "1.2.840.10008.3.1.2.3.3",
        "1.2.840.10008.5.1.1.1",
        "1.2.840.10008.5.1.4.34.6.1",
        "1.2.840.10008.5.1.4.33",
        "1.2.840.10008.5.1.4.41",
        "1.2.840.10008.5.1.4.42",
        # Queries whose numbers lie among those of the storage classes.
        "1.2.840.10008.5.1.4.1.1.200.4",
        "1.2.840.10008.5.1.4.1.1.201.2",
        uids.STORAGE_SERVICE_CLASS,
    ],
)
def test_other_service(uid: str) -> None:
    assert uid in uids.known_non_storage_sop_classes()
    assert uid not in uids.storage_sop_classes()


def test_the_two_sets_are_apart() -> None:
    storage, other = uids.storage_sop_classes(), uids.known_non_storage_sop_classes()
    assert not storage.keys() & other.keys()
    assert uids.VERIFICATION not in storage.keys() | other.keys()
    assert len(storage) > 180
    assert len(other) > 90


# Columns: list, then whether CT, private, unknown, unknown but declared to be storage get in.
@pytest.mark.parametrize(
    ("names", "ct", "private", "unknown", "declared"),
    [
        (("any",), True, True, True, True),
        (("storage",), True, False, False, True),
        (("CTImageStorage",), True, False, False, False),
        ((CT,), True, False, False, False),
        (("CT*",), True, False, False, False),
        (("MR*",), False, False, False, False),
        (("1.2.840.10008.5.1.4.1.1.2*",), True, False, False, False),
        (("1.3.12.2.1107.*",), False, True, False, False),
        (("*",), True, True, True, True),
        (("storage", PRIVATE), True, True, False, True),
        (("MRImageStorage", "any"), True, True, True, True),
    ],
)
def test_sop_classes(
    names: tuple[str, ...], ct: bool, private: bool, unknown: bool, declared: bool
) -> None:
    rule = sop_class_rule(names)
    assert rule.accepts(CT) is ct
    assert rule.accepts(PRIVATE) is private
    assert rule.accepts(UNKNOWN) is unknown
    assert rule.accepts(UNKNOWN, declared_storage=True) is declared
    assert rule.accepts(uids.VERIFICATION)
    # No list lets in a service there is none of, not even one that calls itself storage.
    assert not rule.accepts(STUDY_ROOT_FIND, declared_storage=True)
    assert not rule.accepts(COMMITMENT)
    assert pickle.loads(pickle.dumps(rule)) == rule


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("CTImageStorag", "did you mean CTImageStorage"),
        ("ctimagestorage", "did you mean CTImageStorage"),
        ("StudyRootQueryRetrieveInformationModelFind", "no service of fastscp"),
        (STUDY_ROOT_FIND, "no service of fastscp"),
        ("Xyzzy*", "matches no SOP class keyword"),
        ("CT", "did you mean CTImageStorage or"),
        ("1.2.", "neither a UID nor a SOP class keyword"),
        (
            JPEG_2000_LOSSLESS,
            "is JPEG2000Lossless, of the kind 'Transfer Syntax', and no SOP class",
        ),
        (uids.APPLICATION_CONTEXT, "of the kind 'Application Context Name', and no SOP class"),
        ("", "neither a UID"),
        ("1." * 33 + "1", "neither a UID"),
    ],
)
def test_sop_class_that_selects_nothing(name: str, why: str) -> None:
    with pytest.raises(UidSelectionError, match=why):
        sop_class_rule((name,))


@pytest.mark.parametrize(
    ("names", "explicit", "jpeg_2000", "private"),
    [
        (("any",), True, True, True),
        (("ExplicitVRLittleEndian",), True, False, False),
        (("JPEG2000*",), False, True, False),
        ((JPEG_2000_LOSSLESS,), False, True, False),
        (("1.2.840.10008.*",), True, True, False),
        (("1.3.46.*",), False, False, True),
    ],
)
def test_transfer_syntaxes(
    names: tuple[str, ...], explicit: bool, jpeg_2000: bool, private: bool
) -> None:
    rule = transfer_syntax_rule(names)
    assert rule.accepts(uids.EXPLICIT_VR_LITTLE_ENDIAN) is explicit
    assert rule.accepts(JPEG_2000_LOSSLESS) is jpeg_2000
    assert rule.accepts("1.3.46.670589.33.1.4.1") is private
    assert rule.accepts(uids.IMPLICIT_VR_LITTLE_ENDIAN)
    assert pickle.loads(pickle.dumps(rule)) == rule


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("storage", "neither a UID nor a transfer syntax keyword"),
        ("Implicit", "did you mean ImplicitVRLittleEndian"),
        (CT, "is CTImageStorage, of the kind 'SOP Class', and no transfer syntax; take it out"),
        ("1.2.840.10008.2.16.4", "of the kind 'Coding Scheme', and no transfer syntax"),
    ],
)
def test_transfer_syntax_that_selects_nothing(name: str, why: str) -> None:
    with pytest.raises(UidSelectionError, match=why):
        transfer_syntax_rule((name,))


def test_many_stars_stay_cheap() -> None:
    rule = sop_class_rule(("*" * 5000 + "1",))
    assert not rule.accepts("2" * 64)


def test_the_names_cost_no_import_of_pydicom() -> None:
    """A start of the service would take 200 ms and 50 MB more by it."""
    code = (
        "import sys; from fastscp import uids;"
        "assert len(uids.uid_names()) > 300;"
        "uids.sop_class_rule(['storage']); uids.transfer_syntax_rule(['JPEGBaseline8Bit']);"
        "assert 'pydicom' not in sys.modules;"
        "from pydicom.uid import UID_dictionary;"
        "assert uids._dictionary() == UID_dictionary"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=Service.environment(), capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("text", [None, "", "UID_dictionary = ()"])
def test_the_names_are_pydicoms_wherever_it_keeps_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str | None
) -> None:
    """In a file of its own, as now, or anywhere else that its package knows."""
    read = uids._dictionary.__wrapped__
    # That of the package may have more by now: pynetdicom adds some.
    assert read().items() <= UID_dictionary.items()
    assert read() is not UID_dictionary
    if text is not None:
        (tmp_path / "_uid_dict.py").write_text(text)
    elsewhere = ModuleSpec("pydicom", None, is_package=True)
    elsewhere.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr(uids, "find_spec", lambda _name: elsewhere)
    assert read() is UID_dictionary
