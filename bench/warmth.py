"""Memory that stays with this machine while something is measured.

A virtual machine may give memory that has been free for a while back to its host. Whoever uses it
next pays for getting it again: a receiver that starts late, with several times the CPU time for
large instances, and never the one that runs right behind another. What is given back are free
blocks of 2 MiB and more, so one page is kept in every MiB of as much memory as a run needs.
"""

from __future__ import annotations

import contextlib
import mmap
import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

GAP: Final = 1 << 20
MOST: Final = 12 << 30


def spare_bytes() -> int:
    """How much memory may be kept warm: half of what is available, 12 GiB at most."""
    with open("/proc/meminfo", encoding="ascii") as lines:
        for line in lines:
            if line.startswith("MemAvailable:"):
                return min(MOST, int(line.split()[1]) * 1024 // 2)
    return 0


@contextlib.contextmanager
def warm(nbytes: int) -> Iterator[int]:
    """Touch nbytes of memory and free all of it but a page in every MiB, kept to the end.

    Gives the bytes touched.
    """
    page = os.sysconf("SC_PAGE_SIZE")
    nbytes -= nbytes % GAP
    if not nbytes:
        yield 0
        return
    with mmap.mmap(-1, nbytes, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as held:
        # The pages have to be had one by one, or they would be kept and freed in blocks.
        held.madvise(mmap.MADV_NOHUGEPAGE)
        for at in range(0, nbytes, page):
            held[at] = 1
        for at in range(0, nbytes, GAP):
            held.madvise(mmap.MADV_DONTNEED, at + page, GAP - page)
        yield nbytes


def leave_page_cache(folder: Path) -> None:
    """Write back the files below a folder and free the memory they have in the page cache."""
    os.sync()
    for path in folder.rglob("*"):
        if path.is_file():
            fd = os.open(path, os.O_RDONLY)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(fd)
