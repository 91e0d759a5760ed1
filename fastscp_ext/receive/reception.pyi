"""What the associations of one worker share: the receive buffer, the part folder, the commit."""

from collections.abc import Callable
from typing import Literal, Self, final

from fastscp_ext.receive.rules import Rules
from fastscp_ext.shared.shared import Shared

__all__ = ["Compression", "Duplicate", "Reception"]

@final
class Duplicate:
    """An instance whose final name was taken when the commit wanted to give it.

    Handed to `on_duplicate`; exactly one of `accept` and `refuse` must follow, on the loop's
    thread. The part file stays where it is until then. After that ValueError meets every further
    use.
    """

    @property
    def part(self) -> str:
        """Name of the part file in the incoming folder."""

    @property
    def path(self) -> str:
        """The path that was taken, below the store."""

    @property
    def rules(self) -> Rules:
        """Of its association when it began."""

    def accept(
        self,
        kind: Literal["named", "identical", "version", "replaced", "kept"],
        path: str,
        lock_fd: int = -1,
    ) -> None:
        """Go on to directory flush, journal and response.

        kind: named, where the path was free after all. path: where the instance is now. lock_fd:
        closed once the journal line is written. The part is unlinked unless it is gone already.
        """

    def refuse(self, status: int, comment: bytes, error_no: int = 0) -> None:
        """Drop the part and answer with `status`; error_no says why, for the log."""

@final
class Compression:
    """A complete instance whose part is to be compressed before the commit.

    Handed to `on_complete`; exactly one of `done` and `failed` must follow, on the loop's thread.
    After that ValueError meets every further use.
    """

    @property
    def part(self) -> str:
        """Name of the uncompressed part file in the incoming folder."""

    @property
    def rules(self) -> Rules:
        """Of its association when it began."""

    def done(self, part: str, fd: int) -> None:
        """Go on to the commit with another part, whose descriptor the reception owns from now on.

        The uncompressed part is removed.
        """

    def failed(self, error_no: int) -> None:
        """Drop the instance: its part cannot be compressed. The peer gets A700."""

@final
class Reception:
    """What the associations of one worker share.

    store_fd, incoming_fd: directory descriptors, borrowed for the object's life.
    shared, worker: what is shared, and this worker's place in it.
    name: of the worker, in journal lines (at most 23 bytes).
    durable: flush before every acknowledgement, off the loop; `release` must then be called when
    `done_fd` is readable. Wait until `uncommitted` is 0 before the object goes.
    new_journal(): opens the next journal file and returns (descriptor, bytes in it); the
    descriptor stays the caller's. on_duplicate(Duplicate): see there. on_error(step, errno,
    path): a file call failed; called on the loop's thread. on_complete(Compression): see there.
    mixed: a name with or without .zst takes the other, too.
    buffer_bytes: of the receive buffer, which its receivers export.
    An exception of a callback leaves nobody unanswered: the instance in hand is refused, and the
    exception goes to `sys.unraisablehook`.
    Raises ValueError for a worker or name it cannot have, OSError, MemoryError.
    """

    def __new__(
        cls,
        *,
        store_fd: int,
        incoming_fd: int,
        shared: Shared,
        worker: int,
        name: str,
        durable: bool,
        use_link: bool,
        implementation: bytes,
        version: bytes,
        new_journal: Callable[[], tuple[int, int]],
        on_duplicate: Callable[[Duplicate], object],
        on_error: Callable[[str, int, str], object],
        on_complete: Callable[[Compression], object],
        mixed: bool = False,
        buffer_bytes: int = 1048576,
        journal_limit: int = 67108864,
    ) -> Self: ...
    @property
    def done_fd(self) -> int:
        """Readable when `release` is due. Owned by the object."""

    def release(self) -> None:
        """Send the responses of what was committed off the loop."""

    def watch_journal(self) -> None:
        """Have a new journal file opened if the one in use was removed. Call often.

        Where instances are flushed the commit looks for itself, before it answers.
        """

    def refill(self, now: float) -> bool:
        """Let reading go on as far as the space allows; now: seconds, monotonic. Call often.

        Returns whether space is short: then those who wait are let go in order, each at its time,
        and the next call is due within milliseconds.
        """

    @property
    def uncommitted(self) -> int:
        """Instances that are complete and cannot be answered yet, whatever they wait for."""

    @property
    def rests(self) -> int:
        """Bytes that associations keep of what they read, while they pause."""
