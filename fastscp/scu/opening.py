"""An instance that is to be sent, from the path or the bytes of a file, or from a Dataset.

Theory of operation: whatever may wait for a disk, or takes long, runs in a helper thread: a disk
that hangs holds up its own instance, never the event loop. An instance has one descriptor, from the
look at its head to its last byte. Whoever is cancelled meanwhile does not wait for the thread; the
thread closes then what it has opened.
"""

from __future__ import annotations

import copy
import errno
import io
import os
import re
import stat
import sys
import threading
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias, TypeVar

from fastscp.scu.errors import ContextRefused, UnusableInstance, UsageError
from fastscp.scu.heads import (
    Head,
    is_part10,
    open_decompressed,
    read_head,
    read_head_of,
    tap_identity,
)
from fastscp.scu.names import given, name_of
from fastscp.scu.threads import in_thread
from fastscp.store.names import OWN, is_own
from fastscp_ext import file_mark

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pydicom.dataset import Dataset

    from fastscp.scu.contexts import Context

__all__ = ["Instance", "Source", "check_source", "head_of_file", "open_instance"]

Source: TypeAlias = "str | os.PathLike[str] | bytes | bytearray | memoryview | Dataset"

_T = TypeVar("_T")

_READ_BYTES: Final = 1 << 20


class Instance(Protocol):
    """An instance that is open: its head, and its data set piece by piece."""

    head: Head

    async def read(self, unit: int) -> memoryview:
        """The next piece: a multiple of `unit` bytes, except at the end. Empty at the end.

        Raises UnusableInstance, OSError.
        """
        ...

    def close(self) -> None: ...


def check_source(source: Any) -> None:
    """Raise UsageError for what is no instance at all."""
    if isinstance(source, (bytes, bytearray, memoryview)) or _is_dataset(source):
        return
    if isinstance(source, (str, os.PathLike)):
        path = os.fspath(source)
        if not isinstance(path, str):
            raise UsageError(f"the path is {given(path)}: write it as text, or as a pathlib.Path")
        if "\0" in path:
            raise UsageError("the path contains a NUL; were these the bytes of a file?")
        return
    what = "source is " + given(source)
    if hasattr(source, "read"):
        raise UsageError(f"{what}, an open file: give its path, or its bytes: store(file.read())")
    if hasattr(type(source), "__iter__"):
        raise UsageError(f"{what}: call store for each instance, or send_files for many files")
    raise UsageError(f"{what}: give a path, the bytes of a file, or a pydicom Dataset")


async def open_instance(
    source: Source,
    contexts: Mapping[int, Context],
    context_id: int | None,
    sop_class: str | None = None,
    sop_instance: str | None = None,
) -> Instance:
    """Open an instance; the caller closes it.

    contexts: accepted ones by id. context_id: the one it goes out on, None if that is not decided;
    it tells the transfer syntax of what does not tell itself. sop_class, sop_instance: what the
    command will say, for a Dataset that says nothing.
    Raises UsageError, UnusableInstance, ContextRefused, OSError.
    """
    check_source(source)
    known = context_id is None or (isinstance(context_id, int) and context_id in contexts)
    if not known:
        raise UsageError(
            f"presentation context {given(context_id)} is not an accepted one: write one of "
            f"{sorted(contexts)}, or leave context_id out"
        )
    if isinstance(source, (str, os.PathLike)):
        instance: Instance = await _File.opened(os.fspath(source))
    elif isinstance(source, (bytes, bytearray, memoryview)):
        instance = _bytes(bytes(source), contexts, context_id)
    else:
        syntax = _syntax_of(source, contexts, context_id, sop_class)
        encoded = await in_thread(lambda: _encoded(source, syntax, sop_class, sop_instance))
        instance = _bytes(encoded, contexts, context_id)
    try:
        if context_id is not None:
            _check_syntax(instance.head, contexts[context_id])
    except BaseException:
        instance.close()
        raise
    return instance


def _check_syntax(head: Head, context: Context) -> None:
    if head.transfer_syntax != context.transfer_syntax:
        raise UsageError(
            f"presentation context {context.id} was accepted for "
            f"{name_of(context.transfer_syntax)}, and the instance is in "
            f"{name_of(head.transfer_syntax)}: leave context_id out, or give another"
        )


