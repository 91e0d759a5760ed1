"""The commit beside what could not be flushed; failing flushes are in tests/kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fastscp_ext import status
from tests.kit import data_set, path_of, store
from tests.unit.test_receiver import Site

if TYPE_CHECKING:
    from pathlib import Path

OTHER = "1.2.77"


def elsewhere(number: int, sop: str, **folders: str) -> bytes:
    return store(number, data_set(sop=sop, **folders), sop=sop)  # type: ignore[arg-type]


def refusals(site: Site) -> dict[str | None, int]:
    """How many were refused, by their reasons."""
    found = site.shared.rows.by_status().items()
    return {reason: counts.refused for (_status, reason), counts in found if counts.refused}


@pytest.mark.parametrize("durable", [True, False])
def test_nothing_goes_into_a_folder_that_is_refused(tmp_path: Path, durable: bool) -> None:
    with Site(tmp_path, durable=durable) as site:
        one = site.associate()
        site.shared.doubts.refuse(path_of().rpartition("/")[0])
        site.feed(one, store(1) + store(2, sop="1.2.5") + elsewhere(3, "1.2.6", study=OTHER))
        site.settle(one)
        assert one.statuses() == [status.OUT_OF_RESOURCES] * 2 + [0]
        comments = [response.error_comment for response in one.responses()]
        assert comments == ["folder could not be flushed"] * 2 + [None]
        assert list(site.files()) == [path_of("1.2.6", study=OTHER)]
        assert site.parts() == []
        assert refusals(site) == {"folder could not be flushed": 2}
        # The folder was told of when its flush failed.
        assert site.errors == []
        # For all of them: there were too many.
        site.shared.doubts.refuse_all()
        site.feed(one, elsewhere(4, "1.2.7", study=OTHER))
        site.settle(one)
        assert one.statuses()[-1] == status.OUT_OF_RESOURCES


def test_a_new_folder_in_one_that_is_refused(tmp_path: Path) -> None:
    """Its entry is not sure to be on the disk, however well it is flushed itself."""
    with Site(tmp_path, durable=True) as site:
        one = site.associate()
        site.feed(one, store(1))
        site.settle(one)
        folder = path_of().rpartition("/")[0]
        site.shared.doubts.refuse(folder.rpartition("/")[0])
        # What is durable already needs no other flush above it.
        site.feed(one, store(2, sop="1.2.5") + elsewhere(3, "1.2.6", series="1.2.78"))
        site.settle(one)
        assert one.statuses() == [0, 0, status.OUT_OF_RESOURCES]
        assert [fact["message_id"] for fact in site.journal()] == [1, 2]


@pytest.mark.parametrize("doubtful", [path_of(), path_of().rpartition("/")[0]])
def test_what_becomes_doubtful_behind_its_comparison(tmp_path: Path, doubtful: str) -> None:
    with Site(tmp_path, durable=True) as site:
        site.resolve_at_once = False
        one = site.associate()
        site.feed(one, store(1) + store(2))
        site.until(lambda: bool(site.waiting))
        # Another worker has failed to flush it meanwhile.
        site.shared.doubts.doubt(doubtful)
        site.resolve(site.waiting.pop())
        site.settle(one)
        assert one.statuses() == [0, status.OUT_OF_RESOURCES]
        assert one.responses()[1].error_comment == "existing instance may not be on the disk"
        assert len(site.journal()) == 1
