"""Networks as bytes, so that an address is looked up in many of them at once."""

from __future__ import annotations

import ipaddress
import socket
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Networks", "counted_host", "network_part", "packed_address"]

# A host can take any address of a network of this length (RFC 8981), as many as it likes.
_IPV6_PREFIX: Final = 64


def packed_address(host: str) -> bytes | None:
    """The bytes of a numeric address, 4 or 16; None where it is none.

    A socket that serves both families shows an IPv4 peer as ::ffff:a.b.c.d.
    """
    host = host.partition("%")[0]
    try:
        if ":" not in host:
            return socket.inet_pton(socket.AF_INET, host)
        packed = socket.inet_pton(socket.AF_INET6, host)
    except (OSError, ValueError):
        return None
    return packed[12:] if packed.startswith(bytes(10) + b"\xff\xff") else packed


def counted_host(host: str) -> str:
    """An address as what a host does is counted: IPv4 whole, IPv6 by its /64 network.

    An IPv4 address in IPv6 form (RFC 4291 2.5.5.2) counts as IPv4. What is no address counts as it
    is.
    """
    if ":" not in host:
        return host
    packed = packed_address(host)
    if packed is None:
        return host
    if len(packed) == 4:
        return socket.inet_ntop(socket.AF_INET, packed)
    kept = _IPV6_PREFIX // 8
    network = socket.inet_ntop(socket.AF_INET6, packed[:kept] + bytes(16 - kept))
    # The same link-local network is another one on each interface.
    _address, percent, scope = host.partition("%")
    return f"{network}{percent}{scope}/{_IPV6_PREFIX}"


def network_part(packed: bytes, prefix: int) -> bytes:
    """The network of an address, as it stands in an entry. prefix: its length in bits."""
    rest = 8 * len(packed) - prefix
    masked = int.from_bytes(packed) >> rest << rest
    return bytes((len(packed), prefix)) + masked.to_bytes(len(packed))


class Networks:
    """A set of networks, each as ADDRESS/PREFIX. Immutable."""

    def __init__(self, networks: Iterable[str]) -> None:
        known = [ipaddress.ip_network(one) for one in networks]
        self._parts = {network_part(one.network_address.packed, one.prefixlen) for one in known}
        self._prefixes = {
            size: {one.prefixlen for one in known if len(one.network_address.packed) == size}
            for size in (4, 16)
        }

    def __contains__(self, host: str) -> bool:
        """Whether a numeric address is in one of them."""
        if not self._parts:
            return False
        packed = packed_address(host)
        return packed is not None and any(
            network_part(packed, prefix) in self._parts for prefix in self._prefixes[len(packed)]
        )
