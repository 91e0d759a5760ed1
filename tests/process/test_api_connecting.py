"""How the Python API connects, on both event loops: to peers and names that are away or slow."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
import threading
from typing import TYPE_CHECKING, Any

import pytest

from fastscp.scu import ConnectionFailed, Timeouts, associate, connect, tcp
from fastscp.scu.threads import in_thread
from tests.kit import DEADLINE_S
from tests.scripted import Connection, Scp

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator


@pytest.fixture
def failure(run: Callable[[Coroutine[Any, Any, Any]], Any]) -> Callable[..., ConnectionFailed]:
    """Why associate fails, on each kind of event loop."""

    def failure(*where: Any, **how: Any) -> ConnectionFailed:
        async def main() -> ConnectionFailed:
            with pytest.raises(ConnectionFailed) as caught:
                await associate(*where, **how)
            return caught.value

        failed: ConnectionFailed = run(main())
        return failed

    return failure


@pytest.fixture
def nobody() -> Iterator[int]:
    """A port where nobody listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


@pytest.mark.parametrize("tls", [None, ssl.create_default_context()], ids=["plain", "tls"])
def test_refused(failure: Callable[..., ConnectionFailed], nobody: int, tls: Any) -> None:
    why = failure("127.0.0.1", nobody, tls=tls)
    assert str(why) == f"cannot connect to 127.0.0.1:{nobody}: Connection refused"
    assert why.transient


@pytest.mark.parametrize(
    ("number", "transient"), [(socket.EAI_NONAME, False), (socket.EAI_AGAIN, True)]
)
def test_a_name_that_is_not_found(
    failure: Callable[..., ConnectionFailed],
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    transient: bool,
) -> None:
    def unknown(*_name: Any, **_how: Any) -> Any:
        raise socket.gaierror(number, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    why = failure("pacs", 104)
    assert str(why) == "cannot connect to pacs:104: Name or service not known"
    assert why.transient is transient


def test_every_address_of_a_name_is_tried(nobody: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first refuses, the second cannot be had at all, and the third is there."""
    ports = [(socket.AF_INET, ("127.0.0.1", nobody)), (socket.AF_INET, ("255.255.255.255", 1))]

    def found(*_name: Any, **_how: Any) -> Any:
        return [(family, socket.SOCK_STREAM, 6, "", address) for family, address in ports]

    monkeypatch.setattr(socket, "getaddrinfo", found)

    async def main() -> None:
        with pytest.raises(ConnectionFailed, match="Connection refused; "):
            await associate("pacs", 104)
        ports.append((socket.AF_INET, (scp.host, scp.port)))
        await (await associate("pacs", 104)).release()

    def accepting(connection: Connection) -> None:
        connection.accept()
        connection.serve()

    with Scp(accepting) as scp:
        asyncio.run(main())


def test_a_resolver_that_is_silent(
    failure: Callable[..., ConnectionFailed], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the limit nor the end of the event loop waits for it."""
    goes_on, ended = threading.Event(), threading.Event()

    def silent(*_name: Any, **_how: Any) -> Any:
        goes_on.wait(DEADLINE_S)
        ended.set()
        raise socket.gaierror(socket.EAI_AGAIN, "again")

    monkeypatch.setattr(socket, "getaddrinfo", silent)
    try:
        why = failure("pacs", 104, timeouts=Timeouts(connect=0.05))
        assert not ended.is_set()
        assert why.why == "no answer within 0.05 s"
    finally:
        goes_on.set()
    assert ended.wait(DEADLINE_S)


def test_a_tls_handshake_has_as_long_as_the_caller_says(
    failure: Callable[..., ConnectionFailed], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asyncio.constants.SSL_HANDSHAKE_TIMEOUT", 0.05)
    tls = ssl.create_default_context()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        why = failure("127.0.0.1", port, tls=tls, timeouts=Timeouts(connect=0.3))
    assert why.why.startswith("no answer to our TLS handshake within 0.3 s: ")


def test_the_system_has_time_limits_too(
    failure: Callable[..., ConnectionFailed], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def times_out(_host: str, _port: int) -> socket.socket:
        raise OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))

    monkeypatch.setattr(connect, "connected_socket", times_out)
    assert failure("127.0.0.1", 104).why == "Connection timed out"


def test_a_connect_that_is_cancelled_leaves_nothing_open(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[socket.socket] = []

    class Never(socket.socket):
        def connect_ex(self, _address: Any) -> int:
            made.append(self)
            return errno.EINPROGRESS

    monkeypatch.setattr(socket, "socket", Never)

    async def main() -> None:
        # A socket that was never connected is writable.
        monkeypatch.setattr(asyncio.get_running_loop(), "add_writer", lambda *_: None)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(tcp.connected_socket("127.0.0.1", 104), 0.05)

    asyncio.run(main())
    assert [one.fileno() for one in made] == [-1]


# Threads ------------------------------------------------------------------------------------------


def test_threads_that_hang_hold_up_neither_others_nor_the_end() -> None:
    """More than an executor of the standard library has."""
    goes_on = threading.Event()
    count = threading.Semaphore(0)

    def hang() -> None:
        goes_on.wait(DEADLINE_S)
        count.release()

    async def main() -> None:
        hung = [asyncio.ensure_future(in_thread(hang)) for _ in range(40)]
        assert await asyncio.wait_for(in_thread(lambda: 7), DEADLINE_S) == 7
        assert not any(one.done() for one in hung)

    try:
        asyncio.run(main())
    finally:
        goes_on.set()
    for _ in range(40):
        assert count.acquire(timeout=DEADLINE_S)


def test_what_a_thread_raises() -> None:
    async def main() -> None:
        for error in (KeyError("x"), TimeoutError("y")):
            with pytest.raises(type(error)):
                await in_thread(lambda error=error: raising(error))  # type: ignore[misc]
        with pytest.raises(RuntimeError, match="StopIteration"):
            await in_thread(lambda: next(iter(())))

    asyncio.run(main())


def raising(error: BaseException) -> None:
    raise error
