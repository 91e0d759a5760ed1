"""What the associations of one worker share: the receive buffer, the part folder, the commit."""

from collections.abc import Callable
from typing import Literal, Self, final

from fastscp_ext.receive.rules import Rules
from fastscp_ext.receive.unfinished import Unfinished
from fastscp_ext.shared.shared import Shared

__all__ = ["Compression", "Duplicate", "HeldBack", "Reception", "Replacement"]

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

    @property
    def association(self) -> int:
        """Tells its association from the others whose instances are under way."""

    @property
    def digest(self) -> str:
        """Of its data set, as its journal line will have it; "" where there is none."""

    def accept(
        self,
        kind: Literal["named", "identical", "version", "replaced", "kept"],
        path: str,
        lock_fd: int = -1,
    ) -> None:
        """Go on to directory flush, journal and response.

        kind: named, where the path was free after all. path: where the instance is now. lock_fd:
        closed once the journal line is written, and where the kind is replaced, once that is
        settled; then `on_unlocked` is called. The part is removed unless it is gone already.
        """

    def refuse(self, status: int, comment: bytes | None, error_no: int = 0) -> None:
        """Drop the part and answer with `status`; error_no says why, for the log.

        comment: for the peer; None: what a refusal for that error says, and no more.
        """

@final
class Replacement:
    """An instance that took another one's place, and is through the commit, or was refused by it.

    Handed to `on_replaced`; `settled` must follow, on the loop's thread. Until then the path's lock
    is held, and nobody is answered. After that ValueError meets every further use.
    """

    @property
    def path(self) -> str:
        """Where it is now, below the store."""

    @property
    def rules(self) -> Rules:
        """Of its association when it began."""

    @property
    def association(self) -> int:
        """Tells its association from the others whose instances are under way."""

    @property
    def refused(self) -> bool:
        """Whether the commit failed, so that what it took the place of has to come back."""

    def settled(self, error_no: int = 0) -> None:
        """Give the lock of the path back, and answer: with A700 where error_no says so."""

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

    @property
    def association(self) -> int:
        """Tells its association from the others whose instances are under way."""

    def done(self, part: str, fd: int) -> None:
        """Go on to the commit with another part, whose descriptor the reception owns from now on.

        The uncompressed part is removed.
        """

    def failed(self, error_no: int) -> None:
        """Drop the instance: its part cannot be compressed. The peer gets A700."""

@final
class HeldBack:
    """A place in an association's queue of responses; `Receiver.hold_back_responses` makes it."""

    def let_go(self) -> None:
        """Let the responses behind it leave, if their peer is still there.

        Once, on the loop's thread; ValueError meets every further use. It has to come: the place
        takes memory until then.
        """

