"""HTTP for metrics and health: who is answered what, and what clients can do to the loop."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import select
import socket
import time
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import uvloop

from fastscp.admin import listener, web
from fastscp.admin.door import Doors
from fastscp.admin.listener import HTTP_CONNECTIONS_MOST
from fastscp.admin.pace import Pace
from fastscp.admin.web import WebServer
from fastscp.config.admin import AdminAddress
from fastscp.main.web import Web
from fastscp.messages.control import Aborted, Paused
from fastscp.messages.page import LogLine
from tests.kit import DEADLINE_S
from tests.measures import STATUS, parsed, snapshot, view

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

    from fastscp.messages.control import AssociationStatus, Reloaded, Status
    from fastscp.messages.metrics import Snapshot
    from fastscp.messages.page import Marks, View

pytestmark = pytest.mark.usefixtures("no_descriptor_left")

TOKEN = b"0123456789abcdef"


class PlayedPage:
    """What the page is told, a look when the test says so, and what it has asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, ...]] = []
        self.looks = 0
        self.views = 0
        self.lines = 0
        self._looked: asyncio.Future[None] | None = None

    def next_look(self) -> None:
        self.lines += 1
        if self._looked is not None:
            looked, self._looked = self._looked, None
            looked.set_result(None)

    async def looked(self) -> None:
        if self._looked is None:
            self._looked = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._looked)

    def look(self) -> None:
        self.looks += 1

    def view(self, since: Marks | None, *, actions: bool) -> View:
        self.views += 1
        first = 0 if since is None else since.log
        return view(
            whole=since is None, actions=actions,
            log=[
                LogLine(n=n, at=1.0, level="info", role="main", text=f"line {n}")
                for n in range(first + 1, self.lines + 1)
            ],
        )  # fmt: skip

    def status(self) -> Status:
        return STATUS

    def associations(self) -> list[AssociationStatus]:
        return []

    async def abort(self, id_: str, by: str) -> Aborted:
        self.asked.append(("abort", id_, by))
        return Aborted(id_, "over")

    def pause(self, why: str, by: str) -> Paused:
        self.asked.append(("pause", why, by))
        return Paused(True, why, 1.0)

    def resume(self, by: str) -> Paused:
        self.asked.append(("resume", by))
        return Paused(True)

    async def reload(self, by: str) -> Reloaded:
        raise AssertionError(by)


class Played:
    """A service that answers on a port. slow_s: how long a snapshot takes."""

    def __init__(self) -> None:
        self.now: Status = STATUS
        self.slow_s = 0.0
        self.snapshots = 0
        self.port = 0
        self.page = PlayedPage()

    def status(self) -> Status:
        return self.now

    def snapshot(self) -> Snapshot:
        self.snapshots += 1
        time.sleep(self.slow_s)
        return snapshot(status=self.now)

    def doors(self) -> Doors:
        return Doors(self, self.page, self.page)

    @contextlib.asynccontextmanager
    async def listening(self, token: bytes = b"") -> AsyncIterator[WebServer]:
        sock = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = sock.getsockname()[1]
        server = WebServer(sock, self.doors(), token)
        server.start()
        try:
            yield server
        finally:
            server.close()
            # What was hung up on is closed in the next turns.
            await until(lambda: not server._listener.connections)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def ask(
        self, path: str, *headers: str, method: str = "GET", host: str = "127.0.0.1"
    ) -> tuple[int, dict[str, str], bytes]:
        """The status, the headers and the body of an answer."""
        reader, writer = await self.connect()
        lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", "Connection: close", *headers]
        writer.write("\r\n".join([*lines, "", ""]).encode("latin-1"))
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        first, *rest = head.decode().split("\r\n")
        told = {name.lower(): value for name, _, value in (one.partition(": ") for one in rest)}
        return int(first.split()[1]), told, body


