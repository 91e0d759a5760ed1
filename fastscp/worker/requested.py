"""An association from its request to the verdict over it: Sta2 and Sta3, an acceptor's side."""

from __future__ import annotations

import logging
import time
from abc import abstractmethod
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from fastscp import uids
from fastscp.association.account import Ending, Terms
from fastscp.association.identity import confirmed, to_be_checked
from fastscp.association.machine import Event, Machine, State
from fastscp.association.negotiation import Accepted, Rejected, foreign, negotiate
from fastscp.log import TRACE, address, shown
from fastscp.messages.worker import Ask, Verdict
from fastscp.rules.book import Peer, Refusal
from fastscp.titles import title_text
from fastscp.worker.establish import establish
from fastscp.worker.telling import Telling
from fastscp.worker.tracing import item_lines
from fastscp.worker.usercheck import UserCheck
from fastscp_ext import (
    AssociateRJ,
    AssociateRQ,
    PDUContextsError,
    PDUError,
    PDULimitError,
    Receiver,
    Reception,
    Rules,
    ae_title,
    decode_associate_rq,
    encode_associate_ac,
    encode_associate_rj,
)

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Mapping

    from fastscp.rules.rule import Rule
    from fastscp.worker.connection import Origin
    from fastscp.worker.identities import Identities
    from fastscp.worker.requests import Requests
    from fastscp.worker.rules import Going
    from fastscp_ext import AssociateAC

__all__ = ["ADMISSION", "Asking", "Requested"]

log = logging.getLogger("fastscp.association")

# The hold on reading while a request is decided, as the receiver counts it.
ADMISSION: Final = 1
# How long main may take to say whether an association is admitted.
_DECISION_S: Final = 20.0


class Asking(Protocol):
    """What a request needs of the worker it comes to."""

    going: Going
    run: str
    requests: Requests
    identities: Identities
    names: Mapping[str, str]

    def ask(self, asked: Ask) -> None: ...
    def rejected(self, number: int, code: str) -> None: ...


