"""For scripts without asyncio: many files, one call.

Theory of operation: the heads of all files say which presentation contexts are needed; an
association is opened for each 128 of them, one after the other. As many tasks take files from one
iterator as the peer grants operations, so a long list makes no long queue.
"""

from __future__ import annotations

import asyncio
import functools
import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from fastscp.log import printable
from fastscp.scu.connect import associate
from fastscp.scu.contexts import MAX_CONTEXTS
from fastscp.scu.errors import PeerError, UnusableInstance, UsageError
from fastscp.scu.names import given
from fastscp.scu.opening import check_source, head_of_file
from fastscp.scu.threads import in_thread

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from fastscp.scu.association import Association
    from fastscp.scu.link import SeenPDU
    from fastscp.scu.response import Response
    from fastscp.scu.timeouts import Timeouts
    from fastscp_ext import UserIdentity

__all__ = ["Sent", "send_files"]

# Heads read with one trip to a thread.
_AT_A_TIME: Final = 64

# SOP class and transfer syntax.
_Kind: TypeAlias = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of a file: the peer's response, or the error for want of one.

    >>> print(send_files("pacs", 104, ["missing.dcm"])[0])
    missing.dcm: No such file or directory
    """

    path: str
    response: Response | None = None
    error: PeerError | OSError | None = None

    @property
    def ok(self) -> bool:
        """Whether the peer has it: it answered with success, or with a warning."""
        return self.response is not None and self.response.ok

    def __str__(self) -> str:
        path = printable(self.path)
        if isinstance(self.error, OSError):
            return f"{path}: {self.error.strerror or self.error}"
        text = str(self.error or self.response)
        # What is said of a file itself begins with its path.
        if text.startswith(self.path):
            return path + text.removeprefix(self.path)
        return f"{path}: {text}"


def send_files(
    host: str,
    port: int,
    paths: Iterable[str | os.PathLike[str]],
    *,
    calling_ae: str = "FASTSCP",
    called_ae: str = "ANY-SCP",
    max_pdu_length: int = 131072,
    window: int = 1,
    timeouts: Timeouts | None = None,
    on_pdu: Callable[[SeenPDU], object] | None = None,
    tls: ssl.SSLContext | None = None,
    identity: UserIdentity | None = None,
) -> list[Sent]:
    """Send files, and wait until all are answered; for scripts, not for inside an event loop.

    paths: of files. The other arguments are those of `associate`; the presentation contexts are
    those that the files need. Nothing is tried again: `fastscp send` does that. Returns what became
    of each file, in the order of paths. Raises UsageError, and PeerError if no association came
    about; if one ends too soon, the files that are left have its error.

    >>> for sent in send_files("pacs", 104, ["image.dcm", "other.dcm"], called_ae="PACS"):
    ...     print(sent.path, sent.ok, sent.response)
    image.dcm True 0000 success
    other.dcm True 0000 success
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pass
    else:
        raise UsageError(
            "send_files inside a running event loop (asyncio, a notebook): write "
            "`async with associate(...) as association:` and `await association.store(path)`"
        )
    if isinstance(paths, (str, bytes, os.PathLike)):
        raise UsageError(f"paths is {given(paths)}: write a list of paths, [{given(paths)}]")
    if not hasattr(type(paths), "__iter__"):
        raise UsageError(f"paths is {given(paths)}: write a list of paths")
    names = []
    for path in paths:
        if not isinstance(path, (str, os.PathLike)):
            raise UsageError(f"paths holds {given(path)}: write paths only")
        check_source(path)
        names.append(os.fspath(path))
    how = {
        "calling_ae": calling_ae,
        "called_ae": called_ae,
        "max_pdu_length": max_pdu_length,
        "window": window,
        "timeouts": timeouts,
        "on_pdu": on_pdu,
        "tls": tls,
        "identity": identity,
    }
    # What is wrong with them is said before the files are looked at.
    associate(host, port, **how).close()  # type: ignore[arg-type]
    return asyncio.run(_send(host, port, names, how))


async def _send(host: str, port: int, paths: Sequence[str], how: Mapping[str, Any]) -> list[Sent]:
    sent = [Sent(path) for path in paths]
    kinds: dict[_Kind, list[int]] = {}
    for begin in range(0, len(paths), _AT_A_TIME):
        some_paths = paths[begin : begin + _AT_A_TIME]
        looked = await in_thread(functools.partial(_look, some_paths))
        for number, found in enumerate(looked, begin):
            if isinstance(found, tuple):
                kinds.setdefault(found, []).append(number)
            else:
                sent[number] = replace(sent[number], error=found)
    every = sorted(kinds)
    for begin in range(0, len(every), MAX_CONTEXTS):
        some = every[begin : begin + MAX_CONTEXTS]
        numbers = sorted(number for kind in some for number in kinds[kind])
        contexts = [(sop_class, [syntax]) for sop_class, syntax in some]
        try:
            async with associate(host, port, contexts, **how) as association:
                left = iter(numbers)
                tasks = [_store_from(association, left, sent) for _ in range(association.window)]
                await asyncio.gather(*tasks)
        except PeerError as error:
            if begin == 0 and not any(one.response for one in sent):
                raise
            for number in numbers:
                if sent[number].response is None and sent[number].error is None:
                    sent[number] = replace(sent[number], error=error)
    return sent


def _look(paths: Sequence[str]) -> list[_Kind | UnusableInstance | OSError]:
    found: list[_Kind | UnusableInstance | OSError] = []
    for path in paths:
        try:
            head = head_of_file(path)
            found.append((head.sop_class, head.transfer_syntax))
        except (UnusableInstance, OSError) as error:
            found.append(error)
    return found


async def _store_from(association: Association, numbers: Iterator[int], sent: list[Sent]) -> None:
    for number in numbers:
        try:
            sent[number] = replace(
                sent[number], response=await association.store(sent[number].path)
            )
        except (PeerError, OSError) as error:
            sent[number] = replace(sent[number], error=error)
