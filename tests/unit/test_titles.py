"""AE titles in their written form: in rules, journal and log."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastscp.config.settings import AllowRule
from fastscp.config.values import read_allow_rule, read_written_title
from fastscp.titles import title_bytes, title_text


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"CT 1", "CT 1"),
        (b"M\xdcLLER", "M%DCLLER"),
        (b"100%", "100%25"),
        (b"%DC", "%25DC"),
        (b"A\\B", "A\\B"),
        (b"A\x1b\r\n\x7f~", "A%1B%0D%0A%7F~"),
        (b"", ""),
    ],
)
def test_written(raw: bytes, text: str) -> None:
    assert title_text(raw) == text
    assert title_text(raw.decode("latin-1")) == text
    assert title_bytes(text) == raw


@given(st.binary(max_size=16).map(lambda raw: raw.replace(b"\0", b"").strip(b" ")))
def test_any_title_has_one_form_and_comes_back(raw: bytes) -> None:
    text = title_text(raw)
    assert text.isascii()
    assert title_bytes(text) == raw
    assert title_text(title_bytes(text)) == text


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("100%", "no %XX"),
        ("%4", "no %XX"),
        ("%GG", "no %XX"),
        ("MÜLLER", "outside ASCII"),
        ("%20A", "spaces"),
        ("A%00", "NUL"),
        ("%C3" * 17, "17 characters"),
    ],
)
def test_what_no_title_is(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        title_bytes(text)


def test_a_setting_takes_any_way_of_writing_and_keeps_one() -> None:
    assert read_written_title("M%dcLLER") == "M%DCLLER"
    assert read_written_title("%41B") == "AB"
    assert read_written_title("%C3" * 16) == "%C3" * 16
    rule = read_allow_rule("M%dcLLER@10.0.0.0/8")
    assert isinstance(rule, AllowRule)
    assert str(rule) == "M%DCLLER@10.0.0.0/8"
    assert rule.matches(title_text(b"M\xdcLLER"), "10.1.2.3")
    assert not rule.matches(title_text(b"M%DCLLER"), "10.1.2.3")
    with pytest.raises(ValueError, match="mixes"):
        read_allow_rule("%2A@10.0.0.0/8")
