"""A TCP connection, from names to a connected socket, on any event loop.

Theory of operation: the standard loops resolve names in threads whose end they wait for when they
are closed, and do not tell their caller whether TCP or TLS failed, each in its own way. Here the
resolver runs in a thread that nobody waits for; and whoever has the socket knows that TCP is there.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import os
import socket
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from fastscp.scu.threads import in_thread

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["connected_socket"]

# What getaddrinfo says of an address: family, type, protocol, canonical name, socket address.
_Found: TypeAlias = tuple[int, int, int, str, Any]
# A connect that goes on while nobody waits for it.
_UNDER_WAY: Final = frozenset({errno.EINPROGRESS, errno.EINTR, errno.EAGAIN})


async def connected_socket(host: str, port: int) -> socket.socket:
    """A connected socket that does not block; the caller closes it.

    The addresses of a name are tried one after the other. Raises OSError, without a number if they
    failed in different ways, and socket.gaierror.
    """
    failed: dict[str, OSError] = {}
    for family, kind, protocol, _name, address in await _addresses(host, port):
        try:
            return await _connect(family, kind, protocol, address)
        except OSError as error:
            failed[str(error)] = error
    try:
        if len(failed) == 1:
            raise failed.popitem()[1]
        raise OSError("; ".join(failed) or "the name has no address")
    finally:
        failed.clear()  # they hold this frame


async def _addresses(host: str, port: int) -> Sequence[_Found]:
    def look_up(flags: int = 0) -> Sequence[_Found]:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)

    try:
        ipaddress.ip_address(host)
    except ValueError:
        return await in_thread(look_up)
    return look_up(socket.AI_NUMERICHOST)


async def _connect(family: int, kind: int, protocol: int, address: Any) -> socket.socket:
    loop = asyncio.get_running_loop()
    made = socket.socket(family, kind, protocol)
    try:
        made.setblocking(False)
        number = made.connect_ex(address)
        if number in _UNDER_WAY:
            ready = asyncio.Event()
            loop.add_writer(made, ready.set)
            try:
                await ready.wait()
            finally:
                loop.remove_writer(made)
            number = made.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number:
            raise OSError(number, os.strerror(number))
    except BaseException:
        made.close()
        raise
    return made
