"""What callers give, looked at before anything is done: a mistake is told with what to write.

Every check raises UsageError, and returns the value in the form that the others here work with.
"""

from __future__ import annotations

import inspect
import ssl
from typing import TYPE_CHECKING, Any, Final

from fastscp import uids
from fastscp.scu.commands import Priority
from fastscp.scu.contexts import MAX_CONTEXTS
from fastscp.scu.errors import UsageError
from fastscp.scu.names import given
from fastscp_ext import UserIdentity

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "MESSAGE_ID_MOST",
    "address",
    "callback",
    "context_list",
    "identity",
    "move_originator",
    "padded_title",
    "priority",
    "sop_class_uid",
    "sop_instance_uid",
    "tls_context",
    "whole",
]

MESSAGE_ID_MOST: Final = 0xFFFF
_TITLE_MOST: Final = 16
_CONTEXTS: Final = 'write [("CTImageStorage", ["ExplicitVRLittleEndian"])]'


def whole(name: str, value: Any, low: int, high: int, what: str = "a whole number") -> int:
    """A number within bounds. what: it is, for the message."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise UsageError(f"{name} is {given(value)}: write {what}, {low} to {high}")
    return int(value)


def address(host: Any, port: Any) -> tuple[str, int]:
    """Where the peer listens."""
    if not isinstance(host, str) or not host:
        raise UsageError(f'host is {given(host)}: write a name or an address, such as "pacs"')
    try:
        is_name = "\0" not in host and bool(host.encode("idna"))
    except UnicodeError:
        is_name = False
    if not is_name:
        raise UsageError(
            f"host is {given(host)}, which is no name: its parts have 1 to 63 characters each, "
            f"with a dot between them"
        )
    return host, whole("port", port, 1, 0xFFFF, "a number")


def padded_title(name: str, title: Any) -> bytes:
    """An AE title as a PDU holds it. Source: PS3.8 9.3.2."""
    if isinstance(title, str):
        try:
            raw = title.encode("latin-1")
        except UnicodeEncodeError:
            raise UsageError(
                f"{name} is {given(title)}: an AE title has only characters of one byte (latin-1)"
            ) from None
        if 1 <= len(raw) <= _TITLE_MOST:
            return raw.ljust(_TITLE_MOST)
    raise UsageError(f"{name} is {given(title)}: an AE title is text of 1 to 16 characters")


def context_list(contexts: Iterable[Any]) -> list[tuple[str, tuple[str, ...]]]:
    """Presentation contexts to propose: UIDs of the abstract syntax, and of transfer syntaxes."""
    if isinstance(contexts, (str, bytes)) or not _iterable(contexts):
        raise UsageError(f"contexts is {given(contexts)}: {_CONTEXTS}")
    found = []
    for one in contexts:
        if isinstance(one, (str, bytes)) or not _iterable(one) or len(pair := tuple(one)) != 2:
            raise UsageError(
                f"{given(one)} is no presentation context, "
                f"which is a SOP class with a list of transfer syntaxes: {_CONTEXTS}"
            )
        abstract = sop_class_uid("the SOP class of a context", pair[0])
        found.append((abstract, _syntaxes(abstract, pair[1])))
    if len(found) > MAX_CONTEXTS:
        raise UsageError(
            f"{len(found)} contexts are given: an association has at most {MAX_CONTEXTS} "
            f"presentation contexts; open another one for the rest"
        )
    return found


def _syntaxes(abstract: str, syntaxes: Any) -> tuple[str, ...]:
    where = f"the transfer syntaxes of {abstract}"
    if isinstance(syntaxes, str):
        raise UsageError(
            f"{where} are one string, {given(syntaxes)}: write a list, [{given(syntaxes)}]"
        )
    if not _iterable(syntaxes):
        raise UsageError(
            f'{where} are {given(syntaxes)}: write a list, such as ["ExplicitVRLittleEndian"]'
        )
    found = tuple(
        _uid(where, one, uids.transfer_syntax_uid, "ExplicitVRLittleEndian") for one in syntaxes
    )
    if not found:
        raise UsageError(f'{where} are none: write at least one, as in ["ExplicitVRLittleEndian"]')
    return found


def _iterable(value: object) -> bool:
    return hasattr(type(value), "__iter__")


def _uid(name: str, value: Any, resolve: Any, example: str) -> str:
    if not isinstance(value, str):
        raise UsageError(f"{name}: {given(value)} is no UID: write one, or a keyword: {example!r}")
    try:
        return str(resolve(str(value)))
    except uids.UidSelectionError as error:
        raise UsageError(f"{name}: {error}") from None


def sop_class_uid(name: str, value: Any) -> str:
    """The UID of a SOP class, given as such or by its keyword."""
    return _uid(name, value, uids.sop_class_uid, "CTImageStorage")


def sop_instance_uid(value: Any) -> str:
    """A SOP Instance UID. Its characters are the caller's business, and the peer's."""
    if not isinstance(value, str) or not value.isascii() or not 1 <= len(value) <= uids.LONGEST_UID:
        raise UsageError(
            f"sop_instance is {given(value)}: write a UID of 1 to {uids.LONGEST_UID} characters"
        )
    return str(value)


def priority(value: Any) -> Priority:
    """Source: PS3.7 9.3.1.1."""
    if not isinstance(value, bool) and isinstance(value, int) and value in tuple(Priority):
        return Priority(value)
    raise UsageError(
        f"priority is {given(value)}: write Priority.MEDIUM, Priority.HIGH or Priority.LOW"
    )


def move_originator(ae: Any, message_id: Any) -> tuple[str, int] | None:
    """The two halves of a Move Originator: both, or neither. Source: PS3.7 9.3.1.1."""
    if ae is None and message_id is None:
        return None
    if ae is None or message_id is None:
        has, lacks = "move_originator_ae", "move_originator_message_id"
        if ae is None:
            has, lacks = lacks, has
        raise UsageError(
            f"{has} is given without {lacks}: a Move Originator has both, write both or neither"
        )
    padded_title("move_originator_ae", ae)
    number = whole(
        "move_originator_message_id", message_id, 0, MESSAGE_ID_MOST, "the C-MOVE's message id"
    )
    return str(ae), number


def identity(value: Any) -> UserIdentity | None:
    """Source: PS3.7 D.3.3.7."""
    if value is None or isinstance(value, UserIdentity):
        return value
    kind = type(value).__name__
    raise UsageError(  # whatever it is, it may be a secret: it is not shown
        f"identity is of type {kind}: write password_identity(user, password) or "
        f"jwt_identity(token)"
    )


def tls_context(value: Any) -> ssl.SSLContext | None:
    """What connections are wrapped with."""
    if value is None or isinstance(value, ssl.SSLContext):
        return value
    raise UsageError(f"tls is {given(value)}: write tls_context(), or leave it out")


def callback(name: str, value: Any) -> Any:
    """A plain function, or None: nobody would await what another one returns."""
    if value is None or (callable(value) and not inspect.iscoroutinefunction(value)):
        return value
    what = "a coroutine function" if callable(value) else given(value)
    raise UsageError(f"{name} is {what}: write a plain function that takes one argument")
