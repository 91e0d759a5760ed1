"""Accepting connections, and when it rests."""

from __future__ import annotations

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
    acceptor = Acceptor(listening, take, has_room=lambda: len(taken) < room, **loop)
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
    acceptor = Acceptor(listening, lambda *_: None, has_room=lambda: True, **loop)
    try:
        with (
            socket.create_server(listening.getsockname()),
            pytest.raises(StartError, match="another program has the port"),
        ):
            acceptor.listen()
    finally:
        acceptor.close()
