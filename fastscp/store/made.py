"""What a start made of a store, so that one that fails takes it away again."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from fastscp.store.names import (
    FOLDER_MODE,
    HOME,
    descriptor,
    flush_folder,
    holder,
    leads_to,
    make_folder,
)

__all__ = ["Made"]


class Made:
    """Folders and files made by this start, in their order.

    Another start may be at the same store. Whatever is not empty is removed only by the start that
    holds the lock; an empty folder is missed only by a start that holds nothing yet, which makes it
    again.
    """

    def __init__(self) -> None:
        self._folders_above: list[Path] = []
        # Below the store: descriptor of the store, path, and whether it is a folder.
        self._below: list[tuple[int, str, bool]] = []
        # The lock, once this start holds it: path, descriptor of the store, its own descriptor.
        self._lock: tuple[str, int, int] | None = None

    def folders_above(self, path: Path) -> None:
        """Make `path` and what is missing above it, and flush the whole way where possible.

        What is there already may be the work of a life that was killed before it flushed it.
        Raises OSError.
        """
        missing = [p for p in (path, *path.parents) if not p.exists()]
        for folder in reversed(missing):
            with contextlib.suppress(FileExistsError):
                folder.mkdir(FOLDER_MODE)
                self._folders_above.append(Path(os.path.abspath(folder)))  # noqa: PTH100
        for folder in (path, *path.parents):
            try:
                parent_fd = os.open(folder.parent, os.O_RDONLY | os.O_DIRECTORY)
            except PermissionError:
                if folder in missing:
                    raise
                continue  # not ours, so not made by us
            with descriptor(parent_fd):
                flush_folder(parent_fd)

    def folder(self, path: str, dir_fd: int) -> None:
        """Make a folder below the store unless it is there. Raises OSError.

        A new store is whose service it is, also below a directory of somebody else.
        """
        with holder(path, dir_fd) as (folder_fd, name), contextlib.suppress(FileExistsError):
            if path == HOME:
                os.mkdir(name, FOLDER_MODE, dir_fd=folder_fd)
            else:
                make_folder(name, folder_fd)
            self._below.append((dir_fd, path, True))

    def note(self, path: str, dir_fd: int) -> None:
        """Remember a file that the caller made or is about to make. The caller holds the lock."""
        self._below.append((dir_fd, path, False))

    def hold(self, path: str, dir_fd: int, lock_fd: int, *, is_new: bool) -> None:
        """Remember the lock, which the caller holds; is_new: no start has had it before."""
        self._lock = (path, dir_fd, lock_fd)
        if is_new:
            self.note(path, dir_fd)

    def take_away(self) -> None:
        """Remove what this start made, except folders that something else came into.

        The store is still open, and its lock still held if it was taken. A second call does
        nothing. Nothing below the store is removed if somebody took the lock file away by hand: the
        store may be another service's by now.
        """
        below, self._below = self._below, []
        above, self._folders_above = self._folders_above, []
        if self._is_another_ones():
            below = []
        for dir_fd, path, is_folder in reversed(below):
            with (
                contextlib.suppress(OSError),
                holder(path, dir_fd) as (folder_fd, name),
            ):
                (os.rmdir if is_folder else os.unlink)(name, dir_fd=folder_fd)
        for folder in reversed(above):
            with contextlib.suppress(OSError):
                folder.rmdir()

    def _is_another_ones(self) -> bool:
        """Whether the lock that this start took is not the one at the path, for all it knows."""
        try:
            return self._lock is not None and not leads_to(*self._lock)
        except OSError:
            return True
