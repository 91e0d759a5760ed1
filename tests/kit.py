"""For tests of the whole service: `Service` runs it, `Peer` speaks to it, the rest makes bytes.

Nothing here waits without a deadline, and nothing sleeps for a time that is merely hoped to be
enough: `wait_for` looks again until what is waited for is so.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self, TypeVar

import fastscp
from fastscp.admin.client import ControlClient
from fastscp.messages.control import Reload, Reloaded
from fastscp.store.journal import parse_line
from fastscp_ext import (
    AssociateRQ,
    AsyncWindow,
    CommandSet,
    PresentationContextRQ,
    UserInformation,
    decode_command,
    decode_pdata,
    encode_associate_rq,
    encode_command,
    encode_pdata,
    encode_release_rq,
)
from tests.secured import SecuredSocket

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from types import TracebackType

__all__ = [
    "ANY_PORT",
    "BIG",
    "CT",
    "DEFLATED",
    "ELE",
    "ILE",
    "MR",
    "ON_LOOPBACK",
    "RELEASE_RP",
    "RELEASE_RQ",
    "SECONDARY",
    "SERIES",
    "SOP",
    "STUDY",
    "TLS",
    "VERIFICATION",
    "Peer",
    "Response",
    "Service",
    "abort",
    "associate_rq",
    "children_of",
    "data_set",
    "echo",
    "element",
    "errors_in",
    "message",
    "path_of",
    "pdu",
    "reject",
    "send_signal",
    "split_pdus",
    "store",
    "store_rq",
    "wait_for",
]

DEADLINE_S: Final = 60.0

# For a service that is no `Service`: it takes no port that others on this machine may want.
ON_LOOPBACK: Final = ("--host", "127.0.0.1", "--admin", "off")
ANY_PORT: Final = (*ON_LOOPBACK, "--port", "0")

ILE: Final = "1.2.840.10008.1.2"
ELE: Final = "1.2.840.10008.1.2.1"
DEFLATED: Final = "1.2.840.10008.1.2.1.99"
BIG: Final = "1.2.840.10008.1.2.2"

VERIFICATION: Final = "1.2.840.10008.1.1"
CT: Final = "1.2.840.10008.5.1.4.1.1.2"
MR: Final = "1.2.840.10008.5.1.4.1.1.4"
SECONDARY: Final = "1.2.840.10008.5.1.4.1.1.7"

STUDY: Final = "1.2.3.1"
SERIES: Final = "1.2.3.1.1"
SOP: Final = "1.2.3.1.1.1"

RELEASE_RQ: Final = encode_release_rq()
RELEASE_RP: Final = b"\x06\x00\x00\x00\x00\x04\x00\x00\x00\x00"

_T = TypeVar("_T")


def open_paths(pid: int) -> set[str]:
    """What a process has open, as the system names it."""
    found = set[str]()
    for one in Path(f"/proc/{pid}/fd").iterdir():
        # It may be closed while it is looked at.
        with contextlib.suppress(FileNotFoundError):
            found.add(os.readlink(one))
    return found


def wait_for(look: Callable[[], _T | None], what: str, seconds: float = DEADLINE_S) -> _T:
    """Look until what is seen is true, and return it; AssertionError naming `what` otherwise."""
    end = time.monotonic() + seconds
    while not (seen := look()):
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        time.sleep(0.005)
    return seen


# Processes ----------------------------------------------------------------------------------------


def children_of(pid: int) -> list[int]:
    """The living children of a process, in the order of their ids; zombies are none of them."""
    found = []
    parent = b"%d" % pid
    # Many wait for what it says: it looks at every process of the machine each time.
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{entry}/stat", "rb", buffering=0) as file:
                fields = file.read().rpartition(b") ")[2].split(maxsplit=2)
        except OSError:
            continue
        if fields[1:2] == [parent] and fields[0] != b"Z":
            found.append(int(entry))
    return sorted(found)


def _inode_of(peer_port: int, port: int) -> str:
    """Of the service's end of a connection over IPv4; see proc(5)."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if (fields[1][-4:], fields[2][-4:]) == (f"{port:04X}", f"{peer_port:04X}"):
            return fields[9]
    return "none"


def _lives(pid: int) -> bool:
    try:
        return Path("/proc", str(pid), "stat").read_text().rpartition(") ")[2][0] != "Z"
    except OSError:
        return False


