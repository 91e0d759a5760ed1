"""What of TLS runs out, told in time: at the start, after a reload, and once a day."""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, NamedTuple

from fastscp.log import counted, escape

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastscp.tls.material import Material

__all__ = ["LOOK_EVERY_S", "Expiry", "expiring"]

log = logging.getLogger("fastscp.main")

LOOK_EVERY_S: Final = 60.0
_DAY_S: Final = 86400.0
# How long before the end it is told, and told as an error. A list is made anew every few days.
_SOON_S: Final = 30 * _DAY_S
_URGENT_S: Final = 7 * _DAY_S
_LIST_SOON_S: Final = _DAY_S


class Said(NamedTuple):
    """what: it is about, the certificate or the lists. level: of the log."""

    what: str
    level: int
    text: str


def expiring(material: Material, now: float) -> Iterator[Said]:
    """What is out of date, or soon will be. now: seconds of the epoch."""
    left = material.expires - now
    whose = f"the certificate of {material.subject}"
    if now < material.begins:
        text = (
            f"{whose} is not valid before {_date(material.begins)}: senders refuse it until then; "
            f"set the clock of this machine, or give one that is valid (--tls-cert)"
        )
        yield Said("certificate", logging.ERROR, text)
    elif left <= 0:
        text = f"{whose} has expired on {_date(material.expires)}: senders refuse it; {_RENEW}"
        yield Said("certificate", logging.ERROR, text)
    elif left < _SOON_S:
        level = logging.ERROR if left < _URGENT_S else logging.WARNING
        days = counted(int(left // _DAY_S), "day")
        text = f"{whose} expires in {days}, on {_date(material.expires)}; {_RENEW}"
        yield Said("certificate", level, text)
    if not material.crl_expires:
        return
    left = material.crl_expires - now
    lists = f"a revocation list of {escape(material.crl_file) or '--tls-crl'}"
    if left <= 0:
        text = (
            f"{lists} is out of date since {_date(material.crl_expires)}: "
            f"every sender that its CA has signed is refused; get it anew, then `fastscp reload`"
        )
        yield Said("lists", logging.ERROR, text)
    elif left < _LIST_SOON_S:
        text = (
            f"{lists} is out of date on {_date(material.crl_expires)}, and "
            f"every sender that its CA has signed is refused then; get it anew, then "
            f"`fastscp reload`"
        )
        yield Said("lists", logging.WARNING, text)


_RENEW: Final = "have it renewed, then `fastscp reload`"


def _date(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")


class Expiry:
    """Tells the log, and remembers what it told: the same once a day, what is worse at once."""

    def __init__(self) -> None:
        self._material: Material | None = None
        # By what it is about: the level, and when it was told.
        self._told: dict[str, tuple[int, float]] = {}

    def look(self, material: Material | None, now: float | None = None) -> None:
        """Tell of what runs out. now: seconds of the epoch."""
        if now is None:
            now = time.time()
        if material is not self._material:
            self._material, self._told = material, {}
        for what, level, text in () if material is None else expiring(material, now):
            before, at = self._told.get(what, (logging.NOTSET, 0.0))
            # A clock that is set back is no day.
            if level > before or abs(now - at) >= _DAY_S:
                self._told[what] = level, now
                log.log(level, "%s", text)
