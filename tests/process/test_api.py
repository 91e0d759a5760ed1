"""The Python API at work: on both event loops, with many files, at its limits, and broken off."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import resource
import ssl
import subprocess
import sys
import threading
import time
import traceback
from typing import TYPE_CHECKING, Any

import pytest
import zstandard
from pydicom import DataElement, Dataset, dcmread

from fastscp import scu
from fastscp.scu import (
    ContextRefused,
    PeerError,
    Priority,
    UnusableInstance,
    UsageError,
    associate,
    opening,
    send_files,
)
from fastscp_ext import PDUError
from tests.interop.test_send import certificate_of
from tests.kit import CT, DEADLINE_S, ELE, ILE, MR, SOP, Service, abort, data_set
from tests.scripted import LOOPS, Connection, Scp, accepting, part10, write_files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

CONTEXTS = [("CTImageStorage", ["ExplicitVRLittleEndian"])]
FILE = part10(data_set())


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@contextlib.contextmanager
def watched_loop() -> Iterator[list[float]]:
    """The most that the running event loop worked between two turns, in the list at the end.

    In seconds of its thread: a machine that stands still is no fault of the loop.
    """
    longest = [0.0]

    async def watch() -> None:
        while True:
            before = time.thread_time()
            await asyncio.sleep(0.001)
            longest[0] = max(longest[0], time.thread_time() - before)

    watching = asyncio.ensure_future(watch())
    try:
        yield longest
    finally:
        watching.cancel()


# Event loops --------------------------------------------------------------------------------------


def test_both_loops(tmp_path: Path) -> None:
    big = part10(data_set(sop=f"{SOP}.99", pixels=3_000_000), sop=f"{SOP}.99")
    sources: list[Path | bytes] = [*write_files(tmp_path / "in", 5), big]
    contexts = [*CONTEXTS, ("Verification", ["ImplicitVRLittleEndian"])]

    async def work(service: Service) -> None:
        async with associate(service.host, service.port, contexts, window=8) as association:
            assert (await association.echo()).ok
            responses = await asyncio.gather(*(association.store(one) for one in sources))
            assert all(response.ok for response in responses)
        assert isinstance(association.failure, scu.AssociationReleased)
        association = await asyncio.create_task(associate(service.host, service.port))
        assert (await association.echo()).ok
        await association.abort()

    with Service(tmp_path, workers=1) as service:
        for loop_factory in LOOPS.values():
            with asyncio.Runner(loop_factory=loop_factory) as runner:
                runner.run(work(service))
        assert len(service.instances()) == 6


def test_nobody_there_and_a_rejection(run: Callable[..., Any]) -> None:
    def rejecting(connection: Connection) -> None:
        connection.read_request()
        connection.socket.sendall(bytes.fromhex("03000000000400010107"))
        connection.until_closed()

    async def work(scp: Scp) -> None:
        with pytest.raises(scu.AssociationRejected, match="called AE title not recognized: 'PACS'"):
            await associate(scp.host, scp.port, called_ae="PACS")
        with pytest.raises(scu.ConnectionFailed, match="refused"):
            async with associate(scp.host, 1):
                pass

    with Scp(rejecting) as scp:
        run(work(scp))


def test_tls(run: Callable[..., Any], tmp_path: Path) -> None:
    """A cancelled store as well: the end of the connection goes another way there."""
    key, certificate = certificate_of(tmp_path)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate, key)
    client = ssl.create_default_context(cafile=certificate)
    big = part10(data_set(pixels=3_000_000))

    async def work(scp: Scp) -> None:
        async with associate("localhost", scp.port, CONTEXTS, tls=client) as association:
            assert (await association.store(big)).ok
            storing = asyncio.ensure_future(association.store(big))
            await asyncio.sleep(0.001)
            storing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await storing

    with Scp(accepting, tls=server) as scp:
        run(work(scp))


# Many files, slow disks, tiny fragments -----------------------------------------------------------


def test_gather_opens_files_only_as_there_is_room(run: Callable[..., Any], tmp_path: Path) -> None:
    """Thousands of calls at once, with room for a few descriptors more than there are."""
    paths = write_files(tmp_path, 60) * 50
    most = 0

    def seen(_pdu: scu.SeenPDU) -> None:
        nonlocal most
        most = max(most, descriptors())

    async def work(scp: Scp) -> None:
        where = (scp.host, scp.port, CONTEXTS)
        async with associate(*where, window=64, on_pdu=seen) as association:
            assert association.window == 64
            # What threads and connections need is there by now.
            await asyncio.gather(*(association.store(path) for path in paths[:30]))
            before = descriptors()
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            highest = max(map(int, os.listdir("/proc/self/fd")))
            resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 16, hard))
            try:
                responses = await asyncio.gather(*(association.store(path) for path in paths))
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            assert len(responses) == 3000
            assert all(one.ok for one in responses)
            assert most <= before + 12

    with Scp(lambda connection: accepting(connection, window=64)) as scp:
        run(work(scp))


def test_a_disk_that_hangs_does_not_stop_the_loop(
    run: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (path,) = write_files(tmp_path, 1, pixels=3_000_000)
    hangs, goes_on = threading.Event(), threading.Event()
    reads = []
    loop_thread = threading.get_ident()

    def slow(fd: int, size: int, at: int) -> bytes:
        assert threading.get_ident() != loop_thread
        reads.append(at)
        if len(reads) == 2:
            hangs.set()
            assert goes_on.wait(DEADLINE_S)
        return os.pread(fd, size, at)

    class Disk:
        """`os`, with one call of its own."""

        pread = staticmethod(slow)

        def __getattr__(self, name: str) -> Any:
            return getattr(os, name)

    async def work(scp: Scp) -> None:
        async with associate(scp.host, scp.port, CONTEXTS) as association:
            monkeypatch.setattr(opening, "os", Disk())
            storing = asyncio.ensure_future(association.store(path))
            assert await asyncio.to_thread(hangs.wait, DEADLINE_S)
            for _ in range(20):
                await asyncio.sleep(0)  # the loop has turns, and the store none
            assert not storing.done()
            goes_on.set()
            assert (await storing).ok

    with Scp(accepting) as scp:
        run(work(scp))
    assert scp.results[0][0].data == path.read_bytes()[-len(scp.results[0][0].data) :]
    assert len(reads) >= 3


def test_tiny_fragments_are_linear_and_leave_the_loop_its_turns(run: Callable[..., Any]) -> None:
    """390 KiB in fragments of 2 bytes took 20 s, and the loop stood still."""

    def counting(connection: Connection) -> None:
        connection.accept(max_pdu=8)
        left = b""
        last = False
        while not last:
            data = left + connection.socket.recv(1 << 20)
            whole = len(data) // 14 * 14
            # All have the same length, but for a last odd byte, which no data set has.
            last = 2 in data[11:whole:14]
            left = data[whole:]
        connection.respond(1, split=2)
        connection.serve()

    taken: dict[int, float] = {}

    async def work(scp: Scp, pixels: int) -> None:
        async with associate(scp.host, scp.port, CONTEXTS) as association:
            with watched_loop() as longest:
                began = time.process_time()
                assert (await association.store(part10(data_set(pixels=pixels)))).ok
                taken[pixels] = time.process_time() - began
            assert longest[0] < 2.0

    with Scp(counting) as scp:
        for pixels in (100_000, 400_000):
            run(work(scp, pixels))
    # Four times the bytes; sixteen times the work before.
    assert taken[400_000] < 8 * taken[100_000]
    assert taken[400_000] < 10


# Broken off ---------------------------------------------------------------------------------------

BROKEN_OFF = """
import asyncio, gc, os, sys, threading
import uvloop
from fastscp.scu import PeerError, Timeouts, associate, opening

