"""Which layouts of one store could give two instances the same path."""

from __future__ import annotations

import random
from collections import defaultdict
from itertools import combinations
from typing import TYPE_CHECKING, Final

import pytest

from fastscp.errors import ConfigError
from fastscp.store.candidates import candidates
from fastscp.store.collisions import _agree, _are_at_odds, _at_odds, check, collide
from fastscp.store.components import components
from fastscp.store.filing import Filing, Filings
from fastscp.store.store import Store
from fastscp_ext import Layout, LayoutError
from tests.stores import LAYOUT, filed, opened

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("no_descriptor_left")

UIDS: Final = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
TITLES: Final = ("CallingAE", "CalledAE")
VALUES: Final = ("PatientID", "Modality", "SOPClassUID", "StudyDate", "InstanceNumber")

# Two layouts, and values of two instances to which they give one path.
COLLIDING: Final = [
    # What looks like another study's is the same UID with another content, for all anybody knows.
    (
        "{StudyInstanceUID}/{SOPInstanceUID}.dcm", "{PatientID}/{SOPInstanceUID}.dcm",
        {"StudyInstanceUID": b"1.2"}, {"StudyInstanceUID": b"7", "PatientID": b"1.2"},
    ),
    (
        LAYOUT, "{StudyInstanceUID}/x/{SOPInstanceUID}.dcm",
        {"SeriesInstanceUID": b"x"}, {},
    ),
    (
        "{StudyInstanceUID}/{SOPInstanceUID}.dcm", "{SOPInstanceUID}/{StudyInstanceUID}.dcm",
        {"StudyInstanceUID": b"1", "SOPInstanceUID": b"2"},
        {"StudyInstanceUID": b"2", "SOPInstanceUID": b"1"},
    ),
    (
        "{SOPInstanceUID}.dcm", "{Modality}_{SOPInstanceUID}.dcm",
        {"SOPInstanceUID": b"CT_1"}, {"Modality": b"CT", "SOPInstanceUID": b"1"},
    ),
    (
        "CT/{SOPInstanceUID}x.dcm", "{StudyInstanceUID}/{SOPInstanceUID}.dcm",
        {"SOPInstanceUID": b"1"}, {"StudyInstanceUID": b"CT", "SOPInstanceUID": b"1x"},
    ),
    # A date is a UID, and any value can be `_`.
    (
        "{ReceivedDate}/{SOPInstanceUID}x.dcm", "{StudyInstanceUID}/{SOPInstanceUID}.dcm",
        {"ReceivedDate": b"20260531", "SOPInstanceUID": b"1"},
        {"StudyInstanceUID": b"20260531", "SOPInstanceUID": b"1x"},
    ),
    (
        "_/{SOPInstanceUID}.dcm", "{PatientID}/{SOPInstanceUID}{SeriesNumber}.dcm",
        {"SOPInstanceUID": b"12"}, {"SOPInstanceUID": b"1", "SeriesNumber": b"2"},
    ),
    # What looks like a file has its last dot encoded, as the first dot of a value is.
    (
        "x.{PatientID}/{SOPInstanceUID}y.dcm", "x{PatientID}/{SOPInstanceUID}.dcm",
        {"PatientID": b"dcm", "SOPInstanceUID": b"1"},
        {"PatientID": b".dcm", "SOPInstanceUID": b"1y"},
    ),
    (
        "x/.fastscp/{SOPInstanceUID}y.dcm", "x/{PatientID}/{SOPInstanceUID}.dcm",
        {"SOPInstanceUID": b"1"}, {"PatientID": b".fastscp", "SOPInstanceUID": b"1y"},
    ),
    (
        "x.dcm.zst/{SOPInstanceUID}y.dcm", "x.dcm{PatientID}/{SOPInstanceUID}.dcm",
        {"SOPInstanceUID": b"1"}, {"PatientID": b".zst", "SOPInstanceUID": b"1y"},
    ),
    (
        "x.dcm/{SOPInstanceUID}y.dcm", "x%2Edcm/{SOPInstanceUID}.dcm",
        {"SOPInstanceUID": b"1"}, {"SOPInstanceUID": b"1y"},
    ),
    (
        "{PatientID}.dcm/{SOPInstanceUID}y.dcm", "{PatientID}%2Edcm/{SOPInstanceUID}.dcm",
        {"SOPInstanceUID": b"1"}, {"SOPInstanceUID": b"1y"},
    ),
]  # fmt: skip

