"""Which of thousands of layouts are to be looked at in pairs: most cannot meet, by their literals.

Two layouts of one length meet only where each component of one meets the other's there. What a
component begins with, and what it ends with, rules most pairs out, and sorting finds the rest.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from itertools import accumulate, combinations, product
from typing import TYPE_CHECKING, Final, NamedTuple

from fastscp.store.components import ANY_BYTE, components

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from fastscp.store.components import Component
    from fastscp.store.filing import Filing

__all__ = ["candidates"]

# So few are looked at one by one.
_FEW: Final = 8
_END: Final = b"\xff" * 256


class _Edge(NamedTuple):
    """How a component begins, or ends, read from there.

    literal: what it is for sure, perhaps no byte. first: the bytes that may come first, as bits.
    """

    literal: bytes
    first: int

    def may_equal(self, other: _Edge) -> bool:
        """Whether one can go on as the other does."""
        return bool(self.first & other.first) and (
            self.literal.startswith(other.literal) or other.literal.startswith(self.literal)
        )


def candidates(
    filings: Sequence[Filing], is_settled: Callable[[Sequence[Filing]], bool]
) -> Iterator[tuple[Filing, Filing]]:
    """Pairs of filings whose layouts may meet: all that do, and some more, each once.

    is_settled: whether nothing can be wrong between any two of some filings; they are passed over.
    """
    lengths: dict[int, list[Filing]] = defaultdict(list)
    for filing in filings:
        lengths[len(components(filing.layout))].append(filing)
    for length, members in lengths.items():
        yield from _among(members, [(n, end) for n in range(length) for end in (0, 1)], is_settled)


def _among(
    members: Sequence[Filing],
    edges: list[tuple[int, int]],
    is_settled: Callable[[Sequence[Filing]], bool],
) -> Iterator[tuple[Filing, Filing]]:
    """edges: where components may be told apart: which one, and at which end."""
    if len(members) < 2 or is_settled(members):
        return
    if len(members) <= _FEW or not edges:
        yield from combinations(members, 2)
        return
    best = min(edges, key=lambda edge: _cost(_grouped(members, edge)))
    groups = _grouped(members, best)
    if len(groups) == 1:
        # None tells any two apart.
        yield from combinations(members, 2)
        return
    for one, other in _meeting(groups):
        yield from product(groups[one], groups[other])
    left = [edge for edge in edges if edge != best]
    for group in groups.values():
        yield from _among(group, left, is_settled)


def _grouped(members: Sequence[Filing], edge: tuple[int, int]) -> dict[_Edge, list[Filing]]:
    number, end = edge
    groups: dict[_Edge, list[Filing]] = defaultdict(list)
    for filing in members:
        groups[_edge(components(filing.layout)[number], end)].append(filing)
    return groups


def _edge(component: Component, end: int) -> _Edge:
    literal = component.tail[::-1] if end else component.lead
    if literal:
        return _Edge(literal, 1 << literal[0])
    return _Edge(literal, ANY_BYTE if end else component.first)


def _cost(groups: dict[_Edge, list[Filing]]) -> tuple[int, int]:
    """How many pairs an edge leaves, at most; of two that leave as many, one that tells more apart.

    It counts those of one group, too, which another edge may tell apart.
    """
    sums = [0, *accumulate(len(groups[key]) for key in sorted(groups))]
    pairs = sum(
        (sums[number + 1] - sums[number]) * (sums[after] - sums[number])
        for number, after, _key in _ranges(groups)
    )
    return pairs, -len(groups)


def _meeting(groups: dict[_Edge, list[Filing]]) -> Iterator[tuple[_Edge, _Edge]]:
    """Pairs of groups that the edge does not tell apart."""
    keys = sorted(groups)
    for number, after, key in _ranges(groups):
        for other in keys[number + 1 : after]:
            if key.may_equal(other):
                yield key, other


def _ranges(groups: dict[_Edge, list[Filing]]) -> Iterator[tuple[int, int, _Edge]]:
    """Each in order: where it stands, where those end that begin with its literal, and itself.

    A literal stands right before all that begin with it.
    """
    keys = sorted(groups)
    literals = [key.literal for key in keys]
    for number, key in enumerate(keys):
        yield number, bisect_left(literals, key.literal + _END, number), key
