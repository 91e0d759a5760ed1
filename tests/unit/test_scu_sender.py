"""The sender of the codec over a socket pair: fragments, patches, ids, and how it ends."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
from typing import TYPE_CHECKING

import pytest

from fastscp_ext import (
    Parcel,
    Sender,
    decode_command,
    decode_pdata,
    encode_command,
    encode_pdata,
    file_mark,
)
from tests.kit import abort, split_pdus, store_rq, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DATA = bytes(range(256)) * 40
# More than any buffer between the two ends takes in.
MUCH = 20_000_000
END = 4 + len(DATA)
LENGTH = "that is not of 2 bytes"


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.settimeout(60)
        yield ours, theirs


@pytest.fixture
def file(tmp_path: Path) -> bytes:
    path = tmp_path / "data"
    path.write_bytes(b"head" + DATA)
    return os.fsencode(path)


def sender(sock: socket.socket, fragment: int = 16378, window: int = 1) -> Sender[str]:
    return Sender(sock.fileno(), fragment, window, 5.0, 5.0)


def response(message_id: int, status: int = 0, *, context: int = 1, **more: object) -> bytes:
    elements: dict[int, object] = {
        0x0100: 0x8001, 0x0120: message_id, 0x0800: 0x0101, 0x0900: status,
    }  # fmt: skip
    elements |= {int(name[1:], 16): value for name, value in more.items()}
    raw = encode_command({k: v for k, v in elements.items() if v is not None})  # type: ignore[misc]
    return encode_pdata([(context, 3, raw)])


def raw_response(**more: bytes) -> bytes:
    """A success to message 1 with other values of any length, padded by nobody."""
    values = {0x0100: b"\1\x80", 0x0120: b"\1\0", 0x0800: b"\1\1", 0x0900: b"\0\0"}
    values |= {int(name[1:], 16): value for name, value in more.items()}
    command = (struct.pack("<HHL", 0, number, len(v)) + v for number, v in values.items())
    return encode_pdata([(1, 3, b"".join(command))])


def read_message(sock: socket.socket, size: int) -> tuple[list[tuple[int, int, bytes]], int]:
    """The PDVs of a message whose data set has so many bytes, and the longest PDU body."""
    raw = b""
    while True:
        pdus = list(split_pdus(raw))
        if pdus and len(pdus[-1]) == 6 + int.from_bytes(pdus[-1][2:6], "big"):
            pdvs = [pdv for pdu in pdus for pdv in decode_pdata(pdu)]
            if pdvs[-1][1] == 2:
                assert sum(len(piece) for _, control, piece in pdvs if not control & 1) == size
                return pdvs, max(map(len, pdus)) - 6
        more = sock.recv(65536)
        assert more
        raw += more


@pytest.mark.parametrize("fragment", [2, 4, 100, 102, 138, 4096, 16378, 131066, 262138])
def test_fragments(pair: tuple[socket.socket, socket.socket], file: bytes, fragment: int) -> None:
    ours, theirs = pair
    one = sender(ours, fragment)
    parcel = Parcel("item", file, store_rq(9), 5, 4, len(DATA))

    def run() -> None:
        one.run([parcel])
        one.finish()

    thread = threading.Thread(target=run)
    thread.start()
    pdvs, longest = read_message(theirs, len(DATA))
    theirs.sendall(response(1, context=5))
    thread.join(60)
    assert {context_id for context_id, _, _ in pdvs} == {5}
    assert b"".join(piece for _, control, piece in pdvs if not control & 1) == DATA
    command = decode_command(b"".join(piece for _, control, piece in pdvs if control & 1))
    assert command == decode_command(store_rq(1))
    assert [control for _, control, _ in pdvs] == sorted(
        (control for _, control, _ in pdvs), key=lambda control: (1, 3, 0, 2).index(control)
    )
    assert longest <= fragment + 6
    assert (parcel.status, parcel.error, parcel.attempts) == (0, 0, 1)
    assert parcel.nanoseconds > 0
    assert one.take_done() == [parcel]
    assert one.take_done() == []
    assert one.end == ""
    assert one.answered == 1


def test_the_longest_command_fits_in_the_smallest_fragments(
    pair: tuple[socket.socket, socket.socket], file: bytes
) -> None:
    ours, theirs = pair
    one = sender(ours, 2)
    rest = 32768 - len(store_rq())
    longest = store_rq(more={0x1031: b"1" * (rest - 8)})
    assert len(longest) == 32768
    thread = threading.Thread(target=one.run, args=([Parcel("", file, longest, 1, END - 2, 2)],))
    thread.start()
    pdvs, _ = read_message(theirs, 2)
    thread.join(60)
    assert b"".join(piece for _, control, piece in pdvs if control & 1) == longest
    with pytest.raises(ValueError, match="too long"):
        Parcel("", file, longest + b"..", 1, END - 2, 2)


@pytest.mark.parametrize("fragment", [2, 10, 64, 4096])
def test_patches(pair: tuple[socket.socket, socket.socket], file: bytes, fragment: int) -> None:
    """Anywhere, over the edges of fragments and of reads."""
    ours, theirs = pair
    one = sender(ours, fragment)
    patches = ((0, b"FIRST"), (61, b"middle"), (4090, bytes(20)), (len(DATA) - 3, b"end"))
    wanted = bytearray(DATA)
    for at, value in patches:
        wanted[at : at + len(value)] = value
    parcel = Parcel("item", file, store_rq(), 1, 4, len(DATA), patches)
    thread = threading.Thread(target=one.run, args=([parcel],))
    thread.start()
    pdvs, _ = read_message(theirs, len(DATA))
    thread.join(60)
    assert b"".join(piece for _, control, piece in pdvs if not control & 1) == wanted


def test_window(pair: tuple[socket.socket, socket.socket], file: bytes) -> None:
    ours, theirs = pair
    one = sender(ours, window=3)
    parcels = [Parcel(str(n), file, store_rq(), 1, END - 50, 50) for n in range(3)]
    assert one.run(parcels) == 3
    assert one.unanswered == parcels
    with pytest.raises(ValueError, match="on its way"):
        one.run(parcels[:1])
    theirs.sendall(response(3, 0xB000) + response(1) + response(2, 0xC000, e0902="no"))
    one.finish()
    assert [(one.item, one.status) for one in one.take_done()] == [
        ("2", 0xB000), ("0", 0), ("1", 0xC000),
    ]  # fmt: skip
    assert one.unanswered == []
    raw = parcels[1].response
    assert raw is not None
    assert decode_command(raw).error_comment == "no"
    assert parcels[0].response is None
    with pytest.raises(ValueError, match="on its way"):
        one.run([parcels[0], parcels[0]])
    parcels[1].again()
    assert (parcels[1].status, parcels[1].response, parcels[1].attempts) == (-1, None, 1)


def test_message_ids_wrap_and_are_never_used_twice_at_a_time(
    pair: tuple[socket.socket, socket.socket], file: bytes
) -> None:
    ours, theirs = pair
    one = sender(ours, window=2)
    first = Parcel("first", file, store_rq(), 1, END - 2, 2)
    assert one.run([first]) == 1
    seen = set()

    def answer() -> None:
        for _ in range(65535):
            pdvs, _ = read_message(theirs, 2)
            number = decode_command(pdvs[0][2]).message_id
            assert number is not None
            seen.add(number)
            theirs.sendall(response(number))

    pdvs, _ = read_message(theirs, 2)
    assert decode_command(pdvs[0][2]).message_id == 1
    theirs.settimeout(60)
    thread = threading.Thread(target=answer)
    thread.start()
    # With one outstanding for ever, a window of two is one for the rest.
    others = [Parcel("again", file, store_rq(), 1, END - 2, 2) for _ in range(65535)]
    assert one.run(others) == 65535
    thread.join(60)
    # Those that share the low bits of the outstanding one's id are passed over.
    assert seen == set(range(2, 65536, 2))


@pytest.mark.parametrize(
    ("answer", "end", "text"),
    [
        (abort(2, 6), "pdu", ""),
        (response(2), "broken", "it answered message 2, which is not outstanding"),
        (response(1, e0900=None), "broken", "it sent a response without a status"),
        (response(1, e0100=0x0030), "broken", "it invoked an operation (0030) on our association"),
        (encode_pdata([(1, 3, b"abcd")]), "broken", "it sent an unreadable command set"),
        *(
            (raw_response(e0900=value), "broken", f"it answered message 1 with a Status {LENGTH}")
            for value in (b"", b"\0", b"\0\0\0", b"\0\0\0\0", b"\0\xa7\0\0")
        ),
        (
            raw_response(e0800=b"\1\1\0\0"),
            "broken",
            f"it answered message 1 with a Command Data Set Type {LENGTH}",
        ),
        (
            raw_response(e0120=b"\1\0\0\0"),
            "broken",
            "it sent a response without a usable Message ID Being Responded To",
        ),
        (
            raw_response(e0100=b"\1\x80\0\0"),
            "broken",
            "it sent a command set without a usable Command Field",
        ),
        (
            response(1, e0100=0x8030),
            "broken",
            "it answered message 1, a C-STORE-RQ, with a C-ECHO-RSP",
        ),
        (
            response(1, context=77),
            "broken",
            "it answered message 1, sent on presentation context 1, on context 77",
        ),
        (b"HTTP/1.1", "broken", "unrecognized PDU type"),
        (b"", "closed", ""),
        (response(1)[:-1], "closed", ""),
    ],
)
def test_ends(
    pair: tuple[socket.socket, socket.socket], file: bytes, answer: bytes, end: str, text: str
) -> None:
    ours, theirs = pair
    one = sender(ours)
    parcel = Parcel("item", file, store_rq(), 1, 4, len(DATA))
    assert one.run([parcel]) == 1
    theirs.sendall(answer)
    theirs.shutdown(socket.SHUT_WR)
    one.finish()
    assert one.end == end
    number, said, pdu = one.detail
    assert (number, said) == (0, text)
    assert pdu == (answer if end == "pdu" else b"")
    assert one.unanswered == [parcel]
    assert parcel.status == -1
    assert not one.mid_message
    # Nothing more is sent.
    assert one.run([parcel]) == 0


@pytest.mark.parametrize("blocking", [True, False])
def test_timeouts(
    pair: tuple[socket.socket, socket.socket], tmp_path: Path, file: bytes, blocking: bool
) -> None:
    ours, _theirs = pair
    ours.setblocking(blocking)
    one: Sender[str] = Sender(ours.fileno(), 4096, 1, 0.05, 0.05)
    assert one.run([Parcel("item", file, store_rq(), 1, 4, len(DATA))]) == 1
    one.finish()
    assert one.end == "response timeout"
    (tmp_path / "big").write_bytes(bytes(10_000_000))
    two: Sender[str] = Sender(ours.fileno(), 4096, 1, 0.05, 0.05)
    assert two.run([Parcel("b", os.fsencode(tmp_path / "big"), store_rq(), 1, 0, 10_000_000)]) == 1
    assert two.end == "send timeout"
    assert two.mid_message


def test_a_peer_that_floods_and_takes_nothing(tmp_path: Path) -> None:
    """What it sends meanwhile, responses not among it, gives it no more time."""
    (tmp_path / "big").write_bytes(bytes(MUCH))
    parcel = Parcel("big", os.fsencode(tmp_path / "big"), store_rq(), 1, 0, MUCH)
    flood = encode_pdata([(1, 1, b"")]) * 1_000_000
    over = threading.Event()

    def pour(theirs: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while not over.is_set():
                theirs.sendall(flood)

    # TCP holds enough at the receiving end that there is always something to read.
    with socket.create_server(("127.0.0.1", 0)) as server:
        ours = socket.create_connection(server.getsockname())
        theirs, _ = server.accept()
    one: Sender[str] = Sender(ours.fileno(), 4096, 1, 0.2, 30.0)
    pouring = threading.Thread(target=pour, args=(theirs,))
    sending = threading.Thread(target=one.run, args=([parcel],))
    pouring.start()
    sending.start()
    try:
        wait_for(lambda: one.end or None, "the end of the sender", 20.0)
        assert one.end == "send timeout"
    finally:
        over.set()
        one.break_off()
        sending.join()
        # With bytes unread this resets the connection, under whoever is blocked in it.
        ours.close()
        pouring.join()
        theirs.close()


def test_files_that_fail(pair: tuple[socket.socket, socket.socket], tmp_path: Path) -> None:
    """Before a byte is out only the parcel fails; later the association cannot be used."""
    ours, theirs = pair
    one = sender(ours)
    missing = Parcel("missing", os.fsencode(tmp_path / "missing"), store_rq(), 1, 0, 10)
    short = tmp_path / "short"
    short.write_bytes(bytes(9))
    shorter = Parcel("short", os.fsencode(short), store_rq(), 1, 0, 10)
    assert one.run([missing, shorter]) == 2
    assert [(done.item, os.strerror(done.error)) for done in one.take_done()] == [
        ("missing", "No such file or directory"),
        ("short", "Stale file handle"),
    ]
    assert (one.end, one.sent_bytes) == ("", 0)
    os.truncate(short, MUCH)
    long = Parcel("long", os.fsencode(short), store_rq(), 1, 0, MUCH)

    def shorten() -> None:
        assert theirs.recv(1)
        os.truncate(short, 1_000_000)
        while theirs.recv(65536):
            pass

    peer = threading.Thread(target=shorten)
    peer.start()
    assert one.run([long]) == 1
    assert (one.end, one.mid_message) == ("file", True)
    assert os.strerror(long.error) == "Stale file handle"
    assert one.unanswered == [long]
    ours.shutdown(socket.SHUT_RDWR)
    peer.join(60)


def test_files_that_are_others_by_now(
    pair: tuple[socket.socket, socket.socket], tmp_path: Path, file: bytes
) -> None:
    """Grown, modified, or no file any more: nothing of them is sent, and nothing hangs."""
    ours, theirs = pair
    one = sender(ours)
    os.mkfifo(tmp_path / "pipe")
    mark = mark_of(file)
    wrong = [
        Parcel("grown", file, store_rq(), 1, 4, len(DATA) - 1),
        Parcel("shrunk", file, store_rq(), 1, 4, len(DATA) + 1),
        Parcel("modified", file, store_rq(), 1, 4, len(DATA), (), mark ^ 1),
        Parcel("pipe", os.fsencode(tmp_path / "pipe"), store_rq(), 1, 0, 1),
        Parcel("folder", os.fsencode(tmp_path), store_rq(), 1, 0, tmp_path.stat().st_size),
    ]
    assert one.run(wrong) == len(wrong)
    assert one.take_done() == wrong
    assert {os.strerror(parcel.error) for parcel in wrong} == {"Stale file handle"}
    assert (one.end, one.sent_bytes) == ("", 0)
    right = Parcel("right", file, store_rq(), 1, 4, len(DATA), (), mark)
    assert one.run([right]) == 1
    read_message(theirs, len(DATA))


def mark_of(path: bytes) -> int:
    with open(path, "rb") as file:
        return file_mark(file.fileno())


@pytest.mark.parametrize("way", ["written over", "growing"])
def test_a_file_that_changes_while_it_is_sent(
    pair: tuple[socket.socket, socket.socket], tmp_path: Path, way: str
) -> None:
    """Its last fragment never goes out: what the peer has is no message."""
    ours, theirs = pair
    path = tmp_path / "large"
    path.touch()
    os.truncate(path, MUCH)
    name = os.fsencode(path)
    # Without a mark, its size alone tells.
    mark = mark_of(name) if way == "written over" else 0
    parcel = Parcel("large", name, store_rq(), 1, 0, MUCH, (), mark)
    one = sender(ours)
    received = bytearray()

    def change() -> None:
        received.extend(theirs.recv(1))
        with path.open("r+b") as file:
            file.seek(0, os.SEEK_END if way == "growing" else os.SEEK_SET)
            file.write(b"other")
        while piece := theirs.recv(1 << 20):
            received.extend(piece)

    peer = threading.Thread(target=change)
    peer.start()
    assert one.run([parcel]) == 1
    ours.shutdown(socket.SHUT_RDWR)
    peer.join(60)
    assert (one.end, one.mid_message) == ("file", True)
    assert os.strerror(parcel.error) == "Stale file handle"
    assert one.unanswered == [parcel]
    pdvs = [pdv for pdu in split_pdus(bytes(received)) for pdv in decode_pdata(pdu)]
    assert {control for _, control, _ in pdvs} == {3, 0}


def test_a_mark_is_that_of_one_file_in_one_state(tmp_path: Path) -> None:
    path, other = tmp_path / "file", tmp_path / "other"
    for one in (path, other):
        one.write_bytes(b"content")
        os.utime(one, ns=(1, 1))
    marks = [mark_of(os.fsencode(path)), mark_of(os.fsencode(path)), mark_of(os.fsencode(other))]
    assert marks[0] == marks[1] != marks[2]
    with path.open("ab") as file:
        file.write(b"!")
    os.utime(path, ns=(1, 1))
    assert mark_of(os.fsencode(path)) not in marks
    with pytest.raises(OSError, match="Bad file descriptor"):
        file_mark(-1)


@pytest.mark.parametrize("status", [0, 0xB000, 0x0107, 0xA700, 0xC000])
def test_answers_before_the_data_set_is_out(
    pair: tuple[socket.socket, socket.socket], tmp_path: Path, status: int
) -> None:
    """Nobody has stored what he has not seen; but he may refuse it."""
    ours, theirs = pair
    one = sender(ours)
    path = tmp_path / "much"
    path.touch()
    os.truncate(path, MUCH)
    parcel = Parcel("much", os.fsencode(path), store_rq(), 1, 0, MUCH)
    thread = threading.Thread(target=one.run, args=([parcel],))
    thread.start()
    assert theirs.recv(1)
    theirs.sendall(response(1, status))
    if status not in (0xA700, 0xC000):
        thread.join(60)
        assert one.end == "broken"
        assert one.detail[1] == f"it answered message 1 with {status:04X} before it had all of it"
        assert (one.unanswered, parcel.status) == ([parcel], -1)
        return
    wait_for(lambda: one.answered, "the answer to be taken in")
    drain = threading.Thread(target=lambda: [None for _ in iter(lambda: theirs.recv(65536), b"")])
    drain.start()
    thread.join(60)
    assert (one.end, parcel.status) == ("", status)
    assert one.take_done() == [parcel]
    ours.shutdown(socket.SHUT_RDWR)
    drain.join(60)


def test_a_response_that_leaves_out_what_nobody_needs(
    pair: tuple[socket.socket, socket.socket], file: bytes
) -> None:
    """Also without a Command Data Set Type, the next message begins right behind it."""
    ours, theirs = pair
    one = sender(ours, window=2)
    parcels = [Parcel(str(n), file, store_rq(), 1, END - 50, 50) for n in range(2)]
    assert one.run(parcels) == 2
    theirs.sendall(response(1, e0800=None) + response(2, 0xA700, e0800=None))
    one.finish()
    assert (one.end, [parcel.status for parcel in one.take_done()]) == ("", [0, 0xA700])


def test_bytes_that_trickle_renew_nothing(
    pair: tuple[socket.socket, socket.socket], tmp_path: Path, file: bytes
) -> None:
    """Neither while it takes none of our data, nor while its response is due."""
    path = tmp_path / "much"
    path.touch()
    os.truncate(path, MUCH)
    ours, theirs = pair
    # A response that brings a data set, of which there is no end.
    theirs.sendall(encode_pdata([(1, 3, encode_command(
        {0x0100: 0x8001, 0x0120: 1, 0x0800: 1, 0x0900: 0xA700}
    ))]))  # fmt: skip

    def trickle(while_alive: threading.Thread) -> None:
        while_alive.start()
        while while_alive.is_alive():
            with contextlib.suppress(BlockingIOError):
                theirs.send(encode_pdata([(1, 0, b"xx")]), socket.MSG_DONTWAIT)
            while_alive.join(0.005)

    small = Parcel("small", file, store_rq(), 1, 4, len(DATA))
    one: Sender[str] = Sender(ours.fileno(), 4096, 1, 0.1, 0.1)
    assert one.run([small]) == 1
    one.finish()
    assert (one.end, small.status) == ("", 0xA700)
    assert one.run([again := Parcel("again", file, store_rq(), 1, 4, len(DATA))]) == 1
    trickle(threading.Thread(target=one.finish))
    assert (one.end, one.unanswered) == ("response timeout", [again])
    two: Sender[str] = Sender(ours.fileno(), 4096, 1, 0.1, 0.1)
    theirs.sendall(encode_pdata([(1, 3, encode_command(
        {0x0100: 0x8001, 0x0120: 1, 0x0800: 1, 0x0900: 0xA700}
    ))]))  # fmt: skip
    much = Parcel("much", os.fsencode(path), store_rq(), 1, 0, MUCH)
    trickle(threading.Thread(target=two.run, args=([much],)))
    assert two.end == "send timeout"


@pytest.mark.parametrize(
    ("came", "end"), [(b"", "closed"), (abort(0, 0), "pdu"), (response(1), "broken"), (None, "")]
)
def test_look(pair: tuple[socket.socket, socket.socket], came: bytes | None, end: str) -> None:
    """Whether the peer has left while nothing was due: without waiting for anything."""
    ours, theirs = pair
    one = sender(ours)
    if came is not None:
        theirs.sendall(came)
        theirs.shutdown(socket.SHUT_WR)
    one.look()
    assert one.end == end


@pytest.mark.parametrize(("came", "end"), [(b"", "closed"), (abort(0, 0), "pdu"), (None, "")])
def test_look_sees_the_end_behind_a_response(
    pair: tuple[socket.socket, socket.socket], tmp_path: Path, came: bytes | None, end: str
) -> None:
    """The last response may come after `run`: whoever leaves with it was not seen to leave."""
    ours, theirs = pair
    path = tmp_path / "file"
    path.write_bytes(DATA)
    one = sender(ours)
    parcel = Parcel("item", os.fsencode(path), store_rq(), 1, 0, len(DATA))
    assert one.run([parcel]) == 1
    theirs.sendall(response(1))
    if came is not None:
        theirs.sendall(came)
        theirs.shutdown(socket.SHUT_WR)
    one.look()
    assert (one.answered, one.end) == (1, end)
    assert one.take_done() == [parcel]


def test_what_was_lost_is_as_new_for_another_association(
    pair: tuple[socket.socket, socket.socket], tmp_path: Path
) -> None:
    ours, theirs = pair
    path = tmp_path / "file"
    path.write_bytes(DATA)
    one, two = sender(ours), sender(ours)
    parcel = Parcel("item", os.fsencode(path), store_rq(), 1, 0, len(DATA))
    assert one.run([parcel]) == 1
    theirs.shutdown(socket.SHUT_WR)
    one.finish()
    assert one.unanswered == [parcel]
    parcel.again()
    path.unlink()
    assert two.run([parcel]) == 1
    assert (two.unanswered, two.take_done()) == ([], [parcel])


def test_the_next_file_is_opened_while_a_response_is_awaited(
    pair: tuple[socket.socket, socket.socket], tmp_path: Path, file: bytes
) -> None:
    """What is opened then is sent, whatever becomes of its name; or closed again."""
    ours, theirs = pair
    one = sender(ours)
    data = os.urandom(1_000_000)
    path = tmp_path / "next"
    path.write_bytes(data)
    command = store_rq()
    parcels = [Parcel("first", file, command, 1, END - 2, 2)]
    parcels += [Parcel("next", os.fsencode(path), command, 1, 0, len(data)) for _ in range(2)]
    begun: list[int] = []
    thread = threading.Thread(target=lambda: begun.append(one.run(parcels)))
    thread.start()

    def is_open() -> bool:
        for fd in os.listdir("/proc/self/fd"):
            # The sender closes what it has sent.
            with contextlib.suppress(FileNotFoundError):
                if os.path.samefile(f"/proc/self/fd/{fd}", path):
                    return True
        return False

    read_message(theirs, 2)
    wait_for(is_open, "the next file to be opened")
    path.rename(tmp_path / "moved")
    path.write_bytes(bytes(len(data)))
    theirs.sendall(response(1))
    pdvs, _ = read_message(theirs, len(data))
    assert b"".join(piece for _, control, piece in pdvs if not control & 1) == data
    assert decode_command(pdvs[0][2]).message_id == 2
    wait_for(is_open, "the third to be opened")
    one.stop()
    theirs.sendall(response(2))
    thread.join(60)
    assert begun == [2]
    assert not is_open()
    assert [parcel.attempts for parcel in parcels] == [1, 1, 0]
    assert one.take_done() == parcels[:2]
    assert one.unanswered == []


def test_stop_and_break_off(pair: tuple[socket.socket, socket.socket], file: bytes) -> None:
    ours, _theirs = pair
    one = sender(ours)
    parcels = [Parcel(str(n), file, store_rq(), 1, END - 2, 2) for n in range(3)]
    begun: list[int] = []
    thread = threading.Thread(target=lambda: begun.append(one.run(parcels)))
    thread.start()
    one.stop()
    one.break_off()
    thread.join(60)
    assert not thread.is_alive()
    assert begun[0] < 3
    one.finish()


def test_what_makes_no_sense(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, _ = pair
    for fragment, window in ((0, 1), (3, 1), (2 << 20, 1), (2, 0), (2, 65536)):
        with pytest.raises(ValueError, match=r"\w"):
            sender(ours, fragment, window)
    for command, size in ((encode_command({0x0100: 1}), 1), (store_rq(), 0)):
        with pytest.raises(ValueError, match="a command set with a message id"):
            Parcel("item", b"/", command, 1, 0, size)