APART: Final = [
    ("{SOPInstanceUID}.dcm", "{StudyInstanceUID}/{SOPInstanceUID}.dcm"),
    ("a{SOPInstanceUID}.dcm", "b{SOPInstanceUID}.dcm"),
    ("{SOPInstanceUID}+a.dcm", "{SOPInstanceUID}+b.dcm"),
    ("_research/{SOPInstanceUID}_{Modality}.dcm", "{StudyInstanceUID}/{SOPInstanceUID}.dcm"),
    ("_/{SOPInstanceUID}_{Modality}.dcm", "{StudyInstanceUID}/{SOPInstanceUID}.dcm"),
    ("+research/{SOPInstanceUID}_{Modality}.dcm", "{PatientID}/{SOPInstanceUID}.dcm"),
    ("a..b/{SOPInstanceUID}_.dcm", "{StudyInstanceUID}/{SOPInstanceUID}.dcm"),
    ("CT 1/{SOPInstanceUID}x.dcm", "{Modality}/{SOPInstanceUID}.dcm"),
    ("2026/{SOPInstanceUID}x.dcm", "{ReceivedDate}/{SOPInstanceUID}.dcm"),
    ("20262931/{SOPInstanceUID}x.dcm", "{ReceivedDate}/{SOPInstanceUID}.dcm"),
    ("x{ReceivedDate}/{SOPInstanceUID}x.dcm", "{ReceivedDate}/{SOPInstanceUID}.dcm"),
    ("%c3/{SOPInstanceUID}x.dcm", "{CalledAE}/{SOPInstanceUID}.dcm"),
    # A file's name is no folder's.
    ("x/{SOPInstanceUID}.dcm", "x/{SOPInstanceUID}.dcm/{StudyInstanceUID}.dcm"),
    # Also where names are so long that they are cut.
    (
        "+a{PatientID}-{AccessionNumber}/{SOPInstanceUID}x.dcm",
        "+b{PatientID}-{AccessionNumber}/{SOPInstanceUID}.dcm",
    ),
    ("a" * 99 + "/{SOPInstanceUID}x.dcm", "{StudyInstanceUID}/{SOPInstanceUID}.dcm"),
]


def rendered(layout: str, values: dict[str, bytes]) -> str:
    return Layout(layout).render(dict.fromkeys(UIDS, b"1") | values)


@pytest.mark.parametrize(("one", "other", "values", "others"), COLLIDING)
def test_what_collides(
    one: str, other: str, values: dict[str, bytes], others: dict[str, bytes]
) -> None:
    assert rendered(one, values) == rendered(other, others)
    assert collide(one, other)
    assert collide(other, one)


@pytest.mark.parametrize(
    ("literal", "other", "value"),
    [
        # A value is cut, here inside an encoded byte.
        ("a" + "%2F" * 49 + "%2", "{PatientID}", b"a" + b"/" * 67),
        # A name is cut, and not inside a character of the layout.
        ("x" + "é" * 74, "x" + "é" * 120 + "{PatientID}z", b"y" * 20),
        # It has too many bytes only since its dot is encoded.
        ("a" * 150, "a" * 250 + ".dcm", b""),
    ],
)
def test_a_hash_is_a_part_of_a_name(literal: str, other: str, value: bytes) -> None:
    other += "/{SOPInstanceUID}.dcm"
    values = {"PatientID": value, "SOPInstanceUID": b"9"}
    path = rendered(other, values)
    folder, _tilde, of_folder = path.rpartition("/")[0].rpartition("~")
    assert folder == literal
    one = f"{literal}~{{SOPInstanceUID}}/{{SeriesInstanceUID}}.dcm"
    assert rendered(one, {"SOPInstanceUID": of_folder.encode(), "SeriesInstanceUID": b"9"}) == path
    assert collide(one, other)
    assert collide(other, one)
    plain = f"{folder}~{of_folder}/{{SOPInstanceUID}}x.dcm"
    assert rendered(plain, {"SOPInstanceUID": b"9"}).partition("/")[0] == path.partition("/")[0]
    assert collide(plain, other)


