"""Whether parts may go without a name: what the file system says of itself, made up here."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

import pytest

from fastscp.store import nameless as module
from fastscp.store.nameless import Found, find_way
from fastscp.store.names import FILE_MODE

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("no_descriptor_left")

ORDERED: Final = "rw\nbsddf\njournal_checksum\ndata=ordered\n"
NO_JOURNAL: Final = "rw\nbsddf\nnojournal_checksum\ninit_itable=10\n"
COUNTS: Final = "fc stats:\n{} commits\n{} ineligible\n0 numblks\n0us avg_commit_time\n"


class Told:
    """What the system says of the ext4 that a folder is on, and how often that was flushed."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.about = folder / "proc" / "sdx1"
        self.about.mkdir(parents=True)
        self.tried = folder / "tried"
        self.tried.mkdir()
        self.flushes = 0
        # After so many flushes the first fast commit was made.
        self.counts_after = 0
        monkeypatch.setattr(module, "_EXT4", folder / "proc")
        monkeypatch.setattr(module, "device_of", lambda _fd: "sdx1")
        self.mode = FILE_MODE
        monkeypatch.setattr(module, "nameless_way", self._link)
        monkeypatch.setattr(os, "fsync", self._flush)

    def _link(self, folder_fd: int) -> int:
        fd = os.open("f", os.O_WRONLY | os.O_CREAT, self.mode, dir_fd=folder_fd)
        os.close(fd)
        return 1

    def _flush(self, _fd: int) -> None:
        self.flushes += 1
        if self.flushes == self.counts_after:
            self.say(fast=COUNTS.format(1, 0))

    def say(self, options: str = ORDERED, fast: str = "") -> None:
        (self.about / "options").write_text(options)
        if fast:
            (self.about / "fc_info").write_text(fast)

    def found(self, kind: str = "ext4") -> Found:
        folder = os.open(self.tried, os.O_RDONLY)
        try:
            return find_way(folder, kind)
        finally:
            os.close(folder)

    def way(self, kind: str = "ext4") -> int:
        return self.found(kind).way


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Told:
    return Told(tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("kind", "found"), [("xfs", 1), ("tmpfs", 1), ("btrfs", 0), ("nfs4", 0), ("unknown", 0)]
)
def test_by_its_kind(told: Told, kind: str, found: int) -> None:
    assert told.way(kind) == found
    assert told.flushes == 0


def test_a_way_that_does_not_work(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "nameless_way", lambda _fd: 0)
    told.say()
    assert told.way("xfs") == told.way() == 0


@pytest.mark.parametrize(
    ("options", "fast", "kind"),
    [
        (ORDERED, COUNTS.format(0, 0), "ext4"),
        ("rw\ndata=writeback\n", COUNTS.format(0, 0), "ext4"),
        ("rw\ndata=journal\n", COUNTS.format(0, 0), "ext4"),
        # Of a kernel that makes no fast commits.
        (ORDERED, "", "ext4"),
        # The name that is made would lead to a deleted file.
        (NO_JOURNAL, COUNTS.format(0, 0), module.NO_JOURNAL),
        (NO_JOURNAL, "", module.NO_JOURNAL),
        # Nobody could mount it after a power cut.
        (ORDERED, COUNTS.format(1, 0), module.FAST_COMMITS),
        (ORDERED, COUNTS.format(20, 3), module.FAST_COMMITS),
        (ORDERED, COUNTS.format(0, 1), module.FAST_COMMITS),
    ],
)
def test_of_an_ext4(told: Told, options: str, fast: str, kind: str) -> None:
    told.say(options, fast)
    assert told.found() == (kind == "ext4", kind)


def test_a_file_with_other_rights_than_usual(told: Told) -> None:
    """Whoever asks for a umask has it for each instance."""
    told.mode = FILE_MODE | 0o004
    before = os.umask(0o022)
    try:
        assert told.way("tmpfs") == 0
        os.unlink(told.tried / "f")
        told.mode = FILE_MODE
        assert told.way("tmpfs") == 1
    finally:
        os.umask(before)


def test_rights_that_nobody_can_compare(told: Told) -> None:
    """Parts have names then, and the service starts."""
    (told.tried / "named").mkdir()
    assert told.found("tmpfs") == (0, "tmpfs")


@pytest.mark.parametrize("flushes", [1, 3])
def test_fast_commits_are_there_once_something_was_flushed(told: Told, flushes: int) -> None:
    """Also where the first were not needed, because others flushed as well."""
    told.say(fast=COUNTS.format(0, 0))
    told.counts_after = flushes
    assert told.way() == 0


def test_what_cannot_be_found_out_counts_against_it(
    told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert told.way() == 0
    told.say()
    assert told.way() == 1

    def no_device(_fd: int) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(module, "device_of", no_device)
    assert told.way() == 0
