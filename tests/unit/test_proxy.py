"""PROXY headers: what is read out of them, what is refused, and where they end."""

from __future__ import annotations

import random
import socket
from ipaddress import IPv4Address, IPv6Address

import pytest
from proxyprotocol.detect import ProxyProtocolDetect
from proxyprotocol.result import (
    ProxyResult,
    ProxyResultIPv4,
    ProxyResultIPv6,
    is_ipv4,
    is_ipv6,
    is_local,
    is_unknown,
)
from proxyprotocol.tlv import ProxyProtocolSSLTLV, ProxyProtocolTLV, Type
from proxyprotocol.v1 import ProxyProtocolV1
from proxyprotocol.v2 import ProxyProtocolV2

from fastscp_ext import ProxyHeader, ProxyHeaderError
from tests import reference_proxy, wire
from tests.fuzz.generate import proxy_input
from tests.streams.proxied import BROKEN, SOUND, Told, line, v2


def feed(header: ProxyHeader, data: bytes, step: int) -> None:
    for at in range(0, len(data), step):
        header.feed(data[at : at + step])


def read(data: bytes, step: int) -> tuple[ProxyHeader, int]:
    """A header out of pieces of so many bytes, and how many of them it took."""
    header = ProxyHeader()
    size = 0
    while size < len(data) and not header.is_whole:
        size += header.feed(data[size : size + step])
    return header, size


@pytest.mark.parametrize("step", [1, 2, 7, 5000])
@pytest.mark.parametrize("name", SOUND)
def test_what_it_says(name: str, step: int) -> None:
    data, told = SOUND[name]
    header, size = read(data + wire.ASSOCIATE_RQ_ECHO, step)
    assert header.is_whole
    assert size == len(data)
    assert Told(header.source, header.common_name) == told
    assert header.version == (1 if data.startswith(b"PROXY") else 2)
    assert header.is_local == name.startswith("local")
    assert header.least == header.feed(b"more") == 0


@pytest.mark.parametrize("step", [1, 2, 7, 5000])
@pytest.mark.parametrize("name", BROKEN)
def test_what_is_refused(name: str, step: int) -> None:
    data, why = BROKEN[name]
    header = ProxyHeader()
    with pytest.raises(ProxyHeaderError, match=why) as refused:
        feed(header, data, step)
    assert refused.value.is_absent == (why == "no PROXY header")
    assert 0 < refused.value.offset <= len(data)
    assert header.least == 0
    assert (header.source, header.common_name) == (None, None)
    with pytest.raises(ProxyHeaderError, match=why):
        header.feed(b"more")


def test_a_stranger_is_known_at_the_first_byte() -> None:
    for byte in range(256):
        header = ProxyHeader()
        if byte in b"P\r":
            assert header.feed(bytes((byte,))) == 1
        else:
            with pytest.raises(ProxyHeaderError):
                header.feed(bytes((byte,)))


@pytest.mark.parametrize("name", SOUND)
def test_no_more_is_asked_for_than_is_sure_to_come(name: str) -> None:
    """Whoever reads as many bytes as `least` says never reads what is behind the header."""
    data, told = SOUND[name]
    header = ProxyHeader()
    at = 0
    while header.least:
        assert at + header.least <= len(data)
        at += header.feed(data[at : at + header.least])
    assert at == len(data)
    assert header.source == told.source


def test_two_checksums() -> None:
    one = v2(b"\x0a\x01\x02\x03\x0a\x00\x00\x05\x9d\x08\x2b\x68" + bytes(14))
    block = one[16:28] + b"\x03\x00\x04" + bytes(4) + b"\x03\x00\x04" + bytes(4)
    first = reference_proxy.crc32c(v2(block)).to_bytes(4, "big")
    with pytest.raises(ProxyHeaderError, match="two of them"):
        ProxyHeader().feed(v2(block[:15] + first + block[19:]))


def test_its_longest_block() -> None:
    block = bytes(12) + b"\x04\x0f\xf1" + bytes(4081)
    header, size = read(v2(block), 512)
    assert (header.is_whole, size) == (True, 16 + 4096)


# Another implementation ---------------------------------------------------------------------------

OTHER = ProxyProtocolDetect(ProxyProtocolV2(), ProxyProtocolV1())


def source_as_the_other_reads(result: ProxyResult) -> tuple[str, int] | None:
    # Version 1 has no protocol; one that is not TCP's is none of ours.
    if (is_ipv4(result) or is_ipv6(result)) and result.protocol != socket.SOCK_DGRAM:
        return reference_proxy.written(result.source[0].packed), result.source[1]
    return None


def as_the_other_reads(data: bytes) -> Told:
    """What the `proxy-protocol` package says of a whole header."""
    result = OTHER.unpack(data)
    name = None
    tls = None if is_unknown(result) or is_local(result) else result.tlv.ssl
    if tls is not None and tls.verified and (tls.has_cert_conn or tls.has_cert_sess):
        name = tls[Type.PP2_SUBTYPE_SSL_CN] if tls.cn is not None else None
    return Told(source_as_the_other_reads(result), name)


@pytest.mark.parametrize("name", SOUND)
def test_the_other_reads_the_same(name: str) -> None:
    data, told = SOUND[name]
    assert as_the_other_reads(data) == told


def test_what_the_other_writes() -> None:
    rng = random.Random(7)
    for number in range(500):
        port = rng.randrange(65536)
        if number % 2:
            of_4 = (IPv4Address(rng.randbytes(4)), port), (IPv4Address(rng.randbytes(4)), 104)
        else:
            of_6 = (IPv6Address(rng.randbytes(16)), port), (IPv6Address(rng.randbytes(16)), 104)
        tls = ProxyProtocolSSLTLV(
            has_ssl=True, has_cert_sess=rng.random() < 0.5, verified=rng.random() < 0.5,
            version="TLSv1.3", cn="GATE-" + "x" * rng.randrange(60),
        )  # fmt: skip
        tlv = ProxyProtocolTLV(alpn=b"dicom", authority="x.example.com", ssl=tls, unique_id=b"12")
        result = (
            ProxyResultIPv4(*of_4, protocol=socket.SOCK_STREAM, tlv=tlv)
            if number % 2
            else ProxyResultIPv6(*of_6, protocol=socket.SOCK_STREAM, tlv=tlv)
        )
        header, size = read((v2_ := ProxyProtocolV2().pack(result)) + b"behind", 1 + number % 9)
        assert size == len(v2_)
        assert Told(header.source, header.common_name) == as_the_other_reads(v2_)
        assert (header.common_name is not None) == (tls.verified and tls.has_cert_sess)
        v1 = ProxyProtocolV1().pack(result)
        assert read(v1 + b"behind", 3)[0].source == header.source == as_the_other_reads(v1).source


def test_whatever_is_taken_the_other_takes() -> None:
    """Ours is stricter: it refuses what the other passes over, as a TLV that runs past the end."""
    taken = 0
    for number in range(4000):
        header = ProxyHeader()
        data = proxy_input(random.Random(number))
        try:
            size = header.feed(data)
        except ProxyHeaderError:
            continue
        assert header.is_whole
        if header.source is None:
            # Of a UNIX socket it wants a path, and what is to be ignored it reads.
            continue
        taken += 1
        assert source_as_the_other_reads(OTHER.unpack(data[:size])) == header.source, data
    assert taken > 1000


def test_a_line_for_the_tests() -> None:
    assert as_the_other_reads(line("10.1.2.3", 7)).source == ("10.1.2.3", 7)
    assert as_the_other_reads(line("2001:db8::1", 7)).source == ("2001:db8::1", 7)
