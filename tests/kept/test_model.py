"""The model of what a store may hold says so when a store holds something else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from fastscp_ext import crc32c
from tests.kept.kit_kept import Item, Sending, items, versions_of
from tests.kept.model import Model, known_at

if TYPE_CHECKING:
    from collections.abc import Iterable

(ITEM,) = items("1", 1)
A, B, C = versions_of(ITEM, 3)
PATH = ITEM.path
OK, KEPT, REFUSED, FAILED = 0, 0xB006, 0xC000, 0xA700


def line(item: Item, **more: Any) -> dict[str, Any]:
    digest = f"crc32c:{crc32c(item.data):08x}"
    return {"path": PATH, "bytes": len(item.data), "digest": digest, **more}


def judged(
    policy: str,
    sendings: Iterable[Sending],
    *there: Item,
    lines: Iterable[Item] = (A, B, C),
    firm_refusals: bool = True,
) -> list[str]:
    """there: the content of the first version, of the second, and so on."""
    files = {PATH if n == 1 else f"{PATH}~{n}": item.data for n, item in enumerate(there, 1)}
    model = Model(policy, firm_refusals, list(sendings))
    bad = model.faults(files, [line(item) for item in lines])
    assert model.tally.losses == len(bad)
    return bad


def sent(item: Item, status: int | None, began: int = 0, ended: int | None = 10) -> Sending:
    return Sending(item, began, ended, status)


GOOD: list[tuple[str, list[Sending], list[Item]]] = [
    ("version", [sent(A, OK), sent(B, OK), sent(C, None)], [B, A]),
    ("version", [sent(A, OK), sent(B, OK), sent(C, None)], [C, A, B]),
    ("version", [sent(A, FAILED)], []),
    ("replace", [sent(A, OK), sent(B, OK)], [A]),  # at the same time: any order
    ("replace", [sent(A, OK, 0, 5), sent(B, OK, 6, 7)], [B]),
    ("replace", [sent(A, OK, 0, 5), sent(B, None, 6, 9)], [A]),
    ("replace", [sent(A, OK, 0, 5), sent(B, None, 6, 9)], [B]),
    ("replace", [sent(A, OK, 0, 5), sent(B, OK, 6, 7), sent(A, OK, 8, 9)], [A]),
    ("replace", [sent(A, None, 0, None), sent(B, OK, 6, 7)], [A]),  # still on its way
    ("keep", [sent(A, OK), sent(B, KEPT)], [A]),
    ("keep", [sent(A, None), sent(B, KEPT), sent(C, None)], [C]),
    ("keep", [sent(A, None)], []),
    ("refuse", [sent(A, OK), sent(B, REFUSED)], [A]),
]
BAD: list[tuple[str, list[Sending], list[Item], str]] = [
    ("version", [sent(A, OK)], [], "in no version"),
    ("version", [sent(A, OK), sent(B, OK)], [A], "in no version"),
    ("version", [sent(A, OK)], [A, A], "the same bytes in two versions"),
    ("version", [sent(A, OK)], [A, B], "not what anybody sent"),
    ("version", [sent(A, KEPT)], [A], "answered B006 under version"),
    ("replace", [sent(A, OK), sent(B, None)], [A, B], "a version under replace"),
    ("replace", [sent(A, OK)], [], "gone"),
    ("replace", [sent(A, OK, 0, 5), sent(B, OK, 6, 7)], [A], "what a later instance replaced"),
    ("replace", [sent(A, None, 0, 5), sent(B, OK, 6, 7)], [A], "what a later instance replaced"),
    ("replace", [sent(A, OK), sent(B, FAILED)], [B], "what a later instance replaced"),
    ("keep", [sent(A, OK), sent(B, OK)], [A], "two different instances"),
    ("keep", [sent(A, OK), sent(B, None)], [B], "gone"),
    ("keep", [sent(A, None), sent(B, KEPT)], [], "nothing is there"),
    ("keep", [sent(A, None), sent(B, KEPT)], [B], "told that another one is"),
    ("keep", [sent(A, REFUSED)], [], "answered C000 under keep"),
    ("refuse", [sent(A, OK)], [], "gone"),
    ("refuse", [sent(A, None), sent(B, REFUSED)], [B], "told that another one is"),
]


@pytest.mark.parametrize(("policy", "sendings", "there"), GOOD)
def test_allowed(policy: str, sendings: list[Sending], there: list[Item]) -> None:
    assert judged(policy, sendings, *there) == []


@pytest.mark.parametrize(("policy", "sendings", "there", "text"), BAD)
def test_not_allowed(policy: str, sendings: list[Sending], there: list[Item], text: str) -> None:
    bad = judged(policy, sendings, *there)
    assert any(text in one for one in bad), bad


def test_the_journal_counts() -> None:
    assert judged("version", [sent(A, OK)], A, lines=[A]) == []
    for lines in ([], [B]):
        assert "without a journal line" in judged("version", [sent(A, OK)], A, lines=lines)[0]
    told = [sent(A, OK)]
    assert Model("keep", sendings=told).faults({PATH: A.data}, [line(A, duplicate="kept")])


def test_names() -> None:
    told = [sent(A, OK), sent(B, OK)]
    files = {PATH: A.data, f"{PATH}~3": B.data}
    assert "a gap" in Model("version", sendings=told).faults(files, [line(A), line(B)])[0]
    assert "nobody sent it" in Model("version").faults({"1/2/3.dcm": A.data}, [])[0]


def test_refusals_after_a_buffered_life() -> None:
    told = [sent(A, None), sent(B, REFUSED), sent(B, OK, 20, 30)]
    assert judged("refuse", told, B)
    assert judged("refuse", told, B, firm_refusals=False) == []


def test_what_is_known_at_a_moment() -> None:
    early, late, later = sent(A, OK, 0, 5), sent(B, OK, 4, 9), sent(C, OK, 7, 9)
    first, second = known_at([early, late, later], 6)
    assert first is early
    assert (second.item, second.ended, second.status) == (B, 6, None)
    assert (late.ended, late.status) == (9, OK)
