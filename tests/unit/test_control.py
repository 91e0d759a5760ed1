"""The control socket: how it is made, what its clients can do to it, and what they are told."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
import os
import re
import socket
import stat
import threading
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import uvloop

from fastscp.admin import client as client_module
from fastscp.admin import control as module
from fastscp.admin import place
from fastscp.admin.client import ControlClient, NotRunningError
from fastscp.admin.control import CONNECTIONS_MOST, ControlServer, Listening
from fastscp.admin.place import SOCKET_NAME, ControlSocketError
from fastscp.messages.control import (
    Abort,
    Aborted,
    Associations,
    AssociationStatus,
    GetOverview,
    GetStatus,
    Overview,
    Pause,
    Paused,
    Reload,
    Reloaded,
    Resume,
    RulesStatus,
    Status,
    StoreStatus,
)
from tests.kit import DEADLINE_S, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("no_descriptor_left")

STATUS = Status(
    version="1", pid=7, run="run", addresses=("127.0.0.1:104",), uptime_s=1.5, state="accepting",
    why="", since=0.0, store=StoreStatus(path="/s", id="id", free_bytes=None, min_free_bytes=0),
    rules=RulesStatus(generation=1, tables=0, loaded_at=0.0), workers=2, workers_up=2,
    associations=0, limit=0, connections=0, stored=0, bytes=0, received_bytes=0, refused=0,
    unfinished=0, kept=0, rejected=0,
)  # fmt: skip
ONE = AssociationStatus(
    id="run.1", calling_ae="CT", called_ae="FASTSCP", host="::1", port=104, worker=0,
    rules="default", phase="idle", stored=1, refused=0, bytes=5, received_bytes=9, age_s=2.0,
)  # fmt: skip


class PlayedControl:
    """A service. over: set once an association is over that was told to end."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, ...]] = []
        self.over = asyncio.Event()
        self.open = [ONE]

    def status(self) -> Status:
        return STATUS

    def associations(self) -> list[AssociationStatus]:
        return self.open

    async def abort(self, id_: str, by: str) -> Aborted:
        self.asked.append(("abort", id_, by))
        await self.over.wait()
        return Aborted(id_, "over")

    def pause(self, why: str, by: str) -> Paused:
        self.asked.append(("pause", why, by))
        return Paused(True, why, 5.0)

    def resume(self, by: str) -> Paused:
        raise ValueError("a bug")

    async def reload(self, by: str) -> Reloaded:
        return Reloaded(changed=("layout",), waits=("port",), generation=2)


@pytest.fixture(scope="module", autouse=True)
def libuv_is_there() -> None:
    """It opens files of its own for its first loop, and keeps them."""
    uvloop.new_event_loop().close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "store" / ".fastscp"
    made.mkdir(parents=True)
    return made


def listen(folder: Path) -> Listening:
    return Listening(os.open(folder, os.O_RDONLY | os.O_DIRECTORY), folder)


