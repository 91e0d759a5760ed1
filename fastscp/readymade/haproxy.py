"""`fastscp print haproxy`: a balancer in front of several receivers, which tells who connects."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from fastscp.readymade.source import comment

if TYPE_CHECKING:
    from fastscp.readymade.source import Source

__all__ = ["render"]

# Where nothing ends an idle association, the balancer does, after a day.
_FOR_EVER_S: Final = 86400
# So much later than the service: its own timers speak DICOM, and say why in the log.
_LATER_S: Final = 60

_HEAD = """\
HAProxy in front of two receivers, each with a store of its own. An association stays with the
receiver that it reached; new ones go to the one with the fewest. Write your addresses in, and check
it with: haproxy -c -f haproxy.cfg
"""
_TRUST = """
{why}
  --proxy-protocol-from 10.0.0.10
"""
_CONFIG = """\
global
    log /dev/log local0
    maxconn {most}

defaults
    mode tcp
    log global
    option tcplog
    # A balancer that ends must not cut what is under way at once.
    option tcpka
    timeout connect 5s
    timeout client {idle_s}s
    timeout server {idle_s}s
    timeout client-fin 30s
    timeout server-fin 30s
    timeout queue 30s

"""
# For each port; TLS goes through to the receivers, which see the certificates of senders.
_PORT = """\

frontend {name}
    bind :{port}
    default_backend receivers-{name}

backend receivers-{name}
    balance leastconn
    # A connection of the balancer's own, with nobody's address: the receivers pass over it.
    option tcp-check
    default-server send-proxy-v2 check check-send-proxy inter 5s fall 3 rise 2
    server receiver-1 10.0.0.11:{port}
    server receiver-2 10.0.0.12:{port}
"""


def render(source: Source) -> str:
    """The configuration of HAProxy."""
    config = source.config
    if config.proxy_protocol_from:
        trusted = ", ".join(config.proxy_protocol_from)
        why = f"The receivers believe PROXY headers from {trusted}: the balancer has to be there."
        trust = f"\n{why}\n"
    else:
        why = (
            "The receivers have to believe its PROXY headers: give them its address, or they close "
            "every\nconnection that begins with one."
        )
        trust = _TRUST.format(why=why)
    longest = max(
        (config.idle_timeout or _FOR_EVER_S, config.message_timeout, config.artim_timeout)
    )
    return (
        comment(_HEAD + trust)
        + "\n"
        + _CONFIG.format(
            most=2 * max(config.max_associations, 1000),
            idle_s=math.ceil(longest) + _LATER_S,
        )
        + "".join(_PORT.format(name=name, port=port) for name, port in source.ports.items())
    )
