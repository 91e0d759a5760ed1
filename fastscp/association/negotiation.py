"""From an A-ASSOCIATE-RQ and our policy to the A-ASSOCIATE-AC or -RJ: a pure function.

Source: PS3.8 7.1.1, 9.3.2 to 9.3.4; PS3.7 Annex D.3.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import msgspec

from fastscp import uids
from fastscp.log import shown
from fastscp.uids import SopClassRule, TransferSyntaxRule
from fastscp_ext import (
    UID_USABLE,
    AssociateAC,
    AssociateRQ,
    AsyncWindow,
    ExtendedNegotiation,
    PresentationContextAC,
    PresentationContextRQ,
    RoleSelection,
    UserInformation,
    uid_grade,
)

__all__ = [
    "ABSTRACT_SYNTAX_NOT_SUPPORTED",
    "TRANSFER_SYNTAXES_NOT_SUPPORTED",
    "Accepted",
    "AcceptedContext",
    "Policy",
    "Refusals",
    "RefusedContext",
    "Rejected",
    "foreign",
    "negotiate",
]

# Results of a presentation context (PS3.8 Table 9-18).
ACCEPTANCE: Final = 0
NO_REASON: Final = 2
ABSTRACT_SYNTAX_NOT_SUPPORTED: Final = 3
TRANSFER_SYNTAXES_NOT_SUPPORTED: Final = 4

# Abstract syntaxes of refused contexts that are kept for the log, and transfer syntaxes of each.
REFUSALS_SHOWN: Final = 8
TRANSFER_SYNTAXES_SHOWN: Final = 3
# Characters of each: what came may be of any length.
_UID_KEPT: Final = 128

# The maximum length of a requestor that announces none: the default of most implementations.
ASSUMED_MAX_PDU_LENGTH: Final = 16384
# A P-DATA-TF of one PDV needs 6 bytes before its first byte of content, and fragments are even.
SMALLEST_MAX_PDU_LENGTH: Final = 8

# Level 2, everything is kept; digital signatures are kept bit by bit; elements are not coerced.
# Source: PS3.4 Table B.3-2.
_STORAGE_INFORMATION: Final = bytes((2, 0, 3, 0, 0, 0))

_UNCOMPRESSED: Final = frozenset(
    {
        uids.IMPLICIT_VR_LITTLE_ENDIAN,
        uids.EXPLICIT_VR_LITTLE_ENDIAN,
        uids.EXPLICIT_VR_BIG_ENDIAN,
    }
)
_LAST_RESORT: Final = uids.JPIP_TRANSFER_SYNTAXES | {uids.DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN}


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """What decides over a request, as plain data for the workers.

    Who may call whom is not here: the rules say that, and which policy an association gets.
    """

    max_pdu_length: int = 131072
    max_async_operations: int = 64
    strict: bool = False
    sop_classes: SopClassRule = SopClassRule()
    transfer_syntaxes: TransferSyntaxRule = TransferSyntaxRule()


@dataclass(frozen=True, slots=True)
class AcceptedContext:
    """A presentation context in use."""

    abstract_syntax: str
    transfer_syntax: str


@dataclass(frozen=True, slots=True)
class RefusedContext:
    """What a refused presentation context was for, as it came.

    result: of it. transfer_syntaxes: the first of those proposed.
    """

    abstract_syntax: str
    result: int
    transfer_syntaxes: tuple[str, ...]


@dataclass(slots=True)
class Refusals:
    """The refused presentation contexts: those of the first abstract syntaxes, and their number.

    counts: how many there are of each of these; "": of others.
    """

    count: int = 0
    shown: dict[str, RefusedContext] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def others(self) -> bool:
        return "" in self.counts

    def add(self, context: PresentationContextRQ, result: int) -> None:
        self.count += 1
        uid = context.abstract_syntax[:_UID_KEPT]
        is_new = uid not in self.shown
        has_place = not is_new or len(self.shown) < REFUSALS_SHOWN
        counted = uid if has_place else ""
        self.counts[counted] = self.counts.get(counted, 0) + 1
        if not (is_new and has_place):
            return
        some = (one[:_UID_KEPT] for one in context.transfer_syntaxes[:TRANSFER_SYNTAXES_SHOWN])
        self.shown[uid] = RefusedContext(uid, result, tuple(some))


@dataclass(frozen=True, slots=True)
class Accepted:
    """An association, perhaps without a single accepted context.

    peer_max_pdu_length: bytes of a P-DATA-TF variable field the peer takes; 0 is without limit.
    window: operations the peer may have outstanding. notes: oddities for the log, safe to print.
    refused: what the contexts without success were for.
    """

    ac: AssociateAC
    contexts: dict[int, AcceptedContext]
    peer_max_pdu_length: int
    window: int
    notes: tuple[str, ...]
    refused: Refusals


@dataclass(frozen=True, slots=True)
class Rejected:
    """A refusal; `why` is for the log, safe to print. Source: PS3.8 Table 9-21."""

    result: int
    source: int
    reason: int
    why: str


def foreign(rq: AssociateRQ) -> Rejected | None:
    """Why no acceptor of DICOM can take a request, if so. Source: PS3.8 9.3.2, 7.1.1.2."""
    # Only bit 0 says anything: it stands for version 1.
    if not rq.protocol_version & 1:
        return Rejected(1, 2, 2, f"protocol version {rq.protocol_version:#06x} is not supported")
    if rq.application_context != uids.APPLICATION_CONTEXT:
        shown = _shown(rq.application_context) if rq.application_context is not None else "missing"
        return Rejected(1, 1, 2, f"application context is {shown}")
    return None


def negotiate(rq: AssociateRQ, policy: Policy) -> Accepted | Rejected:
    """Decide over a request that is not `foreign`. Never raises, whatever was decoded.

    Cost: linear in the request, and so is the size of the answer.
    Source: PS3.8 7.1.1, 9.3.3, 9.3.4.
    """
    information = rq.user_information or UserInformation()
    rejected = _reject(rq, information, policy)
    if rejected is not None:
        return rejected

    notes: list[str] = []
    answers, contexts, refused = _answer_contexts(
        rq.presentation_contexts, information, policy, notes
    )
    proposed = {context.abstract_syntax for context in rq.presentation_contexts}
    window = _window(information.async_window, policy)
    ac = AssociateAC(
        called_ae=rq.called_ae,
        calling_ae=rq.calling_ae,
        application_context=uids.APPLICATION_CONTEXT,
        presentation_contexts=answers,
        user_information=UserInformation(
            max_pdu_length=policy.max_pdu_length,
            implementation_class_uid=uids.IMPLEMENTATION_CLASS_UID,
            implementation_version_name=uids.IMPLEMENTATION_VERSION_NAME,
            async_window=window,
            roles=_answer_roles(information.roles, proposed, notes),
            extended=_answer_extended(information.extended, contexts),
        ),
        reserved=rq.reserved,
    )
    peer_max = information.max_pdu_length
    if peer_max is None:
        notes.append(f"announces no maximum length: {ASSUMED_MAX_PDU_LENGTH} assumed")
        peer_max = ASSUMED_MAX_PDU_LENGTH
    return Accepted(
        ac=ac,
        contexts=contexts,
        peer_max_pdu_length=peer_max,
        window=window.max_invoked if window is not None else 1,
        notes=tuple(notes),
        refused=refused,
    )


def _reject(rq: AssociateRQ, information: UserInformation, policy: Policy) -> Rejected | None:
    """The reason to refuse the association as a whole, most fundamental first."""
    if not rq.presentation_contexts:
        return Rejected(1, 2, 1, "no presentation context is proposed")
    ids = [context.id for context in rq.presentation_contexts]
    if policy.strict and len(set(ids)) < len(ids):
        return Rejected(1, 2, 1, "a presentation context id is proposed twice")
    if 0 < (information.max_pdu_length or 0) < SMALLEST_MAX_PDU_LENGTH:
        return Rejected(
            1, 2, 1, f"maximum length {information.max_pdu_length} is too small to answer in"
        )
    return None


def _answer_contexts(
    proposed: tuple[PresentationContextRQ, ...],
    information: UserInformation,
    policy: Policy,
    notes: list[str],
) -> tuple[tuple[PresentationContextAC, ...], dict[int, AcceptedContext], Refusals]:
    """One answer per distinct id, in the order of the request.

    Source: PS3.8 7.1.1.13, 9.3.3.2.
    """
    declared_storage = {
        common.sop_class
        for common in information.common_extended
        if common.service_class == uids.STORAGE_SERVICE_CLASS
    }
    first: dict[int, PresentationContextRQ] = {}
    repeated = [
        context.id for context in proposed if first.setdefault(context.id, context) is not context
    ]
    _note_ids(notes, "repeated, first one used", repeated)
    _note_ids(notes, "even", [id_ for id_ in first if id_ % 2 == 0])

    syntaxes = _Syntaxes(policy)
    answers: list[PresentationContextAC] = []
    contexts: dict[int, AcceptedContext] = {}
    refused = Refusals()
    for context in first.values():
        result, transfer_syntax = _judge(context, declared_storage, policy, syntaxes)
        if result == ACCEPTANCE:
            contexts[context.id] = AcceptedContext(context.abstract_syntax, transfer_syntax)
        else:
            refused.add(context, result)
        answers.append(PresentationContextAC(context.id, result, transfer_syntax))
    return tuple(answers), contexts, refused


def _note_ids(notes: list[str], what: str, ids: list[int]) -> None:
    # One note however many there are.
    if ids:
        more = f" and {len(ids) - 8} more" if len(ids) > 8 else ""
        notes.append(f"presentation context ids {what}: {', '.join(map(str, ids[:8]))}{more}")


class _Syntaxes:
    """The transfer syntaxes of one request, each judged once however often it is proposed."""

    def __init__(self, policy: Policy) -> None:
        self._rule = policy.transfer_syntaxes
        self._usable: dict[str, bool] = {}
        self._accepted: dict[str, bool] = {}

    def usable(self, proposed: tuple[str, ...]) -> list[str]:
        """Those that are UIDs, in the requestor's order, once each."""
        judged = self._usable
        for uid in dict.fromkeys(proposed):
            if uid not in judged:
                judged[uid] = uid_grade(uid) >= UID_USABLE
        return [uid for uid in dict.fromkeys(proposed) if judged[uid]]

    def accepted(self, usable: list[str]) -> list[str]:
        """Those among them that the rule lets in."""
        judged = self._accepted
        for uid in usable:
            if uid not in judged:
                judged[uid] = self._rule.accepts(uid)
        return [uid for uid in usable if judged[uid]]


