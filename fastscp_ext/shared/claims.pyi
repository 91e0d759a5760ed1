"""Offers of connections, and who takes them."""

from typing import Self, final

from fastscp_ext.shared.block import Block

__all__ = ["Claims"]

@final
class Claims:
    """The tickets of connections on their way from main to a worker."""

    def __new__(cls, block: Block) -> Self: ...
    def offer(self, ticket: int) -> None:
        """Mark `ticket` as free for the taking. Tickets 4096 apart share a place."""

    def claim(self, ticket: int) -> bool:
        """Take `ticket`; whether it was still free. Exactly one taker ever gets True."""
