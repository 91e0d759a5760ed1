"""Command sets: bytes written by hand, a plain decoder, another library, real messages."""

from __future__ import annotations

import hashlib
import random
import struct
from io import BytesIO
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastscp_ext.errors import CodecError, CommandError
from fastscp_ext.wire.command import CommandSet, decode_command, encode_command, scan
from fastscp_ext.wire.pdu import decode_pdata
from tests import reference_pdu, streams, wire

if TYPE_CHECKING:
    from collections.abc import Iterator

many = settings(max_examples=200, deadline=None, derandomize=True)

VERIFICATION = "1.2.840.10008.1.1"
CT = "1.2.840.10008.5.1.4.1.1.2"
COMMITMENT = "1.2.840.10008.1.20.1"

NUMBERS = {
    "command_field": 0x0100,
    "message_id": 0x0110,
    "message_id_being_responded_to": 0x0120,
    "priority": 0x0700,
    "data_set_type": 0x0800,
    "status": 0x0900,
    "move_originator_message_id": 0x1031,
}
PROPERTIES = [
    *NUMBERS,
    "affected_sop_class_uid",
    "affected_sop_instance_uid",
    "requested_sop_class_uid",
    "requested_sop_instance_uid",
    "move_originator_ae",
    "error_comment",
    "error_id",
    "offending_elements",
    "action_type_id",
    "event_type_id",
    "has_data_set",
]
# What is said; everything else is None, or as for a message with nothing in it.
MEANINGS: dict[str, dict[str, object]] = {
    "C_ECHO_RQ": {
        "affected_sop_class_uid": VERIFICATION,
        "command_field": 0x0030,
        "message_id": 7,
        "data_set_type": 0x0101,
        "has_data_set": False,
    },
    "C_ECHO_RSP": {
        "affected_sop_class_uid": VERIFICATION,
        "command_field": 0x8030,
        "message_id_being_responded_to": 7,
        "data_set_type": 0x0101,
        "has_data_set": False,
        "status": 0x0000,
    },
    "C_STORE_RQ": {
        "affected_sop_class_uid": CT,
        "command_field": 0x0001,
        "message_id": 1,
        "priority": 2,
        "data_set_type": 1,
        "has_data_set": True,
        "affected_sop_instance_uid": "1.2.3.4.5.6.7.89",
        "move_originator_ae": "ARCHIVE",
        "move_originator_message_id": 77,
    },
    "C_STORE_RQ_ODD": {
        "command_field": 0x0001,
        "message_id": 0,
        "data_set_type": 0x0202,
        "has_data_set": True,
        "affected_sop_instance_uid": "1.2.3",
        "requested_sop_instance_uid": "1.9",
        "requested_sop_class_uid": "1.7",
        "move_originator_ae": "ARCHIVE",
    },
    "C_STORE_RSP_FAILURE": {
        "affected_sop_class_uid": CT,
        "command_field": 0x8001,
        "message_id_being_responded_to": 1,
        "data_set_type": 0x0101,
        "has_data_set": False,
        "status": 0xC000,
        "offending_elements": (0x0020000D, 0x0020000E),
        "error_comment": "no study at all",
        "error_id": 42,
        "affected_sop_instance_uid": "1.2.3.4.5.6.7.89",
    },
    "N_ACTION_RQ": {
        "requested_sop_class_uid": COMMITMENT,
        "command_field": 0x0130,
        "message_id": 3,
        "data_set_type": 1,
        "has_data_set": True,
        "requested_sop_instance_uid": f"{COMMITMENT}.1",
        "action_type_id": 1,
    },
    "N_EVENT_REPORT_RQ": {
        "affected_sop_class_uid": COMMITMENT,
        "command_field": 0x0100,
        "message_id": 4,
        "data_set_type": 1,
        "has_data_set": True,
        "affected_sop_instance_uid": f"{COMMITMENT}.1",
        "event_type_id": 2,
    },
}
EMPTY = {**dict.fromkeys(PROPERTIES), "offending_elements": ()}


def element(number: int, value: bytes, group: int = 0) -> bytes:
    return struct.pack("<HHL", group, number, len(value)) + value


