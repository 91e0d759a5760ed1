"""What a received UID is good for: one rule for paths, presentation contexts and the sender."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastscp_ext.dataset.uid import UID_AS_NAME, UID_NONE, UID_STRICT, UID_USABLE, uid_grade
from tests import reference_layout

many = settings(max_examples=200, deadline=None, derandomize=True)


def test_each_grade_implies_those_before_it() -> None:
    assert UID_NONE < UID_USABLE < UID_AS_NAME < UID_STRICT


@pytest.mark.parametrize("uid", ["1", "1.2.3", "a", "1.2_3-b", "1" * 64, "01.2"])
def test_usable(uid: str) -> None:
    assert uid_grade(uid) >= UID_USABLE


@pytest.mark.parametrize("uid", ["", ".1", "1.", "1 2", "1/2", "1\n", "\x001", "1" * 65, "1é2"])
def test_unusable(uid: str) -> None:
    assert uid_grade(uid) == UID_NONE


@pytest.mark.parametrize("uid", ["1..2", "a..b", "1...2", "1._..a"])
def test_no_name(uid: str) -> None:
    """`..` leads out of a folder; in a presentation context it harms nothing."""
    assert uid_grade(uid) == UID_USABLE


@many
@given(st.one_of(st.binary(max_size=70), st.text("019.aZ-_/ \0", max_size=66).map(str.encode)))
def test_agreement_with_the_reference(uid: bytes) -> None:
    grade = uid_grade(uid)
    assert (grade >= UID_USABLE) == reference_layout.usable_uid(uid)
    assert (grade >= UID_AS_NAME) == reference_layout.valid_uid(uid)
    assert (grade == UID_STRICT) == reference_layout.strict_uid(uid)
    assert uid_grade(uid.decode("latin-1")) == grade


@many
@given(st.text(max_size=70))
def test_any_text(uid: str) -> None:
    assert (uid_grade(uid) >= UID_USABLE) == reference_layout.usable_uid(uid.encode("utf-8"))


@pytest.mark.parametrize("other", [None, 1, bytearray(b"1")])
def test_neither_text_nor_bytes(other: object) -> None:
    with pytest.raises(TypeError):
        uid_grade(other)  # type: ignore[arg-type]
