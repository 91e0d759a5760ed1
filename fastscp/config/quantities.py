"""Times and sizes as settings: a number with a unit."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Final

from fastscp.config.values import quoted, read_text

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Duration", "Size"]


def _quantity(raw: object, units: Mapping[str, Fraction]) -> Fraction:
    """A number with an optional unit; a bare number counts the unit whose factor is 1."""
    if isinstance(raw, (int, float)) and not isinstance(raw, bool):
        # As many digits as a text may have; no float holds every int.
        if isinstance(raw, int) and abs(raw) >= 10**18:
            raise ValueError("is too large")
        if not math.isfinite(raw):
            raise ValueError("is not a finite number")
        return Fraction(str(raw))
    match = re.fullmatch(r"(-?[0-9]{1,18}(?:\.[0-9]{1,9})?)\s*([A-Za-z]*)", read_text(raw))
    if match is None:
        raise ValueError("is not a number with a unit")
    number, unit = match.groups()
    # A table in small letters takes units in any.
    factor = units.get(unit) or units.get(unit.lower())
    if unit and factor is None:
        raise ValueError(f"has the unknown unit {quoted(unit)}")
    return Fraction(number) * (factor or 1)


_SECONDS: Final = {
    "d": Fraction(86400),
    "h": Fraction(3600),
    "m": Fraction(60),
    "s": Fraction(1),
    "ms": Fraction(1, 1000),
}
_BYTES: Final = {
    "TiB": Fraction(1 << 40),
    "GiB": Fraction(1 << 30),
    "MiB": Fraction(1 << 20),
    "KiB": Fraction(1 << 10),
    "B": Fraction(1),
}
# As they are read, in whatever case: K and KiB are 1024, KB is 1000.
_SIZE_UNITS: Final = {"b": Fraction(1)} | {
    letter + tail: Fraction(base**power)
    for power, letter in enumerate("kmgt", start=1)
    for tail, base in (("", 1024), ("ib", 1024), ("b", 1000))
}


def _shown(value: Fraction, units: Mapping[str, Fraction], plain: str) -> str:
    """The largest unit that leaves a whole number; `units` from large to small."""
    for unit, factor in units.items():
        if value and (value / factor).denominator == 1:
            return f"{value / factor} {unit}"
    return f"{float(value):g} {plain}" if value else "0"


@dataclass(frozen=True)
class Duration:
    """Seconds, as a float."""

    low: float
    high: float
    metavar: str = "TIME"

    @property
    def accepts(self) -> str:
        return f"a time such as 0.5, 30s, 5m or 1h, {self.limits}"

    @property
    def limits(self) -> str:
        return f"{self.show(self.low)} to {self.show(self.high)}"

    def read(self, raw: object) -> float:
        value = float(_quantity(raw, _SECONDS))
        if not self.low <= value <= self.high:
            raise ValueError(f"is {'less' if value < self.low else 'more'} than allowed")
        return value

    def show(self, value: float) -> str:
        # Below an hour operators compare seconds, and so do the manuals of modalities.
        exact = Fraction(str(value))
        return _shown(exact, _SECONDS if exact >= 3600 else {"s": _SECONDS["s"]}, "s")


@dataclass(frozen=True)
class Size:
    """Bytes, as an int. per_second: `/s` may stand behind them. most: 0: any number."""

    metavar: str = "SIZE"
    per_second: bool = False
    most: int = 0

    @property
    def accepts(self) -> str:
        each = " a second" if self.per_second else ""
        if self.most:
            return f"a number of bytes such as 512 or 64KiB (1024 each), {self.limits}"
        return f"a number of bytes{each} such as 512, 64MiB, 10G (1024 each) or 10GB (1000 each)"

    @property
    def limits(self) -> str:
        return f"0 to {self.show(self.most)}" if self.most else ""

    def read(self, raw: object) -> int:
        if self.per_second and isinstance(raw, str):
            raw = raw.strip().removesuffix("/s")
        value = _quantity(raw, _SIZE_UNITS)
        if value.denominator != 1:
            raise ValueError("is not a whole number of bytes")
        if not 0 <= value <= (self.most or (1 << 63) - 1):
            raise ValueError("is negative" if value < 0 else "is too large")
        return int(value)

    def show(self, value: int) -> str:
        return _shown(Fraction(value), _BYTES, "B")
