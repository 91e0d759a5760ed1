"""The responses owed to one peer, and what is sent to it."""

from typing import Self, final

from fastscp_ext.receive.pace import Pace
from fastscp_ext.shared.counts import Tally

__all__ = ["Outbox"]

@final
class Outbox:
    """The responses owed to one peer, in request order; made by its receiver.

    trace, verbose, tell_responses_sent: whether the receiver's methods `pdu_traced`,
    `instance_answered` (for 0000, too) and `responses_sent` are called.
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
        """Instances answered with 0000 or B006."""

    @property
    def refused(self) -> int:
        """Instances answered with anything else."""

    @property
    def done(self) -> Tally:
        """What the association has done by now; from the slot that `establish` named, if any."""

    def told(self) -> None:
        """Note that the end of the association is in the log: main need not tell it."""

    def send_pdu(self, pdu: bytes) -> None:
        """Send an encoded PDU, behind the responses already on their way."""
