"""Paths from templates and hostile values; what may be a UID in a name."""

from __future__ import annotations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fastscp_ext.dataset.layout import KEYS, Layout, LayoutError
from fastscp_ext.dataset.uid import UID_AS_NAME, UID_STRICT, uid_grade
from tests import reference_layout

DEFAULT = "{StudyInstanceUID}/{SeriesInstanceUID}/{SOPInstanceUID}.dcm"
UIDS = {"StudyInstanceUID": b"1.2", "SeriesInstanceUID": b"1.2.3", "SOPInstanceUID": b"1.2.3.4"}

many = settings(max_examples=200, deadline=None, derandomize=True)


def first_name(value: bytes, key: str = "PatientID") -> str:
    path = Layout(f"{{{key}}}/{{SOPInstanceUID}}.dcm").render({**UIDS, key: value})
    folder, name = path.split("/")
    assert name == "1.2.3.4.dcm"
    return folder


def test_default() -> None:
    layout = Layout(DEFAULT)
    assert layout.render(UIDS) == "1.2/1.2.3/1.2.3.4.dcm"
    assert (layout.template, layout.suffix) == (DEFAULT, b".dcm")
    assert Layout(DEFAULT, b".dcm.zst").render(UIDS) == "1.2/1.2.3/1.2.3.4.dcm.zst"


def test_every_key() -> None:
    template = "/".join(f"{key}={{{key}}}" for key in KEYS) + "/{SOPInstanceUID}.dcm"
    values = {key: key.encode() for key in KEYS}
    path = Layout(template).render(values)
    assert path == "/".join(f"{key}={key}" for key in KEYS) + "/SOPInstanceUID.dcm"
    missing = Layout(template).render(UIDS)
    assert missing.count("=_") == len(KEYS) - 3


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (b"", "_"),
        (b"_", "_"),
        (b"P-1_x.y", "P-1_x.y"),
        (b"A/B", "A%2FB"),
        (b".", "%2E"),
        (b"..", "%2E."),
        (b"../../etc", "%2E.%2F..%2Fetc"),
        (b"-rf", "%2Drf"),
        (b"--", "%2D-"),
        (b"a b~c%", "a%20b%7Ec%25"),
        (b"\0\n\x7f\xff", "%00%0A%7F%FF"),
        (b".fastscp", "%2Efastscp"),
        (b"x.dcm", "x%2Edcm"),
        (b"x.dcm.zst", "x.dcm%2Ezst"),
        (b".dcm", "%2Edcm"),
        (b"x.DCM", "x.DCM"),
        (b"x.zst", "x.zst"),
        (b"dcm", "dcm"),
        (b"a" * 200, "a" * 200),
        (b"/" * 66 + b"ab", "%2F" * 66 + "ab"),
    ],
)
def test_values(value: bytes, name: str) -> None:
    assert first_name(value) == name
    assert first_name(value, "CallingAE") == name
    assert first_name(value, "SOPClassUID") == name


def test_long_values_are_cut_and_hashed() -> None:
    # FNV-1a, 64 bits: its published answers for "" and "a" pin the reference.
    assert reference_layout.fnv_1a(b"") == 0xCBF29CE484222325
    assert reference_layout.fnv_1a(b"a") == 0xAF63DC4C8601EC8C
    value = b"a" * 201
    assert first_name(value) == "a" * 150 + f"~{reference_layout.fnv_1a(value):016x}"
    escaped = b"/" * 67
    assert first_name(escaped) == "%2F" * 50 + f"~{reference_layout.fnv_1a(escaped):016x}"
    assert first_name(b"a" * 300 + b"1") != first_name(b"a" * 300 + b"2")


