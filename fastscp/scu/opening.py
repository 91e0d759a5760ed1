"""An instance that is to be sent, from the path or the bytes of a file, or from a Dataset."""

from __future__ import annotations

import asyncio
import copy
import io
import os
from typing import TYPE_CHECKING, Any, TypeAlias

from fastscp.scu.errors import ContextRefused, UnusableInstance
from fastscp.scu.heads import Head, is_part10, read_head, read_head_of, tap_identity
from fastscp.store.names import OWN, is_own

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import ExitStack

    from pydicom.dataset import Dataset

    from fastscp.scu.contexts import Context

__all__ = ["Source", "open_instance"]

Source: TypeAlias = "str | os.PathLike[str] | bytes | bytearray | memoryview | Dataset"


async def open_instance(
    source: Source, contexts: Mapping[int, Context], context_id: int | None, undo: ExitStack
) -> tuple[Head, io.BufferedIOBase]:
    """The instance's head, and a stream that stands at its data set. undo: closes the stream.

    contexts: accepted ones by id. context_id: the one it goes out on, None if that is not decided;
    it tells the transfer syntax of what does not tell itself.
    Raises UnusableInstance, ContextRefused, OSError.
    """
    stream: io.BufferedIOBase
    if isinstance(source, (str, os.PathLike)):
        path = os.fspath(source)
        if await asyncio.to_thread(is_own, path):
            raise UnusableInstance(f"{path} {OWN}")
        head = await asyncio.to_thread(read_head, path)
        if head is None:
            raise UnusableInstance(f"{path} is not a DICOM Part 10 file")
        stream = await asyncio.to_thread(open, path, "rb")
        undo.callback(stream.close)
    else:
        if not isinstance(source, (bytes, bytearray, memoryview)):
            source = _encoded(source, contexts, context_id)
        data = bytes(source)
        head = read_head_of(data) if is_part10(data[:132]) else _bare(data, contexts, context_id)
        if head is None:
            raise UnusableInstance("the bytes are not a DICOM Part 10 file")
        stream = io.BytesIO(data)
    stream.seek(head.offset)
    return head, stream


def _bare(data: bytes, contexts: Mapping[int, Context], context_id: int | None) -> Head:
    """The head of a data set without a file around it."""
    if context_id is None:
        raise ValueError("a data set alone does not tell its transfer syntax: give context_id")
    if context_id not in contexts:
        raise ValueError(f"presentation context {context_id} is not an accepted one")
    if not data:
        raise UnusableInstance("it has no data set")
    syntax = contexts[context_id].transfer_syntax
    sop_class, sop_instance = tap_identity(lambda at, size: data[at : at + size], syntax)
    return Head(sop_class, sop_instance, syntax, 0, len(data))


def _encoded(dataset: Any, contexts: Mapping[int, Context], context_id: int | None) -> bytes:
    """A pydicom Dataset as Part 10, in its own transfer syntax or the context's."""
    from pydicom import dcmwrite
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import UID

    meta = getattr(dataset, "file_meta", None)
    syntax = getattr(meta, "TransferSyntaxUID", None)
    if syntax is None:
        syntaxes = (
            one.transfer_syntax
            for one in contexts.values()
            if one.id == context_id
            or (context_id is None and one.abstract_syntax == dataset.SOPClassUID)
        )
        syntax = UID(next(syntaxes, ""))
        if not syntax:
            raise ContextRefused(str(dataset.SOPClassUID), "", None)
    whole = FileMetaDataset()
    whole.TransferSyntaxUID = syntax
    whole.MediaStorageSOPClassUID = dataset.SOPClassUID
    whole.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    out = io.BytesIO()
    # Shallow: only the copy gets another header.
    ours = copy.copy(dataset)
    ours.file_meta = whole
    dcmwrite(out, ours, enforce_file_format=True)
    return out.getvalue()