class Requested(Receiver):
    """The receiver of one association, as far as its request and the answer to it go.

    number: main's. origin: whose the connection is. What the end of a connection or of an
    association asks for is in the class above.
    """

    def __init__(
        self,
        reception: Reception,  # noqa: ARG002 - taken by the receiver
        number: int,  # noqa: ARG002
        owner: Asking,
        origin: Origin,
        *,
        max_pdu_length: int,
    ) -> None:
        self._owner = owner
        self._max_pdu_length = max_pdu_length
        # From its request on: the rule it is judged by, and keeps.
        self._rule: Rule | None = None
        self._codec_rules: Rules | None = None
        self._machine = Machine()
        self._transport: asyncio.Transport | None = None
        self.host = origin.host
        self.peer = address(origin.host, origin.port)
        self._origin = origin
        self._telling = Telling(f"{owner.run}.{self.number}", self.host, self.peer, owner.names)
        self._deadline: float | None = None
        # Our answer to the request, while its user is checked and main decides.
        self._deciding: Accepted | None = None
        self._terms = Terms(tls=origin.tls, certificate=origin.subject)
        # What main is to be asked once the user's identity is checked; None: none is.
        self._unasked: Ask | None = None
        # Whether main counts it among the associations.
        self._has_place = False
        # Why a request that comes now is rejected; "": it is not.
        self._is_to_go = ""
        self._ending: Ending | None = None

    @property
    def state(self) -> State:
        return self._machine.state

    @property
    def name(self) -> str:
        """What its lines in the log begin with."""
        return self._telling.name

    # What the class above does --------------------------------------------------------------------

    @abstractmethod
    def failed(self, error: Exception) -> None:
        """Something of this association raised what nobody expects: a bug, which ends it."""

    @abstractmethod
    def _end_with(self, pdu: bytes) -> None:
        """Send our last PDU (Sta13)."""

    @abstractmethod
    def _out_of_place(self, event: Event, why: str, reason: int = 1) -> None:
        """Answer what must not come now, as the machine says."""

    # The request ----------------------------------------------------------------------------------

    def _request_received(self, pdu: bytes) -> None:
        self.expect_associate(False)
        if self._is_to_go:
            self._turn_away()
        elif not self._owner.requests.add(self, pdu):
            # From now on it is for us that it waits.
            self._deadline = time.monotonic() + _DECISION_S
            self.pace.hold(ADMISSION)

    def request_begins(self, pdu: bytes) -> None:
        """Decode the request, and have main decide over it: it is its turn."""
        if self.state is not State.STA2 or self._transport is None:
            return
        rq = self._decoded(pdu)
        if rq is None:
            return
        calling_ae = title_text(ae_title(rq.calling_ae))
        called_ae = title_text(ae_title(rq.called_ae))
        self._telling.requested(calling_ae, called_ae)
        if self.outbox.trace:
            self._trace_items("received A-ASSOCIATE-RQ", rq)
        going = self._owner.going
        peer = Peer(calling_ae, called_ae, self.host, self._origin.certificate)
        rejected = foreign(rq) or going.book.choose(peer)
        if isinstance(rejected, Rejected | Refusal):
            self._reject_request(rejected)
            return
        rule = self._rule = rejected
        config = going.config
        outcome = negotiate(rq, rule.policy(self._max_pdu_length, config.max_async_operations))
        if isinstance(outcome, Rejected):
            self._reject_request(outcome)
            return
        shown_user = to_be_checked(rq, config.user_identity)
        if isinstance(shown_user, Rejected):
            self._reject_request(shown_user)
            return
        self._codec_rules = going.codec_rules(rule)
        self._machine.handle(Event.EVT6)
        self._deadline = time.monotonic() + _DECISION_S
        # The request itself goes: it may be large.
        self._deciding = outcome
        self._terms = Terms(
            len(outcome.contexts),
            len(outcome.ac.presentation_contexts),
            outcome.window,
            outcome.peer_max_pdu_length,
            self._implementation(rq),
            tls=self._origin.tls,
            certificate=self._origin.subject,
        )
        # Nothing is parsed ahead of a request that is still being decided (Sta3).
        self.pace.hold(ADMISSION)
        ask = Ask(
            self.number, calling_ae, called_ae, self._terms,
            going.book.generation, rule.ae, rule.sender, outcome.refused.counts,
        )  # fmt: skip
        if shown_user is None:
            self._owner.ask(ask)
            return
        # Those that are checked have a bound of their own.
        self._unasked = ask
        UserCheck(self, shown_user).begin(self._owner.identities)

    def _decoded(self, pdu: bytes) -> AssociateRQ | None:
        """The request; None where it cannot be decoded, and its peer was told."""
        try:
            return decode_associate_rq(pdu)
        except PDULimitError as error:
            self._machine.handle(Event.EVT6, acceptable=False)
            self._reject(2, 3, 2, f"A-ASSOCIATE-RQ: {error}")
        except PDUContextsError as error:
            self._telling.requested(
                title_text(ae_title(error.calling_ae)), title_text(ae_title(error.called_ae))
            )
            self._machine.handle(Event.EVT6, acceptable=False)
            self._reject(
                1, 2, 1, f"{error.contexts} presentation contexts are proposed, and there are ids "
                "for 128: have the sender propose fewer classes or transfer syntaxes",
            )  # fmt: skip
        except PDUError as error:
            self._out_of_place(Event.EVT19, f"A-ASSOCIATE-RQ: {error}", error.reason)
        return None

    # Its user -------------------------------------------------------------------------------------

    @property
    def is_checked(self) -> bool:
        """Whether its user's identity is being checked, so that main knows nothing of it yet."""
        return self._unasked is not None and self.state is State.STA3

    def user_is_right(self, user: str, *, confirm: bool) -> None:
        """Ask main, now that it is known who it is; confirm: the requestor is told of that, too."""
        if self._unasked is None or self._deciding is None:
            return
        self._terms = msgspec.structs.replace(self._terms, user=user)
        if confirm:
            self._deciding = confirmed(self._deciding)
        self._unasked = msgspec.structs.replace(self._unasked, terms=self._terms)
        self._deadline = time.monotonic() + _DECISION_S
        self._owner.requests.let_ask(self)

    def ask_main(self) -> None:
        """Ask main about a request whose user is right, unless it is over."""
        if self._unasked is not None and self.state is State.STA3:
            ask, self._unasked = self._unasked, None
            self._owner.ask(ask)

    def forget_answer(self) -> None:
        """Let go of what is kept for the answer: it will not be a good one."""
        self._deciding = None

    def reject_user(self, why: Rejected) -> None:
        """Reject a request while its user is checked; later, this changes nothing."""
        if not self.is_checked:
            return
        self._unasked = None
        self._machine.handle(Event.EVT8)
        self._reject(why.result, why.source, why.reason, why.why)

    def _undecided_in_time(self) -> None:
        """Reject a request that nobody has decided over for too long."""
        if self.is_checked:
            self.reject_user(Rejected(2, 3, 1, "the check of its user identity takes too long"))
        else:
            self.rejected(Verdict(self.number, 2, 3, 1, "main does not answer"))

    # The verdict ----------------------------------------------------------------------------------

    def _reject_request(self, why: Rejected | Refusal) -> None:
        """Reject before anybody was asked (Evt6, not acceptable)."""
        self._machine.handle(Event.EVT6, acceptable=False)
        self._reject(why.result, why.source, why.reason, why.why)

    def rejected(self, verdict: Verdict) -> None:
        """Main's answer to the request that was asked about: no."""
        if self._decided() is not None:
            self._machine.handle(Event.EVT8)
            self._reject(verdict.result, verdict.source, verdict.reason, verdict.why)

    def admitted(self, verdict: Verdict) -> None:
        """Main's answer to the request that was asked about: yes."""
        accepted = self._decided()
        if accepted is None or self._codec_rules is None or self._rule is None:
            return
        self._has_place = True
        self._machine.handle(Event.EVT7)
        establish(
            self,
            accepted,
            self._codec_rules,
            association=self._telling.who.association,
            peer=self.peer,
            user=self._terms.user,
            ae_row=verdict.ae_row,
            tally=verdict.tally,
        )
        proposed = self._terms.proposed
        self._telling.contexts_refused(accepted.refused, proposed, self._rule)
        abstract = {one.abstract_syntax for one in accepted.contexts.values()}
        is_check = abstract == {uids.VERIFICATION} and not accepted.refused.count
        self._telling.associated(self._terms, accepted.notes, is_check=is_check)
        ac = encode_associate_ac(accepted.ac)
        if self.outbox.trace:
            self._trace_items("sent A-ASSOCIATE-AC", accepted.ac)
        self.outbox.send_pdu(ac)
        self.pace.go_on(ADMISSION)

    def _decided(self) -> Accepted | None:
        """What main was asked about, if it was and the peer still waits for the answer (Sta3)."""
        if self.state is not State.STA3:
            return None
        decided, self._deciding = self._deciding, None
        self._deadline = None
        return decided

    @staticmethod
    def _implementation(rq: AssociateRQ) -> str:
        information = rq.user_information
        name = information.implementation_version_name if information else None
        return shown(name) if name else ""

    def _trace_items(self, what: str, pdu: AssociateRQ | AssociateAC) -> None:
        for line in item_lines(pdu, self._telling.named):
            log.log(TRACE, "%s: %s: %s", self.name, what, line, extra=self._telling.about())

    def _turn_away(self) -> None:
        """Reject a complete request without decoding it: temporary congestion (PS3.8 9.3.4)."""
        self._machine.handle(Event.EVT6, acceptable=False)
        self._reject(2, 3, 1, self._is_to_go)

    def _reject(self, result: int, source: int, reason: int, why: str) -> None:
        code = f"{result},{source},{reason}"
        self._ending = Ending("rejected", code, why)
        # The peer may take its time to hang up, and this process may end before that.
        self._owner.rejected(self.number, code)
        self._end_with(encode_associate_rj(AssociateRJ(result, source, reason)))