def test_a_hash_does_not_tell_instances_apart_for_sure() -> None:
    long = "x" * 200 + "{SOPInstanceUID}"
    assert collide(f"{long}/{{StudyInstanceUID}}.dcm", f"{long}/{{SeriesInstanceUID}}.dcm")


@pytest.mark.parametrize(("one", "other"), APART)
def test_what_does_not_collide(one: str, other: str) -> None:
    for layout in (one, other):
        assert rendered(layout, {"PatientID": b"1"})
        assert not collide(layout, layout)
    assert not collide(one, other)
    assert not collide(other, one)


# Against what the codec makes of values -----------------------------------------------------------

LITERALS: Final = (
    "a", "1", "_", "-", ".", "%", "%2E", "+", "é", "x.", "dcm", ".dcm", ".zst", ".dcm.zst",
    ".fastscp", "1.", "2026", "~", "%2Edcm", "x" * 60, "é" * 100,
)  # fmt: skip
UID_VALUES: Final = (b"1", b"2", b"a", b"dcm", b"1.2", b"1_a", b"1.dcm", b"a.dcm.zst", b"1" * 64)
TEXTS: Final = (
    b"", b"_", b"-", b".", b"%", b"a", b"1", b"1.2", b"dcm", b".dcm", b"x.dcm", b".dcm.zst", b"zst",
    b"fastscp", b".fastscp", b"2026", b"\xc3\xa9",
)  # fmt: skip
LONG: Final = (b"x" * 200, b"x" * 201, b"x" * 260, b"1" * 201, b"/" * 67)


def a_layout(chance: random.Random) -> str:
    """A layout of few short pieces, so that many have paths in common."""
    while True:
        folders = [
            "".join(
                chance.choice(LITERALS)
                if chance.random() < 0.45
                else f"{{{chance.choice((*UIDS, *UIDS, *TITLES, *VALUES, 'ReceivedDate'))}}}"
                for _ in range(chance.choice((1, 1, 1, 2, 2, 3)))
            )
            for _ in range(chance.choice((1, 2, 2, 2, 3)))
        ]
        layout = "/".join(folders) + ".dcm"
        try:
            Layout(layout)
        except ValueError:
            continue
        return layout


def some_values(chance: random.Random) -> dict[str, bytes]:
    values = {key: chance.choice(UID_VALUES) for key in UIDS}
    values |= {key: chance.choice(TEXTS) for key in TITLES}
    values |= {
        key: chance.choice(LONG if chance.random() < 0.1 else (*TEXTS, *UID_VALUES))
        for key in VALUES
    }
    values["ReceivedDate"] = chance.choice((b"20260531", b"19991231"))
    return values


def look(seed: int, layouts: int, renderings: int) -> tuple[int, int]:
    """Every pair of layouts that gives two instances one path has to be told.

    Returns how many did, and how many pairs are told to be apart.
    """
    chance = random.Random(seed)
    made = sorted({a_layout(chance) for _ in range(layouts)})
    at: dict[str, set[str]] = defaultdict(set)
    for layout in made:
        compiled = Layout(layout)
        for _ in range(renderings):
            values = some_values(chance)
            try:
                at[compiled.render(values)].add(layout)
            except LayoutError:
                continue
    met = {
        tuple(sorted((one, other)))
        for found in at.values()
        for one, other in combinations(found, 2)
        if one != other
    }
    for one, other in met:
        assert collide(one, other), (one, other)
        assert collide(other, one), (other, one)
    apart = sum(
        not collide(*chance.sample(made, 2)) for _ in range(min(1000, len(made) * len(made)))
    )
    return len(met), apart


def test_every_collision_that_is_found_by_trying_is_told() -> None:
    met, apart = look(16, layouts=500, renderings=80)
    assert met > 100
    assert apart > 300


@pytest.mark.long
@pytest.mark.parametrize("seed", range(20))
def test_every_collision_that_is_found_by_long_trying_is_told(seed: int) -> None:
    met, _apart = look(seed, layouts=2000, renderings=300)
    assert met > 3000


# Of a service ------------------------------------------------------------------------------------


