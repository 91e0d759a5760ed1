"""Lines of the journal looked through without the interpreter, as fast as they are read.

Plain is a line as the commit writes it: an object without blanks, with no object or array in it,
and with nothing escaped in what is looked at. Of a line that is not plain nothing is said here, and
whoever asked looks into it.
"""

from typing_extensions import Buffer

from fastscp_ext.shared.line_index import LineIndex

__all__ = ["index_lines", "lines_about"]

def index_lines(
    index: LineIndex, segment: int, offset: int, text: Buffer, longest: int
) -> tuple[int, int]:
    """Add the lines of a text that say what a file holds, up to one that is not plain.

    segment, offset: where the text stands, from a line's beginning on. Its last line may lack its
    newline. longest: bytes; what is longer with its newline, or as long without one, is no line.
    Returns how many bytes are done with, and the bytes of the line behind them that is not plain;
    0: all are. Lines whose checksum is wrong are passed over.
    Raises OSError where there is no memory, OverflowError for lines at 4 GiB or more.
    Releases the GIL.
    """

def lines_about(text: Buffer, path: bytes, longest: int) -> list[tuple[int, int]]:
    """Place and bytes of each line that may be about a path (UTF-8): it is, or it is not plain.

    text, longest: as in `index_lines`. Whether a checksum is right is not looked at. Releases the
    GIL.
    """
