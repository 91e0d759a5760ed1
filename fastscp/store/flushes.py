"""Folders and files flushed beside the commit, and none again after a flush that failed.

The kernel tells of a failure once; the next flush succeeds, and means nothing. So each failure is
noted where all workers see it, and marked in the store for later lives; see `unflushed`.
"""

from __future__ import annotations

import contextlib
import errno
import os
from typing import TYPE_CHECKING, Final, Protocol

from fastscp.store.names import descriptor, flush_folder, open_file, open_folder
from fastscp.store.unflushed import Marks

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["LACK", "Flushes"]

# The system lacked something: that says nothing of what the disk has.
LACK: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM})
# No folder of a store has this path: it is refused where all are.
_NONE: Final = "/"


class _Doubts(Protocol):
    """What all workers know; `fastscp_ext.Doubts`."""

    def refuse(self, folder: str, /) -> bool: ...
    def refuses(self, folder: str, /) -> bool: ...
    def doubt(self, path: str, /) -> bool: ...


class Flushes:
    """The flushes of one process in a store. For all threads.

    doubts: what the workers know; None: the marks of the store tell. tell: called with a folder,
    an errno, True, and whether all folders are refused, where that is new; it leaves the mark.
    None: it is left here.
    """

    def __init__(
        self,
        store_fd: int,
        doubts: _Doubts | None = None,
        tell: Callable[[str, int, bool, bool], None] | None = None,
    ) -> None:
        self.store_fd = store_fd
        self._doubts = doubts
        self._tell = tell
        self._failed: set[str] = set()

    def way(self, path: str) -> None:
        """Flush the folders above a path, the innermost first, then the store. Raises OSError."""
        while path:
            path = path.rpartition("/")[0]
            with contextlib.suppress(FileNotFoundError):
                self.folder(path)

    def folder(self, folder: str) -> None:
        """Flush a folder, "" for the store itself. Raises OSError, also for an earlier failure."""
        self.check(folder)
        with descriptor(open_folder(folder or ".", self.store_fd)) as fd:
            try:
                flush_folder(fd)
            except OSError as error:
                self._folder_failed(folder, error.errno or errno.EIO)
                raise
        # Another thread may have met the failure meanwhile, and the system tells only one of both.
        self.check(folder)

    def check(self, folder: str) -> None:
        """Raise OSError (EIO) where a flush of the folder failed before."""
        if folder in self._failed or self._is_refused(folder):
            raise OSError(errno.EIO, "a flush of the folder failed before", folder or ".")

    def _is_refused(self, folder: str) -> bool:
        if self._doubts is not None:
            return self._doubts.refuses(folder)
        return any(
            mark.what == "all folders" or (mark.what == "folder" and mark.path == folder)
            for mark in Marks(self.store_fd).standing()
        )

    def _folder_failed(self, folder: str, error_no: int) -> None:
        if error_no in LACK:
            return
        self._failed.add(folder)
        is_new = self._doubts.refuse(folder) if self._doubts is not None else True
        if self._tell is None or self._doubts is None:
            with contextlib.suppress(OSError):
                Marks(self.store_fd).leave("folder", folder, error_no)
        elif is_new:
            self._tell(folder, error_no, True, self._doubts.refuses(_NONE))

    def file(self, path: str, *, is_instance: bool = True) -> None:
        """Flush a file. Raises OSError, also for an earlier failure."""
        if path in self._failed or any(
            mark.what == "file" and mark.path == path for mark in Marks(self.store_fd).standing()
        ):
            raise OSError(errno.EIO, "a flush of the file failed before", path)
        with descriptor(open_file(path, self.store_fd)) as fd:
            try:
                os.fsync(fd)
            except OSError as error:
                self._file_failed(path, error.errno or errno.EIO, is_instance=is_instance)
                raise

    def doubt(self, path: str) -> None:
        """Have a stored file in doubt, whose flush failed before, also in later lives.

        Raises OSError where it cannot be marked.
        """
        if self._doubts is not None:
            self._doubts.doubt(path)
        Marks(self.store_fd).leave("file", path, errno.EIO)

    def _file_failed(self, path: str, error_no: int, *, is_instance: bool) -> None:
        if error_no in LACK:
            return
        self._failed.add(path)
        if is_instance:
            if self._doubts is not None:
                self._doubts.doubt(path)
            with contextlib.suppress(OSError):
                Marks(self.store_fd).leave("file", path, error_no)
