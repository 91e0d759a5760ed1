"""The requestor's side: the Python API, and what `fastscp send` does.

The examples in the docstrings run as they stand in `python -m asyncio`, after
`from fastscp.scu import *`; those of `send_files`, which needs no asyncio, in `python`.
"""

from fastscp.scu.association import Association
from fastscp.scu.commands import Priority
from fastscp.scu.connect import associate, jwt_identity, password_identity
from fastscp.scu.contexts import Context
from fastscp.scu.errors import (
    AssociationAborted,
    AssociationRejected,
    AssociationReleased,
    ConnectionFailed,
    ConnectionLost,
    ContextRefused,
    PeerError,
    PeerTimeout,
    ProtocolViolation,
    UnusableInstance,
    UsageError,
)
from fastscp.scu.link import SeenPDU
from fastscp.scu.response import Response
from fastscp.scu.scripts import Sent, send_files
from fastscp.scu.secured import tls_context
from fastscp.scu.timeouts import Timeouts

__all__ = [
    "Association",
    "AssociationAborted",
    "AssociationRejected",
    "AssociationReleased",
    "ConnectionFailed",
    "ConnectionLost",
    "Context",
    "ContextRefused",
    "PeerError",
    "PeerTimeout",
    "Priority",
    "ProtocolViolation",
    "Response",
    "SeenPDU",
    "Sent",
    "Timeouts",
    "UnusableInstance",
    "UsageError",
    "associate",
    "jwt_identity",
    "password_identity",
    "send_files",
    "tls_context",
]