def send_signal(pid: int, name: signal.Signals) -> None:
    """Signal a process that may have ended by itself, as a worker without associations does.

    Workers leave in a drain, when they are replaced, and once main is gone. A test that needs the
    signal to arrive sends it to one that has something left to do.
    """
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, name)


_SLOW: Final = re.compile(
    r" main: worker \d+ (\(process \d+\) does not answer for \d+ s, |goes on after \d+ s)"
)


def errors_in(log: str) -> list[str]:
    """The lines of a service's log that tell of an error in it.

    That a worker was slow for a while is one of the machine, if it went on. One that did not go on
    is killed, and the line that says so is among these.
    """
    return [line for line in log.splitlines() if " ERROR " in line and not _SLOW.search(line)]


class TLS(NamedTuple):
    """What a service is given for TLS, and what its peers speak it with."""

    flags: tuple[str, ...]
    context: ssl.SSLContext


class Service:
    """`fastscp serve` as a process of its own, ready when the `with` block begins.

    The block ends with `stop`, which checks that the service leaves nothing behind; after an error
    inside it everything is killed instead. The program run is the one the tests import. store: the
    default is a folder `store` below tmp_path, which also takes the log. workers: 0 leaves their
    number to the configuration. tls: it listens with TLS; plain: without, too, and that is the port
    of its peers then.
    """

    host = "127.0.0.1"

    def __init__(
        self,
        tmp_path: Path,
        *flags: str,
        env: Mapping[str, str] | None = None,
        store: Path | None = None,
        workers: int = 2,
        hosts: Sequence[str] = ("127.0.0.1",),
        tls: TLS | None = None,
        plain: bool = False,
    ) -> None:
        self.store = store or tmp_path / "store"
        self.addresses: list[str] = []
        self.port = self.tls_port = 0
        tmp_path.mkdir(exist_ok=True)
        self._folder = tmp_path
        self._log = tmp_path / f"log-{len(list(tmp_path.glob('log-*')))}"
        self._workers: set[int] = set()
        self._log_from = 0
        self._journal_from = 0
        self._command = [
            *self.program(),
            "serve",
            *(word for host in hosts for word in ("--host", host)),
            *("--port", "0", "--store", str(self.store)),
            *(("--workers", str(workers)) if workers else ()),
            *(() if "--admin" in flags else ("--admin", "off")),
            *(("--tls-port", "0", *tls.flags) if tls is not None else ()),
            *(("--no-plain",) if tls is not None and not plain else ()),
            *flags,
        ]
        self._tls = tls
        self._listeners = len(hosts) * (2 if tls is not None and plain else 1)
        self._environment = self.environment(env)
        self._pass_fds: Sequence[int] = ()
        self._process: subprocess.Popen[bytes] | None = None

    @staticmethod
    def program() -> list[str]:
        """The command line up to the name of the command."""
        return [sys.executable, "-m", "fastscp"]

    @staticmethod
    def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
        """This process's, without settings of the service; the package is the tests' own."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith("FASTSCP_")}
        environment["PYTHONPATH"] = str(Path(fastscp.__file__).parents[1])
        return environment | dict(more or {})

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command, cwd=self._folder, env=self._environment,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=self._pass_fds,
            )  # fmt: skip
        try:
            wait_for(self._is_up, "the service listening")
            plain, tls = (
                re.findall(rf"^listening on (\S+){end}$", self.log(), re.MULTILINE)
                for end in ("", " with TLS")
            )
            self.addresses = plain or tls
            self.port = int(self.addresses[0].rpartition(":")[2])
            self.tls_port = int(tls[0].rpartition(":")[2]) if tls else 0
            self.worker_pids()
        except BaseException:
            self.kill()
            raise
        return self

    def _is_up(self) -> bool:
        if self.process.poll() is not None:
            raise AssertionError(f"ended with {self.process.returncode}:\n{self.log()}")
        lines = self.log().split("\n")[:-1]
        # Each address has its line.
        ready = [one for one in lines if one.startswith("listening on ")][: self._listeners]
        if len(ready) < self._listeners:
            return False
        # These come first, except where the start takes more than 5 s: the log waits no longer.
        assert lines[: self._listeners] == ready or time.monotonic() - self._began > 5
        return True

    def __exit__(
        self,
        kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None and self.process.returncode is None:
                self.stop()
        finally:
            self.kill()
            if kind is not None:
                print(f"--- the log of the service\n{self.log()}", file=sys.stderr)

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    @property
    def pid(self) -> int:
        return self.process.pid

    def worker_pids(self) -> list[int]:
        """The workers that live now."""
        pids = children_of(self.pid)
        self._workers.update(pids)
        return pids

    def anew(self) -> Service:
        """Let it begin as a service of its own would, for another test, and return it.

        The instances are removed; `log` and `journal` tell of what comes from here on.
        """
        wait_for(lambda: not self.parts(), "no part left")
        self._log_from = self._log.stat().st_size
        self._journal_from += len(self.journal())
        self.empty()
        return self

    def log(self) -> str:
        return self._log.read_bytes()[self._log_from :].decode("utf-8", "replace")

    def all_log(self) -> str:
        """What it said from its start on, whatever began anew since."""
        return self._log.read_text("utf-8", "replace")

    def in_log(self, text: str, seconds: float = DEADLINE_S) -> str:
        """Wait for a line with this text, and return it."""

        def look() -> str:
            return next((line for line in self.log().splitlines() if text in line), "")

        return wait_for(look, f"a log line with {text!r}", seconds)

    def followed(self) -> None:
        """Wait until the workers go by a reload; the log tells that it is taken before they do."""
        with ControlClient(self.store / ".fastscp", DEADLINE_S) as client:
            # It comes behind the one under way, which ends when they follow.
            client.ask(Reload(), Reloaded)

    def journal(self) -> list[dict[str, Any]]:
        """All facts in the order of their numbers; AssertionError where a line is not whole."""
        facts = []
        for segment in sorted((self.store / ".fastscp/journal").iterdir()):
            for line in segment.read_bytes().splitlines():
                fact = parse_line(line)
                assert fact is not None, f"{segment.name}: {line!r}"
                facts.append(fact)
        return sorted(facts, key=lambda fact: int(fact["seq"]))[self._journal_from :]

    def instances(self) -> list[str]:
        """What anybody sees below the store, as paths in it, sorted."""
        found = []
        # Folders may go meanwhile.
        for folder, folders, files in os.walk(self.store):
            if Path(folder) == self.store and ".fastscp" in folders:
                folders.remove(".fastscp")
            found += [os.path.relpath(os.path.join(folder, name), self.store) for name in files]
        return sorted(found)

    def data_of(self, path: str) -> bytes:
        """The data set in an instance's file, as `instances` names it."""
        raw = (self.store / path).read_bytes()
        # Preamble, "DICM", and the group length of the header: 12 bytes.
        return raw[144 + int.from_bytes(raw[140:144], "little") :]

    def empty(self) -> None:
        """Remove all instances, and what else there is beside them."""
        for there in self.store.iterdir():
            if there.name == ".fastscp":
                continue
            if there.is_dir() and not there.is_symlink():
                shutil.rmtree(there)
            else:
                there.unlink()

    def parts(self) -> list[Path]:
        """Files of instances that are being received."""
        return sorted(self._incoming("*/*.part"))

    def ends_parts(self) -> None:
        """Wait until there is none: of what is answered or over, a thread removes it."""
        wait_for(lambda: self.parts() == [], "the end of all parts")

    def _incoming(self, pattern: str) -> list[Path]:
        while True:
            # A life's folder may go while it is read.
            with contextlib.suppress(FileNotFoundError):
                return list((self.store / ".fastscp/incoming").glob(pattern))

    def stop(self, name: signal.Signals = signal.SIGTERM, seconds: float = DEADLINE_S) -> None:
        """Ask it to end, and check that it does so in order and leaves nothing behind."""
        self.worker_pids()
        self.process.send_signal(name)
        self.ends(0, seconds)

    def ends(self, code: int, seconds: float = DEADLINE_S) -> None:
        """Wait for its end, and check the exit code and that it leaves nothing behind."""
        try:
            assert self.process.wait(seconds) == code, self.log()
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still there after {seconds:g} s:\n{self.log()}") from None
        if code == 0:
            assert not (self.store / ".fastscp/admin.sock").exists()
        self.leaves_nothing()

    def leaves_nothing(self) -> None:
        """Wait until no worker lives any more, and check that there are no parts."""
        wait_for(lambda: not any(map(_lives, self._workers)), "the end of all workers")
        assert self._incoming("*") == []

    def kill(self) -> None:
        """End what is left of it at once."""
        if self._process is None:
            return
        with contextlib.suppress(OSError):
            self.worker_pids()
        # Else one may see main's end, and end in order.
        for pid in filter(_lives, self._workers):
            send_signal(pid, signal.SIGSTOP)
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(DEADLINE_S)
        for pid in filter(_lives, self._workers):
            send_signal(pid, signal.SIGKILL)
        wait_for(lambda: not any(map(_lives, self._workers)), "the end of all workers")

    def connect(self, *, secured: bool | None = None, **more: Any) -> Peer:
        """A peer without an association, as `Peer` makes it.

        secured: whether it speaks TLS; None: where the service has no other port.
        """
        if secured is None:
            secured = self.port == self.tls_port
        if not secured:
            return Peer(self.host, self.port, **more)
        assert self._tls is not None
        return Peer(self.host, self.tls_port, **{"tls": self._tls.context} | more)

    def peer(self, *contexts: tuple[int, str, str], **more: Any) -> Peer:
        """A peer that is associated; the contexts and the rest as `associate_rq` takes them."""
        peer = self.connect()
        try:
            answer = peer.associate(associate_rq(*contexts, **more))
            assert answer is not None, "closed"
            assert answer[0] == 2, answer
        except BaseException:
            peer.close()
            raise
        return peer

    def worker_of(self, peer: Peer) -> int:
        """The number of the worker that has a peer's connection."""

        def look() -> int | None:
            """Also None while it is on its way to one."""
            inode = _inode_of(peer.socket.getsockname()[1], self.port)
            for pid in self.worker_pids():
                with contextlib.suppress(OSError):
                    if f"socket:[{inode}]" in open_paths(pid):
                        title = Path(f"/proc/{pid}/cmdline").read_text()
                        number = title.partition("fastscp: worker ")[2].partition(",")[0]
                        return 1 + int(number.strip("\0 "))
            return None

        return wait_for(look, "a worker that has the connection") - 1

    def echoes(self) -> None:
        """Check that it serves: an association, C-ECHO, release."""
        with self.peer() as peer:
            peer.send(echo(7))
            assert peer.read_response().status == 0
            peer.release()


