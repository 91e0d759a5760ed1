"""What must hold for any bytes: one function per part of the codec, chosen by the first byte.

An input is: target, option byte, cut byte, allocation byte, then the bytes under test. The cut byte
seeds how the bytes are sliced where they may be; a non-zero allocation byte makes that allocation
of the codec fail, in builds that can.
"""

from __future__ import annotations

import atexit
import os
import random
import shutil
import socket
import struct
import tempfile
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from fastscp_ext.dataset.head import part10_head, part10_head_of_file
from fastscp_ext.dataset.layout import Layout, LayoutError
from fastscp_ext.dataset.part10 import build_meta, meta_values, strip_embedded
from fastscp_ext.dataset.syntaxes import encoding_of
from fastscp_ext.dataset.tap import Tap
from fastscp_ext.dataset.uid import UID_AS_NAME, UID_STRICT, UID_USABLE, uid_grade
from fastscp_ext.errors import CodecError, CommandError, PDUError, ProxyHeaderError
from fastscp_ext.send.parcel import Parcel
from fastscp_ext.send.sender import Sender
from fastscp_ext.wire.command import decode_command, encode_command, scan
from fastscp_ext.wire.framing import PDUStream
from fastscp_ext.wire.pdu import (
    decode_abort,
    decode_associate_ac,
    decode_associate_rj,
    decode_associate_rq,
    decode_pdata,
    decode_pdu,
    decode_release_rp,
    decode_release_rq,
    encode_abort,
    encode_associate_ac,
    encode_associate_rj,
    encode_associate_rq,
    encode_pdata,
    encode_release_rp,
    encode_release_rq,
)
from fastscp_ext.wire.proxy import ProxyHeader
from fastscp_ext.wire.record import tls_records
from tests import (
    reference_framing,
    reference_head,
    reference_layout,
    reference_part10,
    reference_pdu,
    reference_proxy,
    reference_record,
    reference_sender,
    reference_tap,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from typing_extensions import Buffer

    from tests.reference_framing import Frame

try:
    from tests.fuzz.exact import Exact, guard, refuse_allocation
except ModuleNotFoundError:
    # An ordinary build: the same checks, nobody watching the memory.
    Exact = bytes  # type: ignore[assignment, misc]

    def guard(buffer: object, size: int) -> None: ...
    def refuse_allocation(countdown: int) -> None: ...


__all__ = ["HEADER", "LAYOUTS", "TARGETS", "check", "guard", "pack", "refuse_allocation"]

HEADER = 4  # bytes in front of the ones under test
STREAM_CAP = 8192  # the longest P-DATA-TF body in target `framing` with an odd option


class Input(NamedTuple):
    option: int
    cut: int
    allocation: int
    data: bytes


def slices(data: bytes, seed: int) -> Iterator[bytes]:
    """`data` cut into slices: bytes for seed 1, else mostly short ones with a few long ones."""
    rng = random.Random(seed)
    at = 0
    while at < len(data):
        size = 1 if seed == 1 else rng.choice((1, 2, 3, 5, 6, 8, 12, 64, 138, 700, 5000))
        yield data[at : at + size]
        at += size


# Framing -------------------------------------------------------------------------------------

ACCEPTED = (1, 3, 5, 255)


def stream_frames(given: Input, pieces: Iterator[bytes] | list[bytes]) -> list[Frame]:
    cap = STREAM_CAP if given.option & 2 else 1 << 24
    stream = PDUStream(ACCEPTED if given.option & 1 else None, cap)
    found: list[Frame] = []
    for piece in pieces:
        frames = stream.feed(Exact(piece))
        assert not found or found[-1][0] != "error" or frames == [found[-1]]
        if not found or found[-1][0] != "error":
            found += frames
    return reference_framing.merged(found)


def framing(given: Input) -> None:
    if given.allocation:
        refuse_allocation(given.allocation)
        stream_frames(given, slices(given.data, given.cut))
        refuse_allocation(0)
        return
    contexts = ACCEPTED if given.option & 1 else None
    cap = STREAM_CAP if given.option & 2 else 1 << 24
    expected = reference_framing.frames(given.data, contexts, cap)
    assert stream_frames(given, [given.data]) == expected
    assert stream_frames(given, slices(given.data, given.cut)) == expected


# PDUs ----------------------------------------------------------------------------------------

DECODERS: dict[int, Callable[[Buffer], object]] = {
    1: decode_associate_rq,
    2: decode_associate_ac,
    3: decode_associate_rj,
    4: decode_pdata,
    5: decode_release_rq,
    6: decode_release_rp,
    7: decode_abort,
}
Encoder: TypeAlias = "Callable[[object], bytes]"
ENCODERS: dict[int, Encoder] = {
    1: encode_associate_rq,  # type: ignore[dict-item]
    2: encode_associate_ac,  # type: ignore[dict-item]
    3: encode_associate_rj,  # type: ignore[dict-item]
    4: encode_pdata,  # type: ignore[dict-item]
    5: encode_release_rq,  # type: ignore[dict-item]
    6: encode_release_rp,  # type: ignore[dict-item]
    7: encode_abort,  # type: ignore[dict-item]
}


def pdu(given: Input) -> None:
    data = given.data
    if given.option & 1 and len(data) >= 6:
        # A length that fits, so that most inputs get past the header.
        data = data[:2] + (len(data) - 6).to_bytes(4, "big") + data[6:]
    try:
        expected: object = reference_pdu.pdu(data)
    except reference_pdu.Refused:
        expected = None
    decoded: object = None
    refused: PDUError | None = None
    try:
        decoded = decode_pdu(Exact(data))
    except PDUError as error:
        refused = error
    assert decoded == expected
    assert refused is None or 0 <= refused.offset <= len(data)
    assert refused is None or refused.reason in (1, 2, 6)
    wanted = given.option >> 1 & 7
    if wanted in DECODERS:
        try:
            assert DECODERS[wanted](Exact(data)) == expected
            assert data[0] == wanted
        except PDUError:
            assert expected is None or data[0] != wanted
    if decoded is None:
        return
    kind = data[0]
    try:
        encoded = ENCODERS[kind](decoded)
    except ValueError:
        # What may be received and not sent, such as a UID of 65 bytes.
        return
    assert decode_pdu(Exact(encoded)) == decoded
    assert ENCODERS[kind](decode_pdu(encoded)) == encoded


# Command sets --------------------------------------------------------------------------------

# Of the elements `scan` gives as numbers.
NUMBERS = {
    "command_field": 0x0100,
    "message_id": 0x0110,
    "message_id_being_responded_to": 0x0120,
    "data_set_type": 0x0800,
    "priority": 0x0700,
    "status": 0x0900,
    "move_originator_message_id": 0x1031,
}


def expected_scan(elements: dict[int, bytes]) -> dict[str, object]:
    fields: dict[str, object] = {}
    for name, number in NUMBERS.items():
        if number in elements:
            value = elements[number]
            fields[name] = int.from_bytes(value, "little") if len(value) == 2 else None
    for name, affected, requested in (("class", 0x0002, 0x0003), ("instance", 0x1000, 0x1001)):
        for whose, number in (("affected", affected), ("requested", requested)):
            if number in elements:
                fields[f"{whose}_sop_{name}"] = elements[number], elements[number].strip(b"\0 \r\n")
                break
    if 0x1030 in elements:
        raw = elements[0x1030]
        fields["move_originator_ae"] = raw, raw.split(b"\0")[0].strip(b" ")
    return fields


def command(given: Input) -> None:
    data = given.data
    try:
        elements = reference_pdu.command_elements(data)
    except reference_pdu.Refused:
        for decode in (decode_command, scan):
            refused: CommandError | None = None
            try:
                decode(Exact(data))
            except CommandError as error:
                refused = error
            assert refused is not None
            assert 0 <= refused.offset <= len(data)
        return
    assert decode_command(Exact(data)).elements == elements
    assert scan(Exact(data)) == expected_scan(elements)
    encoded = encode_command(elements)
    again = decode_command(Exact(encoded))
    assert encode_command(again.elements) == encoded
    even = {number: value + b"\0" * (len(value) % 2) for number, value in elements.items()}
    even[0] = (len(encoded) - 12).to_bytes(4, "little")
    assert again.elements == even
    for number, uid in (
        (0x0002, again.affected_sop_class_uid), (0x1001, again.requested_sop_instance_uid),
    ):  # fmt: skip
        raw = elements.get(number)
        assert uid == (None if raw is None else raw.strip(b"\0 \r\n").decode("latin-1"))
    _ = (again.has_data_set, again.offending_elements, again.error_comment, repr(again))


# The tap -------------------------------------------------------------------------------------

TapOutcome: TypeAlias = tuple[int, bool, bool, bool, dict[str, bytes], int, int, int]


def tapped(negotiated: int, pieces: Iterator[bytes] | list[bytes]) -> TapOutcome:
    tap = Tap(negotiated)
    settled: dict[str, bytes] | None = None
    for piece in pieces:
        tap.feed(Exact(piece))
        if settled is None and tap.settled:
            settled = tap.values()
    tap.end()
    values = tap.values()
    assert settled is None or settled == values
    return (
        tap.syntax, tap.sniffed, tap.stopped, tap.truncated, values,
        tap.stop_tag, tap.stop_at, tap.pixels,
    )  # fmt: skip


def tap(given: Input) -> None:
    negotiated = given.option & 3
    whole = tapped(negotiated, [given.data])
    assert tapped(negotiated, slices(given.data, given.cut)) == whole
    oracle = reference_tap.tap(given.data, negotiated)
    if oracle is not None:
        assert whole[:5] == (
            oracle.syntax, oracle.sniffed, oracle.stopped, oracle.truncated, oracle.values,
        )  # fmt: skip


# Part 10 headers -----------------------------------------------------------------------------


def part10(given: Input) -> None:
    if given.allocation:
        refuse_allocation(given.allocation)
        strip_embedded(given.data, given.cut % 7)
        refuse_allocation(0)
        return
    expected = reference_part10.strip(given.data)
    assert strip_embedded(given.data) == expected
    for step in (1, 2 + given.cut % 150):
        assert strip_embedded(given.data, step) == expected
    values = meta_values(given.data)
    if expected is not None:
        assert meta_values(given.data[: expected[0]]) == values
    parts = (given.data.split(b"|", 6) + [b""] * 7)[:7]
    meta = build_meta(*parts)
    assert len(meta) <= 768
    assert len(meta) % 2 == 0
    syntax = parts[2][:64].strip(b"\0 \r\n")
    assert strip_embedded(meta + b"\x08\0\x05\0CS\0\0") == (len(meta), syntax)


# Layout --------------------------------------------------------------------------------------

LAYOUTS = (
    "{StudyInstanceUID}/{SeriesInstanceUID}/{SOPInstanceUID}.dcm",
    "{PatientID}/{Modality}{StudyDate}/{SOPInstanceUID}.dcm",
    "{PatientID}.dcm/{AccessionNumber}.zst/x{SOPInstanceUID}.dcm",
    "/".join(["{PatientID}{AccessionNumber}"] * 20) + "/{SOPInstanceUID}.dcm",
    "{CallingAE}-{CalledAE}/{PatientID}.{AccessionNumber}/{SOPInstanceUID}_{Modality}.dcm",
)
LAYOUT_KEYS = (
    "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "PatientID", "AccessionNumber",
    "Modality", "StudyDate", "CallingAE",
)  # fmt: skip


def layout(given: Input) -> None:
    template = LAYOUTS[given.option % len(LAYOUTS)]
    suffix = ".dcm.zst" if given.option & 0x80 else ".dcm"
    values = dict(zip(LAYOUT_KEYS, given.data.split(b"|"), strict=False))
    expected = reference_layout.render(template, values, suffix)
    try:
        path = Layout(template, suffix.encode()).render(values)
    except LayoutError as error:
        assert expected is None, error  # noqa: PT017
    else:
        assert path == expected
    for uid in values.values():
        grade = uid_grade(uid)
        assert (grade >= UID_USABLE) == reference_layout.usable_uid(uid)
        assert (grade >= UID_AS_NAME) == reference_layout.valid_uid(uid)
        assert (grade == UID_STRICT) == reference_layout.strict_uid(uid)


# The head of a file to be sent ---------------------------------------------------------------


@cache
def scratch() -> Path:
    """A folder that goes with the process, or with whoever started it (`build.Build.run`)."""
    given = os.environ.get("FUZZ_SCRATCH")
    if given is not None:
        return Path(given)
    made = tempfile.mkdtemp(prefix="checks-")
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return Path(made)


Head: TypeAlias = tuple[str, str, str, int, bool]


def expected_head(data: bytes) -> Head | None:
    """From a plain reading of the File Meta Information, and the tap, which has its own oracle."""
    meta = reference_head.meta(data)
    if meta is None:
        return None
    sop_class, sop_instance, syntax, offset = meta
    rest = data[offset:]
    encoding, is_deflated = encoding_of(syntax)
    complete = bool(rest)
    if not is_deflated:
        tap = Tap(encoding)
        if rest:
            tap.feed(rest)
        values = tap.values()
        found = [values.get(name, b"") for name in ("SOPClassUID", "SOPInstanceUID")]
        sop_class, sop_instance = found[0] or sop_class, found[1] or sop_instance
        complete = all(found) or tap.settled or tap.stopped
    texts = [uid.decode("latin-1") for uid in (sop_class, sop_instance, syntax)]
    return texts[0], texts[1], texts[2], offset, complete


def head(given: Input) -> None:
    data = given.data
    if given.option & 1 and data[128:132] != b"DICM":
        # So that most inputs get past the prefix.
        data = bytes(128) + b"DICM" + data
    if given.allocation:
        refuse_allocation(given.allocation)
        part10_head(Exact(data))
        refuse_allocation(0)
        return
    found = part10_head(Exact(data))
    assert found == expected_head(data)
    # What is complete in the first bytes, more of them do not change, except for values of a broken
    # data set that the tap takes back while it is in doubt.
    first = part10_head(Exact(data[: len(data) * given.cut // 256]))
    if first is not None and first[4]:
        assert found is not None
        assert first[2:4] == found[2:4]
        encoding, is_deflated = encoding_of(first[2].encode("latin-1"))
        tap = Tap(encoding)
        tap.feed(data[first[3] : len(data) * given.cut // 256])
        assert not (is_deflated or tap.settled) or first == found
    if given.option & 2:
        path = scratch() / "head"
        path.write_bytes(data)
        of_file = part10_head_of_file(os.fsencode(path))
        assert (of_file is None) == (len(data) < 132 or data[128:132] != b"DICM")
        assert of_file is None or of_file[:2] == (part10_head(data[:4096]), len(data))


# The sender ----------------------------------------------------------------------------------

SENT_BYTES = 3000
# More than a pair of sockets holds.
MUCH = 4 << 20


def sent_file(size: int) -> bytes:
    path = scratch() / f"sent-{size}"
    if not path.exists():
        path.touch()
        os.truncate(path, size)
    return os.fsencode(path)


COMMAND = b"".join(
    struct.pack("<HHL", 0, number, len(value)) + value
    for number, value in ((0x0100, b"\1\0"), (0x0110, b"\0\0"), (0x0800, b"\1\0"))
)  # fmt: skip


def converse(
    option: int, pieces: list[bytes], allocation: int
) -> tuple[reference_sender.Heard, list[int]]:
    """What a sender makes of a peer's bytes, and the lengths of the PDUs that it told of.

    All of what it sends is out before the peer speaks; with option 64 nothing is, and it sends more
    than the connection takes.
    """
    early = bool(option & 0x40)
    count = 1 if early else 1 + option % 4
    size = MUCH if early else SENT_BYTES
    told: list[tuple[bool, int, int]] = []

    def tell(sent: bool, length: int, _context: int, _control: int, data: int, _of: object) -> None:
        told.append((sent, length, data))

    parcels = [
        Parcel(number, sent_file(size), COMMAND, 1 + 2 * (number % 2), 0, size)
        for number in range(count)
    ]
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.settimeout(5)
        refuse_allocation(allocation)
        sender: Sender[int] = Sender(
            ours.fileno(), 16384 if early else (130, 700, 16384)[option // 4 % 3], count,
            5.0, 5.0, tell if option & 0x20 else None,
        )  # fmt: skip
        if early:
            theirs.sendall(b"".join(pieces))
            theirs.shutdown(socket.SHUT_WR)
        begun = sender.run(parcels)
        assert begun == count
        for piece in pieces if not early else ():
            if sender.end:
                # It reads no more: the rest would fill the connection.
                break
            theirs.sendall(piece)
            sender.look()
        theirs.shutdown(socket.SHUT_WR)
        sender.finish()
        while not sender.end:
            sender.look()
        refuse_allocation(0)
        assert sender.run([Parcel(9, sent_file(size), COMMAND, 1, 0, size)]) == 0
    done = sender.take_done()
    left = sender.unanswered
    assert sorted(one.item for one in done + left) == list(range(count))
    assert all(one.status == -1 and one.response is None for one in left)
    assert sender.answered == len(done)
    assert sender.mid_message == early
    if option & 0x20 and not early:
        assert sum(data for sent, _, data in told if sent) == count * size
    heard = reference_sender.Heard(
        [(one.item + 1, one.status) for one in done], sender.end, *sender.detail[1:]
    )
    return heard, [length for sent, length, _ in told if not sent]


def sender(given: Input) -> None:
    pieces = list(slices(given.data, given.cut))
    if given.allocation:
        try:
            converse(given.option & ~0x40, pieces, given.allocation)
        except MemoryError:
            pass
        finally:
            refuse_allocation(0)
        return
    early = bool(given.option & 0x40)
    asked = {
        number + 1: reference_sender.Asked(1 + 2 * (number % 2), not early)
        for number in range(1 if early else 1 + given.option % 4)
    }
    expected = reference_sender.heard(given.data, asked)
    frames = reference_framing.frames(given.data, None, reference_sender.PDATA_CAP)
    lengths = [frame[2] for frame in frames if frame[:2] == ("header", 4)]
    for way in (pieces, [given.data] if given.data else []):
        found, told = converse(given.option, way, 0)
        assert found._replace(text="") == expected._replace(text="")
        assert found.text.startswith(expected.text)
        assert told == lengths[: len(told)]


# PROXY headers -------------------------------------------------------------------------------


def proxy_header(
    pieces: Iterator[bytes] | list[bytes],
) -> tuple[reference_proxy.Header | None, str]:
    """What is read, and in words why it was refused; the header None where it is not whole."""
    header = ProxyHeader()
    size = 0
    for piece in pieces:
        least = header.least
        try:
            size += (taken := header.feed(Exact(piece)))
        except ProxyHeaderError as error:
            assert header.least == 0
            assert size <= error.offset <= size + len(piece)  # noqa: PT017
            return None, f"{error} at {error.offset}"
        assert least >= 1
        assert taken >= min(least, len(piece))
        if header.is_whole:
            assert header.least == 0
            assert header.feed(b"more") == 0
            return reference_proxy.Header(
                size, header.version, header.is_local, header.source, header.common_name
            ), ""
        assert taken == len(piece)
    assert (header.source, header.common_name) == (None, None)
    return None, ""


def proxy(given: Input) -> None:
    data = given.data
    if given.option & 1 and len(data) >= 16 and data[0] != 0x50:
        # A length that fits, so that most inputs get to their addresses.
        data = data[:14] + min(len(data) - 16, 0xFFFF).to_bytes(2, "big") + data[16:]
    try:
        expected, is_refused = reference_proxy.header(data), False
    except reference_proxy.Refused:
        expected, is_refused = None, True
    whole = proxy_header([data] if data else [])
    assert whole[0] == expected
    assert bool(whole[1]) == is_refused
    assert proxy_header(slices(data, given.cut)) == whole


# TLS records ---------------------------------------------------------------------------------


def record(given: Input) -> None:
    data = given.data
    assert tls_records(Exact(data)) == reference_record.records(data)
    cut = data[: len(data) * given.cut // 256]
    assert tls_records(Exact(cut)) == reference_record.records(cut)


# The whole receiver --------------------------------------------------------------------------


def secure(given: Input) -> None:
    from tests.fuzz import reception

    reception.check_records(given.option, given.data, given.cut, given.allocation)


def receiver(given: Input) -> None:
    # Needs every module of the package.
    from tests.fuzz import reception

    reception.check(given.option, given.data, given.cut, given.allocation)


TARGETS: tuple[Callable[[Input], None], ...] = (
    framing, pdu, command, tap, part10, layout, head, proxy, sender, record,
)  # fmt: skip
if find_spec("fastscp_ext.receive.receiver") is not None:
    TARGETS += (receiver, secure)


def pack(target: str, data: bytes, option: int = 0, cut: int = 1, allocation: int = 0) -> bytes:
    """An input for a target by name."""
    index = [function.__name__ for function in TARGETS].index(target)
    return bytes((index, option, cut, allocation)) + data


# Names of targets, if others are to be passed over.
ONLY = frozenset(filter(None, os.environ.get("FUZZ_TARGETS", "").split(",")))


def check(raw: bytes) -> None:
    """Raise AssertionError, or whatever the codec should not have raised, if something is wrong."""
    if len(raw) < HEADER or (ONLY and TARGETS[raw[0] % len(TARGETS)].__name__ not in ONLY):
        return
    given = Input(raw[1], raw[2], raw[3], raw[HEADER:])
    try:
        TARGETS[raw[0] % len(TARGETS)](given)
    except CodecError as error:
        raise AssertionError("a refusal where none was due") from error
    finally:
        refuse_allocation(0)
