"""What the commands to a running service have in common: the way to it, and figures for people."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from fastscp.cli.options import store_directory
from fastscp.errors import FastscpError

if TYPE_CHECKING:
    from pathlib import Path

    from fastscp.admin.client import ControlClient

__all__ = ["duration", "moment", "running_service", "service_of"]

_UNITS: Final = ((86400, "d"), (3600, "h"), (60, "min"))


def running_service(store: str | None, config: str | None) -> ControlClient:
    """A connection to the service of the store that serve would use with the same options.

    Raises ConfigError, NotRunningError (exit 3) and ControlSocketError.
    """
    return service_of(store_directory(store, config))


def service_of(path: Path) -> ControlClient:
    """A connection to the service of the store that is there.

    Raises NotRunningError (exit 3) and ControlSocketError.
    """
    from fastscp.admin.client import ControlClient, NotRunningError
    from fastscp.store.access import lock_holder
    from fastscp.store.names import HOME

    try:
        return ControlClient(path / HOME)
    except NotRunningError:
        pid = lock_holder(path)
        if pid is None:
            raise
    raise FastscpError(
        f"process {pid} uses the store {path}, and has no control socket: it is starting, or is a "
        f"command such as `fastscp verify`; else its log says why (`no control socket`)"
    )


def duration(seconds: float) -> str:
    """For people, in the two largest units: `3 h 12 min`, `12.4 s`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    parts: list[str] = []
    left = int(seconds)
    for size, unit in _UNITS:
        if left >= size or parts:
            parts.append(f"{left // size} {unit}")
            left %= size
    return " ".join([*parts, f"{left} s"][:2])


def moment(since: float) -> str:
    """A time of the clock, given in seconds of the epoch: `2026-05-31 08:30:02 UTC`."""
    return datetime.fromtimestamp(since, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
