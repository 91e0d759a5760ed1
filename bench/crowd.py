"""Peers that take places and give nothing: python -m bench.crowd PORT TLS-PORT COUNT COUNT COUNT

The counts are those of silent, trickling and deaf ones.
Every second one speaks TLS. Silent ones say nothing, behind their handshake and, every second of
them, behind their association; trickling ones send a byte of an instance ten times a second; deaf
ones ask some thousand times (C-ECHO) in one go, and read no answer. Whoever is closed comes again.

Prints `ready` once all of them are there, and, when stdin ends, how many came, were closed and are
there.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
import sys
from typing import TYPE_CHECKING

from fastscp_ext import (
    AssociateRQ,
    PresentationContextRQ,
    UserInformation,
    encode_associate_rq,
    encode_command,
    encode_pdata,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

CT, VERIFICATION, ELE = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.1", "1.2.840.10008.1.2.1"
RQ = encode_associate_rq(
    AssociateRQ(
        called_ae=b"ANY-SCP".ljust(16),
        calling_ae=b"CROWD".ljust(16),
        application_context="1.2.840.10008.3.1.1.1",
        presentation_contexts=(
            PresentationContextRQ(1, CT, (ELE,)),
            PresentationContextRQ(3, VERIFICATION, (ELE,)),
        ),
        user_information=UserInformation(
            max_pdu_length=16384, implementation_class_uid="1.2.826.0.1.3680043.8.498.9"
        ),
        protocol_version=1,
    )
)
ECHO = encode_pdata(
    [(3, 3, encode_command({0x0002: VERIFICATION, 0x0100: 0x30, 0x0110: 1, 0x0800: 0x101}))]
)
STORE = encode_pdata(
    [(1, 3, encode_command({
        0x0002: CT, 0x0100: 1, 0x0110: 1, 0x0700: 0, 0x0800: 1, 0x1000: "1.2.3.4",
    }))]
) + encode_pdata([(1, 0, bytes(10_000))])  # fmt: skip
STEP_S = 0.1
AGAIN_S = 0.2
ASKED = 2000


class Crowd:
    """All of them. ports: without and with TLS."""

    def __init__(self, ports: tuple[int, int]) -> None:
        self._ports = ports
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._tls.check_hostname = False
        self._tls.verify_mode = ssl.CERT_NONE
        self.came = self.closed = self.there = 0

    async def silent(self, number: int) -> None:
        await self._stays(number, self._waits, associates=number % 4 < 2)

    async def trickling(self, number: int) -> None:
        await self._stays(number, self._trickles)

    async def deaf(self, number: int) -> None:
        await self._stays(number, self._asks, receive_buffer=4096)

    async def _stays(
        self,
        number: int,
        does: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
        *,
        associates: bool = True,
        receive_buffer: int = 0,
    ) -> None:
        while True:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await self._once(number % 2 == 1, does, associates, receive_buffer)
            self.closed += 1
            await asyncio.sleep(AGAIN_S)

    async def _once(
        self,
        secured: bool,
        does: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
        associates: bool,
        receive_buffer: int,
    ) -> None:
        sock = socket.socket()
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self._ports[secured]))
            reader, writer = await asyncio.open_connection(
                sock=sock, limit=1024, ssl=self._tls if secured else None,
                server_hostname="localhost" if secured else None,
            )  # fmt: skip
        except BaseException:
            sock.close()
            raise
        there = False
        try:
            if associates:
                writer.write(RQ)
                head = await reader.readexactly(6)
                if head[0] != 2:
                    return
                await reader.readexactly(int.from_bytes(head[2:], "big"))
            there = True
            self.came += 1
            self.there += 1
            await does(reader, writer)
        finally:
            self.there -= there
            writer.transport.abort()

    @staticmethod
    async def _waits(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()

    @staticmethod
    async def _trickles(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for byte in STORE:
            writer.write(bytes((byte,)))
            await writer.drain()
            await asyncio.sleep(STEP_S)

    async def _asks(self, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(ECHO * ASKED)
        await writer.drain()
        # Nobody reads: nothing is seen of its end, which the receiver makes in a minute.
        await asyncio.sleep(3600)


async def main(ports: tuple[int, int], counts: tuple[int, int, int]) -> None:
    """Keep the crowd there until stdin ends."""
    crowd = Crowd(ports)
    tasks = [
        asyncio.ensure_future(one(number))
        for one, count in zip((crowd.silent, crowd.trickling, crowd.deaf), counts, strict=True)
        for number in range(count)
    ]
    while crowd.there < sum(counts):  # noqa: ASYNC110 - a few looks, once
        await asyncio.sleep(0.05)
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    print(json.dumps({"came": crowd.came, "closed": crowd.closed, "there": crowd.there}))
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


if __name__ == "__main__":
    words = [int(word) for word in sys.argv[1:]]
    asyncio.run(main((words[0], words[1]), (words[2], words[3], words[4])))
