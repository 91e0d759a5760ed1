"""What a peer has sent, before its connection is closed: the loop may not have come to it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

    from fastscp_ext import Receiver

__all__ = ["take_arrived"]


def take_arrived(receiver: Receiver, transport: asyncio.Transport) -> None:
    """Give a receiver that reads what its socket holds, as the loop would: one read.

    Nothing happens where the transport is not the socket itself, as with TLS, or cannot be read.
    """
    if transport.get_extra_info("sslcontext") is not None or receiver.rest_bytes:
        return
    fd = transport.get_extra_info("socket").fileno()
    with memoryview(receiver.get_buffer(-1)) as view:
        try:
            nbytes = os.readv(fd, [view])
        except OSError:
            # Nothing is there (EAGAIN), or the peer is gone.
            return
        if nbytes:
            receiver.buffer_updated(nbytes)
