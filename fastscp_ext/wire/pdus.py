"""The PDUs of the upper layer as plain values: what `pdu` decodes to and encodes from.

UIDs are `str`, latin-1, without the trailing NULs and spaces some peers add. AE titles are the 16
bytes of the wire, because an acceptor returns them unchanged; `ae_title` gives the readable form.
Source: PS3.8 9.3, PS3.7 Annex D.3.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

__all__ = [
    "PDU",
    "Abort",
    "AssociateAC",
    "AssociateRJ",
    "AssociateRQ",
    "AsyncWindow",
    "CommonExtendedNegotiation",
    "ExtendedNegotiation",
    "PresentationContextAC",
    "PresentationContextRQ",
    "ReleaseRP",
    "ReleaseRQ",
    "RoleSelection",
    "UserIdentity",
    "UserInformation",
    "ae_title",
]


@dataclass(frozen=True, slots=True)
class PresentationContextRQ:
    """A proposed context; `abstract_syntax` is "" and `transfer_syntaxes` () where missing.

    Source: PS3.8 9.3.2.2.
    """

    id: int
    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PresentationContextAC:
    """The answer to a context; `transfer_syntax` means something only where `result` is 0.

    Source: PS3.8 9.3.3.2.
    """

    id: int
    result: int
    transfer_syntax: str


@dataclass(frozen=True, slots=True)
class AsyncWindow:
    """Operations that may be outstanding in each direction; 0 is without limit.

    Source: PS3.7 D.3.3.3.
    """

    max_invoked: int
    max_performed: int


@dataclass(frozen=True, slots=True)
class RoleSelection:
    """The roles of the association requestor for one SOP class.

    Source: PS3.7 D.3.3.4.
    """

    sop_class: str
    scu_role: bool
    scp_role: bool


@dataclass(frozen=True, slots=True)
class ExtendedNegotiation:
    """Service class application information, uninterpreted.

    Source: PS3.7 D.3.3.5.
    """

    sop_class: str
    information: bytes


@dataclass(frozen=True, slots=True)
class CommonExtendedNegotiation:
    """The service class of a SOP class and the general SOP classes it is related to.

    Source: PS3.7 D.3.3.6.
    """

    sop_class: str
    service_class: str
    related: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class UserIdentity:
    """Credentials of the requesting user. They are left out of `repr`, so of every log.

    type: 1 user name, 2 user name and passcode, 3 Kerberos, 4 SAML, 5 JSON Web Token.
    Source: PS3.7 D.3.3.7.
    """

    type: int
    response_requested: bool
    primary: bytes = field(repr=False)
    secondary: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class UserInformation:
    """The sub-items of one user information item; None and () are "not there".

    max_pdu_length: bytes of the P-DATA-TF variable field; 0 is without limit.
    common_extended and identity belong to a request only, identity_response to its acceptance.
    Source: PS3.8 9.3.2.3 and D.1, PS3.7 D.3.3.
    """

    max_pdu_length: int | None = None
    implementation_class_uid: str | None = None
    implementation_version_name: str | None = None
    async_window: AsyncWindow | None = None
    roles: tuple[RoleSelection, ...] = ()
    extended: tuple[ExtendedNegotiation, ...] = ()
    common_extended: tuple[CommonExtendedNegotiation, ...] = ()
    identity: UserIdentity | None = None
    identity_response: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class AssociateRQ:
    """A-ASSOCIATE-RQ, its contexts in the order of the wire, repeated ids included.

    Source: PS3.8 9.3.2.
    """

    called_ae: bytes
    calling_ae: bytes
    application_context: str | None
    presentation_contexts: tuple[PresentationContextRQ, ...]
    user_information: UserInformation | None
    protocol_version: int = 1
    reserved: bytes = bytes(32)


@dataclass(frozen=True, slots=True)
class AssociateAC:
    """A-ASSOCIATE-AC. Titles and reserved bytes are those of the request, and not to be tested.

    Source: PS3.8 9.3.3.
    """

    called_ae: bytes
    calling_ae: bytes
    application_context: str | None
    presentation_contexts: tuple[PresentationContextAC, ...]
    user_information: UserInformation | None
    protocol_version: int = 1
    reserved: bytes = bytes(32)


@dataclass(frozen=True, slots=True)
class AssociateRJ:
    """A-ASSOCIATE-RJ.

    Source: PS3.8 9.3.4, Table 9-21.
    """

    result: int
    source: int
    reason: int


@dataclass(frozen=True, slots=True)
class ReleaseRQ:
    """A-RELEASE-RQ, which carries nothing.

    Source: PS3.8 9.3.6.
    """


@dataclass(frozen=True, slots=True)
class ReleaseRP:
    """A-RELEASE-RP, which carries nothing.

    Source: PS3.8 9.3.7.
    """


@dataclass(frozen=True, slots=True)
class Abort:
    """A-ABORT. The reason means something only where the source is 2, the service provider.

    Source: PS3.8 9.3.8, Table 9-26.
    """

    source: int
    reason: int


PDU: TypeAlias = AssociateRQ | AssociateAC | AssociateRJ | ReleaseRQ | ReleaseRP | Abort


def ae_title(raw: bytes) -> str:
    """The title in an AE field: up to the first NUL, without the spaces around it.

    Decoded as latin-1, so every byte has a character: escape it before it is shown anywhere.
    Source: PS3.8 9.3.2, PS3.5 6.2 (AE).
    """
    return raw.partition(b"\0")[0].strip(b" ").decode("latin-1")
