"""`fastscp send` against an acceptor that does anything but its duty: conversations from a seed.

Whatever comes back, the sender ends in time and with the right code, and counts nothing as stored
that was not acknowledged for that instance. What was acknowledged is read from the acceptor's own
bytes, by the plain reader beside the tests.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import random
import re
import socket
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from fastscp.cli import app as cli
from fastscp.scu.send import carrier
from fastscp_ext import (
    AssociateAC,
    AsyncWindow,
    PDUError,
    PresentationContextAC,
    UserInformation,
    decode_associate_rq,
    decode_command,
    decode_pdata,
    encode_associate_ac,
    encode_command,
)
from tests import reference_sender
from tests.fuzz.generate import damage
from tests.kit import (
    RELEASE_RP,
    RELEASE_RQ,
    Service,
    abort,
    message,
    pdu,
    reject,
    wait_for,
)
from tests.scripted import Connection, Scp, write_files

if TYPE_CHECKING:
    from collections.abc import Iterator

INSTANCES: Final = 12
MIB: Final = 1 << 20
# What a sender may take, all of it: it takes some 70 MiB where nobody is hostile.
MOST_MEMORY: Final = 160 * MIB
# What it may say of twelve instances.
MOST_WORDS: Final = 32 * 1024


@dataclass
class Talk:
    """One connection. asked: what its requestor sent, by message id, with the SOP Instance UID."""

    sock: socket.socket
    rng: random.Random
    said: bytearray = field(default_factory=bytearray)
    asked: dict[int, tuple[reference_sender.Asked, str]] = field(default_factory=dict)

    def say(self, data: bytes) -> None:
        """In one piece, or in some."""
        while data:
            size = len(data) if self.rng.randrange(3) else self.rng.randrange(1, len(data) + 1)
            self.said += data[:size]
            self.sock.sendall(data[:size])
            data = data[size:]

    def _read(self, n: int) -> bytes:
        got = bytearray()
        while len(got) < n:
            more = self.sock.recv(n - len(got))
            if not more:
                raise ConnectionError
            got += more
        return bytes(got)

    def read_pdu(self) -> bytes:
        header = self._read(6)
        return header + self._read(int.from_bytes(header[2:], "big"))

    def acknowledged(self) -> set[str]:
        """The instances that were kept, as far as the acceptor's bytes say so in time."""
        asked = {number: one for number, (one, _) in self.asked.items()}
        # What comes before the association is accepted is no response; behind it all is.
        stream = bytes(self.said)
        first = 6 + int.from_bytes(stream[2:6], "big") if stream[:1] == b"\2" else len(stream)
        answered = reference_sender.heard(stream[first:], asked).answered
        return {
            self.asked[number][1]
            for number, status in answered
            if status in (0, 1, 0x0107, 0x0116) or status >> 12 == 0xB
        }


class Acceptor(Scp):
    """Plays a conversation with whoever connects; the seed and the number of the connection say
    which.
    """

    def __init__(self, seed: int, tamed: int = 10) -> None:
        super().__init__(self._talk)
        self._seed = seed
        self._tamed = tamed
        self.talks: list[Talk] = []

    def _talk(self, connection: Connection) -> None:
        rng = random.Random(f"{self._seed}/{connection.number}")
        talk = Talk(connection.socket, rng)
        self.talks.append(talk)
        try:
            if answer_request(talk):
                answer_messages(talk, self._tamed)
            # Whoever hangs up at once may destroy what is on its way.
            talk.sock.shutdown(socket.SHUT_WR)
            while talk.sock.recv(MIB):
                pass
        except (ConnectionError, PDUError, TimeoutError):
            pass
        except OSError as error:
            # A connection that is gone already cannot be shut down.
            if error.errno != errno.ENOTCONN:
                raise


def acceptance(talk: Talk, request: bytes) -> bytes:
    """An A-ASSOCIATE-AC: mostly of all contexts."""
    rng, rq = talk.rng, decode_associate_rq(request)
    contexts = tuple(
        PresentationContextAC(one.id, 0 if rng.randrange(8) else 3, one.transfer_syntaxes[0])
        for one in rq.presentation_contexts
        if rng.randrange(20)
    )
    information = UserInformation(
        max_pdu_length=rng.choice((16384, 16384, 16384, 0, 4096, 64, 1 << 31)),
        implementation_class_uid="1.2.3.9",
        implementation_version_name=rng.choice((None, "HOSTILE", "\x1b[2J")),
        async_window=AsyncWindow(5, 1) if rng.randrange(2) else None,
    )
    return encode_associate_ac(
        AssociateAC(rq.called_ae, rq.calling_ae, rq.application_context, contexts, information)
    )


