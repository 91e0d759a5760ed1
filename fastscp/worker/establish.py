"""From an accepted request to what the receiver needs to know of the association."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from fastscp import uids
from fastscp.titles import title_text
from fastscp_ext import ae_title, encoding_of

if TYPE_CHECKING:
    from fastscp.association.negotiation import Accepted
    from fastscp_ext import Receiver, Rules

__all__ = ["establish"]


def establish(
    receiver: Receiver,
    accepted: Accepted,
    rules: Rules,
    *,
    association: str,
    peer: str,
    user: str,
    ae_row: int,
    tally: int,
) -> None:
    """Let the receiver enter data transfer (Sta6).

    association, peer: the association's id and its peer's address, for the journal.
    user: whose passcode or token was right, for the journal; empty: none was checked. ae_row: of
    the calling AE title, among the counters. tally: the slot that counts what it does, or -1.
    """
    ac = accepted.ac
    # Members of a journal line, each behind a comma: how the codec puts them in.
    members = {
        "association": association,
        "calling_ae": title_text(ae_title(ac.calling_ae)),
        "called_ae": title_text(ae_title(ac.called_ae)),
        "peer": peer,
        **({"user": user} if user else {}),
    }
    contexts = []
    for context_id, context in accepted.contexts.items():
        transfer_syntax = context.transfer_syntax.encode("ascii")
        contexts.append(
            (
                context_id,
                context.abstract_syntax.encode("ascii"),
                transfer_syntax,
                *encoding_of(transfer_syntax),
                context.abstract_syntax != uids.VERIFICATION,
            )
        )
    receiver.establish(
        contexts,
        rules=rules,
        peer_max_pdu_length=accepted.peer_max_pdu_length,
        unique_ids=accepted.window > 1,
        journal_members=b"," + msgspec.json.encode(members)[1:-1],
        calling_ae=ae_title(ac.calling_ae).encode("latin-1"),
        called_ae=ae_title(ac.called_ae).encode("latin-1"),
        ae_row=ae_row,
        tally=tally,
    )
