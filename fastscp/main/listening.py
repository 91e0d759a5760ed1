"""Where listening sockets come from: bound here, or passed by whoever started this process.

Source: sd_listen_fds(3), systemd.socket(5).
"""

from __future__ import annotations

import contextlib
import os
import socket
from typing import TYPE_CHECKING, Final, NamedTuple

from fastscp.errors import ConfigError, StartError
from fastscp.main.acceptor import bind

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping, Sequence

    from fastscp.config.settings import ServeConfig

__all__ = [
    "ADMIN",
    "DICOM",
    "NAMES",
    "TLS",
    "Listening",
    "adopted",
    "listening_for",
    "passed_by_manager",
]

# What a listening socket is for, by its name.
DICOM: Final = "dicom"
TLS: Final = "tls"
NAMES: Final = (DICOM, TLS)
# That for HTTP, which comes from a predecessor or is bound by `Web`.
ADMIN: Final = "admin"

# The first descriptor that is passed.
_FIRST: Final = 3
_PID: Final = "LISTEN_PID"
_COUNT: Final = "LISTEN_FDS"
_NAMES: Final = "LISTEN_FDNAMES"
# More is a mistake.
_MOST: Final = 64
# What a socket is called whose unit gives it no name; see sd_listen_fds_with_names(3).
_UNNAMED: Final = ("", "unknown")
_OF_A_UNIT: Final = ".socket"


class Listening(NamedTuple):
    """A listening socket, and what it is for: one of `NAMES`, or `ADMIN`."""

    name: str
    sock: socket.socket


def passed_by_manager(
    environ: MutableMapping[str, str], given: Mapping[str, str]
) -> tuple[Listening, ...]:
    """The sockets that a service manager passes, owned by the caller; empty: none.

    The environment says nothing of them any more afterwards: they are for this process alone.
    given: the settings they stand for that somebody has set, by option: where. Raises ConfigError,
    StartError.
    """
    pid, count, names = (environ.pop(name, "") for name in (_PID, _COUNT, _NAMES))
    if pid != str(os.getpid()) or count in ("", "0"):
        return ()
    if not (count.isascii() and count.isdigit()) or int(count) > _MOST:
        raise StartError(f"{_COUNT}={count} is no number of sockets: see who starts this service")
    for option, where in given.items():
        raise ConfigError(
            option,
            f"contradicts the listening sockets that the service manager passes ({_COUNT}={count}):"
            f" take it away ({where}), or start without socket activation",
        )
    called = names.split(":") if names else []
    called += [""] * (int(count) - len(called))
    return tuple(
        adopted(_FIRST + number, called[number], f"descriptor {_FIRST + number} of {_COUNT}")
        for number in range(int(count))
    )


def listening_for(
    passed: Sequence[Listening], config: ServeConfig, *, is_activated: bool = False
) -> list[Listening]:
    """The sockets for peers: those passed, and bound now where there is none for a purpose.

    is_activated: those passed are a service manager's, and have to be what the settings ask for;
    else those that are not asked for are closed. Raises StartError; what was bound is closed then.
    """
    wanted = _wanted(config)
    of_peers = [one for one in passed if one.name in NAMES]
    found = [one for one in of_peers if one.name in wanted]
    missing = wanted.keys() - {one.name for one in found}
    surplus = [one for one in of_peers if one.name not in wanted]
    if is_activated and missing:
        raise StartError(
            f"no listening socket is passed that is called {', '.join(sorted(missing))}: have the "
            f"socket unit pass one (FileDescriptorName=), or take away what asks for it"
        )
    if is_activated and surplus:
        raise StartError(
            f"a listening socket is passed that is called {surplus[0].name}, and nothing asks for "
            f"it: {TLS} is for --tls-cert, {DICOM} for a service without --no-plain"
        )
    with contextlib.ExitStack() as undo:
        for name, (port, flag) in wanted.items():
            for sock in bind(config.host, port, flag) if name in missing else ():
                undo.callback(sock.close)
                found.append(Listening(name, sock))
        undo.pop_all()
    for one in surplus:
        one.sock.close()
    return sorted(found, key=lambda one: NAMES.index(one.name))


def _wanted(config: ServeConfig) -> dict[str, tuple[int, str]]:
    """What the settings ask for: ports, and the flags that give them, by name."""
    wanted = {} if config.no_plain else {DICOM: (config.port, "--port")}
    if config.tls is not None:
        wanted[TLS] = config.tls_port, "--tls-port"
    return wanted


def adopted(fd: int, called: str, what: str, known: Sequence[str] = NAMES) -> Listening:
    """A descriptor as the listening socket that it has to be. what: for messages.

    known: what it may be called. Raises StartError.
    """
    name = DICOM if called in _UNNAMED or called.endswith(_OF_A_UNIT) else called
    if name not in known:
        raise StartError(
            f"{what} is called {called!r}, and this service knows {', '.join(known)}: set "
            f"FileDescriptorName= in the socket unit"
        )
    why = ""
    try:
        # Descriptors come inheritable, and this one is for no child.
        os.set_inheritable(fd, False)
        sock = socket.socket(fileno=fd)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.close(fd)
        raise StartError(
            f"{what} is no socket ({error.strerror}): the unit has to pass a TCP socket that "
            f"listens (ListenStream=)"
        ) from error
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        why = "is no TCP socket, but one of another family (ListenStream= with a port)"
    elif sock.type != socket.SOCK_STREAM:
        why = "is no TCP socket, but one for datagrams (ListenStream=, not ListenDatagram=)"
    elif not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        why = "does not listen: it may be a connection (Accept=no in the socket unit)"
    if why:
        sock.close()
        raise StartError(f"{what} {why}")
    sock.setblocking(False)
    return Listening(name, sock)
