"""The page's side of HTTP: who is told what, what is refused, and what slow pages cost."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from fastscp.admin import web
from fastscp.admin.listener import HTTP_CONNECTIONS_MOST, PAGES_MOST
from fastscp.admin.page import files
from fastscp.admin.page.actions import BODY_MOST, PATHS
from tests.unit.test_web import TOKEN, Played, loops_have_begun, run, until

if TYPE_CHECKING:
    from fastscp.admin.web import WebServer

# The fixture is for each of these tests, too.
__all__ = ["loops_have_begun"]

pytestmark = pytest.mark.usefixtures("no_descriptor_left")

BEARER = f"Authorization: Bearer {TOKEN.decode()}"
JSON = "Content-Type: application/json"
# What makes a document of a text, and what the policy would not let run.
NO_WORDS = (
    b"innerHTML", b"outerHTML", b"insertAdjacent", b"eval(", b"document.write", b" style=",
    b" onclick=", b"<script>",
)  # fmt: skip


class Follower:
    """A page that is open: what it is told, message by message."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def open(cls, played: Played, *headers: str) -> Follower:
        reader, writer = await played.connect()
        lines = ["GET /events HTTP/1.1", "Host: 127.0.0.1", *headers, "", ""]
        writer.write("\r\n".join(lines).encode("latin-1"))
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        return cls(reader, writer)

    async def next(self) -> dict[str, Any]:
        """One message is one chunk."""
        size = int(await self.reader.readuntil(b"\r\n"), 16)
        body = await self.reader.readexactly(size + 2)
        assert body.startswith(b"data: ")
        assert body.endswith(b"\n\n\r\n")
        found: dict[str, Any] = json.loads(body[len("data: ") :])
        return found

    def lines(self, message: dict[str, Any]) -> list[int]:
        return [line["n"] for line in message["log"]]


async def post(played: Played, path: str, *headers: str, body: bytes = b"{}") -> tuple[int, bytes]:
    reader, writer = await played.connect()
    lines = [
        f"POST {path} HTTP/1.1", f"Host: 127.0.0.1:{played.port}", "Connection: close",
        f"Content-Length: {len(body)}", *headers, "", "",
    ]  # fmt: skip
    writer.write("\r\n".join(lines).encode("latin-1") + body)
    head, _, answer = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    return int(head.split()[1]), answer


# The files ----------------------------------------------------------------------------------------


def test_the_files_are_anybodys_and_nothing_runs_in_them() -> None:
    async def test(played: Played) -> None:
        async with played.listening(TOKEN):
            for path in files.PATHS:
                status, headers, body = await played.ask(path)
                assert (status, len(body) > 500) == (200, True)
                policy = headers["content-security-policy"]
                assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
                assert "unsafe" not in policy
                assert headers["x-content-type-options"] == "nosniff"
                assert headers["referrer-policy"] == "no-referrer"
                assert headers["cross-origin-opener-policy"] == "same-origin"
                # Text is text: nothing in them makes a document of it.
                for word in NO_WORDS:
                    assert word not in body, (path, word)

    run(test)


# What pages are told ------------------------------------------------------------------------------


def test_a_page_is_told_all_and_then_what_is_new() -> None:
    async def test(played: Played) -> None:
        page = played.page
        page.lines = 3
        async with played.listening() as server:
            first = await Follower.open(played)
            message = await first.next()
            assert (message["whole"], message["actions"]) == (True, False)
            assert first.lines(message) == [1, 2, 3]
            page.next_look()
            message = await first.next()
            assert (message["whole"], first.lines(message)) == (False, [4])
            second = await Follower.open(played)
            assert second.lines(await second.next()) == [1, 2, 3, 4]
            # One message is for all; nobody looks for each of them.
            views, looks = page.views, page.looks
            page.next_look()
            for one in (first, second):
                assert one.lines(await one.next()) == [5]
            assert (page.views - views, page.looks - looks) == (1, 1)
            first.writer.close()
            second.writer.close()
            await until(lambda: not server._answers.events.pages)
            # And nobody at all while there is no page.
            looks = page.looks
            page.next_look()
            await asyncio.sleep(0.02)
            page.next_look()
            await asyncio.sleep(0.02)
            assert page.looks <= looks + 1

    run(test)


