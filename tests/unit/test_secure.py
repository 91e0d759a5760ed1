"""TLS records on their way to a receiver; the client is the ssl module in memory."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import random
import ssl
import struct
import weakref
from typing import TYPE_CHECKING, Any

import pytest

from fastscp_ext import Ciphertext, Secured, decode_pdata
from fastscp_ext.wire.record import tls_records
from tests.kit import MR, data_set, echo, path_of, store
from tests.raw import Raw
from tests.reference_record import records
from tests.unit.test_receiver import Association, Site

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.certificates import Certificates

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
BOTH = pytest.mark.parametrize("version", VERSIONS)


class Peered(Association):
    """An association as in the receiver's tests, behind TLS."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.detach()
        self.eofs = 0
        self.lost: list[Exception | None] = []
        self.keeps_open = False

    def connection_made(self, transport: Any) -> None:
        self.secured = transport
        self.attach(transport, -1, direct=False)

    def eof_received(self) -> bool:
        self.eofs += 1
        return self.keeps_open

    def connection_lost(self, error: Exception | None) -> None:
        self.lost.append(error)
        self.disconnected()

    def pause_writing(self) -> None:
        self.pace.hold(4)

    def resume_writing(self) -> None:
        self.pace.go_on(4)


class Connection:
    """Both ends of one TLS connection, and who keeps ours; `flow` is the loop."""

    def __init__(
        self, site: Site, server: ssl.SSLContext, client: ssl.SSLContext, **options: Any
    ) -> None:
        self.site = site
        site.numbers += 1
        self.one = Peered(site.reception, site.numbers, **options)
        site.ones.add(self.one)
        site.establish(self.one)
        self.turns: list[Secured] = []
        self.strangers: list[int] = []
        self.failures: list[Any] = []
        self.gone: list[Exception | None] = []
        self.is_shaken = False
        self.raw = Raw()
        self.secured = Secured(Ciphertext(site.reception), server, self)
        self.secured.connection_made(self.raw)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.client = client.wrap_bio(self.incoming, self.outgoing, server_hostname="localhost")
        self.got = b""
        self.heard_end = False

    # Its keeper

    def turn_due(self, secured: Secured) -> None:
        self.turns.append(secured)

    def stranger(self, secured: Secured, first: int) -> None:
        self.strangers.append(first)

    def shaken(self, secured: Secured) -> None:
        self.is_shaken = True
        secured.open(self.one)

    def broken(self, secured: Secured, error: OSError) -> Exception:
        self.failures.append(error)
        return ConnectionError(str(error))

    def lost(self, secured: Secured, error: Exception | None) -> None:
        self.gone.append(error)

    # The loop and the client

    def take_turns(self) -> None:
        for _ in range(100_000):
            if self.turns:
                self.turns.pop(0).next_turn()
            elif not self.site.take_turns():
                return
        pytest.fail("it never comes to an end")

    def put(self, data: bytes, step: int = 0, *, turns: bool = True) -> int:
        """Bytes of the network, so many at a time, while we read; how many were taken."""
        at = 0
        while at < len(data) and not (self.raw.paused or self.raw.closed):
            with memoryview(self.secured.get_buffer(-1)) as view:
                piece = data[at : at + min(step or len(data), len(view))]
                view[: len(piece)] = piece
                self.secured.buffer_updated(len(piece))
            at += len(piece)
            if turns:
                self.take_turns()
        return at

    def shake(self, step: int = 0) -> None:
        for _ in range(10):
            with contextlib.suppress(ssl.SSLWantReadError):
                self.client.do_handshake()
            self.put(self.outgoing.read(), step)
            self.read()
            if self.is_shaken and not self.outgoing.pending:
                with contextlib.suppress(ssl.SSLWantReadError):
                    self.client.do_handshake()
                    return
        pytest.fail(f"no handshake: {self.failures}")

    def encrypted(self, data: bytes, record: int = 16384) -> bytes:
        for at in range(0, len(data), record):
            self.client.write(data[at : at + record])
        return self.outgoing.read()

    def read(self) -> None:
        """What we sent, decrypted by the client."""
        self.incoming.write(bytes(self.raw.sent))
        self.raw.sent.clear()
        try:
            while data := self.client.read(65536):
                self.got += data
            self.heard_end = True
        except ssl.SSLZeroReturnError:
            self.heard_end = True
        except ssl.SSLError as error:
            if not isinstance(error, ssl.SSLWantReadError) and self.is_shaken:
                self.alert = error.reason
            elif not isinstance(error, ssl.SSLWantReadError):
                self.refused = error.reason

    def answers(self) -> list[int | None]:
        self.read()
        self.one.transport.sent[:] = self.got
        return self.one.statuses()


