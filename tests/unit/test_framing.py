"""Framing: every way a stream can be cut, a plain reader of whole streams, real associations."""

from __future__ import annotations

import hashlib
import random
import struct
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastscp_ext.wire.command import decode_command, scan
from fastscp_ext.wire.framing import PDUStream
from tests import reference_framing, reference_pdu, streams, wire
from tests.reference_framing import Frame, merged

many = settings(max_examples=200, deadline=None, derandomize=True)

MIB = 1024 * 1024
ABORT_REASONS = (1, 5, 6)
ECHO = wire.C_ECHO_RQ  # no data set follows
STORE = wire.C_STORE_RQ  # one does


def header(kind: int, size: int) -> bytes:
    return struct.pack(">BxL", kind, size)


def pdv(context_id: int, control: int, fragment: bytes, length: int | None = None) -> bytes:
    length = len(fragment) + 2 if length is None else length
    return struct.pack(">LBB", length, context_id, control) + fragment


def pdata(*pdvs: bytes) -> bytes:
    body = b"".join(pdvs)
    return header(4, len(body)) + body


def fed(pieces: list[bytes], contexts: tuple[int, ...] | None = None) -> list[Frame]:
    stream = PDUStream(contexts)
    return merged([frame for piece in pieces for frame in stream.feed(piece)])


def cuts(data: bytes) -> list[list[bytes]]:
    """Whole; byte by byte; in two, at every offset or, of a long stream, at some."""
    every = range(1, len(data))
    places = every if len(data) <= 1500 else sorted(random.Random(1).sample(every, 200))
    ways = [[data], [data[at : at + 1] for at in range(len(data))]]
    return ways + [[data[:at], data[at:]] for at in places]


def check(data: bytes, contexts: tuple[int, ...] | None = None) -> list[Frame]:
    """The frames of `data`: those of the reference, however it is cut."""
    expected = reference_framing.frames(data, contexts)
    for pieces in cuts(data):
        frames: list[Frame] = []
        stream = PDUStream(contexts)
        for piece in pieces:
            frames += stream.feed(piece)
            if frames and frames[-1][0] == "error":
                break
        assert merged(frames) == expected
    return expected


def last_error(data: bytes, contexts: tuple[int, ...] | None = None) -> tuple[int, int, str]:
    kind, source, reason, text = check(data, contexts)[-1]
    assert kind == "error"
    return source, reason, text


# Streams that are in order --------------------------------------------------------------------


@pytest.mark.parametrize("name", wire.PDUS)
def test_every_pdu_of_the_wire(name: str) -> None:
    data = wire.PDUS[name]
    kind, size = data[0], len(data) - 6
    frames = check(data)
    assert frames[0] == ("header", kind, size)
    if kind != 4:
        assert frames[1:] == [("pdu", data)]
    for tail in (b"\0", b"\5\0\0\0\0", data):
        assert check(data + tail)[: len(frames)] == frames


def test_nothing() -> None:
    stream = PDUStream()
    assert stream.feed(b"") == []
    assert not stream.mid_message


def test_a_message_in_one_pdu_or_many() -> None:
    data = bytes(range(256))
    frames = [("command", 1, STORE), ("data", 1, data, True)]
    assert check(pdata(pdv(1, 3, STORE), pdv(1, 2, data)))[1:] == frames
    in_many = b"".join(
        [pdata(pdv(1, 1, STORE[at : at + 9])) for at in range(0, len(STORE), 9)]
        + [pdata(pdv(1, 3, b""))]
        + [pdata(pdv(1, 0, data[at : at + 2])) for at in range(0, 256, 2)]
        + [pdata(pdv(1, 2, b""))]
    )  # fmt: skip
    found = [frame for frame in check(in_many) if frame[0] != "header"]
    assert found[0] == frames[0]
    assert b"".join(frame[2] for frame in found[1:]) == data
    assert [frame[3] for frame in found[1:]] == [False] * 128 + [True]