# A file ------------------------------------------------------------------------------------------


class _File:
    """A file being read. The event loop calls its methods, those called `_in...` a thread."""

    head: Head

    def __init__(self, path: str) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._busy = self._closed = False
        self._fd = -1
        self._at = self._end = 0
        self._ahead = b""

    @classmethod
    async def opened(cls, path: str) -> _File:
        file = cls(path)
        try:
            await file._run(file._in_open)
        except BaseException:
            file.close()
            raise
        return file

    async def read(self, unit: int) -> memoryview:
        data, self._ahead = self._ahead, b""
        while len(data) < unit and self._at < self._end:
            data += await self._run(lambda: self._in_read(_READ_BYTES))
        usable = len(data) if self._at == self._end else len(data) // unit * unit
        self._ahead = data[usable:]
        return memoryview(data)[:usable]

    def close(self) -> None:
        """Close the file; a thread that is at it does that in the end."""
        with self._lock:
            self._closed = True
            fd = -1 if self._busy else self._fd
            if not self._busy:
                self._fd = -1
        if fd >= 0:
            os.close(fd)

    async def _run(self, call: Callable[[], _T]) -> _T:
        self._busy = True

        def run() -> _T:
            try:
                return call()
            finally:
                with self._lock:
                    self._busy = False
                    fd = self._fd if self._closed else -1
                    if self._closed:
                        self._fd = -1
                if fd >= 0:
                    os.close(fd)

        return await in_thread(run)

    def _in_open(self) -> None:
        path = self._path
        self.head = head = head_of_file(path)
        if head.compressed:
            self._fd = _decompressed(path, head)
        else:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            if file_mark(self._fd) != head.mark:
                raise UnusableInstance(f"{path} changed while it was looked at")
        self._at, self._end = head.offset, head.offset + head.size
        # With the same trip to the thread: most instances are no larger.
        self._ahead = self._in_read(_READ_BYTES)

    def _in_read(self, size: int) -> bytes:
        piece = os.pread(self._fd, min(size, self._end - self._at), self._at)
        if not piece and self._at < self._end:
            raise UnusableInstance("the file became shorter while it was being sent")
        self._at += len(piece)
        if self._at == self._end:
            # The last of it goes out only if it is still the file whose head was read.
            changed = not self.head.compressed and file_mark(self._fd) != self.head.mark
            fd, self._fd = self._fd, -1
            os.close(fd)
            if changed:
                raise UnusableInstance(f"{self._path} changed while it was sent")
        return piece


def head_of_file(path: str) -> Head:
    """The head of a file. May wait for a disk. Raises UnusableInstance, OSError."""
    if is_own(path):
        raise UnusableInstance(f"{path} {OWN}")
    try:
        head = read_head(path)
    except UnusableInstance as error:
        raise UnusableInstance(f"{path}: {error}") from None
    if head is None:
        raise UnusableInstance(f"{path} {_why_not(path)}")
    return head


def _decompressed(path: str, head: Head) -> int:
    try:
        return open_decompressed(os.fsencode(path), head)
    except OSError as error:
        if error.errno == errno.EBADMSG:
            raise UnusableInstance(f"{path}: its compressed content is damaged") from None
        if error.errno == errno.ESTALE:
            raise UnusableInstance(f"{path} changed while it was looked at") from None
        raise


def _why_not(path: str) -> str:
    mode = os.stat(path).st_mode  # noqa: PTH116 - as the caller gave it
    if stat.S_ISDIR(mode):
        return "is a folder: give the files in it one by one; `fastscp send` takes folders"
    if not stat.S_ISREG(mode):
        return "is no regular file"
    return "is not a DICOM Part 10 file (no DICM at byte 128)"


# In memory ----------------------------------------------------------------------------------------


class _Memory:
    """An instance in memory."""

    def __init__(self, head: Head, data: memoryview) -> None:
        self.head = head
        self._rest = data[head.offset :]

    async def read(self, unit: int) -> memoryview:  # noqa: ARG002 - all of it at once
        piece, self._rest = self._rest, self._rest[:0]
        return piece

    def close(self) -> None:
        """Let the bytes go."""
        self._rest = self._rest[:0]


