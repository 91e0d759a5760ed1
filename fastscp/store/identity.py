"""What a store was made with: its id, its layout and the suffix of its files, in store.toml."""

from __future__ import annotations

import contextlib
import os
import tomllib
from typing import TYPE_CHECKING, Final

import msgspec

from fastscp.errors import StartError
from fastscp.store.names import IDENTITY, home, make_file, open_file

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["FORMAT", "Identity", "read_identity", "write_identity"]

FORMAT: Final = 1
# No store.toml is near this: whatever is longer is not read.
_MOST: Final = 1 << 16


class Identity(msgspec.Struct, frozen=True):
    """The content of store.toml."""

    id: str
    format: int
    layout: str
    suffix: str
    suffixes: tuple[str, ...] = ()


def read_identity(path: Path, dir_fd: int) -> Identity | None:
    """The content of store.toml, None if there is none."""
    try:
        fd = open_file(IDENTITY, dir_fd)
    except FileNotFoundError:
        return None
    with os.fdopen(fd, "rb") as file:
        data = file.read(_MOST + 1)
    if len(data) > _MOST:
        raise StartError(
            f"{path / IDENTITY} is longer than {_MOST} bytes, so it is none of a store; "
            f"restore it, or use another --store"
        )
    try:
        identity = msgspec.convert(tomllib.loads(data.decode("utf-8")), Identity)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise StartError(
            f"{path / IDENTITY} cannot be read ({error}); restore it, or use another --store"
        ) from error
    if identity.format != FORMAT:
        raise StartError(
            f"{path} has format {identity.format}, this version knows {FORMAT}; "
            f"use the version that made it"
        )
    return identity


def write_identity(dir_fd: int, identity: Identity, *, flush_directory: bool) -> None:
    """Replace store.toml as a whole, flushed before and after it has its name."""
    # A JSON string without control characters is a TOML string.
    lines = [
        f"{key} = {msgspec.json.encode(value).decode('utf-8')}\n"
        for key, value in msgspec.structs.asdict(identity).items()
    ]
    name = IDENTITY.rpartition("/")[2]
    new = f"{name}.new"
    with home(dir_fd) as home_fd:
        # A start that was killed may have left this name. It is removed, not opened: it may be a
        # link.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(new, dir_fd=home_fd)
        with os.fdopen(make_file(new, home_fd), "wb") as file:
            file.write("".join(lines).encode("utf-8"))
            file.flush()
            os.fsync(file.fileno())
        os.rename(new, name, src_dir_fd=home_fd, dst_dir_fd=home_fd)
        if flush_directory:
            os.fsync(home_fd)
            os.fsync(dir_fd)