def scanned(elements: dict[int, bytes]) -> dict[str, object]:
    """What `scan` should say, from the elements."""
    fields: dict[str, object] = {}
    for name, number in NUMBERS.items():
        if number in elements:
            value = elements[number]
            fields[name] = struct.unpack("<H", value)[0] if len(value) == 2 else None
    for what, affected, requested in (
        ("sop_class", 0x0002, 0x0003),
        ("sop_instance", 0x1000, 0x1001),
    ):
        for whose, number in (("affected", affected), ("requested", requested)):
            if number in elements:
                raw = elements[number]
                fields[f"{whose}_{what}"] = (raw, raw.strip(b"\0 \r\n"))
                break
    if 0x1030 in elements:
        raw = elements[0x1030]
        fields["move_originator_ae"] = (raw, raw.split(b"\0")[0].strip(b" "))
    return fields


def check(data: bytes) -> bool:
    """Codec, scan and reference agree on `data`; whether they take it."""
    try:
        expected = reference_pdu.command_elements(data)
    except reference_pdu.Refused:
        with pytest.raises(CommandError) as refused:
            decode_command(data)
        assert 0 <= refused.value.offset < len(data)
        with pytest.raises(CommandError) as also_refused:
            scan(data)
        assert also_refused.value.offset == refused.value.offset
        return False
    assert decode_command(data).elements == expected
    assert scan(data) == scanned(expected)
    return True


# --- decoding -------------------------------------------------------------------------------------


def test_every_command_of_the_wire_has_a_meaning() -> None:
    assert wire.COMMANDS.keys() == MEANINGS.keys()


@pytest.mark.parametrize("name", MEANINGS)
def test_decode(name: str) -> None:
    decoded = decode_command(wire.COMMANDS[name])
    assert {p: getattr(decoded, p) for p in PROPERTIES} == {**EMPTY, **MEANINGS[name]}
    assert check(wire.COMMANDS[name])


def test_nothing_at_all() -> None:
    decoded = decode_command(b"")
    assert decoded.elements == {}
    assert {p: getattr(decoded, p) for p in PROPERTIES} == EMPTY
    assert scan(b"") == {}


@pytest.mark.parametrize("name", MEANINGS)
def test_any_buffer_will_do(name: str) -> None:
    data = wire.COMMANDS[name]
    changing = bytearray(data)
    decoded = decode_command(changing)
    assert decode_command(memoryview(data)) == decoded
    changing[:] = b"\xff" * len(changing)
    assert decoded == decode_command(data)


@pytest.mark.parametrize("name", MEANINGS)
def test_cut_anywhere_or_continued(name: str) -> None:
    data = wire.COMMANDS[name]
    ends = [len(data)]
    for number, value in reversed(decode_in_order(data)):
        assert number in decode_command(data).elements
        ends.append(ends[-1] - 8 - len(value))
    for size in range(len(data)):
        # A command set has no length of its own: a cut between elements does not show.
        assert check(data[:size]) == (size in ends)
    assert not check(data + b"\0")
    assert not check(data + bytes(7))
    assert check(data + bytes(8))


def decode_in_order(data: bytes) -> list[tuple[int, bytes]]:
    return list(reference_pdu.elements_in_order(data))


@pytest.mark.parametrize("name", MEANINGS)
def test_every_byte_changed(name: str) -> None:
    data = wire.COMMANDS[name]
    for place in range(len(data)):
        for value in (0x00, 0x01, 0x7F, 0xFF, data[place] ^ 1, data[place] ^ 0x20):
            check(data[:place] + bytes((value,)) + data[place + 1 :])


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(b"\0", id="1 byte"),
        pytest.param(bytes(7), id="7 bytes"),
        pytest.param(element(0x0100, b"\1\0")[:-1], id="value cut"),
        pytest.param(b"\0\0\0\1\xff\xff\xff\xff\1\0", id="undefined length"),
        pytest.param(b"\0\0\0\1\xf8\xff\xff\xff\1\0", id="length that wraps with its header"),
        pytest.param(element(0x0016, b"1.2", group=8), id="group 0008"),
        pytest.param(element(0x0100, b"\1\0", group=0x0100), id="group 0100"),
    ],
)
def test_error_names_the_place_of_the_element(broken: bytes) -> None:
    for before in (b"", wire.C_ECHO_RQ):
        assert not check(before + broken)
        with pytest.raises(CodecError) as refused:
            decode_command(before + broken)
        assert refused.value.offset == len(before)


