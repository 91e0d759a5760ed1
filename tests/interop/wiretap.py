"""A proxy that lets everything pass and remembers what a client sent, and what it was answered.

What a sender puts on the wire is not always what its file holds. Taken apart here by the slow
decoder of the tests, it is what has to arrive.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fastscp_ext.wire.pdus import AssociateAC
from tests.kit import DEADLINE_S
from tests.reference_pdu import command_elements, pdu, split_stream, uid

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

__all__ = ["Message", "Wiretap"]


@dataclass(frozen=True)
class Message:
    """A message with a data set, as its sender sent it."""

    sop_class: str
    sop_instance: str
    transfer_syntax: str
    data_set: bytes


@dataclass
class _Connection:
    client: socket.socket
    server: socket.socket
    said: bytearray = field(default_factory=bytearray)
    heard: bytearray = field(default_factory=bytearray)


class Wiretap:
    """Listens on a port of its own and passes connections on to `host` and `port`."""

    def __init__(self, host: str, port: int) -> None:
        self._to = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._connections: list[_Connection] = []
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Wiretap:
        self._start(self._accept)
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        # Shut down, a listener wakes who waits on it; closed, it does not.
        self._listener.shutdown(socket.SHUT_RDWR)
        for one in self._connections:
            for end in (one.client, one.server):
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(DEADLINE_S)
            assert not thread.is_alive()
        self._listener.close()
        for one in self._connections:
            one.client.close()
            one.server.close()

    def _start(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(self._to, DEADLINE_S)
            one = _Connection(client, server)
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                end.settimeout(None)
            self._connections.append(one)
            self._start(self._pass_on, client, server, one.said)
            self._start(self._pass_on, server, client, one.heard)

    @staticmethod
    def _pass_on(source: socket.socket, sink: socket.socket, record: bytearray) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 18):
                record += data
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def messages(self) -> list[Message]:
        """The messages with a data set that came whole, one connection after the other."""
        return [message for one in self._connections for message in _messages(one)]


def _messages(one: _Connection) -> list[Message]:
    answers = split_stream(bytes(one.heard))
    ac = pdu(answers[0])
    assert isinstance(ac, AssociateAC)
    syntaxes = {context.id: context.transfer_syntax for context in ac.presentation_contexts}
    messages = []
    command = data = b""
    pieces: list[bytes] = []
    for raw in split_stream(bytes(one.said)):
        pdvs = pdu(raw)
        if not isinstance(pdvs, list):
            continue
        for context, header, fragment in pdvs:
            pieces.append(fragment)
            if header == 3:
                command, pieces = b"".join(pieces), []
            elif header == 2:
                data, pieces = b"".join(pieces), []
                elements = command_elements(command)
                uids = uid(elements[0x0002]), uid(elements[0x1000])
                messages.append(Message(*uids, syntaxes[context], data))
    return messages
