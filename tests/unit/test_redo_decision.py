"""Whether there is a redo log: what decides it, and what the start says of that."""

from __future__ import annotations

import logging
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from fastscp.config.settings import ServeConfig
from fastscp.main import redo
from fastscp.main.redo import NO_REDO, Redo, decide, say
from fastscp.messages.handover import Handover
from fastscp.store.mounts import Mounted

if TYPE_CHECKING:
    from collections.abc import Mapping

NOW = Mounted("boot", "unique 1", "77")
AUTO = ServeConfig(redo="auto")


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redo, "mounted", lambda _fd: NOW)


def decided(
    config: ServeConfig = AUTO,
    file_system: str = "ext4",
    durabilities: tuple[str, ...] = ("stable", "buffered"),
    *,
    files: int = 4096,
    noreplace: bool = True,
    beside_older: bool = False,
) -> Redo:
    prepared: Any = SimpleNamespace(config=config, durabilities=frozenset(durabilities))
    facts = SimpleNamespace(file_system=file_system, noreplace=noreplace)
    store: Any = SimpleNamespace(dir_fd=-1, facts=facts)
    return decide(prepared, store, files, 4096, beside_older=beside_older)


@pytest.mark.parametrize("file_system", ["ext4", "xfs", "btrfs"])
def test_auto_is_on_where_it_is_known_to_hold(file_system: str) -> None:
    found = decided(file_system=file_system)
    why = "on, for stable instances whose file has at most 64 KiB"
    assert found == Redo(64 << 10, 4096, why, NOW)
    few = decided(file_system=file_system, files=4095).why
    assert few.startswith(f"{why}; a worker may keep 4,095 of 4,096 files open for it")


@pytest.mark.parametrize(
    ("change", "given", "why"),
    [
        ({"redo": "off"}, {}, "--redo off"),
        ({"log_instance_size": 0}, {}, "--log-instance-size is 0"),
        ({"redo": "on", "discard": True}, {}, "nothing is stored with --discard"),
        ({}, {"durabilities": ("buffered",)}, "nothing is stored with --durability stable"),
        ({}, {"file_system": "nfs4"}, "the store is on nfs4, not on ext4, xfs or btrfs"),
        ({"redo": "on"}, {"files": 0}, "too few open files are left for it: raise the limit"),
        ({"redo": "on"}, {"noreplace": False}, "no rename that never replaces"),
        ({"redo": "on"}, {"beside_older": True}, "workers of an older version"),
    ],
)
def test_what_it_is_off_for(change: Mapping[str, Any], given: Mapping[str, Any], why: str) -> None:
    found = decided(replace(AUTO, **change), **given)
    assert (found.bytes, found.files) == (0, 0)
    assert found.why.startswith("off: ")
    assert why in found.why


def test_on_is_on_wherever_it_can_be() -> None:
    config = replace(AUTO, redo="on", log_instance_size=4096)
    assert decided(config, "nfs4").bytes == 4096


def test_a_system_that_does_not_tell_its_boot(monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(_fd: int) -> Mounted:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(redo, "mounted", denied)
    found = decided()
    assert found.bytes == 0
    assert "does not tell which boot and mount this is (Permission denied)" in found.why


def test_an_older_version_says_nothing_of_claims() -> None:
    assert not Handover(version=1, pid=1, run="r", passed=0).claims


@pytest.mark.parametrize(
    ("asked", "found", "level"),
    [
        ("auto", NO_REDO, logging.INFO),
        ("on", NO_REDO, logging.WARNING),
        ("on", Redo(1, 64, "on", NOW), logging.INFO),
    ],
)
def test_what_the_log_says(
    caplog: pytest.LogCaptureFixture, asked: str, found: Redo, level: int
) -> None:
    with caplog.at_level(logging.INFO):
        say(found, asked)
    (line,) = caplog.records
    assert (line.levelno, line.getMessage()) == (level, f"redo log: {found.why}")
