"""PDU and PDV framing over a whole stream, slow and plain: the oracle for fastscp_ext.wire.framing.

Where the codec keeps a state between slices, this has every byte at hand and reads the stream from
its start; where the bytes end, reading ends.
"""

from __future__ import annotations

import struct
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

__all__ = ["Frame", "frames", "merged"]

# What PDUStream.feed returns.
Frame: TypeAlias = tuple[Any, ...]

MIB = 1024 * 1024


class EndError(Exception):
    """The stream has no more bytes."""


class Reader:
    def __init__(self, stream: bytes) -> None:
        self.rest = stream

    def take(self, size: int) -> bytes:
        if len(self.rest) < size:
            raise EndError
        return self.take_at_most(size)

    def take_at_most(self, size: int) -> bytes:
        taken, self.rest = self.rest[:size], self.rest[size:]
        return taken


def header_fault(kind: int, size: int, pdata_cap: int) -> Frame | None:
    if kind == 4:
        if size > pdata_cap:
            return ("error", 2, 6, "P-DATA-TF PDU above the hard cap")
        if size < 6:
            return ("error", 2, 6, "P-DATA-TF PDU too short for a PDV")
    elif kind in (1, 2):
        if not 68 <= size <= MIB:
            text = "A-ASSOCIATE PDU shorter than 68 bytes or longer than 1 MiB"
            return ("error", 2, 6, text)
    elif kind in (3, 5, 6, 7):
        if size > 64:
            return ("error", 2, 6, "release, abort or reject PDU longer than 64 bytes")
    else:
        return ("error", 2, 1, "unrecognized PDU type")
    return None


def says_data_follows(command: bytes) -> bool:
    """Command Data Set Type, from as many elements as can be read."""
    while len(command) >= 8:
        group, element, size = struct.unpack("<HHL", command[:8])
        if group != 0 or size > len(command) - 8:
            break
        if element == 0x0800:
            return command[8 : 8 + size] != b"\x01\x01"
        command = command[8 + size :]
    return False


class Messages:
    """What the PDVs so far amount to."""

    def __init__(self, contexts: Collection[int] | None) -> None:
        self.contexts = contexts
        self.context_id: int | None = None  # of the message in progress
        self.command = b""
        self.in_data = False

    def fault(self, context_id: int, is_command: bool) -> Frame | None:
        if self.context_id is not None:
            if context_id != self.context_id:
                return ("error", 2, 5, "presentation context changes inside a message")
        elif self.contexts is not None and context_id not in self.contexts:
            return ("error", 2, 6, "presentation context was not accepted")
        if is_command and self.in_data:
            return ("error", 2, 5, "command fragment inside a data set")
        if not is_command and not self.in_data:
            return ("error", 2, 5, "data fragment where a command was due")
        return None


def pdata(reader: Reader, size: int, messages: Messages) -> Iterator[Frame]:
    while size:
        if size < 6:
            yield ("error", 2, 6, "stray bytes after the last PDV")
            return
        length, context_id, control = struct.unpack(">LBB", reader.take(6))
        size -= 4 + length
        is_command = control % 2 == 1
        is_last = control // 2 % 2 == 1
        fault: Frame | None = None
        if length < 2:
            fault = ("error", 2, 6, "PDV length below 2")
        elif size < 0:
            fault = ("error", 2, 6, "PDV runs past the end of its PDU")
        else:
            fault = messages.fault(context_id, is_command)
        if fault is None and is_command and len(messages.command) + length - 2 > 65536:
            fault = ("error", 0, 0, "command set above 64 KiB")
        if fault is not None:
            yield fault
            return
        messages.context_id = context_id
        if is_command:
            messages.command += reader.take(length - 2)
            if is_last:
                yield ("command", context_id, messages.command)
                messages.in_data = says_data_follows(messages.command)
                messages.command = b""
        else:
            fragment = reader.take_at_most(length - 2)
            whole = len(fragment) == length - 2
            yield ("data", context_id, fragment, is_last and whole)
            if not whole:
                raise EndError
            if is_last:
                messages.in_data = False
        if is_last and not messages.in_data:
            messages.context_id = None


def pdus(reader: Reader, messages: Messages, pdata_cap: int) -> Iterator[Frame]:
    while True:
        header = reader.take(6)
        kind, size = struct.unpack(">BxL", header)
        fault = header_fault(kind, size, pdata_cap)
        if fault is not None:
            yield fault
            return
        yield ("header", kind, size)
        if kind != 4:
            yield ("pdu", header + reader.take(size))
            continue
        for frame in pdata(reader, size, messages):
            yield frame
            if frame[0] == "error":
                return


def frames(
    stream: bytes, contexts: Collection[int] | None = None, pdata_cap: int = 16 * MIB
) -> list[Frame]:
    """What PDUStream makes of `stream`, its data frames `merged`."""
    found: list[Frame] = []
    with suppress(EndError):
        for frame in pdus(Reader(stream), Messages(contexts), pdata_cap):
            found.append(frame)  # noqa: PERF402, what came before the end counts
    return merged(found)


def merged(found: Iterable[Frame]) -> list[Frame]:
    """Data frames that follow one another as one, up to the last of a data set.

    How many there are depends on how the bytes were cut, what they add up to does not.
    """
    out: list[Frame] = []
    for frame in found:
        if frame[0] != "data":
            out.append(frame)
            continue
        _, context_id, data, last = frame
        before = out[-1] if out else ("",)
        if before[0] == "data" and not before[3]:
            assert before[1] == context_id
            out[-1] = ("data", context_id, before[2] + data, last)
        elif data or last:
            out.append(frame)
    return out
