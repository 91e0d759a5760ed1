"""What a peer has sent, before its connection is closed: the loop may not have come to it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from fastscp_ext import Secured

if TYPE_CHECKING:
    import asyncio

    from fastscp_ext import Receiver

__all__ = ["take_arrived"]


def take_arrived(receiver: Receiver, transport: asyncio.Transport | Secured) -> None:
    """Give a receiver that reads what its socket holds, as the loop would: one read.

    Nothing happens where that cannot be read. Behind TLS, the transport is what reads.
    """
    if receiver.rest_bytes:
        return
    reads: Receiver | Secured = transport if isinstance(transport, Secured) else receiver
    fd = transport.get_extra_info("socket").fileno()
    with memoryview(reads.get_buffer(-1)) as view:
        try:
            nbytes = os.readv(fd, [view])
        except OSError:
            # Nothing is there (EAGAIN), or the peer is gone.
            return
        if nbytes:
            reads.buffer_updated(nbytes)
