"""Whether strangers can send: where the service listens, and whom it lets in."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fastscp.config.settings import ServeConfig

__all__ = ["exposed", "told_of_users"]


def exposed(config: ServeConfig, addresses: Iterable[str]) -> str:
    """What an operator has to know if anybody who reaches an address may associate; "": nobody may.

    addresses: where the service listens, as HOST:PORT, IPv6 in brackets. 0.0.0.0 and :: are reached
    from everywhere.
    """
    if config.allow or config.tables.senders or config.user_identity.required:
        return ""
    reached = [one for one in addresses if not _is_of_this_machine(one)]
    if not reached:
        return ""
    return (
        f"whoever reaches {' or '.join(reached)} may store instances here: nothing says who may; "
        f"name the senders with --allow 'AE@NETWORK' or [from.NAME] tables, or listen on this "
        f"machine alone with --host 127.0.0.1"
    )


def told_of_users(config: ServeConfig) -> str:
    """What is not as it should be with the file of users; "": nothing."""
    warning = config.user_identity.warning
    return warning and f"--user-identity: {warning}"


def _is_of_this_machine(address: str) -> bool:
    host = address.rpartition(":")[0].strip("[]")
    return ipaddress.ip_address(host).is_loopback
