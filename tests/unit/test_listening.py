"""Listening sockets that somebody passes: taken, or refused with words."""

from __future__ import annotations

import contextlib
import os
import socket
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from fastscp.config.settings import ServeConfig
from fastscp.errors import ConfigError, StartError
from fastscp.main import listening
from fastscp.main.listening import ADMIN, DICOM, TLS, Listening, listening_for, passed_by_manager

if TYPE_CHECKING:
    from collections.abc import Iterator


class Passed:
    """Descriptors from a number on, as a service manager passes them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *fds: int) -> None:
        # Where a row of so many numbers is free.
        first = 200
        monkeypatch.setattr(listening, "_FIRST", first)
        self.fds = [first + n for n in range(len(fds))]
        for fd, to in zip(fds, self.fds, strict=True):
            os.dup2(fd, to, inheritable=True)
        self.environ = {"LISTEN_FDS": str(len(fds)), "LISTEN_PID": str(os.getpid()), "HOME": "/"}

    def close(self) -> None:
        for fd in self.fds:
            with contextlib.suppress(OSError):
                os.close(fd)


@pytest.fixture
def tcp() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


@pytest.mark.parametrize(
    "names", [None, "dicom:dicom", "unknown:fastscp.socket", ":dicom", "dicom"]
)
def test_sockets_are_taken(
    monkeypatch: pytest.MonkeyPatch, tcp: socket.socket, names: str | None
) -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as other:
        passed = Passed(monkeypatch, tcp.fileno(), other.fileno())
        if names is not None:
            passed.environ["LISTEN_FDNAMES"] = names
        taken = passed_by_manager(passed.environ, {})
        # Nobody who is started by us takes them for his own.
        assert passed.environ == {"HOME": "/"}
        assert [one.name for one in taken] == [DICOM, DICOM]
        assert [one.sock.getsockname() for one in taken] == [
            tcp.getsockname(), other.getsockname(),
        ]  # fmt: skip
        for one in taken:
            assert not one.sock.get_inheritable()
            assert not one.sock.getblocking()
            one.sock.close()


def test_those_of_another_process_are_none_of_ours(
    monkeypatch: pytest.MonkeyPatch, tcp: socket.socket
) -> None:
    passed = Passed(monkeypatch, tcp.fileno())
    try:
        assert passed_by_manager(passed.environ | {"LISTEN_PID": "1"}, {}) == ()
        environ = passed.environ | {"LISTEN_PID": "1"}
        assert passed_by_manager(environ, {"--port": "flag --port"}) == ()
        assert environ == {"HOME": "/"}
        assert passed_by_manager({}, {"--port": "flag --port"}) == ()
        os.fstat(passed.fds[0])
    finally:
        passed.close()


def test_sockets_for_peers_are_those_passed_or_bound(tcp: socket.socket) -> None:
    """What is passed for HTTP is for nobody else."""
    config = ServeConfig(host=("127.0.0.1",), port=0)
    of_http = Listening(ADMIN, tcp)
    (one,) = listening_for([of_http], config)
    with one.sock:
        assert one.name == DICOM
        assert one.sock.getsockname() != tcp.getsockname()
    passed = Listening(DICOM, tcp)
    assert listening_for([of_http, passed], config) == [passed]


def test_sockets_are_what_the_settings_ask_for(tcp: socket.socket) -> None:
    """A manager has to pass them all, and no other; whoever takes over opens and closes some."""
    plain = ServeConfig(host=("127.0.0.1",), port=0, tls_port=0)
    material: Any = object()
    both, secured = replace(plain, tls=material), replace(plain, tls=material, no_plain=True)
    passed = [Listening(DICOM, tcp)]
    with pytest.raises(StartError, match="no listening socket is passed that is called tls"):
        listening_for(passed, both, is_activated=True)
    with pytest.raises(StartError, match="is called dicom, and nothing asks for it"):
        listening_for([*passed, Listening(TLS, tcp)], secured, is_activated=True)
    assert tcp.fileno() >= 0
    found = listening_for(passed, both)
    assert [one.name for one in found] == [DICOM, TLS]
    assert found[0].sock is tcp
    (one,) = listening_for(found, secured)
    with one.sock:
        assert one is found[1]
        # Nobody listens without TLS any more.
        assert tcp.fileno() < 0


def test_a_port_beside_them_is_a_contradiction(
    monkeypatch: pytest.MonkeyPatch, tcp: socket.socket
) -> None:
    passed = Passed(monkeypatch, tcp.fileno())
    try:
        with pytest.raises(
            ConfigError, match=r"--port.*contradicts the listening sockets.*the.toml"
        ):
            passed_by_manager(passed.environ, {"--port": "the.toml:3"})
    finally:
        passed.close()


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("file", "is no socket"),
        ("closed", "is no socket"),
        ("unix", "of another family"),
        ("datagrams", "one for datagrams"),
        ("connection", "does not listen"),
        ("bound", "does not listen"),
    ],
)
def test_what_is_no_listening_tcp_socket_is_refused(
    monkeypatch: pytest.MonkeyPatch, tcp: socket.socket, kind: str, said: str
) -> None:
    with contextlib.ExitStack() as undo:
        match kind:
            case "file" | "closed":
                fd = os.open(os.devnull, os.O_RDONLY)
                undo.callback(os.close, fd)
            case "connection":
                client = undo.enter_context(socket.create_connection(tcp.getsockname()))
                fd = client.fileno()
            case _:
                family = socket.AF_UNIX if kind == "unix" else socket.AF_INET
                type_ = socket.SOCK_DGRAM if kind == "datagrams" else socket.SOCK_STREAM
                sock = undo.enter_context(socket.socket(family, type_))
                fd = sock.fileno()
        passed = Passed(monkeypatch, fd)
        undo.callback(passed.close)
        if kind == "closed":
            passed.close()
        with pytest.raises(StartError, match=said) as error:
            passed_by_manager(passed.environ, {})
        assert "descriptor 200 of LISTEN_FDS" in str(error.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"LISTEN_FDNAMES": "web"}, "is called 'web', and this service knows dicom"),
        ({"LISTEN_FDS": "three"}, "LISTEN_FDS=three is no number of sockets"),
        ({"LISTEN_FDS": "65"}, "LISTEN_FDS=65 is no number of sockets"),
    ],
)
def test_what_is_not_understood_is_refused(
    monkeypatch: pytest.MonkeyPatch, tcp: socket.socket, change: dict[str, str], said: str
) -> None:
    passed = Passed(monkeypatch, tcp.fileno())
    try:
        with pytest.raises(StartError, match=said):
            passed_by_manager(passed.environ | change, {})
    finally:
        passed.close()
