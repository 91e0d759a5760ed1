"""C-ECHO from the command line."""

from __future__ import annotations

import asyncio
import time

from fastscp.errors import FastscpError
from fastscp.log import printable
from fastscp.scu.connect import associate
from fastscp.scu.errors import PeerTimeout
from fastscp.scu.timeouts import Timeouts
from fastscp.status import StatusClass

__all__ = ["run_echo"]


def run_echo(
    host: str, port: int, *, called_ae: str, calling_ae: str, timeout_s: float, max_pdu_length: int
) -> str:
    """Ask a peer whether it is there; returns what it said, in one line.

    timeout_s: for the whole exchange. Raises FastscpError if the answer is anything but success.
    """

    async def ask() -> str:
        began = time.perf_counter()
        association = await associate(
            host,
            port,
            called_ae=called_ae,
            calling_ae=calling_ae,
            max_pdu_length=max_pdu_length,
            # One limit for all: the outer one.
            timeouts=Timeouts(
                connect=timeout_s, associate=timeout_s, send=timeout_s, response=timeout_s,
                release=timeout_s,
            ),
        )  # fmt: skip
        async with association:
            response = await association.echo()
            if response.status_class is not StatusClass.SUCCESS:
                raise FastscpError(f"the peer answered {response}")
        name = association.implementation_version_name
        who = f" ({printable(name)})" if name else ""
        milliseconds = (time.perf_counter() - began) * 1000
        return f"{host}:{port}{who}: {response} in {milliseconds:.1f} ms"

    async def within() -> str:
        try:
            async with asyncio.timeout(timeout_s):
                return await ask()
        except TimeoutError:
            raise PeerTimeout("complete the exchange", timeout_s) from None

    return asyncio.run(within())