@pytest.fixture(scope="module")
def server(certificates: Certificates) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.server.both)
    context.options |= ssl.OP_NO_RENEGOTIATION
    return context


def client_of(certificates: Certificates, version: ssl.TLSVersion) -> ssl.SSLContext:
    context = certificates.client_context()
    context.minimum_version = context.maximum_version = version
    return context


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with Site(tmp_path / "store") as one:
        yield one
        assert one.reception.rests == 0


@pytest.fixture
def connect(site: Site, server: ssl.SSLContext, certificates: Certificates) -> Any:
    def make(version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3, **options: Any) -> Connection:
        return Connection(site, server, client_of(certificates, version), **options)

    return make


def uid(number: int) -> str:
    return f"1.2.3.4.{number}"


def instances(count: int, pixels: int = 300, fragment: int = 16372) -> bytes:
    return b"".join(
        store(n + 1, data_set(sop=uid(n), pixels=pixels), sop=uid(n), fragment=fragment)
        for n in range(count)
    )


def stored(site: Site, count: int, pixels: int = 300) -> None:
    for n in range(count):
        path = site.store / path_of(uid(n))
        assert path.read_bytes().endswith(data_set(sop=uid(n), pixels=pixels)), n


# Cuts ---------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("step", [1, 7, 4096, 0])
def test_however_it_is_cut(connect: Any, site: Site, version: ssl.TLSVersion, step: int) -> None:
    one = connect(version)
    one.shake(step)
    one.put(one.encrypted(instances(3)), step)
    assert one.answers() == [0, 0, 0]
    stored(site, 3)
    assert not one.failures
    assert not one.secured.rest_bytes


@BOTH
@pytest.mark.parametrize("record", [1, 5, 300])
def test_records_of_any_size(
    connect: Any, site: Site, version: ssl.TLSVersion, record: int
) -> None:
    one = connect(version)
    one.shake()
    one.put(one.encrypted(instances(2), record))
    assert one.answers() == [0, 0]
    stored(site, 2)