def test_layouts_that_collide_are_named_with_their_tables() -> None:
    flat = Filing("{SOPInstanceUID}.dcm")
    odd = Filing("{Modality}-{SOPInstanceUID}.dcm")
    check(filed(flat.layout, A=Filing(LAYOUT), B=Filing(flat.layout)))
    with pytest.raises(ConfigError) as caught:
        check(filed(LAYOUT, A=Filing(LAYOUT), B=flat, C=odd))
    assert str(caught.value).startswith(
        f"[ae.C] layout: {odd.layout!r} can give an instance the path that {flat.layout!r} of "
        f"[ae.B] gives another one; use one layout for both, or "
    )
    with pytest.raises(ConfigError, match=r"of the top level gives another one"):
        check(filed(flat.layout, C=odd))


def test_all_layouts_that_collide_are_named() -> None:
    odd = {f"T{n}": Filing(f"{{Modality}}{n}{{SOPInstanceUID}}.dcm") for n in range(3)}
    with pytest.raises(ConfigError) as caught:
        check(Filings(Filing("{SOPInstanceUID}.dcm"), {"GOOD": Filing(LAYOUT), **odd}))
    told = caught.value.mistakes
    assert [one.partition(":")[0] for one in told] == [f"[ae.T{n}] layout" for n in range(3)]
    assert all("of the top level gives another one" in one for one in told)


def test_the_ways_out_that_are_named_are_some() -> None:
    odd = "{Modality}-{SOPInstanceUID}.dcm"
    check(filed("{SOPInstanceUID}.dcm", C=Filing(f"+research/{odd}")))
    check(filed("{PatientID}/{SOPInstanceUID}.dcm", C=Filing(f"+research/{odd}")))


def test_no_service_begins_or_goes_on_with_layouts_that_collide(path: Path) -> None:
    colliding = filed("{SOPInstanceUID}.dcm", A=Filing("{Modality}{SOPInstanceUID}.dcm"))
    with pytest.raises(ConfigError, match="can give an instance the path"):
        Store.open(path, colliding, layout_change=True)
    assert not path.exists()
    with opened(path, filed("{SOPInstanceUID}.dcm")) as store:
        before = (path / ".fastscp/store.toml").read_bytes()
        with pytest.raises(ConfigError, match="can give an instance the path"):
            store.refile(colliding, {"stable", "buffered"})
        assert (path / ".fastscp/store.toml").read_bytes() == before
        assert not (path / ".fastscp/buffered").exists()


def test_one_path_is_compressed_by_all_or_by_none() -> None:
    check(filed(LAYOUT, A=Filing(LAYOUT)))
    check(filed(LAYOUT, ".dcm.zst", A=Filing(LAYOUT, ".dcm.zst")))
    for suffixes in ((".dcm", ".dcm.zst"), (".dcm.zst", ".dcm")):
        with pytest.raises(ConfigError) as caught:
            check(filed(LAYOUT, suffixes[0], A=Filing(LAYOUT, suffixes[1])))
        assert str(caught.value).startswith(
            f"[ae.A] compress: {LAYOUT!r} with {suffixes[1]} gives an instance the path that the "
            f"same layout of the top level gives it with {suffixes[0]}, so one that comes to both "
            f"at once would be stored twice; use the same compress for both, or begin "
        )
        check(filed(LAYOUT, suffixes[0], A=Filing(f"+a/{LAYOUT}", suffixes[1])))
    with pytest.raises(ConfigError, match=r"^\[ae\.B\] compress: .* of \[ae\.A\] gives it with"):
        check(filed("+/{SOPInstanceUID}.dcm", A=Filing(LAYOUT), B=Filing(LAYOUT, ".dcm.zst")))


def test_no_service_begins_or_goes_on_with_two_forms_of_one_path(path: Path) -> None:
    both = filed(LAYOUT, A=Filing(LAYOUT, ".dcm.zst"))
    with pytest.raises(ConfigError, match=r"^\[ae\.A\] compress: "):
        Store.open(path, both, layout_change=True)
    assert not path.exists()
    with opened(path, filed(LAYOUT)) as store:
        before = (path / ".fastscp/store.toml").read_bytes()
        with pytest.raises(ConfigError, match=r"^\[ae\.A\] compress: "):
            store.refile(both, {"stable", "buffered"})
        assert (path / ".fastscp/store.toml").read_bytes() == before


