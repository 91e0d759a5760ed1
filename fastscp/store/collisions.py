"""Layouts of one store that could give two instances one path, or one instance two forms of it."""

from __future__ import annotations

from functools import lru_cache
from itertools import islice
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from fastscp.errors import ConfigError
from fastscp.store.candidates import candidates
from fastscp.store.components import components, meet

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fastscp.store.components import Component
    from fastscp.store.filing import Filing, Filings

__all__ = ["check", "collide"]

_MOST: Final = 100
_NONE: Final[Mapping[Filing, str]] = MappingProxyType({})


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


def check(filings: Filings, earlier: Mapping[Filing, str] = _NONE) -> None:
    """Raise ConfigError where two filings of a service are at odds over one path.

    Two layouts collide, or one file would be compressed and the other one not: then two workers
    could store both at once, for each looks for the other form before it gives its own a name.
    earlier: what associations may still file by, with its table. The error names both tables.
    """
    keys = _keys(filings)
    now = tuple(keys)
    found = next(iter(_at_odds((*now, *(one for one in earlier if one not in keys)))), None)
    if found is None:
        return
    first, second = found
    is_earlier = second not in keys
    if is_earlier:
        first, second = second, first
    key = earlier[first] if is_earlier else keys[first]
    of = "the top level" if key == "default" else f"[{key}]"
    until = " until now" if is_earlier else ""
    raise _error(keys[second], second, f"{of}{until}", first, is_earlier=is_earlier)


def _error(key: str, filing: Filing, of: str, other: Filing, *, is_earlier: bool) -> ConfigError:
    """key: of the table that is to change. of: whose filing the other one is."""
    option = "--" if key == "default" else f"[{key}] "
    again = (
        "; or restart the service: associations that began before file as they began"
        if is_earlier
        else ""
    )
    if collide(filing.layout, other.layout):
        return ConfigError(
            f"{option}layout",
            f"{filing.layout!r} can give an instance the path that {other.layout!r} of {of} gives "
            f"another one; use one layout for both, or end both in the same "
            f"/{{SOPInstanceUID}}.dcm at the same depth, or begin one with a folder that begins "
            f"with +, as no value does, such as '+research/'{again}",
        )
    return ConfigError(
        f"{option}compress",
        f"{filing.layout!r} with {filing.suffix} can give an instance the path that "
        f"{other.layout!r} of {of} gives it with {other.suffix}, so one that comes to both at once "
        f"would be stored twice; use the same compress for both, or begin one layout with a folder "
        f"of its own that begins with +, such as '+compressed/'{again}",
    )


def _keys(filings: Filings) -> dict[Filing, str]:
    """Each filing once, with the first table that has it."""
    keys: dict[Filing, str] = {}
    for key, filing in filings:
        keys.setdefault(filing, key)
    return keys


# A reload looks twice: when it reads the file, and before the store takes it.
@lru_cache(maxsize=4)
def _at_odds(filings: tuple[Filing, ...]) -> tuple[tuple[Filing, Filing], ...]:
    """Pairs that are at odds, the first of them first: at most a hundred are looked for."""
    order = {filing: number for number, filing in enumerate(filings)}
    found = islice(filter(_are_at_odds, candidates(filings, _agree)), _MOST)
    pairs = [(min(pair, key=order.__getitem__), max(pair, key=order.__getitem__)) for pair in found]
    return tuple(sorted(pairs, key=lambda pair: (order[pair[1]], order[pair[0]])))


def _agree(filings: Sequence[Filing]) -> bool:
    """Whether all name instances alike in one component, and have one suffix."""
    suffix = filings[0].suffix
    named = _instances(components(filings[0].layout))
    for filing in filings:
        named &= _instances(components(filing.layout))
        if not named or filing.suffix != suffix:
            return False
    return True


def _are_at_odds(pair: tuple[Filing, Filing]) -> bool:
    paths = components(pair[0].layout), components(pair[1].layout)
    return (
        pair[0].suffix != pair[1].suffix or _instances(paths[0]).isdisjoint(_instances(paths[1]))
    ) and _meet(*paths)


def _instances(path: tuple[Component, ...]) -> frozenset[tuple[int, str]]:
    """The components that are of one instance alone: where they stand, and how they are spelled."""
    return frozenset((n, one.text) for n, one in enumerate(path) if one.names_instance)


def _meet(one: tuple[Component, ...], other: tuple[Component, ...]) -> bool:
    return len(one) == len(other) and all(map(meet, one, other))
