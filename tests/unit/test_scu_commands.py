"""The command sets that a requestor sends (PS3.7 9.3.1.1, 9.3.5.1)."""

from __future__ import annotations

import pytest

from fastscp import uids
from fastscp.scu.commands import C_ECHO_RQ, C_STORE_RQ, Priority, Request
from fastscp_ext import decode_command
from tests.kit import CT


def test_an_echo_has_no_instance_and_no_data_set() -> None:
    elements = decode_command(Request(C_ECHO_RQ, uids.VERIFICATION).encode(7)).elements
    assert elements.keys() == {0x0000, 0x0002, 0x0100, 0x0110, 0x0800}
    assert elements[0x0100] == b"\x30\x00"
    assert elements[0x0110] == b"\7\0"
    assert elements[0x0800] == b"\1\1"


def test_a_store_has_them_and_a_priority() -> None:
    command = decode_command(Request(C_STORE_RQ, CT, "1.2.3", Priority.LOW).encode(0xFFFF))
    assert command.elements.keys() == {0x0000, 0x0002, 0x0100, 0x0110, 0x0700, 0x0800, 0x1000}
    assert command.elements[0x0700] == b"\2\0"
    assert command.elements[0x0800] != b"\1\1"
    assert (command.affected_sop_class_uid, command.affected_sop_instance_uid) == (CT, "1.2.3")


def test_a_move_originator_has_a_title_and_an_id() -> None:
    request = Request(C_STORE_RQ, CT, "1.2.3", move_originator=("PACS", 5))
    elements = decode_command(request.encode(1)).elements
    assert elements[0x1030].strip() == b"PACS"
    assert elements[0x1031] == b"\5\0"


@pytest.mark.parametrize("message_id", [-1, 0x10000])
def test_a_message_id_has_two_bytes(message_id: int) -> None:
    with pytest.raises(ValueError, match=r"."):
        Request(C_ECHO_RQ, uids.VERIFICATION).encode(message_id)
