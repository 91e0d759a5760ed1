"""The tap finds what belongs to the instance, or nothing: data sets made from trees are the judge.

A legal data set is never refused. Of a broken one values may be missing; one that is told is the
instance's. `TAP_SEEDS=FIRST:COUNT pytest tests/unit/test_tap_differential.py -k other_seeds` tries
other ones, `python -m tests.datasets SEED` shows one.
"""

from __future__ import annotations

import os
import random
import struct
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from fastscp_ext.dataset.tap import EXPLICIT_BE, EXPLICIT_LE, IMPLICIT_LE, Tap
from tests.datasets.case import Case, Outcome, Verdict, case, judge, reduced, slices
from tests.datasets.faults import BAD_VRS
from tests.datasets.legal import FOREIGN, legal
from tests.datasets.readers import UIDS, by_dcmdump, by_pydicom, part10
from tests.datasets.sound import PADDING, sound
from tests.datasets.tree import IMPLICIT, ITEM, SHORT_FORM, UNDEFINED, Coding, Element, Item, Tree
from tests.interop.material import dcmtk
from tests.streams.faulty import faulty, faulty_names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

DEFAULT = 1500
COMPARED = 300
BLOCK = 2500
# A header that is garbled leads into the bytes of pixel data or of an item, and what lies there is
# taken for an element of the instance; in the seeds that were tried never for a UID that places it.
# By seed what is told wrongly, and nothing else may be.
OPEN: dict[int, set[str]] = {
    16043: {"Modality"},
    39401: {"AccessionNumber", "InstanceNumber"},
    702018: {"StudyDate"},
    703685: {"PatientID"},
}
# Wrong ones were told of these once.
MENDED = (
    29523, 37763, 43863, 46739, 57770, 65621, 74137, 83038, 87115, 88399, 311293, 329892, 374796,
)  # fmt: skip
# Legal, and refused once: a value held the bytes of an item's header that led to an element.
REFUSED = (3715, 575772)
EXPLICIT = Coding()
BIG = Coding(order=">")


def family_of(tree: Tree) -> int:
    if tree.coding.implicit:
        return IMPLICIT_LE
    return EXPLICIT_BE if tree.coding.order == ">" else EXPLICIT_LE


def tapped(slices: Iterator[bytes], tree: Tree) -> Outcome:
    tap = Tap(family_of(tree))
    for one in slices:
        tap.feed(one)
    tap.end()
    return Outcome(tap.values(), tap.stopped, tap.truncated)


def is_known(one: Case, verdict: Verdict) -> bool:
    """Whether what is told wrongly is all that is wrong, and what is known to be."""
    return (
        len(verdict.problems) == 1
        and verdict.kind in ("wrong value", "half value")
        and verdict.wrong.keys() <= OPEN.get(one.seed, set())
    )


class Tally:
    """How many there were of each kind, and how many of these were found."""

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()
        self.found: Counter[str] = Counter()
        self.excused = 0
        self.failed: list[tuple[Case, Verdict]] = []

    def add(self, one: Case) -> Verdict:
        verdict = judge(one, tapped)
        kind = one.kinds[0] if len(one.kinds) == 1 else f"{len(one.kinds)} faults"
        self.seen[kind] += 1
        self.found[kind] += verdict.found
        self.excused += verdict.excused
        if verdict.problems and not is_known(one, verdict):
            self.failed.append((one, verdict))
        return verdict

    def check(self) -> None:
        """Fail with the first of each problem, made smaller, if there is any."""
        if not self.failed:
            return
        numbers: dict[str, list[int]] = {}
        for one, verdict in self.failed:
            numbers.setdefault(verdict.kind, []).append(one.seed)
        told = [f"{kind}: {len(of)}, seeds {of[:30]}" for kind, of in numbers.items()]
        for of in numbers.values():
            small = reduced(case(of[0]), tapped)
            told.append(small.describe(judge(small, tapped).problems))
        pytest.fail("\n\n".join([*told, str(self)]))

    def __str__(self) -> str:
        lines = [
            f"{kind:18} {self.found[kind]:6} of {self.seen[kind]:6} found"
            for kind in sorted(self.seen)
        ]
        return "\n".join([*lines, f"{self.excused} that nobody could tell from a sound one"])


def never_another(seeds: range) -> Tally:
    tally = Tally()
    for seed in seeds:
        tally.add(case(seed))
    tally.check()
    return tally


def test_finds_the_instances_values_or_none() -> None:
    tally = never_another(range(DEFAULT))
    # Not by refusing everything.
    broken = sum(tally.seen.values()) - tally.seen["0 faults"]
    assert sum(tally.found.values()) - tally.found["0 faults"] > broken // 4
    # Not because nobody could tell.
    assert tally.excused <= DEFAULT // 50


