"""What a balancer or a supervisor is told: whether the service is there, and whether to send to it.

The same `Status` is what `fastscp status` shows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastscp.messages.control import Status

__all__ = ["alive", "readiness"]


def alive(now: Status) -> dict[str, object]:
    """That main's loop lives: who can read this, knows."""
    return {"alive": True, "version": now.version, "pid": now.pid, "uptime_s": now.uptime_s}


def readiness(now: Status) -> dict[str, object]:
    """Whether it accepts associations, why not, and how much it has to do and room for.

    test_aids: those in use, with which nobody is to rely on it, though it is ready.
    reasons: why not, or what is wrong though it accepts; empty: nothing. warnings: what of TLS runs
    out, or has. That is no reason not to be ready: some senders may be served still, and a balancer
    that took all services away at once, as they run out at once, would refuse the others, too.
    """
    reasons = [now.why or now.state] if now.why or not now.is_ready else []
    return {
        "ready": now.is_ready,
        "state": now.state,
        "reasons": reasons,
        "warnings": list(now.warnings),
        "since": now.since or None,
        "test_aids": list(now.aids),
        "load": {
            "associations": now.associations,
            "associations_limit": now.limit or None,
            "connections": now.connections,
            "workers": now.workers,
            "workers_up": now.workers_up,
            "in_flight_bytes": now.in_flight_bytes,
        },
        "space": {
            "free_bytes": now.store.free_bytes,
            "min_free_bytes": now.store.min_free_bytes,
        },
    }
