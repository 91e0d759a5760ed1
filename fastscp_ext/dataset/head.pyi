"""The head of a Part 10 file: what its sender must know, out of the file's first bytes."""

from typing_extensions import Buffer

__all__ = ["file_mark", "part10_head", "part10_head_of_file"]

def part10_head(data: Buffer) -> tuple[str, str, str, int, bool] | None:
    """SOP class, SOP instance, transfer syntax, offset of the data set, and whether that is all.

    data: the first bytes of a file, less than 2 GiB. None: it is not Part 10. False at the end:
    more bytes could tell more; where there are no more, what was found stands. UIDs are "" where
    missing; those of the data set go before those of the File Meta Information, unless the data
    set is deflated. The transfer syntax is "" as long as the File Meta Information is cut.
    Source: PS3.10 7.1.
    """

def part10_head_of_file(path: bytes) -> tuple[tuple[str, str, str, int, bool], int, int] | None:
    """What `part10_head` finds in the first 4 KiB of a file, its size in bytes, and its mark.

    The mark (`file_mark`) is of the time before it was read. None also for what is no regular file,
    and is not opened then. Raises OSError.
    """

def file_mark(fd: int) -> int:
    """Which file is open, and in what state: a number, never 0. Raises OSError.

    Made of its device, inode and size, and of the times of its last modification and of its last
    change of any kind: it is another number once the file was written to or exchanged. 64 bits.
    """
