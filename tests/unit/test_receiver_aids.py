"""The receive path where nothing is kept, or a subclass says what becomes of an instance."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.kit import data_set, store
from tests.unit.test_receiver import Association, Site, site

if TYPE_CHECKING:
    from pathlib import Path

    from fastscp_ext import HeldBack, Reception

__all__ = ["site"]

pytestmark = pytest.mark.usefixtures("no_descriptor_left")


class Asked(Association):
    """It answers `instance_received` as it is told to, and may hold back what is owed then."""

    verdict = 0
    holds = False

    def __init__(self, reception: Reception, number: int) -> None:
        super().__init__(reception, number)
        self.classes: list[bytes] = []

    def instance_received(self, sop_class: bytes) -> int:
        self.classes.append(sop_class)
        if self.holds:
            self.held: HeldBack = self.hold_back_responses()
        return self.verdict

    def instance_dropped(self) -> None:
        self.dropped = True
        self.stop()


def _asked(site: Site) -> Asked:
    site.numbers += 1
    one = Asked(site.reception, site.numbers)
    site.ones.add(one)
    site.establish(one)
    return one


def _files(site: Site) -> list[str]:
    return sorted(str(path.relative_to(site.store)) for path in site.store.rglob("*"))


@pytest.mark.parametrize("durable", [False, True])
def test_what_is_discarded_leaves_nothing(tmp_path: Path, durable: bool) -> None:
    with Site(tmp_path / "store", durable=durable, discard=True, digest="sha256") as site:
        before = _files(site)
        one = site.associate()
        # Alike, and larger than a read: no path is taken, and nobody waits for another.
        for number in range(1, 4):
            site.feed(one, store(number, data_set(pixels=300_000)))
            assert site.reception.uncommitted == 0
            assert _files(site) == before
        site.feed(one, store(4, b""))
        assert one.statuses() == [0, 0, 0, 0xC000]
        assert site.shared.rows.by_status()[0, "discarded"].instances == 3
        assert site.reception.bytes_in_flight == 0
        one.abandon()


def test_one_is_refused_and_the_next_is_not(site: Site) -> None:
    one = _asked(site)
    one.is_asking = True
    one.verdict = 0xA701
    site.feed(one, store(1, sop="1.2.3.1"))
    one.verdict = 0
    site.feed(one, store(2, sop="1.2.3.2"))
    assert one.statuses() == [0xA701, 0]
    assert [name.rpartition("/")[2] for name in site.files()] == ["1.2.3.2.dcm"]
    assert site.parts() == []


def test_a_refusal_of_its_own_stands(site: Site) -> None:
    one = _asked(site)
    one.is_asking = True
    one.verdict = 0xA701
    site.feed(one, store(1, data_set(study="")))
    assert one.statuses() == [0xC000]


def test_one_is_dropped(site: Site) -> None:
    one = _asked(site)
    one.is_asking = True
    one.verdict = -1
    site.feed(one, store(1) + store(2))
    assert one.dropped
    assert one.classes == [b"1.2.840.10008.5.1.4.1.1.2"]
    assert one.statuses() == []
    assert one.outbox.done.unfinished == 1
    assert site.parts() == []
    assert site.shared.rows.totals().unfinished == 1


@pytest.mark.parametrize("durable", [False, True])
def test_what_is_owed_is_held_back(tmp_path: Path, durable: bool) -> None:
    with Site(tmp_path / "store", durable=durable) as site:
        one = _asked(site)
        site.feed(one, store(1, sop="1.2.3.1"))
        site.until(lambda: one.statuses() == [0])
        one.is_asking = one.holds = True
        site.feed(one, store(2, sop="1.2.3.2"))
        one.holds = False
        site.feed(one, store(3, sop="1.2.3.3"))
        # They are kept meanwhile, and answered in order.
        site.until(lambda: site.reception.uncommitted == 0)
        assert one.statuses() == [0]
        assert one.outbox.owed == 3
        one.held.let_go()
        assert one.statuses() == [0, 0, 0]
        assert one.outbox.owed == 0
        with pytest.raises(ValueError, match="settled already"):
            one.held.let_go()


def test_what_is_held_back_goes_with_its_peer(site: Site) -> None:
    one = _asked(site)
    one.is_asking = one.holds = True
    site.feed(one, store(1))
    site.until(lambda: site.reception.uncommitted == 0)
    one.abandon()
    one.held.let_go()
    assert one.statuses() == []
    # Nothing counts a place that was kept.
    assert site.shared.rows.totals().instances == 1


def test_nobody_is_asked_otherwise(site: Site) -> None:
    one = _asked(site)
    one.verdict = 0xA700
    site.feed(one, store(1))
    assert one.statuses() == [0]
    assert one.classes == []