async def until(look: Callable[[], object]) -> None:
    """Let others go on until something is so; `run` has the deadline."""
    while not look():  # noqa: ASYNC110 - it belongs to somebody else
        await asyncio.sleep(0.002)


@pytest.fixture(autouse=True, scope="module")
def loops_have_begun() -> None:
    """The first loop of a process opens what all others share."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asyncio.sleep(0))


def run(test: Callable[[Played], Coroutine[Any, Any, None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(DEADLINE_S):
            await test(Played())

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(bounded())


def test_what_is_answered() -> None:
    async def test(played: Played) -> None:
        async with played.listening():
            status, headers, body = await played.ask("/metrics")
            assert (status, headers["content-type"][:25]) == (200, "text/plain; version=0.0.4")
            assert parsed(body.decode())["fastscp_ready", ()] == 1
            status, headers, body = await played.ask(
                "/metrics", "Accept: application/openmetrics-text"
            )
            assert headers["content-type"].startswith("application/openmetrics-text")
            assert body.endswith(b"# EOF\n")
            status, headers, body = await played.ask("/healthz")
            assert (status, headers["content-type"]) == (200, "application/json")
            assert json.loads(body) == {"alive": True, "version": "1", "pid": 7, "uptime_s": 1.5}
            status, headers, body = await played.ask("/readyz")
            assert (status, json.loads(body)["ready"]) == (200, True)
            played.now = msgspec.structs.replace(STATUS, state="draining", why="shutting down")
            status, headers, body = await played.ask("/readyz")
            assert (status, json.loads(body)["reasons"]) == (503, ["shutting down"])
            # It is about the loop alone.
            assert (await played.ask("/healthz"))[0] == 200
            for path in ("/metrics/", "/nothing", "/healthz/../metrics"):
                assert (await played.ask(path))[0] == 404
            # Nothing says what it is made with, or what it was asked by.
            assert "server" not in headers

    run(test)


def test_only_the_head_is_wanted() -> None:
    async def test(played: Played) -> None:
        played.now = msgspec.structs.replace(STATUS, state="paused")
        async with played.listening():
            for path, wanted in (("/metrics", 200), ("/healthz", 200), ("/readyz", 503)):
                status, headers, body = await played.ask(path, method="HEAD")
                assert (status, body) == (wanted, b"")
                assert int(headers["content-length"]) > 0

    run(test)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH", "X"])
def test_other_methods(method: str) -> None:
    async def test(played: Played) -> None:
        async with played.listening():
            for path in ("/metrics", "/readyz", "/nothing"):
                status, headers, _body = await played.ask(path, "Content-Length: 0", method=method)
                assert (status, headers["allow"]) == (405, "GET, HEAD")
            assert played.snapshots == 0

    run(test)


@pytest.mark.parametrize(
    ("host", "is_answered"),
    [
        ("127.0.0.1", True),
        ("127.0.0.1:8112", True),
        ("localhost", True),
        ("LOCALHOST:8112", True),
        ("[::1]", True),
        ("[::1]:8112", True),
        ("10.1.2.3:8112", True),
        ("", True),
        ("evil.example", False),
        ("evil.example:8112", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example:8112", False),
        ("127.0.0.1@evil.example", False),
        ("0x7f.1", False),
        ("[", False),
    ],
)
def test_names_are_refused_without_a_token(host: str, is_answered: bool) -> None:
    """A page in a browser may have the browser take its own name for our address."""

    async def test(played: Played) -> None:
        async with played.listening():
            for path in ("/metrics", "/healthz", "/readyz"):
                status, _headers, body = await played.ask(path, host=host)
                assert status == (200 if is_answered else 403)
                assert is_answered or body.startswith(b"the header Host has a name in it")

    run(test)


@pytest.mark.parametrize(
    "shown",
    [
        "", "Authorization: Bearer", "Authorization: Bearer 0123456789abcdeX",
        "Authorization: Bearer 0123456789abcdef0", "Authorization: Basic 0123456789abcdef",
        "Authorization: 0123456789abcdef", "Authorization: Bearer \xe9",
        "X-Token: 0123456789abcdef",
    ],
)  # fmt: skip
def test_a_token_is_asked_for(shown: str) -> None:
    async def test(played: Played) -> None:
        headers = (shown,) if shown else ()
        right = f"authorization: bearer {TOKEN.decode()}"
        async with played.listening(TOKEN):
            for path in ("/metrics", "/nothing"):
                status, told, body = await played.ask(path, *headers)
                assert (status, told["www-authenticate"]) == (401, 'Bearer realm="fastscp"')
                assert TOKEN not in body
            assert played.snapshots == 0
            # Who cannot show one may be a probe, and learns a word.
            assert (await played.ask("/readyz", *headers))[::2] == (200, b'{"ready":true}')
            assert (await played.ask("/healthz", *headers))[::2] == (200, b'{"alive":true}')
            # By whatever name: a page knows no token.
            status, _told, body = await played.ask("/metrics", right, host="fastscp.example")
            assert (status, b"fastscp_ready 1.0" in body) == (200, True)
            assert b"load" in (await played.ask("/readyz", right))[2]

    run(test)


def test_one_connection_asks_again_and_again() -> None:
    async def test(played: Played) -> None:
        async with played.listening():
            reader, writer = await played.connect()
            for _ in range(5):
                writer.write(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
                head = await reader.readuntil(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 200")
                await reader.readexactly(int(head.split(b"content-length: ")[1].split()[0]))
            # And several at once.
            writer.write(3 * b"HEAD /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            for _ in range(3):
                assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
            writer.close()

    run(test)


def test_so_many_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "_RATE", 10_000)

    async def test(played: Played) -> None:
        async with played.listening() as server:
            silent = [await played.connect() for _ in range(2 * HTTP_CONNECTIONS_MOST)]
            # Who asks is let in, whoever came before and asked nothing.
            assert (await played.ask("/healthz"))[0] == 200
            assert server._listener.connections <= HTTP_CONNECTIONS_MOST
            # The oldest had to go.
            with contextlib.suppress(ConnectionError):
                assert await silent[0][0].read() == b""
            for _reader, writer in silent:
                writer.close()

    run(test)


def test_those_who_are_answered_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also while all places are taken, and others knock."""
    monkeypatch.setattr(listener, "_RATE", 10_000)

    async def test(played: Played) -> None:
        async with played.listening():
            answers = await asyncio.gather(
                *(played.ask("/metrics") for _ in range(3 * HTTP_CONNECTIONS_MOST))
            )
            assert {status for status, _headers, _body in answers} == {200}

    run(test)


