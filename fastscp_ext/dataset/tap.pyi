"""The few wanted values out of a data set that passes in slices."""

from typing import Final, Self, final

from typing_extensions import Buffer

__all__ = [
    "EXPLICIT_BE",
    "EXPLICIT_LE",
    "IMPLICIT_LE",
    "KEYWORDS",
    "PIXELS_ENCAPSULATED",
    "PIXELS_NATIVE",
    "PIXELS_NONE",
    "SYNTAX_UNKNOWN",
    "Tap",
]

SYNTAX_UNKNOWN: Final[int]
IMPLICIT_LE: Final[int]
EXPLICIT_LE: Final[int]
EXPLICIT_BE: Final[int]

PIXELS_NONE: Final[int]
PIXELS_NATIVE: Final[int]
PIXELS_ENCAPSULATED: Final[int]

KEYWORDS: Final[tuple[str, ...]]

@final
class Tap:
    """The tap as Python sees it: for tests and tools, not for the receiving path.

    negotiated: SYNTAX_UNKNOWN, IMPLICIT_LE, EXPLICIT_LE or EXPLICIT_BE; else ValueError.
    Source: PS3.5 7.1, 7.5, A.4.
    """

    def __new__(cls, negotiated: int) -> Self: ...
    def feed(self, data: Buffer) -> None:
        """Take in the next bytes of the data set, cut anywhere."""

    def end(self, whole: bool = True) -> None:
        """Say that the last byte was fed. whole: it is the data set's last one."""

    def values(self) -> dict[str, bytes]:
        """The values found that are not empty, by keyword, without their padding."""

    @property
    def syntax(self) -> int:
        """The family the bytes are read in; the negotiated one until 8 have passed."""

    @property
    def sniffed(self) -> bool:
        """Whether the bytes contradict the negotiated family."""

    @property
    def stopped(self) -> bool:
        """Whether the rest cannot be read; what was found stands."""

    @property
    def stop_tag(self) -> int:
        """Once stopped, the tag of the element that cannot be read past; 0 where none is known."""

    @property
    def stop_at(self) -> int:
        """Once stopped, where that element starts: bytes from the start of the data set."""

    @property
    def pixels(self) -> int:
        """PIXELS_NONE, PIXELS_NATIVE or PIXELS_ENCAPSULATED: what the outermost level holds."""

    @property
    def truncated(self) -> bool:
        """Whether the data set ended inside an element or a sequence; known after `end`."""

    @property
    def settled(self) -> bool:
        """Whether no later byte can change `values`."""
