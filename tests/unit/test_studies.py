"""Which paths are of a study, where a store has several layouts."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

import pytest

from fastscp.store.filing import Filing
from fastscp.store.findings import Finding, Kind, Origin
from fastscp.store.selection import Selection
from fastscp.store.store import Store
from fastscp.store.studies import Studies
from fastscp.store.verify import Verification
from fastscp_ext import Layout, LayoutError
from tests.kit import SERIES, SOP, STUDY, data_set
from tests.stores import LAYOUT, filed
from tests.unit.test_collisions import a_layout, some_values
from tests.unit.test_verify import Shelf, kinds, look, part10

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("no_descriptor_left")

RESEARCH = "+research/{Modality}/{StudyInstanceUID}.{SeriesNumber}/{SOPInstanceUID}.dcm"
ANONYMOUS = "+flat/{SOPInstanceUID}.dcm"


@pytest.fixture
def several(tmp_path: Path) -> Shelf:
    """A store in which two called AE titles have a layout of their own."""
    filings = filed(LAYOUT, R=Filing(RESEARCH), F=Filing(ANONYMOUS), SAME=Filing(LAYOUT))
    Store.open(tmp_path / "store", filings).close()
    return Shelf.at(tmp_path / "store")


def takes(studies: Studies, path: str) -> bool:
    """Whether a walk comes to a file."""
    folders = path.split("/")
    name = folders.pop()
    above = ""
    for folder in folders:
        if not studies.takes(studies.way(above), folder, is_folder=True):
            return False
        above = f"{above}/{folder}" if above else folder
    return studies.takes(studies.way(above), name, is_folder=False)


def test_one_study_is_found_under_every_layout(several: Shelf) -> None:
    inside = ["1.2.5/x", "1.2.5/1/2/y.dcm", "+research/CT/1.2.5.1/1.dcm", "+research/_/1.2.5.2/z"]
    outside = [
        "1.2.6/x", "x", "+research/x", "+research/CT/x", "+research/CT/1.2.6.1/1.dcm",
        "research/CT/1.2.5.1/1.dcm", "+flat/1.2.5.dcm",
    ]  # fmt: skip
    for path in (*inside, *outside):
        several.file(path, b"")
    several.lines(several.fact("+flat/7.dcm", data_set(), study_instance_uid="1.2.5"))
    report = look(several, selection=Selection(study="1.2.5"))
    assert kinds(report) == {
        **dict.fromkeys(inside, Kind.UNJOURNALED),
        "+flat/7.dcm": Kind.MISSING,
    }
    # One of the layouts does not tell the study of a file.
    assert not report.searched
    assert set(kinds(look(several))) == {*inside, *outside, "+flat/7.dcm"}


@pytest.mark.parametrize("earlier", [RESEARCH, ANONYMOUS])
def test_a_layout_of_before_is_searched_too(tmp_path: Path, earlier: str) -> None:
    path = tmp_path / "store"
    Store.open(path, filed(LAYOUT, R=Filing(earlier))).close()
    Store.open(path, filed(LAYOUT), layout_change=True).close()
    shelf = Shelf.at(path)
    for one in ("1.2.5/1/1.dcm", "+research/CT/1.2.5.1/1.dcm", "+flat/1.dcm"):
        shelf.file(one, b"")
    report = look(shelf, selection=Selection(study="1.2.5"))
    is_told = earlier == RESEARCH
    assert report.searched is is_told
    told = {"+research/CT/1.2.5.1/1.dcm"} if is_told else set()
    assert set(kinds(report)) == {"1.2.5/1/1.dcm"} | told


def test_what_a_layout_of_before_filed_is_adopted(tmp_path: Path) -> None:
    path = tmp_path / "store"
    Store.open(path, filed(LAYOUT, R=Filing(ANONYMOUS))).close()
    Store.open(path, filed(LAYOUT), layout_change=True).close()
    shelf = Shelf.at(path)
    shelf.file(f"+flat/{SOP}.dcm", part10(data_set()))
    shelf.file(f"+other/{SOP}.dcm", part10(data_set()))
    found = {one.path: one.settled for one in look(shelf, adopt=True).findings}
    assert found == {f"+flat/{SOP}.dcm": "adopted", f"+other/{SOP}.dcm": ""}


def test_it_is_said_where_every_layout_tells_the_study(tmp_path: Path) -> None:
    Store.open(tmp_path / "store", filed(LAYOUT, R=Filing(RESEARCH))).close()
    shelf = Shelf.at(tmp_path / "store")
    shelf.file("1.2.5/x", b"")
    assert look(shelf, selection=Selection(study="1.2.5")).searched


@pytest.mark.parametrize(
    ("layout", "study", "path"),
    [
        # The codec encodes the last dot of such a folder.
        ("{StudyInstanceUID}.dcm/{SOPInstanceUID}.dcm", "1.2", "1.2%2Edcm/1.dcm"),
        ("{StudyInstanceUID}/{SOPInstanceUID}.dcm", "1.dcm.zst", "1.dcm%2Ezst/1.dcm"),
        ("x.dcm/{StudyInstanceUID}/{SOPInstanceUID}.dcm", "1.2", "x%2Edcm/1.2/1.dcm"),
        ("x/.fastscp/{StudyInstanceUID}/{SOPInstanceUID}.dcm", "1.2", "x/%2Efastscp/1.2/1.dcm"),
    ],
)
def test_folders_are_found_as_the_codec_names_them(layout: str, study: str, path: str) -> None:
    uids = {"StudyInstanceUID": study.encode(), "SeriesInstanceUID": b"1", "SOPInstanceUID": b"1"}
    assert Layout(layout).render(uids) == path
    assert takes(Studies((LAYOUT, layout), study), path)
    assert not takes(Studies((LAYOUT, layout), "1.3"), path)


def test_every_path_that_the_codec_makes_for_a_study_is_found() -> None:
    chance = random.Random(16)
    found = 0
    while found < 1000:
        layouts = [a_layout(chance) for _ in range(3)]
        values = some_values(chance)
        studies = Studies(layouts, values["StudyInstanceUID"].decode())
        for layout in layouts:
            try:
                path = Layout(layout).render(values)
            except LayoutError:
                continue
            if "{StudyInstanceUID}" in layout:
                assert takes(studies, path), (layout, values)
                assert takes(studies, f"{path}.zst~2"), (layout, values)
                found += 1


def test_a_thousand_layouts_make_no_walk_slow() -> None:
    layouts = [f"ward{n}/{{StudyInstanceUID}}/{{SOPInstanceUID}}.dcm" for n in range(1000)]
    studies = Studies(layouts, "1.2.5")
    began = time.process_time()
    way = studies.way("")
    for n in range(10_000):
        assert studies.takes(way, f"ward{n}", is_folder=True) is (n < 1000)
        assert len(studies.way(f"ward{n}/1.2.5")) == (n < 1000)
    assert time.process_time() - began < 2.0


# For whoever reads the findings -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "study", "depth"),
    [
        ("1.2.5/1/2.dcm", "", 1),
        ("+research/CT/1.2.5.1/2.dcm", "", 3),
        ("+research/CT/1.2.5.1/2.dcm~2", "1.2.5", 3),
        ("+flat/2.dcm", "", 1),
        ("2.dcm", "", 1),
        # Both layouts could have made it; the line knows.
        ("CT/1.2.5/2.dcm", "1.2.5", 2),
        ("CT/1.2.5/2.dcm", "", 1),
        ("CT/1.2.5/2.dcm", "CT", 1),
    ],
)
def test_how_deep_the_study_of_a_path_is(path: str, study: str, depth: int) -> None:
    by_modality = "{Modality}/{StudyInstanceUID}/{SOPInstanceUID}.dcm"
    studies = Studies((LAYOUT, RESEARCH, ANONYMOUS, by_modality))
    assert studies.depth(path, study) == depth


def test_a_length_tells_layouts_apart() -> None:
    studies = Studies(
        (LAYOUT, "{CallingAE}/{StudyInstanceUID}/{SeriesInstanceUID}/{SOPInstanceUID}.dcm")
    )
    assert studies.depth("CT1/1.2.5/1/2.dcm", "") == 2
    assert studies.depth("1.2.5/1/2.dcm", "") == 1


def test_a_run_tells_the_study_of_each_finding(several: Shelf) -> None:
    several.file("+research/CT/1.2.5.1/1.dcm", b"")
    several.file("1.2.5/1/1.dcm", b"")
    found: list[tuple[str, int]] = []

    def tell(finding: Finding) -> None:
        found.append((finding.path, run.study_depth(finding)))

    run = Verification(several.path, tell=tell, patience_s=0)
    run.run()
    assert dict(found) == {"+research/CT/1.2.5.1/1.dcm": 3, "1.2.5/1/1.dcm": 1}
    origin = Origin("CT1", "", "", "CT")
    assert run.study_depth(Finding(Kind.MISSING, "CT/1/2.dcm", "", origin=origin)) == 1


# Adopting ----------------------------------------------------------------------------------------


def test_a_file_belongs_to_whichever_layout_puts_it_there(several: Shelf) -> None:
    data = data_set()
    research = f"+research/CT/{STUDY}._/{SOP}.dcm"
    default = f"{STUDY}/{SERIES}/{SOP}.dcm"
    right = {default, research, f"+flat/{SOP}.dcm", f"+flat/{SOP}.dcm~2"}
    wrong = {f"{SOP}.dcm", f"+other/{SOP}.dcm", research.replace("+research", "research")}
    for path in (*right, *wrong):
        several.file(path, part10(data))
    several.file("+x/1.dcm", part10(data, receiver="F"))
    found = {one.path: one for one in look(several, adopt=True).findings}
    assert {path for path, one in found.items() if one.settled} == right
    # The place is that of the title that was called.
    for path in wrong:
        assert f"which is {default}, and no" in found[path].why
    assert f"which is +flat/{SOP}.dcm, and no" in found["+x/1.dcm"].why
