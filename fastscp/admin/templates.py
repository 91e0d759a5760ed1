"""Texts of metrics from templates: prometheus_client writes a family once for the labels that it
has, and from then on the numbers alone are put in.

It writes marks in place of the numbers then. So names, help, labels and their escapes are its own,
and so is each number that is not a whole one. Where the marks cannot be found again, one at the end
of each line, it writes the family each time.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Final, Protocol

from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from prometheus_client.core import Metric

__all__ = ["Labels", "Row", "Templates", "Written", "number_texts"]

Labels = tuple[str, ...]
# The numbers of some labels: one, or those of a histogram, as many each time.
Row = tuple[Labels, "Sequence[float]"]

# From here on numbers are written with an exponent, and from there on floats are not exact.
_EXPONENT: Final = 1_000_000
_INEXACT: Final = 1 << 53


class Written(Protocol):
    """A family that is written."""

    @property
    def name(self) -> str: ...

    def metric(self, rows: Iterable[Row]) -> Metric:
        """It, with any numbers, as prometheus_client knows it."""


class Templates:
    """Writes families as an encoder of prometheus_client does.

    Memory: the last text of each family, and the template for that.
    """

    def __init__(self, encoder: Callable[[Collector], bytes]) -> None:
        self._encoder = encoder
        # What ends each text, also that of one family.
        self._end = self._encoded()
        self._known: dict[str, _Template] = {}

    def text(self, families: Iterable[tuple[Written, list[Row]]]) -> bytes:
        """The whole text of families with their rows."""
        parts = [self._part(family, rows) for family, rows in families]
        return "".join([*parts, self._end]).encode()

    def _part(self, family: Written, rows: list[Row]) -> str:
        template = self._known.get(family.name)
        if template is None or not template.fits(rows):
            template = self._known[family.name] = self._template(family, rows)
        text = template.text(rows)
        return self._written(family, rows) if text is None else text

    def _template(self, family: Written, rows: list[Row]) -> _Template:
        marked, count = list[Row](), 0
        for labels, numbers in rows:
            marked.append((labels, [count + n + 0.5 for n in range(len(numbers))]))
            count += len(numbers)
        places = {_as_float(place + 0.5): place for place in range(count)}
        form, order = _split(self._written(family, marked), places)
        return _Template(rows, form if set(order) == set(places.values()) else None, order)

    def _written(self, family: Written, rows: Iterable[Row]) -> str:
        return self._encoded(family.metric(rows)).removesuffix(self._end)

    def _encoded(self, *metrics: Metric) -> str:
        return self._encoder(_Metrics(*metrics)).decode()


class _Template:
    """For rows with the labels of these. form: the text, with %s for numbers; None: there is none.

    order: which of the numbers of all rows stand there.
    """

    def __init__(self, rows: list[Row], form: str | None, order: Sequence[int]) -> None:
        self._form = form
        self._labels = [labels for labels, _numbers in rows]
        self._order = None if order == [*range(len(order))] else order
        # The last rows, and their text.
        self._rows: list[Row] | None = None
        self._text = ""

    def fits(self, rows: list[Row]) -> bool:
        return rows == self._rows or [labels for labels, _numbers in rows] == self._labels

    def text(self, rows: list[Row]) -> str | None:
        if self._form is None:
            return None
        if rows != self._rows:
            texts = number_texts(chain.from_iterable([numbers for _labels, numbers in rows]))
            if self._order is not None:
                texts = [texts[place] for place in self._order]
            self._rows, self._text = rows, self._form % tuple(texts)
        return self._text


class _Metrics(Collector):
    """What prometheus_client asks for what it is to write."""

    def __init__(self, *metrics: Metric) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        return iter(self._metrics)


def _split(text: str, places: Mapping[str, int]) -> tuple[str, list[int]]:
    """A text with %s for the mark at the end of each sample's line, and which marks these were.

    Nothing where such a line has none.
    """
    lines, order = list[str](), list[int]()
    # Labels may have other ends of lines in them.
    for line in text.split("\n"):
        before, blank, mark = line.rpartition(" ")
        if line.startswith("#") or not line:
            lines.append(line.replace("%", "%%"))
        elif mark in places:
            lines.append(f"{before.replace('%', '%%')}{blank}%s")
            order.append(places[mark])
        else:
            return "", []
    return "\n".join(lines), order


def number_texts(numbers: Iterable[float]) -> list[str]:
    """Of each what prometheus_client makes of it, which takes longer."""
    most = _EXPONENT
    return [f"{n}.0" if type(n) is int and 0 <= n < most else _number_text(n) for n in numbers]


def _number_text(number: float) -> str:
    if type(number) is not int or not _EXPONENT <= number < _INEXACT:
        return _as_float(number)
    digits = str(number)
    mantissa = f"{digits[0]}.{digits[1:]}".rstrip("0.")
    return f"{mantissa}e+{len(digits) - 1:02d}"


def _as_float(number: float) -> str:
    found: str = floatToGoString(number)  # type: ignore[no-untyped-call]
    return found
