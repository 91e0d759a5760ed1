"""Environment variables that Kubernetes puts into a pod beside a service, told from settings.

For a service called `fastscp`, or `fastscp-` and more, they begin as ours do. Name and value have
to be what Kubernetes writes: any other variable that begins so is a setting, perhaps a mistyped
one, and the receiver does not start without what the operator meant by it.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final

__all__ = ["is_of_a_service"]

_SERVICE: Final = r"FASTSCP_(?:[A-Z0-9_]+_)?"
_PORT: Final = _SERVICE + r"PORT_[0-9]+_(?:TCP|UDP|SCTP)"


def _is_url(value: str) -> bool:
    return re.fullmatch(r"(?:tcp|udp|sctp)://\S+", value) is not None


def _is_number(value: str) -> bool:
    return re.fullmatch(r"[0-9]{1,5}", value) is not None


def _is_protocol(value: str) -> bool:
    return value in ("tcp", "udp", "sctp")


def _is_address(value: str) -> bool:
    try:
        ipaddress.ip_address(value)
    except ValueError:
        return False
    return True


_WRITTEN: Final = tuple(
    (re.compile(name), is_value)
    for name, is_value in (
        (_SERVICE + "SERVICE_HOST", _is_address),
        (_SERVICE + "SERVICE_PORT(?:_[A-Z0-9_]+)?", _is_number),
        (_SERVICE + "PORT", _is_url),
        (_PORT, _is_url),
        (_PORT + "_PROTO", _is_protocol),
        (_PORT + "_PORT", _is_number),
        (_PORT + "_ADDR", _is_address),
    )
)


def is_of_a_service(variable: str, value: str) -> bool:
    """Whether Kubernetes wrote the variable."""
    return any(name.fullmatch(variable) and is_value(value) for name, is_value in _WRITTEN)