@pytest.mark.parametrize("size", [0, 1, 3, 4])
def test_number_of_a_wrong_length(size: int) -> None:
    for name, number in NUMBERS.items():
        data = element(number, b"\1" * size) + element(number, b"\2\0")
        assert getattr(decode_command(data), name) is None
        assert scan(data) == {name: None}
        data = element(number, b"\2\0") + element(number, b"\1" * size)
        assert getattr(decode_command(data), name) == 2
        assert scan(data) == {name: 2}


@pytest.mark.parametrize(("affected", "requested"), [(0x0002, 0x0003), (0x1000, 0x1001)])
def test_affected_goes_before_requested(affected: int, requested: int) -> None:
    one, two, three = (
        element(affected, b"1.2"),
        element(requested, b"1.3"),
        element(affected, b"1.4"),
    )
    for data in (one + two, two + one, two + one + three, one + three + two, one + two + two):
        assert [raw for raw, _ in scan(data).values()] == [b"1.2"]  # type: ignore[misc]
        assert check(data)
    assert check(two + two)
    assert check(element(affected, b"") + two)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\0",
        b" \0 \0",
        b"\r\n 1.2.3\r\n\0",
        b"\n",
        b"1.2",
        b"1.2\0",
        b"1.2 ",
        b" 1.2",
        b"1\0002\0",
        b"\xff\xfe",
        b"1" * 80,
    ],
)
def test_trimming(raw: bytes) -> None:
    data = element(0x0002, raw) + element(0x1030, raw)
    assert check(data)
    decoded = decode_command(data)
    assert decoded.affected_sop_class_uid == raw.strip(b"\0 \r\n").decode("latin-1")
    assert decoded.move_originator_ae == raw.partition(b"\0")[0].strip(b" ").decode("latin-1")
    assert decoded.elements == {0x0002: raw, 0x1030: raw}


@pytest.mark.parametrize("value", [0x0000, 0x0001, 0x0102, 0x0202, 0xFFFF])
def test_any_data_set_type_but_one_means_a_data_set(value: int) -> None:
    assert decode_command(encode_command({0x0800: value})).has_data_set
    assert not decode_command(encode_command({0x0800: 0x0101})).has_data_set


@pytest.mark.parametrize("value", [None, b"", b"\1", b"\1\1\0", b"\1\1\0\0"])
def test_without_a_usable_data_set_type_nobody_knows(value: bytes | None) -> None:
    assert CommandSet({} if value is None else {0x0800: value}).has_data_set is None


