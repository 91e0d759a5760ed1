"""Mounts that end with the programs that need them, however these end."""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
from pathlib import Path
from typing import Final

__all__ = ["keep_to_ourselves"]

# Source: unshare(2), mount(2).
_CLONE_NEWNS: Final = 0x20000
_MS_REC, _MS_SLAVE, _MS_SHARED = 0x4000, 0x80000, 0x100000
_OURS: Final = Path("/proc/thread-self/ns/mnt")
# The process that has mounts of its own already, and which they are: what it starts inherits these.
_kept: list[tuple[int, str]] = []


def keep_to_ourselves() -> bool:
    """Let this thread, and all processes it starts from now on, have mounts of their own.

    The system takes away what they mount when the last of them is gone: else a program that is
    killed leaves a file system on a disk that nobody serves any more, and other programs stumble
    over that (mkfs.btrfs looks at every mounted loop device). Those that others have left are not
    seen any more either. Where the others' mounts are shared (systemd has them so), what these
    unmount is gone here, too: else its device would be busy as long as we run; and so with those of
    ours and what we start that calls this as well. Called again it does nothing: what was mounted,
    or started, since the first time would be left behind. False: this user may not; all is as it
    was.
    """
    if (os.getpid(), os.readlink(_OURS)) in _kept:
        return True
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNS):
        return False
    for how in (_MS_SLAVE, _MS_SHARED):
        if libc.mount(b"none", b"/", None, _MS_REC | how, None):
            error = ctypes.get_errno()
            raise OSError(error, f"cannot keep mounts from others: {os.strerror(error)}")
    _kept[:] = [(os.getpid(), os.readlink(_OURS))]
    for device, point in _mounts():
        if _is_dead(device):
            subprocess.run(["umount", "--lazy", point], capture_output=True, check=False)
    return True


def _mounts() -> list[tuple[str, str]]:
    """Device and place of each, the last one first."""
    lines = Path("/proc/self/mounts").read_bytes().splitlines()
    found = (line.split(b" ")[:2] for line in reversed(lines))
    return [(_named(device), _named(point)) for device, point in found]


def _named(word: bytes) -> str:
    """What stands there for blanks is octal."""
    return os.fsdecode(re.sub(rb"\\([0-7]{3})", lambda found: bytes([int(found[1], 8)]), word))


def _is_dead(device: str) -> bool:
    """Whether it is a loop device on a file that cannot be looked at."""
    if not device.startswith("/dev/loop"):
        return False
    try:
        text = Path(f"/sys/block/{Path(device).name}/loop/backing_file").read_text(encoding="utf-8")
        os.stat(text.rstrip("\n").removesuffix(" (deleted)"))
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False
