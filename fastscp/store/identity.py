"""What a store was made with: its id, its layout and the suffix of its files, in store.toml."""

from __future__ import annotations

import os
import tomllib
from typing import TYPE_CHECKING, Final

import msgspec

from fastscp.errors import StartError
from fastscp.store.names import FILE_MODE, HOME, IDENTITY, descriptor, open_folder

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["FORMAT", "Identity", "read_identity", "write_identity"]

FORMAT: Final = 1


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
        fd = os.open(IDENTITY, os.O_RDONLY | os.O_CLOEXEC, dir_fd=dir_fd)
    except FileNotFoundError:
        return None
    with os.fdopen(fd, "rb") as file:
        data = file.read()
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
    new = f"{IDENTITY}.new"
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, FILE_MODE, dir_fd=dir_fd)
    with os.fdopen(fd, "wb") as file:
        file.write("".join(lines).encode("utf-8"))
        file.flush()
        os.fsync(fd)
    os.rename(new, IDENTITY, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
    if flush_directory:
        with descriptor(open_folder(HOME, dir_fd)) as home_fd:
            os.fsync(home_fd)
        os.fsync(dir_fd)
