"""The responses owed to one peer, and what is sent to it."""

from collections.abc import Callable
from typing import Self, final

from fastscp_ext.receive.pace import Pace
from fastscp_ext.shared.counts import Tally

__all__ = ["Outbox"]

@final
class Outbox:
    """The responses owed to one peer, in request order; made by its receiver.

    trace, verbose, tell_responses_sent: whether the receiver's methods `pdu_traced` and
    `command_traced`, `instance_answered` (for 0000, too) and `responses_sent` are called.
    """

    trace: bool
    verbose: bool
    tell_responses_sent: bool

    def __new__(cls, pace: Pace) -> Self: ...
    @property
    def owed(self) -> int:
        """Responses not yet sent."""

    @property
    def stored(self) -> int:
        """Instances answered with 0000."""

    @property
    def refused(self) -> int:
        """Instances answered with anything else but B006."""

    @property
    def done(self) -> Tally:
        """What the association has done by now; from the slot that `establish` named, if any."""

    def end(self, how: int) -> Callable[[bool], None] | None:
        """Note how the association ended, for main to tell of should this worker die first.

        how: greater than 0, as `Ending` numbers it. Returns what is to be called once the log has
        its line, from any thread, with whether the line is its own (see `Tallies.tell`); main
        keeps the slot until then. None: it has no slot. Call it before `abandon`.
        """

    def send_pdu(self, pdu: bytes) -> None:
        """Send an encoded PDU, behind the responses already on their way."""