def test_a_slow_page_misses_messages_and_gets_all_again() -> None:
    async def test(played: Played) -> None:
        page = played.page
        # More than the connection takes without being read.
        page.lines = 40_000
        async with played.listening() as server:
            slow = await Follower.open(played)
            quick = await Follower.open(played)
            assert len(quick.lines(await quick.next())) == 40_000
            for number in range(1, 6):
                page.next_look()
                assert quick.lines(await quick.next()) == [40_000 + number]
            (waiting,) = (one for one in server._answers.events._pages if one.is_behind)
            assert waiting.message == b""
            assert len(slow.lines(await slow.next())) == 40_000
            # What it was too slow for is not told one by one.
            one_by_one = [message := await slow.next()]
            while not message["whole"]:
                one_by_one.append(message := await slow.next())
            assert len(one_by_one) < 5
            assert slow.lines(message)[-1] == 40_005
            slow.writer.close()
            quick.writer.close()

    run(test)


def test_a_page_that_does_not_read_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "_EXCHANGE_S", 0.2)

    async def test(played: Played) -> None:
        played.page.lines = 40_000
        async with played.listening() as server:
            deaf = await Follower.open(played)
            await until(lambda: server._answers.events.pages)
            await until(lambda: not server._answers.events.pages)
            await until(lambda: not server.connections)
            deaf.writer.close()

    run(test)


def test_so_many_pages_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastscp.admin.listener._RATE", 10_000)

    async def test(played: Played) -> None:
        async with played.listening() as server:
            pages = [await Follower.open(played) for _ in range(PAGES_MOST)]
            status, _headers, body = await played.ask("/events")
            assert (status, body.startswith(b"128 pages are open already")) == (503, True)
            # They leave all places to whoever only asks, and lose none to them.
            silent = [await played.connect() for _ in range(HTTP_CONNECTIONS_MOST)]
            assert (await played.ask("/healthz"))[0] == 200
            assert server._answers.events.pages == PAGES_MOST
            for _reader, writer in silent:
                writer.close()
            pages[0].writer.close()
            await until(lambda: server._answers.events.pages < PAGES_MOST)
            pages.append(await Follower.open(played))
            for one in pages:
                one.writer.close()

    run(test)


def test_streams_end_when_the_port_is_left() -> None:
    async def test(played: Played) -> None:
        async with played.listening() as server:
            page = await Follower.open(played)
            await page.next()
            server.leave()
            # In order: the page asks again at once, and meets the successor.
            assert await page.reader.read() == b"0\r\n\r\n"
            await until(lambda: not server.connections)
            page.writer.close()

    run(test)


def test_a_bug_in_a_look_is_told_and_the_next_look_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def test(played: Played) -> None:
        page = played.page
        async with played.listening():
            follower = await Follower.open(played)
            await follower.next()
            look, page.look = page.look, broken  # type: ignore[method-assign]
            page.next_look()
            await until(lambda: caplog.records)
            page.look = look  # type: ignore[method-assign]
            page.next_look()
            assert follower.lines(await follower.next()) == [1, 2]
            follower.writer.close()

    def broken() -> None:
        raise ZeroDivisionError

    run(test)
    assert [one.message for one in caplog.records] == [
        "pages cannot be told what there is, which is a bug"
    ]


def test_only_the_head_of_a_stream() -> None:
    async def test(played: Played) -> None:
        async with played.listening() as server:
            status, headers, body = await played.ask("/events", method="HEAD")
            assert (status, headers["content-type"], body) == (200, "text/event-stream", b"")
            assert not server._answers.events.pages

    run(test)


# Who may what -------------------------------------------------------------------------------------


def test_its_data_want_the_token() -> None:
    async def test(played: Played) -> None:
        async with played.listening(TOKEN):
            assert (await played.ask("/events"))[0] == 401
            assert (await played.ask("/events", f"{BEARER}x"))[0] == 401
            page = await Follower.open(played, BEARER)
            assert (await page.next())["actions"] is True
            page.writer.close()

    run(test)


