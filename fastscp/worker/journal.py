"""The journal files of buffered instances: a worker's loop writes to them and does nothing else.

A helper thread opens the next file before it is needed, looks whether the one in use was removed,
and closes what is done with. For stable instances the commit's threads do all of that.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
from typing import TYPE_CHECKING, Final, TypeVar

from fastscp.errors import reason_for
from fastscp.store.names import shut
from fastscp.worker.helpers import Helpers

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from fastscp.store.journal import Segments

__all__ = ["JournalAhead"]

log = logging.getLogger("fastscp.worker")

_NONE: Final = -1
_T = TypeVar("_T")


class JournalAhead:
    """Has the next journal file at hand. All methods run on the loop, except `prepare` and `close`.

    Without `prepare` the first file is opened when the first line is to be written: a worker that
    flushes everything has none. segments: where they come from. opened(): called when `next` has an
    answer again after it had none. removed(fd): called for a file in use that was removed. Raises
    OSError where the helper thread cannot be started.
    """

    def __init__(
        self, segments: Segments, *, opened: Callable[[], object], removed: Callable[[int], object]
    ) -> None:
        self._segments = segments
        self._opened = opened
        self._removed = removed
        self._helper = Helpers("journal", 1)
        self._in_use = _NONE
        self._error: OSError | None = None
        self._opening: Future[int | OSError] | None = None
        self._awaited = self._watching = False
        self._ahead = _NONE

    def prepare(self) -> None:
        """Open the first file here and now: before the loop runs. Raises OSError."""
        self._ahead = self._segments.open()

    def next(self) -> tuple[int, int]:
        """The next file and the bytes in it; the one before it is closed.

        Raises BlockingIOError: there is none yet, and `opened` will be called. Raises OSError: none
        could be opened; the next call tries again.
        """
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        if self._ahead == _NONE:
            self._awaited = True
            self._open()
            raise BlockingIOError
        done, self._in_use, self._ahead = self._in_use, self._ahead, _NONE
        if done != _NONE:
            self._help(shut, done, then=lambda _none: None)
        self._open()
        return self._in_use, 0

    def watch(self) -> None:
        """Find out whether a file was removed, which would take its lines with it. Call often."""
        if not self._watching and (self._in_use, self._ahead) != (_NONE, _NONE):
            self._watching = True
            self._help(_gone_of, self._segments, (self._in_use, self._ahead), then=self._watched)

    def close(self) -> None:
        """Close the files and remove the one that was not needed. Off the loop, and last of all."""
        self._helper.close()
        if self._in_use != _NONE:
            shut(self._in_use)
        # One may have been opened that the loop has not heard of.
        ahead = self._ahead if self._opening is None else self._opening.result()
        if not isinstance(ahead, OSError) and ahead != _NONE:
            try:
                self._segments.withdraw(ahead)
            except OSError as error:
                log.warning("cannot remove an empty journal file: %s", reason_for(error))

    def _open(self) -> None:
        if self._opening is None:
            self._opening = self._help(_opened_by, self._segments, then=self._take)

    def _take(self, got: int | OSError) -> None:
        self._opening = None
        if not isinstance(got, OSError):
            self._ahead = got
        elif self._awaited:
            self._error = got
        self._awaited = False
        self._opened()
        # Whoever waited has it now; whoever comes later is told of a new attempt.
        self._error = None

    def _watched(self, gone: tuple[int, ...]) -> None:
        self._watching = False
        for fd in gone:
            if fd == self._ahead:
                self._ahead = _NONE
                self._help(os.close, fd, then=lambda _none: None)
                self._open()
            elif fd == self._in_use:
                # It is closed when the next one is taken: a line may be on its way to it.
                self._removed(fd)

    def _help(
        self, work: Callable[..., _T], *arguments: object, then: Callable[[_T], None]
    ) -> Future[_T]:
        """Work in the helper thread, and go on with what comes of it; what fails is told."""

        def ended(future: asyncio.Future[_T]) -> None:
            try:
                then(future.result())
            except Exception:
                log.exception("a bug, or the disk, in the care for the journal")

        future = self._helper.call(work, *arguments)
        asyncio.wrap_future(future).add_done_callback(ended)
        return future


def _opened_by(segments: Segments) -> int | OSError:
    try:
        return segments.open()
    except OSError as error:
        return error
    except Exception as error:
        # A bug must not leave a commit waiting for ever.
        log.exception("cannot open a journal file")
        return OSError(errno.EIO, str(error))


def _gone_of(segments: Segments, descriptors: tuple[int, ...]) -> tuple[int, ...]:
    """Those of the files that are not what their names lead to any more, or do not answer."""
    gone = []
    for fd in descriptors:
        try:
            if fd != _NONE and not segments.is_in_place(fd):
                gone.append(fd)
        except OSError:
            gone.append(fd)
    return tuple(gone)