def _judge(
    context: PresentationContextRQ,
    declared_storage: set[str],
    policy: Policy,
    syntaxes: _Syntaxes,
) -> tuple[int, str]:
    """Result and transfer syntax of one context.

    A refused context gets a transfer syntax too, though it means nothing: some requestors cannot
    read the answer without one.
    """
    usable = syntaxes.usable(context.transfer_syntaxes)
    refused_with = usable[0] if usable else uids.IMPLICIT_VR_LITTLE_ENDIAN
    abstract_syntax = context.abstract_syntax
    if policy.strict and context.id % 2 == 0:
        return NO_REASON, refused_with
    if uid_grade(abstract_syntax) < UID_USABLE or not policy.sop_classes.accepts(
        abstract_syntax, declared_storage=abstract_syntax in declared_storage
    ):
        return ABSTRACT_SYNTAX_NOT_SUPPORTED, refused_with
    # Verification never carries a data set, so no transfer syntax can be wrong for it.
    if abstract_syntax != uids.VERIFICATION:
        usable = syntaxes.accepted(usable)
    if not usable:
        return TRANSFER_SYNTAXES_NOT_SUPPORTED, refused_with
    return ACCEPTANCE, _choose(usable)


def _choose(acceptable: list[str]) -> str:
    """One of the transfer syntaxes that are acceptable, given in the requestor's order.

    Senders put the one they hold the instance in first; taking it spares them a conversion. Among
    uncompressed ones Explicit VR Little Endian is worth one: it alone says what every element is.
    """
    if uids.EXPLICIT_VR_LITTLE_ENDIAN in acceptable and _UNCOMPRESSED.issuperset(acceptable):
        return uids.EXPLICIT_VR_LITTLE_ENDIAN
    return next((uid for uid in acceptable if uid not in _LAST_RESORT), acceptable[0])


