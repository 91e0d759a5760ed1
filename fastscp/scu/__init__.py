"""The requestor's side: the Python API, and what `fastscp send` and `fastscp echo` do."""

from fastscp.scu.association import (
    Association,
    Context,
    Priority,
    Response,
    Timeouts,
    associate,
    jwt_identity,
    password_identity,
)
from fastscp.scu.echo import run_echo
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
)
from fastscp.scu.link import SeenPDU

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
    "Timeouts",
    "UnusableInstance",
    "associate",
    "jwt_identity",
    "password_identity",
    "run_echo",
]
