"""How to send."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fastscp.scu.commands import Priority
from fastscp.scu.timeouts import Timeouts

if TYPE_CHECKING:
    import ssl

    from fastscp_ext import UserIdentity

__all__ = ["Options"]


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to send. See the options of `fastscp send`."""

    host: str
    port: int
    called_ae: str = "ANY-SCP"
    calling_ae: str = "FASTSCP"
    associations: int = 1
    window: int = 1
    max_pdu_length: int = 131072
    priority: Priority = Priority.MEDIUM
    move_originator: tuple[str, int] | None = None
    retries: int = 7
    repeat: int = 1
    new_uids: bool = False
    timeouts: Timeouts = field(default_factory=Timeouts)
    tls: ssl.SSLContext | None = None
    identity: UserIdentity | None = None
