"""Layouts of one store that could give two instances the same path."""

from __future__ import annotations

from collections import defaultdict
from itertools import combinations, product
from typing import TYPE_CHECKING

from fastscp.errors import ConfigError
from fastscp.store.components import components, meet

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from fastscp.store.components import Component
    from fastscp.store.filing import Filings

__all__ = ["check", "collide"]


def collide(one: str, other: str) -> bool:
    """Whether two layouts can give two instances with different SOP Instance UIDs the same path.

    A suffix and the mark of a version make no difference. False only where that is sure: the
    layouts are spelled alike, which is one layout; equal paths mean one instance, for the same
    component of both names it in the same way; or no path of one is a path of the other.
    """
    if one == other:
        return False
    paths = components(one), components(other)
    return _instances(paths[0]).isdisjoint(_instances(paths[1])) and _meet(*paths)


def check(filings: Filings) -> None:
    """Raise ConfigError where two layouts of a service collide; it names both and their tables."""
    keys: dict[str, str] = {}
    for key, filing in filings:
        keys.setdefault(filing.layout, key)
    found = next(_colliding(keys), None)
    if found is None:
        return
    first, second = sorted(found, key=list(keys).index)
    of = "the top level" if keys[first] == "default" else f"[{keys[first]}]"
    raise ConfigError(
        f"[{keys[second]}] layout",
        f"{second!r} can give an instance the path that {first!r} of {of} gives another one; use "
        f"one layout for both, or end both in the same /{{SOPInstanceUID}}.dcm at the same depth, "
        f"or begin one with a folder that begins with +, as no value does, such as '+research/'",
    )


def _colliding(layouts: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Pairs of layouts that collide.

    Those that name instances alike are not looked at one by one: there may be thousands.
    """
    groups: dict[tuple[int, frozenset[tuple[int, str]]], list[str]] = defaultdict(list)
    for layout in layouts:
        path = components(layout)
        groups[len(path), _instances(path)].append(layout)
    for (length, named), members in groups.items():
        if not named:
            yield from filter(_pair_meets, combinations(members, 2))
        for (other_length, other_named), others in groups.items():
            is_before = (length, sorted(named)) < (other_length, sorted(other_named))
            if length == other_length and is_before and named.isdisjoint(other_named):
                yield from filter(_pair_meets, product(members, others))


def _pair_meets(pair: tuple[str, str]) -> bool:
    return _meet(components(pair[0]), components(pair[1]))


def _instances(path: tuple[Component, ...]) -> frozenset[tuple[int, str]]:
    """The components that are of one instance alone: where they stand, and how they are spelled."""
    return frozenset((n, one.text) for n, one in enumerate(path) if one.names_instance)


def _meet(one: tuple[Component, ...], other: tuple[Component, ...]) -> bool:
    return len(one) == len(other) and all(map(meet, one, other))
