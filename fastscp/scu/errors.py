"""What can go wrong between us, the requestor, and a peer; every number also in words.

The names are those of the standard's services, so they carry no `Error` suffix.
"""

from __future__ import annotations

from typing import Final

from fastscp.association.names import CONTEXT_RESULTS
from fastscp.errors import FastscpError

__all__ = [
    "AssociationAborted",
    "AssociationRejected",
    "AssociationReleased",
    "ConnectionFailed",
    "ConnectionLost",
    "ContextRefused",
    "PeerError",
    "PeerTimeout",
    "ProtocolViolation",
    "UnusableInstance",
    "UsageError",
]

_RESULTS: Final = {1: "permanently", 2: "transiently"}
_REJECT_SOURCES: Final = {
    1: "service user",
    2: "service provider, ACSE",
    3: "service provider, presentation",
}
_CALLING: Final = (1, 3)
_CALLED: Final = (1, 7)
_REJECT_REASONS: Final = {
    (1, 1): "no reason given",
    (1, 2): "application context name not supported",
    _CALLING: "calling AE title not recognized",
    _CALLED: "called AE title not recognized",
    (2, 1): "no reason given",
    (2, 2): "protocol version not supported",
    (3, 1): "temporary congestion",
    (3, 2): "local limit exceeded",
}
_ABORT_SOURCES: Final = {0: "service user", 2: "service provider"}
_ABORT_REASONS: Final = {
    0: "reason not specified",
    1: "unrecognized PDU",
    2: "unexpected PDU",
    4: "unrecognized PDU parameter",
    5: "unexpected PDU parameter",
    6: "invalid PDU parameter value",
}


class PeerError(FastscpError):
    """Base of all errors of an association. `transient`: trying again may help.

    >>> try:
    ...     await associate("pacs", 104, calling_ae="NOBODY")
    ... except PeerError as error:
    ...     print(type(error).__name__, error.transient)
    AssociationRejected False
    """

    transient = False


class ConnectionFailed(PeerError):  # noqa: N818
    """No connection came about: refused, unreachable, no such host, or TLS did not agree.

    peer, why: as in the text.

    >>> try:
    ...     await associate("pacs", 105)
    ... except ConnectionFailed as error:
    ...     print(error)
    cannot connect to pacs:105: Connection refused
    """

    def __init__(self, peer: str, why: str, *, transient: bool = True) -> None:
        super().__init__(peer, why)
        self.peer = peer
        self.why = why
        self.transient = transient

    def __str__(self) -> str:
        return f"cannot connect to {self.peer}: {self.why}"


class ConnectionLost(PeerError):  # noqa: N818
    """The connection ended without a word of the upper layer.

    when, why: as in the text; why may be empty.

    >>> print(ConnectionLost("before the association was answered"))
    the connection was lost before the association was answered
    """

    transient = True

    def __init__(self, when: str, why: str = "") -> None:
        super().__init__(when, why)
        self.when = when
        self.why = why

    def __str__(self) -> str:
        return f"the connection was lost {self.when}" + (f" ({self.why})" if self.why else "")


class AssociationRejected(PeerError):  # noqa: N818
    """The peer sent A-ASSOCIATE-RJ. result, source, reason: its numbers.

    calling_ae, called_ae: what it was sent, where that is known.

    >>> try:
    ...     await associate("pacs", 104, calling_ae="NOBODY")
    ... except AssociationRejected as error:
    ...     print((error.result, error.source, error.reason), error.reason_text)
    (1, 1, 3) calling AE title not recognized

    Source: PS3.8 9.3.4, Table 9-21.
    """

    def __init__(
        self, result: int, source: int, reason: int, calling_ae: str = "", called_ae: str = ""
    ) -> None:
        super().__init__(result, source, reason, calling_ae, called_ae)
        self.result = result
        self.source = source
        self.reason = reason
        self.calling_ae = calling_ae
        self.called_ae = called_ae

    @property
    def transient(self) -> bool:  # type: ignore[override]
        """Whether the peer says so: trying again may help."""
        return self.result == 2

    @property
    def reason_text(self) -> str:
        """The reason in words, for its source."""
        return _REJECT_REASONS.get((self.source, self.reason), f"reserved reason {self.reason}")

    def __str__(self) -> str:
        titles = {_CALLING: self.calling_ae, _CALLED: self.called_ae}
        title = titles.get((self.source, self.reason), "")
        about = f": {title!r}" if title else ""
        return (
            f"the association was rejected {_RESULTS.get(self.result, f'(result {self.result})')}: "
            f"{self.reason_text}{about} "
            f"({_REJECT_SOURCES.get(self.source, f'unknown source {self.source}')}; "
            f"result {self.result}, source {self.source}, reason {self.reason})"
        )