class Served:
    """A control socket that is answered, on a loop in a thread of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.control: PlayedControl
        self.server: ControlServer
        self._listening = listen(folder)
        self._loop = uvloop.new_event_loop()
        self._is_up = threading.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._run(),))
        self._thread.start()
        assert self._is_up.wait(DEADLINE_S)

    async def _run(self) -> None:
        self._stop = asyncio.Event()
        self.control = PlayedControl()
        self.server = ControlServer(self._listening.sock, self.control)
        self.server.start()
        self._is_up.set()
        await self._stop.wait()
        self.server.close()
        # Those that were hung up on end.
        await asyncio.sleep(0)
        while self.server._conversations:  # noqa: ASYNC110 - nobody else waits for that
            await asyncio.sleep(0.001)

    def call(self, what: Callable[[], object]) -> None:
        self._loop.call_soon_threadsafe(what)

    def close(self) -> None:
        if self._thread.is_alive():
            self.call(self._stop.set)
            self._thread.join(DEADLINE_S)
            assert not self._thread.is_alive()
            self._loop.close()
            self._listening.remove()

    def connect(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(DEADLINE_S)
        folder_fd = os.open(self.folder, os.O_PATH)
        try:
            sock.connect(place.address(folder_fd, self.folder))
        finally:
            os.close(folder_fd)
        return sock

    def said(self, sent: bytes) -> list[Any]:
        """What is answered to bytes that nothing follows, up to the end."""
        with self.connect() as sock:
            with contextlib.suppress(BrokenPipeError):
                sock.sendall(sent)
                sock.shutdown(socket.SHUT_WR)
            return lines_of(sock)


def lines_of(sock: socket.socket) -> list[Any]:
    got = b""
    with contextlib.suppress(ConnectionResetError):
        while data := sock.recv(65536):
            got += data
    return [json.loads(line) for line in got.splitlines()]


@pytest.fixture
def served(no_descriptor_left: None, folder: Path) -> Iterator[Served]:
    served = Served(folder)
    yield served
    served.close()


# How it is made -----------------------------------------------------------------------------------


def test_nobody_else_can_reach_it_from_its_first_moment(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mode() -> int:
        return stat.S_IMODE((folder / SOCKET_NAME).lstat().st_mode)

    seen = []

    class Sock(socket.socket):
        def bind(self, address: Any) -> None:
            super().bind(address)
            seen.append(mode())

    monkeypatch.setattr(socket, "socket", Sock)
    before = os.umask(0)
    try:
        listening = listen(folder)
    finally:
        os.umask(before)
    assert (seen, mode()) == ([0o600], 0o600)
    listening.sock.close()
    listening.remove()
    assert os.listdir(folder) == []


def test_a_path_longer_than_an_address(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 90) / ("y" * 90) / ".fastscp"
    folder.mkdir(parents=True)
    served = Served(folder)
    with ControlClient(folder) as client:
        assert client.ask(GetStatus(), Status) == STATUS
    served.close()
    assert os.listdir(folder) == []


def test_without_proc_a_short_path_still_does(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os.path, "isdir", lambda path: False)
    assert place.address(3, folder) == str(folder / SOCKET_NAME)
    with pytest.raises(ControlSocketError, match=r"longer than the 107 bytes .* mount /proc"):
        place.address(3, folder / ("x" * 107))


def test_one_that_a_killed_service_left_is_replaced(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(folder / SOCKET_NAME))
    served = Served(folder)
    with ControlClient(folder) as client:
        assert client.ask(GetStatus(), Status) == STATUS
    served.close()
    assert os.listdir(folder) == []


@pytest.mark.parametrize("kind", ["file", "folder", "link", "fifo"])
def test_nothing_else_that_has_its_name_is_removed(folder: Path, kind: str) -> None:
    planted = folder / SOCKET_NAME
    match kind:
        case "file":
            planted.write_bytes(b"mine")
        case "folder":
            planted.mkdir()
        case "fifo":
            os.mkfifo(planted)
        case _:
            planted.symlink_to(folder / "elsewhere")
    before = planted.lstat()
    with pytest.raises(ControlSocketError, match="no socket, so no service made it: move it away"):
        listen(folder)
    assert os.path.samestat(before, planted.lstat())
    with pytest.raises(ControlSocketError, match="is no socket") as caught:
        ControlClient(folder)
    assert caught.value.exit_code == 1


def test_at_the_end_only_its_own_is_removed(folder: Path) -> None:
    listening = listen(folder)
    listening.sock.close()
    (folder / SOCKET_NAME).unlink()
    (folder / SOCKET_NAME).write_bytes(b"mine")
    listening.remove()
    assert (folder / SOCKET_NAME).read_bytes() == b"mine"


def test_one_that_was_removed_is_made_anew(folder: Path) -> None:
    listening = listen(folder)
    assert listening.is_there()
    listening.path.unlink()
    assert not listening.is_there()
    again = listening.made_anew()
    assert again.is_there()
    assert not listening.is_there()
    listening.sock.close()
    listening.leave()
    assert stat.S_IMODE(again.path.lstat().st_mode) == 0o600
    again.sock.close()
    again.remove()
    assert list(folder.iterdir()) == []


def test_a_folder_that_takes_none(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(sock: object, address: str) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(module.Listening, "_bind", refuse)
    with pytest.raises(ControlSocketError, match=r"Operation not permitted.*has sockets"):
        listen(folder)


# What it answers ----------------------------------------------------------------------------------


def test_every_request_has_its_answer(served: Served) -> None:
    served.call(lambda: served.control.over.set())
    uid = f"uid {os.geteuid()}"
    with ControlClient(served.folder) as client:
        assert client.ask(GetStatus(), Status) == STATUS
        assert client.ask(Associations(), list[AssociationStatus]) == [ONE]
        both = Overview(status=STATUS, associations=[ONE])
        assert client.ask(GetOverview(), Overview) == both
        assert client.ask(Pause(why="a\nb"), Paused) == Paused(True, "a\nb", 5.0)
        assert client.ask(Abort(id="run.1"), Aborted) == Aborted("run.1", "over")
        taken = Reloaded(changed=("layout",), waits=("port",), generation=2)
        assert client.ask(Reload(), Reloaded) == taken
    assert served.control.asked == [
        ("pause", "a\nb", f"fastscp pause, {uid}"),
        ("abort", "run.1", f"fastscp abort, {uid}"),
    ]


def test_the_lines_are_what_the_protocol_says(served: Served) -> None:
    answers = served.said(b'{"do":"associations","version":1}\n{"do":"status","version":1}\n')
    assert [set(one) for one in answers] == [{"version", "ok"}] * 2
    assert answers[0]["ok"] == [msgspec.to_builtins(ONE)]


def test_a_bug_costs_an_answer(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    with ControlClient(served.folder) as client:
        with pytest.raises(ControlSocketError, match="refuses: a bug in the service"):
            client.ask(Resume(), Paused)
        assert client.ask(GetStatus(), Status) == STATUS
    assert "a request on the control socket failed, which is a bug" in caplog.text


def test_an_answer_of_any_length_arrives(served: Served) -> None:
    many = [ONE] * 30_000
    served.call(lambda: setattr(served.control, "open", many))
    with ControlClient(served.folder) as client:
        assert client.ask(Associations(), list[AssociationStatus]) == many


# Clients that mean no good ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "error", "code"),
    [
        (b"GET / HTTP/1.1\r\n", "no request that fastscp .* knows", 2),
        (b"\xff\n", "no request that fastscp .* knows", 2),
        (b'{"version":1,"do":"format"}\n', "no request that fastscp .* knows", 2),
        (b'{"version":1,"do":"abort"}\n', "missing required field `id`", 2),
        (b'{"version":1,"do":"abort","id":5}\n', "Expected `str`", 2),
        (b'{"do":"status"}\n', "missing required field `version`", 2),
        (b'{"version":1,"x":' + b"[" * 5000 + b"\n", "no request that fastscp .* knows", 2),
        (b'{"x":' * 9000 + b"\n", "no request that fastscp .* knows", 2),
        (b"[" * 5000 + b"\n", "no request that fastscp .* knows", 2),
        (b'{"version":2,"do":"status"}\n', "speaks version 1, not 2", 1),
        (b"x" * 70_000, "a request has at most 65536 bytes", 1),
    ],
)
def test_what_is_no_request(served: Served, sent: bytes, error: str, code: int) -> None:
    (answer,) = served.said(sent)
    assert re.search(error, answer["error"])
    assert (answer["version"], answer["code"]) == (1, code)


def test_what_is_no_request_is_shown_short_and_escaped(served: Served) -> None:
    (answer,) = served.said(b'{"version":1,"do":"\\u001b[2J' + b"x" * 5000 + b'"}\n')
    assert answer["error"].isprintable()
    assert len(answer["error"]) < 300


def test_a_request_that_trickles_has_its_time(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REQUEST_S", 0.2)
    # What it is to read is there before its time begins.
    late = threading.Event()
    served.call(lambda: late.wait(DEADLINE_S))
    with served.connect() as slow, served.connect() as silent:
        slow.sendall(b'{"version"')
        late.set()
        assert lines_of(slow)[0]["error"] == "no whole request within 0.2 s"
        # One that has not begun to ask is just hung up on.
        assert lines_of(silent) == []


def test_so_many_and_no_more(served: Served) -> None:
    with contextlib.ExitStack() as connected:
        first = [connected.enter_context(served.connect()) for _ in range(CONNECTIONS_MOST)]
        wait_for(lambda: len(served.server._conversations) == CONNECTIONS_MOST, "all of them")
        with served.connect() as late:
            (answer,) = lines_of(late)
        assert answer["error"].startswith("16 others are connected already: ")
        told = pytest.raises(ControlSocketError, match="refuses: 16 others are connected")
        with ControlClient(served.folder) as client, told:
            client.ask(GetStatus(), Status)
        first[3].close()
        wait_for(lambda: len(served.server._conversations) < CONNECTIONS_MOST, "a place")
        with ControlClient(served.folder) as client:
            assert client.ask(GetStatus(), Status) == STATUS


def test_whoever_does_not_read_is_given_up(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ANSWER_S", 0.2)
    served.call(lambda: setattr(served.control, "open", [ONE] * 30_000))
    with served.connect() as deaf:
        deaf.sendall(b'{"do":"associations","version":1}\n')
        # Taken behind that one.
        with ControlClient(served.folder) as client:
            assert client.ask(GetStatus(), Status) == STATUS
        wait_for(lambda: not served.server._conversations, "the end of both")


def test_requests_of_who_does_not_wait_are_bounded(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone_for = []
    send = ControlServer._send

    async def noted(server: ControlServer, sock: socket.socket, data: bytes) -> None:
        try:
            await send(server, sock, data)
        except OSError:
            gone_for.append(data)
            raise

    monkeypatch.setattr(ControlServer, "_send", noted)
    monkeypatch.setattr(module, "_STILL_S", 0.02)
    with contextlib.ExitStack() as connected:
        for _ in range(CONNECTIONS_MOST):
            sock = connected.enter_context(served.connect())
            sock.sendall(b'{"do":"abort","id":"1","version":1}\n')
        wait_for(lambda: len(served.control.asked) == CONNECTIONS_MOST, "all requests")
    # Though all were found to be gone.
    wait_for(lambda: gone_for == [b"\n"] * CONNECTIONS_MOST, "a look at each")
    with served.connect() as late:
        assert "16 others" in lines_of(late)[0]["error"]
    served.call(lambda: served.control.over.set())
    wait_for(lambda: not served.server._conversations, "the end of all")


def test_what_somebody_wants_who_is_gone_is_not_done(served: Served) -> None:
    """Main was late, and the client has said by now that it is not done."""
    late = threading.Event()
    served.call(lambda: late.wait(DEADLINE_S))
    for _ in range(2):
        with served.connect() as gone:
            gone.sendall(b'{"do":"pause","why":"gone","version":1}\n')
    late.set()
    # Who says no more than this, and reads on, is there.
    assert len(served.said(b'{"do":"pause","why":"there","version":1}\n')) == 1
    assert served.control.asked == [("pause", "there", f"fastscp pause, uid {os.geteuid()}")]


def test_they_have_a_part_of_the_loops_time(served: Served) -> None:
    """However many ask, and however much there is to tell."""
    began = []

    def slow() -> list[AssociationStatus]:
        began.append(time.monotonic())
        time.sleep(0.005)
        return []

    served.call(lambda: setattr(served.control, "associations", slow))
    with contextlib.ExitStack() as connected:
        for _ in range(3):
            client = connected.enter_context(served.connect())
            client.sendall(b'{"do":"associations","version":1}\n' * 2)
        wait_for(lambda: len(began) == 6, "all of them looked at")
    assert min(after - before for before, after in itertools.pairwise(began)) >= 10 * 0.005


def test_another_user_is_turned_away(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    # Whatever the mode of the socket has become.
    monkeypatch.setattr(module, "_ROOT", -1)
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    (answer,) = served.said(b'{"do":"status","version":1}\n')
    assert answer["error"].startswith("only root and the service's own user (uid 12345) may ask")
    assert served.control.asked == []


def test_out_of_descriptors_accepting_rests(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_REST_S", 0.01)
    served = Served(folder)
    real, lacking = served.server._sock, [OSError(24, "Too many open files")]

    def accept() -> Any:
        if lacking:
            raise lacking.pop()
        return real.accept()

    stand_in = SimpleNamespace(fileno=real.fileno, accept=accept, close=real.close)
    monkeypatch.setattr(served.server, "_sock", stand_in)
    with ControlClient(folder) as client:
        assert client.ask(GetStatus(), Status) == STATUS
    assert not lacking
    served.close()


# What clients are told ----------------------------------------------------------------------------


def test_there_is_no_store(tmp_path: Path) -> None:
    said = "no service runs on it, or one runs and its store is not at this path any more"
    with pytest.raises(NotRunningError, match=said) as caught:
        ControlClient(tmp_path / "none" / ".fastscp")
    assert caught.value.exit_code == 3


def test_there_is_no_service(folder: Path) -> None:
    said = "no service runs on the store .*store; start one"
    with pytest.raises(NotRunningError, match=said) as caught:
        ControlClient(folder)
    assert caught.value.exit_code == 3
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(folder / SOCKET_NAME))
    with pytest.raises(NotRunningError, match=said):
        ControlClient(folder)


@contextlib.contextmanager
def answering(folder: Path, *answers: bytes, backlog: int = 8) -> Iterator[socket.socket]:
    """Something that takes one connection and says the same whatever it is asked."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(folder / SOCKET_NAME))
        listening.listen(backlog)

        def answer() -> None:
            with listening.accept()[0] as sock:
                sock.recv(4096)
                for one in answers:
                    sock.sendall(one)

        thread = threading.Thread(target=answer)
        if answers:
            thread.start()
        yield listening
        if answers:
            thread.join(DEADLINE_S)


