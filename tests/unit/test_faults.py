"""The rules of `--fault`: how they are read, and which of them an instance meets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fastscp.config.faults import FaultRule, read_fault
from fastscp.config.layers import load
from fastscp.config.settings import SETTINGS
from fastscp.errors import ConfigError
from fastscp.main.aids import aids, told_of_aids
from fastscp.worker.faults import Faults
from tests.kit import CT, MR

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("every=100 status=A700", {"every": 100, "status": 0xA700}),
        ("  ae=CT1   delay=2s ", {"ae": "CT1", "delay_s": 2.0}),
        ("ae=100%25 STATUS=c001 delay=50ms", {"ae": "100%25", "status": 0xC001, "delay_s": 0.05}),
        ("abort", {"aborts": True}),
        ("close every=3", {"closes": True, "every": 3}),
        ("reject", {"rejection": (2, 3, 1)}),
        ("reject=1,1,7 ae=MR%DC", {"rejection": (1, 1, 7), "ae": "MR%DC"}),
        ("status=0110", {"status": 0x0110}),
    ],
)
def test_reads_a_rule(text: str, fields: dict[str, object]) -> None:
    assert read_fault(text) == FaultRule(text=" ".join(text.split()), **fields)  # type: ignore[arg-type]


def test_reads_classes() -> None:
    rule = read_fault("class=CTImageStorage,1.2.3.* abort")
    assert rule.classes is not None
    assert [rule.classes.accepts(uid) for uid in (CT, "1.2.3.4", MR)] == [True, True, False]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("every=100", "says nothing of what is to happen"),
        ("every=0 abort", "has a every that is less than 1"),
        ("every=x abort", "is not a whole number"),
        ("abort close", "wants both abort and close"),
        ("abort abort", "says abort twice"),
        ("abort=1", "has 'abort=1' in it"),
        ("fail", "has 'fail' in it"),
        ("status= every=2", "has 'status=' in it"),
        ("status=0000", "does not refuse"),
        ("status=B000", "does not refuse"),
        ("status=FF00", "does not refuse"),
        ("status=0107", "does not refuse"),
        ("status=A70", "no status of four hexadecimal digits"),
        ("delay=2s abort", "has a delay, which keeps a response back, and abort sends none"),
        ("delay=0", "is less than allowed"),
        ("delay=2h", "is more than allowed"),
        ("reject=3,1,1", "Table 9-21"),
        ("reject=1,2,3", "Table 9-21"),
        ("reject=1,1", "is not RESULT,SOURCE,REASON"),
        ("class=NoSuch abort", "NoSuch"),
        ("class=Verification abort", "Verification"),
        ("ae=CT* abort", "has 'ae"),
        ("", "is empty"),
    ],
)
def test_refuses_what_is_none(text: str, why: str) -> None:
    if text in ("class=Verification abort", "ae=CT* abort"):
        # A title may hold a star, and Verification is let in everywhere: they match nothing.
        assert read_fault(text).aborts
        return
    with pytest.raises(ConfigError) as error:
        load({"fault": [text]}, {})
    assert why in str(error.value)
    assert "--fault" in str(error.value)


@pytest.mark.parametrize(("name", "raw"), [("fault", "abort"), ("discard", "true")])
def test_is_taken_from_flags_alone(tmp_path: Path, name: str, raw: str) -> None:
    """A file or a variable would outlive the test it was meant for."""
    with pytest.raises(ConfigError, match=f"as the flag --{name} only"):
        load({}, {f"FASTSCP_{name.upper()}": raw})
    file = tmp_path / "fastscp.toml"
    file.write_text(f'{name} = "{raw}"\n')
    with pytest.raises(ConfigError, match=f"as the flag --{name} only"):
        load({}, {}, file)


def test_each_rule_counts_by_itself() -> None:
    faults = Faults([
        read_fault("every=3 status=A700"),
        read_fault("ae=CT1 every=2 abort"),
        read_fault(f"class={MR} close"),
        read_fault("reject ae=XA"),
    ])  # fmt: skip
    met = [faults.of_instance("CT1", CT) for _ in range(6)]
    assert [rule.text if rule else "" for rule in met] == [
        "", "ae=CT1 every=2 abort", "every=3 status=A700", "ae=CT1 every=2 abort", "",
        "every=3 status=A700",
    ]  # fmt: skip
    other = faults.of_instance("CT2", MR)
    assert other is not None
    assert other.closes
    assert faults.of_request("CT1", [CT]) is None
    rejecting = faults.of_request("XA", [CT])
    assert rejecting is not None
    assert rejecting.rejection == (2, 3, 1)


def test_only_those_it_may_concern_are_asked_about() -> None:
    faults = Faults([read_fault("ae=CT1 abort"), read_fault("reject")])
    assert faults.has_for("CT1")
    assert not faults.has_for("CT2")


def test_is_named_as_it_was_given() -> None:
    config = load({"fault": ["every=2  abort", "delay=1s"], "discard": True}, {}).config
    assert aids(config) == ("--discard", "--fault 'every=2 abort'", "--fault 'delay=1s'")
    assert "stored nowhere" in told_of_aids(config)[0]
    assert "--fault 'delay=1s'" in told_of_aids(config)[2]
    assert told_of_aids(load({}, {}).config) == ()
    shown = {setting.name: text for setting, text, _ in load({"fault": ["abort"]}, {}).rows()}
    assert shown["fault"] == "abort"
    assert {one.name for one in SETTINGS if one.group.value == "Test aids"} == {"discard", "fault"}