@pytest.mark.parametrize(
    ("uid", "usual", "strict"),
    [
        (b"1", True, True),
        (b"1.2.840.10008", True, True),
        (b"1.02.0", True, True),
        (b"1" * 64, True, True),
        (b"1" * 65, False, False),
        (b"", False, False),
        (b".", False, False),
        (b"..", False, False),
        (b"1..2", False, False),
        (b".1", False, False),
        (b"1.", False, False),
        (b"1.2 ", False, False),
        (b" 1.2", False, False),
        (b"1.2\0", False, False),
        (b"1\0.2", False, False),
        (b"1/2", False, False),
        (b"../1", False, False),
        (b"C:\\1", False, False),
        (b"\xb2", False, False),
        (b"a1-b_c.D", True, False),
        (b"-1", False, False),
        (b"_1", False, False),
        (b"1-", False, False),
        (b"1_", False, False),
        (b"1.-.2", True, False),
        (b"1" * 1000, False, False),
    ],
)
def test_uids(uid: bytes, usual: bool, strict: bool) -> None:
    assert (uid_grade(uid) >= UID_AS_NAME) is usual
    assert (uid_grade(uid) == UID_STRICT) is strict
    for key in UIDS:
        values = {**UIDS, key: uid}
        if usual:
            assert uid.decode() in Layout(DEFAULT).render(values)
            continue
        for template in (DEFAULT, "{SOPInstanceUID}.dcm"):
            with pytest.raises(LayoutError) as refused:
                Layout(template).render(values)
            assert refused.value.key == key
            missing = uid == b"" and key != "SOPInstanceUID"
            assert refused.value.why.startswith("absent or empty" if missing else "unfit")


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("{StudyUID}/{SOPInstanceUID}.dcm", "'StudyUID' is no key; keys: StudyInstanceUID"),
        ("{}/{SOPInstanceUID}.dcm", "'' is no key"),
        ("{ PatientID}/{SOPInstanceUID}.dcm", "' PatientID' is no key"),
        ("{Modality/{SOPInstanceUID}.dcm", "a { without its }"),
        ("{Modality{PatientID}}/{SOPInstanceUID}.dcm", "a { without its }"),
        ("Modality}/{SOPInstanceUID}.dcm", "a } without its {"),
        ("{SOPInstanceUID}}.dcm", "a } without its {"),
        ("/{SOPInstanceUID}.dcm", "relative"),
        ("a/../{SOPInstanceUID}.dcm", "'..' is no name"),
        ("../{SOPInstanceUID}.dcm", "'..' is no name"),
        ("./{SOPInstanceUID}.dcm", "'.' is no name"),
        ("a//{SOPInstanceUID}.dcm", "'' is no name"),
        ("{SOPInstanceUID}.dcm/", "'' is no name"),
        ("", "'' is no name"),
        ("{StudyInstanceUID}/{SeriesInstanceUID}.dcm", "{SOPInstanceUID} must be in it"),
        ("{SOPInstanceUID}", "end in .dcm"),
        ("{SOPInstanceUID}.DCM", "end in .dcm"),
        ("{SOPInstanceUID}/.dcm", "end in .dcm"),
        (".fastscp/{SOPInstanceUID}.dcm", "begins with a dot"),
        (".{CallingAE}/{SOPInstanceUID}.dcm", "begins with a dot"),
        ("a\0/{SOPInstanceUID}.dcm", "not printable"),
        ("a\n/{SOPInstanceUID}.dcm", "not printable"),
        ("a\ud800/{SOPInstanceUID}.dcm", "not printable"),
        ("a" * 256 + "/{SOPInstanceUID}.dcm", "over 255 bytes"),
        ("a/" * 600 + "{SOPInstanceUID}.dcm", "too long"),
        ("a" * 250 + "/" + ("b" * 250 + "/") * 4 + "{SOPInstanceUID}.dcm", "too long"),
    ],
)
def test_bad_templates(template: str, why: str) -> None:
    with pytest.raises(ValueError, match=r"^layout ") as refused:
        Layout(template)
    assert why in str(refused.value)


def test_bad_suffix_and_values() -> None:
    with pytest.raises(ValueError, match="suffix"):
        Layout(DEFAULT, b".zip")
    with pytest.raises(ValueError, match="'PatientName' is no layout key"):
        Layout(DEFAULT).render({**UIDS, "PatientName": b"x"})


def test_composites() -> None:
    layout = Layout("d.{Modality}.{PatientID}/é {StudyDate}/{Modality}{SOPInstanceUID}~.dcm")
    assert layout.render(UIDS) == "d._._/é _/_1.2.3.4~.dcm"
    values = {**UIDS, "Modality": b".", "PatientID": b"x.dcm"}
    assert layout.render(values) == "d.%2E.x%2Edcm/é _/%2E1.2.3.4~.dcm"
    hidden = Layout("a/.{Modality}/..{PatientID}/{SOPInstanceUID}.dcm")
    values = {**UIDS, "Modality": b".", "PatientID": b".."}
    assert hidden.render(values) == "a/.%2E/..%2E./1.2.3.4.dcm"
    # No peer can have an instance put where a store keeps its own.
    for template in ("a/.{Modality}", "a/.fast{Modality}", "a/.fastscp"):
        layout = Layout(template + "/.fastscp{SOPInstanceUID}.dcm")
        values = {**UIDS, "Modality": b"scp" if "fast" in template else b"fastscp"}
        assert layout.render(values) == "a/%2Efastscp/.fastscp1.2.3.4.dcm"
    folder = Layout("{PatientID}.{Modality}/images.dcm/{SOPInstanceUID}.dcm")
    values = {**UIDS, "PatientID": b"P", "Modality": b"dcm"}
    assert folder.render(values) == "P%2Edcm/images%2Edcm/1.2.3.4.dcm"
    assert Layout(DEFAULT).render({**UIDS, "StudyInstanceUID": b"1.dcm"}).startswith("1%2Edcm/")


