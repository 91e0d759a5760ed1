"""PROXY protocol headers, versions 1 and 2: whom a proxy speaks for.

Source: HAProxy's doc/proxy-protocol.txt, 2.1 (version 1), 2.2 (version 2, TLVs).
"""

from typing import final

from typing_extensions import Buffer

__all__ = ["ProxyHeader"]

@final
class ProxyHeader:
    """One header, taken in piece by piece.

    It is at most 107 bytes in version 1. In version 2 it is 16 bytes, and at most 4096 of addresses
    and TLVs. What is told of the header holds once it is whole.
    """

    @property
    def version(self) -> int:
        """1 or 2; 0 before the first byte."""

    @property
    def is_whole(self) -> bool: ...
    @property
    def least(self) -> int:
        """How many bytes the header is sure to have yet; 0: it is whole, or refused."""

    @property
    def is_local(self) -> bool:
        """Whether the proxy speaks for itself (LOCAL), as in a health check."""

    @property
    def source(self) -> tuple[str, int] | None:
        """Address, as the system writes it, and port of whom the proxy speaks for.

        An IPv4 address in IPv6 is one of IPv4. None: the header tells of nobody that comes by TCP
        over IPv4 or IPv6, and the address of the connection itself holds.
        """

    @property
    def common_name(self) -> bytes | None:
        """Common name of the peer's certificate; None unless the proxy verified one (PP2_TYPE_SSL).

        Anything that a certificate may hold.
        """

    def feed(self, data: Buffer) -> int:
        """Take in what of `data` belongs to the header; returns how many bytes that are.

        Raises ProxyHeaderError at the first byte that shows that the header cannot be used, and at
        each call from then on.
        """
