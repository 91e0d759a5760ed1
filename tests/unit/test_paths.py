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
    assert path_shown(path, [layout]) == expected
