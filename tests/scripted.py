"""A storage SCP that plays a script on a real socket: for what real ones never do on request."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Self

import uvloop

from fastscp_ext import (
    AssociateAC,
    AssociateRQ,
    AsyncWindow,
    CommandSet,
    PresentationContextAC,
    UserInformation,
    build_meta,
    decode_associate_rq,
    decode_command,
    decode_pdata,
    encode_associate_ac,
    encode_command,
)
from tests.kit import CT, DEADLINE_S, ELE, RELEASE_RP, SOP, data_set, message

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Collection, Mapping
    from pathlib import Path
    from types import TracebackType

__all__ = ["LOOPS", "Connection", "Message", "Scp", "accepting", "part10", "write_files"]


# The event loops that the Python API runs on.
LOOPS: Final = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@dataclass(frozen=True)
class Message:
    """A message as it came."""

    context_id: int
    command: CommandSet
    data: bytes

    @property
    def id(self) -> int:
        assert self.command.message_id is not None
        return self.command.message_id


@dataclass
class Connection:
    """What a script has in hand: the socket, the connections that came before this one, and the
    request once it is read.
    """

    socket: socket.socket
    number: int = 0
    request: AssociateRQ | None = None
    lengths: list[int] = field(default_factory=list)

    def _read(self, n: int) -> bytes:
        got = bytearray()
        while len(got) < n:
            more = self.socket.recv(n - len(got))
            if not more:
                return b""
            got += more
        return bytes(got)

    def read_pdu(self) -> bytes:
        """The next PDU, b"" at the end of the connection."""
        header = self._read(6)
        if not header:
            return b""
        length = int.from_bytes(header[2:], "big")
        return header + self._read(length)

    def read_request(self) -> AssociateRQ:
        self.request = decode_associate_rq(self.read_pdu())
        return self.request

    def accept(
        self,
        *,
        max_pdu: int | None = 16384,
        window: int | None = None,
        results: Mapping[int, int] | None = None,
        syntaxes: Mapping[int, str] | None = None,
        leave_out: Collection[int] = (),
    ) -> None:
        """Read the request and accept it. results, syntaxes: by context id, where not the usual."""
        rq = self.read_request()
        self.socket.sendall(
            encode_associate_ac(
                AssociateAC(
                    rq.called_ae,
                    rq.calling_ae,
                    rq.application_context,
                    tuple(
                        PresentationContextAC(
                            one.id,
                            (results or {}).get(one.id, 0),
                            (syntaxes or {}).get(one.id, one.transfer_syntaxes[0]),
                        )
                        for one in rq.presentation_contexts
                        if one.id not in leave_out
                    ),
                    UserInformation(
                        max_pdu_length=max_pdu,
                        implementation_class_uid="1.2.3.9",
                        async_window=None if window is None else AsyncWindow(window, 1),
                    ),
                )
            )
        )

    def read_message(self) -> Message | None:
        """The next message; None when release is asked for, or all is over."""
        command = data = b""
        decoded: CommandSet | None = None
        while True:
            pdu = self.read_pdu()
            if not pdu or pdu[0] != 4:
                if pdu[:1] == b"\x05":
                    self.socket.sendall(RELEASE_RP)
                return None
            self.lengths.append(len(pdu) - 6)
            for context_id, control, fragment in decode_pdata(pdu):
                if control & 1:
                    command += fragment
                    if control & 2:
                        decoded = decode_command(command)
                        if not decoded.has_data_set:
                            return Message(context_id, decoded, b"")
                else:
                    data += fragment
                    if control & 2:
                        assert decoded is not None
                        return Message(context_id, decoded, data)

    def respond(
        self, to: Message | int, status: int | None = 0, *, split: int = 16000, **more: Any
    ) -> None:
        """Answer a message. more: elements by `e0902="text"`. split: bytes of a fragment.

        A number stands for a C-STORE-RQ with this id, on context 1.
        """
        context_id, number, field = 1, to, 0x0001
        if isinstance(to, Message):
            context_id, number, field = to.context_id, to.id, to.command.command_field or 0
        elements: dict[int, Any] = {0x0100: field | 0x8000, 0x0120: number, 0x0800: 0x0101}
        if status is not None:
            elements[0x0900] = status
        elements |= {int(name[1:], 16): value for name, value in more.items()}
        raw = encode_command(elements)
        self.socket.sendall(message(raw, context=context_id, fragment=split))

    def serve(self, *statuses: int) -> list[Message]:
        """Answer what comes until the end: with these statuses, then with success."""
        messages: list[Message] = []
        while (got := self.read_message()) is not None:
            self.respond(got, statuses[len(messages)] if len(messages) < len(statuses) else 0)
            messages.append(got)
        return messages

    def until_closed(self) -> bytes:
        """All that still comes."""
        got = bytearray()
        with contextlib.suppress(ConnectionError):
            while more := self.socket.recv(65536):
                got += more
        return bytes(got)

    def reset(self) -> None:
        """Close with RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


class Scp:
    """Plays one script per connection, in their order; the last one for all that follow.

    What a script asserts is raised at the end of the `with` block.
    """

    host = "127.0.0.1"

    def __init__(
        self,
        *scripts: Callable[[Connection], object],
        tls: ssl.SSLContext | None = None,
        receive_buffer: int = 0,
    ) -> None:
        self._scripts = scripts
        self._tls = tls
        self._listening = socket.socket()
        if receive_buffer:
            self._listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._listening.bind((self.host, 0))
        self._listening.listen()
        self._threads: list[threading.Thread] = []
        self._errors: list[BaseException] = []
        self.connections = 0
        self.over = threading.Event()
        self.results: list[Any] = []

    @property
    def port(self) -> int:
        return int(self._listening.getsockname()[1])

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.over.set()
        self._listening.shutdown(socket.SHUT_RDWR)
        self._thread.join(DEADLINE_S)
        self._listening.close()
        for thread in self._threads:
            thread.join(DEADLINE_S)
            assert not thread.is_alive()
        if kind is None and self._errors:
            raise self._errors[0]

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listening.accept()
            except OSError:
                return
            if self.over.is_set():
                sock.close()
                return
            script = self._scripts[min(self.connections, len(self._scripts) - 1)]
            thread = threading.Thread(target=self._play, args=(sock, script, self.connections))
            self.connections += 1
            self._threads.append(thread)
            thread.start()

    def _play(
        self, sock: socket.socket, script: Callable[[Connection], object], number: int
    ) -> None:
        try:
            sock.settimeout(DEADLINE_S)
            with sock if self._tls is None else self._tls.wrap_socket(sock, server_side=True) as s:
                self.results.append(script(Connection(s, number)))
        except BaseException as error:
            self._errors.append(error)


def accepting(connection: Connection, **more: Any) -> list[Message]:
    """A script: accept, and answer all that comes."""
    connection.accept(**more)
    return connection.serve()


def part10(data: bytes, *, sop: str = SOP, sop_class: str = CT, syntax: str = ELE) -> bytes:
    """A Part 10 file around a data set."""
    names = (sop_class.encode(), sop.encode(), syntax.encode())
    return build_meta(*names, b"1.2.3.9", b"KIT", b"", b"") + data


def write_files(folder: Path, count: int, *, pixels: int = 512, syntax: str = ELE) -> list[Path]:
    """So many small instances of one series."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number in range(count):
        sop = f"{SOP}.{number + 1}"
        path = folder / f"{number:05}.dcm"
        data = data_set(syntax, sop=sop, pixels=pixels, seed=number)
        path.write_bytes(part10(data, sop=sop, syntax=syntax))
        paths.append(path)
    return paths
