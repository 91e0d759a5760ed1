"""What main and its workers tell each other.

A connection travels with its `Offer` as a descriptor; main keeps its own copy until `Taken` came
back.
"""

from __future__ import annotations

import signal
from typing import Final, TypeAlias

import msgspec

from fastscp.association.account import Terms
from fastscp.log import Line  # noqa: TC001 - msgspec reads it

__all__ = [
    "CHECKPOINT_FAILED",
    "HELD_OFF",
    "SAID_MOST",
    "Abandon",
    "Ask",
    "Configured",
    "Displace",
    "Displaced",
    "Drain",
    "End",
    "Failed",
    "FromWorker",
    "Gone",
    "Holds",
    "Idle",
    "Leaving",
    "Offer",
    "Over",
    "Ready",
    "Relayed",
    "Reopen",
    "Retire",
    "Said",
    "SeekIdle",
    "Setup",
    "Stop",
    "Taken",
    "ToWorker",
    "Unshaken",
    "Verdict",
]

# Main starts a worker with these signals blocked, and the worker lets them through once it knows
# what they mean to it: none ends it before that.
HELD_OFF: Final = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGUSR1,
    signal.SIGUSR2,
)

# A worker ends with this exit code where the disk refused a flush that its redo log was to outlive.
# It has to be recovered without trust in what the system keeps in memory.
CHECKPOINT_FAILED: Final = 75

# So many lines fit into a message, whatever is in them.
SAID_MOST: Final = 8


class Setup(msgspec.Struct, tag=True, frozen=True, kw_only=True):
    """First message to a worker: who it is. `Configured` follows, with what it is to do.

    worker: its number, also of its place in what is shared. life: name of its part folder.
    run: names this run of the service in association ids.
    use_link, nameless, suspect: what main found out about the store; nameless as
    `fastscp_ext.nameless_way` has it. names: of UIDs, for the log.
    redo_bytes: the largest part that goes to the redo log; 0: none does. redo_files: how many parts
    may be kept open for it. store_id, boot, mount, system: what the log's files say of the store,
    as `fastscp.store.mounts.Mounted` has it.
    port, tls_port: that main listens on, without TLS and with it; 0: on none. shows_log: whether
    main shows the last lines of the log to somebody: then the worker says `Said`.
    """

    worker: int
    life: str
    run: str
    use_link: bool
    suspect: bool
    nameless: int = 0
    names: dict[str, str] = {}
    port: int = 0
    tls_port: int = 0
    redo_bytes: int = 0
    redo_files: int = 0
    store_id: str = ""
    boot: str = ""
    mount: str = ""
    system: str = ""
    shows_log: bool = False


class Configured(msgspec.Struct, tag=True, frozen=True):
    """The settings and rules from now on, in the descriptor that comes along.

    generation: of the rules, which are newer than all before. Associations keep those they have.
    """

    generation: int


class Offer(msgspec.Struct, tag=True, frozen=True):
    """A connection, its descriptor attached. `number` is its association's from now on.

    slot: of the shared claims, where whoever is the first takes it. tls: whether it came to the
    port where TLS is spoken.
    """

    number: int
    slot: int
    host: str
    port: int
    tls: bool = False


class Verdict(msgspec.Struct, tag=True, frozen=True):
    """The answer to `Ask`: admitted where `result` is 0, else what to reject with.

    ae_row: of the calling AE title, among the counters. tally: the slot in which what the
    association does is counted, cleared; -1: there is none left.
    """

    number: int
    result: int = 0
    source: int = 0
    reason: int = 0
    why: str = ""
    ae_row: int = 0
    tally: int = -1


class Abandon(msgspec.Struct, tag=True, frozen=True):
    """Close this connection, which is no association, or none any more."""

    number: int


class SeekIdle(msgspec.Struct, tag=True, frozen=True):
    """Which association of this address is idle for the longest time?

    newcomer: the connection that wants its place.
    """

    newcomer: int
    host: str


class Displace(msgspec.Struct, tag=True, frozen=True):
    """Abort this association, unless something goes on in it, for want of places.

    newcomer: the connection that gets its place. whom: the same for the log.
    """

    number: int
    newcomer: int
    whom: str