def test_a_service_that_hangs(folder: Path) -> None:
    said = rf"does not answer within 0.2 s: its main process \({os.getpid()}\) hangs or is stopped"
    with answering(folder), ControlClient(folder, 0.2) as client:
        with pytest.raises(ControlSocketError, match=said) as caught:
            client.ask(GetStatus(), Status)
        assert caught.value.exit_code == 1
        assert str(caught.value).endswith("and restart it")
        said = "what was asked is not done later, unless it had begun by now"
        with pytest.raises(ControlSocketError, match=said):
            client.ask(Pause(), Paused)


def test_a_service_that_hangs_before_many(folder: Path) -> None:
    with answering(folder, backlog=0), contextlib.ExitStack() as waiting:
        connect = iter(lambda: waiting.enter_context(ControlClient(folder, 0.2)), None)
        with pytest.raises(ControlSocketError, match="its main process hangs or is stopped"):
            list(itertools.islice(connect, 8))


def test_empty_lines_say_that_it_goes_on(folder: Path) -> None:
    said = b'{"version":1,"ok":{"id":"1","outcome":"over"}}\n'
    with answering(folder, *[b"\n"] * 5, said), ControlClient(folder) as client:
        assert client.ask(Abort(id="1"), Aborted) == Aborted("1", "over")


