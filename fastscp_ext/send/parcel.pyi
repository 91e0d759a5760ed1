"""An instance on its way: what to send, and then what became of it."""

from collections.abc import Callable
from typing import Generic, TypeVar, final

__all__ = ["Parcel"]

_T = TypeVar("_T")

@final
class Parcel(Generic[_T]):
    """An instance on its way: what to send, and then what became of it.

    item: the caller's own, untouched. path: of the file, as the system takes it. command: a whole
    C-STORE-RQ command set with any message id; the sender writes its own over it. offset, size: of
    the data set in the file, bytes; it is the rest of the file. patches: (offset in the data set,
    value) to be sent instead of what the file has there. mark: of the file when it was looked at
    (`file_mark`), 0 if unknown. opener: gives the descriptor, from then on the sender's, of a file
    that stands for the one at the path; called when it is sent, in the sender's thread; the number
    of an OSError it raises becomes the parcel's error. Raises ValueError: no message id in the
    command, a command of more than 32 KiB, or no data set.
    """

    def __new__(
        cls,
        item: _T,
        path: bytes,
        command: bytes,
        context_id: int,
        offset: int,
        size: int,
        patches: tuple[tuple[int, bytes], ...] = (),
        mark: int = 0,
        opener: Callable[[], int] | None = None,
    ) -> Parcel[_T]: ...
    @property
    def item(self) -> _T: ...
    @property
    def path(self) -> bytes: ...
    @property
    def command(self) -> bytes: ...
    @property
    def context_id(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def size(self) -> int: ...
    @property
    def attempts(self) -> int:
        """How often it was sent."""
    @property
    def status(self) -> int:
        """Of the response; -1 where there is none."""
    @property
    def error(self) -> int:
        """Number of the OSError that kept it from being sent, or 0.

        ESTALE: it is no regular file, ends elsewhere than the data set, or changed since it was
        looked at, even while it was sent.
        """
    @property
    def response(self) -> bytes | None:
        """The command set of a response whose status is not 0."""
    @property
    def before(self) -> bytes | None:
        """The last such response that was forgotten."""
    @property
    def nanoseconds(self) -> int:
        """From before its first byte was sent to its response."""
    def again(self) -> None:
        """Forget the outcome, to be sent once more."""
