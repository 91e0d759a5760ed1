"""Accepting connections, and when it rests."""

from __future__ import annotations

import os
import resource
import socket
from typing import TYPE_CHECKING, Any

import pytest

from fastscp.errors import StartError
from fastscp.main.acceptor import Acceptor, bind

if TYPE_CHECKING:
    from collections.abc import Callable


def test_connections_wait_in_the_backlog_while_there_is_no_room() -> None:
    room = 2
    taken: list[socket.socket] = []
    readers: dict[int, Callable[[], None]] = {}
    later: list[Callable[[], None]] = []

    def take(sock: socket.socket, host: str, port: int) -> None:
        assert (host, port) == peers[len(taken)].getsockname()
        taken.append(sock)

    loop: dict[str, Any] = {
        "add_reader": readers.__setitem__,
        "remove_reader": readers.pop,
        "call_later": lambda _seconds, call: later.append(call),
    }
    (listening,) = bind(["127.0.0.1"], 0)
    acceptor = Acceptor(
        listening, take, turned_away=take, has_room=lambda: len(taken) < room, **loop
    )
    address = listening.getsockname()
    # Nobody waits for an answer before there can be one.
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address)
    acceptor.listen()
    peers = [socket.create_connection(address) for _ in range(5)]
    try:
        acceptor.start()
        (accept,) = readers.values()
        accept()
        # Nobody is turned away, and the loop is not woken for those who wait.
        assert (len(taken), acceptor.accepting, readers) == (2, False, {})
        room = 4
        later.pop()()
        readers[listening.fileno()]()
        assert (len(taken), acceptor.accepting, len(later)) == (4, False, 1)
        room = 9
        later.pop()()
        readers[listening.fileno()]()
        assert (len(taken), acceptor.accepting, later) == (5, True, [])
    finally:
        acceptor.close()
        for one in peers + taken:
            one.close()


def test_another_program_listens_meanwhile() -> None:
    (listening,) = bind(["127.0.0.1"], 0)
    loop: dict[str, Any] = dict.fromkeys(("add_reader", "remove_reader", "call_later"))
    acceptor = Acceptor(
        listening, lambda *_: None, turned_away=lambda *_: None, has_room=lambda: True, **loop
    )
    try:
        with (
            socket.create_server(listening.getsockname()),
            pytest.raises(StartError, match="another program has the port"),
        ):
            acceptor.listen()
    finally:
        acceptor.close()


def test_out_of_descriptors_some_are_rejected_and_the_others_wait() -> None:
    taken: list[socket.socket] = []
    away: list[socket.socket] = []
    readers: dict[int, Callable[[], None]] = {}
    later: list[tuple[Callable[..., None], tuple[object, ...]]] = []
    loop: dict[str, Any] = {
        "add_reader": readers.__setitem__,
        "remove_reader": readers.pop,
        "call_later": lambda _seconds, call, *arguments: later.append((call, arguments)),
    }
    (listening,) = bind(["127.0.0.1"], 0)
    acceptor = Acceptor(
        listening, lambda sock, *_: taken.append(sock),
        turned_away=lambda sock, *_: away.append(sock), has_room=lambda: True, **loop,
    )  # fmt: skip
    acceptor.listen()
    peers = [socket.create_connection(listening.getsockname()) for _ in range(5)]
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = max(int(fd) for fd in os.listdir("/proc/self/fd")) + 1
    filling: list[int] = []

    def accept_without_descriptors() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, limits[1]))
        try:
            readers[listening.fileno()]()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)

    def start() -> None:
        call, arguments = later.pop(0)
        call(*arguments)

    try:
        acceptor.start()
        # Every number below the limit is in use.
        while most > len(os.listdir("/proc/self/fd")) - 1:
            filling.append(os.open(os.devnull, os.O_RDONLY))
        accept_without_descriptors()
        # As many as were kept back for it; nobody is closed without an answer.
        assert (len(taken), len(away), acceptor.accepting) == (0, 3, False)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, limits[1]))
        start()
        later.clear()
        accept_without_descriptors()
        assert (len(away), acceptor.accepting) == (3, False)
        # One that is told gives its own back.
        away.pop().close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, limits[1]))
        start()
        later.clear()
        accept_without_descriptors()
        assert (len(taken), len(away), acceptor.accepting) == (0, 3, False)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        start()
        readers[listening.fileno()]()
        assert (len(taken), acceptor.accepting) == (1, True)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        acceptor.close()
        for one in peers + taken + away:
            one.close()
        for fd in filling:
            os.close(fd)
