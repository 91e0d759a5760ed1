"""Whether strangers can send, or listen: where the service listens, and whom it lets in how."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fastscp.config.settings import ServeConfig

__all__ = ["exposed", "overheard", "told_of_files"]


def exposed(
    config: ServeConfig, addresses: Iterable[str], tls_addresses: Iterable[str] = ()
) -> str:
    """What an operator has to know if anybody who reaches an address may associate; "": nobody may.

    addresses: where the service listens, as HOST:PORT, IPv6 in brackets. 0.0.0.0 and :: are reached
    from everywhere. tls_addresses: where it does so with TLS: there --tls-client-auth require lets
    in whoever has a certificate alone.
    """
    if config.allow or config.tables.senders or config.user_identity.required:
        return ""
    plain = _reached(addresses)
    is_locked = config.client_auth == "require"
    reached = plain + ([] if is_locked else _reached(tls_addresses))
    if not reached:
        return ""
    instead = ", or listen with TLS alone with --no-plain" if is_locked else ""
    return (
        f"whoever reaches {' or '.join(reached)} may store instances here: nothing says who may; "
        f"name the senders with --allow 'AE@NETWORK' or [from.NAME] tables, or listen on this "
        f"machine alone with --host 127.0.0.1{instead}"
    )


def overheard(config: ServeConfig, addresses: Iterable[str]) -> str:
    """What an operator has to know if users' secrets cross a network in the clear; "": none do.

    A proxy in front may have TLS of its own: then it is for whoever runs that.
    """
    reached = _reached(addresses)
    if not config.user_identity or config.proxy_protocol_from or not reached:
        return ""
    what = "passcodes" if config.user_identity.keys is None else "tokens"
    return (
        f"users log in at {' or '.join(reached)} without TLS, where whoever is on the way reads "
        f"their {what}: give --tls-cert and --no-plain, or put a proxy with TLS in front"
    )


def told_of_files(config: ServeConfig) -> tuple[str, ...]:
    """What is not as it should be with the file of users and those of TLS."""
    users = config.user_identity.warning
    tls = () if config.tls is None else config.tls.warnings
    return ((f"--user-identity: {users}",) if users else ()) + tls


def _reached(addresses: Iterable[str]) -> list[str]:
    return [one for one in addresses if not _is_of_this_machine(one)]


def _is_of_this_machine(address: str) -> bool:
    host = address.rpartition(":")[0].strip("[]")
    return ipaddress.ip_address(host).is_loopback
