"""A reader beside a service: opens the files of a store as they appear, and says what is not whole.

    python -m tests.kept.reader STORE SENT

STORE is there already. SENT: a file of lines, the SHA-256 of a data set that is sent and its SOP
Instance UID. Every file that gets a name below STORE is read at once (inotify), and files that are
known are read again and again meanwhile. The end of the standard input tells it to look at all
files once more and to end. It writes a line `watching` when it begins, a line `a fault` for each at
once, and in the end what it found as JSON: how often it read, how many files, and what was wrong.
"""

from __future__ import annotations

import ctypes
import hashlib
import io
import json
import os
import random
import select
import struct
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pydicom
import zstandard

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["problem"]

# inotify(7).
_CREATE, _MOVED_TO, _IS_FOLDER, _OVERFLOW = 0x100, 0x80, 0x40000000, 0x4000
_EVENT: Final = struct.Struct("iIII")
_FAULTS_MOST: Final = 20


def problem(raw: bytes, name: str, sent: dict[str, str]) -> str:
    """What is wrong with a file of that content and name; "" if it is whole and was sent.

    sent: the SOP Instance UID by the SHA-256 of a data set.
    """
    if name.split("~")[0].endswith(".zst"):
        try:
            raw = zstandard.ZstdDecompressor().decompressobj().decompress(raw)
        except zstandard.ZstdError as error:
            return f"no whole frame ({error})"
    if len(raw) < 144 or raw[128:132] != b"DICM":
        return f"no header in {len(raw)} bytes"
    sop = sent.get(hashlib.sha256(raw[144 + int.from_bytes(raw[140:144], "little") :]).hexdigest())
    if sop is None:
        return f"not what was sent, {len(raw)} bytes"
    told = pydicom.dcmread(io.BytesIO(raw), stop_before_pixels=True).file_meta
    if told.MediaStorageSOPInstanceUID != sop or not name.startswith(f"{sop}.dcm"):
        return f"{told.MediaStorageSOPInstanceUID} in its header, and {sop} in its data set"
    return ""


class _Watch:
    """Names that appear below a folder, with inotify."""

    def __init__(self, root: str) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.fd = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        self._folders: dict[int, str] = {}
        self._root = root

    def add(self, folder: str) -> Iterator[str]:
        """Watch a folder and those in it; what is there already has appeared, too."""
        number = self._libc.inotify_add_watch(self.fd, os.fsencode(folder), _CREATE | _MOVED_TO)
        if number < 0:
            return
        self._folders[number] = folder
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    if entry.name != ".fastscp":
                        yield from self.add(entry.path)
                else:
                    yield entry.path

    def appeared(self) -> Iterator[str]:
        """Paths of what has appeared since."""
        try:
            raw = os.read(self.fd, 1 << 16)
        except BlockingIOError:
            return
        at = 0
        while at < len(raw):
            number, mask, _cookie, size = _EVENT.unpack_from(raw, at)
            name = os.fsdecode(raw[at + _EVENT.size : at + _EVENT.size + size].rstrip(b"\0"))
            at += _EVENT.size + size
            if mask & _OVERFLOW:
                yield from self.add(self._root)
                continue
            path = os.path.join(self._folders[number], name)
            if not mask & _IS_FOLDER:
                yield path
            elif name != ".fastscp":
                yield from self.add(path)


def _sent(path: Path) -> dict[str, str]:
    return dict(line.split() for line in path.read_text().splitlines())


def main(root: str, sent_path: Path) -> None:
    sent = _sent(sent_path)
    watch = _Watch(root)
    known: list[str] = []
    seen: set[str] = set()
    faults: list[str] = []
    reads = 0

    def read(path: str) -> None:
        nonlocal reads
        reads += 1
        try:
            raw = Path(path).read_bytes()
        except FileNotFoundError:
            wrong = "its name is gone"
        else:
            wrong = problem(raw, os.path.basename(path), sent)
        if wrong and len(faults) < _FAULTS_MOST:
            faults.append(f"{os.path.relpath(path, root)}: {wrong}")
            print("a fault", flush=True)
        if path not in seen:
            seen.add(path)
            known.append(path)

    for path in watch.add(root):
        read(path)
    print("watching", flush=True)
    rng = random.Random(1)
    ends = False
    while not ends:
        # Idle for a moment only where there is nothing to read again.
        ready, _, _ = select.select([watch.fd, sys.stdin], [], [], 0.001 if known else 1.0)
        for path in watch.appeared():
            read(path)
        if known:
            read(rng.choice(known))
        ends = sys.stdin in ready
    for path in watch.add(root):
        read(path)
    print(json.dumps({"reads": reads, "files": len(known), "faults": faults}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
