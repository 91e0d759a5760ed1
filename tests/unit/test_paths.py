"""Paths as a log shows them."""

from __future__ import annotations

import pytest

from fastscp.worker.paths import path_shown


@pytest.mark.parametrize(
    ("layout", "path", "expected"),
    [
        ("{StudyInstanceUID}/{SOPInstanceUID}", "1.2/3.4.dcm", "1.2/3.4.dcm"),
        ("{PatientID}/{SOPInstanceUID}", "DOE-4711/3.4.dcm~2", "{PatientID}/3.4.dcm~2"),
        (
            "a/{Modality}-{AccessionNumber}/{SOPInstanceUID}",
            "a/CT-4711/3.4.dcm",
            "a/{Modality}-{AccessionNumber}/3.4.dcm",
        ),
        ("{PatientID}_{SOPInstanceUID}", "4711_3.4.dcm", "{PatientID}_{SOPInstanceUID}"),
        ("{Modality}/{SOPInstanceUID}", "x" * 200 + "/1", "x" * 100 + "... (200 characters)/1"),
    ],
)
def test_a_path_is_shown_without_what_is_a_patients(layout: str, path: str, expected: str) -> None:
    assert path_shown(path, (layout,)) == expected


LAYOUTS = (
    "{StudyInstanceUID}/{SOPInstanceUID}.dcm",
    "+r/{PatientID}/{SOPInstanceUID}.dcm",
    "+r.dcm/{PatientID}/{SOPInstanceUID}.dcm",
    "{Modality}/{AccessionNumber}/{SOPInstanceUID}.dcm",
)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("1.2/3.4.dcm", "1.2/3.4.dcm"),
        ("+r/DOE-4711/3.4.dcm~2", "+r/{PatientID}/3.4.dcm~2"),
        ("+r%2Edcm/DOE-4711/3.4.dcm", "+r%2Edcm/{PatientID}/3.4.dcm"),
        ("CT/4711/3.4.dcm", "CT/{AccessionNumber}/3.4.dcm"),
        # A folder whose flush failed.
        ("+r/DOE-4711", "+r/{PatientID}"),
        ("+r", "+r"),
        ("+r%2Edcm/4711", "+r%2Edcm/{PatientID}"),
        ("", ""),
        # Deeper than any layout: something of the service's own.
        (".fastscp/replaced/x/y/z", ".fastscp/replaced/x/y/z"),
    ],
)
def test_a_path_of_one_of_several_layouts(path: str, expected: str) -> None:
    assert path_shown(path, LAYOUTS) == expected


def test_a_path_that_may_be_of_two_layouts_shows_nothing_of_a_patient() -> None:
    layouts = (
        "{Modality}/{StudyInstanceUID}/{SOPInstanceUID}.dcm",
        "{PatientID}/x{Modality}/1.dcm",
    )
    assert path_shown("4711/x1/2.dcm", layouts) == "{PatientID}/x1/2.dcm"