class End(msgspec.Struct, tag=True, frozen=True):
    """End this association, or connection, whatever it does. why: for the log."""

    number: int
    why: str


class Drain(msgspec.Struct, tag=True, frozen=True):
    """Let associations go on for `seconds`, then end them, then exit."""

    seconds: float


class Retire(msgspec.Struct, tag=True, frozen=True):
    """Take no connection any more, and exit with the last association, in `seconds` at most.

    Then associations end as when a drain does, except that those that have just come, or rest
    between two messages, may finish one more.
    """

    seconds: float


class Stop(msgspec.Struct, tag=True, frozen=True):
    """End every association now and exit."""


class Reopen(msgspec.Struct, tag=True, frozen=True):
    """Open the file of the log anew: it may have been moved away."""


class Ready(msgspec.Struct, tag=True, frozen=True):
    """The worker is up."""


class Leaving(msgspec.Struct, tag=True, frozen=True):
    """The worker drains: it takes no connection any more.

    What it was offered and has not said `Taken` of before goes on to another worker.
    """


class Holds(msgspec.Struct, tag=True, frozen=True):
    """The answer to `Configured`: all that the worker asks from now on is by these rules.

    They are older ones where it could not take the new, for the system had no descriptor left.
    """

    generation: int


class Failed(msgspec.Struct, tag=True, frozen=True):
    """The worker cannot begin to work, and exits."""

    why: str


class Taken(msgspec.Struct, tag=True, frozen=True):
    """The worker has the connection; main may close its copy."""

    number: int


class Relayed(msgspec.Struct, tag=True, frozen=True):
    """A proxy has said whose the connection is: main counts it by this address from now on.

    It comes behind `Taken` and before `Ask`.
    """

    number: int
    host: str
    port: int


class Ask(msgspec.Struct, tag=True, frozen=True):
    """May this association be admitted?

    terms: what it would get, for main to tell of if the worker cannot any more. generation: of the
    rules it was judged by. ae, sender: the keys of its tables among them, or empty. refused: how
    many presentation contexts would be refused, by abstract syntax as it came; "": of others.
    """

    number: int
    calling_ae: str
    called_ae: str
    terms: Terms = Terms()
    generation: int = 0
    ae: str = ""
    sender: str = ""
    refused: dict[str, int] = {}


class Idle(msgspec.Struct, tag=True, frozen=True):
    """The answer to `SeekIdle`. number: of the association; 0: none is idle.

    since: in seconds of the monotonic clock. stuck: it is inside a message that makes no progress;
    none was idle.
    """

    newcomer: int
    number: int = 0
    since: float = 0.0
    stuck: bool = False


class Displaced(msgspec.Struct, tag=True, frozen=True):
    """The answer to `Displace`: whether the association was aborted."""

    number: int
    newcomer: int
    done: bool


class Over(msgspec.Struct, tag=True, frozen=True):
    """The association has ended, or there is none, and its peer has not hung up yet.

    rejected: the numbers of the A-ASSOCIATE-RJ that its peer was sent; "": none was. A rejection is
    told at once, and here alone; an end is where the peer takes its time.
    """

    number: int
    rejected: str = ""


class Gone(msgspec.Struct, tag=True, frozen=True):
    """The connection is over.

    ended: how an association ended, as `Ending` numbers it; 0: it was none.
    """

    number: int
    ended: int = 0


class Unshaken(msgspec.Struct, tag=True, frozen=True):
    """A TLS handshake has failed; `Gone` follows when the peer has hung up.

    reason: one of `fastscp.tls.reasons.COUNTED`.
    """

    number: int
    reason: str


class Said(msgspec.Struct, tag=True, frozen=True):
    """Copies of lines of the worker's log: whatever main is too busy to hear goes unsaid.

    lines: at most `SAID_MOST`.
    """

    lines: list[Line]


ToWorker: TypeAlias = (
    Setup
    | Configured
    | Offer
    | Verdict
    | Abandon
    | SeekIdle
    | Displace
    | End
    | Drain
    | Retire
    | Stop
    | Reopen
)
FromWorker: TypeAlias = (
    Ready
    | Holds
    | Leaving
    | Failed
    | Taken
    | Relayed
    | Unshaken
    | Ask
    | Idle
    | Displaced
    | Over
    | Gone
    | Said
)
