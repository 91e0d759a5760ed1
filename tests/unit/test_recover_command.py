"""`fastscp recover`, and what `fastscp verify` does with a log that was not recovered."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from fastscp.cli.app import main
from fastscp.config.settings import ServeConfig
from fastscp.errors import StartError, StoreBusyError
from fastscp.main import serve
from fastscp.main.prepared import prepare
from fastscp.store.access import held
from fastscp.store.names import holder
from fastscp.store.redo import files
from fastscp.store.redo.logs import leave_distrust
from fastscp.store.redo.records import read_log
from fastscp.store.unflushed import Marks
from tests.redo_files import BLOCK, FOLDER, Put, batch, flip, line_of, write_log
from tests.stores import living, opened

if TYPE_CHECKING:
    from pathlib import Path

LIFE = "6a-w0-1"
P = "st/se/p.dcm"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store whose service was killed, with a log."""
    found = tmp_path / "store"
    with opened(found) as store:
        store.begin_log()
        store_id = store.id
    write_log(found, LIFE, [batch(1, [Put(5, P, b"x")])], store_id=store_id)
    return found


def test_recover(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recover", "--store", str(path)]) == 0
    assert capsys.readouterr().out.startswith("recovered 1 instance from the redo log")
    assert (path / P).read_bytes() == b"x"
    assert "format = 1" in (path / ".fastscp/store.toml").read_text()
    assert list((path / FOLDER).iterdir()) == []
    assert main(["recover", "--store", str(path)]) == 0
    assert capsys.readouterr().out == "nothing to recover\n"


@pytest.mark.parametrize("command", ["recover", "verify"])
def test_a_folder_whose_flush_failed_is_made_anew_first(
    path: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Else the log could not go before the machine is restarted."""
    put = path / P
    put.parent.mkdir(parents=True)
    other = "st/se/other.dcm"
    (path / other).write_bytes(b"y")
    segment = path / f".fastscp/journal/{LIFE}r-1.jsonl"
    segment.write_bytes(line_of(4, other, b"y") + line_of(5, P, b"x"))
    fd = os.open(path, os.O_DIRECTORY)
    try:
        Marks(fd).leave("folder", "st", errno.EIO)
        leave_distrust_of(path)
        inode = (path / "st").stat().st_ino
        with pytest.raises(StartError, match="a flush of the folder failed before"), opened(path):
            pass
        words = ["verify", "--adopt"] if command == "verify" else ["recover"]
        code = main([*words, "--store", str(path)])
        said = capsys.readouterr().out
        assert (code, "made anew" in said) == (1 if command == "verify" else 0, True)
        assert Marks(fd).left() == ()
    finally:
        os.close(fd)
    assert (path / "st").stat().st_ino != inode
    assert (put.read_bytes(), (path / other).read_bytes()) == (b"x", b"y")
    assert list((path / FOLDER).iterdir()) == []


@pytest.mark.parametrize("command", [["recover"], ["verify", "--adopt"]])
def test_what_is_refused_for_its_damage_leaves_the_folders_alone(
    path: Path, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (path / P).parent.mkdir(parents=True)
    fd = os.open(path, os.O_DIRECTORY)
    try:
        Marks(fd).leave("folder", "st", errno.EIO)
        inode = (path / "st").stat().st_ino
        log = path / FOLDER / f"{LIFE}-1.log"
        whole = log.read_bytes()
        with log.open("r+b") as file:
            file.truncate(BLOCK)
        assert main([*command, "--store", str(path)]) == 3
        said = capsys.readouterr()
        assert "run `fastscp recover --accept-damage`" in said.err
        assert "made anew" not in said.out
        assert ((path / "st").stat().st_ino, len(Marks(fd).left())) == (inode, 1)
        log.write_bytes(whole)
        main([*command, "--store", str(path)])
        assert "made anew" in capsys.readouterr().out
        assert ((path / "st").stat().st_ino != inode, Marks(fd).left()) == (True, ())
    finally:
        os.close(fd)


def test_what_stands_is_told_once_beside_a_log(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (path / "st/se").mkdir(parents=True)
    (path / "st/se/other.dcm").write_bytes(b"y")
    fd = os.open(path, os.O_DIRECTORY)
    try:
        Marks(fd).leave("file", "st/se/other.dcm", errno.EIO)
        Marks(fd).leave("folder", "st", errno.EIO)
    finally:
        os.close(fd)
    assert main(["verify", "--adopt", "--store", str(path), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)["findings"]
    told = [(one["path"], one["settled"]) for one in found if one.get("kind") == "unflushed"]
    assert told == [("st", "made anew"), ("st/se/other.dcm", "")]


def test_what_stands_is_told_where_the_log_cannot_be_recovered(
    path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (path / "st/se").mkdir(parents=True)
    (path / "st/se/other.dcm").write_bytes(b"y")
    fd = os.open(path, os.O_DIRECTORY)
    try:
        Marks(fd).leave("file", "st/se/other.dcm", errno.EIO)
    finally:
        os.close(fd)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), P)

    monkeypatch.setattr("fastscp.store.verify.recover", refuse)
    assert main(["verify", "--adopt", "--store", str(path)]) == 1
    said = capsys.readouterr()
    assert f"{P}: Input/output error" in said.err
    assert ": 1 unflushed\n" in said.out


def leave_distrust_of(path: Path) -> None:
    fd = os.open(path / FOLDER, os.O_DIRECTORY)
    try:
        leave_distrust(fd, LIFE)
    finally:
        os.close(fd)


def test_a_log_is_read_once_where_nothing_else_is_left(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    real = read_log

    def watched(name: str, data: bytes, store_id: str) -> Any:
        read.append(name)
        return real(name, data, store_id)

    monkeypatch.setattr("fastscp.store.redo.logs.read_log", watched)
    assert main(["recover", "--store", str(path)]) == 0
    assert read == [f"{LIFE}-1.log"]


@pytest.mark.parametrize("by", ["option", "file", "environment"])
def test_what_is_recovered_has_the_modes_that_the_service_gives(
    path: Path, by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = path.parent / "fastscp.toml"
    settings.write_text(f'store = "{path}"\numask = "0077"\n' if by == "file" else "")
    words = ["--umask", "0077"] if by == "option" else []
    if by == "environment":
        monkeypatch.setenv("FASTSCP_UMASK", "0077")
    before = os.umask(0)
    try:
        assert main(["recover", "--store", str(path), "--config", str(settings), *words]) == 0
        assert os.umask(0) == 0o077
    finally:
        os.umask(before)
    assert (path / P).stat().st_mode & 0o777 == 0o600
    assert (path / "st").stat().st_mode & 0o777 == 0o700
    (segment,) = (path / ".fastscp/journal").glob("*.jsonl")
    assert segment.stat().st_mode & 0o777 == 0o600


def test_verify_that_recovers_gives_them_too(path: Path) -> None:
    settings = path.parent / "fastscp.toml"
    settings.write_text(f'store = "{path}"\numask = "0077"\n')
    before = os.umask(0)
    try:
        main(["verify", "--config", str(settings), "--adopt"])
    finally:
        os.umask(before)
    assert (path / P).stat().st_mode & 0o777 == 0o600


def test_what_the_disk_refuses_is_named_where_it_is(
    path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = holder

    def fail(name: str, fd: int) -> Any:
        if name == P:
            raise OSError(errno.EIO, os.strerror(errno.EIO), name)
        return real(name, fd)

    monkeypatch.setattr(files, "holder", fail)
    assert main(["recover", "--store", str(path)]) == 3
    said = capsys.readouterr().err
    assert f"cannot use {path} as a store: {path / P}: Input/output error; check the disk" in said


def test_recover_in_json(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recover", "--store", str(path), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said == {
        "logs": 1, "records": 1, "flushed": 0, "restored": 1, "lines": 1, "passed": 0, "aside": 0,
        "unreachable": [], "renewed": [], "unread": [], "damage": [], "lost": [], "sequence": 5,
    }  # fmt: skip


def test_recover_beside_a_service_that_does_not(
    path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastscp.cli.recover._WAIT_S", 0.15)
    with opened(path) as store:
        write_log(path, LIFE, [batch(1, [Put(5, P, b"x")])], store_id=store.id)
        assert main(["recover", "--store", str(path)]) == 3
    said = capsys.readouterr().err
    assert f"is in use by process {os.getpid()}, which has not recovered it for 0.15 s" in said
    assert len(list((path / FOLDER).iterdir())) == 1


def test_recover_beside_a_service_that_has(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with opened(path) as store, living(store.dir_fd, "6a-w9-1"):
        write_log(path, "6a-w9-1", [], store_id=store.id)
        assert main(["recover", "--store", str(path)]) == 0
    said = capsys.readouterr().out
    assert said == (
        f"nothing to recover: process {os.getpid()} has the store, and no log is left\n"
    )


def test_recover_waits_for_who_is_at_it(
    path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service that starts, or another recovery."""
    log = path / FOLDER / f"{LIFE}-1.log"
    dir_fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    looks = []

    def look(_s: float) -> None:
        looks.append(log.exists())
        log.unlink()

    monkeypatch.setattr("fastscp.cli.recover.time.sleep", look)
    try:
        with held(path, dir_fd):
            assert main(["recover", "--store", str(path)]) == 0
    finally:
        os.close(dir_fd)
    assert looks == [True]


def test_a_start_waits_for_a_command(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    prepared = prepare(ServeConfig(store=path), 1)
    dir_fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)

    async def start(most: float) -> None:
        monkeypatch.setattr(serve, "_COMMAND_S", most)
        (await serve._open_store(prepared)).close()

    try:
        with contextlib.ExitStack() as until:
            until.enter_context(held(path, dir_fd))
            with pytest.raises(StoreBusyError, match="wait until that has ended"):
                asyncio.run(start(0.05))
            sleep = asyncio.sleep

            async def over(seconds: float) -> None:
                until.close()
                await sleep(seconds)

            monkeypatch.setattr("fastscp.main.serve.asyncio.sleep", over)
            with caplog.at_level("INFO"):
                asyncio.run(start(60.0))
    finally:
        os.close(dir_fd)
    assert "waits for it, at most 60 s" in caplog.text
    assert (path / P).read_bytes() == b"x"


def test_recover_where_no_store_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recover", "--store", str(tmp_path)]) == 3
    assert "is not a store" in capsys.readouterr().err
    with opened(tmp_path / "store"):
        pass
    (tmp_path / "store/.fastscp/store.toml").unlink()
    assert main(["recover", "--store", str(tmp_path / "store")]) == 3
    assert "has lost its .fastscp/store.toml" in capsys.readouterr().err


def test_damage_has_to_be_accepted(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (path / ".fastscp/store.toml").open("rb") as file:
        store_id = file.readline().split(b'"')[1].decode()
    log = write_log(
        path, LIFE, [batch(1, [Put(5, P, b"x")]), batch(2, [Put(6, f"{P}2", b"y")])],
        store_id=store_id,
    )  # fmt: skip
    flip(log, BLOCK + 80)
    assert main(["recover", "--store", str(path)]) == 3
    assert "run `fastscp recover --accept-damage`" in capsys.readouterr().err
    assert "format = 2" in (path / ".fastscp/store.toml").read_text()
    assert main(["recover", "--store", str(path), "--accept-damage"]) == 1
    said = capsys.readouterr().out
    assert "1 instance of it may have been acknowledged and is lost, with a `seq` below 6" in said
    assert f"{FOLDER}/{log.name} has a whole batch at byte 8192, behind what is none" in said
    assert (path / f"{P}2").read_bytes() == b"y"
    assert (path / ".fastscp/aside" / log.name).exists()


def test_a_store_that_lost_its_id_has_it_from_the_log(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    toml = path / ".fastscp/store.toml"
    lost = toml.read_bytes()
    toml.unlink()
    (path / "an.dcm").write_bytes(bytes(128) + b"DICM")
    assert main(["recover", "--store", str(path)]) == 3
    assert "start the service once with --store-new-life" in capsys.readouterr().err
    with opened(path, new_life=True) as store:
        assert store.id.encode() in lost
    assert (path / P).read_bytes() == b"x"
    assert list((path / FOLDER).iterdir()) == []
    assert "format = 1" in toml.read_text()


def test_logs_that_do_not_agree_give_no_id(path: Path) -> None:
    write_log(path, "6a-w1-1", [batch(1, [Put(6, f"{P}2", b"y")])], store_id="other")
    (path / ".fastscp/store.toml").unlink()
    with pytest.raises(StartError, match="is of the store with the id"), opened(path):
        pass
    assert len(list((path / FOLDER).iterdir())) == 2


def test_verify_refuses_what_was_not_recovered(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", "--store", str(path)]) == 3
    said = capsys.readouterr()
    assert "a redo log in .fastscp/redo that was not recovered" in said.err
    assert "run `fastscp recover`" in said.err
    assert (said.out, (path / P).exists()) == ("", False)


@pytest.mark.parametrize(("is_there", "use"), [(True, "reading them"), (False, "looking for one")])
def test_cat_refuses_what_was_not_recovered(
    path: Path, capsys: pytest.CaptureFixture[str], is_there: bool, use: str
) -> None:
    if is_there:
        (path / P).parent.mkdir(parents=True)
        (path / P).touch()
    assert main(["cat", P, "--store", str(path)]) == 3
    said = capsys.readouterr()
    assert f"so there is no use in {use}; run `fastscp recover`" in said.err
    assert said.out == ""


def test_cat_of_what_is_nowhere_says_so(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recover", "--store", str(path)]) == 0
    for store in (path, path / P, path / "none"):
        assert main(["cat", "st/none.dcm", "--store", str(store)]) == 1
        assert "No such file or directory, neither below the store" in capsys.readouterr().err


def test_verify_beside_a_service_leaves_it_to_that(path: Path) -> None:
    (path / FOLDER / f"{LIFE}-1.log").rename(path / "log")
    with opened(path):
        (path / "log").rename(path / FOLDER / f"{LIFE}-1.log")
        assert main(["verify", "--store", str(path)]) == 0
        assert not (path / P).exists()


def test_verify_leaves_the_log_of_a_life_alone(path: Path) -> None:
    (path / FOLDER / f"{LIFE}-1.log").unlink()
    with opened(path) as store, living(store.dir_fd, "6a-w9-1"):
        write_log(path, "6a-w9-1", [], store_id=store.id)
        assert main(["verify", "--store", str(path)]) == 0


@pytest.mark.parametrize("option", ["--adopt", "--repair-journal"])
def test_verify_that_changes_the_store_recovers_first(
    path: Path, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    # It is no instance, so it is named as unreadable once it is there.
    assert main(["verify", "--store", str(path), option, "--json"]) == 1
    found = json.loads(capsys.readouterr().out)["findings"]
    assert (path / P).read_bytes() == b"x"
    assert list((path / FOLDER).iterdir()) == []
    logged = [one for one in found if one.get("kind") == "logged"]
    assert len(logged) == 1
    assert "recovered 1 instance" in logged[0]["settled"]


def test_verify_of_a_store_that_does_not_know_whose_log_it_is(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (path / ".fastscp/store.toml").unlink()
    assert main(["verify", "--store", str(path), "--adopt"]) == 3
    assert "whether that log is its own is not known" in capsys.readouterr().err
