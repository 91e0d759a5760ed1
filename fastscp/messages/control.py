"""What is said over the control socket: what an operator asks main for, and what main answers.

One JSON object in a line each way. A request is one of `Request`, its kind in the member `do`, and
the version of the language in `version`. An answer is `{"ok": ...}`, what that holds standing at
each request, or `{"error": "...", "code": N}`, N being the exit code that the command ends with.

A state, a phase or an outcome is read as whatever text it is: a later release may know more of
them, and the commands of this one show what they do not know by its name.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

import msgspec

__all__ = [
    "CONTROL_VERSION",
    "Abort",
    "Aborted",
    "Answer",
    "AssociationStatus",
    "Associations",
    "GetOverview",
    "GetStatus",
    "Overview",
    "Pause",
    "Paused",
    "Phase",
    "Reload",
    "Reloaded",
    "Request",
    "Resume",
    "RulesStatus",
    "State",
    "Status",
    "StoreStatus",
]

# Of the language; a request of another one is refused, and says which one main speaks.
CONTROL_VERSION: Final = 1

State: TypeAlias = Literal[
    "starting", "accepting", "paused", "draining", "disk full", "store lost",
    "waiting for the disk", "no worker", "no worker answers", "refusing all",
]  # fmt: skip

# connected: no request yet, or one that the rules refuse, of which main knows nothing. requesting:
# main has its request, and it waits for a place. idle: an association that owes and is owed
# nothing. storing: with an instance that came in part, or has no answer yet. associated: one of
# these two; there are more associations than are counted. ending: no association any more, or never
# one; the connection is still there.
Phase: TypeAlias = Literal["connected", "requesting", "idle", "storing", "associated", "ending"]


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a request is answered with.

    ok: the result, as JSON. error: why there is none; code: the exit code for it. version: of the
    language that main speaks.
    """

    version: int
    ok: msgspec.Raw = msgspec.Raw(b"")
    error: str = ""
    code: int = 0


class StoreStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The store, as main saw it last.

    path: absolute. free_bytes: to this user; None: not known. min_free_bytes: the mark below which
    nothing is stored; 0: none.
    """

    path: str
    id: str
    free_bytes: int | None
    min_free_bytes: int


class RulesStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The configuration in force.

    generation: 1 at the start, one more with each reload that took something. tables: how many [ae]
    and [from] tables it has. loaded_at: seconds of the epoch. refused: the mistakes of the last
    reload, if it was refused, as many as are told of, refused_more: how many there are besides, and
    refused_at its time; else empty and 0. waits: what a reload found that waits for a restart.
    file: that the service reads, absolute; empty: it reads none.
    """

    generation: int
    tables: int
    loaded_at: float
    refused: tuple[str, ...] = ()
    refused_more: int = 0
    refused_at: float = 0.0
    waits: tuple[str, ...] = ()
    file: str = ""


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """What the service is doing.

    state: whether it accepts associations, or why not, a `State`; why: more about it, or what is
    wrong though it accepts, or empty. addresses, tls_addresses: where it listens, without TLS and
    with it. certificate: the subject of the one that it shows; certificate_expires: when the first
    of its chain does, crl_expires: when the first of the revocation lists does; in seconds of the
    epoch, empty and 0 where there is none. since: of the state where that is known, seconds of the
    epoch, else 0.
    workers_up: of `workers`, those that take connections and answer. limit: the most associations
    at a time; 0: any number. connections: all, with those that are associations. in_flight_bytes:
    of instances that are complete and that the commits of all workers have. What is counted is
    counted since the start, and an upgrade is none: instances stored, or there already; bytes of
    their data sets, and bytes read from connections; instances refused, broken off, and not stored
    for `--on-duplicate keep`; associations rejected, and TLS handshakes that failed. aids: the test
    aids in use, as the flags that ask for them. admin: where it answers HTTP, HOST:PORT; empty:
    nowhere. predecessor: the process that this one took over from, as long as that still has
    associations, which are not counted here; else 0. warnings: what is out of date of certificates
    and revocation lists, or soon will be. redo: whether there is a redo log, and why, in words;
    empty: that is not decided yet.
    """

    version: str
    pid: int
    run: str
    addresses: tuple[str, ...]
    uptime_s: float
    state: str
    why: str
    since: float
    store: StoreStatus
    rules: RulesStatus
    workers: int
    workers_up: int
    associations: int
    limit: int
    connections: int
    stored: int
    bytes: int
    received_bytes: int
    refused: int
    unfinished: int
    kept: int
    rejected: int
    in_flight_bytes: int = 0
    tls_addresses: tuple[str, ...] = ()
    certificate: str = ""
    certificate_expires: float = 0.0
    crl_expires: float = 0.0
    handshakes_failed: int = 0
    aids: tuple[str, ...] = ()
    admin: str = ""
    predecessor: int = 0
    warnings: tuple[str, ...] = ()
    redo: str = ""

    @property
    def is_ready(self) -> bool:
        """Whether it accepts associations, so that a balancer may send it some."""
        return self.state == "accepting"


class AssociationStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One connection.

    id: as in the log. calling_ae, called_ae: in written form; empty while there is no request.
    rules: their name, empty where there are none. phase: a `Phase`. stored: instances, there
    already or kept. bytes: of their data sets. received_bytes: read from the connection. age_s:
    since its accept. user: whose passcode or token was right; empty: none was checked.
    """

    id: str
    calling_ae: str
    called_ae: str
    host: str
    port: int
    worker: int
    rules: str
    phase: str
    stored: int
    refused: int
    bytes: int
    received_bytes: int
    age_s: float
    user: str = ""


class Overview(msgspec.Struct, frozen=True, kw_only=True):
    """What the service is doing and its connections, the oldest first, both of the same moment."""

    status: Status
    associations: list[AssociationStatus]


class Aborted(msgspec.Struct, frozen=True):
    """What became of an association that was to end: over, unknown (there is none), or going on."""

    id: str
    outcome: str


class Paused(msgspec.Struct, frozen=True):
    """The answer to `Pause` and `Resume`: changed: whether it was otherwise before.

    why, since: of the pause that there is, or that there was; since in seconds of the epoch.
    """

    changed: bool
    why: str = ""
    since: float = 0.0


class Reloaded(msgspec.Struct, frozen=True, kw_only=True):
    """What a reload did.

    changed: what was taken, a line a setting or table. waits: what waits for a restart. mistakes:
    why it was refused, as many as are told of; nothing was changed then. mistakes_more: how many
    there are besides. generation: the one in force now. file: that the service reads, absolute;
    empty: it reads none.
    """

    changed: tuple[str, ...] = ()
    waits: tuple[str, ...] = ()
    mistakes: tuple[str, ...] = ()
    mistakes_more: int = 0
    generation: int = 0
    file: str = ""


class _Request(msgspec.Struct, tag_field="do", frozen=True, kw_only=True):
    version: int = CONTROL_VERSION


class GetStatus(_Request, tag="status", frozen=True, kw_only=True):
    """Answered with `Status`."""


class Associations(_Request, tag="associations", frozen=True, kw_only=True):
    """Answered with a list of `AssociationStatus`, the oldest first."""


class GetOverview(_Request, tag="overview", frozen=True, kw_only=True):
    """Answered with `Overview`: one request where somebody looks again and again."""


class Abort(_Request, tag="abort", frozen=True, kw_only=True):
    """End this association, or connection; answered with `Aborted` once it is over.

    id: as in the log, or the number at its end alone.
    """

    id: str


class Pause(_Request, tag="pause", frozen=True, kw_only=True):
    """Reject new associations from now on; answered with `Paused`."""

    why: str = ""


class Resume(_Request, tag="resume", frozen=True, kw_only=True):
    """Admit associations again; answered with `Paused`."""


class Reload(_Request, tag="reload", frozen=True, kw_only=True):
    """Take the configuration anew; answered with `Reloaded`, also where that is refused."""


Request: TypeAlias = GetStatus | Associations | GetOverview | Abort | Pause | Resume | Reload
