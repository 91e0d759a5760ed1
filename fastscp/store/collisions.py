"""Layouts of one store that could give two instances one path, or one instance two forms of it."""

from __future__ import annotations

from functools import lru_cache
from itertools import islice
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from fastscp.errors import ConfigError
from fastscp.store.candidates import candidates
from fastscp.store.components import components, meet
from fastscp.store.filing import TOP_LEVEL, refuse

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from fastscp.store.components import Component
    from fastscp.store.filing import Filing, Filings

__all__ = ["check", "collide", "collisions"]

_MOST: Final = 100
_NONE: Final[Mapping[Filing, str]] = MappingProxyType({})


def collide(one: str, other: str) -> bool:
    """Whether two layouts can give two instances the same path.

    A suffix and the mark of a version make no difference. False only where that is sure: the
    layouts are spelled alike, which is one layout, or no path of one is a path of the other.
    """
    return one != other and _meet(components(one), components(other))


def check(filings: Filings, earlier: Mapping[Filing, str] = _NONE) -> None:
    """Raise ConfigError where filings of a service are at odds over a path; it tells all.

    earlier: what associations may still file by, with its table.
    """
    found = collisions(filings, earlier)
    refuse([ConfigError(filings.option(key, name), why) for key, name, why in found])


def collisions(
    filings: Filings, earlier: Mapping[Filing, str] = _NONE
) -> Iterator[tuple[str, str, str]]:
    """Each filing that is at odds with one before it: the key of its table, a setting, and why.

    Two layouts collide, or one file would be compressed and the other one not: then two workers
    could store both at once, for each looks for the other form before it gives its own a name.
    earlier: as in `check`. Both tables are named.
    """
    keys = _keys(filings)
    told: set[Filing] = set()
    for first, second in _at_odds((*(one for one in earlier if one not in keys), *keys)):
        # What is earlier alone is nobody's to change.
        if second in keys and second not in told:
            told.add(second)
            of = keys.get(first) or earlier[first]
            named = "the top level" if of == TOP_LEVEL else f"[{of}]"
            yield keys[second], *_why(second, named, first, is_earlier=first not in keys)


def _why(filing: Filing, of: str, other: Filing, *, is_earlier: bool) -> tuple[str, str]:
    """The setting to change, and why. of: whose filing the other one is."""
    until, again = "", ""
    if is_earlier:
        until = " until now"
        again = "; or restart the service: associations that began before file as they began"
    if filing.layout != other.layout:
        return "layout", (
            f"{filing.layout!r} can give an instance the path that {other.layout!r} of {of}{until} "
            f"gives another one; use one layout for both, or begin one with a folder that begins "
            f"with +, as no value does, such as '+research/'{again}"
        )
    return "compress", (
        f"{filing.layout!r} with {filing.suffix} gives an instance the path that the same layout "
        f"of {of}{until} gives it with {other.suffix}, so one that comes to both at once would be "
        f"stored twice; use the same compress for both, or begin one layout with a folder of its "
        f"own that begins with +, such as '+compressed/'{again}"
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
    """Whether all are one and the same."""
    return all(filing == filings[0] for filing in filings)


def _are_at_odds(pair: tuple[Filing, Filing]) -> bool:
    one, other = pair
    return one != other and (one.layout == other.layout or collide(one.layout, other.layout))


def _meet(one: tuple[Component, ...], other: tuple[Component, ...]) -> bool:
    return len(one) == len(other) and all(map(meet, one, other))
