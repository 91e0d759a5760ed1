"""How an association's instances are treated."""

from typing import Self, final

from fastscp_ext.dataset.layout import Layout

__all__ = ["Rules"]

@final
class Rules:
    """How an association's instances are treated; never changed once it is made.

    An association gets its rules when it is admitted, and an instance keeps those it began with.
    Raises ValueError for a digest or a policy that there is not.
    """

    def __new__(
        cls,
        *,
        layout: Layout,
        digest: str,
        on_duplicate: str,
        strict: bool,
        durable: bool,
        compress_level: int,
        max_instance_size: int,
        discard: bool = False,
    ) -> Self: ...
    @property
    def layout(self) -> Layout:
        """Where instances go."""

    @property
    def digest(self) -> str:
        """Of the data set, for the journal line: crc32c, sha256 or none."""

    @property
    def on_duplicate(self) -> str:
        """What becomes of an instance unlike the one there: version, replace, keep or refuse."""

    @property
    def strict(self) -> bool:
        """Whether harmless violations of the standard are refused."""

    @property
    def durable(self) -> bool:
        """Whether an instance is flushed before it is acknowledged."""

    @property
    def discard(self) -> bool:
        """Whether instances are checked and answered, and nothing of them is stored."""

    @property
    def compress_level(self) -> int:
        """Level of Zstandard for the files; 0 leaves them uncompressed."""

    @property
    def max_instance_size(self) -> int:
        """Bytes of the largest data set; 0 is without limit."""