@pytest.mark.long
@pytest.mark.parametrize("first", range(10_000, 32_500, BLOCK))
def test_at_length(first: int) -> None:
    print(f"\n{never_another(range(first, first + BLOCK))}")


@pytest.mark.skipif("TAP_SEEDS" not in os.environ, reason="TAP_SEEDS=FIRST:COUNT is not set")
def test_other_seeds() -> None:
    first, _, count = os.environ["TAP_SEEDS"].partition(":")
    print(f"\n{never_another(range(int(first), int(first) + int(count or 1)))}")


@pytest.mark.parametrize("seed", MENDED)
def test_seeds_that_were_wrong(seed: int) -> None:
    assert not judge(case(seed), tapped).problems


@pytest.mark.parametrize("seed", REFUSED)
def test_legal_seeds_that_were_refused(seed: int) -> None:
    assert judge(case(seed, broken=False), tapped).found


def test_an_open_seed_excuses_its_own_values_only() -> None:
    one = case(39401)
    excused = judge(one, tapped)
    assert is_known(one, excused)
    for problems, wrong in (
        (["wrong value: x"], {**excused.wrong, "StudyInstanceUID": b"1.9"}),
        (["depends on the cuts: x"], excused.wrong),
        (["wrong value: x", "depends on the cuts: x"], excused.wrong),
    ):
        assert not is_known(one, Verdict(excused.outcome, problems, False, wrong))
    assert not is_known(case(1), excused)


@pytest.mark.long
@pytest.mark.xfail(reason="told, though it is not the instance's", strict=True)
@pytest.mark.parametrize("seed", OPEN)
def test_what_is_not_mended(seed: int) -> None:
    assert not judge(case(seed), tapped).problems


# The judge itself -----------------------------------------------------------------------------


def test_a_wrong_tap_is_noticed() -> None:
    """One that takes the last value of an item, and one that looks at its slices."""

    def last_wins(slices: Iterator[bytes], tree: Tree) -> Outcome:
        data = b"".join(slices)
        at = data.rfind(struct.pack(tree.coding.order + "HH", 0x0020, 0x000D))
        value = data[at : at + 40].partition(FOREIGN)
        return Outcome({"StudyInstanceUID": b"".join(value[1:])} if value[1] else {}, False, False)

    def first_slice(slices: Iterator[bytes], tree: Tree) -> Outcome:
        return Outcome({}, len(next(slices)) > 20, False)

    def refuses(slices: Iterator[bytes], tree: Tree) -> Outcome:
        return Outcome({}, True, False)

    broken = [case(seed, broken=True) for seed in range(100)]
    assert "wrong value" in {judge(one, last_wins).kind for one in broken}
    assert "depends on the cuts" in {judge(one, first_slice).kind for one in broken}
    for seed in range(20):
        assert judge(case(seed, broken=False), refuses).kind == "legal refused"


def test_the_truth_is_what_a_strict_reader_reads() -> None:
    for seed in range(300):
        one = case(seed, broken=False)
        read = sound(one.tree.data(), one.tree.coding)
        assert read is not None, f"seed {seed}"
        assert {key: value for key, value in read.items() if value} == one.tree.truth


def test_faults_can_be_taken_back() -> None:
    for seed in range(150):
        one = case(seed, broken=True)
        damaged = one.tree.data()
        for fault in reversed(one.faults):
            fault.undo()
        whole = one.tree.data()
        assert sound(whole, one.tree.coding) is not None, f"seed {seed}"
        for fault in one.faults:
            fault.redo()
        assert one.tree.data() == damaged


def test_a_failure_is_made_smaller() -> None:
    def refuses_sequences(slices: Iterator[bytes], tree: Tree) -> Outcome:
        data = b"".join(slices)
        has = any(node.items is not None for node in tree.elements)
        return Outcome({}, True, False) if has else tapped(iter([data]), tree)

    one = next(
        one
        for seed in range(100)
        if (one := case(seed, broken=False)) and judge(one, refuses_sequences).kind
    )
    before = len(one.tree.elements)
    small = reduced(one, refuses_sequences)
    assert judge(small, refuses_sequences).kind == "legal refused"
    assert len(small.tree.elements) < before
    assert sum(node.items is not None for node in small.tree.elements) == 1


# Other readers --------------------------------------------------------------------------------


