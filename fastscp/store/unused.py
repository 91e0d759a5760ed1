"""Whether nothing was filed in a store in some way, so that nothing can be stored a second time."""

from __future__ import annotations

from itertools import takewhile
from typing import TYPE_CHECKING

from fastscp.store.leftovers import is_anything_left
from fastscp.store.names import ANEW, exists
from fastscp.store.redo.logs import is_anything_logged
from fastscp.store.survey import look
from fastscp_ext import Layout

if TYPE_CHECKING:
    from fastscp.store.filing import Filing

__all__ = ["Unused", "holds_none"]


class Unused:
    """Whether nothing lies in a store as a filing would have it; only where that is sure.

    What is on its way meanwhile is not seen. Blocks on the disk, for a bounded time.
    """

    def __init__(self, dir_fd: int) -> None:
        self._dir_fd = dir_fd
        # By folder: many titles may share one.
        self._known: dict[str, bool] = {}

    def __call__(self, filing: Filing) -> bool:
        try:
            folder = _fixed_folder(filing.layout)
        except ValueError:
            folder = ""
        return self._holds_none("") or (bool(folder) and self._holds_none(folder))

    def _holds_none(self, folder: str) -> bool:
        if folder not in self._known:
            self._known[folder] = holds_none(self._dir_fd, folder)
        return self._known[folder]


def _fixed_folder(layout: str) -> str:
    """The folder that all paths of a layout begin with, as the codec names it; "": there is none.

    Raises ValueError for what is no layout.
    """
    uids = dict.fromkeys(("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"), b"1")
    folders = layout.split("/")[:-1]
    fixed = list(takewhile(lambda folder: "{" not in folder, folders))
    return "/".join(Layout(layout).render(uids).split("/")[: len(fixed)])


def holds_none(dir_fd: int, folder: str = "") -> bool:
    """Whether a folder surely holds no instance, "" for the store itself; it may not be there.

    False where that is not known: not all could be looked at, or something is not in its place.
    """
    try:
        # What may come back to its path first.
        is_settled = not (
            is_anything_left(dir_fd) or exists(ANEW, dir_fd) or is_anything_logged(dir_fd)
        )
    except OSError:
        return False
    found, is_whole = look(dir_fd, folder) if is_settled else (None, False)
    return found is None and is_whole
