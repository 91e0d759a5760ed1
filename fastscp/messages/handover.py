"""What a main process and its successor tell each other while one takes over from the other.

They may be of two versions of the program. So a message gets new members only with defaults, and
`HANDOVER_VERSION` changes where one means something else. Descriptors come with `Passed`.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import msgspec

from fastscp.messages.totals import Totals  # noqa: TC001 - msgspec reads it

__all__ = [
    "COMMON",
    "HANDOVER_VERSION",
    "LOCK",
    "Counting",
    "DrainToo",
    "FromSuccessor",
    "Go",
    "Handover",
    "Left",
    "Named",
    "Passed",
    "Prepared",
    "Serving",
    "ToSuccessor",
]

HANDOVER_VERSION: Final = 1

# What is passed besides listening sockets.
LOCK: Final = "lock"
COMMON: Final = "common"


class Handover(msgspec.Struct, tag=True, frozen=True, kw_only=True):
    """First of all: what the successor takes over. So many `Passed` follow.

    pid, run: of whom it takes over from. filings: by what instances were filed in its life: key,
    layout, suffix. workers: process ids by number. kept: settings that the successor may not
    change, as text, by field. is_activated: the listening sockets are a service
    manager's, and outlive the service. claims: its workers claim a path before they name anything
    there; older versions do not, and do not say so.
    """

    version: int
    pid: int
    run: str
    passed: int
    filings: list[tuple[str, str, str]] = []
    workers: dict[int, int] = {}
    kept: dict[str, str] = {}
    is_activated: bool = False
    claims: bool = False


class Passed(msgspec.Struct, tag=True, frozen=True):
    """A descriptor comes along. name: `LOCK`, `COMMON`, or that of a listening socket."""

    name: str


class Go(msgspec.Struct, tag=True, frozen=True):
    """The answer to `Prepared`: nobody accepts any more; take over.

    totals: all that was counted until now; None: a version that tells nothing of that.
    """

    totals: Totals | None = None


class Counting(msgspec.Struct, tag=True, frozen=True):
    """What the predecessor has counted until now; told now and then while it has associations."""

    totals: Totals


class Named(msgspec.Struct, tag=True, frozen=True):
    """The answer to `Serving`: the service manager was told whom to hear from now on."""


class DrainToo(msgspec.Struct, tag=True, frozen=True):
    """The successor was told to end: what is left of its predecessor ends in that time, too."""

    seconds: float


class Prepared(msgspec.Struct, tag=True, frozen=True):
    """The successor could take over at once: its workers are up. counts: it knows `Counting`."""

    counts: bool = False


class Serving(msgspec.Struct, tag=True, frozen=True):
    """The successor accepts: it is the service from now on."""


class Left(msgspec.Struct, tag=True, frozen=True):
    """The last worker of the predecessor has gone, and it goes now.

    clean: whether all of them went in order. totals: all that was counted.
    """

    clean: bool
    totals: Totals | None = None


ToSuccessor: TypeAlias = Handover | Passed | Go | Named | Counting | Left
FromSuccessor: TypeAlias = Prepared | Serving | DrainToo