def test_two_messages_in_one_pdu() -> None:
    frames = check(pdata(pdv(1, 3, ECHO), pdv(3, 3, STORE), pdv(3, 2, b"x"), pdv(1, 3, ECHO)))
    assert [frame[:2] for frame in frames[1:]] == [
        ("command", 1), ("command", 3), ("data", 3), ("command", 1),
    ]  # fmt: skip


def test_empty_fragments_and_high_control_bits() -> None:
    stream = pdata(
        pdv(1, 0xFD, b""), pdv(1, 0xFF, STORE), pdv(1, 0xFC, b""), pdv(1, 0xFC, b"ab"),
        pdv(1, 0xFE, b""),
    )  # fmt: skip
    assert check(stream)[1:] == [("command", 1, STORE), ("data", 1, b"ab", True)]


@pytest.mark.parametrize("declared", [b"\1\0", b"\0\0", b"\2\2", b"\1", b"\1\1\0\0", b""])
def test_any_data_set_type_but_one_announces_a_data_set(declared: bytes) -> None:
    command = struct.pack("<HHL", 0, 0x0800, len(declared)) + declared
    assert check(pdata(pdv(1, 3, command), pdv(1, 2, b"x")))[-1] == ("data", 1, b"x", True)


@pytest.mark.parametrize("command", [b"", b"\0\0", struct.pack("<HHLH", 0, 0x0800, 2, 0x0101)])
def test_no_data_set_announced(command: bytes) -> None:
    assert check(pdata(pdv(1, 3, command), pdv(1, 3, ECHO)))[-1] == ("command", 1, ECHO)


def test_mid_message() -> None:
    stream = PDUStream()
    seen = []
    for piece in (header(4, 6), pdv(1, 1, b""), pdata(pdv(1, 3, STORE)), pdata(pdv(1, 0, b"x"))):
        stream.feed(piece)
        seen.append(stream.mid_message)
    stream.feed(pdata(pdv(1, 2, b"")))
    assert [*seen, stream.mid_message] == [False, True, True, True, False]


def test_any_buffer_will_do_and_none_is_kept() -> None:
    data = bytearray(pdata(pdv(1, 3, ECHO)))
    frames = PDUStream().feed(data)
    data[:] = bytes(len(data))
    assert frames[-1] == ("command", 1, ECHO)
    assert PDUStream().feed(memoryview(b"..\5\0\0\0\0\0")[2:])[-1] == ("pdu", b"\5\0\0\0\0\0")


def test_contexts_may_change_between_messages() -> None:
    stream = PDUStream([1])
    assert stream.feed(pdata(pdv(1, 3, ECHO)))[-1][0] == "command"
    stream.accept([3])
    assert stream.feed(pdata(pdv(3, 3, ECHO)))[-1][0] == "command"
    assert stream.feed(pdata(pdv(1, 3, ECHO)))[-1][0] == "error"


@pytest.mark.parametrize("contexts", [[256], [-1], ["1"]])
def test_context_ids_are_bytes(contexts: list[Any]) -> None:
    with pytest.raises((OverflowError, TypeError)):
        PDUStream(contexts)


# Streams that break the standard: (source, reason) is the A-ABORT's ------------------------------

