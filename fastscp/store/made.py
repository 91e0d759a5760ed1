"""What a start made of a store, so that one that fails takes it away again."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from fastscp.store.names import FILE_MODE, FOLDER_MODE, descriptor, flush_folder, holder

__all__ = ["Made"]


class Made:
    """Folders and files made by this start, in their order."""

    def __init__(self) -> None:
        self._folders_above: list[Path] = []
        # Below the store: descriptor of the store, path, and whether it is a folder.
        self._below: list[tuple[int, str, bool]] = []

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
        """Make a folder below the store unless it is there. Raises OSError."""
        with holder(path, dir_fd) as (folder_fd, name), contextlib.suppress(FileExistsError):
            os.mkdir(name, FOLDER_MODE, dir_fd=folder_fd)
            self._below.append((dir_fd, path, True))

    def file(self, path: str, dir_fd: int) -> None:
        """Make an empty file below the store unless something is there. Raises OSError."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with holder(path, dir_fd) as (folder_fd, name), contextlib.suppress(FileExistsError):
            os.close(os.open(name, flags, FILE_MODE, dir_fd=folder_fd))
            self.note(path, dir_fd)

    def note(self, path: str, dir_fd: int) -> None:
        """Of a file that was made elsewhere."""
        self._below.append((dir_fd, path, False))

    def take_away(self) -> None:
        """Remove it, as far as nothing else came into it; once. The store is still open."""
        below, self._below = self._below, []
        above, self._folders_above = self._folders_above, []
        for dir_fd, path, is_folder in reversed(below):
            with (
                contextlib.suppress(OSError),
                holder(path, dir_fd) as (folder_fd, name),
            ):
                (os.rmdir if is_folder else os.unlink)(name, dir_fd=folder_fd)
        for folder in reversed(above):
            with contextlib.suppress(OSError):
                folder.rmdir()
