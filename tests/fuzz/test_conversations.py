"""Whole conversations, into the reception by hand and into a service; see tests/fuzz/README.md."""

from __future__ import annotations

import ctypes
import gc
import random
import selectors
import shutil
import struct
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from fastscp.users.passwords import make_entry
from fastscp_ext import decode_command, decode_pdata
from tests.fuzz import conversations, loop
from tests.fuzz.build import memory
from tests.fuzz.conversations import due, make
from tests.fuzz.fronts import PASSCODE, PROXY, USER, open_front
from tests.kit import RELEASE_RP, TLS, Service, split_pdus, wait_for
from tests.process.beside import COMMIT_DESCRIPTORS, beside

if TYPE_CHECKING:
    from collections.abc import Iterator

MIB: Final = 1 << 20
# As many peers at once, and what the commit may have open.
AT_ONCE: Final = 24
DESCRIPTORS: Final = AT_ONCE + COMMIT_DESCRIPTORS


def _resident() -> int:
    """Bytes in memory that somebody keeps: what is free goes back to the system first."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmRSS")


# By hand -----------------------------------------------------------------------------------------


def test_bounds_hold_in_every_step() -> None:
    most = loop.run(range(35), 200_000)
    print(most)
    # They came near enough to say something.
    assert most.owed >= 60
    assert most.responses > 10_000


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_bounds_hold_in_every_step_long() -> None:
    """Memory neither: what a thousand conversations leave is what fifty left."""
    loop.run(range(1000, 1050), MIB)
    before = _resident()
    for batch in range(20):
        begin = 2000 + 100 * batch
        print(loop.run(range(begin, begin + 100), MIB))
        assert _resident() - before < 8 * MIB


def test_a_conversation_is_the_same_each_time() -> None:
    for seed in range(50):
        assert make(seed, 50_000) == make(seed, 50_000)
    assert len({make(seed, 50_000) for seed in range(50)}) == 50


def test_the_grammar_reaches_what_it_is_for() -> None:
    """Long runs, ended and whole conversations, and stores of one name one after the other."""
    made = [due(make(seed, MIB)) for seed in range(120)]
    assert sum(len(one.answers) > 1000 for one in made) > 10
    assert sum(one.ended for one in made) > 20
    assert sum(not one.ended for one in made) > 20
    assert sum(one.stores > 300 for one in made) > 5


@pytest.mark.parametrize("lie", ["order", "one less"])
def test_a_wrong_answer_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lie: str
) -> None:
    """The harness compares with something: another reading of the bytes fails it."""

    def lying(data: bytes) -> conversations.Due:
        true = due(data)
        answers = true.answers[::-1] if lie == "order" else true.answers[:-1]
        return true._replace(answers=answers)

    monkeypatch.setattr(loop, "due", lying)
    with pytest.raises(AssertionError, match="seed"):
        loop.run(range(12), 20_000)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_cpu_grows_no_faster_than_the_bytes(tmp_path: Path) -> None:
    """Four times the messages cost four times as much, and not sixteen times."""
    root = Path(memory() or tmp_path) / f"cpu-{tmp_path.name}"
    for seed in range(8):
        settings = loop.Settings.of(random.Random(seed))
        costs = []
        for times in (1, 4):
            data = make(seed, 60_000) * times
            # The least of some: a busy machine only adds.
            costs.append(min(_cost(root, settings, data) for _ in range(5)) / len(data))
        assert costs[1] < 2 * costs[0], f"seed {seed}: {costs}"


def _cost(root: Path, settings: loop.Settings, data: bytes) -> float:
    rng = random.Random(1)
    try:
        with loop.Loop(root, settings, rng, loop.Most()) as one:
            for peer in one.peers:
                peer.data = data
            began = time.process_time()
            one.finish()
            return time.process_time() - began
    finally:
        shutil.rmtree(root, ignore_errors=True)


# Into a service ----------------------------------------------------------------------------------


class _Line:
    """A conversation on its socket: sent in random cuts, and all that comes is read.

    It begins once its request is accepted; a front that is not sound is all that is said.
    """

    def __init__(self, service: Service, seed: int, most: int) -> None:
        self.seed = seed
        self.data = make(seed, most)
        self._rng = random.Random(seed)
        self._front = open_front(service, self._rng)
        self.peer = self._front.peer
        self.peer.socket.setblocking(False)
        self._out = self._front.opening
        self._at = 0
        self._got = bytearray()
        self._ac = 0
        self.whole = self._front.sound and self._front.tampering is None
        self.said = self.closed = False

    @property
    def speaks(self) -> bool:
        """Whether it has something to say now: not while it waits for its acceptance."""
        waits = self._at == len(self._out) and not self._ac and self._front.sound
        return not self.said and not waits

    def say(self) -> None:
        size = self._rng.choice((1, 50, 3000, 1 << 18))
        try:
            if self._at < len(self._out):
                self._at += self.peer.socket.send(self._out[self._at : self._at + size])
            elif self.speaks:
                self.peer.half_close()
                self.said = True
        except BlockingIOError:
            return
        except OSError:
            # Ended by the service; what it said before may still be read.
            self.whole, self.said = False, True

    def hear(self) -> None:
        try:
            more = self.peer.socket.recv(1 << 18)
        except BlockingIOError:
            return
        except OSError:
            self.whole, more = False, b""
        self._got += more
        self.closed = not more
        if not self._ac and self._front.sound and len(self._got) >= 6 and self._got[0] == 2:
            self._ac = 6 + int.from_bytes(self._got[2:6], "big")
            self._out, self._at = self.data, 0
            if self._front.tampering is not None:
                self._front.tampering.armed = True

    def judge(self) -> None:
        self.peer.close()
        what = f"seed {self.seed}: {bytes(self._got[:200])!r}"
        if self._front.records:
            assert not self._got or self._got[0] in (0x15, 0x16), what
            return
        pdus = list(split_pdus(bytes(self._got)))
        accepted = bool(pdus) and pdus[0][0] == 2
        assert accepted or not self._front.sound, what
        if not self._front.sound:
            assert [pdu[0] for pdu in pdus] in ([], [2], [2, 7], [3], [7]), what
            return
        self._judge_answers(pdus[1:])

    def _judge_answers(self, pdus: list[bytes]) -> None:
        wanted = due(self.data, pdata_cap=16 << 20)
        got = []
        # Behind an abort, ours or its own, nothing more is answered; ahead of a release all is.
        if wanted.ended:
            self.whole &= pdus[-1:] == [RELEASE_RP]
        for pdu in pdus:
            if pdu[0] != 4:
                assert pdu is pdus[-1]
                self.whole &= pdu == RELEASE_RP
                continue
            for _context, _header, fragment in decode_pdata(pdu):
                command = decode_command(fragment)
                got.append((command.message_id_being_responded_to, command.command_field))
        assert got == wanted.answers[: len(got)], f"seed {self.seed}"
        if self.whole:
            assert len(got) == len(wanted.answers), f"seed {self.seed}"


def _converse(lines: list[_Line]) -> None:
    with selectors.DefaultSelector() as selector:
        for line in lines:
            both = selectors.EVENT_READ | selectors.EVENT_WRITE
            selector.register(line.peer.socket, both, line)
        end = time.monotonic() + 120
        left = len(lines)
        while left:
            assert time.monotonic() < end, [one.seed for one in lines if not one.closed]
            for key, events in selector.select(1):
                line = key.data
                if events & selectors.EVENT_WRITE:
                    line.say()
                if events & selectors.EVENT_READ:
                    line.hear()
                if line.closed:
                    selector.unregister(line.peer.socket)
                    left -= 1
                elif line.speaks != bool(key.events & selectors.EVENT_WRITE):
                    wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE * line.speaks)
                    selector.modify(line.peer.socket, wanted, line)
    for line in lines:
        line.judge()


def _batches(count: int, size: int) -> Iterator[range]:
    for begin in range(0, count, size):
        yield range(begin, min(begin + size, count))


@pytest.mark.timeout(36000)
@pytest.mark.parametrize(
    ("count", "most"),
    [
        pytest.param(72, 30_000, id="72"),
        pytest.param(200_000, 8_000, id="200000", marks=pytest.mark.long),
        pytest.param(2_000, MIB, id="2000-large", marks=pytest.mark.long),
    ],
)
def test_conversations_with_a_service(tmp_path: Path, secured: TLS, count: int, most: int) -> None:
    """Thousands of them beside an honest peer: nothing stays of them, and it is served."""
    users = tmp_path / "users"
    users.write_text(make_entry(USER, PASSCODE) + "\n")
    users.chmod(0o600)
    flags: tuple[str, ...] = ("--on-duplicate", "keep", "--log-level", "error")
    flags += ("--proxy-protocol-from", PROXY, "--user-identity", f"password?:{users}")
    with Service(tmp_path, *flags, tls=secured, plain=True, workers=1) as service:
        with beside(service, more_descriptors=DESCRIPTORS) as (_honest, worker):
            descriptors = worker.descriptors()
            for batch in _batches(count, AT_ONCE):
                _converse([_Line(service, struct.unpack(">I", b"live")[0] + n, most)
                           for n in batch])  # fmt: skip
                wait_for(
                    lambda: worker.descriptors() <= descriptors + 8, "their connections' end", 60
                )
        service.ends_parts()
        service.echoes()