# The wire -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Response:
    """A response message as it came."""

    context: int
    command: CommandSet

    @property
    def status(self) -> int:
        assert self.command.status is not None
        return self.command.status

    @property
    def to(self) -> int:
        assert self.command.message_id_being_responded_to is not None
        return self.command.message_id_being_responded_to


class Peer:
    """A socket to the service, and as a context manager closed at the end.

    seconds: how long each call may take; TimeoutError after that. receive_buffer: bytes, for a peer
    that is slow to read. source: the address that it comes from. tls: speak it, with this context;
    more: as `SecuredSocket` takes it. before: bytes in front of all that, as a proxy sends them.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        seconds: float = DEADLINE_S,
        receive_buffer: int = 0,
        source: str = "",
        tls: ssl.SSLContext | None = None,
        before: bytes = b"",
        **more: Any,
    ) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        plain = socket.socket(family, socket.SOCK_STREAM)
        plain.settimeout(seconds)
        if receive_buffer:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        try:
            if source:
                plain.bind((source, 0))
            plain.connect((host, port))
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            plain.sendall(before)
        except BaseException:
            plain.close()
            raise
        self.socket: socket.socket | SecuredSocket = plain
        if tls is not None:
            self.socket = SecuredSocket(plain, tls, **more)

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    @property
    def name(self) -> str:
        """As the log names it: address and port."""
        host, port = self.socket.getsockname()[:2]
        return f"{host}:{port}"

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def half_close(self) -> None:
        """Send no more; what comes can still be read."""
        self.socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Close with RST, as a process that is killed does."""
        raw = self.raw
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raw.close()

    @property
    def raw(self) -> socket.socket:
        """The socket below TLS, or the only one."""
        return self.socket.raw if isinstance(self.socket, SecuredSocket) else self.socket

    def readable(self, seconds: float) -> bool:
        """Whether something, or the end, can be read within a time."""
        if isinstance(self.socket, SecuredSocket):
            return self.socket.readable(seconds)
        return bool(select.select([self.socket], [], [], seconds)[0])

    def close(self) -> None:
        self.socket.close()

    def _read(self, n: int) -> bytes:
        got = bytearray()
        while len(got) < n and (more := self.socket.recv(n - len(got))):
            got += more
        return bytes(got)

    def read_pdu(self) -> bytes | None:
        """The next PDU, header included; None where the service has closed instead."""
        header = self._read(6)
        if not header:
            return None
        assert len(header) == 6, f"cut after {header!r}"
        length = int.from_bytes(header[2:], "big")
        body = self._read(length)
        assert len(body) == length, f"cut after {header + body!r}"
        return header + body

    def read_until_close(self, *, reset: bool = False) -> bytes:
        """All that comes until the service closes. reset: it may close with RST."""
        got = bytearray()
        try:
            while more := self.socket.recv(65536):
                got += more
        except ConnectionResetError:
            if not reset:
                raise
        return bytes(got)

    def read_pdus_until_close(self) -> list[bytes]:
        return list(split_pdus(self.read_until_close()))

    def associate(self, rq: bytes) -> bytes | None:
        """Send a request; returns the PDU that answers it, None where the service closes."""
        self.send(rq)
        return self.read_pdu()

    def read_response(self) -> Response:
        """The next message from the service, a command without a data set."""
        command = b""
        while True:
            got = self.read_pdu()
            assert got is not None, "closed instead of answering"
            assert got[0] == 4, f"no P-DATA-TF: {got.hex()}"
            for context, header, fragment in decode_pdata(got):
                assert header & 1, "a data set came"
                command += fragment
                if header & 2:
                    return Response(context, decode_command(command))

    def read_statuses(self, n: int) -> list[tuple[int, int]]:
        """Of the next n responses: message id and status."""
        return [(one.to, one.status) for one in (self.read_response() for _ in range(n))]

    def release(self) -> None:
        """Ask for release, check that it is granted and nothing else comes, and hang up."""
        self.send(RELEASE_RQ)
        got = self.read_until_close()
        assert got == RELEASE_RP, got.hex()
        self.close()


