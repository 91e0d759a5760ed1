"""What fastscp raises on purpose, each with what the outside sees of it."""

from __future__ import annotations

import errno
import os
from typing import Final

__all__ = [
    "BootError",
    "ConfigError",
    "FastscpError",
    "StartError",
    "StoreBusyError",
    "StoreError",
    "reason_for",
    "words_of",
]

# What the system has another word for than statuses and counters have.
_NAMES: Final = {errno.ENOSPC: "disk full", errno.EDQUOT: "quota exceeded"}


def reason_for(error: OSError | int) -> str:
    """Why a call failed, or what its error number means, by the name that it has everywhere."""
    if isinstance(error, int):
        return _NAMES.get(error) or os.strerror(error)
    return _NAMES.get(error.errno or 0) or error.strerror or str(error)


def words_of(error: BaseException) -> str:
    """What an error says: one of the system by `reason_for`, behind the file that it is of."""
    if not isinstance(error, OSError):
        return str(error)
    where = f"{error.filename}: " if isinstance(error.filename, str) else ""
    return f"{where}{reason_for(error)}"


class FastscpError(Exception):
    """Base of every error below. `exit_code`: what the program ends with if it gets that far."""

    exit_code = 1


class ConfigError(FastscpError):
    """A setting that cannot be used: exit 2, before any process starts.

    option: where the value was given, as the operator wrote it (`--port`, `FASTSCP_PORT`,
    `site.toml: port`). why: what was tried, why it cannot be, what to write instead. mistakes: all
    that were found at once, this one first among them, each as a line; by default it is alone.
    """

    exit_code = 2

    def __init__(self, option: str, why: str, mistakes: tuple[str, ...] = ()) -> None:
        # All go to the base class, so the error survives pickling between processes.
        super().__init__(option, why, mistakes)
        self.option = option
        self.why = why
        self.mistakes = mistakes or (f"{option}: {why}",)

    def __str__(self) -> str:
        return f"{self.option}: {self.why}"


class StartError(FastscpError):
    """The configuration is sound, but the service cannot start here: exit 3."""

    exit_code = 3


class StoreBusyError(StartError):
    """Another process holds the store's lock.

    pid: what it wrote there, None if unreadable. is_gone: that process is over, so its workers hold
    the lock. is_command: it is no service, and ends by itself.
    """

    def __init__(
        self, path: str, pid: int | None, is_gone: bool = False, is_command: bool = False
    ) -> None:
        super().__init__(path, pid, is_gone, is_command)
        self.path = path
        self.pid = pid
        self.is_gone = is_gone
        self.is_command = is_command

    def __str__(self) -> str:
        if self.is_gone:
            return (
                f"the store {self.path} is in use: its main process ({self.pid}) is gone, its "
                f"workers still hold the store: wait a moment and try again; if they stay, look "
                f"for `fastscp: worker` processes and check the disk"
            )
        holder = f"process {self.pid}" if self.pid is not None else "another process"
        if self.is_command:
            return (
                f"the store {self.path} is in use by {holder}, a command such as `fastscp verify` "
                f"or `fastscp recover`: wait until that has ended, and try again"
            )
        return (
            f"the store {self.path} is in use by {holder}; "
            f"stop that service, or give this one its own --store"
        )


class BootError(StartError):
    """A worker could not begin to work at the start; one that fails later is tried again."""


class StoreError(FastscpError):
    """An instance cannot be kept. The association lives; the peer gets `status` and `comment`.

    status: DIMSE status of the C-STORE-RSP. comment: Error Comment (0000,0902), plain ASCII.
    Source: PS3.4 B.2.3.
    """

    def __init__(self, status: int, comment: str) -> None:
        super().__init__(status, comment)
        self.status = status
        self.comment = comment

    def __str__(self) -> str:
        return f"{self.status:04X}: {self.comment}"
