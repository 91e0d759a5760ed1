"""The directory a store lives in: who may use it, what it was made with, what it can do.

    STORE/.fastscp/lock              held by the one service that uses the store
    STORE/.fastscp/store.toml        id, format, layout, suffix
    STORE/.fastscp/incoming/<life>/  parts of one worker life, beside the `lock` it holds
    STORE/.fastscp/journal/
    STORE/.fastscp/buffered          while a life with buffered durability lasts
    STORE/.fastscp/suspect           after one that did not end cleanly

Everything is reached from one directory descriptor: were the file system to vanish under its mount
point, no call could write into the directory that comes to light there.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import tomllib
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn, Protocol, TypeAlias

import msgspec

from fastscp.errors import ConfigError, StartError, StoreBusyError
from fastscp.store.folders import HOME, descriptor, flush_folder, names_in, open_folder
from fastscp_ext import rename_noreplace as system_rename_noreplace

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "SUSPECT",
    "Facts",
    "Store",
    "Suspicion",
    "SweepReport",
    "create_life",
    "existing",
    "held",
    "remove_life",
    "suspicion",
    "sweep_incoming",
    "trust",
]

FORMAT: Final = 1
INCOMING: Final = f"{HOME}/incoming"
JOURNAL: Final = f"{HOME}/journal"
LOCK: Final = f"{HOME}/lock"
IDENTITY: Final = f"{HOME}/store.toml"
# There while a buffered life lasts; a life that finds it there found an unclean end.
BUFFERED: Final = f"{HOME}/buffered"
SUSPECT: Final = f"{HOME}/suspect"

FOLDER_MODE: Final = 0o750
FILE_MODE: Final = 0o640

_IN_MEMORY: Final = frozenset({"tmpfs", "ramfs"})


# Marks by name, each with its inode and its time of change in ns: a new one differs.
Suspicion: TypeAlias = tuple[tuple[str, int, int], ...]


class RenameNoReplace(Protocol):
    """A rename that raises FileExistsError rather than replace; OSError where it cannot promise."""

    def __call__(self, old: str, new: str, *, src_dir_fd: int, dst_dir_fd: int) -> None: ...


@dataclass(frozen=True)
class Facts:
    """What the file system can do.

    noreplace: a rename that never replaces; without it instances get their names by link and
    unlink. directory_flush: whether a name can be made to survive a power cut. file_system: as
    `/proc/mounts` calls it, or "unknown". warnings: for the log.
    """

    file_system: str
    noreplace: bool
    link: bool
    directory_flush: bool
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class SweepReport:
    """What a sweep removed; `failed` counts folders that could not be removed, left as they are."""

    folders: int
    parts: int
    bytes: int
    failed: int = 0


@dataclass(frozen=True)
class Store:
    """A store held by this process.

    dir_fd: the store directory, for every `*at` call. lock_fd: the lock, inheritable so that a
    successor started by exec keeps it. created: it did not exist before. previous_layout: what
    the layout was, where `open` changed it. mixed: it holds compressed and uncompressed files.
    suspect: a buffered life ended without a clean stop, so a file may be less than it seems.
    """

    path: Path
    id: str
    layout: str
    suffix: str
    dir_fd: int
    lock_fd: int
    created: bool
    previous_layout: str | None
    facts: Facts
    mixed: bool
    suspect: bool

    @classmethod
    def open(
        cls,
        path: Path,
        layout: str,
        suffix: str = ".dcm",
        must_exist: bool = False,
        layout_change: bool = False,
        *,
        durability: str = "stable",
        rename_noreplace: RenameNoReplace = system_rename_noreplace,
    ) -> Store:
        """Take the store at `path`, made if it is not there, and find out what it can do.

        must_exist: refuse a directory that is no store yet. layout_change: let `layout` and
        `suffix` differ from those the store was made with. durability: as in the settings; what
        it promises must be possible here.
        Raises ConfigError for another layout and for a path inside a service's own folder,
        StoreBusyError if the store is in use, StartError if it cannot be used. Nothing stays open
        then. Blocks on the disk.
        """
        with contextlib.ExitStack() as undo, _explained(path):
            if HOME in Path(os.path.realpath(path)).parts:
                raise ConfigError(
                    "--store",
                    f"{path} lies in a service's own folder {HOME}, where nothing is taken for an "
                    f"instance and much is removed; name another directory",
                )
            if must_exist and not (path / IDENTITY).is_file():
                raise StartError(
                    f"{path} is not a store (it has no {IDENTITY}), and --store-must-exist is on; "
                    f"mount the file system, or start once without that option to make a store"
                )
            if not (path / IDENTITY).is_file():
                _make_folders(path)
            dir_fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            undo.callback(os.close, dir_fd)
            for folder in (HOME, INCOMING, JOURNAL):
                with contextlib.suppress(FileExistsError):
                    os.mkdir(folder, FOLDER_MODE, dir_fd=dir_fd)
            lock_fd = _lock(path, dir_fd)
            undo.callback(os.close, lock_fd)

            _refuse_another_file_system(path, dir_fd)
            facts = _probe(path, dir_fd, durability, rename_noreplace)
            known = _read_identity(path, dir_fd)
            if known is None:
                identity = _Identity(str(uuid.uuid4()), FORMAT, layout, suffix, (suffix,))
            else:
                suffixes = tuple(sorted({*known.suffixes, known.suffix, suffix}))
                identity = msgspec.structs.replace(
                    known, layout=layout, suffix=suffix, suffixes=suffixes
                )
                if identity != known and not layout_change:
                    raise ConfigError(
                        "--layout",
                        f"the store {path} was made with {known.layout!r} and suffix "
                        f"{known.suffix!r}, not {layout!r} and {suffix!r}: an instance it holds "
                        f"already would be stored a second time; restore the layout, or add "
                        f"--layout-change",
                    )
            if identity != known:
                _write_identity(dir_fd, identity, flush_directory=facts.directory_flush)
            suspect = _note_life(dir_fd, durability, facts)
            undo.pop_all()
        return cls(
            path=path,
            id=identity.id,
            layout=layout,
            suffix=suffix,
            dir_fd=dir_fd,
            lock_fd=lock_fd,
            created=known is None,
            previous_layout=known.layout if known is not None and known != identity else None,
            facts=facts,
            mixed=len(identity.suffixes) > 1,
            suspect=suspect,
        )

    def lost(self) -> str | None:
        """Why the path no longer leads to this store, or None while it does. Blocks on the disk."""
        try:
            ours = os.fstat(self.dir_fd)
            there = self.path.stat()
            if (ours.st_dev, ours.st_ino) != (there.st_dev, there.st_ino):
                return f"{self.path} is another directory now"
            identity = _read_identity(self.path, self.dir_fd)
            missing = [name for name in (INCOMING, JOURNAL) if not self._has(name)]
        except OSError as error:
            return f"{self.path} cannot be reached ({error.strerror})"
        except StartError as error:
            return str(error)
        if identity is None or identity.id != self.id:
            return f"{self.path} has lost its {IDENTITY}"
        if missing:
            return f"{self.path} has lost its folder {missing[0]}"
        return None

    def _has(self, name: str) -> bool:
        try:
            os.stat(name, dir_fd=self.dir_fd)
        except FileNotFoundError:
            return False
        return True

    def stopped_cleanly(self) -> None:
        """Take the mark of a buffered life away, after flushing all. Blocks on the disk."""
        if not self._has(BUFFERED):
            return
        os.sync()
        os.unlink(BUFFERED, dir_fd=self.dir_fd)

    def close(self) -> None:
        """Give the store back. A descriptor that a successor inherited keeps it locked."""
        os.close(self.lock_fd)
        os.close(self.dir_fd)


@contextlib.contextmanager
def existing(path: Path) -> Iterator[int]:
    """The directory of a store that is there, as a descriptor. A service may be using it.

    Raises StartError where there is none or it cannot be read.
    """
    with _explained(path):
        if not (path / IDENTITY).is_file():
            raise StartError(
                f"{path} is not a store (it has no {IDENTITY}); name one with --store, or mount "
                f"its file system"
            )
        dir_fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    with descriptor(dir_fd):
        _read_identity(path, dir_fd)
        yield dir_fd


@contextlib.contextmanager
def held(path: Path, dir_fd: int) -> Iterator[None]:
    """The lock of a store, so that no service uses it meanwhile.

    Raises StoreBusyError if one does, StartError if it cannot be taken.
    """
    with _explained(path):
        lock_fd = _lock(path, dir_fd)
    with descriptor(lock_fd):
        yield


def suspicion(dir_fd: int) -> Suspicion:
    """What marks the files as less than they may seem, see `Store.suspect`; empty: nothing does.

    The mark of a life that goes on counts as well. Equal as long as the marks are the same.
    """
    marks = []
    for name in (SUSPECT, BUFFERED):
        with contextlib.suppress(FileNotFoundError):
            found = os.stat(name, dir_fd=dir_fd)
            marks.append((name, found.st_ino, found.st_ctime_ns))
    return tuple(marks)


def trust(dir_fd: int) -> None:
    """Take the marks away: every file was compared with its journal line.

    The lock must be held. What was read may be in memory only yet, so all is flushed first.
    Blocks on the disk.
    """
    os.sync()
    for name in (SUSPECT, BUFFERED):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=dir_fd)
    with descriptor(open_folder(HOME, dir_fd)) as home_fd:
        flush_folder(home_fd)


def create_life(dir_fd: int, life: str) -> tuple[int, int]:
    """Make `incoming/<life>/` and lock it; returns the descriptors of the folder and of its lock.

    life: a name never used before. The caller owns both descriptors; while the second is open, in
    this process or one that inherited it, no sweep touches the folder.
    """
    with (
        descriptor(open_folder(INCOMING, dir_fd)) as incoming_fd,
        contextlib.ExitStack() as undo,
    ):
        # Shared with other lives, against a sweep: it must not see the folder before its lock.
        fcntl.flock(incoming_fd, fcntl.LOCK_SH)
        os.mkdir(life, FOLDER_MODE, dir_fd=incoming_fd)
        life_fd = open_folder(life, incoming_fd)
        undo.callback(os.close, life_fd)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        lock_fd = os.open("lock", flags, FILE_MODE, dir_fd=life_fd)
        undo.callback(os.close, lock_fd)
        fcntl.flock(lock_fd, fcntl.LOCK_EX)
        undo.pop_all()
    return life_fd, lock_fd


def remove_life(dir_fd: int, life: str) -> None:
    """Remove the folder of a life that ends in order. What is left in it, a later sweep removes."""
    with (
        contextlib.suppress(OSError),
        descriptor(open_folder(INCOMING, dir_fd)) as incoming_fd,
    ):
        with descriptor(open_folder(life, incoming_fd)) as life_fd:
            os.unlink("lock", dir_fd=life_fd)
        os.rmdir(life, dir_fd=incoming_fd)


def sweep_incoming(dir_fd: int) -> SweepReport:
    """Remove the folders of worker lives that are over: those whose lock nobody holds.

    Parts in them were never acknowledged. Blocks on the disk.
    """
    folders = parts = size = failed = 0
    with descriptor(open_folder(INCOMING, dir_fd)) as incoming_fd:
        fcntl.flock(incoming_fd, fcntl.LOCK_EX)
        for life in sorted(names_in(incoming_fd)):
            try:
                removed = _sweep_life(incoming_fd, life)
            except FileNotFoundError:
                continue  # its worker removed it meanwhile
            except OSError:
                failed += 1
                continue
            if removed is not None:
                folders += 1
                parts += removed[0]
                size += removed[1]
    return SweepReport(folders, parts, size, failed)


def _sweep_life(incoming_fd: int, life: str) -> tuple[int, int] | None:
    """Remove one folder; returns its number of parts and their bytes, None while it is in use."""
    with descriptor(open_folder(life, incoming_fd)) as life_fd:
        with contextlib.ExitStack() as held:
            # Without a lock file its maker died in between: makers are kept out by our lock.
            with contextlib.suppress(FileNotFoundError):
                lock_fd = held.enter_context(
                    descriptor(os.open("lock", os.O_RDWR | os.O_CLOEXEC, dir_fd=life_fd))
                )
                try:
                    fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    return None
            # Only now: whoever held the lock may have made parts until it died.
            names = names_in(life_fd)
            size = 0
            for name in sorted(names - {"lock"}):
                size += os.stat(name, dir_fd=life_fd, follow_symlinks=False).st_size
                os.unlink(name, dir_fd=life_fd)
            # Last: a folder that could not be emptied stays recognizable as a life that is over.
            if "lock" in names:
                os.unlink("lock", dir_fd=life_fd)
        os.rmdir(life, dir_fd=incoming_fd)
    return len(names - {"lock"}), size


# Opening -----------------------------------------------------------------------------------------


class _Identity(msgspec.Struct, frozen=True):
    """The content of store.toml."""

    id: str
    format: int
    layout: str
    suffix: str
    suffixes: tuple[str, ...] = ()


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    """An OSError, in words an operator can act on."""
    try:
        yield
    except OSError as error:
        where = error.filename if isinstance(error.filename, str) else path
        _refuse(path, str(where), error)


def _refuse(path: Path, where: str, error: OSError) -> NoReturn:
    what = f"cannot use {path} as a store: {where}: {error.strerror}"
    if error.errno in (errno.EACCES, errno.EPERM):
        owner = ""
        with contextlib.suppress(OSError):
            found = next(p for p in (path, *path.resolve().parents) if p.exists())
            there = found.stat()
            owner = f" ({found} belongs to uid {there.st_uid}, mode {there.st_mode & 0o7777:04o})"
        advice = f"this runs as uid {os.geteuid()}{owner}; let it write there"
    elif error.errno == errno.EROFS:
        advice = "the file system is mounted read-only; mount it writable"
    elif error.errno in (errno.ENOSPC, errno.EDQUOT):
        advice = "free some space"
    elif error.errno == errno.ENOTDIR:
        advice = "a part of the path is a file; name a directory with --store"
    else:
        advice = "name another directory with --store"
    raise StartError(f"{what}; {advice}") from error


def _note_life(dir_fd: int, durability: str, facts: Facts) -> bool:
    """Leave a mark for a buffered life, and read that of the one before; see `Store.suspect`.

    The mark of an unclean buffered life stays until `trust` is called.
    """
    with contextlib.suppress(FileNotFoundError):
        os.rename(BUFFERED, SUSPECT, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
    if durability == "buffered":
        with contextlib.suppress(FileExistsError):
            _create(BUFFERED, dir_fd)
    if facts.directory_flush:
        with descriptor(open_folder(HOME, dir_fd)) as home_fd:
            os.fsync(home_fd)
        os.fsync(dir_fd)
    try:
        os.stat(SUSPECT, dir_fd=dir_fd)
    except FileNotFoundError:
        return False
    return True


def _make_folders(path: Path) -> None:
    """Make `path` and what is missing above it, and flush the whole way where possible.

    What is there already may be the work of a life that was killed before it flushed it.
    """
    missing = [p for p in (path, *path.parents) if not p.exists()]
    for folder in reversed(missing):
        with contextlib.suppress(FileExistsError):
            folder.mkdir(FOLDER_MODE)
    for folder in (path, *path.parents):
        try:
            parent_fd = os.open(folder.parent, os.O_RDONLY | os.O_DIRECTORY)
        except PermissionError:
            if folder in missing:
                raise
            continue  # not ours, so not made by us
        with descriptor(parent_fd):
            flush_folder(parent_fd)


def _lock(path: Path, dir_fd: int) -> int:
    """Take the lock and write our process id into it; the descriptor holds it."""
    lock_fd = os.open(LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE, dir_fd=dir_fd)
    try:
        try:
            fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            written = os.pread(lock_fd, 32, 0).strip()
            raise StoreBusyError(str(path), int(written) if written.isdigit() else None) from None
        except OSError as error:
            raise StartError(
                f"the file system of {path} has no file locks ({error.strerror}), so two services "
                f"could write to it unnoticed; put the store on another file system"
            ) from error
        os.ftruncate(lock_fd, 0)
        os.pwrite(lock_fd, b"%d\n" % os.getpid(), 0)
        os.set_inheritable(lock_fd, True)
    except BaseException:
        os.close(lock_fd)
        raise
    return lock_fd


def _read_identity(path: Path, dir_fd: int) -> _Identity | None:
    """The content of store.toml, None if there is none."""
    try:
        fd = os.open(IDENTITY, os.O_RDONLY | os.O_CLOEXEC, dir_fd=dir_fd)
    except FileNotFoundError:
        return None
    with os.fdopen(fd, "rb") as file:
        data = file.read()
    try:
        identity = msgspec.convert(tomllib.loads(data.decode("utf-8")), _Identity)
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


def _write_identity(dir_fd: int, identity: _Identity, *, flush_directory: bool) -> None:
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


# Probing -----------------------------------------------------------------------------------------


def _probe(path: Path, dir_fd: int, durability: str, rename_noreplace: RenameNoReplace) -> Facts:
    """Try what receiving relies on, in a folder of its own. Raises StartError if it cannot work."""
    # Left-overs of a probe that was killed are nobody's: we hold the store's lock.
    folder = f"{HOME}/probe"
    with contextlib.suppress(FileExistsError):
        os.mkdir(folder, FOLDER_MODE, dir_fd=dir_fd)
    with descriptor(open_folder(folder, dir_fd)) as probe_fd:
        try:
            _empty(probe_fd)
            noreplace = _can_noreplace(probe_fd, rename_noreplace)
            link = _can_link(probe_fd)
            flush = flush_folder(probe_fd)
        finally:
            _empty(probe_fd)
            os.rmdir(folder, dir_fd=dir_fd)

    if not (noreplace or link):
        raise StartError(
            f"the file system of {path} can neither rename without replacing nor link, so an "
            f"instance could overwrite another; put the store on another file system"
        )
    if not flush and durability == "stable":
        raise StartError(
            f"the file system of {path} cannot flush a directory, so nothing stored there is sure "
            f"to survive a power cut; put the store on another one, or use --durability buffered"
        )
    file_system = _file_system(path)
    warnings = []
    if file_system in _IN_MEMORY and durability == "stable":
        warnings.append(
            f"{path} is on {file_system}, in memory: --durability stable cannot keep anything "
            f"there across a restart of this machine"
        )
    return Facts(file_system, noreplace, link, flush, tuple(warnings))


def _refuse_another_file_system(path: Path, dir_fd: int) -> None:
    """Raise StartError where no part can get its name: a mount or a subvolume lies in between."""
    # The system looks at the mounts before it looks for the name; subvolumes differ in the device.
    nothing = str(uuid.uuid4())
    apart = os.stat(INCOMING, dir_fd=dir_fd).st_dev != os.fstat(dir_fd).st_dev
    try:
        os.rename(f"{INCOMING}/{nothing}", nothing, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
    except OSError as error:
        apart = apart or error.errno == errno.EXDEV
    if apart:
        raise StartError(
            f"{path / INCOMING} is on another file system, mount or subvolume than {path}, so no "
            f"instance could be moved from there to its name; let both be on the same one"
        )


def _create(name: str, dir_fd: int) -> None:
    os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE, dir_fd=dir_fd))


def _can_noreplace(probe_fd: int, rename_noreplace: RenameNoReplace) -> bool:
    _create("a", probe_fd)
    _create("b", probe_fd)
    try:
        rename_noreplace("a", "b", src_dir_fd=probe_fd, dst_dir_fd=probe_fd)
    except FileExistsError:
        pass
    except OSError:
        return False
    else:
        return False  # it replaced
    try:
        rename_noreplace("a", "c", src_dir_fd=probe_fd, dst_dir_fd=probe_fd)
    except OSError:
        return False
    return names_in(probe_fd) == {"b", "c"}


def _can_link(probe_fd: int) -> bool:
    _create("d", probe_fd)
    try:
        os.link("d", "e", src_dir_fd=probe_fd, dst_dir_fd=probe_fd)
        os.link("d", "e", src_dir_fd=probe_fd, dst_dir_fd=probe_fd)
    except FileExistsError:
        return os.stat("d", dir_fd=probe_fd).st_ino == os.stat("e", dir_fd=probe_fd).st_ino
    except OSError:
        return False
    return False  # the second link must be refused


def _file_system(path: Path) -> str:
    """The type of the file system that holds `path`: the longest mount point above it, latest."""
    wanted = path.resolve()
    best, kind = -1, "unknown"
    try:
        mounts = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return kind
    for line in mounts.splitlines():
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        # Blanks and backslashes stand in octal there.
        point = fields[1]
        for octal, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
            point = point.replace(octal, char)
        depth = len(Path(point).parts)
        if wanted.is_relative_to(point) and depth >= best:
            best, kind = depth, fields[2]
    return kind


def _empty(dir_fd: int) -> None:
    for name in names_in(dir_fd):
        os.unlink(name, dir_fd=dir_fd)
