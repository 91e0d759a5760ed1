"""What holds reading from one peer back, and whether that peer keeps up."""

from typing import final

__all__ = ["Pace"]

@final
class Pace:
    """What holds reading from one peer back; made by its receiver.

    why: 1 the request is being decided, 4 the peer does not read.
    """

    def hold(self, why: int) -> None:
        """Stop reading for one more reason."""

    def go_on(self, why: int) -> None:
        """Take one reason back; reading goes on when none is left."""

    def unread(self, now: float) -> float:
        """How long the peer has not read what we send, in seconds; 0.0 where it does.

        now: of the monotonic clock.
        """
