"""What DIMSE commands other than C-STORE are answered with."""

from __future__ import annotations

import pytest

from fastscp.association.service import Unanswerable, answer
from fastscp_ext import CommandSet, decode_command, encode_command, status
from tests.kit import CT, SOP, VERIFICATION


def command(field: int | None, message_id: int | None = 5, **more: int | bytes | str) -> CommandSet:
    elements: dict[int, int | bytes | str | tuple[int, ...]] = {
        int(name[1:], 16): value for name, value in more.items()
    }
    if field is not None:
        elements[0x0100] = field
    if message_id is not None:
        elements[0x0110] = message_id
    return decode_command(encode_command({0x0800: 0x0101} | elements))


def response(request: CommandSet) -> CommandSet:
    elements = answer(request)
    assert elements is not None
    return decode_command(encode_command(elements))


def test_echo() -> None:
    got = response(command(0x0030, 77, x0002=VERIFICATION))
    assert got.command_field == 0x8030
    assert got.message_id_being_responded_to == 77
    assert got.status == status.SUCCESS
    assert got.affected_sop_class_uid == VERIFICATION
    assert not got.has_data_set
    assert got.error_comment is None


@pytest.mark.parametrize("message_id", [0, 1, 65535])
def test_any_message_id(message_id: int) -> None:
    assert response(command(0x0030, message_id)).message_id_being_responded_to == message_id


def test_echo_with_another_class_or_none() -> None:
    assert response(command(0x0030, x0002=CT)).status == status.SUCCESS
    got = response(command(0x0030))
    assert got.status == status.SUCCESS
    assert got.affected_sop_class_uid is None


@pytest.mark.parametrize(
    "field",
    [0x0010, 0x0020, 0x0021, 0x0100, 0x0110, 0x0120, 0x0130, 0x0140, 0x0150, 0x0000, 0x7FFF],
)
def test_other_operations(field: int) -> None:
    got = response(command(field, 9, x0002=CT))
    assert got.command_field == field | 0x8000
    assert got.message_id_being_responded_to == 9
    assert got.status == status.UNRECOGNIZED_OPERATION
    assert got.affected_sop_class_uid == CT
    assert got.error_comment
    assert not got.has_data_set


def test_requested_uids_come_back_as_affected() -> None:
    got = response(command(0x0130, x0003=CT, x1001=SOP))
    assert got.affected_sop_class_uid == CT
    assert got.affected_sop_instance_uid == SOP
    assert got.requested_sop_class_uid is None


def test_uids_go_back_as_they_came() -> None:
    got = response(command(0x0030, x0002=b"1.2  ", x1000=b"\xff\xfe"))
    assert got.elements[0x0002] == b"1.2  \0"
    assert got.elements[0x1000] == b"\xff\xfe"


@pytest.mark.parametrize(("size", "kept"), [(128, True), (130, False), (60000, False)])
def test_no_peer_makes_us_send_much(size: int, kept: bool) -> None:
    got = response(command(0x0030, x0002=b"1" * size))
    assert (0x0002 in got.elements) == kept
    assert len(encode_command(dict(got.elements))) < 600


@pytest.mark.parametrize("field", [0x8001, 0x8030, 0xFFFF, 0x0FFF, None])
@pytest.mark.parametrize("message_id", [5, None])
def test_what_gets_no_answer(field: int | None, message_id: int | None) -> None:
    assert answer(command(field, message_id)) is None


@pytest.mark.parametrize("field", [0x0030, 0x0020])
def test_a_request_without_message_id(field: int) -> None:
    with pytest.raises(Unanswerable, match=f"{field:04X} without Message ID"):
        answer(command(field, None))
