"""How long a requestor waits."""

from __future__ import annotations

import sys
from dataclasses import dataclass, fields

from fastscp.scu.errors import UsageError
from fastscp.scu.names import given

__all__ = ["Timeouts"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """How long to wait for a peer, in seconds.

    connect: for TCP and TLS. associate: for the answer to the request. send: while it takes none
    of our data. response: for the response to a message that is sent. release: for its
    confirmation. Raises UsageError for what is no number above 0.

    >>> async with associate("pacs", 104, timeouts=Timeouts(connect=5, response=300)) as pacs:
    ...     print(await pacs.echo())
    0000 success
    """

    connect: float = 10.0
    associate: float = 30.0
    send: float = 60.0
    response: float = 60.0
    release: float = 10.0

    def __post_init__(self) -> None:
        for name in (one.name for one in fields(self)):
            value = getattr(self, name)
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not number or not 0 < value <= sys.float_info.max:
                raise UsageError(
                    f"Timeouts: {name} is {given(value)}: write seconds, a number above 0"
                )