def answer_request(talk: Talk) -> bool:
    """Answer an A-ASSOCIATE-RQ; whether messages may follow."""
    rng = talk.rng
    accepted = acceptance(talk, talk.read_pdu())
    match rng.randrange(24):
        case 0:
            talk.say(damage(rng, accepted))
        case 1:
            talk.say(accepted[: rng.randrange(len(accepted))])
            return False
        case 2:
            talk.say(accepted + accepted)
        case 3:
            talk.say(reject(rng.choice((1, 2)), rng.choice((1, 2, 3)), rng.randrange(9)))
            return False
        case 4:
            talk.say(b"\2\0\xff\xff\xff\xff" + bytes(1000))
        case 5:
            talk.say(accepted + abort(rng.choice((0, 1, 2, 9)), rng.randrange(8)))
        case 6:
            # With 1 MiB of items that mean nothing.
            size = (MIB - len(accepted)) // 4
            more = accepted[6:] + b"\x99\0\0\0" * size
            talk.say(pdu(2, more))
        case 7:
            talk.say(damage(rng, abort(2, 1)))
            return False
        case 8:
            time.sleep(rng.random() * 0.3)
            talk.say(accepted)
        case _:
            talk.say(accepted)
    return True


def response(number: int, status: int, context: int = 1, **more: Any) -> bytes:
    elements = {0x0100: 0x8001, 0x0120: number, 0x0800: 0x0101, 0x0900: status}
    elements |= {int(name[1:], 16): value for name, value in more.items()}
    return message(encode_command(elements), context=context)


def requests(talk: Talk) -> Iterator[tuple[int, int, bool]]:
    """Message id, context and whether it is whole, of what comes: each twice."""
    number = 0
    whole = b""
    while True:
        raw = talk.read_pdu()
        if raw[0] != 4:
            if raw[0] == 5:
                talk.say(RELEASE_RP)
            return
        for context, control, fragment in decode_pdata(raw):
            if control & 1:
                whole += fragment
            if control == 3:
                command, whole = decode_command(whole), b""
                assert command.message_id is not None
                assert command.affected_sop_instance_uid is not None
                number = command.message_id
                asked = reference_sender.Asked(context)
                talk.asked[number] = asked, command.affected_sop_instance_uid
                yield number, context, False
            elif control == 2:
                yield number, context, True


def answer_messages(talk: Talk, tamed: int) -> None:
    """Answer what comes: rightly `tamed` times in `tamed` + 16, roughly."""
    rng = talk.rng
    for number, context, whole in requests(talk):
        if not whole:
            if rng.randrange(40) == 0:
                talk.say(response(number, rng.choice((0, 0xC000)), context))
            continue
        good = response(number, 0, context)
        match rng.randrange(16 + tamed):
            case 0:
                talk.say(good[: rng.randrange(len(good))])
                return
            case 1:
                talk.say(damage(rng, good))
            case 2:
                talk.say(good * rng.choice((2, 3, 500)))
            case 3:
                time.sleep(rng.choice((0.05, 0.1, 1.5)))
                talk.say(good)
            case 4:
                comment = rng.choice((b"\x1b]0;x\x07", b"\x9b2J", b"no ")) * 16000
                talk.say(response(number, 0xC001, context, e0902=comment[:60000]))
            case 5:
                tags = tuple(range(12000))
                talk.say(response(number, rng.choice((0xC002, 0xB000)), context, e0901=tags))
            case 6:
                talk.say(message(encode_command({
                    0x0100: 0x8001, 0x0120: number, 0x0800: 0x0101, 0x0900: 0,
                }), context=context, fragment=rng.choice((1, 2, 7))))  # fmt: skip
            case 7:
                talk.say(response((number + rng.choice((-1, 1, 7))) & 0xFFFF, 0, context))
            case 8:
                talk.say(response(number, 0, (context + 2) & 0xFF))
            case 9:
                talk.say(rng.choice((abort(0, 0), abort(2, 6), RELEASE_RQ, RELEASE_RP)))
            case 10:
                return
            case 11:
                talk.say(rng.randbytes(rng.randrange(1, 40)))
            case 12:
                talk.say(response(number, rng.choice((0xA700, 0xA7FF)), context))
            case 13:
                talk.say(response(number, rng.choice((0xB006, 0x0122, 0xFF00, 7)), context))
            case 14:
                talk.say(pdu(4, b"\0\0\0\2\1\0") * rng.choice((1, 100)) + good)
            case 15:
                # It says nothing more.
                while talk.sock.recv(MIB):
                    pass
                return
            case _:
                talk.say(good)


@dataclass
class Ended:
    code: int
    out: str
    errors: str