def split_pdus(data: bytes) -> Iterator[bytes]:
    """The PDUs of a stream by their length fields; the last may be cut."""
    while data:
        end = 6 + int.from_bytes(data[2:6], "big")
        yield data[:end]
        data = data[end:]


def pdu(kind: int, body: bytes = b"", *, length: int | None = None) -> bytes:
    """Any PDU, with a length that need not be true."""
    return struct.pack(">BBI", kind, 0, len(body) if length is None else length) + body


def abort(source: int, reason: int) -> bytes:
    """An A-ABORT as the service must send it."""
    return pdu(7, bytes((0, 0, source, reason)))


def reject(result: int, source: int, reason: int) -> bytes:
    """An A-ASSOCIATE-RJ as the service must send it."""
    return pdu(3, bytes((0, result, source, reason)))


def associate_rq(
    *contexts: tuple[int, str, str],
    calling: str | bytes = "KIT",
    called: str | bytes = "FASTSCP",
    max_pdu_length: int | None = 16384,
    window: int | None = None,
    application_context: str | None = "1.2.840.10008.3.1.1.1",
    user_information: UserInformation | None = None,
    protocol_version: int = 1,
) -> bytes:
    """An A-ASSOCIATE-RQ. contexts: (id, abstract syntax, transfer syntaxes, comma separated).

    Without contexts CT, MR, secondary capture and Verification are proposed as 1, 3, 5 and 7 in
    Explicit VR Little Endian. window: operations to be invoked, offered in item 53.
    """
    if not contexts:
        classes = (CT, MR, SECONDARY, VERIFICATION)
        contexts = tuple((2 * n + 1, uid, ELE) for n, uid in enumerate(classes))
    return encode_associate_rq(
        AssociateRQ(
            called_ae=_title(called),
            calling_ae=_title(calling),
            application_context=application_context,
            presentation_contexts=tuple(
                PresentationContextRQ(number, abstract, tuple(filter(None, syntaxes.split(","))))
                for number, abstract, syntaxes in contexts
            ),
            user_information=user_information
            or UserInformation(
                max_pdu_length=max_pdu_length,
                implementation_class_uid="1.2.3.9",
                implementation_version_name="KIT",
                async_window=None if window is None else AsyncWindow(window, 1),
            ),
            protocol_version=protocol_version,
        )
    )