class AssociationAborted(PeerError):  # noqa: N818
    """The peer sent A-ABORT. source, reason: its numbers.

    >>> print(AssociationAborted(2, 6))
    the peer aborted the association (service provider, invalid PDU parameter value; source 2, \
reason 6)

    Source: PS3.8 9.3.8, Table 9-26.
    """

    transient = True

    def __init__(self, source: int, reason: int) -> None:
        super().__init__(source, reason)
        self.source = source
        self.reason = reason

    @property
    def reason_text(self) -> str:
        """The reason in words; "" where it means nothing."""
        # The reason means something only where the provider speaks.
        if self.source != 2:
            return ""
        return _ABORT_REASONS.get(self.reason, f"reserved reason {self.reason}")

    def __str__(self) -> str:
        who = _ABORT_SOURCES.get(self.source, f"unknown source {self.source}")
        why = f", {self.reason_text}" if self.reason_text else ""
        return (
            f"the peer aborted the association ({who}{why}; "
            f"source {self.source}, reason {self.reason})"
        )


class AssociationReleased(PeerError):  # noqa: N818
    """The association is over: the peer asked for its release, or we left it ourselves.

    by_peer: who did. why: another operation of ours ended it, and what became of that; "" if the
    caller released or aborted it.

    >>> print(AssociationReleased(by_peer=True))
    the association was released by the peer
    """

    transient = True

    def __init__(self, *, by_peer: bool, why: str = "") -> None:
        super().__init__(by_peer, why)
        self.by_peer = by_peer
        self.why = why

    def __str__(self) -> str:
        if self.why:
            return f"we aborted the association: {self.why}"
        return f"the association was released{' by the peer' if self.by_peer else ''}"


class ProtocolViolation(PeerError):  # noqa: N818
    """The peer broke the protocol, and we aborted the association. what: it did.

    >>> print(ProtocolViolation("a response without a status"))
    the peer broke the protocol: a response without a status; association aborted
    """

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what

    def __str__(self) -> str:
        return f"the peer broke the protocol: {self.what}; association aborted"


class PeerTimeout(PeerError):  # noqa: N818
    """The peer was silent for too long, and the association is over. See `Timeouts`.

    what: it did not do. seconds: how long it had.

    >>> print(PeerTimeout("answer", 60))
    the peer did not answer within 60 s
    """

    transient = True

    def __init__(self, what: str, seconds: float) -> None:
        super().__init__(what, seconds)
        self.what = what
        self.seconds = seconds

    def __str__(self) -> str:
        return f"the peer did not {self.what} within {self.seconds:g} s"


class ContextRefused(PeerError):  # noqa: N818
    """No accepted presentation context carries this SOP class in this transfer syntax.

    result: as the peer gave it, 1 to 4; None if such a context was never proposed.

    >>> async with associate("pacs", 104, [("CTImageStorage", ["ExplicitVRLittleEndian"])]) as pacs:
    ...     try:
    ...         await pacs.echo()
    ...     except ContextRefused as error:
    ...         print(error)
    no presentation context was proposed for Verification SOP Class (1.2.840.10008.1.1): \
give it to associate()

    Source: PS3.8 9.3.3.2.
    """

    def __init__(self, abstract_syntax: str, transfer_syntax: str, result: int | None) -> None:
        super().__init__(abstract_syntax, transfer_syntax, result)
        self.abstract_syntax = abstract_syntax
        self.transfer_syntax = transfer_syntax
        self.result = result

    def __str__(self) -> str:
        from fastscp.scu.names import name_of

        context = name_of(self.abstract_syntax)
        if self.transfer_syntax:
            context += f" in {name_of(self.transfer_syntax)}"
        if self.result is None:
            return f"no presentation context was proposed for {context}: give it to associate()"
        why = CONTEXT_RESULTS.get(self.result, f"result {self.result}")
        return f"the peer refused the presentation context for {context}: {why}"


class UnusableInstance(PeerError):  # noqa: N818
    """What was to be sent cannot be: not Part 10, no UIDs, or shorter than its head says.

    >>> async with associate("pacs", 104, [("CTImageStorage", ["ExplicitVRLittleEndian"])]) as pacs:
    ...     try:
    ...         await pacs.store("notes.txt")
    ...     except UnusableInstance as error:
    ...         print(error)
    notes.txt is not a DICOM Part 10 file (no DICM at byte 128)
    """


class UsageError(FastscpError, ValueError):
    """A call that cannot be carried out as it is written: what was given, and what to write.

    Nothing was sent for it, and the association lives on, if there is one.

    >>> try:
    ...     await associate("pacs", 104, [("CTImageStorage", "ExplicitVRLittleEndian")])
    ... except UsageError as error:
    ...     print(error)
    the transfer syntaxes of 1.2.840.10008.5.1.4.1.1.2 are one string, 'ExplicitVRLittleEndian': \
write a list, ['ExplicitVRLittleEndian']
    """
