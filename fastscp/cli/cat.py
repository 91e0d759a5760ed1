"""`fastscp cat`: one instance of a store, as a DICOM file."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

from cyclopts import Parameter

from fastscp.cli.options import FileName, Store, StoreConfigFile, as_written, store_directory
from fastscp.cli.output import os_errors
from fastscp.errors import ConfigError, FastscpError
from fastscp.log import printable

if TYPE_CHECKING:
    from typing import IO

__all__ = ["cat"]

_CHUNK: Final = 1 << 20


def cat(
    path: Annotated[
        FileName,
        Parameter(
            name="PATH",
            converter=as_written,
            help="A file below the store, as the journal names it; or any other file.",
        ),
    ],
    /,
    *,
    store: Store | None = None,
    config: StoreConfigFile | None = None,
) -> int:
    """Write a stored instance to stdout as a DICOM file, decompressed where it is compressed."""
    import zstandard

    from fastscp.store.compress import open_part10
    from fastscp.store.names import OWN, descriptor, is_own

    if not path:
        raise ConfigError("PATH", "is empty; name a file, as the journal's `path` does")
    if sys.stdout.isatty():
        raise ConfigError(
            "cat", "would write binary data to the terminal; redirect it, as in `> instance.dcm`"
        )
    with os_errors():
        found, folder_fd, name = _find(store_directory(store, config), path)
        with descriptor(folder_fd):
            if is_own(found):
                raise FastscpError(f"{printable(path)} {OWN}, and the instance as its journal does")
            try:
                with open_part10(name, folder_fd) as file:
                    _copy(file)
            except zstandard.ZstdError as error:
                raise FastscpError(f"{printable(path)} is damaged: {error}") from error
            except BrokenPipeError:
                raise
            except OSError as error:
                why = f"cannot write out {printable(path)}: {error.strerror or error}"
                raise FastscpError(why) from error
    return 0


def _find(directory: Path, path: str) -> tuple[Path, int, str]:
    """What is to be read, the descriptor it is below, which is the caller's, and its name there.

    Below the store no symbolic link is followed, as everywhere in one; elsewhere they are.
    Raises OSError, FastscpError.
    """
    from fastscp.store.access import open_store
    from fastscp.store.names import descriptor, status_at
    from fastscp.store.unrecovered import refuse_unrecovered

    below = os.path.normpath(path)
    # What leads out of the store is named by itself.
    may_be_below = not below.startswith(("/", ".."))
    if may_be_below:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            store_fd = open_store(directory)
            try:
                status_at(below, store_fd)
                refuse_unrecovered(directory, store_fd, use="reading them")
            except BaseException:
                os.close(store_fd)
                raise
            return directory / below, store_fd, below
    found = Path(path)
    if found.is_dir():
        raise FastscpError(
            f"cannot write out {printable(path)}: it is a folder; name one file in it"
        )
    if not found.exists():
        if may_be_below:
            # Then it may be in the log alone.
            with (
                contextlib.suppress(FileNotFoundError, NotADirectoryError),
                descriptor(open_store(directory)) as store_fd,
            ):
                refuse_unrecovered(directory, store_fd, use="looking for one")
        raise FastscpError(
            f"cannot write out {printable(path)}: No such file or directory, neither below the "
            f"store {directory} nor by itself; name it as the journal's `path` does, and the "
            f"store with --store"
        )
    found = found.resolve()
    return found, open_store(found.parent), found.name


def _copy(file: IO[bytes]) -> None:
    while data := file.read(_CHUNK):
        sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