def test_what_is_filed_as_before_meets_nothing_new(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a reload may change a table, associations of before still file as it said."""
    monkeypatch.setattr("fastscp.store.store.changes", lambda *_: [])
    before, odd = Filing("+a/{SOPInstanceUID}.dcm"), "+a/{Modality}{SOPInstanceUID}.dcm"
    packed = Filing(before.layout, ".dcm.zst")
    with opened(path, filed(LAYOUT, A=before)) as store:
        for _ in range(2):
            for now, option in ((packed, "compress"), (Filing(odd), "layout")):
                with pytest.raises(
                    ConfigError,
                    match=rf"^\[ae\.A\] {option}: .* of \[ae\.A\] until now gives .*; or restart",
                ):
                    store.refile(filed(LAYOUT, A=now), {"stable"})
            # Also where that is some reloads ago.
            store.refile(filed(LAYOUT), {"stable"})
        store.refile(filed(LAYOUT, A=before), {"stable"})
    with opened(path, filed(LAYOUT, A=packed)) as store:
        assert store.mixed


def test_what_is_passed_over_is_not_at_odds() -> None:
    """Against a look at each pair."""
    chance = random.Random(3)
    for _ in range(30):
        layouts = [a_layout(chance) for _ in range(40)]
        filings = tuple(dict.fromkeys(
            Filing(layout, chance.choice((".dcm", ".dcm", ".dcm", ".dcm.zst")))
            for layout in layouts + chance.sample(layouts, 10)
        ))  # fmt: skip
        every = [*combinations(filings, 2)]
        wrong = {frozenset(pair) for pair in every if _are_at_odds(pair)}
        assert wrong
        assert wrong >= {frozenset(p) for p in every if collide(p[0].layout, p[1].layout)}
        found = [frozenset(pair) for pair in candidates(filings, _agree)]
        assert len(found) == len(set(found))
        assert wrong <= set(found)
        assert not _agree(filings)


@pytest.mark.parametrize("seed", range(3))
def test_the_bytes_that_a_component_may_begin_with(seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(200):
        for one in components(a_layout(chance)):
            for taken, _target in one.automaton.edges[0]:
                assert taken & ~one.first == 0, one.text


@pytest.mark.parametrize(
    "of",
    [
        "{{StudyInstanceUID}}/T{n}_{{SOPInstanceUID}}.dcm",
        "{{PatientID}}/{{SOPInstanceUID}}+{n}.dcm",
        "{{PatientID}}_{n}/{{Modality}}-{{SOPInstanceUID}}.dcm",
        "+{n}/{{PatientID}}/{{SOPInstanceUID}}.dcm",
        "{{PatientID}}+{n}/{{SOPInstanceUID}}.dcm",
    ],
)
def test_two_thousand_layouts_are_not_looked_at_in_pairs(of: str) -> None:
    tables = {
        f"T{n}": Filing(of.format(n=n), (".dcm", ".dcm.zst")[n % 2 if "+{n}/" in of else 0])
        for n in range(2000)
    }
    filings = Filings(Filing("+/{SOPInstanceUID}.dcm"), tables)
    check(filings)
    looked_at = candidates([filing for _key, filing in filings], _agree)
    assert sum(1 for _pair in looked_at) < 20_000
    # And only once, though a reload asks twice.
    before = _at_odds.cache_info().hits
    check(Filings(filings.top, dict(tables)))
    assert _at_odds.cache_info().hits == before + 1


@pytest.mark.parametrize(
    "of",
    [
        "ward{n}/{{StudyInstanceUID}}/{{SOPInstanceUID}}.dcm",
        "ward{n}/{{StudyInstanceUID}}/{{Modality}}-{{SOPInstanceUID}}.dcm",
        "_w/{{PatientID}}-{n:04}/{{Modality}}-{{SOPInstanceUID}}.dcm",
    ],
)
def test_a_thousand_layouts_are_not_looked_at_in_pairs(of: str) -> None:
    filings = Filings(
        Filing("{StudyInstanceUID}/{SOPInstanceUID}.dcm"),
        {f"T{n}": Filing(of.format(n=n)) for n in range(1000)},
    )
    check(filings)
    looked_at = candidates([filing for _key, filing in filings], _agree)
    assert sum(1 for _pair in looked_at) < 20_000
