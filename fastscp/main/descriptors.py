"""How many open files the service needs at worst, main and one worker each, and what fits.

Everything that holds a descriptor has a bound; the sum stands here and nowhere else. A worker
counts for all associations, for all of them may end up in one.
"""

from __future__ import annotations

import resource
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from fastscp.admin.control import CONNECTIONS_MOST
from fastscp.admin.listener import HTTP_CONNECTIONS_MOST, PAGES_MOST
from fastscp.config.tables import AeTable, Tables
from fastscp.errors import ConfigError
from fastscp.main.acceptor import AT_ONCE
from fastscp.main.admission import PENDING_MOST
from fastscp.main.dispatch import OFFERED_MOST, TURNED_AWAY_MOST, WAITING_MOST
from fastscp.main.places import NEWCOMERS_MOST
from fastscp.store.leftovers import AT_ONCE as SETTLED_AT_ONCE

if TYPE_CHECKING:
    from fastscp.config.settings import ServeConfig

__all__ = [
    "REDO_MOST", "associations_allowed", "log_needs", "main_needs", "redo_files_allowed",
    "redo_files_wanted", "worker_needs",
]  # fmt: skip

# Standard streams, the event loop's own, channel, shared block, store, locks, journal files, and
# what is open for a moment: well above what either process was seen to have.
_FIXED: Final = 64
# Main, per worker: both ends of its channel and the pipes of its start.
_PER_WORKER: Final = 4
# Main, per address to listen on, which a name may be two of: the socket, and three in reserve.
_PER_HOST: Final = 8
# A worker, per association: its socket, and the part of the instance that is being received. The
# part stays counted here when it is complete: only then the association is held, if too many are.
_PER_ASSOCIATION: Final = 2
# A worker reads so many messages of main in one go; the one that closes a connection may be behind
# those that bring others.
_MESSAGES: Final = 64
# Instances of one durability that are complete and not settled (UNCOMMITTED_MOST): each has its
# part open or, if it is a duplicate that was compared, the lock of its path.
_UNCOMMITTED: Final = 256
# Parts that were dropped and not closed yet; and, where nothing is flushed, as many locks of paths.
_LEFTOVERS: Final = 256
# Instances of one batch (BATCH_MOST). All of their directories are open at once.
_BATCH: Final = 256
# Helper threads of a worker: they compare, settle what was replaced, and compress. And what one has
# open: two files, their folder and that of the moment, a lock, and a journal file or a flush.
_HELPERS: Final = 6
_PER_HELPER: Final = 6
# Directories that are kept open to name files in them, where none is flushed (OPEN_MOST).
_PARENTS: Final = 64
# The redo log keeps a part open until its checkpoint; with fewer than the least it is not worth it.
REDO_MOST: Final = 4096
_REDO_LEAST: Final = 64
# Of all open files, where associations may have the rest.
_REDO_SHARE: Final = 1 / 8
# Its files (LOG_FILES): each keeps open the journal file that its lines are in. And two more: one
# that lines go to, and what is open for a moment.
_REDO_FILES: Final = 8
_REDO_MORE: Final = 2
# Directories of instances that a checkpoint flushes side by side (FOLDERS_AT_ONCE), beside those
# above them.
_REDO_FOLDERS: Final = 32
# Where the system has no limit: far more associations than one process can serve.
_NO_LIMIT: Final = 1 << 20


def main_needs(config: ServeConfig) -> int:
    """Open files of main at worst: it holds no association, only connections on their way.

    And the locks of paths, while it settles what a dead worker had in hand.
    """
    hosts = len(config.host) * (2 if config.tls_cert and not config.no_plain else 1)
    return (
        _FIXED
        + _PER_WORKER * config.workers
        + (_PER_HOST + AT_ONCE) * hosts
        + OFFERED_MOST
        + WAITING_MOST
        + TURNED_AWAY_MOST
        + CONNECTIONS_MOST
        + (HTTP_CONNECTIONS_MOST + PAGES_MOST + 1 if config.admin else 0)
        + SETTLED_AT_ONCE
    )


def worker_needs(config: ServeConfig, associations: int, redo_files: int = 0) -> int:
    """Open files of a worker at worst, if it has so many associations.

    redo_files: parts that it may keep open for its redo log; 0: it has none.
    """
    durabilities = {durability for _layout, durability in _kinds(config)}
    unlocking = _LEFTOVERS if "buffered" in durabilities else 0
    return (
        _FIXED
        + _PER_ASSOCIATION * associations
        + PENDING_MOST
        + NEWCOMERS_MOST
        + _MESSAGES
        + _UNCOMMITTED * len(durabilities)
        + _LEFTOVERS
        + unlocking
        + _HELPERS * _PER_HELPER
        + _directories(config, _BATCH)
        + _PARENTS
        + log_needs(config, redo_files)
    )


