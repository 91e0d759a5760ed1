"""What `--fault` asks for: a test of how senders take it when something goes wrong."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import msgspec

from fastscp import uids
from fastscp.config.quantities import Duration
from fastscp.config.values import ExplainedError, Whole, quoted, read_text, read_written_title

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ACCEPTS", "FaultRule", "read_fault"]

ACCEPTS: Final = (
    "conditions (every=N, ae=TITLE, class=LIST) and what is to happen (status=A700, delay=2s, "
    "abort, reject, reject=1,1,1 or close), with spaces between them"
)
_EVERY: Final = Whole(1, 1_000_000_000)
# As long as a sender may be expected to wait, and more.
_DELAY: Final = Duration(0.001, 3600.0)
# Temporary congestion: what a sender is to try again for. Source: PS3.8 Table 9-21.
_REJECTED: Final = (2, 3, 1)
# By source, the reasons that there are.
_REASONS: Final = {1: (1, 2, 3, 7), 2: (1, 2), 3: (1, 2)}


class FaultRule(msgspec.Struct, frozen=True, kw_only=True):
    """One fault, and when it happens. Plain data: it goes to the workers as it is.

    text: as it was written. every: of all that the conditions hold for, each so many'th. ae: the
    calling AE title in its written form; empty: any. classes: the SOP classes; None: any.
    status: with which an instance is refused; 0: it is not. delay_s: for which its response is kept
    back. rejection: result, source and reason of an A-ASSOCIATE-RJ; None: nobody is rejected.
    aborts, closes: what happens to the association once an instance is whole, instead of storing
    it.
    """

    text: str
    every: int = 1
    ae: str = ""
    classes: uids.SopClassRule | None = None
    status: int = 0
    delay_s: float = 0.0
    rejection: tuple[int, int, int] | None = None
    aborts: bool = False
    closes: bool = False

    def __str__(self) -> str:
        return self.text


def read_fault(raw: object) -> FaultRule:
    """A rule from its text. Raises ValueError."""
    text = " ".join(read_text(raw).split())
    words = [word.partition("=") for word in text.split(" ")]
    names = [name.lower() for name, _equals, _value in words]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"says {name} twice")
    found: dict[str, object] = {}
    for name, (_name, equals, value) in zip(names, words, strict=True):
        if name in ("abort", "close") and not equals:
            found[f"{name}s"] = True
        elif name == "reject" and not equals:
            found["rejection"] = _REJECTED
        elif name in _READERS and value:
            field, read = _READERS[name]
            found[field] = _value_of(name, read, value)
        else:
            raise ValueError(f"has {quoted(name + equals + value)} in it")
    _refuse_nonsense(names)
    return FaultRule(text=text, **found)  # type: ignore[arg-type]


def _value_of(name: str, read: Callable[[str], object], value: str) -> object:
    try:
        return read(value)
    except ExplainedError:
        raise
    except ValueError as error:
        raise ValueError(f"has a {name} that {error}") from None


def _refuse_nonsense(names: list[str]) -> None:
    ends = [name for name in names if name in ("status", "abort", "reject", "close")]
    if not ends and "delay" not in names:
        raise ValueError("says nothing of what is to happen")
    if len(ends) > 1:
        raise ValueError(f"wants both {ends[0]} and {ends[1]}")
    if "delay" in names and ends and ends[0] != "status":
        raise ValueError(f"has a delay, which keeps a response back, and {ends[0]} sends none")


def _status(text: str) -> int:
    """A status that refuses: no success, no warning, nothing that is not final. See PS3.7 Annex C.

    Another one would tell the sender that what is not stored is.
    """
    if not re.fullmatch("[0-9A-Fa-f]{4}", text):
        raise ValueError("is no status of four hexadecimal digits")
    # Here, since help needs neither.
    from fastscp.status import StatusClass, classify
    from fastscp_ext import status as codes

    number = int(text, 16)
    is_known = (
        codes.NO_SUCH_ATTRIBUTE <= number <= 0x02FF
        or number >> 8 in (0xA7, 0xA9)
        or number >> 12 == 0xC
    )
    if not is_known or classify(number) is not StatusClass.FAILURE:
        raise ValueError("does not refuse (A7xx, A9xx, Cxxx, 01xx and 02xx do)")
    return number


def _rejection(text: str) -> tuple[int, int, int]:
    """Result, source and reason, as PS3.8 Table 9-21 knows them."""
    if not re.fullmatch("[1-9],[1-9],[1-9]", text):
        raise ValueError("is not RESULT,SOURCE,REASON, such as 1,1,1")
    result, source, reason = (int(digit) for digit in text.split(","))
    if result > 2 or reason not in _REASONS.get(source, ()):
        raise ValueError("no A-ASSOCIATE-RJ has (PS3.8 Table 9-21)")
    return result, source, reason


def _classes(text: str) -> uids.SopClassRule:
    try:
        return uids.sop_class_rule(text.split(","))
    except ValueError as error:
        raise ExplainedError(str(error)) from None


# By the word in front of the equals sign: the field, and what reads the text behind it.
_READERS: Final[dict[str, tuple[str, Callable[[str], object]]]] = {
    "every": ("every", _EVERY.read),
    "ae": ("ae", read_written_title),
    "class": ("classes", _classes),
    "status": ("status", _status),
    "delay": ("delay_s", _DELAY.read),
    "reject": ("rejection", _rejection),
}