@pytest.mark.parametrize("path", PATHS)
def test_actions_want_a_token(path: str) -> None:
    body = b'{"id":"1"}' if path == "/abort" else b"{}"

    async def test(played: Played) -> None:
        async with played.listening():
            # Whoever it is: nobody could show one.
            status, told = await post(played, path, JSON, body=body)
            assert (status, b"--admin-token-file" in told) == (403, True)
        async with played.listening(TOKEN):
            assert (await post(played, path, JSON, body=body))[0] == 401
            assert (await post(played, path, JSON, f"{BEARER}x", body=body))[0] == 401
            assert played.page.asked == []
            assert (await post(played, path, JSON, BEARER, body=body))[0] == 200
            assert [one[0] for one in played.page.asked] == [path[1:]]
            for method in ("GET", "HEAD", "PUT", "DELETE"):
                assert (await played.ask(path, BEARER, method=method))[0] == 405

    run(test)


def test_what_actions_do() -> None:
    async def test(played: Played) -> None:
        async with played.listening(TOKEN):
            done = await post(played, "/abort", JSON, BEARER, body=b'{"id":"run.7"}')
            assert done == (200, b'{"id":"run.7","outcome":"over"}')
            done = await post(played, "/pause", JSON, BEARER, body=b'{"reason":"a drill"}')
            assert json.loads(done[1])["changed"] is True
            assert (await post(played, "/resume", JSON, BEARER))[0] == 200
            by = "page, 127.0.0.1"
            assert played.page.asked == [
                ("abort", "run.7", by), ("pause", "a drill", by), ("resume", by),
            ]  # fmt: skip

    run(test)


@pytest.mark.parametrize(
    ("headers", "body", "wanted"),
    [
        (["Content-Type: text/plain"], b"{}", 415),
        (["Content-Type: application/x-www-form-urlencoded"], b"reason=x", 415),
        ([], b"{}", 415),
        ([JSON], b"", 400),
        ([JSON], b"[]", 400),
        ([JSON], b'{"why":"x"}', 400),
        ([JSON], b'{"reason":7}', 400),
        ([JSON], b'{"reason":"\xff"}', 400),
        ([JSON], b"[" * (BODY_MOST - 1), 400),
        ([JSON], b'{"reason":"' + b"x" * BODY_MOST + b'"}', 413),
        # A browser says whose page asks: over TLS and on this machine by the first, else by Origin.
        ([JSON, "Sec-Fetch-Site: cross-site"], b"{}", 403),
        ([JSON, "Sec-Fetch-Site: same-site"], b"{}", 403),
        ([JSON, "Origin: https://example.com"], b"{}", 403),
        ([JSON, "Origin: null"], b"{}", 403),
        ([JSON, "Origin: http://127.0.0.1"], b"{}", 403),
        ([JSON, "Sec-Fetch-Site: same-origin"], b"{}", 200),
    ],
)
def test_what_is_not_the_pages_own(headers: list[str], body: bytes, wanted: int) -> None:
    async def test(played: Played) -> None:
        async with played.listening(TOKEN):
            assert (await post(played, "/pause", BEARER, *headers, body=body))[0] == wanted
            assert len(played.page.asked) == (wanted == 200)
            own = f"Origin: http://127.0.0.1:{played.port}"
            assert (await post(played, "/pause", BEARER, JSON, own))[0] == 200

    run(test)


def test_other_sites_open_no_stream() -> None:
    async def test(played: Played) -> None:
        async with played.listening():
            for header in ("Sec-Fetch-Site: cross-site", "Origin: https://example.com"):
                assert (await played.ask("/events", header))[0] == 403

    run(test)


def test_a_name_is_no_address_for_the_page_either() -> None:
    async def test(played: Played) -> None:
        async with played.listening():
            for path in ("/", "/events"):
                assert (await played.ask(path, host="example.com"))[0] == 403

    run(test)


def test_a_body_that_does_not_come_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "_EXCHANGE_S", 0.2)

    async def test(played: Played) -> None:
        async with played.listening(TOKEN) as server:
            reader, writer = await played.connect()
            lines = ["POST /pause HTTP/1.1", "Host: 127.0.0.1", BEARER, JSON, "Content-Length: 9"]
            writer.write("\r\n".join([*lines, "", "{"]).encode())
            assert await reader.read() == b""
            await gone(server)
            assert played.page.asked == []
            writer.close()

    run(test)


async def gone(server: WebServer) -> None:
    await until(lambda: not server.connections)