def _title(title: str | bytes) -> bytes:
    return (title.encode("latin-1") if isinstance(title, str) else title).ljust(16)


def message(
    command: bytes, data: bytes | None = None, *, context: int = 1, fragment: int = 16000
) -> bytes:
    """The P-DATA-TFs of a message, one fragment each; fragment: its bytes at most."""
    pieces = [(command[at : at + fragment], 1) for at in range(0, len(command), fragment)]
    pdus = _fragments(pieces, context)
    if data is not None:
        pieces = [(data[at : at + fragment], 0) for at in range(0, max(1, len(data)), fragment)]
        pdus += _fragments(pieces, context)
    return pdus


def _fragments(pieces: Iterable[tuple[bytes, int]], context: int) -> bytes:
    pieces = list(pieces)
    last = len(pieces) - 1
    return b"".join(
        encode_pdata([(context, kind | (2 if n == last else 0), piece)])
        for n, (piece, kind) in enumerate(pieces)
    )


def store_rq(
    message_id: int = 1,
    *,
    sop: str | bytes | None = SOP,
    sop_class: str | bytes | None = CT,
    more: Mapping[int, int | bytes | str | tuple[int, ...]] | None = None,
) -> bytes:
    """The command set of a C-STORE-RQ. more: elements beside or instead of the usual ones."""
    elements: dict[int, Any] = {
        0x0002: sop_class,
        0x0100: 0x0001,
        0x0110: message_id,
        0x0700: 0,
        0x0800: 1,
        0x1000: sop,
    } | dict(more or {})
    return encode_command({k: v for k, v in elements.items() if v is not None})