def judge(ended: Ended, report: Path, acceptor: Acceptor) -> int:
    """Whether all that is said of the instances is true; returns how many are stored."""
    assert ended.code in (0, 1), ended.errors
    assert "Traceback" not in ended.errors, ended.errors
    text = ended.errors + ended.out
    assert len(text) < MOST_WORDS, f"{len(text)} characters"
    assert all(line.isprintable() for line in text.split("\n")), text
    summary = json.loads(ended.out)
    raw = report.read_bytes()
    assert not any((byte < 0x20 and byte != 0x0A) or 0x7F <= byte <= 0x9F for byte in raw)
    lines = [json.loads(line) for line in raw.splitlines()]
    names = [os.path.basename(line["path"]) for line in lines]
    assert sorted(names) == [f"{number:05}.dcm" for number in range(INSTANCES)]
    stored = {line["sop_instance_uid"] for line in lines if line["outcome"] != "failure"}
    assert len(stored) == summary["stored"] + summary["warnings"]
    assert summary["failed"] == INSTANCES - len(stored)
    assert (ended.code == 0) == (len(stored) == INSTANCES)
    acknowledged = set().union(*(talk.acknowledged() for talk in acceptor.talks))
    assert stored <= acknowledged, stored - acknowledged
    for line in lines:
        assert line["outcome"] != "failure" or line.get("error") or line["status"], line
        assert line["attempts"] or "error" in line, line
    return len(stored)


def ways(seed: int) -> list[str]:
    rng = random.Random(seed)
    return ["--window", str(rng.choice((1, 1, 5))), "--associations", str(rng.choice((1, 1, 2)))]


def watched(process: subprocess.Popen[bytes]) -> int:
    """Wait for its end, in time; returns the most memory that it took, in bytes."""
    # What the system tells at the end would count the process that it was forked from, too.
    memory = 0

    def over() -> bool:
        nonlocal memory
        if process.poll() is not None:
            return True
        with contextlib.suppress(OSError):
            status = Path("/proc", str(process.pid), "status").read_text()
            if found := re.search(r"VmHWM:\s+(\d+)", status):
                memory = int(found[1]) * 1024
        return False

    try:
        wait_for(over, "the end of the sender")
    finally:
        process.kill()
        process.wait()
    return memory


def run_process(seed: int, files: Path, folder: Path, *more: str) -> tuple[int, int, int]:
    """A real sender; returns how many it stored, over how many connections, its memory in bytes."""
    folder.mkdir()
    arguments = ["--json", "--report", str(folder / "report"), *ways(seed), *more]
    with Acceptor(seed) as acceptor:
        with (folder / "out").open("wb") as out, (folder / "errors").open("wb") as errors:
            process = subprocess.Popen(
                [*Service.program(), "send", acceptor.address, str(files), *arguments],
                env=Service.environment(), stdin=subprocess.DEVNULL, stdout=out, stderr=errors,
            )  # fmt: skip
            memory = watched(process)
        ended = Ended(
            process.returncode, (folder / "out").read_text(), (folder / "errors").read_text()
        )
        stored = judge(ended, folder / "report", acceptor)
        return stored, len(acceptor.talks), memory


def test_seeded_conversations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Eight of them, in this process; some store all, and some do not."""
    monkeypatch.setattr(carrier, "_FIRST_BACK_OFF_S", 0.01)
    files = tmp_path / "in"
    write_files(files, INSTANCES, pixels=40_000)
    stored = []
    for seed in range(8):
        report = tmp_path / f"report-{seed}"
        arguments = ["--json", "--report", str(report), *ways(seed), "--timeout", "0.3"]
        with Acceptor(seed, tamed=40) as acceptor:
            code = cli.main(["send", acceptor.address, str(files), "--retries", "2", *arguments])
            captured = capsys.readouterr()
            try:
                stored.append(judge(Ended(code, captured.out, captured.err), report, acceptor))
            except AssertionError as error:
                raise AssertionError(f"seed {seed}: {error}") from error
    assert INSTANCES in stored
    assert min(stored) < INSTANCES


def test_a_process_among_them(tmp_path: Path) -> None:
    write_files(tmp_path / "in", INSTANCES, pixels=40_000)
    _stored, _talks, memory = run_process(
        5, tmp_path / "in", tmp_path / "run", "--timeout", "0.5", "--retries", "0"
    )
    assert memory < MOST_MEMORY


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_many_processes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Sixty, each with its own acceptor; prints what they came to."""
    write_files(tmp_path / "in", INSTANCES, pixels=400_000)
    trials = stored = talks = memory = 0
    for seed in range(1000, 1060):
        try:
            came = run_process(
                seed, tmp_path / "in", tmp_path / str(seed), "--timeout", "1", "--retries", "1"
            )
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error
        trials, stored, talks = trials + 1, stored + came[0], talks + came[1]
        memory = max(memory, came[2])
    assert memory < MOST_MEMORY
    with capsys.disabled():
        print(
            f"\n{trials} trials, {talks} connections, {stored} of {trials * INSTANCES} instances "
            f"stored, {memory >> 20} MiB at most"
        )