@final
class Reception:
    """What the associations of one worker share.

    store_fd, incoming_fd: directory descriptors, borrowed until `close`.
    shared, worker: what is shared, and this worker's place in it.
    name: of the worker, in journal lines (at most 23 bytes).
    Instances of rules that are `durable` are committed off the loop, the others on it; each kind
    has a journal file of its own. `release` must be called when `done_fd` is readable. Wait until
    `uncommitted` and `removals` are 0, and call `close`, before its descriptors go.
    new_journal(durable): returns the next journal file for the lines of durable instances, or for
    those of the others, as (descriptor, bytes in it) or (descriptor, bytes in it, path in the
    store); the descriptor stays the caller's. With its path the commit of durable instances sees
    when the file lies elsewhere by now, and else only when it was removed. For
    durable ones it is called off the loop and may open the file there and then. For the others it
    is called on the loop's thread, and BlockingIOError says that there is none yet:
    `journal_opened` must follow, until when only they wait. on_duplicate(Duplicate): see there.
    on_error(step, errno, path): a file call failed; called on the loop's thread. path: below the
    store, of the instance or of what every instance needs.
    on_complete(Compression): see there.
    on_unlocked(path_hash): the line of a duplicate that had a lock is written; CRC-32C of its path.
    on_refused(folder, errno, lasting, all): a flush of a folder of the store ("": the store itself)
    failed, and no worker stores anything that depends on it from now on. lasting: the error may
    have cost what was to be written; else the system lacked something. all: so many have failed
    that no folder gets anything. Called at once, on the thread that made the flush, in the worker
    that was the first to find it; no instance is answered because of it before that.
    on_replaced(Replacement): see there; None: nothing was kept of what was replaced.
    on_short(): from now on the kernel keeps what is shorter than a message with a data set, of a
    peer that has sent many such messages, in pieces and one soon after the other. Call
    `let_short_in` every few milliseconds until it returns False; only then on_short may come
    again. None: the kernel keeps nothing.
    buffer_bytes: of the receive buffer, which its receivers export. max_bytes_in_flight: see there.
    nameless: how a part that is written at once gets its name, as `nameless_way` has it; 0: each
    part has a name first.
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
        use_link: bool,
        implementation: bytes,
        version: bytes,
        new_journal: Callable[[bool], tuple[int, int] | tuple[int, int, str]],
        on_duplicate: Callable[[Duplicate], object],
        on_error: Callable[[str, int, str], object],
        on_complete: Callable[[Compression], object],
        on_unlocked: Callable[[int], object] | None = None,
        on_refused: Callable[[str, int, bool, bool], object] | None = None,
        on_replaced: Callable[[Replacement], object] | None = None,
        on_short: Callable[[], object] | None = None,
        buffer_bytes: int = 1048576,
        journal_limit: int = 67108864,
        max_bytes_in_flight: int = 0,
        nameless: int = 0,
    ) -> Self: ...
    @property
    def done_fd(self) -> int:
        """Readable when `release` is due. Owned by the object."""

    def open_log(
        self,
        folder_fd: int,
        *,
        most: int,
        kept: int,
        store: str,
        boot: str,
        life: str,
        mount: str,
        system: str,
        new_journal: Callable[[], tuple[int, int, str]],
        on_failed: Callable[[str, int, Literal["waits", "off", "fatal"]], object],
    ) -> None:
        """Have small stable instances take a redo log; before the first instance.

        folder_fd: of the log files, borrowed until `close_log`. most: bytes of a file that may take
        the log. kept: as many files wait for their checkpoint at most. store, boot, life, mount,
        system: what the log files say of whoever made them, ASCII. new_journal(): the next segment
        for the lines of such instances, borrowed: descriptor, bytes in it, its place in the store;
        called on a thread of the log. Raises OSError there.
        on_failed(step, errno, what): called on a thread of the log where a step failed. waits: it
        is tried again, and told again only with another errno. off: from now on there is no log.
        fatal: what was to be flushed cannot be, and the log files are all there is of some
        instances; whoever owns this has to end, and leave them as they are.
        Raises ValueError for a text that is too long.
        """

    def close_log(self) -> None:
        """Have all that the redo log vouches for flushed, and remove its files.

        Instances that come later are committed without it. Blocks on the disk. Raises OSError where
        something could not be flushed or removed; then the files stay. For descriptors or memory
        that are lacking it waits 5 s.
        """

    def release(self) -> None:
        """Send the responses of what was committed off the loop, and let reading go on.

        Reading pauses while 256 parts wait to be removed.
        """

    def journal_opened(self) -> None:
        """Go on with a buffered commit that waits.

        new_journal has a file for it now, or says why there is none.
        """

    def leave_journal(self, fd: int) -> None:
        """Write no more buffered lines to this file, if it is the one in use: it was removed.

        For stable lines the commit looks for itself, before it answers.
        """

    def close(self) -> None:
        """Use no descriptor of the store or of a journal file again: others get their numbers.

        To be called while `uncommitted` and `removals` are 0. Whatever is stored afterwards is
        refused with A700.
        """

    def let_short_in(self) -> bool:
        """Have short messages read that the kernel keeps: see `on_short`.

        The second call after the last message of a peer, or after the last answer to it, lets in
        what came of it, be it a release, an echo or an abort. While an answer is owed, no call
        does: that is left to `overdue`. Returns whether another call is due.
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
    def bytes_in_flight(self) -> int:
        """Bytes of data sets of the instances that the commit has, of either durability.

        It has an instance from its last byte until it is journaled, refused or found to be a
        duplicate. One that is compressed before counts from when it is, with the bytes it had; one
        that waits behind an elder of its path, or is compared, does not count: the bounds on their
        number hold for these.
        """

    @property
    def max_bytes_in_flight(self) -> int:
        """From how many bytes in flight on, of its durability, an association's reading pauses.

        It pauses behind the command set of an instance, in the middle of a read too, and goes on
        when the commit has fewer. What an association had begun comes in whole, and counts when it
        is complete: there may be so much more, and an instance larger than this passes. 0: any
        number. It may be set while associations are held: they go on by the new one at once.
        """

    @max_bytes_in_flight.setter
    def max_bytes_in_flight(self, most: int) -> None: ...
    @property
    def rests(self) -> int:
        """Bytes that associations keep of what they read, while they pause."""

    @property
    def unfinished(self) -> Unfinished:
        """What requests and command sets take while they are not whole."""

    @property
    def removals(self) -> int:
        """Parts and locks that wait to be closed or removed, off the loop."""