@BOTH
def test_every_place_of_a_cut(connect: Any, site: Site, version: ssl.TLSVersion) -> None:
    """A recorded conversation, each time cut elsewhere."""
    one = connect(version)
    one.shake()
    rng = random.Random(17)
    at = 0
    while at < 600:
        data = one.encrypted(echo(5, context=11), rng.choice((20, 50, 200)))
        cut = at % len(data)
        one.put(data[:cut])
        assert one.secured.rest_bytes < len(data)
        one.put(data[cut:])
        at += 1
    one.read()
    assert one.got.count(one.got[: len(one.got) // 600]) == 600


@BOTH
def test_a_request_behind_the_handshake_in_one_read(
    connect: Any, site: Site, version: ssl.TLSVersion
) -> None:
    one = connect(version)
    client = one.client
    while True:
        try:
            client.do_handshake()
        except ssl.SSLWantReadError:
            one.put(one.outgoing.read())
            one.incoming.write(bytes(one.raw.sent))
            one.raw.sent.clear()
            if version is ssl.TLSVersion.TLSv1_2 and one.is_shaken:
                continue
        else:
            break
    # TLS 1.3: the client's Finished is still here, and goes with all that follows it.
    one.put(one.outgoing.read() + one.encrypted(instances(5)))
    assert one.is_shaken
    assert one.answers() == [0] * 5
    stored(site, 5)


def test_a_large_instance_is_what_was_sent(connect: Any, site: Site) -> None:
    pixels = 700_000
    one = connect()
    one.shake()
    sent = one.encrypted(instances(2, pixels, 131_000))
    at = 0
    while at < len(sent):
        at += one.put(sent[at:])
        one.take_turns()
    assert one.answers() == [0, 0]
    stored(site, 2, pixels)


# What pauses -------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("room", [5000, 20_000, 1 << 20])
def test_what_was_read_waits_and_counts(
    tmp_path: Path,
    server: ssl.SSLContext,
    certificates: Certificates,
    version: ssl.TLSVersion,
    room: int,
) -> None:
    """The peer does not read, from the first message on. room: of the receiver's buffer."""
    with Site(tmp_path / "store", buffer_bytes=room) as site:
        one = Connection(site, server, client_of(certificates, version))
        one.shake()
        other = store(1, data_set(sop=uid(99)), sop=uid(99), sop_class=MR)

        def judged(context_id: int, sop_class: bytes) -> int:
            one.one.pace.hold(4)
            return 0x0122

        one.one.class_judged = judged  # type: ignore[method-assign]
        # In one read, 16 KiB a record.
        sent = other + instances(20, 100)
        one.put(one.encrypted(sent))
        raw: Any = one.raw
        assert raw.paused
        waits = site.reception.rests
        assert len(sent) - 2 * room <= waits <= 65536
        assert one.secured.rest_bytes == 0 or one.secured.rest_bytes + room >= waits
        assert one.answers() == []
        one.one.pace.go_on(4)
        one.take_turns()
        assert one.answers() == [0x0122] + [0] * 20
        assert site.reception.rests == 0
        assert not raw.paused
        stored(site, 20, 100)
        # Large ones, too, whatever the room is.
        one.put(one.encrypted(store(1, data_set(sop=uid(0), pixels=30_000), sop=uid(0))))
        assert not one.failures


@BOTH
def test_reads_are_short_after_a_pause(connect: Any, version: ssl.TLSVersion) -> None:
    """What is copied where a connection pauses is as little as on a port without TLS."""
    one = connect(version)

    def room() -> int:
        with memoryview(one.secured.get_buffer(-1)) as view:
            return len(view)

    # Nobody has shown yet that anything large comes.
    assert room() == 65536
    one.shake()
    assert room() == 131_072

    def judged(context_id: int, sop_class: bytes) -> int:
        one.one.pace.hold(4)
        return 0x0122

    one.one.class_judged = judged
    refused = store(1, data_set(sop=uid(99)), sop=uid(99), sop_class=MR)
    one.put(one.encrypted(refused + instances(1, 10_000)))
    assert one.raw.paused
    one.one.pace.go_on(4)
    one.take_turns()
    assert room() == 65536
    # One read that did not have to wait, and the next one may be large.
    one.put(one.encrypted(store(2, data_set(sop=uid(1)), sop=uid(1))))
    assert room() == 131_072
    assert one.answers() == [0x0122, 0, 0]


@BOTH
def test_all_reads_are_short_where_the_receivers_are(
    tmp_path: Path, server: ssl.SSLContext, certificates: Certificates, version: ssl.TLSVersion
) -> None:
    """As while much is kept, or the store is slow."""
    with Site(tmp_path / "store", buffer_bytes=65536) as site:
        one = Connection(site, server, client_of(certificates, version))
        one.shake()
        with memoryview(one.secured.get_buffer(-1)) as view:
            assert len(view) == 65536


@BOTH
def test_more_than_is_owed_at_a_time(connect: Any, site: Site, version: ssl.TLSVersion) -> None:
    """64 responses wait behind a duplicate that is not decided: the rest counts until it is."""
    one = connect(version)
    one.shake()
    site.resolve_at_once = False
    first = store(1, data_set(sop=uid(900)), sop=uid(900))
    one.put(one.encrypted(first))
    other = store(2, data_set(sop=uid(900), pixels=5000), sop=uid(900))
    many = one.encrypted(other + instances(100, 10))
    one.put(many)
    assert one.one.outbox.owed == 64
    assert one.raw.paused
    assert site.reception.rests > 0
    site.resolve(site.waiting.pop())
    one.take_turns()
    assert one.answers() == [0] * 102
    assert site.reception.rests == 0


def test_what_waits_goes_with_its_connection(connect: Any, site: Site) -> None:
    one = connect()
    one.shake()
    one.one.pace.hold(1)
    one.raw.paused = False  # it was on its way
    one.put(one.encrypted(echo(5, context=11)))
    assert site.reception.rests > 0
    one.secured.connection_lost(None)
    assert site.reception.rests == 0
    assert one.one.lost == [None]


@BOTH
@pytest.mark.parametrize("room", [5000, 1 << 20])
@pytest.mark.parametrize("how", ["reset", "fin", "close_notify", "aborted by us", "a bad record"])
def test_what_was_read_of_a_connection_that_is_gone_counts(
    tmp_path: Path,
    server: ssl.SSLContext,
    certificates: Certificates,
    version: ssl.TLSVersion,
    how: str,
    room: int,
) -> None:
    """As without TLS: complete instances are stored though nobody can be answered (B37)."""
    with Site(tmp_path / "store", buffer_bytes=room) as site:
        one = Connection(site, server, client_of(certificates, version))
        one.shake()
        one.one.pace.hold(4)
        one.raw.paused = False  # it was on its way
        data = one.encrypted(instances(7) + store(9, sop=uid(9))[:-1])
        if how == "close_notify":
            with contextlib.suppress(ssl.SSLError):
                one.client.unwrap()
            data += one.outgoing.read() + b"what comes then is nobody's"
        if how == "a bad record":
            data += header(23, 40) + bytes(40)
        one.put(data)
        waits = one.secured.rest_bytes
        assert site.reception.rests == waits == len(data)
        assert not site.journal()
        if how == "fin":
            assert one.secured.eof_received()
        if how == "aborted by us":
            one.secured.abort()
            assert one.secured.rest_bytes == 0
        one.secured.connection_lost(None)
        assert one.secured.rest_bytes == 0
        assert len(one.one.lost) == 1
        one.take_turns()
        assert site.reception.rests == 0
        stored(site, 7)
        assert [fact.get("responded") for fact in site.journal()] == [False] * 7
        # The one that is not whole is the association's to drop.
        assert one.one.mid_message
        one.one.abandon()
        site.removed()
        assert not list(site.incoming.iterdir())
        assert not one.raw.sent or how == "a bad record"


@BOTH
@pytest.mark.parametrize("wanted", [1, 2])
def test_what_is_gone_waits_as_if_it_were_not(
    connect: Any, site: Site, version: ssl.TLSVersion, wanted: int
) -> None:
    """The bound of what may be owed holds for what is handed over, too."""
    one = connect(version)
    one.shake()
    site.resolve_at_once = False
    first = store(1, data_set(sop=uid(900)), sop=uid(900))
    one.put(one.encrypted(first))
    other = store(2, data_set(sop=uid(900), pixels=5000), sop=uid(900))
    one.put(one.encrypted(other + instances(63, 10)))
    one.raw.paused = False  # it was on its way
    for _ in range(wanted):
        one.raw.paused = False
        one.put(one.encrypted(b"".join(
            store(n, data_set(sop=uid(n), pixels=10), sop=uid(n)) for n in range(100, 140)
        )))  # fmt: skip
    assert one.one.outbox.owed == 64
    one.secured.connection_lost(None)
    assert one.one.outbox.owed == 64
    assert site.reception.rests == one.one.rest_bytes > 0
    site.resolve(site.waiting.pop())
    for _ in range(20):
        one.take_turns()
        for duplicate in site.waiting[:]:
            site.waiting.remove(duplicate)
            site.resolve(duplicate)
    assert site.reception.rests == 0
    assert len(site.journal()) == 1 + 1 + 63 + 40 * wanted
    one.one.abandon()


@BOTH
def test_what_waits_to_be_decrypted_is_told(
    connect: Any, site: Site, version: ssl.TLSVersion
) -> None:
    """Whole records alone: a piece of one is nothing that could be answered."""
    one = connect(version)
    one.shake()

    def waits() -> object:
        return one.secured.get_extra_info("undecrypted")

    whole = one.encrypted(store(1, data_set(sop=uid(1)), sop=uid(1)))
    one.put(whole[:-1])
    assert (waits(), one.secured.rest_bytes > 0) == (False, True)
    one.put(whole[-1:])
    assert not waits()
    one.secured.pause_reading()
    one.raw.paused = False  # it was on its way
    one.put(one.encrypted(store(2, data_set(sop=uid(2)), sop=uid(2))))
    one.raw.paused = True
    assert waits()
    one.secured.resume_reading()
    one.take_turns()
    assert (waits(), len(site.files())) == (False, 2)
    one.secured.abort()
    assert not waits()
    one.one.abandon()


@BOTH
def test_what_follows_a_request_that_nobody_waits_for_is_no_message(
    connect: Any, site: Site, version: ssl.TLSVersion
) -> None:
    one = connect(version)
    one.shake()
    one.one.end_transfer()
    one.one.pace.hold(1)
    one.raw.paused = False  # it was on its way
    one.put(one.encrypted(instances(2)))
    one.secured.connection_lost(None)
    one.take_turns()
    assert (one.one.pdus, one.one.failures, one.one.rest_bytes) == ([], [], 0)
    assert not site.journal()


# Turns --------------------------------------------------------------------------------------------


@BOTH
def test_a_turn_takes_so_many_records(connect: Any, site: Site, version: ssl.TLSVersion) -> None:
    """Records of one byte cost as much as full ones: others have their turn between them."""
    one = connect(version)
    one.shake()
    plain = echo(5, context=11) * 10
    sent = one.encrypted(plain, 1)
    each = len(sent) // len(plain)
    assert one.put(sent, turns=False) == len(sent)
    left = len(plain)
    while left > 256:
        left -= 256
        assert one.secured.rest_bytes == site.reception.rests == left * each
        assert one.raw.paused
        (again,) = one.turns
        one.turns.clear()
        again.next_turn()
    assert left < len(plain) - 256
    assert not one.turns
    assert site.reception.rests == 0
    assert not one.raw.paused
    assert one.answers() == [0] * 10


def test_the_end_is_behind_records_of_other_turns(connect: Any, site: Site) -> None:
    one = connect()
    one.shake()
    sent = one.encrypted(instances(1), 1)
    one.put(sent, turns=False)
    one.secured.eof_received()
    assert not one.one.eofs
    one.take_turns()
    assert one.one.eofs == 1
    stored(site, 1)


def test_ordinary_data_waits_for_no_turn(connect: Any, site: Site) -> None:
    one = connect()
    one.shake()
    one.put(one.encrypted(instances(5, pixels=3000), 1000), turns=False)
    assert not one.turns
    stored(site, 5, pixels=3000)


def test_a_handshake_in_small_records_takes_turns(connect: Any) -> None:
    one = connect(ssl.TLSVersion.TLSv1_2)
    with contextlib.suppress(ssl.SSLWantReadError):
        one.client.do_handshake()
    hello = one.outgoing.read()[5:]
    pieces = b"".join(header(22, 1, 0x0301) + hello[at : at + 1] for at in range(len(hello)))
    assert len(hello) > 100
    # None ends the message, so each is work for nothing.
    endless = header(22, 4, 0x0301) + b"\x01\x00\x40\x00" + (header(22, 1, 0x0301) + b"\0") * 600
    one.put(pieces)
    assert one.raw.sent
    other = connect()
    other.put(endless, turns=False)
    turns = 0
    while other.turns:
        other.turns.pop().next_turn()
        turns += 1
    assert turns == 3
    assert not other.failures


# Ends ---------------------------------------------------------------------------------------------


def test_sessions_that_stay_are_bounded(
    site: Site, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenSSL keeps those that end by close_notify, with the chain that the client showed."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.server.both)
    shared = Ciphertext(site.reception)
    monkeypatch.setattr("tests.unit.test_secure.Ciphertext", lambda _reception: shared)
    client = client_of(certificates, ssl.TLSVersion.TLSv1_2)
    with_tickets = client_of(certificates, ssl.TLSVersion.TLSv1_2)
    client.options |= ssl.OP_NO_TICKET

    def said_end(client: ssl.SSLContext) -> bool:
        one = Connection(site, context, client)
        one.shake()
        one.secured.close()
        one.read()
        one.secured.connection_lost(None)
        return one.heard_end

    live = [Connection(site, context, client) for _ in range(40)]
    for one in live:
        one.shake()
    assert [said_end(client) for _ in range(100)] == [True] * 32 + [False] * 68
    assert said_end(with_tickets)
    assert said_end(client_of(certificates, ssl.TLSVersion.TLSv1_3))
    for one in live:
        one.secured.close()
        one.secured.connection_lost(None)
    live.clear()
    del one
    gc.collect()
    assert context.session_stats()["number"] == 32
    # After a reload there is room again, for those of the new context.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.server.both)
    assert said_end(client)


@BOTH
@pytest.mark.parametrize("says_so", [True, False])
def test_the_peer_ends(connect: Any, site: Site, version: ssl.TLSVersion, says_so: bool) -> None:
    """close_notify and FIN mean the same, and what came before counts."""
    one = connect(version)
    one.shake()
    data = one.encrypted(instances(3))
    if says_so:
        with contextlib.suppress(ssl.SSLError):
            one.client.unwrap()
        one.put(data + one.outgoing.read() + b"what comes then is nobody's")
    else:
        one.put(data)
        assert one.secured.eof_received()
    assert one.one.eofs == 1
    assert one.raw.closed
    assert not one.raw.aborted
    assert not one.failures
    assert one.answers() == [0, 0, 0]
    assert one.heard_end
    stored(site, 3)


@BOTH
@pytest.mark.parametrize("says_so", [True, False])
def test_an_end_behind_what_waits(
    connect: Any, site: Site, version: ssl.TLSVersion, says_so: bool
) -> None:
    one = connect(version)
    one.shake()
    one.one.keeps_open = True
    data = one.encrypted(instances(3))
    if says_so:
        with contextlib.suppress(ssl.SSLError):
            one.client.unwrap()
        data += one.outgoing.read()
    one.one.pace.hold(1)
    one.raw.paused = False  # it was on its way
    one.put(data)
    if not says_so:
        assert one.secured.eof_received()
    assert one.one.eofs == 0
    one.one.pace.go_on(1)
    one.take_turns()
    assert one.one.eofs == 1
    assert not one.raw.closed
    assert one.answers() == [0, 0, 0]
    # Half-closed: what is owed then still goes out.
    one.secured.write(b"more")
    one.read()
    assert one.got.endswith(b"more")
    one.secured.close()
    one.read()
    assert one.heard_end


@BOTH
def test_our_end(connect: Any, site: Site, version: ssl.TLSVersion) -> None:
    one = connect(version)
    one.shake()
    one.secured.write(b"the last PDU")
    one.secured.write_eof()
    assert one.raw.ended
    one.read()
    assert (one.got, one.heard_end) == (b"the last PDU", True)
    one.put(b"\x17\x03\x03\x00\x10" + bytes(16))
    assert one.one.ignored_bytes == 21
    one.secured.write(b"nothing more")
    one.secured.close()
    one.secured.close()
    assert not one.raw.sent
    assert not one.failures


@BOTH
def test_an_abort_says_nothing(connect: Any, version: ssl.TLSVersion) -> None:
    one = connect(version)
    one.shake()
    one.raw.sent.clear()
    one.secured.abort()
    assert one.raw.aborted
    one.secured.close()
    assert not one.raw.sent


@pytest.mark.parametrize("sent", [b"\x01\x00\x00\x00\x00\x44", b"GET / HTTP/1.1\r\n\r\n", b"\x15"])
def test_whoever_speaks_no_tls(connect: Any, sent: bytes) -> None:
    one = connect()
    one.put(sent)
    assert one.strangers == [sent[0]]
    assert one.raw.closed
    assert not one.raw.sent
    one.secured.connection_lost(None)
    assert one.gone == [None]


@pytest.mark.parametrize("sent", [b"", b"\x16\x03\x01"])
def test_gone_inside_the_handshake(connect: Any, sent: bytes) -> None:
    one = connect()
    one.put(sent)
    assert one.secured.has_begun == bool(sent)
    assert not one.secured.eof_received()
    one.secured.connection_lost(None)
    assert one.gone == [None]
    assert not one.one.lost


@pytest.mark.parametrize("ends", ["refused", "broken", "lost"])
def test_what_is_over_keeps_no_cryptography(connect: Any, ends: str) -> None:
    """Whoever fails may take seconds to hang up, and each such connection had 45 KiB."""
    one = connect()
    gone = weakref.ref(one.secured.ssl_object)
    if ends == "refused":
        one.put(b"\x16\x03\x01\x00\x04zzzz")
    else:
        one.shake()
    if ends == "broken":
        one.put(b"\x17\x03\x03\x00\x20" + bytes(32))
    assert len(one.failures) == (ends != "lost")
    call = one.secured.last_call = Call()
    if ends == "lost":
        one.secured.connection_lost(None)
        assert call.cancels == 1
    one.failures.clear()
    assert gone() is None
    assert one.secured.get_extra_info("sslcontext") is None
    if ends != "lost":
        assert call.cancels == 0
        one.secured.connection_lost(None)
        assert call.cancels == 1
        assert one.secured.last_call is None


class Call:
    """A call of the loop's that is to come."""

    cancels = 0

    def cancel(self) -> None:
        self.cancels += 1


# What is wrong ------------------------------------------------------------------------------------

RECORD = struct.Struct(">BHH")


def header(kind: int, size: int, version: int = 0x0303) -> bytes:
    return RECORD.pack(kind, version, size)


@BOTH
@pytest.mark.parametrize(
    "wrong",
    [
        header(23, 16384 + 2049),
        header(23, 65535) + bytes(100),
        b"GET / HTTP/1.1\r\n\r\n",
        header(99, 10) + bytes(10),
        header(23, 40) + bytes(40),
        header(22, 40) + bytes(40),
        header(24, 3) + bytes(3),
    ],
    ids=["overflow", "more", "plain", "type", "mac", "handshake", "heartbeat"],
)
@pytest.mark.parametrize("waits", [False, True])
def test_garbage_behind_the_handshake(
    connect: Any, site: Site, version: ssl.TLSVersion, wrong: bytes, waits: bool
) -> None:
    """It ends the connection, once, and what came whole before is stored."""
    one = connect(version)
    one.shake()
    data = one.encrypted(instances(3))
    if waits:
        one.one.pace.hold(1)
        one.raw.paused = False  # it was on its way
    one.put(data + wrong)
    if waits:
        assert not one.failures
        one.one.pace.go_on(1)
        one.take_turns()
    assert len(one.failures) == 1
    assert isinstance(one.failures[0], ssl.SSLError)
    assert one.raw.ended
    assert not one.raw.closed
    assert not one.raw.paused
    one.put(bytes(1000))
    one.secured.write(b"nothing")
    one.secured.connection_lost(None)
    assert [str(error) for error in one.one.lost] == [str(one.failures[0])]
    stored(site, 3)


@BOTH
def test_a_changed_byte_is_found(connect: Any, site: Site, version: ssl.TLSVersion) -> None:
    one = connect(version)
    one.shake()
    data = bytearray(one.encrypted(instances(1)))
    data[len(data) // 2] ^= 1
    one.put(bytes(data))
    assert [error.reason for error in one.failures] == ["DECRYPTION_FAILED_OR_BAD_RECORD_MAC"]
    one.read()
    assert "BAD_RECORD_MAC" in one.alert
    assert not list(site.store.rglob("*.dcm"))


class Library:
    """A client of OpenSSL itself, for what the ssl module does not offer."""

    UPDATE, REQUEST = 0, 1

    def __init__(self, one: Connection, version: ssl.TLSVersion) -> None:
        crypto, self.lib = ctypes.CDLL("libcrypto.so.3"), ctypes.CDLL("libssl.so.3")
        self.one = one
        for name in ("TLS_client_method", "SSL_CTX_new", "SSL_new"):
            getattr(self.lib, name).restype = ctypes.c_void_p
        for name in ("BIO_s_mem", "BIO_new"):
            getattr(crypto, name).restype = ctypes.c_void_p
        self.crypto = crypto
        context = ctypes.c_void_p(
            self.lib.SSL_CTX_new(ctypes.c_void_p(self.lib.TLS_client_method()))
        )
        # SSL_CTRL_SET_MIN_PROTO_VERSION and the one for the newest.
        for control in (123, 124):
            assert self.lib.SSL_CTX_ctrl(context, control, ctypes.c_long(version), None) == 1
        self.ssl = ctypes.c_void_p(self.lib.SSL_new(context))
        memory = ctypes.c_void_p(crypto.BIO_s_mem())
        self.into = ctypes.c_void_p(crypto.BIO_new(memory))
        self.out = ctypes.c_void_p(crypto.BIO_new(memory))
        self.lib.SSL_set_bio(self.ssl, self.into, self.out)
        self.lib.SSL_set_connect_state(self.ssl)
        self.context = context

    def close(self) -> None:
        self.lib.SSL_free(self.ssl)
        self.lib.SSL_CTX_free(self.context)

    def taken(self) -> bytes:
        room = ctypes.create_string_buffer(65536)
        size = self.crypto.BIO_read(self.out, room, 65536)
        return room.raw[: max(size, 0)]

    def flow(self) -> None:
        self.one.put(self.taken())
        sent = bytes(self.one.raw.sent)
        self.one.raw.sent.clear()
        self.crypto.BIO_write(self.into, sent, len(sent))

    def shake(self) -> None:
        for _ in range(10):
            if self.lib.SSL_do_handshake(self.ssl) == 1:
                self.flow()
                return
            self.flow()
        pytest.fail("no handshake")

    def write(self, data: bytes) -> None:
        assert self.lib.SSL_write(self.ssl, data, len(data)) == len(data)
        self.flow()

    def read(self) -> bytes:
        room = ctypes.create_string_buffer(65536)
        size = self.lib.SSL_read(self.ssl, room, 65536)
        return room.raw[: max(size, 0)]


@pytest.fixture
def library(connect: Any) -> Iterator[Callable[[ssl.TLSVersion], Library]]:
    made: list[Library] = []

    def make(version: ssl.TLSVersion) -> Library:
        try:
            made.append(Library(connect(version), version))
        except OSError as error:
            pytest.skip(f"no library of OpenSSL 3 to load: {error}")
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.mark.parametrize("kind", [Library.UPDATE, Library.REQUEST])
def test_keys_change_under_way(library: Callable[..., Library], site: Site, kind: int) -> None:
    """And 64 records in a row bring no data: the next one ends it."""
    client = library(ssl.TLSVersion.TLSv1_3)
    client.shake()
    for number in range(200):
        assert client.lib.SSL_key_update(client.ssl, kind) == 1
        sop = uid(number)
        client.write(store(1, data_set(sop=sop, pixels=50), sop=sop))
        assert decode_pdata(client.read())
    stored(site, 200, 50)
    for _ in range(64):
        assert client.lib.SSL_key_update(client.ssl, kind) == 1
        assert client.lib.SSL_do_handshake(client.ssl) == 1
        client.flow()
    assert not client.one.failures
    client.write(echo(5, context=11))
    assert decode_pdata(client.read())
    for _ in range(65):
        assert not client.one.failures
        assert client.lib.SSL_key_update(client.ssl, kind) == 1
        assert client.lib.SSL_do_handshake(client.ssl) == 1
        client.flow()
    assert len(client.one.failures) == 1
    assert client.one.raw.ended


def test_no_renegotiation(library: Callable[..., Library]) -> None:
    client = library(ssl.TLSVersion.TLSv1_2)
    client.shake()
    assert client.lib.SSL_renegotiate(client.ssl) == 1
    client.lib.SSL_do_handshake(client.ssl)
    client.one.raw.sent.clear()
    client.one.put(client.taken())
    # An alert, and nothing of a handshake.
    assert client.one.raw.sent[0] == 21
    assert tls_records(client.one.raw.sent)[0] == [len(client.one.raw.sent)]
    assert client.one.one.pdus == []
    assert not client.one.failures


@BOTH
def test_handshakes_are_bounded(connect: Any, version: ssl.TLSVersion) -> None:
    one = connect(version)
    # A message of 60,000 bytes that never ends, in records of 8 KiB.
    piece = header(22, 8000, 0x0301) + b"\x01\x00\xff\xff" + bytes(7996)
    for _ in range(3):
        one.put(piece)
    assert not one.failures
    one.put(piece)
    assert one.raw.ended
    assert len(one.failures) == 1


def test_a_handshake_that_is_refused(
    site: Site, server: ssl.SSLContext, certificates: Certificates
) -> None:
    """The peer hears the alert before the connection ends."""
    one = Connection(site, server, certificates.client_context(ca=certificates.other_ca))
    with contextlib.suppress(ssl.SSLWantReadError):
        one.client.do_handshake()
    one.put(one.outgoing.read())
    one.incoming.write(bytes(one.raw.sent))
    with pytest.raises(ssl.SSLCertVerificationError):
        one.client.do_handshake()
    one.put(one.outgoing.read())
    assert [error.reason for error in one.failures] == ["TLSV1_ALERT_UNKNOWN_CA"]
    assert one.raw.ended
    one.secured.connection_lost(None)
    assert [str(error) for error in one.gone] == [str(one.failures[0])]


@BOTH
def test_client_certificates(
    site: Site, certificates: Certificates, version: ssl.TLSVersion
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.server.both)
    context.load_verify_locations(certificates.ca.cert)
    context.verify_mode = ssl.CERT_REQUIRED
    client = client_of(certificates, version)
    client.load_cert_chain(certificates.client.both)
    one = Connection(site, context, client)
    one.shake()
    shown: Any = one.secured.ssl_object.getpeercert()
    assert ("commonName", "GATE-1") in [pair for part in shown["subject"] for pair in part]
    missing = Connection(site, context, client_of(certificates, version))
    with contextlib.suppress(ssl.SSLWantReadError):
        missing.client.do_handshake()
    missing.put(missing.outgoing.read())
    missing.incoming.write(bytes(missing.raw.sent))
    with contextlib.suppress(ssl.SSLWantReadError):
        missing.client.do_handshake()
    missing.put(missing.outgoing.read())
    assert [error.reason for error in missing.failures] == ["PEER_DID_NOT_RETURN_A_CERTIFICATE"]


def test_connections_beside_each_other_share_nothing_but_memory(
    connect: Any, site: Site, server: ssl.SSLContext, certificates: Certificates
) -> None:
    """Records of several, cut and mixed, over one buffer; one of them is broken meanwhile."""
    rng = random.Random(5)
    ones = [connect(version) for version in VERSIONS * 3]
    shared = Ciphertext(site.reception)
    for number, one in enumerate(ones):
        one.secured = Secured(shared, server, one)
        one.secured.connection_made(one.raw)
        one.number = number
    for one in ones:
        one.shake(rng.randrange(1, 300))
    waiting = []
    for number, one in enumerate(ones):
        sop = uid(number)
        data = store(1, data_set(sop=sop, pixels=40_000), sop=sop, fragment=9000)
        waiting.append(bytearray(one.encrypted(data, rng.randrange(100, 16384))))
    waiting[0][20_000] ^= 1
    while any(waiting):
        number = rng.choice([n for n, left in enumerate(waiting) if left])
        size = rng.randrange(1, 9000)
        ones[number].put(bytes(waiting[number][:size]))
        del waiting[number][:size]
        # A read of which nothing comes.
        rng.choice(ones).secured.get_buffer(-1)
    assert [len(one.failures) for one in ones] == [1, 0, 0, 0, 0, 0]
    for number, one in enumerate(ones[1:], 1):
        assert one.answers() == [0]
        path = site.store / path_of(uid(number))
        assert path.read_bytes().endswith(data_set(sop=uid(number), pixels=40_000))
    ones[0].secured.connection_lost(None)
    ones[0].one.abandon()


# Records ------------------------------------------------------------------------------------------


def test_where_records_end() -> None:
    rng = random.Random(1)
    for _ in range(3000):
        data = bytearray()
        for _ in range(rng.randrange(4)):
            size = rng.choice((0, 1, 5, 300, 16384 + 256, 16384 + 2048, 16384 + 2049, 65535))
            data += header(rng.randrange(18, 27), size, rng.choice((0x0301, 0x0303, 0x0403)))
            data += bytes(min(size, rng.choice((0, size, size, size))))
        cut = bytes(data[: rng.randrange(len(data) + 1)])
        assert tls_records(cut) == records(cut)
