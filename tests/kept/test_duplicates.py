"""The same UID from eight senders at once, over both workers and both ways of giving a name."""

from __future__ import annotations

import select
from typing import TYPE_CHECKING, Final

import pytest

from fastscp_ext import crc32c
from tests.kept.kit_kept import (
    COUNT,
    FAIL,
    HOLD_AFTER,
    LOOK,
    RENAME,
    Interposed,
    Item,
    apart,
    items,
    send_all,
    versions_of,
)
from tests.kit import Service, store, wait_for
from tests.stores import opened

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

EINVAL: Final = 22
SENDERS: Final = 8
UIDS: Final = 5
POLICIES: Final = ("version", "replace", "keep", "refuse")


@pytest.fixture(scope="module", params=["rename", "link"])
def naming(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module", params=POLICIES)
def policy(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def running(
    tmp_path_factory: pytest.TempPathFactory, library: Path, naming: str, policy: str
) -> Iterator[Interposed]:
    folder = tmp_path_factory.mktemp("duplicates")
    made = Interposed(folder, library, "--on-duplicate", policy, log=False)
    if naming == "link":
        made.control.rule([RENAME], FAIL, error=EINVAL, path="/probe/")
    with made:
        made.in_log(f"{naming} names")
        yield made


@pytest.fixture
def service(running: Interposed) -> Service:
    return running.anew()


def journal_of(service: Service, item: Item) -> list[tuple[str, str, str]]:
    """Path, what happened, digest, by number."""
    return [
        (fact["path"], fact.get("duplicate", ""), fact["digest"])
        for fact in service.journal()
        if fact["sop_instance_uid"] == item.sop
    ]


def digest_of(service: Service, path: str) -> str:
    return f"crc32c:{crc32c(service.data_of(path)):08x}"


def test_the_same_bytes_are_one_file(service: Service) -> None:
    what = items("1", UIDS)
    sent = send_all(service.port, what, associations=SENDERS, window=2, all_to_each=True)
    assert not sent.broken
    assert service.instances() == sorted(item.path for item in what)
    for item in what:
        assert sent.statuses[item.sop] == [0] * SENDERS
        assert service.data_of(item.path) == item.data
        lines = journal_of(service, item)
        assert [path for path, _kind, _digest in lines] == [item.path] * SENDERS
        assert sorted(kind for _path, kind, _digest in lines) == [""] + ["identical"] * (
            SENDERS - 1
        )
    numbers = [fact["seq"] for fact in service.journal()]
    assert len(set(numbers)) == len(numbers) == UIDS * SENDERS
    wait_for(lambda: not service.parts(), "no part left")


def test_different_bytes_follow_the_policy(service: Service, policy: str) -> None:
    what = items("1", UIDS)
    versions = {item.sop: versions_of(item, SENDERS) for item in what}
    shares = [[versions[item.sop][k] for item in what] for k in range(SENDERS)]
    sent = send_all(service.port, (), window=2, shares=shares)
    assert not sent.broken
    wait_for(lambda: not service.parts(), "no part left")
    rest = SENDERS - 1
    for item in what:
        bytes_sent = {one.data for one in versions[item.sop]}
        lines = journal_of(service, item)
        there = [path for path in service.instances() if path.startswith(item.path)]
        statuses = sorted(sent.statuses[item.sop])
        kinds = sorted(kind for _path, kind, _digest in lines)
        if policy == "version":
            assert statuses == [0] * SENDERS
            assert there == [item.path, *(f"{item.path}~{n}" for n in range(2, SENDERS + 1))]
            assert {service.data_of(path) for path in there} == bytes_sent
            assert kinds == [""] + ["version"] * rest
            assert {(path, digest_of(service, path)) for path in there} == {
                (path, digest) for path, _kind, digest in lines
            }
            continue
        assert there == [item.path]
        assert service.data_of(item.path) in bytes_sent
        if policy == "replace":
            assert statuses == [0] * SENDERS
            assert kinds == [""] + ["replaced"] * rest
            # For one path the highest number is the truth.
            assert lines[-1][2] == digest_of(service, item.path)
            assert {digest for _path, _kind, digest in lines} == {
                f"crc32c:{crc32c(data):08x}" for data in bytes_sent
            }
        elif policy == "keep":
            assert statuses == [0] + [0xB006] * rest
            assert kinds == [""] + ["kept"] * rest
            (stored,) = (digest for _path, kind, digest in lines if not kind)
            assert stored == digest_of(service, item.path)
        else:
            assert statuses == [0] + [0xC000] * rest
            assert kinds == [""]
            assert lines[0][2] == digest_of(service, item.path)


def test_the_tenth_version_is_refused(tmp_path: Path, library: Path) -> None:
    (item,) = items("1", 1)
    shares = [[one] for one in versions_of(item, 12)]
    with Interposed(tmp_path, library, log=False) as service:
        sent = send_all(service.port, (), window=1, shares=shares)
        assert sorted(sent.statuses[item.sop]) == [0] * 9 + [0xC000] * 3
        assert service.instances() == [item.path, *(f"{item.path}~{n}" for n in range(2, 10))]


def parts_of(service: Interposed) -> list[Path]:
    return list((service.store / ".fastscp/incoming").rglob("*.part"))


def test_who_replaces_a_file_not_journaled_yet_has_the_last_word(
    tmp_path: Path, library: Path
) -> None:
    (item,) = items("1", 1)
    old, new = versions_of(item, 2)
    with (
        Interposed(tmp_path, library, "--on-duplicate", "replace", log=False) as service,
        apart(service) as (one, two),
    ):
        rule = service.control.rule([RENAME], HOLD_AFTER, path="/store/1.2.", left=1)
        one.send(store(1, old.data, sop=item.sop))
        wait_for(lambda: service.control.hits(rule) == 1, "one worker being held after its naming")
        two.send(store(1, new.data, sop=item.sop))
        # Its path is claimed up to its line: the newer one waits, in a part of its own.
        wait_for(lambda: len(parts_of(service)) == 1, "the part of the newer one")
        service.control.lift(rule)
        assert one.read_response().status == 0
        assert two.read_response().status == 0
        assert service.data_of(item.path) == new.data
        assert journal_of(service, item)[-1][2] == digest_of(service, item.path)
        two.release()
        one.release()


@pytest.mark.parametrize("policy", ["version", "keep", "refuse"])
@pytest.mark.parametrize("durability", ["stable", "buffered"])
def test_a_suspect_store_keeps_what_is_on_its_way_to_the_journal(
    tmp_path: Path, library: Path, policy: str, durability: str
) -> None:
    """After an unclean buffered life a file without a line is replaced, but not one whose line is
    about to be written: its sender will be told that it is kept.
    """
    (item,) = items("1", 1)
    old, new = versions_of(item, 2)
    flags = ("--on-duplicate", policy, "--durability", durability)
    (tmp_path / "disk").mkdir()
    with opened(tmp_path / "disk/store"):
        pass
    (tmp_path / "disk/store/.fastscp/suspect").touch()
    with (
        Interposed(tmp_path, library, *flags, log=False) as service,
        apart(service) as (one, two),
    ):
        held = service.control.rule([RENAME], HOLD_AFTER, path="/store/1.2.", left=1)
        one.send(store(1, old.data, sop=item.sop))
        wait_for(lambda: service.control.hits(held) == 1, "one worker being held after its naming")
        looked = service.control.rule([LOOK], COUNT, path=".jsonl")
        two.send(store(1, new.data, sop=item.sop))
        wait_for(lambda: service.control.hits(looked) > 0, "the other one's look at the journal")
        # Whatever it decides without waiting, it has the time to do.
        answered, _, _ = select.select([two.socket], [], [], 0.3)
        assert not answered
        service.control.lift(held)
        assert one.read_response().status == 0
        status = two.read_response().status
        expected = {"version": 0, "keep": 0xB006, "refuse": 0xC000}[policy]
        assert status == expected
        two.release()
        one.release()
        assert service.data_of(item.path) == old.data
        if policy == "version":
            assert service.data_of(f"{item.path}~2") == new.data