def test_new_ones_in_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "_RATE", 20)

    async def test(played: Played) -> None:
        async with played.listening():
            began = time.monotonic()
            for _ in range(30):
                assert (await played.ask("/healthz"))[0] == 200
            # A burst of a second's worth, then one at a time.
            assert time.monotonic() - began > 0.4

    run(test)


@pytest.mark.parametrize("said", [b"", b"G", b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n"])
def test_who_is_slow_is_given_up(monkeypatch: pytest.MonkeyPatch, said: bytes) -> None:
    monkeypatch.setattr(web, "_EXCHANGE_S", 0.2)

    async def test(played: Played) -> None:
        async with played.listening() as server:
            reader, writer = await played.connect()
            writer.write(said)

            async def trickle() -> None:
                while said:
                    await asyncio.sleep(0.03)
                    writer.write(b"X")

            trickling = asyncio.ensure_future(trickle())
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
            trickling.cancel()
            assert server._listener.connections == 0
            writer.close()

    run(test)


def test_who_does_not_read_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "_EXCHANGE_S", 0.3)

    async def test(played: Played) -> None:
        async with played.listening() as server:
            deaf = socket.socket()
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            deaf.connect(("127.0.0.1", played.port))
            with deaf:
                deaf.setblocking(False)
                asked = 2000 * b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
                with contextlib.suppress(BlockingIOError):
                    deaf.send(asked)
                await until(lambda: server._listener.connections)
                await until(lambda: not server._listener.connections)

    run(test)


def test_a_connection_at_rest_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "_IDLE_S", 0.2)

    async def test(played: Played) -> None:
        async with played.listening():
            reader, writer = await played.connect()
            writer.write(b"HEAD /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
            writer.close()

    run(test)


@pytest.mark.parametrize(
    "said",
    [
        b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"x" * 40_000,
        b"GET /" + b"x" * 40_000,
        b"\x01\x00\x00\x00\x00\x00" + b"\0" * 40_000,
        b"x" * 40_000,
    ],
)
def test_a_head_without_end(said: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async def test(played: Played) -> None:
        async with played.listening():
            reader, writer = await played.connect()
            writer.write(said)
            with contextlib.suppress(ConnectionError):
                assert (await reader.read()).startswith(b"HTTP/1.1 400")
            writer.close()
            assert (await played.ask("/healthz"))[0] == 200
            assert played.snapshots == 0

    run(test)
    # Nobody fills the log that way.
    assert caplog.records == []


def test_a_body_is_not_read() -> None:
    async def test(played: Played) -> None:
        async with played.listening() as server:
            reader, writer = await played.connect()
            writer.write(
                b"POST /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 99999999\r\n\r\n"
            )
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 405")
            (connection,) = server._listener._connections
            began, sent = time.monotonic(), 0
            with contextlib.suppress(ConnectionError, TimeoutError):
                async with asyncio.timeout(1.0):
                    while True:
                        writer.write(b"x" * 65536)
                        await writer.drain()
                        sent += 65536
            # A few reads a second, whatever comes.
            reads = (time.monotonic() - began) / web._READS_S
            assert sent < (reads + 20) * (1 << 18)
            assert len(connection.cycle.body) < 1 << 19  # type: ignore[attr-defined]
            writer.transport.abort()

    run(test)


def test_answers_have_a_part_of_the_loops_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those about metrics; who asks for health does not wait for them."""
    monkeypatch.setattr(listener, "_RATE", 10_000)

    async def test(played: Played) -> None:
        played.slow_s = 0.1
        async with played.listening():
            began = time.monotonic()
            assert (await played.ask("/metrics"))[0] == 200
            asked = [asyncio.ensure_future(played.ask("/metrics")) for _ in range(8)]
            for _ in range(5):
                assert (await played.ask("/readyz"))[0] == 200
            # In between, not behind them.
            assert not any(one.done() for one in asked)
            await asyncio.wait(asked)
            # It waits nine times as long as the one before it took, and is for all that wait.
            assert time.monotonic() - began > 0.9 * (1 + 9) * played.slow_s
            assert played.snapshots == 2

    run(test)


def test_each_gets_a_text_that_is_younger_than_its_request() -> None:
    async def test(played: Played) -> None:
        async with played.listening():
            for uptime_s in (1.0, 2.0, 3.0):
                played.now = msgspec.structs.replace(STATUS, uptime_s=uptime_s)
                plain, other = await asyncio.gather(
                    played.ask("/metrics"),
                    played.ask("/metrics", "Accept: application/openmetrics-text"),
                )
                assert f"fastscp_uptime_seconds {uptime_s}" in plain[2].decode()
                assert other[2].endswith(b"# EOF\n")

    run(test)


def test_a_probe_is_answered_whatever_others_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if all places are theirs, and a request of each is always on its way."""
    monkeypatch.setattr(listener, "_RATE", 10_000)

    async def again_and_again(played: Played) -> None:
        reader, writer = await played.connect()
        with (
            contextlib.suppress(ConnectionError, asyncio.IncompleteReadError),
            contextlib.closing(writer),
        ):
            writer.write(3 * b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            while True:
                await reader.readuntil(b"}")
                writer.write(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")

    async def test(played: Played) -> None:
        async with played.listening() as server:
            others = [
                asyncio.ensure_future(again_and_again(played)) for _ in range(HTTP_CONNECTIONS_MOST)
            ]
            await until(lambda: server.connections == HTTP_CONNECTIONS_MOST)
            await asyncio.sleep(0.2)
            for _ in range(5):
                async with asyncio.timeout(5):
                    assert (await played.ask("/healthz"))[0] == 200
            assert server.connections >= HTTP_CONNECTIONS_MOST - 5
            for one in others:
                one.cancel()
            await asyncio.wait(others)

    run(test)


def test_a_probe_is_answered_beside_those_who_do_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "_RATE", 10_000)

    async def test(played: Played) -> None:
        async with played.listening() as server:
            with contextlib.ExitStack() as deaf:
                for _ in range(HTTP_CONNECTIONS_MOST):
                    one = deaf.enter_context(socket.socket())
                    one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                    one.connect(("127.0.0.1", played.port))
                    one.send(200 * b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
                await until(lambda: server.connections == HTTP_CONNECTIONS_MOST)
                await until(lambda: played.snapshots)
                for _ in range(5):
                    async with asyncio.timeout(5):
                        assert (await played.ask("/healthz"))[0] == 200

    run(test)


@pytest.mark.parametrize(("most", "age_s", "answers"), [(3, 600.0, 3), (100, 0.0, 1)])
def test_a_connection_ends_behind_so_many_requests(
    monkeypatch: pytest.MonkeyPatch, most: int, age_s: float, answers: int
) -> None:
    monkeypatch.setattr(web, "_REQUESTS_MOST", most)
    monkeypatch.setattr(web, "_AGE_S", age_s)

    async def test(played: Played) -> None:
        async with played.listening():
            reader, writer = await played.connect()
            writer.write(5 * b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            told = b""
            # What it was not answered may end it by a reset.
            with contextlib.suppress(ConnectionError):
                while piece := await reader.read(65536):
                    told += piece
            assert told.count(b"HTTP/1.1 200") == answers
            # The last one says so.
            assert told.count(b"connection: close") == 1
            assert b"connection: close" in told.rpartition(b"HTTP/1.1 200")[2]
            writer.close()

    run(test)


def test_the_pace_counts_steps_and_no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastscp.admin.pace.TURN_MOST_S", 0.25)

    async def test(_played: Played) -> None:
        pace, gone, busy = Pace(), list[float](), time.sleep
        steps: list[float] = []

        async def costly() -> str:
            await asyncio.sleep(0.1)
            steps.append(time.monotonic())
            busy(0.02)
            steps.append(time.monotonic())
            return "done"

        async def gone_at(began: float) -> float:
            gone.clear()
            pace.ask(lambda: gone.append(time.monotonic()))
            await until(lambda: gone)
            return gone[0] - began

        assert await pace.metered(costly()) == "done"
        # As long as the step took, that is, which may be longer than it is to be.
        began, ended = steps
        waited = await gone_at(ended)
        assert 0.8 * 9 * 0.02 < waited < 9 * (ended - began + 0.1)
        # Whoever is given up is given up inside, too.
        task = asyncio.ensure_future(pace.metered(costly()))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        # What others cost is nobody's end.
        now = time.monotonic()
        pace.spend(now - 60)
        assert await gone_at(now) < 10
        pace.close()

    run(test)


def test_what_is_refused_has_its_price_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody keeps main busy with what it does not answer."""
    monkeypatch.setattr(listener, "_RATE", 10_000)

    async def test(played: Played) -> None:
        async with played.listening():
            streams = [await played.connect() for _ in range(20)]
            for _reader, writer in streams:
                writer.write(90 * b"GET /nothing HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            spent, began = time.thread_time(), time.monotonic()
            await asyncio.sleep(1.0)
            share = (time.thread_time() - spent) / (time.monotonic() - began)
            for _reader, writer in streams:
                writer.transport.abort()
        assert share < 0.5

    run(test)


def test_who_asks_and_hangs_up_costs_no_turn(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Else requests whose clients are gone would wait for theirs, more of them each second."""
    monkeypatch.setattr(listener, "_RATE", 10_000)

    async def test(played: Played) -> None:
        played.slow_s = 0.02
        async with played.listening() as server:
            for _ in range(5 * HTTP_CONNECTIONS_MOST):
                _reader, writer = await played.connect()
                writer.write(b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
                await asyncio.sleep(0)
                writer.transport.abort()
            await until(lambda: not server._listener.connections)
            assert (await played.ask("/metrics"))[0] == 200
            assert played.snapshots < 20

    run(test)
    assert caplog.records == []


def test_the_end_waits_for_no_answer(caplog: pytest.LogCaptureFixture) -> None:
    async def test(played: Played) -> None:
        played.slow_s = 0.1
        asked = []
        async with played.listening():
            asked += [asyncio.ensure_future(played.ask("/metrics")) for _ in range(8)]
            await until(lambda: played.snapshots)
        await asyncio.wait(asked)
        assert played.snapshots < 4
        assert [one.exception() for one in asked].count(None) < 4

    run(test)
    assert caplog.records == []


def test_a_bug_is_told_and_ends_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def test(played: Played) -> None:
        def fails() -> Snapshot:
            raise RuntimeError("a bug")

        monkeypatch.setattr(played, "snapshot", fails)
        async with played.listening():
            status, _headers, body = await played.ask("/metrics")
            assert (status, b"bug" in body) == (500, False)
            assert (await played.ask("/healthz"))[0] == 200

    run(test)
    assert "RuntimeError: a bug" in caplog.text


def test_a_port_that_is_held_before_anybody_answers_there() -> None:
    """It is not answered at once then, though it may be soon."""

    async def test(played: Played) -> None:
        web = Web(AdminAddress("127.0.0.1", 0), b"")
        web.bind()
        try:
            played.port = int(web.address.rpartition(":")[2])
            web.rest()
            await web.open(played.doors())
            asked = asyncio.create_task(played.ask("/healthz"))
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await asyncio.shield(asked)
            web.go_on()
            assert (await asked)[0] == 200
            await web.has_answered(DEADLINE_S)
        finally:
            web.close()

    run(test)


def test_a_port_that_is_left_is_somebody_elses() -> None:
    """Who was accepted is answered once; who asks then waits for whoever has the port, too."""

    async def test(played: Played) -> None:
        request = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
        async with played.listening() as server:
            other = server._listener._sock.dup()
            with other:
                fresh, asks_later = await played.connect()
                kept, again = await played.connect()
                again.write(request)
                assert (await kept.readuntil(b"}")).startswith(b"HTTP/1.1 200")
                await until(lambda: server.connections == 2)
                server.rest()
                waiting, patient = await played.connect()
                patient.write(request)
                # What else makes it accept does not.
                server._listener.start()
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.1):
                        await waiting.read(1)
                server.go_on()
                assert (await waiting.readuntil(b"}")).startswith(b"HTTP/1.1 200")
                # Who asks again in the very moment, and who does not.
                os.write(again.get_extra_info("socket").fileno(), request)
                server.leave()
                assert (await kept.readuntil(b"}")).startswith(b"HTTP/1.1 200")
                # Those that had their answer are hung up on.
                for reader in (kept, waiting):
                    assert await reader.read() == b""
                asks_later.write(request)
                assert (await fresh.read()).startswith(b"HTTP/1.1 200")
                await until(lambda: not server.connections)
                reader, writer = await played.connect()
                await until(lambda: select.select([other], [], [], 0)[0])
                sock, _address = other.accept()
                sock.close()
                assert await reader.read() == b""
                for one in (asks_later, again, patient, writer):
                    one.close()

    run(test)