def store(
    message_id: int = 1,
    data: bytes | None = None,
    *,
    sop: str = SOP,
    sop_class: str = CT,
    context: int = 1,
    fragment: int = 16000,
) -> bytes:
    """The P-DATA-TFs of a C-STORE-RQ. data: by default a small data set of that instance."""
    if data is None:
        data = data_set(sop=sop, sop_class=sop_class)
    command = store_rq(message_id, sop=sop, sop_class=sop_class)
    return message(command, data, context=context, fragment=fragment)


def echo(message_id: int = 1, *, context: int = 7) -> bytes:
    """The P-DATA-TF of a C-ECHO-RQ."""
    command = encode_command(
        {0x0002: VERIFICATION, 0x0100: 0x0030, 0x0110: message_id, 0x0800: 0x0101}
    )
    return message(command, context=context)


# Data sets ----------------------------------------------------------------------------------------

_LONG: Final = frozenset({b"OB", b"OW", b"SQ", b"UN", b"UT"})


def element(tag: int, vr: bytes, value: bytes, syntax: str = ELE) -> bytes:
    """One data element with a defined length; the value is padded, numbers in it are the caller's.

    Source: PS3.5 7.1.
    """
    order = ">" if syntax == BIG else "<"
    if len(value) % 2:
        value += b"\0" if vr in {b"UI", b"OB", b"UN"} else b" "
    head = struct.pack(f"{order}HH", tag >> 16, tag & 0xFFFF)
    if syntax == ILE:
        return head + struct.pack("<I", len(value)) + value
    if vr in _LONG:
        return head + vr + bytes(2) + struct.pack(f"{order}I", len(value)) + value
    return head + vr + struct.pack(f"{order}H", len(value)) + value


def data_set(
    syntax: str = ELE,
    *,
    study: str = STUDY,
    series: str = SERIES,
    sop: str = SOP,
    sop_class: str = CT,
    patient_id: str = "KIT-1",
    patient_name: str = "KIT^PATIENT",
    pixels: int = 512,
    seed: int = 0,
) -> bytes:
    """A made up image in any of the four uncompressed syntaxes. "" leaves a UID out.

    pixels: bytes of pixel data. seed: makes other pixel data, and nothing else.
    """
    inner = ELE if syntax == DEFLATED else syntax
    values = (
        (0x00080016, b"UI", sop_class),
        (0x00080018, b"UI", sop),
        (0x00080020, b"DA", "20240229"),
        (0x00080060, b"CS", "CT"),
        (0x00100010, b"PN", patient_name),
        (0x00100020, b"LO", patient_id),
        (0x0020000D, b"UI", study),
        (0x0020000E, b"UI", series),
        (0x00200013, b"IS", "1"),
    )
    data = b"".join(
        element(tag, vr, text.encode("latin-1"), inner)
        for tag, vr, text in values
        if text or vr != b"UI"
    )
    grey = bytes((n * 7 + seed) & 0xFF for n in range(256))
    data += element(0x7FE00010, b"OW", (grey * (pixels // 256 + 1))[:pixels], inner)
    if syntax != DEFLATED:
        return data
    deflate = zlib.compressobj(wbits=-15)
    packed = deflate.compress(data) + deflate.flush()
    return packed + bytes(len(packed) % 2)


def path_of(sop: str = SOP, *, study: str = STUDY, series: str = SERIES) -> str:
    """Where the default layout keeps an instance, below the store."""
    return f"{study}/{series}/{sop}.dcm"
