"""How long to wait before something that failed is tried again."""

from __future__ import annotations

from typing import Final

__all__ = ["BackOff"]

_FIRST_S: Final = 0.1
_LONGEST_S: Final = 30.0


class BackOff:
    """Waiting times: none at first, then 0.1 s, doubled with each failure up to 30 s."""

    def __init__(self) -> None:
        self.failures = 0

    @property
    def delay_s(self) -> float:
        """How long to wait before the next try."""
        if not self.failures:
            return 0.0
        # The exponent has a bound: years of failures are no number to be computed.
        return min(_LONGEST_S, _FIRST_S * (1 << min(self.failures - 1, 16)))

    def failed(self) -> float:
        """Count a failure; returns how long to wait now."""
        self.failures += 1
        return self.delay_s

    def reset(self) -> None:
        """Begin anew: it worked."""
        self.failures = 0
