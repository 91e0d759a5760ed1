"""How many open files `fastscp send` needs at worst, and what fits."""

from __future__ import annotations

import resource
from typing import Final

from fastscp.errors import ConfigError

__all__ = ["take_descriptors"]

# Standard streams, the event loop's own, the resolver, the report, a list of files, and the folder
# and the head that are being looked at: well above what was seen.
_FIXED: Final = 64
# Of an association: its socket; under TLS the pair that its data goes through, too. And its file:
# a compressed one has two more while it is decompressed.
_SOCKET: Final = 1
_PAIR: Final = 2
_FILE: Final = 3


def take_descriptors(associations: int, *, tls: bool) -> None:
    """Take all descriptors that the system grants.

    Raises ConfigError if so many associations do not fit.
    """
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    each = _SOCKET + _FILE + (_PAIR if tls else 0)
    needed = _FIXED + each * associations
    if hard == resource.RLIM_INFINITY or needed <= hard:
        return
    room = (hard - _FIXED) // each
    advice = f", or use at most {room}" if room > 0 else ""
    raise ConfigError(
        "--associations",
        f"{associations} at a time take {needed} open files, the limit is {hard}; raise it "
        f"(ulimit -Hn, LimitNOFILE=){advice}",
    )
