"""An instance whose path is taken: is it the same, and if not, what becomes of it.

Runs off the event loop: it reads both files. Other workers may be at the same path; a store-wide
lock, chosen by the path, makes them take turns until the journal line is written. Whatever gives a
name takes it, the commit of an instance that is new, too.
Nothing here waits: what cannot be decided yet is to be tried again.
"""

from __future__ import annotations

import contextlib
import errno
import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Protocol

import zstandard

from fastscp.errors import reason_for
from fastscp.store.compress import twin
from fastscp.store.contents import Content, Contents, Identity
from fastscp.store.index import IndexPendingError
from fastscp.store.journal import find_path
from fastscp.store.names import PATH_LOCKS, exists, holder, make_way, open_file, shut, status_at
from fastscp.store.reading import difference, is_checked, open_data_set
from fastscp.store.replaced import is_in, where
from fastscp.store.unflushed import Marks
from fastscp.store.waits import Batches, Doubt, NotYetError, lock_of, take_lock, turn_of
from fastscp_ext import crc32c, rename_noreplace, status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fastscp.store.index import IndexedJournal
    from fastscp.store.reading import DataSet
    from fastscp.store.restore import Replaced, Settlement

__all__ = ["Batches", "Doubts", "Outcome", "Resolution", "vouched"]

_LAST_VERSION: Final = 9
# As many bytes as the codec keeps of a path.
_PATH_MOST: Final = 2047
# Two files that differ within so many bytes are told apart again as fast as by what is remembered.
_SOON: Final = 4 << 20


class Doubts(Protocol):
    """What could not be flushed, in any worker; `fastscp_ext.Doubts`."""

    def doubt(self, path: str, /) -> bool: ...
    def doubts(self, path: str, /) -> bool: ...


@dataclass(frozen=True)
class Outcome:
    """What was decided.

    kind: named (it was free after all), identical, version, replaced or kept, with `path` where the
    instance is now; or refused, with `status` and `comment`, None: what the error says, and no
    more. lock_fd: to be closed once the decision is journaled, -1: none. error_no: of the call that
    failed; with replaced, of the flush of the file that was there; why: in words, where `path` is
    what was in the way of replacing.
    """

    kind: str
    path: str
    lock_fd: int = -1
    status: int = status.SUCCESS
    comment: bytes | None = None
    error_no: int = 0
    why: str = ""


class _NotFlushedError(OSError):
    """A flush failed; the next one would succeed, and mean nothing."""


# Deciding ----------------------------------------------------------------------------------------


