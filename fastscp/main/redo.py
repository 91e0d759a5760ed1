"""Whether the workers keep a redo log; decided once, at the start."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from fastscp.config.quantities import Size
from fastscp.store.mounts import Mounted, mounted

if TYPE_CHECKING:
    from fastscp.main.prepared import Prepared
    from fastscp.store.store import Store

__all__ = ["NO_REDO", "Redo", "decide", "say"]

log = logging.getLogger("fastscp.main")

# Where it is known what a flush of a log that is written over costs, and what a power cut leaves.
_FILE_SYSTEMS: Final = ("ext4", "xfs", "btrfs")


@dataclass(frozen=True)
class Redo:
    """What was decided.

    bytes: the largest part that goes to the log; 0: there is none. files: how many parts a worker
    may keep open for it. why: for the log. mounted: which time it is that the store is mounted.
    """

    bytes: int
    files: int
    why: str
    mounted: Mounted

    @property
    def is_on(self) -> bool:
        return self.bytes > 0


NO_REDO: Final = Redo(0, 0, "off", Mounted("", ""))


def decide(
    prepared: Prepared, store: Store, files: int, wanted: int, *, beside_older: bool
) -> Redo:
    """Decide it. Blocks on the disk for a moment.

    files: how many parts a worker may keep open for it, 0: too few are left; wanted: how many it
    could use. beside_older: workers of a version that claims no path before it names something
    there live on.
    """
    config = prepared.config
    try:
        now = mounted(store.dir_fd)
        why = ""
    except OSError as error:
        now = NO_REDO.mounted
        why = f"the system does not tell which boot and mount this is ({error.strerror})"
    if not files:
        why = (
            "too few open files are left for it: raise the limit (ulimit -Hn, LimitNOFILE=), or "
            "lower --max-associations"
        )
    if config.redo == "auto" and store.facts.file_system not in _FILE_SYSTEMS:
        known = f"{', '.join(_FILE_SYSTEMS[:-1])} or {_FILE_SYSTEMS[-1]}"
        why = f"the store is on {store.facts.file_system}, not on {known}"
    if not store.facts.noreplace:
        why = "the file system has no rename that never replaces"
    if beside_older:
        why = "workers of an older version, which do not lock paths, live on beside it"
    if "stable" not in prepared.durabilities:
        why = "nothing is stored with --durability stable"
    if config.discard:
        why = "nothing is stored with --discard"
    if not config.log_instance_size:
        why = "--log-instance-size is 0"
    if config.redo == "off":
        why = "--redo off"
    if why:
        return Redo(0, 0, f"off: {why}", now)
    size = Size().show(config.log_instance_size)
    why = f"on, for stable instances whose file has at most {size}"
    if files < wanted:
        why += (
            f"; a worker may keep {files:,} of {wanted:,} files open for it, and stores more "
            f"at a time without it: raise the limit (ulimit -Hn, LimitNOFILE=)"
        )
    return Redo(config.log_instance_size, files, why, now)


def say(redo: Redo, asked: str) -> None:
    """Let the log tell what was decided. asked: what --redo says."""
    level = logging.WARNING if asked == "on" and not redo.is_on else logging.INFO
    log.log(level, "redo log: %s", redo.why)
