"""Which limit of this process keeps it from starting a thread: the interpreter does not tell."""

from __future__ import annotations

import errno
import re
import resource
from pathlib import Path
from typing import Final

__all__ = ["no_thread"]

# Limits that a thread's stack counts against, what of the process does, and how they are raised.
_OF_MEMORY: Final = (
    (resource.RLIMIT_AS, "VmSize", "the limit of address space (ulimit -v, LimitAS= of systemd)"),
    (resource.RLIMIT_DATA, "VmData", "the limit of data (ulimit -d, LimitDATA= of systemd)"),
)
_OF_NUMBER: Final = "the limit of processes and threads (ulimit -u, TasksMax= of systemd, pids.max)"
# Of a thread, where the stack has no limit (pthread_create(3)).
_STACK: Final = 2 << 20


def no_thread(purpose: str, error: RuntimeError) -> OSError:
    """What to raise where a thread cannot be started: EAGAIN, and which limit to raise.

    purpose: `to compare`, `for stat`.
    """
    return OSError(
        errno.EAGAIN, f"cannot start a thread {purpose} ({error}); raise {_what_is_short()}"
    )


def _what_is_short() -> str:
    stack = resource.getrlimit(resource.RLIMIT_STACK)[0]
    needed = _STACK if stack == resource.RLIM_INFINITY else stack
    for limit, name, how in _OF_MEMORY:
        most = resource.getrlimit(limit)[0]
        if most != resource.RLIM_INFINITY and _used(name) + needed > most:
            return how
    return _OF_NUMBER


def _used(name: str) -> int:
    """Bytes that the process has of one kind of memory; 0 where that cannot be seen."""
    try:
        status = Path("/proc/self/status").read_text("ascii", "replace")
    except OSError:
        return 0
    found = re.search(rf"^{name}:\s+(\d+) kB$", status, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0