def _bytes(data: bytes, contexts: Mapping[int, Context], context_id: int | None) -> Instance:
    """Bytes of a Part 10 file, or of a data set alone."""
    if is_part10(data[:132]):
        head = read_head_of(data)
        if head is None:
            raise UnusableInstance("the bytes are not a DICOM Part 10 file")
        return _Memory(head, memoryview(data))
    if context_id is None:
        raise UsageError(
            "the bytes are no Part 10 file (no DICM at byte 128), and a data set alone does not "
            "tell its transfer syntax: give context_id"
        )
    if not data:
        raise UnusableInstance("it has no data set")
    syntax = contexts[context_id].transfer_syntax
    sop_class, sop_instance = tap_identity(lambda at, size: data[at : at + size], syntax)
    return _Memory(Head(sop_class, sop_instance, syntax, 0, len(data)), memoryview(data))


# From a Dataset -----------------------------------------------------------------------------------


def _is_dataset(source: object) -> bool:
    # Without pydicom there is no Dataset; to import it takes long.
    module = sys.modules.get("pydicom.dataset")
    return module is not None and isinstance(source, module.Dataset)


def _syntax_of(
    dataset: Dataset, contexts: Mapping[int, Context], context_id: int | None, sop_class: str | None
) -> str:
    """The transfer syntax to encode a Dataset in: its own, or that of a context for its class."""
    from pydicom.uid import UID

    own = getattr(getattr(dataset, "file_meta", None), "TransferSyntaxUID", None)
    if own:
        return str(own)
    if context_id is not None:
        return contexts[context_id].transfer_syntax
    sop_class = _uid_of(dataset, "SOPClassUID", "sop_class", sop_class)
    for one in contexts.values():
        syntax = UID(one.transfer_syntax)
        # Nothing is compressed for anybody.
        if one.abstract_syntax == sop_class and not (syntax.is_private or syntax.is_compressed):
            return one.transfer_syntax
    raise ContextRefused(sop_class, "", None)


def _encoded(
    dataset: Dataset, syntax: str, sop_class: str | None, sop_instance: str | None
) -> bytes:
    """A Dataset as Part 10."""
    from pydicom import dcmwrite
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import UID

    whole = FileMetaDataset()
    whole.TransferSyntaxUID = UID(syntax)
    whole.MediaStorageSOPClassUID = UID(_uid_of(dataset, "SOPClassUID", "sop_class", sop_class))
    whole.MediaStorageSOPInstanceUID = UID(
        _uid_of(dataset, "SOPInstanceUID", "sop_instance", sop_instance)
    )
    out = io.BytesIO()
    try:
        ours = _own(dataset)
        ours.file_meta = whole
        dcmwrite(out, ours, enforce_file_format=True)
    except Exception as error:
        # Of whatever kind. Its text may hold values, and so may the one that it came of.
        tags = re.findall(r"With tag (\([0-9A-Fa-f]{4},[0-9A-Fa-f]{4}\)) got exception", str(error))
        where = f" at {tags[0]}" if tags else ""
        why = f"{type(error).__name__} from pydicom{where}"
        raise UnusableInstance(
            f"the Dataset cannot be encoded: {why}; its dcmwrite() says more, with the values"
        ) from None
    return out.getvalue()


def _own(dataset: Dataset) -> Dataset:
    """A copy that shares the values alone: what writes one resolves VRs in its elements."""
    from pydicom.dataelem import DataElement

    ours: Dataset = dataset[:]
    if (undefined := getattr(dataset, "is_undefined_length_sequence_item", None)) is not None:
        ours.is_undefined_length_sequence_item = undefined
    for element in list(ours.elements()):
        if isinstance(element, DataElement):
            same = copy.copy(element)
            if element.VR == "SQ":
                same.value = [_own(item) for item in element.value]
            ours[element.tag] = same
    return ours


def _uid_of(dataset: Dataset, keyword: str, argument: str, value: str | None) -> str:
    found = value or str(getattr(dataset, keyword, None) or "")
    if not found:
        raise UnusableInstance(f"the Dataset has no {keyword}: set it, or give {argument} to store")
    return found