def test_offending_elements_leave_a_cut_tag_out() -> None:
    for size in range(9):
        decoded = decode_command(element(0x0901, b"\x20\0\x0d\0\x20\0\x0e\0"[:size]))
        assert decoded.offending_elements == (0x0020000D, 0x0020000E)[: size // 4]


def test_command_sets_are_values() -> None:
    one = decode_command(wire.C_ECHO_RQ)
    assert one == CommandSet(one.elements)
    assert one != decode_command(wire.C_ECHO_RSP)
    assert one != one.elements
    assert repr(CommandSet({0x0100: b"\1\0"})) == r"CommandSet({0x0100: b'\x01\x00'})"
    with pytest.raises(AttributeError):
        one.elements = {}  # type: ignore[misc]
    with pytest.raises(AttributeError):
        one.status = 0  # type: ignore[misc]
    with pytest.raises(TypeError, match="unhashable"):
        hash(one)


# --- encoding -------------------------------------------------------------------------------------


def test_encode_gives_the_bytes_written_by_hand() -> None:
    assert (
        encode_command({0x0100: 0x0030, 0x0800: 0x0101, 0x0110: 7, 0x0002: VERIFICATION})
        == wire.C_ECHO_RQ
    )
    assert (
        encode_command(
            {
                0x0002: CT,
                0x0100: 1,
                0x0110: 1,
                0x0700: 2,
                0x0800: 1,
                0x1000: b"1.2.3.4.5.6.7.89",
                0x1030: "ARCHIVE",
                0x1031: 77,
            }
        )
        == wire.C_STORE_RQ
    )
    assert (
        encode_command(
            {
                0x0002: CT,
                0x0100: 0x8001,
                0x0120: 1,
                0x0800: 0x0101,
                0x0900: 0xC000,
                0x0901: (0x0020000D, 0x0020000E),
                0x0902: "no study at all",
                0x0903: 42,
                0x1000: "1.2.3.4.5.6.7.89",
            }
        )
        == wire.C_STORE_RSP_FAILURE
    )


@pytest.mark.parametrize("name", sorted(MEANINGS.keys() - {"C_STORE_RQ_ODD"}))
def test_encode_what_was_decoded(name: str) -> None:
    assert encode_command(decode_command(wire.COMMANDS[name]).elements) == wire.COMMANDS[name]


def test_group_length_is_computed() -> None:
    assert encode_command({}) == element(0x0000, bytes(4))
    assert encode_command({0x0000: b"\xff\xff\xff\xff"}) == element(0x0000, bytes(4))
    assert encode_command({0x0000: 9, 0x0900: 0}) == (
        element(0x0000, b"\x0a\0\0\0") + element(0x0900, bytes(2))
    )


@pytest.mark.parametrize(
    ("number", "value", "encoded"),
    [
        (0x0002, "1.2", b"1.2\0"),
        (0x1001, "1.23", b"1.23"),
        (0x1000, "1" * 64, b"1" * 64),
        (0x1030, "CT1", b"CT1 "),
        (0x0600, "A" * 16, b"A" * 16),
        (0x0902, "odd", b"odd "),
        (0x0902, "", b""),
        (0x0902, "x" * 70, b"x" * 64),
        (0x0902, "K\xf6ln\\\r\n\x7f\u2603", b"K?ln????? "),
        (0x1000, b"1.2 ", b"1.2 "),
        (0x1000, b"1.2", b"1.2\0"),
        (0x1030, b"CT1", b"CT1\0"),
        (0x0900, 0xFFFF, b"\xff\xff"),
        (0x1021, 0x0102, b"\2\1"),
        (0x0901, (), b""),
        (0x1005, (0xFFFE0001,), b"\xfe\xff\1\0"),
        (0x5555, b"\1", b"\1\0"),
    ],
)
def test_encode_value(
    number: int, value: int | bytes | str | tuple[int, ...], encoded: bytes
) -> None:
    data = encode_command({number: value})
    assert data[12:] == element(number, encoded)
    assert len(data) % 2 == 0


@pytest.mark.parametrize(
    "elements",
    [
        {0x0100: 0x10000},
        {0x0100: -1},
        {0x0100: "1"},
        {0x0100: (1,)},
        {0x0100: None},
        {0x0100: 1.0},
        {0x0100: bytearray(2)},
        {0x0002: 1},
        {0x0002: "1" * 65},
        {0x0002: "1.2.\xe9"},
        {0x1030: "A" * 17},
        {0x1030: "\u2603"},
        {0x1030: 1},
        {0x5555: 1},
        {0x5555: "text"},
        {0x0901: 1},
        {0x0901: (-1,)},
        {0x0901: (1 << 32,)},
        {0x10000: 1},
        {-1: 1},
        {1 << 40: b""},
    ],
    ids=repr,
)
def test_misuse(elements: dict[int, Any]) -> None:
    with pytest.raises(ValueError, match="command element"):
        encode_command(elements)


# --- round trips and random bytes -----------------------------------------------------------------

numbers = st.sampled_from(
    [0x0000, 0x0002, 0x0003, *NUMBERS.values(), 0x0901, 0x0902, 0x1000, 0x1001, 0x1030, 0x5555]
)
values = st.binary(max_size=20) | st.binary(min_size=2, max_size=2)


@many
@given(st.dictionaries(st.integers(1, 0xFFFF) | numbers.filter(bool), values))
def test_round_trip(elements: dict[int, bytes]) -> None:
    data = encode_command(elements)
    decoded = decode_command(data).elements
    assert struct.unpack("<L", decoded.pop(0x0000))[0] == len(data) - 12
    assert decoded == {n: v + b"\0" * (len(v) % 2) for n, v in elements.items()}
    assert list(decoded) == sorted(elements)
    assert check(data)


@many
@given(st.lists(st.builds(element, numbers, values)), st.binary(max_size=9))
def test_random_elements(elements: list[bytes], tail: bytes) -> None:
    data = b"".join(elements)
    assert check(data)
    check(data + tail)


@many
@given(st.binary(max_size=100))
def test_random_bytes(data: bytes) -> None:
    check(data)


# --- real messages --------------------------------------------------------------------------------


def messages(stream: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Context id, command set and data set of each message in a recorded stream."""
    command = data_set = b""
    for pdu in reference_pdu.split_stream(stream):
        if pdu[0] != 4:
            continue
        for context_id, control, fragment in decode_pdata(pdu):
            if control & 1:
                command += fragment
            else:
                data_set += fragment
            if control & 2 and not (control & 1 and decode_command(command).has_data_set):
                yield context_id, command, data_set
                command = data_set = b""


def recorded() -> dict[str, list[dict[str, Any]]]:
    """The streams whose messages are known."""
    return {name: told["messages"] for name, told in streams.told().items() if "messages" in told}


THEIR_NAMES = {
    "command_field": "command_field",
    "message_id": "message_id",
    "message_id_rsp_to": "message_id_being_responded_to",
    "priority": "priority",
    "data_set_type": "data_set_type",
    "status": "status",
    "affected_sop_class": "affected_sop_class_uid",
    "affected_sop_instance": "affected_sop_instance_uid",
    "requested_sop_class": "requested_sop_class_uid",
    "requested_sop_instance": "requested_sop_instance_uid",
    "move_originator_aet": "move_originator_ae",
    "move_originator_id": "move_originator_message_id",
    "action_type": "action_type_id",
}


def test_vectors_as_expected() -> None:
    seen = 0
    for name, expected in recorded().items():
        found = list(messages(streams.read(name)))
        assert len(found) == len(expected)
        for (context_id, command, data_set), what in zip(found, expected, strict=True):
            decoded = decode_command(command)
            assert context_id == what["pc"]
            for theirs, ours in THEIR_NAMES.items():
                assert getattr(decoded, ours) == what.get(theirs), (name, ours)
            if "dataset_bytes" in what:
                assert len(data_set) == what["dataset_bytes"]
                assert hashlib.sha256(data_set).hexdigest() == what["dataset_sha256"]
            assert check(command)
            seen += 1
    assert seen > 40


def test_mutated_vectors() -> None:
    rng = random.Random(1)
    taken = {True: 0, False: 0}
    commands = {command for name in recorded() for _, command, _ in messages(streams.read(name))}
    for command in sorted(commands):
        for _ in range(100):
            data = bytearray(command)
            for _ in range(rng.randint(1, 3)):
                place = rng.randrange(len(data))
                match rng.randrange(4):
                    case 0:
                        data[place] = rng.randrange(256)
                    case 1:
                        del data[place : place + rng.choice((1, 2, 10))]
                    case 2:
                        data[place:place] = rng.randbytes(rng.choice((1, 2)))
                    case 3:
                        data[place:place] = data[place : place + 10]
                if not data:
                    break
            taken[check(bytes(data))] += 1
    assert min(taken.values()) > 100


@pytest.mark.parametrize("name", sorted(MEANINGS.keys() - {"C_STORE_RQ_ODD"}))
def test_another_stack_reads_the_same(name: str) -> None:
    dsutils = pytest.importorskip("pynetdicom.dsutils")
    theirs = dsutils.decode(BytesIO(wire.COMMANDS[name]), True, True)
    ours = decode_command(wire.COMMANDS[name])
    assert [e.tag.element for e in theirs] == list(ours.elements)
    for keyword, value in (
        ("AffectedSOPClassUID", ours.affected_sop_class_uid),
        ("AffectedSOPInstanceUID", ours.affected_sop_instance_uid),
        ("RequestedSOPClassUID", ours.requested_sop_class_uid),
        ("RequestedSOPInstanceUID", ours.requested_sop_instance_uid),
        ("CommandField", ours.command_field),
        ("MessageID", ours.message_id),
        ("MessageIDBeingRespondedTo", ours.message_id_being_responded_to),
        ("Priority", ours.priority),
        ("CommandDataSetType", ours.data_set_type),
        ("Status", ours.status),
        ("ErrorComment", ours.error_comment),
        ("ErrorID", ours.error_id),
        ("MoveOriginatorApplicationEntityTitle", ours.move_originator_ae),
        ("MoveOriginatorMessageID", ours.move_originator_message_id),
        ("ActionTypeID", ours.action_type_id),
        ("EventTypeID", ours.event_type_id),
    ):
        assert theirs.get(keyword) == value, keyword
    offending = theirs.get("OffendingElement", [])
    assert tuple(int(tag) for tag in offending) == ours.offending_elements