def log_needs(config: ServeConfig, redo_files: int) -> int:
    """Open files of a worker's redo log that keeps so many parts open; 0: it has no such log."""
    return redo_files + _redo_beside(config) if redo_files else 0


def _redo_beside(config: ServeConfig) -> int:
    """What the log has open beside the parts: also the directories that it names files in."""
    return 2 * _REDO_FILES + _REDO_MORE + _PARENTS + _directories(config, _REDO_FOLDERS)


def _directories(config: ServeConfig, most: int) -> int:
    """Those of so many instances, and all above them: they are flushed side by side."""
    levels = [layout.count("/") for layout, durability in _kinds(config) if durability == "stable"]
    return most * max(levels) + 1 if levels else 0


def _kinds(config: ServeConfig) -> set[tuple[str, str]]:
    """How instances are stored: the layouts and durabilities that come together."""
    tables = ({}, *(table.values for table in config.tables.ae))
    return {
        (values.get("layout", config.layout), values.get("durability", config.durability))
        for values in tables
    }


def redo_files_wanted(config: ServeConfig) -> int:
    """How many parts a worker keeps open for its redo log where the system grants enough."""
    is_off = config.redo == "off" or not config.log_instance_size or config.discard
    return 0 if is_off or "stable" not in {one for _layout, one in _kinds(config)} else REDO_MOST


def redo_files_allowed(config: ServeConfig) -> int:
    """How many parts a worker may keep open for its redo log; 0: it has none.

    The log gets what the associations leave, for it is a matter of speed alone.
    """
    if not redo_files_wanted(config):
        return 0
    _hard, files = _limit()
    if config.max_associations:
        left = files - worker_needs(config, config.max_associations)
    else:
        left = min(int(files * _REDO_SHARE), files - worker_needs(config, 1))
    allowed = min(REDO_MOST, left - _redo_beside(config))
    return allowed if allowed >= _REDO_LEAST else 0


def _limit() -> tuple[int, int]:
    """Of open files: as the system has it, and as a number to go by."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return hard, _NO_LIMIT if hard == resource.RLIM_INFINITY else hard


def associations_allowed(config: ServeConfig, redo_files: int | None = None) -> int:
    """Take all descriptors that the system grants; returns the number of associations to allow.

    That is `--max-associations` or, where this is 0, as many as there are open files for.
    redo_files: parts that workers which live already keep open for their redo log; None: they are
    still to be started, and get what is left. Raises ConfigError if what is asked for does not fit.
    """
    hard, files = _limit()
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    asked = config.max_associations
    kept = redo_files or 0
    if redo_files is None and not asked:
        kept = redo_files_allowed(config)
    room = (files - worker_needs(config, 0, kept)) // _PER_ASSOCIATION
    needed = max(main_needs(config), worker_needs(config, asked or 1, kept))
    if needed > files and hard != resource.RLIM_INFINITY:
        advice = _advice(config, files, room)
        raise ConfigError(
            "--max-associations",
            f"having {asked or 1} at a time takes {needed} open files, the limit is {hard}; raise "
            f"it (ulimit -Hn, LimitNOFILE=){advice}",
        )
    return asked or room


def _advice(config: ServeConfig, files: int, room: int) -> str:
    """What else helps than a higher limit, with ", or " in front; empty: nothing does.

    files: the limit. room: for so many associations there is some in a worker, or less than none.
    """
    wanted = []
    if main_needs(config) > files:
        if main_needs(replace(config, workers=1)) > files:
            return ""
        wanted.append("use fewer workers")
    if room < 1:
        if worker_needs(_flat(config), 1) > files:
            return ""
        wanted.append("use a layout of fewer levels")
    elif not wanted or worker_needs(config, config.max_associations) > files:
        wanted.append(f"allow at most {room}")
    return f", or {' and '.join(wanted)}"


def _flat(config: ServeConfig) -> ServeConfig:
    """The same with all instances in one folder."""
    flat = "{SOPInstanceUID}.dcm"
    ae = tuple(AeTable(one.title, {**one.values, "layout": flat}) for one in config.tables.ae)
    return replace(config, layout=flat, tables=Tables(ae, config.tables.senders))