def test_lengths() -> None:
    pair = Layout("{PatientID}{Modality}/{SOPInstanceUID}.dcm")
    fits = {**UIDS, "PatientID": b"p" * 200, "Modality": b"m" * 55}
    assert pair.render(fits).startswith("p" * 200 + "m" * 55 + "/")
    for modality in (b"m" * 56, b"m" * 51 + b".dcm"):
        folder, _ = pair.render({**fits, "Modality": modality}).split("/")
        whole = b"p" * 200 + modality.replace(b".dcm", b"%2Edcm")
        assert folder == "p" * 150 + f"~{reference_layout.fnv_1a(whole):016x}"
    # 4095 bytes and the NUL: 20 folders of 201 with their slash are 4020.
    deep = "{PatientID}/" * 20
    values = {**UIDS, "PatientID": b"p" * 200, "SOPInstanceUID": b"1" * 60}
    assert len(Layout(deep + "1234567{SOPInstanceUID}sop.dcm").render(values)) == 4094
    assert len(Layout(deep + "12345678{SOPInstanceUID}sop.dcm").render(values)) == 4095
    with pytest.raises(LayoutError, match="4095") as refused:
        Layout(deep + "123456789{SOPInstanceUID}sop.dcm").render(values)
    assert refused.value.key is None


@pytest.mark.parametrize("suffix", [".dcm", ".dcm.zst"])
def test_a_version_fits_behind_every_name_of_a_file(suffix: str) -> None:
    name = Layout("{PatientID}{SOPInstanceUID}.dcm", suffix.encode())
    longest = {**UIDS, "PatientID": b"p" * 200, "SOPInstanceUID": b"1" * 45}
    assert name.render(longest) == "p" * 200 + "1" * 45 + suffix
    assert len("p" * 200 + "1" * 45 + ".dcm.zst~9") == 255
    seen = set()
    for size in range(46, 65):
        path = name.render({**longest, "SOPInstanceUID": b"1" * size})
        whole = b"p" * 200 + b"1" * size
        assert path == "p" * 150 + f"~{reference_layout.fnv_1a(whole):016x}{suffix}"
        seen.add(path)
    assert len(seen) == 19


def test_a_name_is_not_cut_inside_a_character() -> None:
    for lead in ("", "x"):
        folder = Layout(f"{lead}{'é' * 120}{{PatientID}}/{{SOPInstanceUID}}.dcm").render(
            {**UIDS, "PatientID": b"p" * 30}
        )
        whole = f"{lead}{'é' * 120}{'p' * 30}".encode()
        cut = lead + "é" * (75 - len(lead))
        assert folder == f"{cut}~{reference_layout.fnv_1a(whole):016x}/1.2.3.4.dcm"


keys = st.sampled_from(KEYS).map(lambda key: f"{{{key}}}")
literals = st.sampled_from(
    ["a", "x.dcm", ".", "..", ".fast", "-", "%2E", "~", "é", ".dcm.zst", "b" * 90]
)
folders = st.lists(st.one_of(keys, keys, literals), min_size=1, max_size=4).map("".join)
templates = st.builds(
    lambda parts, name: "/".join([*parts, name + "{SOPInstanceUID}.dcm"]),
    st.lists(folders, max_size=6),
    st.one_of(st.just(""), folders),
)
uids = st.sampled_from([*[b"1.2.3", b"1.dcm", b"a.dcm.zst", b"9" * 64] * 4, b"x..y", b""])
texts = st.one_of(
    st.binary(max_size=90),
    st.text(".-_/a\\ ", max_size=5).map(str.encode),
    st.sampled_from(
        [b"a" * 199 + b".", b"a" * 198 + b"/", b".dcm", b"zst", b"dcm", b"fastscp", b"scp"]
    ),
)


@many
@given(
    templates,
    st.fixed_dictionaries(
        dict.fromkeys(UIDS, uids), optional={key: texts for key in KEYS if key not in UIDS}
    ),
    st.sampled_from([".dcm", ".dcm.zst"]),
)
def test_agrees_with_the_reference(template: str, values: dict[str, bytes], suffix: str) -> None:
    names = template.split("/")
    assume(not template.startswith(".") and "." not in names and ".." not in names)
    assume(all(len(name.encode()) <= 255 for name in names))
    layout = Layout(template, suffix.encode())
    expected = reference_layout.render(template, values, suffix)
    if expected is None:
        with pytest.raises(LayoutError):
            layout.render(values)
        return
    path = layout.render(values)
    assert path == expected
    *parts, name = path.split("/")
    assert name.endswith(suffix)
    assert not any(part in ("", ".", "..", ".fastscp") for part in parts)
    assert not any(part.endswith((".dcm", ".dcm.zst")) for part in parts)
    assert not path.startswith((".", "/"))
    assert "\0" not in path
