"""The way to an association: connect, propose, be accepted.

async with await associate("pacs", 104, [(CT, [EXPLICIT])], called_ae="PACS") as association:
    response = await association.store("image.dcm")
    print(response)
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from fastscp import uids
from fastscp.scu.association import Association
from fastscp.scu.contexts import MAX_CONTEXTS
from fastscp.scu.errors import ConnectionFailed, PeerError, PeerTimeout, ProtocolViolation
from fastscp.scu.link import Link, SeenPDU
from fastscp.scu.strangers import handshake_words, silence_words
from fastscp.scu.timeouts import Timeouts
from fastscp_ext import (
    AssociateAC,
    AssociateRQ,
    AsyncWindow,
    PresentationContextRQ,
    UserIdentity,
    UserInformation,
)

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterable, Sequence

__all__ = ["associate", "jwt_identity", "password_identity"]


def password_identity(user: str, password: str | None = None) -> UserIdentity:
    """A user name, with a passcode if there is one. In clear text unless TLS hides it.

    Source: PS3.7 D.3.3.7.
    """
    secret = None if password is None else password.encode()
    return UserIdentity(1 if secret is None else 2, False, user.encode(), secret or b"")


def jwt_identity(token: str) -> UserIdentity:
    """A JSON Web Token. In clear text unless TLS hides it. Source: PS3.7 D.3.3.7."""
    return UserIdentity(5, False, token.encode(), b"")


async def associate(
    host: str,
    port: int,
    contexts: Iterable[tuple[str, Sequence[str]]] = (),
    *,
    calling_ae: str = "FASTSCP",
    called_ae: str = "ANY-SCP",
    max_pdu_length: int = 131072,
    window: int = 1,
    timeouts: Timeouts | None = None,
    on_pdu: Callable[[SeenPDU], object] | None = None,
    tls: ssl.SSLContext | None = None,
    identity: UserIdentity | None = None,
) -> Association:
    """Connect and negotiate. Raises PeerError.

    contexts: SOP class and transfer syntaxes of each presentation context, at most 128; their ids
    are 1, 3, 5 and so on. Verification alone if there are none. window: outstanding operations to
    ask for. on_pdu: called with every PDU sent and received. identity: see `password_identity`,
    `jwt_identity`.
    Source: PS3.8 7.1.
    """
    timeouts = timeouts or Timeouts()
    proposed = list(contexts) or [(uids.VERIFICATION, [uids.IMPLICIT_VR_LITTLE_ENDIAN])]
    request = _request(proposed, calling_ae, called_ae, max_pdu_length, window, identity)
    association: Association | None = None
    early: list[tuple[int, bytes]] = []

    def on_command(context_id: int, command: bytes) -> None:
        if association is None:
            early.append((context_id, command))
        else:
            association.responded(context_id, command)

    def on_failure(why: PeerError) -> None:
        if association is not None:
            association.ended(why)

    link = await _connect(
        host, port, lambda: Link(request, on_command, on_failure, on_pdu), tls, timeouts.connect
    )
    answer = await _answer(link, timeouts.associate)
    association = Association(link, request, answer, timeouts)
    if association.fragment_bytes < 2:
        what = f"takes P-DATA-TF of at most {association.max_pdu_length} bytes: none can be sent"
        why = link.give_up(ProtocolViolation(f"it {what}"))
        await link.closed()
        raise why
    for context_id, command in early:
        association.responded(context_id, command)
    return association


def _request(
    contexts: Sequence[tuple[str, Sequence[str]]],
    calling_ae: str,
    called_ae: str,
    max_pdu_length: int,
    window: int,
    identity: UserIdentity | None,
) -> AssociateRQ:
    if len(contexts) > MAX_CONTEXTS:
        raise ValueError(f"an association has at most {MAX_CONTEXTS} presentation contexts")
    if window < 1:
        raise ValueError("at least one operation is outstanding")
    return AssociateRQ(
        _title(called_ae),
        _title(calling_ae),
        uids.APPLICATION_CONTEXT,
        tuple(
            PresentationContextRQ(2 * number + 1, str(abstract), tuple(map(str, syntaxes)))
            for number, (abstract, syntaxes) in enumerate(contexts)
        ),
        UserInformation(
            max_pdu_length=max_pdu_length,
            implementation_class_uid=uids.IMPLEMENTATION_CLASS_UID,
            implementation_version_name=uids.IMPLEMENTATION_VERSION_NAME,
            # Some peers hang up when they see this offer: it is made only for more than one
            # operation.
            async_window=AsyncWindow(window, 1) if window > 1 else None,
            identity=identity,
        ),
    )


def _title(title: str) -> bytes:
    raw = title.encode("latin-1")
    if not 1 <= len(raw) <= 16:
        raise ValueError(f"an AE title has 1 to 16 characters: {title!r}")
    return raw.ljust(16)


async def _connect(
    host: str,
    port: int,
    make: Callable[[], Link],
    tls: ssl.SSLContext | None,
    timeout_s: float,
) -> Link:
    peer = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    loop = asyncio.get_running_loop()
    connected = False

    def made() -> Link:
        nonlocal connected
        connected = True
        return make()

    try:
        async with asyncio.timeout(timeout_s):
            _transport, link = await loop.create_connection(
                made, host, port, ssl=tls, server_hostname=host if tls is not None else None
            )
    except TimeoutError:
        why = silence_words(timeout_s, tls=tls is not None, connected=connected)
        raise ConnectionFailed(peer, why) from None
    except OSError as error:
        # ssl.SSLError is an OSError too; its text says what did not agree.
        why, transient = handshake_words(error, host, connected=connected)
        raise ConnectionFailed(peer, why, transient=transient) from None
    return link


async def _answer(link: Link, timeout_s: float) -> AssociateAC:
    """What the peer accepts the request with; the connection is gone if it does not."""
    try:
        async with asyncio.timeout(timeout_s):
            return await link.answer
    except TimeoutError:
        why = link.give_up(PeerTimeout("answer the association request", timeout_s))
        await link.closed()
        raise why from None
    except BaseException:
        if link.state.name != "STA1":
            link.transport.abort()
        await asyncio.shield(link.closed())
        raise
