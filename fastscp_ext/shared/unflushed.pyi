"""What could not be flushed, told to all workers.

A flush that failed is not repeated as if it might succeed: the kernel may have dropped what it was
to write together with the error. So a path stays here as long as the service lives. Each of the
three kinds has places for 64 paths; with one more it holds for all paths.
"""

from typing import Self, final

from fastscp_ext.shared.block import Block

__all__ = ["Doubts"]

@final
class Doubts:
    """The paths of the shared block that could not be flushed, below the store; "": the store."""

    def __new__(cls, block: Block) -> Self: ...
    def refuse(self, folder: str) -> bool:
        """Refuse all instances of a folder from now on; whether that is new."""

    def refuse_all(self) -> None:
        """Refuse the instances of all folders."""

    def refuses(self, folder: str) -> bool:
        """Whether instances of the folder are refused."""

    def doubt(self, path: str) -> bool:
        """Adopt a file, or the files of a folder, no more; whether that is new.

        An instance that is there already is then written and named anew.
        """

    def doubt_all(self) -> None:
        """Adopt no file that is there."""

    def leave(self, path: str) -> bool:
        """Give the path, free or not, to nobody who has not ended what is left there.

        An older content is kept that comes back to it. Whether that is new.
        """

    def leave_all(self) -> None:
        """The same for all paths."""

    def leaves(self, path: str) -> bool:
        """Whether something may be left at the path."""

    def doubts(self, path: str) -> bool:
        """Whether a file must not be adopted: it or its folder could not be flushed."""