IN_DATA = pdv(1, 3, STORE) + pdv(1, 0, b"ab")
CASES = {
    # a PDU type that does not exist: HTTP, TLS, HL7
    "http": (b"GET / HTTP/1.1\r\n", (2, 1)),
    "tls": (b"\x16\x03\x01\x02\x00\x01", (2, 1)),
    "type 0": (header(0, 4), (2, 1)),
    "type 8": (header(8, 4), (2, 1)),
    "type 8 between messages": (pdata(pdv(1, 3, ECHO)) + header(8, 4), (2, 1)),
    # lengths no request has
    "rq of 67 bytes": (header(1, 67), (2, 6)),
    "rq above 1 MiB": (header(1, MIB + 1), (2, 6)),
    "rq of 4 GiB": (header(1, 0xFFFFFFFF), (2, 6)),
    "ac of 0 bytes": (header(2, 0), (2, 6)),
    # P-DATA-TF: the hard cap, no PDV, too few bytes for one
    "p-data of 4 GiB": (header(4, 0xFFFFFFFF), (2, 6)),
    "p-data above the cap": (header(4, 16 * MIB + 1), (2, 6)),
    "p-data of 0 bytes": (header(4, 0), (2, 6)),
    "p-data of 5 bytes": (header(4, 5), (2, 6)),
    # PDVs: no room for their own fields, past the PDU, bytes left over
    "pdv length 0": (header(4, 6) + pdv(1, 3, b"", 0), (2, 6)),
    "pdv length 1": (header(4, 6) + pdv(1, 3, b"", 1), (2, 6)),
    "pdv past its pdu": (header(4, 7) + pdv(1, 3, b"x", 4), (2, 6)),
    "pdv of 4 GiB": (header(4, 7) + pdv(1, 3, b"x", 0xFFFFFFFF), (2, 6)),
    "1 byte left": (pdata(pdv(1, 3, ECHO), b"\0"), (2, 6)),
    "5 bytes left": (pdata(pdv(1, 3, ECHO), b"\0\0\0\2\1"), (2, 6)),
    # release and abort
    "release of 65 bytes": (header(5, 65), (2, 6)),
    "abort of 65 bytes": (header(7, 65), (2, 6)),
    "reject of 4 GiB": (header(3, 0xFFFFFFFF), (2, 6)),
    # presentation contexts
    "refused context": (pdata(pdv(5, 3, ECHO)), (2, 6)),
    "even context": (pdata(pdv(2, 3, ECHO)), (2, 6)),
    "context 0": (pdata(pdv(0, 3, ECHO)), (2, 6)),
    "context changes in a command": (pdata(pdv(1, 1, ECHO[:9]), pdv(3, 3, ECHO[9:])), (2, 5)),
    "context changes in a data set": (pdata(IN_DATA, pdv(3, 2, b"c")), (2, 5)),
    "refused context in a data set": (pdata(IN_DATA, pdv(5, 2, b"c")), (2, 5)),
    # fragments out of order
    "data first": (pdata(pdv(1, 2, b"x")), (2, 5)),
    "data after a message without": (pdata(pdv(1, 3, ECHO), pdv(1, 2, b"x")), (2, 5)),
    "data inside a command": (pdata(pdv(1, 1, STORE[:9]), pdv(1, 0, b"x")), (2, 5)),
    "data behind the last fragment": (pdata(IN_DATA, pdv(1, 2, b""), pdv(1, 2, b"x")), (2, 5)),
    "command inside a data set": (pdata(IN_DATA, pdv(1, 3, ECHO)), (2, 5)),
    # command sets without an end
    "command above 64 KiB": (header(4, 70000) + pdv(1, 1, b"", 65539), (0, 0)),
    "command growing past 64 KiB": (
        pdata(pdv(1, 1, bytes(65536)), pdv(1, 1, b""), pdv(1, 1, b"x")), (0, 0),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_complaints(name: str) -> None:
    stream, expected = CASES[name]
    assert last_error(stream, (1, 3))[:2] == expected


@pytest.mark.parametrize("name", CASES)
def test_a_complaint_is_final_and_needs_no_more_bytes(name: str) -> None:
    data, _ = CASES[name]
    stream = PDUStream((1, 3))
    error = stream.feed(data)[-1]
    assert error[0] == "error"
    for more in (b"", b"\0", wire.ABORT_USER, data):
        assert stream.feed(more) == ([error] if more else [])


@pytest.mark.parametrize("size", [0, 1, 4, 63, 64])
@pytest.mark.parametrize("kind", [3, 5, 6, 7])
def test_short_pdus_of_any_small_length(kind: int, size: int) -> None:
    data = header(kind, size) + bytes(size)
    assert check(data) == [("header", kind, size), ("pdu", data)]


@pytest.mark.parametrize("size", [68, 511, 512, 513, 1300])
def test_associate_pdus_of_any_length(size: int) -> None:
    data = header(1, size) + bytes(range(256)) * 6
    data = data[: size + 6]
    assert check(data + wire.ABORT_USER)[1] == ("pdu", data)


def test_longest_associate_pdu() -> None:
    data = header(1, MIB) + random.Random(1).randbytes(MIB)
    for step in (len(data), 70_001, 1000):
        pieces = [data[at : at + step] for at in range(0, len(data), step)]
        assert fed(pieces) == [("header", 1, MIB), ("pdu", data)]


def test_longest_command_set() -> None:
    command = random.Random(1).randbytes(65536)
    stream = pdata(*[pdv(1, 1, command[at : at + 5000]) for at in range(0, 65536, 5000)])
    for step in (len(stream), 997):
        pieces = [stream[at : at + step] for at in range(0, len(stream), step)]
        assert fed([*pieces, pdata(pdv(1, 3, b""))])[-1] == ("command", 1, command)


def test_cap_of_p_data() -> None:
    assert PDUStream(None, 100).feed(header(4, 101))[-1][0] == "error"
    assert PDUStream(None, 100).feed(header(4, 100)) == [("header", 4, 100)]


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def test_memory_grows_with_what_came_not_with_what_was_announced() -> None:
    began = resident()
    streams = [PDUStream() for _ in range(1000)]
    for number, stream in enumerate(streams):
        if number % 2:
            stream.feed(header(1, MIB) + bytes(100))
        else:
            stream.feed(header(4, 16 * MIB) + pdv(1, 1, bytes(100), 60000))
    assert resident() - began < 16 * MIB
    assert all(stream.feed(b"\0" * 10) == [] for stream in streams)


# Generated streams ------------------------------------------------------------------------------

CONTEXTS = (1, 3, 255)
fragments = st.sampled_from([b"", b"x", b"ab", bytes(40), ECHO, STORE, STORE[:11], STORE[11:]])
pdvs = st.builds(
    pdv,
    st.sampled_from([1, 1, 1, 3, 255, 2]),
    st.sampled_from([0, 1, 2, 2, 3, 3, 3, 0xFF]),
    fragments,
    st.sampled_from([None] * 12 + [0, 1, 7, 100, 0xFFFFFFFF]),
)
data_pdus = st.builds(lambda listed: pdata(*listed), st.lists(pdvs, min_size=1, max_size=4))
other_pdus = st.sampled_from([*wire.PDUS.values(), header(9, 0), header(4, 3), header(5, 70)])
generated = st.builds(
    lambda parts, tail: b"".join(parts) + tail,
    st.lists(st.one_of(data_pdus, data_pdus, data_pdus, other_pdus), max_size=5),
    st.sampled_from([b"", b"", b"\4", b"\4\0\0\0\0\x08\0\0"]),
)


@many
@given(generated, st.booleans(), st.lists(st.integers(0, 1500), max_size=6))
def test_streams(data: bytes, limited: bool, places: list[int]) -> None:
    contexts = CONTEXTS if limited else None
    places = sorted({0, *(place for place in places if place < len(data)), len(data)})
    pieces = [data[a:b] for a, b in pairwise(places)]
    expected = reference_framing.frames(data, contexts)
    stream = PDUStream(contexts)
    frames: list[Frame] = []
    for piece in pieces:
        if not frames or frames[-1][0] != "error":
            frames += stream.feed(piece)
    assert merged(frames) == expected


@many
@given(st.binary(max_size=60), st.sampled_from([b"", header(4, 40), pdata(pdv(1, 3, STORE))]))
def test_random_bytes(data: bytes, before: bytes) -> None:
    check(before + data, CONTEXTS)


# Real associations ------------------------------------------------------------------------------

NAMES = {
    1: "A-ASSOCIATE-RQ", 2: "A-ASSOCIATE-AC", 3: "A-ASSOCIATE-RJ", 4: "P-DATA-TF",
    5: "A-RELEASE-RQ", 6: "A-RELEASE-RP", 7: "A-ABORT",
}  # fmt: skip


def shortened(names: list[str]) -> list[str]:
    """As expect.json lists PDUs: of many in a row the first, the last and their number."""
    if len(names) < 60:
        return names
    return [*names[:3], f"... {len(names) - 5} more P-DATA-TF ...", *names[-2:]]


@pytest.mark.parametrize("name", streams.told())
def test_vectors_as_expected(name: str) -> None:
    told = streams.told()[name]
    data = streams.read(name)
    frames = fed([data])
    sizes = [(frame[1], frame[2]) for frame in frames if frame[0] == "header"]
    assert shortened([f"{NAMES[kind]}({size})" for kind, size in sizes]) == told["pdus"]
    whole = [frame[1] for frame in frames if frame[0] == "pdu"]
    assert whole == [pdu for pdu in reference_pdu.split_stream(data) if pdu[0] != 4]
    messages: list[tuple[int, bytes, bytes]] = []
    for frame in frames:
        if frame[0] == "command":
            messages.append((frame[1], frame[2], b""))
        elif frame[0] == "data":
            context_id, command, before = messages.pop()
            assert frame[1] == context_id
            messages.append((context_id, command, before + frame[2]))
    assert len(messages) == len(told.get("messages", []))
    for (context_id, command, data_set), expected in zip(
        messages, told.get("messages", []), strict=True
    ):
        assert context_id == expected["pc"]
        fields = scan(command)
        for field in ("command_field", "message_id", "priority", "data_set_type", "status"):
            assert fields.get(field) == expected.get(field)
        elements = decode_command(command)
        if "affected_sop_instance" in expected:
            assert elements.affected_sop_instance_uid == expected["affected_sop_instance"].rstrip()
        assert len(data_set) == expected.get("dataset_bytes", 0)
        if data_set:
            assert hashlib.sha256(data_set).hexdigest() == expected["dataset_sha256"]


def test_vectors_cut() -> None:
    rng = random.Random(1)
    for name in streams.names("*"):
        data = streams.read(name)
        expected = reference_framing.frames(data)
        for step in (1, 1460, rng.randrange(2, 40)):
            stream = PDUStream()
            frames: list[Frame] = []
            for at in range(0, len(data), step):
                frames += stream.feed(data[at : at + step])
                if frames and frames[-1][0] == "error":
                    break
            assert merged(frames) == expected, name


BAD = {
    "bad_http_get": (2, 1),
    "bad_tls_client_hello": (2, 1),
    "bad_unknown_first_pdu_type": (2, 1),
    "bad_unknown_pdu_type": (2, 1),
    "bad_first_pdu_length_ffffffff": (2, 6),
    "bad_pdu_length_ffffffff": (2, 6),
    "bad_pdata_empty": (2, 6),
    "bad_pdv_length_0": (2, 6),
    "bad_pdv_length_1": (2, 6),
    "bad_pdv_longer_than_pdu": (2, 6),
    "bad_unknown_context_id": (2, 6),
    "bad_even_context_id": (2, 6),
    "bad_data_before_command": (2, 5),
    "bad_command_inside_data": (2, 5),
    "bad_context_changes_in_data": (2, 5),
}


def kind_of(name: str) -> str:
    """What a stream shows, whosever it is."""
    return name.partition("/")[2].removesuffix(".c2s")


@pytest.mark.parametrize("name", streams.names(*(f"*/{name}.c2s" for name in BAD)))
def test_bad_vectors(name: str) -> None:
    data = streams.read(name)
    for pieces in ([data], [data[at : at + 1] for at in range(len(data))]):
        stream = PDUStream([1])
        frames = [frame for piece in pieces for frame in stream.feed(piece)]
        errors = [frame for frame in frames if frame[0] == "error"]
        assert errors[0][1:3] == BAD[kind_of(name)]
        assert set(errors) == {errors[0]}


def test_the_other_bad_vectors_are_framed_in_peace() -> None:
    """What is wrong with them lies deeper, or in the order of PDUs."""
    for name in streams.names("*/bad_*.c2s"):
        if kind_of(name) not in BAD:
            assert all(frame[0] != "error" for frame in fed([streams.read(name)])), name
