"""The requestor's side: the Python API, and what `fastscp send` does."""

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
)
from fastscp.scu.link import SeenPDU
from fastscp.scu.response import Response
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
    "Timeouts",
    "UnusableInstance",
    "associate",
    "jwt_identity",
    "password_identity",
]
