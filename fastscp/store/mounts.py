"""Which time it is that a file system is mounted: what marks of failed flushes tell apart.

As long as the kernel keeps a file system, it keeps what it takes for written. A mount is only a
place where that is seen: a container that starts anew, or a bind mount, has another one of the same
file system. So the file system itself is asked for, where it can be told: the kernel makes its
object below /sys/fs when it is mounted first, and removes that after the last unmount. The inode of
such an object is never used again in one boot.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fastscp_ext import mount_of

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Mounted", "device_of", "mounted"]

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_OBJECTS: Final = Path("/sys/fs")
_DEVICES: Final = Path("/sys/dev/block")
# ioctl: FS_IOC_GETFSSYSFSPATH, since Linux 6.9; a length and a path below /sys/fs.
_GET_OBJECT: Final = 0x80811501
_GET_OBJECT_BYTES: Final = 129
# ioctl: BTRFS_IOC_FS_INFO; behind two numbers of 64 bits is the id of the file system.
_BTRFS_INFO: Final = 0x8400941F
_BTRFS_INFO_BYTES: Final = 1024


@dataclass(frozen=True)
class Mounted:
    """One time that a file system was mounted.

    boot: of the kernel. mount: the place. system: the file system as the kernel keeps it, "" where
    that cannot be told.
    """

    boot: str
    mount: str
    system: str = ""

    def is_over(self, now: Mounted) -> bool:
        """Whether the file system was mounted anew since. now: what holds for the same store.

        Where nobody can tell the file system now, and could then, it counts as the same.
        """
        if self.boot != now.boot:
            return True
        if self.system:
            return bool(now.system) and self.system != now.system
        return self.mount != now.mount


def mounted(dir_fd: int) -> Mounted:
    """What holds now for a directory. Raises OSError."""
    return Mounted(_BOOT_ID.read_text("ascii").strip(), mount_of(dir_fd), _system_of(dir_fd))


def device_of(dir_fd: int) -> str:
    """The name of the block device that a directory is on. Raises OSError, where there is none."""
    device = os.fstat(dir_fd).st_dev
    return (_DEVICES / f"{os.major(device)}:{os.minor(device)}").readlink().name


def _system_of(dir_fd: int) -> str:
    for name in _objects_of(dir_fd):
        with contextlib.suppress(OSError):
            return str((_OBJECTS / name).stat().st_ino)
    return ""


def _objects_of(dir_fd: int) -> Iterator[str]:
    """Where the object of the file system may be, below /sys/fs."""
    with contextlib.suppress(OSError):
        answer = fcntl.ioctl(dir_fd, _GET_OBJECT, bytes(_GET_OBJECT_BYTES))
        yield os.fsdecode(answer[1 : 1 + answer[0]].rstrip(b"\0"))
        return
    # An older kernel.
    with contextlib.suppress(OSError):
        answer = fcntl.ioctl(dir_fd, _BTRFS_INFO, bytes(_BTRFS_INFO_BYTES))
        yield f"btrfs/{uuid.UUID(bytes=answer[16:32])}"
        return
    with contextlib.suppress(OSError):
        name = device_of(dir_fd)
        for kind in sorted(_OBJECTS.iterdir()):
            yield f"{kind.name}/{name}"
