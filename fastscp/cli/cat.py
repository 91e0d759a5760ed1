"""`fastscp cat`: one instance of a store, as a DICOM file."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

from cyclopts import Parameter

from fastscp.cli.options import Store, store_directory
from fastscp.cli.output import os_errors
from fastscp.errors import ConfigError, FastscpError
from fastscp.log import printable

if TYPE_CHECKING:
    from typing import IO

__all__ = ["cat"]

_CHUNK: Final = 1 << 20


def cat(
    path: Annotated[
        str,
        Parameter(
            name="PATH", help="A file below the store, as the journal names it; or any other file."
        ),
    ],
    /,
    *,
    store: Store = "dicom-store",
) -> int:
    """Write a stored instance to stdout as a DICOM file, decompressed where it is compressed."""
    import zstandard

    from fastscp.store.compress import open_part10
    from fastscp.store.names import OWN, is_own

    if sys.stdout.isatty():
        raise ConfigError(
            "cat", "would write binary data to the terminal; redirect it, as in `> instance.dcm`"
        )
    directory = store_directory(store)
    found = directory / path
    if not found.is_file():
        found = Path(path)
    if not found.exists():
        raise FastscpError(
            f"cannot write out {printable(path)}: No such file or directory, neither below the "
            f"store {directory} nor by itself; name it as the journal's `path` does, and the "
            f"store with --store"
        )
    if is_own(found):
        raise FastscpError(f"{printable(path)} {OWN}, and the instance as its journal does")
    found = found.resolve()
    with os_errors():
        folder_fd = os.open(found.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with open_part10(found.name, folder_fd) as file:
                _copy(file)
        except zstandard.ZstdError as error:
            raise FastscpError(f"{printable(path)} is damaged: {error}") from error
        finally:
            os.close(folder_fd)
    return 0


def _copy(file: IO[bytes]) -> None:
    while data := file.read(_CHUNK):
        sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
