"""The control socket, as a command uses it: one request after the other, each with its answer."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import struct
import time
from typing import TYPE_CHECKING, Final, Self, TypeVar

import msgspec

from fastscp.admin.place import SOCKET_NAME, ControlSocketError, address
from fastscp.log import printable
from fastscp.messages.control import CONTROL_VERSION, Answer, Associations, GetOverview, GetStatus

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from fastscp.messages.control import Request

__all__ = ["PATIENCE_S", "ControlClient", "NotRunningError", "SilentError"]

_T = TypeVar("_T")

# How long a service may be silent, with a connection, an answer, or the next piece of one.
PATIENCE_S: Final = 10.0
_RETRY_S: Final = 0.05
_READ_BYTES: Final = 65536
_CREDENTIALS: Final = struct.Struct("3i")


class NotRunningError(ControlSocketError):
    """No service answers for this store: exit 3."""

    def __init__(self, why: str) -> None:
        super().__init__(why, 3)


class SilentError(ControlSocketError):
    """A service is there, and does not answer in time: exit 1."""


class ControlClient:
    """A connection to the service of a store; as a context manager closed at the end. It blocks.

    folder: the service's own folder in the store. patience_s: how long the service may be silent.
    """

    def __init__(self, folder: Path, patience_s: float = PATIENCE_S) -> None:
        """Connect. Raises NotRunningError, ControlSocketError."""
        self._path = folder / SOCKET_NAME
        self._patience_s = patience_s
        self._rest = bytearray()
        self._pid = 0
        # Behind the words that the service is silent.
        self._not_done = ""
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._connect(folder)
        except BaseException:
            self._sock.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._sock.close()

    def _connect(self, folder: Path) -> None:
        store = folder.parent
        try:
            folder_fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            raise NotRunningError(
                f"no store is at {store}: no service runs on it, or one runs and its store is not "
                f"at this path any more (renamed, not mounted); name the store with --store, or "
                f"put it back or mount it"
            ) from None
        except OSError as error:
            raise self._unreachable(error) from error
        try:
            there = os.stat(SOCKET_NAME, dir_fd=folder_fd, follow_symlinks=False)
            if not stat.S_ISSOCK(there.st_mode):
                raise ControlSocketError(
                    f"{self._path} is no socket, so a service here has none: move it away; a "
                    f"service that had one makes it anew, else restart it"
                )
            self._knock(address(folder_fd, folder))
        except (FileNotFoundError, ConnectionRefusedError):
            raise NotRunningError(
                f"no service runs on the store {store}; start one, or name another store with "
                f"--store"
            ) from None
        except TimeoutError:
            raise self._silent() from None
        except OSError as error:
            raise self._unreachable(error) from error
        finally:
            os.close(folder_fd)
        credentials = self._sock.getsockopt(
            socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size
        )
        self._pid = _CREDENTIALS.unpack(credentials)[0]

    def _knock(self, address: str) -> None:
        """Connect, and wait where many others wait already. Raises OSError."""
        self._sock.settimeout(self._patience_s)
        end = time.monotonic() + self._patience_s
        while True:
            try:
                self._sock.connect(address)
            except BlockingIOError:
                # The backlog is full.
                if time.monotonic() > end:
                    raise TimeoutError from None
                time.sleep(_RETRY_S)
            else:
                return

    def ask(self, request: Request, result: type[_T]) -> _T:
        """Send a request; returns its result, read as that type. Raises ControlSocketError.

        One that the service refuses has the exit code that the service gave.
        """
        if not isinstance(request, GetStatus | Associations | GetOverview):
            self._not_done = "; what was asked is not done later, unless it had begun by now"
        # What the service has said before it hung up is worth more than that it did.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            try:
                self._sock.sendall(msgspec.json.encode(request) + b"\n")
            except TimeoutError:
                raise self._silent() from None
        line = self._read()
        try:
            answer = msgspec.json.decode(line, type=Answer)
            if not answer.error and answer.version == CONTROL_VERSION:
                return msgspec.json.decode(answer.ok, type=result)
        except msgspec.DecodeError as error:
            raise ControlSocketError(
                f"the service on {self._path.parent.parent} answers what this version of fastscp "
                f"does not know ({error}): use the `fastscp` that the service runs from, or "
                f"restart the service"
            ) from error
        # It may be another version's words.
        why = answer.error or f"its control socket speaks version {answer.version}"
        raise ControlSocketError(
            f"the service on {self._path.parent.parent} refuses: {printable(why)}", answer.code or 1
        )

    def _read(self) -> bytes:
        """The next line that is not empty."""
        while True:
            line, end, behind = self._rest.partition(b"\n")
            if end:
                self._rest = behind
                if line.strip():
                    return bytes(line)
                continue
            try:
                data = self._sock.recv(_READ_BYTES)
            except TimeoutError:
                raise self._silent() from None
            except OSError:
                data = b""
            if not data:
                raise ControlSocketError(
                    f"the service on {self._path.parent.parent} hung up before it answered: it has "
                    f"ended, or its log says why"
                )
            self._rest += data

    def _silent(self) -> SilentError:
        whose = f"its main process ({self._pid})" if self._pid else "its main process"
        return SilentError(
            f"the service on {self._path.parent.parent} does not answer within "
            f"{self._patience_s:g} s: {whose} hangs or is stopped; if somebody stopped it, let it "
            f"go on (kill -CONT), else see its log, and restart it{self._not_done}"
        )

    def _unreachable(self, error: OSError) -> ControlSocketError:
        why = f"cannot reach the service by {self._path} ({error.strerror or error})"
        if isinstance(error, PermissionError):
            for named in (self._path, *self._path.parents):
                with contextlib.suppress(OSError):
                    owner = named.stat().st_uid
                    return ControlSocketError(
                        f"{why}: only root and the user it runs as (uid {owner}) may; run this "
                        f"command as one of these"
                    )
        return ControlSocketError(why)
