"""What main and its workers tell each other.

A connection travels with its `Offer` as a descriptor; main keeps its own copy until `Taken` came
back.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from fastscp.association.negotiation import Policy  # noqa: TC001 - msgspec reads the annotations
from fastscp.config.settings import WorkerConfig  # noqa: TC001

__all__ = [
    "Abandon",
    "Ask",
    "Drain",
    "Failed",
    "FromWorker",
    "Gone",
    "Offer",
    "Ready",
    "Setup",
    "Stop",
    "Taken",
    "ToWorker",
    "Verdict",
]


class Setup(msgspec.Struct, tag=True, frozen=True, kw_only=True):
    """First message to a worker: all it needs to know, besides the descriptors it inherits.

    worker: its number, also of its place in what is shared. life: name of its part folder.
    run: names this run of the service in association ids. config: the settings, as they are
    declared. policy: those among them that decide over a request, with their names looked up.
    use_link, mixed, suspect: what main found out about the store.
    """

    worker: int
    life: str
    run: str
    config: WorkerConfig
    policy: Policy
    use_link: bool
    mixed: bool
    suspect: bool


class Offer(msgspec.Struct, tag=True, frozen=True):
    """A connection, its descriptor attached. `number` is its association's from now on."""

    number: int
    host: str
    port: int


class Verdict(msgspec.Struct, tag=True, frozen=True):
    """The answer to `Ask`: admitted where `result` is 0, else what to reject with.

    ae_row: of the calling AE title, among the counters.
    """

    number: int
    result: int = 0
    source: int = 0
    reason: int = 0
    why: str = ""
    ae_row: int = 0


class Abandon(msgspec.Struct, tag=True, frozen=True):
    """Close this connection, which has not become an association."""

    number: int


class Drain(msgspec.Struct, tag=True, frozen=True):
    """Let associations go on for `seconds`, then end them, then exit."""

    seconds: float


class Stop(msgspec.Struct, tag=True, frozen=True):
    """End every association now and exit."""


class Ready(msgspec.Struct, tag=True, frozen=True):
    """The worker is up."""


class Failed(msgspec.Struct, tag=True, frozen=True):
    """The worker cannot begin to work, and exits."""

    why: str


class Taken(msgspec.Struct, tag=True, frozen=True):
    """The worker has the connection; main may close its copy."""

    number: int


class Ask(msgspec.Struct, tag=True, frozen=True):
    """May this association be admitted?"""

    number: int
    calling_ae: str
    called_ae: str


class Gone(msgspec.Struct, tag=True, frozen=True):
    """The connection is over."""

    number: int


ToWorker: TypeAlias = Setup | Offer | Verdict | Abandon | Drain | Stop
FromWorker: TypeAlias = Ready | Failed | Taken | Ask | Gone
