"""Associations of a service that fails on purpose (`--fault`): what each rule makes of them."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from fastscp.association.account import Ending
from fastscp.association.negotiation import Rejected
from fastscp.titles import title_text
from fastscp.worker.association import Association
from fastscp_ext import ae_title

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fastscp.config.faults import FaultRule
    from fastscp.messages.worker import Verdict
    from fastscp_ext import AssociateRQ

__all__ = ["Faults", "FaultyAssociation"]

log = logging.getLogger("fastscp.association")

# What `instance_received` returns where nobody is answered.
_DROPPED: Final = -1


class Faults:
    """The rules of a worker, and how often the conditions of each have held."""

    def __init__(self, rules: Sequence[FaultRule]) -> None:
        self._rules = tuple(rules)
        self._held = [0] * len(self._rules)

    def has_for(self, calling_ae: str) -> bool:
        """Whether an instance of this AE title may meet one."""
        return any(rule.rejection is None and rule.ae in ("", calling_ae) for rule in self._rules)

    def of_request(self, calling_ae: str, classes: Sequence[str]) -> FaultRule | None:
        """The rule by which a request is rejected. classes: the abstract syntaxes it proposes."""
        return self._first(
            lambda rule: rule.rejection is not None and _holds(rule, calling_ae, classes)
        )

    def of_instance(self, calling_ae: str, sop_class: str) -> FaultRule | None:
        """The rule that an instance meets: the first in the order of the command line."""
        return self._first(
            lambda rule: rule.rejection is None and _holds(rule, calling_ae, (sop_class,))
        )

    def _first(self, holds: Callable[[FaultRule], bool]) -> FaultRule | None:
        # Each rule counts by itself, also where another one comes first.
        due = None
        for place, rule in enumerate(self._rules):
            if holds(rule):
                self._held[place] += 1
                if due is None and self._held[place] % rule.every == 0:
                    due = rule
        return due


def _holds(rule: FaultRule, calling_ae: str, classes: Sequence[str]) -> bool:
    if rule.ae not in ("", calling_ae):
        return False
    return rule.classes is None or any(map(rule.classes.accepts, classes))


class FaultyAssociation(Association):
    """An association that is asked about, request and instances, whether it fails on purpose.

    Where no rule may concern its instances, they take the way of every other association's.
    """

    # Set by whoever makes it, before anything is received.
    faults: Faults
    _calling_ae = ""
    # By which it ends.
    _last: FaultRule | None = None

    def _decoded(self, pdu: bytes) -> AssociateRQ | None:
        rq = super()._decoded(pdu)
        if rq is None:
            return None
        self._calling_ae = title_text(ae_title(rq.calling_ae))
        classes = [one.abstract_syntax for one in rq.presentation_contexts]
        rule = self.faults.of_request(self._calling_ae, classes)
        if rule is None or rule.rejection is None:
            return rq
        self._telling.requested(self._calling_ae, title_text(ae_title(rq.called_ae)))
        self._reject_request(Rejected(*rule.rejection, _why(rule)))
        return None

    def admitted(self, verdict: Verdict) -> None:
        self.is_asking = self.faults.has_for(self._calling_ae)
        super().admitted(verdict)

    def instance_received(self, sop_class: bytes) -> int:
        """What becomes of an instance that is whole; called by the receiver."""
        rule = self.faults.of_instance(self._calling_ae, sop_class.decode("latin-1"))
        if rule is None:
            return 0
        if rule.aborts or rule.closes:
            self._last = rule
            return _DROPPED
        if rule.delay_s:
            log.debug("%s: %s", self.name, _why(rule), extra=self._telling.about())
            held = self.hold_back_responses()
            asyncio.get_running_loop().call_later(rule.delay_s, held.let_go)
        return rule.status

    def instance_dropped(self) -> None:
        """End the association as the last rule has it; called by the receiver."""
        if self._last is None:
            return
        if self._last.aborts:
            self.end_now(_why(self._last))
        else:
            self.stop()
            self._drop_connection(Ending("connection closed by us", why=_why(self._last)))


def _why(rule: FaultRule) -> str:
    return f"on purpose (--fault '{rule.text}')"
