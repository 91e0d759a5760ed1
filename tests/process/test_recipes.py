"""The recipes of the README, run as they stand there, on a real store."""

from __future__ import annotations

import ctypes
import json
import os
import re
import struct
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fastscp.store.journal import append_fact
from fastscp.store.verify import verify
from tests.disks import mounted
from tests.kit import CT, DEADLINE_S, ELE, Service, data_set, path_of, store, wait_for
from tests.stores import opened
from tests.unit.test_duplicates import instance

if TYPE_CHECKING:
    from collections.abc import Iterator

README = (Path(__file__).resolve().parents[2] / "README.md").read_text("utf-8")


def section(title: str) -> str:
    found = re.search(rf"^#+ {re.escape(title)}$(.*?)(?=^#+ |\Z)", README, re.MULTILINE | re.DOTALL)
    assert found is not None, title
    return found[1]


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def program(name: str, folder: Path) -> Path:
    """A program that the README shows, written to a file of the name in its first line."""
    found = [one for one in blocks(README, "python") if one.startswith(f"# {name} ")]
    assert len(found) == 1, name
    path = folder / name
    path.write_text(found[0])
    return path


def shell(command: str, folder: Path, **variables: Path) -> None:
    """Run a block, with `fastscp` in the path."""
    there = folder / "bin"
    there.mkdir(exist_ok=True)
    (there / "fastscp").write_text(f'#!/bin/sh\nexec {" ".join(Service.program())} "$@"\n')
    (there / "fastscp").chmod(0o755)
    given = {name: str(path) for name, path in variables.items()}
    done = subprocess.run(
        ["sh", "-euc", command],
        env=Service.environment({"PATH": f"{there}:{os.environ['PATH']}"} | given),
        capture_output=True, text=True, timeout=DEADLINE_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


@contextmanager
def running(*command: object) -> Iterator[None]:
    """A program that runs until the end of the block."""
    process = subprocess.Popen([sys.executable, *map(str, command)], env=Service.environment())
    try:
        yield
        assert process.poll() is None, "it ended"
    finally:
        process.kill()
        process.wait(DEADLINE_S)


def sent(service: Service, sops: list[str]) -> None:
    with service.peer((1, CT, ELE)) as peer:
        for number, sop in enumerate(sops, 1):
            peer.send(store(number, sop=sop))
        assert {status for _, status in peer.read_statuses(len(sops))} == {0}
        peer.release()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with Service(tmp_path_factory.mktemp("recipes"), workers=1) as running:
        yield running


def test_a_consumer_takes_each_instance_once(service: Service, tmp_path: Path) -> None:
    consumer, target = program("consumer.py", tmp_path), tmp_path / "taken"
    target.mkdir()
    service.empty()

    def taken() -> list[str]:
        return sorted(path.name.partition("-")[2] for path in target.glob("*-*"))

    sent(service, ["1.2.11", "1.2.12"])
    with running(consumer, service.store, target):
        wait_for(lambda: len(taken()) == 2, "what was there")
        # It has noted that: else it would look at these lines again when it begins anew.
        wait_for((target / "cursor.json").exists, "its note")
        sent(service, ["1.2.13"])
        wait_for(lambda: len(taken()) == 3, "what came")
    assert service.instances() == []
    # What is sent again after that is new; what was taken is not taken again.
    sent(service, ["1.2.11"])
    assert service.instances() == [path_of("1.2.11")]
    with running(consumer, service.store, target):
        wait_for(lambda: len(taken()) == 4, "what came again")
    assert taken() == ["1.2.11.dcm", "1.2.11.dcm", "1.2.12.dcm", "1.2.13.dcm"]
    assert all("duplicate" not in fact for fact in service.journal()[-4:])
    assert service.instances() == []


def test_what_inotify_tells_of_an_instance(tmp_path: Path) -> None:
    """An event that says that it is whole, and no other: a link of a small one, a rename."""
    libc = ctypes.CDLL(None, use_errno=True)
    created, moved, anything = 0x100, 0x80, 0xFFF & ~0x31
    event = struct.Struct("iIII")
    with (
        mounted("ext4", tmp_path) as point,
        Service(tmp_path / "run", "--min-free-space", "0", store=point / "store") as service,
    ):
        sent(service, ["1.2.1"])
        folder = (service.store / path_of("1.2.1")).parent
        watching = libc.inotify_init1(os.O_CLOEXEC)
        try:
            assert libc.inotify_add_watch(watching, os.fsencode(folder), anything) > 0
            sent(service, ["1.2.2"])
            with service.peer((1, CT, ELE)) as peer:
                data = data_set(sop="1.2.3", pixels=3 << 20)
                peer.send(store(1, data, sop="1.2.3"))
                assert peer.read_response().status == 0
                peer.release()
            raw = os.read(watching, 1 << 16)
        finally:
            os.close(watching)
    told = []
    while raw:
        _number, mask, _cookie, size = event.unpack_from(raw)
        told.append((mask, os.fsdecode(raw[event.size : event.size + size].rstrip(b"\0"))))
        raw = raw[event.size + size :]
    assert told == [(created, "1.2.2.dcm"), (moved, "1.2.3.dcm")]


def test_a_backup_of_a_store_in_use_is_restored(service: Service, tmp_path: Path) -> None:
    copy, back = blocks(section("Backup and restore"), "sh")
    backup, restored = tmp_path / "backup", tmp_path / "store"
    first, second = copy.split('tar -C "$STORE" --exclude', 1)
    second = f'tar -C "$STORE" --exclude{second}'
    service.empty()
    before = len(service.journal())
    sent(service, ["1.2.21", "1.2.22"])
    shell(first, tmp_path, STORE=service.store, BACKUP=backup)
    # It comes between the journal and the files.
    sent(service, ["1.2.23"])
    shell(second, tmp_path, STORE=service.store, BACKUP=backup)
    # What earlier tests took is missing; nothing else is.
    assert "verify" in back
    back = f"{back.rstrip()} || test $? = 1\n"
    shell(back, tmp_path, STORE=restored, BACKUP=backup)
    with Service(tmp_path, workers=1) as again:
        assert again.store == restored
        assert again.instances() == [path_of(f"1.2.2{n}") for n in (1, 2, 3)]
        events = [fact["event"] for fact in again.journal()[before:]]
        assert events == ["stored", "stored", "adopted"]
        assert again.data_of(path_of("1.2.23")) == data_set(sop="1.2.23")
        sent(again, [f"1.2.2{n}" for n in (1, 2, 3, 4)])
        assert again.instances() == [path_of(f"1.2.2{n}") for n in (1, 2, 3, 4)]
        told = {one["sop_instance_uid"]: one.get("duplicate") for one in again.journal()[-4:]}
        assert told == dict.fromkeys(("1.2.21", "1.2.22", "1.2.23"), "identical") | {"1.2.24": None}


def test_what_is_changed_or_missing_is_put_right(service: Service, tmp_path: Path) -> None:
    """As the table of `verify` says; and the line of an instance is found."""
    names = ["1.2.51", "1.2.52"]
    service.empty()
    sent(service, names)

    def found() -> list[tuple[str, str]]:
        findings = verify(service.store, patience_s=0).findings
        return [(one.kind, one.path) for one in findings if one.path[-10:-4] in names]

    changed, missing = (service.store / path_of(name) for name in names)
    content = changed.read_bytes()
    changed.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    missing.unlink()
    bad = [("changed", path_of("1.2.51")), ("missing", path_of("1.2.52"))]
    assert found() == bad
    # It keeps its path.
    sent(service, ["1.2.51"])
    assert found() == bad
    assert service.instances() == [path_of("1.2.51"), path_of("1.2.51") + "~2"]
    changed.rename(tmp_path / "changed.dcm")
    sent(service, names)
    assert found() == []
    assert data_set(sop="1.2.51") == service.data_of(path_of("1.2.51"))
    (command,) = blocks(section("Checking a store"), "sh")
    done = subprocess.run(
        ["sh", "-euc", command.replace("1.2.3.4", "1.2.52")], env={"STORE": str(service.store)},
        capture_output=True, text=True, timeout=DEADLINE_S, check=True,
    )  # fmt: skip
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["path"] for line in lines] == [path_of("1.2.52")] * 2


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can keep the owners")
def test_a_backup_keeps_owners_and_modes(tmp_path: Path) -> None:
    """Of the service's own folder, too: else the service cannot start with what is restored."""
    copy, back = blocks(section("Backup and restore"), "sh")
    original, backup, restored = (tmp_path / name for name in ("store", "backup", "restored"))
    with opened(original):
        file = original / "1.2.3.1/1.2.3.1.1/1.2.3.dcm"
        file.parent.mkdir(parents=True)
        file.write_bytes(instance())
    for path in (original, *original.rglob("*")):
        os.chown(path, 20001, 20002)
    (original / ".fastscp").chmod(0o2710)
    shell(copy, tmp_path, STORE=original, BACKUP=backup)
    shell(back, tmp_path, STORE=restored, BACKUP=backup)
    assert list((restored / ".fastscp/journal").iterdir())
    for path in (restored, *restored.rglob("*")):
        about, like = path.stat(), original / path.relative_to(restored)
        assert (about.st_uid, about.st_gid) == (20001, 20002), path
        if like.exists():
            assert about.st_mode == like.stat().st_mode, path


