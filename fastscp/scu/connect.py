"""The way to an association: connect, propose, be accepted."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Final, NoReturn, cast

from fastscp import uids
from fastscp.scu import arguments
from fastscp.scu.association import Association
from fastscp.scu.errors import (
    ConnectionFailed,
    PeerError,
    PeerTimeout,
    ProtocolViolation,
    UsageError,
)
from fastscp.scu.link import Link, SeenPDU
from fastscp.scu.names import given
from fastscp.scu.strangers import handshake_words, silence_words
from fastscp.scu.tcp import connected_socket
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
    from collections.abc import Callable, Generator, Iterable, Sequence
    from types import CoroutineType, TracebackType

__all__ = ["Opening", "associate", "jwt_identity", "password_identity"]

# Bytes that the length field of a user identity allows (PS3.7 D.3.3.7.1).
_IDENTITY_MOST: Final = 0xFFFF


def password_identity(user: str, password: str | None = None) -> UserIdentity:
    """A user name, with a passcode if there is one. In clear text unless TLS hides it.

    >>> who = password_identity("jo", "sesame")
    >>> async with associate("pacs", 104, identity=who) as pacs:
    ...     print(await pacs.echo())
    0000 success

    Source: PS3.7 D.3.3.7.
    """
    secret = None if password is None else _text("password", password)
    return UserIdentity(1 if secret is None else 2, False, _text("user", user), secret or b"")


def jwt_identity(token: str) -> UserIdentity:
    """A JSON Web Token. In clear text unless TLS hides it.

    >>> async with associate("pacs", 104, identity=jwt_identity("eyJhbGci.eyJzdWIi.c2ln")) as pacs:
    ...     print(await pacs.echo())
    0000 success

    Source: PS3.7 D.3.3.7.
    """
    return UserIdentity(5, False, _text("token", token), b"")


def _text(name: str, value: Any) -> bytes:
    # It is a secret, or may be one: it is not shown.
    if not isinstance(value, str):
        raise UsageError(f"{name} is of type {type(value).__name__}: write text")
    raw = value.encode()
    if len(raw) > _IDENTITY_MOST:
        raise UsageError(f"{name} has {len(raw)} bytes: an identity has at most {_IDENTITY_MOST}")
    return raw


def associate(
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
) -> Opening:
    """Connect and negotiate. Enter it with `async with`, or await it and release it yourself.

    contexts: SOP class and transfer syntaxes of each presentation context, at most 128, as UIDs or
    keywords; their ids are 1, 3, 5 and so on. Verification alone if there are none. calling_ae,
    called_ae: titles of 1 to 16 characters. max_pdu_length: bytes of a P-DATA-TF that we take, 0
    without limit. window: outstanding operations to ask for. on_pdu: called with every PDU sent
    and received; what it raises goes to the event loop's exception handler. tls: of an
    `ssl.SSLContext`. identity: see `password_identity`, `jwt_identity`.
    Raises UsageError at once; ConnectionFailed, AssociationRejected and other PeerErrors when it is
    entered or awaited.

    >>> contexts = [("CTImageStorage", ["ExplicitVRLittleEndian", "JPEGBaseline8Bit"])]
    >>> async with associate("pacs", 104, contexts, called_ae="PACS", window=16) as pacs:
    ...     stores = [pacs.store(path) for path in ("image.dcm", "other.dcm")]
    ...     responses = await asyncio.gather(*stores)
    ...     print({response.status for response in responses})
    {0}

    Source: PS3.8 7.1.
    """
    host, port = arguments.address(host, port)
    if not isinstance(timeouts, Timeouts | None):
        raise UsageError(f"timeouts is {given(timeouts)}: write Timeouts(response=30)")
    request = AssociateRQ(
        arguments.padded_title("called_ae", called_ae),
        arguments.padded_title("calling_ae", calling_ae),
        uids.APPLICATION_CONTEXT,
        tuple(
            PresentationContextRQ(2 * number + 1, abstract, syntaxes)
            for number, (abstract, syntaxes) in enumerate(
                arguments.context_list(contexts)
                or [(uids.VERIFICATION, (uids.IMPLICIT_VR_LITTLE_ENDIAN,))]
            )
        ),
        _user_information(max_pdu_length, window, arguments.identity(identity)),
    )
    arguments.callback("on_pdu", on_pdu)
    tls = arguments.tls_context(tls)
    opening = _associate(host, port, request, timeouts or Timeouts(), on_pdu, tls)
    # The name in Python's own warning, when nobody awaits it.
    cast("CoroutineType[Any, Any, Association]", opening).__qualname__ = "associate"
    return Opening(opening)


def _user_information(
    max_pdu_length: int, window: int, identity: UserIdentity | None
) -> UserInformation:
    window = arguments.whole("window", window, 1, 0xFFFF, "at least one operation")
    return UserInformation(
        max_pdu_length=arguments.whole("max_pdu_length", max_pdu_length, 0, 0xFFFFFFFF, "bytes"),
        implementation_class_uid=uids.IMPLEMENTATION_CLASS_UID,
        implementation_version_name=uids.IMPLEMENTATION_VERSION_NAME,
        # Some peers hang up when they see this offer: it is made only for more than one
        # operation.
        async_window=AsyncWindow(window, 1) if window > 1 else None,
        identity=identity,
    )


class Opening(Coroutine[Any, Any, Association]):
    """An association that is not open yet: what `associate` returns.

    To be awaited or entered once, or given to a task. An association's own attributes are refused
    with UsageError, since an `await` is missing then.
    """

    def __init__(self, opening: Coroutine[Any, Any, Association]) -> None:
        self._opening = opening
        self._association: Association | None = None

    def __await__(self) -> Generator[Any, Any, Association]:
        return self._opening.__await__()

    def send(self, value: Any, /) -> Any:
        """See collections.abc.Coroutine."""
        return self._opening.send(value)

    def throw(self, *error: Any) -> Any:
        """See collections.abc.Coroutine."""
        return self._opening.throw(*error)

    def close(self) -> None:
        """See collections.abc.Coroutine."""
        self._opening.close()

    async def __aenter__(self) -> Association:
        self._association = await self._opening
        return self._association

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._association is not None  # noqa: S101 - it was entered
        await self._association.__aexit__(kind, error, traceback)

    def __enter__(self) -> NoReturn:
        self._opening.close()
        raise UsageError(
            "`with associate(...)`: write `async with associate(...) as association:`; a script "
            "without asyncio has send_files"
        )

    def __exit__(self, *_error: object) -> None:
        """Never left, since never entered."""

    def __getattr__(self, name: str) -> NoReturn:
        known = hasattr(Association, name) or name in Association.__annotations__
        if known and not name.startswith("_"):
            self._opening.close()
            raise UsageError(
                f"{name} of an association that is not open yet: write "
                f"`async with associate(...) as association:`, or `await associate(...)`"
            )
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")


async def _associate(
    host: str,
    port: int,
    request: AssociateRQ,
    timeouts: Timeouts,
    on_pdu: Callable[[SeenPDU], object] | None,
    tls: ssl.SSLContext | None,
) -> Association:
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


async def _connect(
    host: str,
    port: int,
    make: Callable[[], Link],
    tls: ssl.SSLContext | None,
    timeout_s: float,
) -> Link:
    peer = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    loop = asyncio.get_running_loop()
    shakes_hands = False
    try:
        async with asyncio.timeout(timeout_s) as limit:
            # From here on the loop closes it.
            connected = await connected_socket(host, port)
            if tls is None:
                _transport, link = await loop.create_connection(make, sock=connected)
            else:
                shakes_hands = True
                # The loops have a limit of their own for the handshake: ours is over before.
                _transport, link = await loop.create_connection(
                    make,
                    sock=connected,
                    ssl=tls,
                    server_hostname=host,
                    ssl_handshake_timeout=timeout_s + 1,
                )
    except OSError as error:
        # The system has a TimeoutError, too.
        if isinstance(error, TimeoutError) and limit.expired():
            why = silence_words(timeout_s, tls=tls is not None, connected=shakes_hands)
            raise ConnectionFailed(peer, why) from None
        # ssl.SSLError is an OSError too; its text says what did not agree.
        why, transient = handshake_words(error, host, connected=shakes_hands)
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