class Resolution:
    """The way from an instance whose path is taken to an outcome.

    mixed: the store has compressed and uncompressed files; either form of a name takes it. suspect:
    where a file may have lost what was never flushed, the batches under way; a file that no journal
    line vouches for is replaced, whatever the policy, once none of those is left that may have
    named it; under the policy version only if no later version is the same as the part. None: files
    are what they seem. journal: where such lines are looked for faster than in all of it, once it
    is ready. digest: of the part's data set as in its journal line, "" if it has none. contents:
    what is known of the files in the store. doubts: files that may not be on the disk; the part
    takes the place of an identical one. None: nobody keeps them. replaced: keeps what the part
    takes the place of. Where the outcome is replaced, whoever has the lock settles that before it
    gives the lock back.
    """

    def __init__(
        self,
        store_fd: int,
        incoming_fd: int,
        part: str,
        path: str,
        *,
        policy: str,
        durable: bool,
        replaced: Replaced,
        use_link: bool = False,
        mixed: bool = False,
        suspect: Batches | None = None,
        journal: IndexedJournal | None = None,
        digest: str = "",
        contents: Contents | None = None,
        doubts: Doubts | None = None,
    ) -> None:
        self.path = path
        self._store_fd = store_fd
        self._incoming_fd = incoming_fd
        self._part = part
        self._policy = policy
        self._durable = durable
        self._replaced = replaced
        self._left: Settlement | None = None
        self._give = _link if use_link else rename_noreplace
        self._mixed = mixed
        self._suspect = suspect
        self._journal = journal
        self._digest = digest
        self._contents = contents or Contents()
        self._doubts = doubts
        self._ours: Content | None = None
        self._lock_fd = -1
        # Files that have no line yet, and by what they are judged once that is certain.
        self._open: dict[str, Doubt] = {}
        # Whether it waits for the journal's index: it looks at no file, and has no lock.
        self.awaits_index = False
        # Whether a file is vouched for; that one is not holds for as long as the lock is held.
        self._judged: dict[str, bool] = {}
        # The first version that nothing vouches for, if any, and which of its forms are there.
        self._void: tuple[str, list[str]] | None = None
        self._flush_error = 0

    def attempt(self) -> Outcome | None:
        """Compare the part with what is at the path and carry out the policy.

        None: not yet, try again soon; another one has the path's lock, a line is on its way, or
        `awaits_index`. The part is gone afterwards where the outcome is version or replaced. Never
        raises OSError: a failure is an outcome. Blocks on the disk, and on nothing else.
        """
        try:
            self._await_index()
        except NotYetError:
            return None
        except OSError as error:
            return Outcome(
                "refused", self.path, status=status.OUT_OF_RESOURCES,
                error_no=error.errno or errno.EIO,
            )  # fmt: skip
        try:
            if self._lock_fd < 0:
                self._lock_fd = take_lock(self._store_fd, lock_of(self.path), turn_of(self.path))
        except NotYetError:
            return None
        except OSError as error:
            return Outcome(
                "refused", PATH_LOCKS, status=status.OUT_OF_RESOURCES,
                error_no=error.errno or errno.EIO,
            )  # fmt: skip
        self._void = None
        try:
            outcome = self._decide()
        except NotYetError:
            if self.awaits_index:
                # Nothing is decided, and others with this path may need no line.
                self._unlock()
            return None
        except OSError as error:
            self._unlock()
            path, why = self.path, ""
            if is_in(error.filename):
                path, why = error.filename, reason_for(error)
            return Outcome(
                "refused", path, status=status.OUT_OF_RESOURCES,
                error_no=error.errno or errno.EIO, why=why,
            )  # fmt: skip
        except BaseException:
            self._unlock()
            raise
        if outcome.kind == "refused":
            self._unlock()
            return outcome
        return replace(outcome, lock_fd=self._lock_fd)

    def _unlock(self) -> None:
        self._judged.clear()
        fd, self._lock_fd = self._lock_fd, -1
        if fd >= 0:
            shut(fd)

    def _decide(self) -> Outcome:
        """Raises NotYetError."""
        for version in range(1, _LAST_VERSION + 1):
            name = self.path if version == 1 else f"{self.path}~{version}"
            self._settle_left(name)
            forms = (name, twin(name)) if self._mixed else (name,)
            there = [form for form in forms if exists(form, self._store_fd)]
            if self._void and not there:
                break
            there = there or [name]
            if any(len(os.fsencode(form)) > _PATH_MOST for form in there):
                break
            if there == [name] and self._named(name):
                # It went meanwhile, or is a version not yet given: the name is free.
                return Outcome("version" if version > 1 else "named", name)
            with self._as_found(there):
                outcome = self._decide_at(name, there)
            if outcome is not None:
                return outcome
        if self._void:
            with self._as_found(self._void[1]):
                return self._displace(*self._void)
        return Outcome(
            "refused", self.path, -1, status.CANNOT_UNDERSTAND, b"too many versions of this UID"
        )

    @contextlib.contextmanager
    def _as_found(self, there: list[str]) -> Iterator[None]:
        """Look at everything anew where a file goes away that is being decided of.

        Whoever removed it takes no locks, and may have taken the folder, too. there: the forms that
        were found. Raises NotYetError, and OSError where something else is missing.
        """
        try:
            yield
        except FileNotFoundError:
            if all(exists(form, self._store_fd) for form in there):
                raise
            raise NotYetError from None

    def _decide_at(self, name: str, there: list[str]) -> Outcome | None:
        """Decide where something has the name or its other form; None: see the next version.

        there: the forms that are taken, one or both. Raises NotYetError.
        """
        unsure = []
        for form in there:
            if not self._is_identical(form):
                continue
            # Where instances are flushed, so is a file that is there: it may be another worker's,
            # named but not flushed into its directory yet.
            if self._is_sure(form):
                return Outcome("identical", form)
            unsure.append(form)
        # Only what has the name itself would be lost. So an instance takes the place of nothing as
        # long as any form is vouched for: the policy decides for that one.
        if name in unsure or self._policy == "replace":
            return self._displace(name, there)
        if self._void:
            return None
        stays = next((form for form in there if form not in unsure and self._is_trusted(form)), "")
        if not stays and self._policy == "version":
            # A later version may be identical, and the part is not to be there twice.
            self._void = name, there
            return None
        if not stays:
            return self._displace(name, there)
        if self._policy == "keep":
            # The response tells the sender that the existing file is kept, and a buffered life
            # may have written that file without a flush.
            if not self._is_sure(stays):
                return Outcome(
                    "refused", stays, -1, status.OUT_OF_RESOURCES,
                    b"existing instance may not be on the disk", self._flush_error,
                )  # fmt: skip
            return Outcome("kept", stays)
        if self._policy == "refuse":
            return Outcome(
                "refused", stays, -1, status.CANNOT_UNDERSTAND,
                b"another instance has this UID",
            )  # fmt: skip
        return None

    def _displace(self, name: str, there: list[str]) -> Outcome:
        """The part takes the name, whatever is there. Raises NotYetError."""
        if not self._durable:
            # What it takes the place of may be on stable storage: a power cut leaves one of both,
            # whole.
            _flush(self._part, self._incoming_fd)
        # A file in the other form stays beside it: it may have been acknowledged, and the journal's
        # higher sequence number says which one counts.
        if name in there:
            self._replace(name)
        elif not self._named_beside(name, there[0]):
            # Somebody who takes no locks gave the name meanwhile: what it has is judged first.
            raise NotYetError
        return Outcome("replaced", name, error_no=self._flush_error)

    def _settle_left(self, name: str) -> None:
        """End the replacement that a worker left at the name when it died. Raises NotYetError.

        Where there are two forms, one that was left at the other is none to compare with.
        """
        if self._mixed and self._replaced.left_at(twin(name)) is not None:
            raise OSError(
                errno.ENOTRECOVERABLE, os.strerror(errno.ENOTRECOVERABLE), where(twin(name))
            )
        self._left = self._left or self._replaced.left_at(name)
        if self._left is None:
            return
        if self._left.attempt() is None:
            raise NotYetError
        self._left = None

    def _replace(self, name: str) -> None:
        """The part takes the name of a file, whose content is kept until this one's line is there.

        At every moment one of both has the name, whole.
        """
        # It may be a buffered one, and may have to stand for the path again. One that cannot be
        # flushed is kept as it is: it is in doubt from now on, and the newer one is flushed.
        is_doubtful = self._doubts is not None and self._doubts.doubts(name)
        if not is_doubtful:
            is_doubtful = not self._is_flushed(name)
        self._replaced.keep(name, lock_of(self.path), doubtful=is_doubtful)
        try:
            with holder(name, self._store_fd) as (folder_fd, base):
                os.rename(self._part, base, src_dir_fd=self._incoming_fd, dst_dir_fd=folder_fd)
        except OSError:
            self._replaced.failed(name)
            raise
        self._remember(name)

    def _named_beside(self, name: str, other: str) -> bool:
        """Whether the part has the name now, beside its other form, that counts until it is kept.

        False: something has that name.
        """
        if exists(name, self._store_fd):
            return False
        inode = status_at(self._part, self._incoming_fd).st_ino
        self._replaced.keep(name, lock_of(self.path), beside=other, inode=inode)
        try:
            is_named = self._named(name)
        except (OSError, NotYetError):
            self._replaced.failed(name)
            raise
        if not is_named:
            self._replaced.failed(name)
        return is_named

    def _named(self, name: str) -> bool:
        """Whether the part has the name now; False: something has it.

        Raises NotYetError: the folder had gone, and is there again.
        """
        try:
            with holder(name, self._store_fd) as (folder_fd, base):
                self._give(self._part, base, src_dir_fd=self._incoming_fd, dst_dir_fd=folder_fd)
        except FileExistsError:
            return False
        except FileNotFoundError:
            if not exists(self._part, self._incoming_fd):
                raise
            # Somebody who takes no locks removed it, with what else was found there.
            make_way(name, self._store_fd)
            raise NotYetError from None
        self._remember(name)
        return True

    def _remember(self, name: str) -> None:
        """The part has become a file of the store."""
        # Whoever removes it at once leaves nothing to be remembered.
        if self._ours is not None:
            with contextlib.suppress(FileNotFoundError):
                self._contents.remember(name, Identity.of(self._store_fd, name), self._ours)

    # Comparing -----------------------------------------------------------------------------------

    def _is_identical(self, path: str) -> bool:
        """Whether both hold the same data set in the same transfer syntax.

        The header may differ, and so may the compression.
        """
        identity = Identity.of(self._store_fd, path)
        try:
            known = self._contents.of(path, identity)
            if known is not None and self._differs_from(known):
                return False
            if not self._has_same_bytes(path, identity):
                return False
        except zstandard.ZstdError:
            # What was stored is damaged: it must not keep its resend away for ever.
            return False
        return True

    def _is_sure(self, path: str) -> bool:
        """Whether a file that is there is on the disk; it is flushed where instances are.

        No other flush of it counts after one that failed, nor after one of its folder that did.
        """
        if self._doubts is not None and self._doubts.doubts(path):
            return False
        return not self._durable or self._is_flushed(path)

    def _is_flushed(self, path: str) -> bool:
        """Flush a file that is there; where that fails, it is in doubt from now on."""
        try:
            _flush(path, self._store_fd)
        except _NotFlushedError as error:
            if self._doubts is None:
                raise
            self._flush_error = error.errno or errno.EIO
            self._doubts.doubt(path)
            # As long as the service lives it is known anyway.
            with contextlib.suppress(OSError):
                Marks(self._store_fd).leave("file", path, self._flush_error)
            return False
        return True

    def _differs_from(self, known: Content) -> bool:
        """Whether the part differs for certain, by what is known of the file."""
        ours = self._content()
        if ours is None:
            return False
        if ours.differs_in_size(known):
            return True
        if known.crc is None:
            return False
        if ours.crc is None:
            ours = self._ours = ours._replace(crc=self._checksum())
        return ours.crc != known.crc

    def _content(self) -> Content | None:
        """What the part holds, without reading all of it; None: it has no header."""
        if self._ours is None:
            with open_data_set(self._part, self._incoming_fd) as data:
                self._ours = self._content_of(data)
        return self._ours

    def _content_of(self, data: DataSet | None) -> Content | None:
        """What the part holds, which was opened."""
        if data is None:
            return None
        form, _colon, value = self._digest.partition(":")
        crc = int(value, 16) if form == "crc32c" else None
        return Content(data.transfer_syntax, data.size, crc)

    def _checksum(self) -> int:
        with open_data_set(self._part, self._incoming_fd) as data:
            return 0 if data is None else _checksum(data.chunks)

    def _has_same_bytes(self, path: str, identity: Identity) -> bool:
        with (
            open_data_set(self._part, self._incoming_fd) as mine,
            open_data_set(path, self._store_fd) as yours,
        ):
            ours = self._ours = self._ours or self._content_of(mine)
            if ours is None or mine is None or yours is None:
                return False
            theirs = Content(yours.transfer_syntax, yours.size)
            # Length is compared before anything else is read.
            same, crc = False, None
            if not ours.differs_in_size(theirs):
                same, crc = _compare(mine.chunks, yours.chunks)
        if same:
            self._ours = ours._replace(crc=crc)
        if identity == Identity.of(self._store_fd, path):
            self._contents.remember(path, identity, theirs._replace(crc=crc))
        return same

    # After an unclean buffered life --------------------------------------------------------------

    def _is_trusted(self, path: str) -> bool:
        """Whether a journal line vouches for the file, or one that was on its way does.

        The path's lock is held, also between attempts. It does not keep the commit of an older
        version, beside which this one takes over, from giving the free name, whose line comes some
        flushes later: a file without a line is judged only when every batch that may have named it
        has ended. A later batch cannot have: the name was taken.
        Raises NotYetError: such a batch is under way, or the index is being built. Raises OSError:
        it takes too long.
        """
        if self._suspect is None:
            return True
        if path not in self._judged:
            if path not in self._open and not self._is_vouched(path):
                self._open[path] = Doubt(self._suspect)
            if path in self._open:
                self._open[path].look()
                del self._open[path]
                self._judged[path] = self._is_vouched(path)
            else:
                self._judged[path] = True
        return self._judged[path]

    def _is_vouched(self, path: str) -> bool:
        find = find_path if self._journal is None else self._journal.find_path
        try:
            return vouched(self._store_fd, path, find)
        except IndexPendingError:
            self.awaits_index = True
            self._await_index()
            raise NotYetError from None

    def _await_index(self) -> None:
        """Raise NotYetError while the index that is needed is being built; OSError: too long."""
        if self.awaits_index and self._journal is not None:
            if not self._journal.await_built(self):
                raise NotYetError
            self.awaits_index = False