def test_files_of_the_journal_go_when_their_instances_have(tmp_path: Path) -> None:
    root, archive = tmp_path / "store", tmp_path / "archive"
    journal = root / ".fastscp/journal"
    journal.mkdir(parents=True)
    archive.mkdir()
    (root / "left.dcm").touch()
    (root / ".fastscp/lock").touch()
    for name, facts in {
        "1-w0-1": [(1, "gone.dcm"), (2, "gone too.dcm")],
        "1-w0-2": [(3, "gone.dcm"), (5, "left.dcm")],
        "1-w1-1": [(4, "gone.dcm"), (7, "gone too.dcm")],
        "1-w1b-1": [(6, "gone.dcm")],
        "2-w0-1": [],
        "2-w1-1": [(2, "gone.dcm")],
    }.items():
        with (journal / f"{name}.jsonl").open("wb") as file:
            for number, path in facts:
                fact = {"v": 1, "event": "stored", "seq": number, "path": path}
                append_fact(file.fileno(), fact)
    # As a crash leaves it.
    with (journal / "2-w1-1.jsonl").open("ab") as file:
        file.write(b'{"v":1,"event":"stored","seq":90,"time":"2026-')
    command = [sys.executable, str(program("prune.py", tmp_path)), str(root), str(archive)]

    def pruned() -> list[str]:
        subprocess.run(command, env=Service.environment(), timeout=DEADLINE_S, check=True)
        return sorted(path.stem for path in journal.iterdir())

    assert pruned() == ["1-w0-2", "1-w1-1"]
    assert len(list(archive.iterdir())) == 4
    # An instance that goes takes its file of the journal along, but not the highest number.
    (root / "left.dcm").unlink()
    assert pruned() == ["1-w1-1"]
    assert pruned() == ["1-w1-1"]
    # A damaged line may have told of an instance that is there.
    damaged = journal / "1-w0-3.jsonl"
    for content in (b'{"v":1,"event":"stored","se\n', bytes(100)):
        damaged.write_bytes(content)
        done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
        assert (done.returncode, done.stderr) == (
            1, f"{damaged}: damaged; run `fastscp verify --repair-journal`\n",
        )  # fmt: skip
        assert damaged.exists()


def test_the_journal_of_a_running_service_stays(service: Service, tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    archive.mkdir()
    sent(service, ["1.2.31"])
    service.empty()
    before = sorted((service.store / ".fastscp/journal").iterdir())
    done = subprocess.run(
        [sys.executable, program("prune.py", tmp_path), service.store, archive],
        stderr=subprocess.PIPE, text=True, timeout=DEADLINE_S, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (1, f"a service is using {service.store}\n")
    assert sorted((service.store / ".fastscp/journal").iterdir()) == before


def test_folders_go_that_are_empty_and_old(tmp_path: Path) -> None:
    (command,) = [one for one in blocks(README, "sh") if one.startswith("find ")]
    folders = ["old/old", "new", ".fastscp/replaced", "full"]
    for name in folders:
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "full/1.dcm").touch()
    for name in ("old/old", "old", ".fastscp/replaced", ".fastscp", "full"):
        os.utime(tmp_path / name, (0, 0))
    environment = Service.environment({"STORE": str(tmp_path)})
    subprocess.run(["sh", "-euc", command], env=environment, timeout=DEADLINE_S, check=True)
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))
    assert left == [".fastscp", ".fastscp/replaced", "full", "full/1.dcm", "new"]
