"""What stands in front of a conversation: a PROXY header, a user identity, TLS; and what is wrong
with it.

A front that is sound leads to an acceptance. Of one that is not, only this is known: the service
ends it or accepts it, and answers nothing that was not asked.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
from typing import TYPE_CHECKING, Final, NamedTuple, cast

from fastscp_ext import UserIdentity, UserInformation
from tests.kit import CT, DEFLATED, ELE, ILE, VERIFICATION, Peer, associate_rq
from tests.streams.proxied import BROKEN, SOUND, line

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from tests.kit import Service

__all__ = ["PASSCODE", "PROXY", "USER", "Front", "Tampering", "open_front"]

# Who comes from here is a proxy; who is in the file of users.
PROXY: Final = "127.0.0.2"
ELSEWHERE: Final = "127.0.0.3"
USER, PASSCODE = "jo", b"sesame-4711"
RQ: Final = ((1, CT, ELE), (3, CT, ILE), (7, CT, DEFLATED), (9, VERIFICATION, ILE))


class Tampering:
    """A socket that changes one byte of what passes, once; with what `SecuredSocket` needs of it.

    at: which byte, counted from when it is `armed`.
    """

    def __init__(self, sock: socket.socket, at: int, mask: int) -> None:
        self._sock = sock
        self._left, self._mask = at, mask
        self.armed = False

    def send(self, data: bytes | bytearray) -> int:
        if self.armed and 0 <= self._left < len(data):
            changed = bytearray(data)
            changed[self._left] ^= self._mask
            done = self._sock.send(changed)
            # The kernel may take less than that byte.
            self.armed = done <= self._left
        else:
            done = self._sock.send(data)
        if self.armed:
            self._left -= done
        return done

    def __getattr__(self, name: str) -> object:
        return getattr(self._sock, name)


class Front(NamedTuple):
    """peer: connected. opening: what it says first. sound: it must be accepted then.

    tampering: what changes the bytes behind that. records: it speaks TLS by hand, and all that may
    come is a record of it.
    """

    peer: Peer
    opening: bytes
    sound: bool = True
    tampering: Tampering | None = None
    records: bool = False


def _request(identity: UserIdentity | None = None) -> bytes:
    information = UserInformation(
        max_pdu_length=16384, implementation_class_uid="1.2.3.9", identity=identity
    )
    return associate_rq(*RQ, user_information=information)


def _header(rng: random.Random) -> bytes:
    """Of a sender that nobody else is, so that no limit of an address counts several."""
    return line(".".join(map(str, (10, *rng.randbytes(3)))), rng.randrange(1, 65536))


def _mutated(rng: random.Random, data: bytes) -> bytes:
    """Changed in a way that need not be wrong."""
    made = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        at = rng.randrange(len(made) + 1)
        match rng.randrange(5):
            case 0 if at < len(made):
                made[at] ^= 1 << rng.randrange(8)
            case 1 if at < len(made):
                made[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF))
            case 2:
                del made[at : at + rng.randrange(1, 20)]
            case 3:
                made[at:at] = rng.randbytes(rng.randrange(1, 20))
            case _:
                made[at:at] = made[: rng.randrange(len(made) + 1)][-200:]
    return bytes(made)


def _plain(service: Service, rng: random.Random) -> Front:
    return Front(service.connect(), _request())


def _proxied(service: Service, rng: random.Random) -> Front:
    header = rng.choice([_header(rng), *(header for header, _told in SOUND.values())])
    return Front(service.connect(source=PROXY), header + _request())


def _badly_proxied(service: Service, rng: random.Random) -> Front:
    """A header that is wrong, or of somebody whose headers nobody believes."""
    headers = [_header(rng)]
    headers += [header for header, _ in (*SOUND.values(), *BROKEN.values())]
    source = rng.choice((PROXY, PROXY, PROXY, ELSEWHERE))
    header = _mutated(rng, rng.choice(headers))
    return Front(service.connect(source=source), header + _request(), sound=False)


def _identified(service: Service, rng: random.Random) -> Front:
    identity = UserIdentity(2, bool(rng.randrange(2)), USER.encode(), PASSCODE)
    return Front(service.connect(source=PROXY), _header(rng) + _request(identity))


def _badly_identified(service: Service, rng: random.Random) -> Front:
    """An item of any type, and with any lengths; seldom a wrong password, which costs a hash."""
    kind = rng.choice((0, 1, 2, 3, 4, 5, 6, 255))
    name = rng.choice((USER.encode(), b"", rng.randbytes(rng.randrange(300)), b"\x1b[2J\r\n"))
    secret = PASSCODE if kind == 2 else rng.randbytes(rng.choice((0, 8, 3000)))
    request = _request(UserIdentity(kind, bool(rng.randrange(2)), name, secret))
    at = request.rindex(struct.pack(">BB", 0x58, 0))
    item = bytearray(_mutated(rng, request[at:]) if rng.randrange(4) else request[at:])
    if rng.randrange(2) and len(item) > 8:
        place = rng.choice((2, 6))
        struct.pack_into(">H", item, place, rng.choice((0, 1, 7, 0xFFFF, len(item))))
    made = request[:at] + item
    if rng.randrange(2):
        # The lengths around it are right again: of the PDU, and of the user information.
        around = request.rindex(b"\x50\x00", 0, at)
        made = made[: around + 2] + struct.pack(">H", min(len(made) - around - 4, 65535)) + (
            made[around + 4 :]
        )  # fmt: skip
        made = made[:2] + struct.pack(">I", len(made) - 6) + made[6:]
    return Front(service.connect(source=PROXY), _header(rng) + made, sound=False)


def _cuts(rng: random.Random) -> dict[str, int]:
    return {"record": rng.choice((1, 100, 5000, 16384)), "cut": rng.choice((0, 0, 1, 7, 1400))}


def _secured(service: Service, rng: random.Random) -> Front:
    return Front(service.connect(secured=True, **_cuts(rng)), _request())


def _secured_behind_a_proxy(service: Service, rng: random.Random) -> Front:
    peer = service.connect(secured=True, source=PROXY, before=_header(rng), **_cuts(rng))
    return Front(peer, _request())


def _tampered(service: Service, rng: random.Random) -> Front:
    """A byte of the ciphertext is another: what was before it counts, and nothing behind it."""
    peer = service.connect(secured=True)
    assert not isinstance(peer.socket, socket.socket)
    at = rng.choice((0, 300, 2000, 20_000)) + rng.randrange(300)
    tampering = Tampering(peer.raw, at, 1 << rng.randrange(8))
    peer.socket.raw = cast("socket.socket", tampering)
    return Front(peer, _request(), tampering=tampering)


def _bad_handshake(service: Service, rng: random.Random) -> Front:
    """A ClientHello that is cut, changed, doubled, or followed by anything."""
    outgoing = ssl.MemoryBIO()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), outgoing).do_handshake()
    hello = outgoing.read()
    made = _mutated(rng, hello) + rng.choice((b"", hello, rng.randbytes(100), b"\x15\3\3\0\2\1\0"))
    return Front(Peer(service.host, service.tls_port), made, sound=False, records=True)


_WAYS: Final[tuple[Callable[[Service, random.Random], Front], ...]] = (
    _plain, _proxied, _badly_proxied, _identified, _badly_identified,
    _secured, _secured_behind_a_proxy, _tampered, _bad_handshake,
)  # fmt: skip


def open_front(service: Service, rng: random.Random) -> Front:
    """Connect in a way drawn from all there are; the service listens plain and with TLS."""
    return rng.choice(_WAYS)(service, rng)
