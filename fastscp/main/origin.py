"""What this process got from whoever started it, besides its command line and settings."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

from fastscp.main.listening import passed_by_manager
from fastscp.main.notify import Notify
from fastscp.main.predecessor import Predecessor

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fastscp.main.listening import Listening

__all__ = ["Origin"]


@dataclass(frozen=True)
class Origin:
    """A service manager, a main process to take over from, or neither.

    command: what starts such a service anew; empty: nothing does. sockets: the listening ones that
    are there already. is_activated: they are the service manager's, and outlive the service.
    """

    command: Sequence[str] = ()
    notify: Notify = field(default_factory=Notify)
    sockets: Sequence[Listening] = ()
    is_activated: bool = False
    predecessor: Predecessor | None = None

    @classmethod
    def found(
        cls, command: Sequence[str], given: Mapping[str, str] = MappingProxyType({})
    ) -> Origin:
        """As the environment tells, which is cleaned of it: no child is to take it for its own.

        given: as in `passed_by_manager`. Raises ConfigError, StartError.
        """
        notify = Notify.taken_from(os.environ)
        sockets = passed_by_manager(os.environ, given)
        predecessor = Predecessor.found(os.environ)
        if predecessor is None:
            return cls(command, notify, sockets, bool(sockets))
        taken_over, predecessor.sockets = predecessor.sockets, []
        is_activated = predecessor.told.is_activated
        return cls(command, notify, taken_over, is_activated, predecessor)
