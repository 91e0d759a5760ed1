"""A line a minute about what the whole service did, while it does anything. No I/O, no clock."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from fastscp.association.account import in_bytes
from fastscp.log import Fields, counted

__all__ = ["INTERVAL_S", "Seen", "Summary"]

INTERVAL_S: Final = 60.0
# Bytes received in an interval, up to which it counts as idle if there was nothing else: C-ECHOs of
# whoever checks the service's health, and connections that only look whether the port is open.
_IDLE_BYTES: Final = 65536


@dataclass(frozen=True)
class Seen:
    """The counters of the service: all grow, except the open associations.

    at: seconds of the monotonic clock. bytes: of data sets stored. received: bytes read from
    connections. kept: instances not stored, for `--on-duplicate keep`. handshakes_failed: of TLS.
    """

    at: float
    stored: int = 0
    bytes: int = 0
    refused: int = 0
    unfinished: int = 0
    received: int = 0
    begun: int = 0
    rejected: int = 0
    open: int = 0
    kept: int = 0
    handshakes_failed: int = 0

    @property
    def ended(self) -> int:
        return self.begun - self.open


class Summary:
    """Remembers what was told, and says what is new."""

    def __init__(self, first: Seen) -> None:
        self._before = first

    def say(self, seen: Seen) -> tuple[str, Fields] | None:
        """What was done since the last call, in words and as fields; None: nothing worth a line."""
        before, self._before = self._before, seen
        seconds = max(seen.at - before.at, 0.001)
        stored, refused = seen.stored - before.stored, seen.refused - before.refused
        unfinished, rejected = seen.unfinished - before.unfinished, seen.rejected - before.rejected
        received = seen.received - before.received
        kept = seen.kept - before.kept
        what = (stored, refused, unfinished, rejected, kept)
        if not (any(what) or received > _IDLE_BYTES):
            return None
        begun, ended = seen.begun - before.begun, seen.ended - before.ended
        size, rate = seen.bytes - before.bytes, received / seconds
        not_stored = f", not stored (keep) {kept:,}" if kept else ""
        text = (
            f"in {seconds:.0f} s: stored {counted(stored, 'instance')} ({in_bytes(size)}), refused "
            f"{refused:,}, unfinished {unfinished:,}{not_stored}; received {in_bytes(received)}, "
            f"{in_bytes(rate)}/s; associations: {begun:,} begun, {ended:,} ended, {seen.open:,} "
            f"open, {rejected:,} rejected"
        )
        return text, Fields(
            seconds=round(seconds, 3), stored=stored, bytes=size, refused=refused,
            unfinished=unfinished, received_bytes=received, rate=round(rate),
            associations_begun=begun, associations_ended=ended, associations_open=seen.open,
            associations_rejected=rejected, kept=kept,
        )  # fmt: skip
