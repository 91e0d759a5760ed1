"""What a store was made with, in store.toml: its id, and how its files are filed."""

from __future__ import annotations

import contextlib
import os
import tomllib
from functools import lru_cache
from typing import TYPE_CHECKING, Final

import msgspec

from fastscp.errors import ConfigError, StartError
from fastscp.store.filing import Filing, Filings
from fastscp.store.names import IDENTITY, descriptor, home, make_file, open_file
from fastscp.titles import title_bytes, title_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

__all__ = [
    "FORMAT", "FORMAT_LOGGED", "Identity", "encoded", "read_identity", "stamp", "write_format",
    "write_identity",
]  # fmt: skip

FORMAT: Final = 1
# While there may be a redo log: a program that knows none would pass over acknowledged instances.
FORMAT_LOGGED: Final = 2
# None is longer: what would be is not written, and what is is not read.
_MOST: Final = 8 << 20


class Identity(msgspec.Struct, frozen=True):
    """The content of store.toml.

    layout, suffix: of the top level. suffixes: all that files of this store ever had. ae: how
    instances for a called AE title with a table are filed, by the title's written form.
    earlier_layouts: by which files may lie here, and none is stored any more.
    """

    id: str
    format: int
    layout: str
    suffix: str
    suffixes: tuple[str, ...] = ()
    ae: dict[str, Filing] = {}
    earlier_layouts: tuple[str, ...] = ()

    @property
    def layouts(self) -> tuple[str, ...]:
        """All that files may lie here by, each once: the top level's first, earlier ones last."""
        return tuple(dict.fromkeys((*self.filings.layouts, *self.earlier_layouts)))

    @property
    def filings(self) -> Filings:
        """How the service files that used the store last."""
        return Filings(Filing(self.layout, self.suffix), self.ae)


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
        identity = _parsed(data)
    except ValueError as error:
        raise StartError(
            f"{path / IDENTITY} cannot be read ({error}); restore it, or use another --store"
        ) from error
    if identity.format not in (FORMAT, FORMAT_LOGGED):
        raise StartError(
            f"{path} has format {identity.format}, this version knows {FORMAT} and "
            f"{FORMAT_LOGGED}; use the version that made it"
        )
    return identity


@lru_cache(maxsize=1)
def _parsed(data: bytes) -> Identity:
    """Raises ValueError."""
    identity = msgspec.convert(tomllib.loads(data.decode("utf-8")), Identity)
    for title in identity.ae:
        try:
            written = title_text(title_bytes(title))
        except ValueError as error:
            raise ValueError(f"the title of [ae.{title!r}] {error}") from error
        if written != title:
            raise ValueError(f"the title of [ae.{title!r}] is written {written!r}")
    return identity


def stamp(dir_fd: int) -> tuple[int, ...] | None:
    """What differs once store.toml is another file or has been written to; None: there is none."""
    try:
        fd = open_file(IDENTITY, dir_fd)
    except FileNotFoundError:
        return None
    with descriptor(fd):
        found = os.fstat(fd)
    return (
        found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
    )  # fmt: skip


def encoded(identity: Identity) -> bytes:
    """The bytes of store.toml. Raises ConfigError where they are more than would be read again."""
    data = "".join(_lines(identity)).encode("utf-8")
    if len(data) > _MOST:
        raise ConfigError(
            "[ae]",
            f"{IDENTITY} would have {len(data)} bytes for the layouts of {len(identity.ae)} "
            f"tables, and {_MOST} are the most that is read again; use fewer [ae] tables, or "
            f"shorter layouts",
        )
    return data


def write_identity(dir_fd: int, identity: Identity, *, flush_directory: bool) -> None:
    """Replace store.toml as a whole, flushed before and after it has its name.

    Raises ConfigError as `encoded` does, OSError.
    """
    data = encoded(identity)
    name = IDENTITY.rpartition("/")[2]
    new = f"{name}.new"
    with home(dir_fd) as home_fd:
        # A start that was killed may have left this name. It is removed, not opened: it may be a
        # link.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(new, dir_fd=home_fd)
        try:
            with os.fdopen(make_file(new, home_fd), "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.rename(new, name, src_dir_fd=home_fd, dst_dir_fd=home_fd)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(new, dir_fd=home_fd)
            raise
        if flush_directory:
            os.fsync(home_fd)
            os.fsync(dir_fd)


def write_format(path: Path, dir_fd: int, number: int, *, flush_directory: bool) -> None:
    """Have store.toml say another format, if it is there. Raises as the two of it do."""
    identity = read_identity(path, dir_fd)
    if identity is not None and identity.format != number:
        changed = msgspec.structs.replace(identity, format=number)
        write_identity(dir_fd, changed, flush_directory=flush_directory)


def _lines(identity: Identity) -> Iterator[str]:
    values = msgspec.structs.asdict(identity)
    tables: dict[str, Filing] = values.pop("ae")
    if not identity.earlier_layouts:
        del values["earlier_layouts"]
    yield from _values(values)
    for title, filing in sorted(tables.items()):
        yield f"\n[ae.{_text(title)}]\n"
        yield from _values(msgspec.structs.asdict(filing))


def _values(values: Mapping[str, object]) -> Iterator[str]:
    return (f"{key} = {_text(value)}\n" for key, value in values.items())


def _text(value: object) -> str:
    # A JSON string without control characters is a TOML string.
    return msgspec.json.encode(value).decode("utf-8")
