"""What the service manager is told: its messages, as systemd's protocol has them."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from typing import TYPE_CHECKING

import pytest

from fastscp.main import notify as module
from fastscp.main.notify import Notify

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.setblocking(False)
        yield sock


def said(manager: socket.socket) -> list[dict[str, str]]:
    """The messages that have come, each as its words."""
    found: list[dict[str, str]] = []
    while True:
        try:
            message = manager.recv(65536).decode()
        except BlockingIOError:
            return found
        found.append(dict(line.split("=", 1) for line in message.split("\n")))


def test_what_is_said_and_when(manager: socket.socket) -> None:
    one = Notify(manager.getsockname())
    one.extend(30.5)
    one.ready("accepting")
    # A status that is no news is none.
    one.status("accepting")
    one.status("two\nlines")
    before = time.monotonic_ns() // 1000
    one.reloading()
    after = time.monotonic_ns() // 1000
    one.ready()
    one.alive()
    one.main_is(17)
    one.stopping(60)
    asyncio.run(one.close())
    one.alive()
    messages = said(manager)
    assert before <= int(messages[3].pop("MONOTONIC_USEC")) <= after
    assert messages == [
        {"EXTEND_TIMEOUT_USEC": "30500000"},
        {"READY": "1", "STATUS": "accepting"},
        {"STATUS": "two lines"},
        {"RELOADING": "1"},
        {"READY": "1"},
        {"WATCHDOG": "1"},
        {"MAINPID": "17"},
        {"STOPPING": "1", "EXTEND_TIMEOUT_USEC": "60000000", "STATUS": "draining"},
    ]


def test_an_abstract_socket() -> None:
    name = f"fastscp-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(f"\0{name}")
        sock.setblocking(False)
        one = Notify(f"@{name}")
        one.ready()
        assert said(sock) == [{"READY": "1"}]
        asyncio.run(one.close())


@pytest.mark.parametrize(
    ("watched", "usec", "every"),
    [("", "4000000", 1.0), ("own", "4000000", 1.0), ("1", "4000000", 0.0), ("", "many", 0.0)],
)
def test_the_environment_is_taken_and_can_be_handed_on(
    watched: str, usec: str, every: float
) -> None:
    environ = {"NOTIFY_SOCKET": "/run/n", "WATCHDOG_USEC": usec, "HOME": "/"}
    if watched:
        environ["WATCHDOG_PID"] = str(os.getpid()) if watched == "own" else watched
    one = Notify.taken_from(environ)
    assert environ == {"HOME": "/"}
    assert one.feed_every_s == every
    again = {"NOTIFY_SOCKET": "/run/n"} | ({"WATCHDOG_USEC": "4000000"} if every else {})
    assert one.environment() == again
    assert Notify().environment() == {}


def test_a_manager_that_is_behind_hears_it_later(
    manager: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last of what waits are kept, in order."""
    monkeypatch.setattr(module, "_AGAIN_S", 0.001)

    async def test() -> None:
        one = Notify(manager.getsockname())
        sent = 0
        while not one._waiting:
            one.status(f"{(sent := sent + 1)}")
        for _ in range(module._WAITING_MOST + 10):
            one.status(f"{(sent := sent + 1)}")
            one.alive()
        closing = asyncio.create_task(one.close(60))
        heard: list[str] = []
        async with asyncio.timeout(60):
            while not heard or heard[-1] != str(sent):
                heard += [message["STATUS"] for message in said(manager)]
                await asyncio.sleep(0.001)
        assert heard == sorted(heard, key=int)
        assert len(heard) >= module._WAITING_MOST
        # And it goes on until all of them are told.
        await closing
        assert one._sock is None

    asyncio.run(test())


@pytest.mark.parametrize("address", ["vsock:2:1", "relative", "/nowhere/notify"])
def test_a_socket_that_is_none_is_told_of_once(
    address: str, caplog: pytest.LogCaptureFixture
) -> None:
    one = Notify(address)
    one.ready()
    one.alive()
    assert len(caplog.records) == 1
    assert f"NOTIFY_SOCKET={address}" in caplog.text
    asyncio.run(one.close())
