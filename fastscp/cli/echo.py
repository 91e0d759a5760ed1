"""`fastscp echo`: C-ECHO."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from fastscp import log
from fastscp.cli.options import (
    MAX_PDU_LENGTH,
    PEER,
    TIMEOUT,
    TITLE,
    CalledAE,
    CallingAE,
    MaxPDULength,
    Verbose,
)
from fastscp.config.settings import read_value
from fastscp.errors import FastscpError

__all__ = ["echo", "run_echo"]


def echo(
    peer: Annotated[str, Parameter(name="HOST:PORT", help="Who to ask.")],
    /,
    *,
    called_ae: CalledAE = "ANY-SCP",
    calling_ae: CallingAE = "FASTSCP",
    timeout: Annotated[
        str, Parameter(metavar="TIME", help="How long the whole exchange may take.")
    ] = "10s",
    max_pdu_length: MaxPDULength = "131072",
    verbose: Verbose = 0,
) -> int:
    """Ask a peer whether it is there (C-ECHO)."""
    host, port = read_value("HOST:PORT", peer, PEER)
    options = {
        "called_ae": read_value("--called-ae", called_ae, TITLE),
        "calling_ae": read_value("--calling-ae", calling_ae, TITLE),
        "timeout_s": read_value("--timeout", timeout, TIMEOUT),
        "max_pdu_length": read_value("--max-pdu-length", max_pdu_length, MAX_PDU_LENGTH),
    }
    log.configure("echo", ("warning", "debug", "trace")[min(verbose, 2)])
    print(run_echo(host, port, **options))
    return 0


def run_echo(
    host: str, port: int, *, called_ae: str, calling_ae: str, timeout_s: float, max_pdu_length: int
) -> str:
    """Ask a peer whether it is there; returns what it said, in one line.

    timeout_s: for the whole exchange. Raises FastscpError if the answer is anything but success.
    """
    import asyncio
    import time

    from fastscp.scu import PeerTimeout, Timeouts, associate
    from fastscp.status import StatusClass

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
        who = f" ({log.printable(name)})" if name else ""
        milliseconds = (time.perf_counter() - began) * 1000
        return f"{host}:{port}{who}: {response} in {milliseconds:.1f} ms"

    async def within() -> str:
        try:
            async with asyncio.timeout(timeout_s):
                return await ask()
        except TimeoutError:
            raise PeerTimeout("complete the exchange", timeout_s) from None

    return asyncio.run(within())