def compare(seeds: range, folder: Path) -> Counter[str]:
    """What pydicom and dcmdump read beside what the tap tells; the truth wins."""
    program = dcmtk("dcmdump")
    cases = [case(seed) for seed in seeds]
    files = []
    for one in cases:
        file = folder / str(one.seed)
        file.write_bytes(part10(one.tree.data(), one.tree.coding))
        files.append(file)
    said: Counter[str] = Counter()
    for one, dumped in zip(cases, by_dcmdump(program, files), strict=True):
        read = by_pydicom(one.tree.data(), one.tree.coding)
        truth = {keyword: one.tree.truth[keyword] for keyword in UIDS.values()}
        if not one.faults:
            # Both may miss values of VR UN, and neither knows others: so much for the generator.
            assert dumped.items() <= truth.items(), f"seed {one.seed}"
            assert read.items() <= truth.items(), f"seed {one.seed}"
            said["legal"] += 1
            said["legal, read by both"] += dumped == read == truth
            continue
        if len(dumped) < len(UIDS) or dumped != read:
            continue
        verdict = judge(one, tapped)
        if verdict.problems:
            pytest.fail(one.describe([*verdict.problems, f"pydicom and dcmdump: {read}"]))
        told = {
            keyword: verdict.outcome.values[keyword].strip(PADDING)
            for keyword in truth
            if keyword in verdict.outcome.values
        }
        what = "found" if told == truth else "refused" if told.items() <= truth.items() else "wrong"
        said[f"{'truth' if read == truth else 'not the truth'}, {what}"] += 1
        if read != truth or told != truth:
            print(f"seed {one.seed} {one.kinds}: pydicom and dcmdump {read}, tap {told}, {truth}")
    return said


@pytest.mark.interop
def test_beside_pydicom_and_dcmdump(tmp_path: Path) -> None:
    said = compare(range(COMPARED), tmp_path)
    # Else they would compare nothing.
    assert said["legal, read by both"] > 0.9 * said["legal"] > 0
    # Where both of them find their way, the tap mostly does, too.
    assert said["truth, found"] > 0.8 * (said["truth, found"] + said["truth, refused"]) > 0


@pytest.mark.long
@pytest.mark.interop
@pytest.mark.parametrize("first", range(100_000, 105_000, BLOCK))
def test_beside_pydicom_and_dcmdump_at_length(first: int, tmp_path: Path) -> None:
    print("\n", compare(range(first, first + BLOCK), tmp_path))


# What has to be found though it is broken -----------------------------------------------------


def un_with_explicit_items(rng: random.Random, coding: Coding) -> Element:
    foreign = [
        Element(0x00081150, "UI", b"1.2.840.10008.5.1.4\0"),
        Element(0x0020000D, "UI", FOREIGN + b"\0"),
        Element(0x0020000E, "UI", FOREIGN + b"\0"),
    ]
    chosen = [one for one in foreign if rng.random() < 0.7]
    items = [Item(list(chosen), rng.random() < 0.5) for _ in range(rng.randrange(1, 4))]
    return Element(0x00091010, "UN", items=items, inside=False)


def bare(rng: random.Random, coding: Coding) -> Element:
    return Element(rng.choice((0x00081110, 0x00081115, 0x00081140)), "SQ", items=[], end=())


def without_vr(rng: random.Random, coding: Coding) -> Element:
    tag, vr = rng.choice(((0x00080070, "LO"), (0x00081030, "LO"), (0x00091001, "LO")))
    return Element(tag, vr, rng.choice((b"ACME", b"A ", b"A B C D E F")), other=True)


def short_length(rng: random.Random, coding: Coding) -> Element:
    vr = rng.choice((b"RE", b"ZZ", b"UN", b"OB", b"OW", b"UT"))
    size = 2 * rng.randrange(1, 40)
    value = b"text" * 20 if vr in (b"UT", b"RE") else rng.randbytes(80)
    return Element(0x00091001, "UN", value[:size], vr_bytes=vr, long=False)


def long_length(rng: random.Random, coding: Coding) -> Element:
    vr = rng.choice(("LO", "US", "SH", "CS", "DS"))
    return Element(0x00081030, vr, rng.choice((b"AB", b"ABCD", b"some more text")), long=True)


def odd_vr(rng: random.Random, coding: Coding) -> Element:
    tag = rng.choice((0x00080005, 0x00080005, 0x00080070, 0x00091001))
    return Element(tag, "CS", b"ISO_IR 100", vr_bytes=rng.choice(BAD_VRS), long=False)


EASY = (un_with_explicit_items, bare, short_length, long_length, odd_vr)


