"""Who is told what at which level: the lines of an association, and those of the whole service."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from fastscp.association.account import Account, Ending, Terms, Who, in_bytes
from fastscp.association.negotiation import Refusals
from fastscp.config.settings import ServeConfig
from fastscp.log import TRACE
from fastscp.main.summary import Seen, Summary
from fastscp.rules.build import build
from fastscp.rules.rule import TOP_LEVEL
from fastscp.uids import SopClassRule
from fastscp.worker.telling import Telling
from fastscp_ext import PresentationContextRQ, Tally

if TYPE_CHECKING:
    from fastscp.rules.rule import Rule

CT = "1.2.840.10008.5.1.4.1.1.2"
FIND = "1.2.840.10008.5.1.4.31"
NAMES = {CT: "CTImageStorage", FIND: "ModalityWorklistInformationModelFind", "1.2.4": "JPEGSome"}
TERMS = Terms(3, 4, 1, 16384, "OFFIS")
DONE = Tally(begun=2, stored=2, bytes=1000, received=3_000_000)


@pytest.fixture
def telling(caplog: pytest.LogCaptureFixture) -> Telling:
    caplog.set_level(TRACE, "fastscp.association")
    made = Telling("5f.7", "10.0.0.1", "10.0.0.1:104", NAMES)
    made.requested("CT1", "ROUTER")
    return made


def ended(
    telling: Telling, ending: Ending | None, done: Tally = DONE, rules: str | None = "default"
) -> None:
    telling.ended(ending, rules, TERMS, done, 2.0)


def test_the_line_of_an_end(telling: Telling, caplog: pytest.LogCaptureFixture) -> None:
    ended(telling, Ending("released"))
    (line,) = caplog.records
    assert line.getMessage() == (
        "5f.7 CT1@10.0.0.1:104: released; stored 2, refused 0, 3000000 bytes received in 2.000 s "
        "(1.4 MiB/s); called 'ROUTER', 3 of 4 presentation contexts, window 1, peer "
        "takes 16384 bytes (OFFIS)"
    )
    assert line.levelno == logging.INFO
    told: dict[str, Any] = vars(line)["fields"]
    assert (told["association"], told["calling_ae"], told["called_ae"]) == ("5f.7", "CT1", "ROUTER")
    assert (told["stored"], told["bytes"], told["rate"]) == (2, 1000, 1_500_000)
    # What brought instances is never one of those that are only counted.
    assert not hasattr(line, "caused")


def test_the_line_of_an_end_names_the_rules_of_tables(
    telling: Telling, caplog: pytest.LogCaptureFixture
) -> None:
    ended(telling, Ending("released"), rules="ae.R%41+from.ct")
    assert "; called 'ROUTER', rules ae.R%41+from.ct, 3 of 4 presentation" in caplog.text
    caplog.clear()
    ended(telling, Ending("released"), rules=TOP_LEVEL)
    assert "rules" not in caplog.text


@pytest.mark.parametrize(
    ("ending", "done", "echoes", "level"),
    [
        (Ending("released"), Tally(), 0, logging.INFO),
        (Ending("released"), Tally(), 1, logging.DEBUG),
        (Ending("connection closed"), Tally(), 1, logging.DEBUG),
        (Ending("aborted", "0,0", "idle"), Tally(), 1, logging.INFO),
        (Ending("aborted", "0,0", "idle"), DONE, 0, logging.INFO),
        (Ending("aborted", "0,0", "slow"), Tally(begun=1, unfinished=1), 0, logging.WARNING),
        (Ending("released"), Tally(begun=1, stored=1, truncated=1), 0, logging.WARNING),
        (Ending("released"), Tally(begun=1, stored=1, mislabelled=1), 0, logging.WARNING),
        (Ending("released"), Tally(begun=1, stored=1, odd_uids=1), 0, logging.INFO),
    ],
)
def test_levels_of_ends(
    telling: Telling, caplog: pytest.LogCaptureFixture, ending: Ending, done: Tally, echoes: int,
    level: int,
) -> None:  # fmt: skip
    for _ in range(echoes):
        telling.echoed()
    caplog.clear()
    ended(telling, ending, done)
    (line,) = caplog.records
    assert line.levelno == level
    assert hasattr(line, "caused") == (not done.stored)


@pytest.mark.parametrize(
    "ending",
    [
        Ending("released"), Ending("aborted", "2,5"), Ending("aborted by the peer", "0,0"),
        Ending("aborted by the peer", "255,255"), Ending("aborted by the peer"),
        Ending("connection closed"), Ending("connection lost inside a message"),
        Ending("cannot send"), Ending("the peer does not read what we send"),
    ],
)  # fmt: skip
def test_an_ending_is_a_number_and_back(ending: Ending) -> None:
    """All that an association can have; of another one it is told that it ended."""
    assert 0 < ending.number < 1 << 64
    assert Ending.numbered(ending.number) == ending
    assert Ending.numbered(Ending("a new one", "1,2").number, "x") == Ending("ended", "1,2", "x")


@pytest.mark.parametrize("level", [logging.INFO, logging.WARNING])
def test_who_waits_for_the_line_hears_of_it_though_nobody_wants_it(
    telling: Telling, caplog: pytest.LogCaptureFixture, level: int
) -> None:
    caplog.set_level(level, "fastscp.association")
    told: list[bool] = []
    telling.ended(Ending("released"), "default", TERMS, DONE, 2.0, told.append)
    if level == logging.WARNING:
        assert (told, caplog.records) == ([True], [])
        return
    # The handler says when the line is there.
    (line,) = caplog.records
    assert told == []
    assert vars(line)["once_told"] == told.append


def test_flags_are_counted(telling: Telling, caplog: pytest.LogCaptureFixture) -> None:
    done = Tally(
        begun=9, stored=5, refused=1, unfinished=1, truncated=2, mislabelled=1, identical=3
    )
    ended(telling, Ending("connection lost inside a message"), done)
    assert (
        "stored 5, refused 1, unfinished 1, not answered 2, 0 bytes received in 2.000 s (0 "
        "bytes/s); 2 truncated, 1 mislabelled, 3 there already; called"
    ) in caplog.text


def test_what_was_no_association(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(TRACE, "fastscp.association")
    probe = Telling("5f.1", "10.0.0.1", "10.0.0.1:104", NAMES)
    probe.ended(None, None, Terms(), Tally(), 0.1)
    rejected = Telling("5f.2", "10.0.0.1", "10.0.0.1:105", NAMES)
    rejected.ended(Ending("rejected", "1,2,1", "343 contexts"), None, Terms(), Tally(), 0.1)
    late = Telling("5f.3", "10.0.0.1", "10.0.0.1:106", NAMES)
    late.ended(Ending("no complete A-ASSOCIATE-RQ in time"), None, Terms(), Tally(), 30.0)
    assert [(one.levelno, one.getMessage()) for one in caplog.records] == [
        (TRACE, "5f.1 10.0.0.1:104: closed before a request"),
        (logging.WARNING, "5f.2 10.0.0.1:105: rejected (1,2,1): 343 contexts"),
        (logging.INFO, "5f.3 10.0.0.1:106: no complete A-ASSOCIATE-RQ in time"),
    ]
    assert vars(caplog.records[1])["fields"]["code"] == "1,2,1"


def top_rule(**values: Any) -> Rule:
    """That of the defaults, except these."""
    return msgspec.structs.replace(build(ServeConfig(), 1).top, **values)


def test_refused_contexts_have_names(telling: Telling, caplog: pytest.LogCaptureFixture) -> None:
    refused = Refusals()
    refused.add(PresentationContextRQ(1, FIND, ()), 3)
    refused.add(PresentationContextRQ(3, CT, ("1.2.4", "1.2\n")), 4)
    refused.add(PresentationContextRQ(5, CT, ("1.2.4",)), 4)
    refused.add(PresentationContextRQ(7, "9.9", ()), 3)
    refused.add(PresentationContextRQ(8, "9.8", ()), 2)
    rule = top_rule(sop_classes=SopClassRule(refused=frozenset({FIND})))
    telling.contexts_refused(refused, 6, rule)
    (line,) = caplog.records
    assert line.levelno == logging.WARNING
    assert line.getMessage() == (
        "5f.7 CT1@10.0.0.1:104: 5 of 6 presentation contexts refused: "
        "ModalityWorklistInformationModelFind (not storage); CTImageStorage (no transfer syntax "
        r"in --transfer-syntaxes: JPEGSome, '1.2\n'); '9.9' (not in --sop-classes); '9.8' (its id "
        "is even)"
    )
    told = vars(line)["fields"]
    assert (told["contexts_accepted"], told["contexts_proposed"]) == (1, 6)
    caplog.clear()
    telling.contexts_refused(Refusals(), 6, rule)
    assert not caplog.records


def test_refused_contexts_stand_together_by_reason(
    telling: Telling, caplog: pytest.LogCaptureFixture
) -> None:
    refused = Refusals()
    for n, uid in enumerate(("9.1", "9.2", CT, "9.3")):
        refused.add(PresentationContextRQ(2 * n + 1, uid, ("1.2.4",)), 4 if uid == CT else 3)
    telling.contexts_refused(refused, 4, top_rule())
    assert caplog.records[0].getMessage().partition("refused: ")[2] == (
        "'9.1', '9.2', '9.3' (not in --sop-classes); CTImageStorage (no transfer syntax in "
        "--transfer-syntaxes: JPEGSome)"
    )


def test_the_list_that_refuses_has_the_name_of_its_table(
    telling: Telling, caplog: pytest.LogCaptureFixture
) -> None:
    refused = Refusals()
    refused.add(PresentationContextRQ(1, CT, ("1.2.4",)), 4)
    refused.add(PresentationContextRQ(3, "9.9", ()), 3)
    rule = top_rule(sop_classes_from="ae.RES", transfer_syntaxes_from="from.gate")
    telling.contexts_refused(refused, 2, rule)
    assert (
        caplog.records[0]
        .getMessage()
        .endswith(
            "CTImageStorage (no transfer syntax in [from.gate] transfer-syntaxes: JPEGSome); "
            "'9.9' (not in [ae.RES] sop-classes)"
        )
    )


def test_refused_contexts_are_bounded(telling: Telling, caplog: pytest.LogCaptureFixture) -> None:
    refused = Refusals()
    for n in range(200):
        refused.add(PresentationContextRQ(1, f"1.{n}." + "9" * 60_000, ("8" * 60_000,) * 99), 4)
    assert sum(map(len, refused.shown)) <= 8 * 128
    telling.contexts_refused(refused, 200, top_rule())
    assert caplog.records[0].getMessage().endswith(" and others")


def test_an_instance_is_told_of(telling: Telling, caplog: pytest.LogCaptureFixture) -> None:
    telling.instance_answered("1.2\r\n3", 0xA700, 7, "disk full")
    telling.instance_answered("1.2", 0, 7, "")
    refused, stored = caplog.records
    assert (refused.levelno, stored.levelno) == (logging.WARNING, logging.DEBUG)
    assert r"instance 1.2\r\n3 answered A700 (disk full)" in refused.getMessage()
    assert vars(refused)["fields"]["status"] == "A700"
    assert vars(stored)["fields"]["bytes"] == 7


def test_two_uids_that_are_missing_are_not_named_twice(
    telling: Telling, caplog: pytest.LogCaptureFixture
) -> None:
    name = "Study and Series Instance UID"
    for value, told in ((None, "neither of them"), (b"", f"no usable {name}")):
        telling.instance_answered("1.2", 0xC000, 7, "as it may be", (name, value))
        assert caplog.records[-1].getMessage().endswith(f"(as it may be: {told})")


@pytest.mark.parametrize(
    ("blamed", "told"),
    [
        (None, "(no Study)"),
        (("Study Instance UID", b""), "(no Study: no usable Study Instance UID)"),
        (("Series Instance UID", b"1\r\n2\x80'"), r"(no Study: Series Instance UID '1\r\n2\x80'')"),
        (("SOP Class UID", b"1" * 128),
         f"(no Study: SOP Class UID '{'1' * 100}... (128 bytes)')"),
    ],
)  # fmt: skip
def test_the_uid_for_which_an_instance_is_refused(
    telling: Telling,
    caplog: pytest.LogCaptureFixture,
    blamed: tuple[str, bytes | None] | None,
    told: str,
) -> None:
    telling.instance_answered("1.2", 0xC000, 7, "no Study", blamed)
    assert caplog.records[0].getMessage().endswith(f"answered C000 {told}")
    # What many have in common, for programs that count.
    assert vars(caplog.records[0])["fields"]["reason"] == "no Study"


def test_an_instance_for_which_another_one_stays_is_not_refused(
    telling: Telling, caplog: pytest.LogCaptureFixture
) -> None:
    telling.instance_answered("1.2", 0xB006, 7, "existing instance kept")
    done = Tally(begun=31, stored=1, kept=30)
    ended(telling, Ending("released"), done)
    kept, end = caplog.records
    assert vars(kept)["caused"].kind == "instance not stored (keep)"
    assert "stored 1, refused 0, 0 bytes" in end.getMessage()
    assert "; 30 not stored (keep); called" in end.getMessage()
    # What the journal has lines of always has its own line.
    ended(telling, Ending("released"), Tally(begun=30, kept=30))
    assert not hasattr(caplog.records[-1], "caused")


def test_only_verification_begins_in_silence(
    telling: Telling, caplog: pytest.LogCaptureFixture
) -> None:
    telling.associated(TERMS, (), is_check=True)
    telling.associated(TERMS, ("odd",), is_check=False)
    assert [one.levelno for one in caplog.records] == [TRACE, logging.INFO, logging.DEBUG]


def test_numbers_of_bytes() -> None:
    assert [in_bytes(n) for n in (0, 999, 1024, 5 << 20, 999 << 20, 1 << 30)] == [
        "0 bytes", "999 bytes", "1.0 KiB", "5.0 MiB", "999.0 MiB", "1.0 GiB",
    ]  # fmt: skip
    # No more than three digits before the point, which columns have room for.
    assert [in_bytes(n) for n in (1000, 1000 << 20, 7 << 60)] == [
        "1.0 KiB", "1.0 GiB", "7340032.0 TiB",
    ]  # fmt: skip


def test_an_account_without_time_has_no_rate() -> None:
    assert Account(Who("a", "b"), "default", TERMS, DONE, 0.0).rate == 0


# The summary --------------------------------------------------------------------------------------


def test_a_minute_is_summed_up_and_an_idle_one_is_not() -> None:
    summary = Summary(Seen(100.0))
    # Health checks: associations and their bytes.
    assert summary.say(Seen(160.0, received=40_000, begun=60)) is None
    busy = Seen(
        220.0, stored=1200, bytes=620_000_000, refused=3, received=630_040_000, begun=72,
        rejected=2, open=5,
    )  # fmt: skip
    said = summary.say(busy)
    assert said is not None
    assert said[0] == (
        "in 60 s: stored 1,200 instances (591.3 MiB), refused 3, unfinished 0; received 600.8 MiB, "
        "10.0 MiB/s; associations: 12 begun, 7 ended, 5 open, 2 rejected"
    )
    assert said[1]["stored"] == 1200
    assert summary.say(busy) is None


@pytest.mark.parametrize("what", ["stored", "refused", "unfinished", "rejected", "kept"])
def test_one_of_anything_is_worth_a_line(what: str) -> None:
    assert Summary(Seen(0.0)).say(Seen(60.0, **{what: 1})) is not None


def test_what_is_not_stored_is_not_among_the_stored() -> None:
    said = Summary(Seen(0.0)).say(Seen(60.0, stored=1, kept=30))
    assert said is not None
    assert "stored 1 instance (0 bytes), refused 0, unfinished 0, not stored (keep) 30;" in said[0]
    assert (said[1]["stored"], said[1]["kept"]) == (1, 30)


def test_a_large_object_under_way_is_worth_a_line() -> None:
    assert Summary(Seen(0.0)).say(Seen(60.0, received=1 << 20)) is not None
