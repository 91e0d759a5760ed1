"""Where the lines about a path stand in the journal: a table that main fills and workers read.

The table says where to look, never what is so: whoever asks reads the lines, and finds out there
whether they are about the path at all.
"""

from typing import ClassVar, Self, final

from typing_extensions import Buffer

__all__ = ["LineIndex", "hash_of"]

def hash_of(key: bytes, data: Buffer) -> int:
    """SipHash-2-4 of the data, as a number of 64 bits; for tests. Raises ValueError."""

@final
class LineIndex:
    """A table of the journal's lines by path, in shared memory.

    fd: a descriptor of the table as main made it, which this process can only read then; or -1 to
    make a new one. The descriptor is owned by the object and closed with it, also where this
    raises; it is inheritable only on request. chains: how many at most, a power of two is taken,
    and 1,024 at least; with one for a few lines a look is short.

    Memory: 24 bytes a line, 4 a chain, 96 a segment; all of it is there before it is used. A look
    takes no lock, and one thread of main alone fills the table. Every method needs the GIL; `find`
    gives it up from time to time, for a path may have any number of lines.
    Raises OSError, and ValueError for a table that this version does not know.
    """

    # States: nobody knows yet what it lacks; it has all lines up to where their segments are
    # covered; it cannot be built, or not yet.
    BUILDING: ClassVar[int]
    READY: ClassVar[int]
    FAILED: ClassVar[int]

    def __new__(cls, fd: int = -1, *, chains: int = 1024) -> Self: ...
    @property
    def fd(self) -> int:
        """The descriptor of the table, to be inherited by workers."""

    @property
    def state(self) -> int:
        """BUILDING, READY or FAILED."""

    @property
    def lines(self) -> int:
        """How many it has."""

    @property
    def size(self) -> int:
        """The memory that it takes, bytes."""

    @property
    def changes(self) -> int:
        """Another number whenever what `segments` returns is another list."""

    def add(self, path: Buffer, sequence: int, segment: int, offset: int) -> None:
        """Add a line about the file at a path (UTF-8), at an offset of a segment.

        Raises OSError where there is no memory, OverflowError for an offset of 4 GiB or more.
        """

    def add_segment(self, name: bytes, inode: int) -> int:
        """Add a segment, of which nothing is covered; returns its number here, its first slot.

        Raises OSError: there is no memory, or the name has more than 71 bytes.
        """

    def cover(self, slot: int, offset: int) -> None:
        """Say that all lines of a segment that begin before the offset are in the table."""

    def complete(self, slot: int) -> None:
        """Say that all lines of a segment are in the table, and no others will come."""

    def leave_out(self, slot: int) -> None:
        """Say that a segment is not there any more: its lines count no longer."""

    def set_state(self, state: int) -> None:
        """Say what the table is good for."""

    def segments(self) -> list[tuple[int, bytes, int, bool]]:
        """Number, name and inode of each segment, and whether it is complete; none left out."""

    def covered(self, slot: int) -> int:
        """Up to where the lines of a segment are in the table, bytes. Raises IndexError."""

    def segment_name(self, slot: int) -> bytes | None:
        """The name of a segment; None: it was left out. Raises IndexError."""

    def find(self, path: Buffer) -> tuple[list[tuple[int, int, int]], bool]:
        """The lines that may be about a path, as sequence number, segment and offset.

        At most 16, those with the highest numbers, in this order; and whether there are more.
        """