@pytest.mark.parametrize(
    ("kind", "coding"),
    [(without_vr, EXPLICIT), *((kind, coding) for kind in EASY for coding in (EXPLICIT, BIG))],
)
def test_easy_faults_are_read_past(
    kind: Callable[[random.Random, Coding], Element], coding: Coding
) -> None:
    """One of them, in front of the UIDs of an image that is plain otherwise."""
    missed = []
    for seed in range(100):
        rng = random.Random(seed)
        tree = legal(rng, plain=True, coding=coding)
        tree.elements = [
            one
            for one in tree.elements
            if one.items is None and (one.vr in SHORT_FORM or one.tag >> 16 == 0x7FE0)
        ]
        fault = kind(rng, coding)
        image = {0x00280010: ("US", b"\0\2"), 0x7FE00010: ("OW", bytes(64))}
        tree.elements = [
            one
            for one in tree.elements
            if one.tag not in (fault.tag, *image) and one.tag & 0xFFFF and one.tag < 0x7FE10000
        ]
        tree.elements += [Element(tag, vr, value) for tag, (vr, value) in image.items()]
        tree.elements.sort(key=lambda one: one.tag)
        at = sum(one.tag < fault.tag for one in tree.elements)
        tree.elements.insert(at, fault)
        one = Case(seed, tree)
        verdict = judge(one, tapped)
        if not verdict.found or verdict.wrong:
            missed.append(one.describe([str(verdict.outcome)]))
    assert not missed, f"{len(missed)} missed\n{missed[0]}"


@pytest.mark.parametrize("kind", ["UN", "SQ", "implicit"])
@pytest.mark.parametrize("defined", [False, True])
def test_more_items_than_any_constant(kind: str, *, defined: bool) -> None:
    count = 300_000
    coding = IMPLICIT if kind != "SQ" else EXPLICIT
    if defined:
        items = coding.mark(ITEM) * count
    else:
        items = (coding.mark(ITEM, UNDEFINED) + coding.mark(0xE00D)) * count
    header = struct.pack("<HH", 0x0008, 0x1140)
    if kind != "implicit":
        header += kind.encode() + bytes(2)
    data = header + struct.pack("<L", UNDEFINED) + items + coding.mark(0xE0DD)
    tree = legal(1, plain=True, coding=IMPLICIT if kind == "implicit" else EXPLICIT)
    behind = [one for one in tree.elements if one.tag > 0x00081140]
    front = Tree(tree.coding, [one for one in tree.elements if one.tag < 0x00081140])
    whole = front.data() + data + Tree(tree.coding, behind).data()
    for places in ([], [7, 100_001, 2_000_003]):
        outcome = tapped(slices(whole, places), tree)
        assert {key: value.strip(PADDING) for key, value in outcome.values.items()} == tree.truth
        assert not outcome.stopped
        assert not outcome.truncated


@pytest.mark.parametrize("coding", [EXPLICIT, IMPLICIT, BIG], ids=["explicit", "implicit", "big"])
def test_deeper_than_any_constant(coding: Coding) -> None:
    levels = 20_000
    order = coding.order
    sequence = struct.pack(order + "HH", 0x0040, 0xA730)
    if not coding.implicit:
        sequence += b"SQ\0\0"
    opened = sequence + struct.pack("<L", UNDEFINED) + coding.mark(ITEM, UNDEFINED)
    closed = coding.mark(0xE00D) + coding.mark(0xE0DD)
    foreign = Tree(coding, [Element(0x0020000D, "UI", FOREIGN + b"\0")]).data()
    tree = legal(2, plain=True, coding=coding)
    front = Tree(coding, [one for one in tree.elements if one.tag < 0x00100020]).data()
    behind = Tree(coding, [one for one in tree.elements if one.tag >= 0x00100020]).data()
    whole = front + opened * levels + foreign + closed * levels + behind
    outcome = tapped(slices(whole, [5, 1003]), tree)
    assert {key: value.strip(PADDING) for key, value in outcome.values.items()} == tree.truth
    assert not outcome.stopped


@pytest.mark.parametrize("name", [name for name in faulty_names() if faulty(name).plain])
def test_inputs_that_were_reported(name: str) -> None:
    seen = faulty(name)
    data = seen.data
    for step in (len(data), 1, 7):
        tap = Tap(IMPLICIT_LE if seen.syntax == "1.2.840.10008.1.2" else EXPLICIT_LE)
        for at in range(0, len(data), step):
            tap.feed(data[at : at + step])
        tap.end()
        values = tap.values()
        assert values["StudyInstanceUID"] == seen.study.encode()
        assert values["SeriesInstanceUID"] == seen.series.encode()
