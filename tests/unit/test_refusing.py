"""Whether every instance is refused for a reason that lies here, as a balancer has to know."""

from __future__ import annotations

import pytest

from fastscp.main.refusing import OF_ONE, Refusing
from fastscp_ext import Counts, Shared
from fastscp_ext import status as codes

STORED = (codes.SUCCESS, "stored")
FILES = (codes.OUT_OF_RESOURCES, "too many open files")
# What an A700 says that says something of the next instance as well.
OF_ALL = {
    "store is not there", "disk full", "quota exceeded", "I/O error",
    "read-only file system", "too many open files", "too many open files in the system",
    "out of memory", "folder or journal not there", "timed out", "cannot store now", None,
}  # fmt: skip


class Seen:
    """What the rows have counted, a second after the other."""

    def __init__(self) -> None:
        self.doubts = Shared().doubts
        self.refusing = Refusing()
        self.now = 100.0
        self._counts: dict[tuple[int | None, str | None], Counts] = {}

    def second(self, stored: int = 0, refused: int = 0, why: str | None = FILES[1]) -> str:
        """Returns what the log is told."""
        self.now += 1
        key = (codes.OUT_OF_RESOURCES, why)
        self._add(STORED, Counts(stored, 0, 0, 0))
        self._add(key, Counts(0, 0, refused, 0))
        return self.refusing.see(self._counts, self.doubts, self.now)

    def _add(self, key: tuple[int | None, str | None], more: Counts) -> None:
        before = self._counts.get(key, Counts(0, 0, 0, 0))
        self._counts[key] = Counts(*map(sum, zip(before, more, strict=True)))


def test_each_reason_is_of_one_instance_or_of_all() -> None:
    names = {
        reason
        for status, reason in Shared().rows.known_statuses()
        if status == codes.OUT_OF_RESOURCES
    }
    assert names == OF_ALL | OF_ONE
    assert not OF_ALL & OF_ONE


def test_three_in_a_row_and_none_stored() -> None:
    seen = Seen()
    assert seen.second(stored=5) == ""
    assert seen.second(refused=2) == ""
    assert seen.refusing.why == ""
    # However long it takes.
    seen.now += 1000
    assert "every instance is refused (A700, too many open files)" in seen.second(refused=1)
    assert seen.refusing.since == seen.now
    assert "too many open files" in seen.refusing.why
    assert seen.second(refused=7) == ""
    assert "no instance is refused for that any more" in seen.second(stored=1)
    assert seen.refusing.why == ""
    assert seen.second(refused=2) == ""


def test_some_are_stored_beside() -> None:
    """One of several workers is out of files: the others are to be sent to."""
    seen = Seen()
    for _ in range(20):
        assert seen.second(stored=1, refused=9) == ""
    assert seen.refusing.why == ""


def test_whoever_gets_no_instance_any_more_tries_again() -> None:
    """And the next that is refused says that it is not over."""
    seen = Seen()
    seen.second(refused=3)
    since = seen.refusing.since
    for _ in range(60):
        assert seen.second() == ""
    assert "none came for a minute" in seen.second()
    assert seen.refusing.why == ""
    assert "every instance is refused" in seen.second(refused=1)
    assert seen.refusing.since > since


@pytest.mark.parametrize("why", sorted(OF_ONE))
def test_what_is_wrong_with_one_says_nothing_of_others(why: str) -> None:
    """A sender of what is too large must not be able to have others sent elsewhere."""
    seen = Seen()
    for _ in range(5):
        assert seen.second(refused=10, why=why) == ""
    assert seen.refusing.why == ""


def test_more_folders_refuse_than_are_remembered() -> None:
    seen = Seen()
    for number in range(64):
        seen.doubts.refuse(f"1.2.{number}")
    assert seen.second() == ""
    seen.doubts.refuse("1.2.64")
    assert "every instance is refused (A700): more folders" in seen.second()
    # That lasts as long as the service.
    assert seen.second(stored=1) == ""
    assert seen.refusing.why