def test_they_come_while_it_is_at_it(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_STILL_S", 0.02)
    with served.connect() as sock:
        sock.sendall(b'{"do":"abort","id":"1","version":1}\n')
        assert sock.recv(1) == sock.recv(1) == b"\n"
        served.call(lambda: served.control.over.set())
        sock.shutdown(socket.SHUT_WR)
        # Some more may come before it is over.
        rest = b"".join(iter(lambda: sock.recv(65536), b""))
        assert json.loads(rest.lstrip(b"\n"))["ok"]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b'{"version":9,"ok":{}}\n', "speaks version 9"),
        (b'{"version":9,"error":"no \\u001b[2J","code":4}\n', r"no \\x1b"),
        (b'{"version":1,"ok":{"id":5}}\n', "use the `fastscp` that the service runs from"),
        (b"no JSON\n", "use the `fastscp` that the service runs from"),
        (b'{"version":1,"o', "hung up before it answered"),
    ],
)  # fmt: skip
def test_a_service_of_another_kind(folder: Path, answer: bytes, said: str) -> None:
    with answering(folder, answer), ControlClient(folder) as client:
        with pytest.raises(ControlSocketError, match=said) as caught:
            client.ask(Abort(id="1"), Aborted)
        assert caught.value.exit_code in (1, 4)
        assert str(caught.value).isprintable()


def test_a_service_that_ends_meanwhile(served: Served) -> None:
    with ControlClient(served.folder) as client, served.connect() as idle:

        def close() -> None:
            wait_for(lambda: served.control.asked, "the request")
            served.close()

        stopping = threading.Thread(target=close)
        stopping.start()
        with pytest.raises(ControlSocketError, match="hung up before it answered: it has ended"):
            client.ask(Abort(id="1"), Aborted)
        assert lines_of(idle) == []
        stopping.join(DEADLINE_S)


def test_permission_denied_names_the_user(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listening = listen(folder)

    def deny(*_arguments: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(client_module.ControlClient, "_knock", deny)
    said = rf"Permission denied\): only root and the user it runs as \(uid {os.geteuid()}\) may"
    with pytest.raises(ControlSocketError, match=said) as caught:
        ControlClient(folder)
    assert caught.value.exit_code == 1
    listening.sock.close()
    listening.remove()


def test_the_log_is_not_a_clients_to_fill(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    for _ in range(5):
        served.said(b"nonsense\n")
        served.said(b"x" * 70_000)
    assert caplog.records == []