def _flush(name: str, dir_fd: int) -> None:
    """Raises _NotFlushedError, and OSError where the file cannot be opened."""
    fd = open_file(name, dir_fd)
    try:
        os.fsync(fd)
    except OSError as error:
        raise _NotFlushedError(error.errno, error.strerror) from error
    finally:
        os.close(fd)


def _link(old: str, new: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
    """`rename_noreplace` where the file system has none."""
    os.link(old, new, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd, follow_symlinks=False)
    os.unlink(old, dir_fd=src_dir_fd)


def _checksum(chunks: Iterator[bytes], crc: int = 0) -> int:
    """CRC-32C of what is left, after what `crc` stands for."""
    for chunk in chunks:
        crc = crc32c(chunk, crc)
    return crc


def _compare(ours: Iterator[bytes], theirs: Iterator[bytes]) -> tuple[bool, int | None]:
    """Whether both give the same bytes, however they are cut; and the CRC-32C of the second.

    None: they differ so soon that to read on would cost more than it saves.
    """
    mine = yours = b""
    done = crc = 0
    while True:
        mine = mine or next(ours, b"")
        if not yours:
            yours = next(theirs, b"")
            crc = crc32c(yours, crc)
        size = min(len(mine), len(yours))
        if not size or mine[:size] != yours[:size]:
            if size and done < _SOON:
                return False, None
            return len(mine) == len(yours) == 0, _checksum(theirs, crc)
        done += size
        mine, yours = mine[size:], yours[size:]


def vouched(
    store_fd: int, path: str, find: Callable[[int, str], dict[str, Any] | None] = find_path
) -> bool:
    """Whether the file is what its journal line says, after an unclean buffered life.

    The line of a stable instance was written when its file was flushed: that says enough. The
    digest of a buffered one is compared with the file; without one it says no more than a length,
    and of contents that were never written the length is often right. A line that was written from
    the file itself, after such a life, says nothing of what was sent. find: finds the line as
    `find_path` does.
    """
    fact = find(store_fd, path)
    if fact is None or fact.get("suspect"):
        return False
    if fact.get("durability") != "buffered":
        return True
    digest = fact.get("digest", "")
    return is_checked(digest) and not difference(store_fd, path, fact["bytes"], digest)
