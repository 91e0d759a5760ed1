"""What requests and command sets take in one worker while they are not whole, or wait."""

from typing import final

__all__ = ["Unfinished"]

@final
class Unfinished:
    """What the receivers of one worker hold of requests and command sets that have not ended.

    A request that is whole and waits to be decoded counts, too.

    A request may have 1 MiB and a command set 64 KiB, and a peer can leave it at that until a timer
    ends it. Ordinary ones, up to 16 KiB, are not counted: few are larger. Those that are may hold
    32 MiB together; beyond that the one that holds most is ended.
    """

    @property
    def bytes(self) -> int:
        """What those hold together that hold more than ordinary ones do."""
