"""What the commands to a running service print, and what they end with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Self

import msgspec
import pytest

from fastscp.admin import client
from fastscp.admin.client import NotRunningError, SilentError
from fastscp.admin.place import ControlSocketError
from fastscp.cli import app as cli
from fastscp.cli import associations as module
from fastscp.cli.operate import duration, moment
from fastscp.errors import StoreBusyError
from fastscp.messages.control import (
    Aborted,
    AssociationStatus,
    Paused,
    Reloaded,
    RulesStatus,
    Status,
    StoreStatus,
)
from fastscp.store.access import lock_holder
from tests.stores import opened

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

STATUS = Status(
    version="0.1.0", pid=7, run="run", addresses=("127.0.0.1:104", "[::1]:104"), uptime_s=3700.0,
    state="accepting", why="", since=0.0,
    store=StoreStatus(path="/s\n", id="id", free_bytes=5 << 30, min_free_bytes=1 << 30),
    rules=RulesStatus(generation=2, tables=3, loaded_at=0.0), workers=2, workers_up=1,
    associations=1234, limit=2000, connections=1235, stored=56789, bytes=1 << 30,
    received_bytes=1 << 30, refused=3, unfinished=4, kept=0, rejected=5,
    in_flight_bytes=7 << 20,
)  # fmt: skip
ONE = AssociationStatus(
    id="run.1", calling_ae="CT%FF\\", called_ae="FASTSCP", host="::1", port=104, worker=0,
    rules="ae.A+from.B", phase="storing", stored=1200, refused=1, bytes=5 << 20,
    received_bytes=6_000_000, age_s=75.0, user="Zoë\x1b",
)  # fmt: skip


class Answers:
    """Stands for the service: gives these answers, in turn, and notes what was asked."""

    def __init__(self, *answers: object) -> None:
        self.answers = list(answers)
        self.asked: list[Any] = []

    def __call__(self, folder: Path) -> Self:
        self.folder = folder
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        pass

    def ask(self, request: object, result: type[Any]) -> Any:
        self.asked.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        # As it comes over the socket.
        return msgspec.json.decode(msgspec.json.encode(answer), type=result)


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Answers]:
    def answering(*answers: object) -> Answers:
        made = Answers(*answers)
        monkeypatch.setattr(client, "ControlClient", made)
        return made

    monkeypatch.setattr(module, "_BETWEEN_S", 0.001)
    return answering


def test_status_for_people(
    answering: Callable[..., Answers], capsys: pytest.CaptureFixture[str]
) -> None:
    made = answering(STATUS)
    assert cli.main(["status", "--store", "/data"]) == 0
    assert str(made.folder) == "/data/.fastscp"
    out = capsys.readouterr().out
    assert [line[:14].rstrip() for line in out.splitlines()] == [
        "state", "version", "listens on", "metrics", "store", "free space", "workers",
        "associations", "stored", "in flight", "refused", "rejected", "rules",
    ]  # fmt: skip
    assert "process 7, up 1 h 1 min" in out
    assert "127.0.0.1:104, [::1]:104" in out
    assert "/s\\n, id id" in out
    assert "5.0 GiB; nothing is stored below 1.0 GiB" in out
    assert "1 of 2 up" in out
    assert "1,234 of at most 2,000; 1,235 connections in all" in out
    assert "56,789 instances, 1.0 GiB\n" in out
    assert "7.0 MiB of complete instances, not committed yet\n" in out
    assert "generation 2, 3 tables, taken 1970-01-01 00:00:00 UTC" in out


def test_status_says_what_is_wrong(
    answering: Callable[..., Answers], capsys: pytest.CaptureFixture[str]
) -> None:
    replace = msgspec.structs.replace
    refused = replace(STATUS.rules, refused=("x.toml:3: a\nb", "b"), refused_at=60.0)
    refused = replace(refused, refused_more=480)
    answering(
        replace(
            STATUS,
            state="paused",
            why="a drill",
            since=60.0,
            rules=refused,
            limit=0,
            kept=9,
            store=replace(STATUS.store, free_bytes=None, min_free_bytes=0),
            addresses=(),
        )
    )
    assert cli.main(["status"]) == 1
    out = capsys.readouterr().out
    assert out.startswith("state         paused since 1970-01-01 00:01:00 UTC, ")
    assert " ago: a drill\n" in out
    assert "nothing yet\n" in out
    assert "free space    not known\n" in out
    assert "1,234; 1,235 connections" in out
    assert "not stored (keep) 9" in out
    assert (
        "last reload   refused 1970-01-01 00:01:00 UTC, nothing was changed: x.toml:3: a\\nb "
        "(and 481 more)\n"
    ) in out


def test_status_names_the_file_and_what_waits(
    answering: Callable[..., Answers], capsys: pytest.CaptureFixture[str]
) -> None:
    waits = ("host: 0.0.0.0 -> ::1", "port: 1 -> 2")
    rules = msgspec.structs.replace(STATUS.rules, tables=1, waits=waits, file="/etc/a\n.toml")
    answering(
        msgspec.structs.replace(
            STATUS, rules=rules, stored=1, refused=1, rejected=1, connections=1, associations=1
        )
    )
    assert cli.main(["status"]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[-2:] == [
        "rules         generation 2, 1 table, taken 1970-01-01 00:00:00 UTC, from /etc/a\\n.toml",
        "waits         for a restart: host: 0.0.0.0 -> ::1; port: 1 -> 2",
    ]
    assert "  1 of at most 2,000; 1 connection in all\n" in out
    assert "  1 instance, 1.0 GiB\n" in out
    assert "  1 instance; unfinished 4\n" in out
    assert "  1 association\n" in out


def test_status_for_programs(
    answering: Callable[..., Answers], capsys: pytest.CaptureFixture[str]
) -> None:
    answering(STATUS)
    assert cli.main(["status", "--json"]) == 0
    assert msgspec.json.decode(capsys.readouterr().out, type=Status) == STATUS


@pytest.mark.parametrize(
    "state", ["starting", "draining", "disk full", "store lost", "no worker answers"]
)
def test_status_is_0_only_where_it_accepts(
    answering: Callable[..., Answers], capsys: pytest.CaptureFixture[str], state: Any
) -> None:
    answering(msgspec.structs.replace(STATUS, state=state))
    assert cli.main(["status", "-q"]) == 1
    assert capsys.readouterr() == ("", "")


def test_a_later_release_may_have_states_that_this_one_does_not_know(
    answering: Callable[..., Answers], capsys: pytest.CaptureFixture[str]
) -> None:
    """They are shown by their names; nothing else is lost for them."""
    replace = msgspec.structs.replace
    answering(
        replace(STATUS, state="on fire\x1b"),
        [replace(ONE, phase="haggling\x1b")],
        Aborted("run.1", "postponed\x1b"),
    )
    assert cli.main(["status"]) == 1
    out = capsys.readouterr().out
    assert out.startswith("state         on fire\\x1b\nversion       0.1.0, ")
    assert cli.main(["associations", "--once"]) == 0
    assert "  haggling\\x1b  " in capsys.readouterr().out
    assert cli.main(["abort", "run.1"]) == 1
    assert capsys.readouterr().err == "run.1: postponed\\x1b\n"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (NotRunningError("none"), 3), (SilentError("it hangs"), 1), (StoreBusyError("/s", 7), 2),
        # As another user, who cannot know whether associations are accepted.
        (ControlSocketError("only root may"), 2),
    ],
)  # fmt: skip
def test_status_of_what_does_not_answer(
    answering: Callable[..., Answers],
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    code: int,
) -> None:
    answering(error, error)
    assert cli.main(["status", "-q"]) == code
    assert capsys.readouterr() == ("", "")
    assert cli.main(["status", "--json"]) == code
    assert capsys.readouterr() == ("", f"fastscp: {error}\n")


def test_associations_for_people(
    answering: Callable[..., Answers], capsys: pytest.CaptureFixture[str]
) -> None:
    silent = msgspec.structs.replace(
        ONE, id="run.20", calling_ae="", called_ae="", rules="", phase="connected", host="10.0.0.1",
        user="",
    )  # fmt: skip
    later = msgspec.structs.replace(ONE, received_bytes=ONE.received_bytes + 1)
    # The second was not there at the first look.
    answering([ONE], [later, silent])
    assert cli.main(["associations"]) == 0
    head, first, second = capsys.readouterr().out.splitlines()
    assert head.split() == [
        "ID", "CALLING", ">", "CALLED", "ADDRESS", "RULES", "PHASE", "STORED", "REFUSED", "BYTES",
        "RATE", "AGE",
    ]  # fmt: skip
    assert first.startswith(
        r"run.1   CT%FF\\ > FASTSCP (Zoë\x1b)  [::1]:104     ae.A+from.B  storing    "
    )
    assert "  1,200        1  5.0 MiB  " in first
    assert first.endswith("/s  1 min 15 s")
    assert second.startswith(
        "run.20  -                            10.0.0.1:104  -            connected  "
    )
    assert second.split()[-5:] == ["-", "1", "min", "15", "s"]


def test_associations_for_programs(
    answering: Callable[..., Answers], capsys: pytest.CaptureFixture[str]
) -> None:
    made = answering([ONE])
    assert cli.main(["associations", "--once", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [msgspec.to_builtins(ONE) | {"rate": None}]
    assert len(made.asked) == 1


def test_abort_says_of_each_what_became_of_it(
    answering: Callable[..., Answers], capsys: pytest.CaptureFixture[str]
) -> None:
    made = answering(
        Aborted("run.1", "over"), Aborted("run.2", "going on"), Aborted("x\n", "unknown")
    )
    assert cli.main(["abort", "1", "2", "x\n"]) == 1
    out, err = capsys.readouterr()
    assert [one.id for one in made.asked] == ["1", "2", "x\n"]
    assert out == "run.1: over\n"
    assert [line[:30] for line in err.splitlines()] == [
        "run.2: told to end, and not ov", "x\\n: there is no such associat",
    ]  # fmt: skip
    answering(Aborted("run.1", "over"))
    assert cli.main(["abort", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [{"id": "run.1", "outcome": "over"}]


def test_pause_and_resume_for_programs(
    answering: Callable[..., Answers], capsys: pytest.CaptureFixture[str]
) -> None:
    made = answering(Paused(True, "why", 5.0), Paused(False))
    assert cli.main(["pause", "--reason", "why", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"changed": True, "why": "why", "since": 5.0}
    assert made.asked[0].why == "why"
    assert cli.main(["resume", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["changed"] is False


def test_a_reason_that_is_no_text(answering: Callable[..., Answers]) -> None:
    made = answering(Paused(True, "be\ufffdcause", 5.0))
    assert cli.main(["pause", "--reason", os.fsdecode(b"be\xffcause")]) == 0
    assert made.asked[0].why == "be\ufffdcause"


def test_reload_tells_what_was_taken_and_what_waits(
    answering: Callable[..., Answers], capsys: pytest.CaptureFixture[str]
) -> None:
    changed, waits = ("strict: off -> on",), ("port: 1 -> 2",)
    answering(Reloaded(changed=changed, waits=waits, generation=3, file="/etc/a.toml"))
    assert cli.main(["reload"]) == 0
    assert capsys.readouterr() == (
        "strict: off -> on\ntaken: 1 change; generation 3; read from /etc/a.toml\n",
        "waits for a restart: port: 1 -> 2\n",
    )
    answering(Reloaded(generation=3))
    assert cli.main(["reload"]) == 0
    said = "nothing has changed; generation 3; the service reads no file\n"
    assert capsys.readouterr() == (said, "")


def test_a_file_that_the_service_does_not_read(
    answering: Callable[..., Answers], capsys: pytest.CaptureFixture[str],
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Nobody is to take it for in force because a reload names it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "new.toml").touch()
    for read, why in (
        (str(tmp_path / "old.toml"), "it was started with another file"),
        ("", "it was started without a file"),
    ):
        answering(Reloaded(generation=3, file=read))
        assert cli.main(["reload", "--config", "new.toml"]) == 0
        assert capsys.readouterr().err == (
            "fastscp: --config here only finds the store, and the service did not read new.toml: "
            f"{why}; restart it with this one\n"
        )
    answering(Reloaded(generation=3, file=str(tmp_path / "new.toml")))
    assert cli.main(["reload", "--config", "new.toml"]) == 0
    assert capsys.readouterr().err == ""


def test_a_refused_reload_tells_all_mistakes(
    answering: Callable[..., Answers], capsys: pytest.CaptureFixture[str]
) -> None:
    refused = Reloaded(mistakes=("a.toml:1: x\ny", "a.toml:2: z"), generation=3)
    answering(refused, refused)
    assert cli.main(["reload"]) == 2
    out, err = capsys.readouterr()
    assert (out, err.splitlines()) == (
        "",
        [
            "fastscp: a.toml:1: x\\ny", "fastscp: a.toml:2: z",
            "fastscp: the reload is refused, and nothing was changed",
        ],
    )  # fmt: skip
    assert cli.main(["reload", "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["mistakes"] == ["a.toml:1: x\ny", "a.toml:2: z"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (59.9, "59.9 s"),
        (60.0, "1 min 0 s"),
        (3599, "59 min 59 s"),
        (3600, "1 h 0 min"),
        (86399, "23 h 59 min"),
        (86400, "1 d 0 h"),
        (400 * 86400 + 3601, "400 d 1 h"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_moments() -> None:
    assert moment(1_800_000_000.9) == "2027-01-15 08:00:00 UTC"


# Who holds a store that nobody answers for --------------------------------------------------------


def test_who_holds_the_lock_is_told_without_taking_it(path: Path) -> None:
    assert lock_holder(path) is None
    with opened(path):
        assert lock_holder(path) == os.getpid()
        with pytest.raises(Exception, match=f"is in use by process {os.getpid()}"), opened(path):
            pass
    assert lock_holder(path) is None
    (path / ".fastscp/lock").write_bytes(b"nonsense")
    assert lock_holder(path) is None


def test_who_took_the_lock_over_is_told(path: Path) -> None:
    """The system names whoever took it from nobody, or nobody where that process is gone."""
    with opened(path):
        pass
    file = path / ".fastscp/lock"
    with file.open("r+b") as lock:
        take = f"import fcntl; fcntl.flock({lock.fileno()}, fcntl.LOCK_EX)"
        subprocess.run([sys.executable, "-c", take], pass_fds=[lock.fileno()], check=True)
        with pytest.raises(StoreBusyError), opened(path):
            pass
        file.write_text("1\n")
        assert lock_holder(path) is None
        file.write_text(f"{os.getpid()}\n")
        assert lock_holder(path) == os.getpid()
    assert lock_holder(path) is None


def test_a_command_that_holds_the_store_is_named(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with opened(path):
        assert cli.main(["status", "--store", str(path)]) == 2
    said = f"fastscp: process {os.getpid()} uses the store {path}, and has no control socket: it is"
    assert capsys.readouterr().err.startswith(said)
    assert cli.main(["status", "--store", str(path)]) == 3