loop_factory = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}[sys.argv[1]]
port, path = int(sys.argv[2]), sys.argv[3]
contexts = [("1.2.840.10008.5.1.4.1.1.2", ["1.2.840.10008.1.2.1"])]
opened = threading.Event()
go_on = threading.Event()
head_of_file = opening.head_of_file

def slow_head(path):
    opened.set()
    go_on.wait(60)
    return head_of_file(path)

def descriptors():
    return {name: os.readlink(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd")
            if os.path.exists(f"/proc/self/fd/{name}")}

async def cancelled_while(how):
    sends = asyncio.Event()
    if how == "opening":
        opening.head_of_file = slow_head
        opened.clear(); go_on.clear()
    def seen(pdu):
        if pdu.sent and pdu.type == 4:
            sends.set()
    async with associate("127.0.0.1", port, contexts, window=4, on_pdu=seen) as association:
        storing = asyncio.ensure_future(association.store(path))
        if how == "opening":
            await asyncio.to_thread(opened.wait, 60)
        else:
            await sends.wait()
        storing.cancel()
        try:
            await storing
        except asyncio.CancelledError:
            pass
        else:
            raise AssertionError("not cancelled")
        if how == "opening":
            go_on.set()
            opening.head_of_file = head_of_file
            # Nothing was sent: it lives on.
            assert association.failure is None
            await association.abort()
        else:
            assert association.failure is not None

async def an_exception_inside():
    kept = []
    try:
        async with associate("127.0.0.1", port, contexts, window=2) as association:
            kept += [asyncio.ensure_future(association.store(path)) for _ in range(50)]
            await asyncio.sleep(0.01)
            raise KeyError("of the caller")
    except KeyError:
        pass
    assert all(one.done() for one in kept)
    for one in kept:
        assert isinstance(one.exception(), PeerError), one

async def a_cancelled_block():
    entered = asyncio.Event()
    async def work():
        async with associate("127.0.0.1", port, contexts) as association:
            entered.set()
            await association.store(path)
    working = asyncio.ensure_future(work())
    await entered.wait()
    await asyncio.sleep(0.01)
    working.cancel()
    try:
        await working
    except asyncio.CancelledError:
        pass

async def a_cancelled_opening():
    opening = asyncio.ensure_future(associate("127.0.0.1", port, contexts))
    await asyncio.sleep(0)
    opening.cancel()
    try:
        await opening
    except asyncio.CancelledError:
        pass

async def unhurried():
    asyncio.get_running_loop().slow_callback_duration = 60

async def main():
    await unhurried()
    for work in (
        lambda: cancelled_while("opening"), lambda: cancelled_while("sending"),
        an_exception_inside, a_cancelled_block, a_cancelled_opening,
    ):
        await work()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, left

with asyncio.Runner(loop_factory=loop_factory) as runner:
    runner.run(unhurried())
del runner
gc.collect()
before = descriptors()
with asyncio.Runner(loop_factory=loop_factory) as runner:
    runner.run(main())
del runner
gc.collect()
after = descriptors()
assert len(after) <= len(before), (before, after)
print("clean")
"""


@pytest.mark.parametrize("loop", LOOPS)
def test_what_is_broken_off_leaves_nothing_open(loop: str, tmp_path: Path) -> None:
    """In a process that takes every warning for an error, and says what was not closed."""
    (path,) = write_files(tmp_path, 1, pixels=8_000_000)
    script = tmp_path / "script.py"
    script.write_text(BROKEN_OFF)

    def never_answers(connection: Connection) -> None:
        with contextlib.suppress(PDUError, ConnectionError):  # gone before its request
            connection.accept(window=4)
            scp.over.wait(0.05)  # it takes nothing for so long
            last = b""
            while last != abort(0, 0) and (more := connection.socket.recv(1 << 20)):
                last = (last + more)[-10:]

    with Scp(never_answers, receive_buffer=4096) as scp:
        command = [sys.executable, "-X", "dev", "-W", "error", str(script), loop, str(scp.port)]
        done = subprocess.run(
            [*command, str(path)], capture_output=True, text=True, timeout=DEADLINE_S,
            env=Service.environment(), check=False,
        )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "clean\n"), done.stderr
    assert done.stderr == ""


# Natural mistakes ---------------------------------------------------------------------------------


def test_mistakes_are_told_and_the_association_lives_on(tmp_path: Path) -> None:
    (path,) = write_files(tmp_path / "in", 1)
    os.mkfifo(tmp_path / "pipe")
    nameless = Dataset()
    nameless.PatientID = "X"
    half = Dataset()
    half.SOPClassUID = CT
    mistakes: list[tuple[Any, dict[str, Any], type[Exception], str]] = [
        (nameless, {}, UnusableInstance, "no SOPClassUID: set it, or give sop_class"),
        (half, {}, UnusableInstance, "no SOPInstanceUID: set it, or give sop_instance"),
        (io.BytesIO(FILE), {}, UsageError, r"a BytesIO, an open file: give its path, or its bytes"),
        ([path], {}, UsageError, "source is a list: call store for each"),
        (None, {}, UsageError, "source is None: give a path"),
        (7, {}, UsageError, "source is 7: give a path"),
        (tmp_path, {}, UnusableInstance, "is a folder: .* `fastscp send` takes folders"),
        (tmp_path / "pipe", {}, UnusableInstance, "is no regular file"),
        (str(FILE[:300], "latin-1"), {}, UsageError, "contains a NUL"),
        (data_set(), {}, UsageError, "no DICM at byte 128.* give context_id"),
        (path, {"message_id": 70000}, UsageError, "message_id is 70000: .* 0 to 65535"),
        (path, {"message_id": "1"}, UsageError, "message_id is '1'"),
        (path, {"priority": "high"}, UsageError, "priority is 'high': write Priority.MEDIUM"),
        (path, {"context_id": 99}, UsageError, r"context 99 is not an accepted one: .*\[1, 3\]"),
        (path, {"context_id": [1]}, UsageError, "context a list is not an accepted one"),
        (path, {"context_id": 3}, UsageError, "accepted for Implicit VR .* is in Explicit VR"),
        (path, {"sop_class": "CTImage"}, UsageError, "sop_class: 'CTImage' .* did you mean"),
        (path, {"sop_instance": "1" * 65}, UsageError, "sop_instance is .* 1 to 64 characters"),
        (path, {"move_originator_ae": "ME"}, UsageError, "without move_originator_message_id"),
    ]

    async def work(scp: Scp) -> None:
        contexts = [*CONTEXTS, ("CTImageStorage", ["ImplicitVRLittleEndian"])]
        async with associate(scp.host, scp.port, contexts) as association:
            for source, more, kind, words in mistakes:
                with pytest.raises(kind, match=words):
                    await association.store(source, **more)
            with pytest.raises(ContextRefused, match=r"Verification .*: give it to associate"):
                await association.echo()
            assert association.failure is None
            assert (await association.store(path, sop_class="MRImageStorage")).ok
            assert (await association.store(half, sop_instance="1.2.3")).ok
            storing = asyncio.ensure_future(association.store(path))
            await asyncio.sleep(0)
            with pytest.raises(UsageError, match="1 operations outstanding: await them first"):
                await association.release()
            assert (await storing).ok
        for use in (association.store(path), association.echo(), association.release()):
            with pytest.raises(UsageError, match="an association that is over, released or abort"):
                await use
        await association.abort()

    with Scp(accepting) as scp:
        asyncio.run(work(scp))
    (messages,) = scp.results
    assert [one.command.affected_sop_class_uid for one in messages] == [MR, CT, CT]
    assert messages[1].command.affected_sop_instance_uid == "1.2.3"


def test_used_in_another_event_loop() -> None:
    async def opened(scp: Scp) -> scu.Association:
        return await associate(scp.host, scp.port)

    async def echo(association: scu.Association) -> None:
        await association.echo()

    with Scp(accepting) as scp, asyncio.Runner() as runner:
        association = runner.run(opened(scp))
        with pytest.raises(UsageError, match=r"echo in another event loop .* send_files"):
            asyncio.run(echo(association))
        runner.run(association.release())


def test_a_callback_that_fails_ends_nothing() -> None:
    told = []

    def fails(_pdu: scu.SeenPDU) -> None:
        raise KeyError("of the caller")

    async def work(scp: Scp) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, said: told.append(said))
        async with associate(scp.host, scp.port, on_pdu=fails) as association:
            assert (await association.echo()).ok

    with Scp(accepting) as scp:
        asyncio.run(work(scp))
    assert len(told) == 6
    assert all(isinstance(one["exception"], KeyError) for one in told)


def test_datasets_are_encoded_for_a_context_that_fits() -> None:
    """Without a transfer syntax of its own it goes out uncompressed, whatever came first."""
    dataset = dcmread(io.BytesIO(part10(data_set(ILE), syntax=ILE)))
    del dataset.file_meta
    broken = dcmread(io.BytesIO(FILE))
    broken.add_new(0x00020010, "UI", ELE)

    async def work(scp: Scp) -> None:
        contexts = [(CT, ["JPEGBaseline8Bit"]), (CT, [ILE])]
        async with associate(scp.host, scp.port, contexts) as association:
            assert (await association.store(dataset, priority=Priority.LOW)).ok
            with pytest.raises(ContextRefused, match="give it to associate"):
                await association.store(dcmread(io.BytesIO(FILE)))
            with pytest.raises(UnusableInstance, match="the Dataset cannot be encoded"):
                await association.store(broken)

    with Scp(accepting) as scp:
        asyncio.run(work(scp))
    ((message,),) = scp.results
    assert message.context_id == 3
    assert message.data == data_set(ILE)


def test_a_dataset_is_not_altered() -> None:
    """Where a VR depends on other elements, at the top and in a sequence."""
    item = Dataset()
    item.PixelRepresentation = 1
    item.add_new(0x00280106, "US or SS", -5)
    dataset = dcmread(io.BytesIO(part10(data_set(ILE), syntax=ILE)))
    dataset.PixelRepresentation = 1
    dataset.add_new(0x00280107, "US or SS", -7)
    dataset.ReferencedSeriesSequence = [item]
    del dataset.file_meta

    async def work(scp: Scp) -> None:
        async with associate(scp.host, scp.port, CONTEXTS) as association:
            assert (await association.store(dataset)).ok

    with Scp(accepting) as scp:
        asyncio.run(work(scp))
    assert item[0x00280106].VR == dataset[0x00280107].VR == "US or SS"
    assert dataset.ReferencedSeriesSequence[0] is item
    assert not hasattr(dataset, "file_meta")
    sent = scp.results[0][0].data
    got = dcmread(io.BytesIO(part10(sent)))
    assert got[0x00280107].value == -7
    assert got.ReferencedSeriesSequence[0][0x00280106].value == -5


def test_no_value_of_a_dataset_is_in_what_is_said() -> None:
    async def work(scp: Scp) -> None:
        async with associate(scp.host, scp.port, CONTEXTS) as association:
            for keyword, value in (("Rows", "Secret^Patient"), ("PatientName", 12345)):
                dataset = dcmread(io.BytesIO(FILE))
                element = DataElement(keyword, "UN", None)
                element.VR = "US" if keyword == "Rows" else "PN"
                element._value = value
                dataset[keyword] = element
                tag = f"({element.tag.group:04X},{element.tag.element:04X})"
                with pytest.raises(UnusableInstance) as caught:
                    await association.store(dataset)
                said = "".join(traceback.format_exception(caught.value))
                assert f"from pydicom at {tag.lower()};" in str(caught.value).lower()
                assert "Secret" not in said
                assert "12345" not in said
                assert "\n" not in str(caught.value)

    with Scp(accepting) as scp:
        asyncio.run(work(scp))


def test_a_compressed_file_goes_out_decompressed(tmp_path: Path) -> None:
    path = tmp_path / "a.dcm.zst"
    path.write_bytes(zstandard.compress(FILE))

    async def work(scp: Scp) -> None:
        async with associate(scp.host, scp.port, CONTEXTS) as association:
            assert (await association.store(path)).ok

    with Scp(accepting) as scp:
        asyncio.run(work(scp))
    assert scp.results[0][0].data == data_set()


# Scripts ------------------------------------------------------------------------------------------


def test_send_files(tmp_path: Path) -> None:
    paths = write_files(tmp_path / "in", 3)
    other = tmp_path / "in" / "other.dcm"
    other.write_bytes(part10(data_set(ILE, sop="1.2.9", sop_class=MR), sop="1.2.9",
                             sop_class=MR, syntax=ILE))  # fmt: skip
    (tmp_path / "notes").write_text("no")
    names = [*paths, tmp_path / "notes", other, tmp_path, tmp_path / "missing"]
    with Scp(accepting) as scp:
        sent = send_files(scp.host, scp.port, names, window=4)
    (of_other,) = (one for one in scp.results[0] if one.command.affected_sop_class_uid == MR)
    assert of_other.data == data_set(ILE, sop="1.2.9", sop_class=MR)
    assert len(scp.results[0]) == 4
    assert [one.path for one in sent] == [str(path) for path in names]
    assert [one.ok for one in sent] == [True, True, True, False, True, False, False]
    kinds = [type(one.error) for one in sent]
    assert kinds[3:] == [UnusableInstance, type(None), UnusableInstance, FileNotFoundError]
    assert str(sent[0]) == f"{paths[0]}: 0000 success"


def test_send_files_to_nobody_and_to_one_that_leaves(tmp_path: Path) -> None:
    paths = write_files(tmp_path, 3)
    with pytest.raises(scu.ConnectionFailed):
        send_files("127.0.0.1", 1, paths)

    def leaves(connection: Connection) -> None:
        connection.accept()
        got = connection.read_message()
        assert got is not None
        connection.respond(got)
        connection.read_message()
        connection.reset()

    with Scp(leaves) as scp:
        sent = send_files(scp.host, scp.port, paths)
    assert [one.ok for one in sent] == [True, False, False]
    assert all(isinstance(one.error, PeerError) for one in sent[1:])


def test_send_files_of_more_kinds_than_an_association_has_contexts(tmp_path: Path) -> None:
    paths = []
    for number in range(130):
        sop_class = f"1.2.3.{number + 1}"
        paths.append(tmp_path / f"{number:03}.dcm")
        paths[-1].write_bytes(part10(data_set(sop_class=sop_class), sop_class=sop_class))
    with Scp(accepting) as scp:
        assert all(one.ok for one in send_files(scp.host, scp.port, paths))
    assert sorted(len(messages) for messages in scp.results) == [2, 128]
