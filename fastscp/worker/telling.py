"""What the log hears of one association: who says what, at which level."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Final, Unpack

from fastscp.association.account import ENDS_SHOWN, Account, Who
from fastscp.association.negotiation import (
    ABSTRACT_SYNTAX_NOT_SUPPORTED,
    TRANSFER_SYNTAXES_NOT_SUPPORTED,
)
from fastscp.log import TRACE, Fields, caused, fields, once_told, shown
from fastscp.rules.rule import as_written
from fastscp_ext import status as codes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fastscp.association.account import Ending, Terms
    from fastscp.association.negotiation import Refusals, RefusedContext
    from fastscp.rules.rule import Rule
    from fastscp_ext import Tally

__all__ = ["Telling"]

log = logging.getLogger("fastscp.association")

# So many lines of a kind the log shows from one address in an interval, where the few of the rest
# are too few: refused instances, and those that are not stored because another one stays.
_SHOWN: Final = 20
_KEPT: Final = "instance not stored (keep)"
_FEW: Final = 5
# How whoever only asks whether we are there may leave.
_OF_A_CHECK: Final = frozenset({"released", "connection closed", "aborted by the peer"})


class Telling:
    """What the log hears of one association, or of a connection that becomes none.

    association: its id, as in the journal. host, peer: the address, and that with the port.
    names: of UIDs.

    An association has one line at its end. What brought no instance is counted instead where one
    address has many; each of the others has a line in the journal for each of its instances, which
    is more.
    """

    def __init__(self, association: str, host: str, peer: str, names: Mapping[str, str]) -> None:
        self._who = Who(association, peer)
        # What its lines begin with.
        self.name = self._who.name
        self._host = host
        self._names = names
        # C-ECHOs answered.
        self.echoes = 0

    @property
    def who(self) -> Who:
        return self._who

    def requested(self, calling_ae: str, called_ae: str) -> None:
        """The request is there. AE titles as `title_text` gives them."""
        self._who = replace(self._who, calling_ae=calling_ae, called_ae=called_ae)
        self.name = self._who.name

    def about(
        self, kind: str = "", most: int = _FEW, **more: Unpack[Fields]
    ) -> Mapping[str, object]:
        """`extra` for a line about it.

        kind: of what a peer can cause again and again, of which `most` are shown in an interval.
        """
        told = fields(self._who.fields(), more)
        return {**told, **caused(kind, self._host, most)} if kind else told

    # Its beginning -------------------------------------------------------------------------------

    def associated(self, terms: Terms, notes: tuple[str, ...], *, is_check: bool) -> None:
        """Data transfer begins. is_check: only Verification is possible."""
        if notes:
            log.info("%s: %s", self.name, "; ".join(notes), extra=self.about("odd request"))
        log.log(
            TRACE if is_check else logging.DEBUG,
            "%s: associated with '%s', %s", self.name, shown(self._who.called_ae or ""),
            terms.text(), extra=self.about(),
        )  # fmt: skip

    def contexts_refused(self, refused: Refusals, proposed: int, rule: Rule) -> None:
        """Some of what the peer wants to send it cannot; name it."""
        if not refused.count:
            return
        # Many have the same reason.
        by_reason: dict[str, list[str]] = {}
        for one in refused.shown.values():
            by_reason.setdefault(self._reason(one, rule), []).append(
                self.named(one.abstract_syntax)
            )
        said = [f"{', '.join(names)} ({why})" for why, names in by_reason.items()]
        more = " and others" if refused.others else ""
        log.warning(
            "%s: %d of %d presentation contexts refused: %s%s",
            self.name, refused.count, proposed, "; ".join(said), more,
            extra=self.about(
                "presentation contexts refused",
                contexts_accepted=proposed - refused.count, contexts_proposed=proposed,
                refused_classes=[self.named(uid) for uid in refused.shown],
            ),
        )  # fmt: skip

    def _reason(self, one: RefusedContext, rule: Rule) -> str:
        if one.result == ABSTRACT_SYNTAX_NOT_SUPPORTED:
            why = f"not in {as_written('sop-classes', rule.sop_classes_from)}"
            if one.abstract_syntax in rule.sop_classes.refused:
                why = "not storage"
        elif one.result == TRANSFER_SYNTAXES_NOT_SUPPORTED:
            where = as_written("transfer-syntaxes", rule.transfer_syntaxes_from)
            those = ", ".join(self.named(syntax) for syntax in one.transfer_syntaxes)
            why = f"no transfer syntax in {where}: {those or 'none proposed'}"
        else:
            why = "its id is even"
        return why

    def named(self, uid: str) -> str:
        """A UID by its name; where it has none, as it came, escaped."""
        return self._names.get(uid) or f"'{shown(uid)}'"

    # Its course ----------------------------------------------------------------------------------

    def echoed(self) -> None:
        self.echoes += 1
        log.log(TRACE, "%s: C-ECHO answered 0000", self.name, extra=self.about())

    def instance_answered(
        self,
        instance: str,
        status: int,
        size: int,
        comment: str,
        blamed: tuple[str, bytes | None] | None = None,
    ) -> None:
        """instance: SOP Instance UID, as it came. size: bytes of its data set.

        blamed: the UID for which it is refused, by its name and as it came, b"" where there is none
        that can be used, None where neither of two is there.
        """
        uid = shown(instance)
        code = f"{status:04X}"
        if not status:
            log.debug(
                "%s: stored %s, %d bytes", self.name, uid, size,
                extra=self.about(sop_instance_uid=uid, status=code, bytes=size),
            )  # fmt: skip
            return
        why = comment
        if blamed is not None:
            name, value = blamed
            if value:
                why += f": {name} '{shown(value)}'"
            elif value is None:
                # Which of the two it is, is what the comment leaves open.
                why += ": neither of them"
            else:
                why += f": no usable {name}"
        kind = "instance refused" if status != codes.ELEMENTS_DISCARDED else _KEPT
        log.warning(
            "%s: instance %s answered %s (%s)", self.name, uid, code, why,
            extra=self.about(
                kind, _SHOWN, sop_instance_uid=uid, status=code, reason=comment
            ),
        )  # fmt: skip

    # Its end -------------------------------------------------------------------------------------

    def ended(
        self,
        ending: Ending | None,
        rules: str | None,
        terms: Terms,
        done: Tally,
        seconds: float,
        told: Callable[[bool], None] | None = None,
    ) -> None:
        """The line of its end.

        ending: None where it was a bare connection: a probe, which is not worth a line. rules: the
        name of the association's; None: it never was one. told: called, as `once_told` says, once
        the log has it.
        """
        if ending is None:
            log.log(TRACE, "%s: closed before a request", self.name, extra=self.about())
            return
        kind = ending.kind
        if rules is None:
            level = logging.WARNING if kind == "rejected" else logging.INFO
            told_of = fields(self._who.fields(), terms.of_tls(), ending.fields())
            extra = {**told_of, **caused(kind, self._host)}
            log.log(level, "%s: %s", self.name, ending.text, extra=extra)
            return
        account = Account(self._who, rules, terms, done, seconds)
        is_check = self.echoes and not done.begun and kind in _OF_A_CHECK
        extra = dict(fields(account.fields(), ending.fields()))
        # An instance that is not stored for another one has its line in the journal, too.
        if not (done.stored or done.kept):
            if kind == "released":
                kind = "released without an instance"
            extra.update(caused(kind, self._host, ENDS_SHOWN, (done.stored, done.refused)))
        level = logging.WARNING if account.is_costly else logging.INFO
        level = logging.DEBUG if is_check else level
        if told is not None:
            if not log.isEnabledFor(level):
                # Nobody wants to be told.
                told(True)
            extra.update(once_told(told))
        log.log(level, "%s: %s; %s", self.name, ending.text, account.text(), extra=extra)