def _window(asked: AsyncWindow | None, policy: Policy) -> AsyncWindow | None:
    """Our answer to an offered window; without an offer there must be none.

    An offer is always answered: silence has been taken for "unlimited". We invoke nothing.
    Source: PS3.7 D.3.3.3.
    """
    if asked is None:
        return None
    limit = policy.max_async_operations
    return AsyncWindow(min(asked.max_invoked or limit, limit), 1)


def _answer_roles(
    asked: tuple[RoleSelection, ...], proposed: set[str], notes: list[str]
) -> tuple[RoleSelection, ...]:
    """The requestor may be SCU where it asked to be, and nowhere SCP.

    Once per SOP class, and only for classes that a context proposes: that bounds the answer.
    Source: PS3.7 D.3.3.4.
    """
    answers: dict[str, RoleSelection] = {}
    refused: list[str] = []
    for role in asked:
        if role.sop_class not in proposed or uid_grade(role.sop_class) < UID_USABLE:
            continue
        if role.scp_role and role.sop_class not in answers:
            refused.append(role.sop_class)
        answers.setdefault(role.sop_class, RoleSelection(role.sop_class, role.scu_role, False))
    if refused:
        # One note however many there are.
        more = f" and {len(refused) - 1} more" if len(refused) > 1 else ""
        notes.append(f"asks for the SCP role of {_shown(refused[0])}{more}: refused")
    return tuple(answers.values())


def _answer_extended(
    asked: tuple[ExtendedNegotiation, ...], contexts: dict[int, AcceptedContext]
) -> tuple[ExtendedNegotiation, ...]:
    """Our level of support, once for each storage class that asks and is accepted.

    Source: PS3.7 D.3.3.5, PS3.4 B.3.1.4.
    """
    storage = {context.abstract_syntax for context in contexts.values()} - {uids.VERIFICATION}
    answered = dict.fromkeys(item.sop_class for item in asked if item.sop_class in storage)
    return tuple(ExtendedNegotiation(uid, _STORAGE_INFORMATION) for uid in answered)


def _shown(text: str) -> str:
    """A peer's text for the log, at a length that cannot flood it."""
    return f"'{shown(text)}'"
