"""The PDUs of the upper layer by their type: their names, and the events that they are.

Source: PS3.8 9.3, Table 9-10.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from fastscp.association.machine import Event

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "COMMAND_NAMES",
    "CONTEXT_RESULTS",
    "PDU_EVENTS",
    "PDU_NAMES",
    "PDU_NAMES_OF_EVENTS",
    "P_DATA_TF",
]

P_DATA_TF: Final = 0x04

PDU_NAMES: Final[Mapping[int, str]] = MappingProxyType(
    {
        0x01: "A-ASSOCIATE-RQ",
        0x02: "A-ASSOCIATE-AC",
        0x03: "A-ASSOCIATE-RJ",
        P_DATA_TF: "P-DATA-TF",
        0x05: "A-RELEASE-RQ",
        0x06: "A-RELEASE-RP",
        0x07: "A-ABORT",
    }
)

# By Command Field (PS3.7 E.1).
COMMAND_NAMES: Final[Mapping[int, str]] = MappingProxyType(
    {0x0001: "C-STORE-RQ", 0x8001: "C-STORE-RSP", 0x0030: "C-ECHO-RQ", 0x8030: "C-ECHO-RSP"}
)

# Why a presentation context is refused (PS3.8 9.3.3.2).
CONTEXT_RESULTS: Final[Mapping[int, str]] = MappingProxyType(
    {
        1: "user rejection",
        2: "no reason given",
        3: "abstract syntax not supported",
        4: "transfer syntaxes not supported",
    }
)

# What the arrival of a PDU is to the state machine.
PDU_EVENTS: Final[Mapping[int, Event]] = MappingProxyType(
    {
        0x01: Event.EVT6,
        0x02: Event.EVT3,
        0x03: Event.EVT4,
        P_DATA_TF: Event.EVT10,
        0x05: Event.EVT12,
        0x06: Event.EVT13,
        0x07: Event.EVT16,
    }
)

# The name of the PDU whose arrival an event is.
PDU_NAMES_OF_EVENTS: Final[Mapping[Event, str]] = MappingProxyType(
    {event: PDU_NAMES[pdu_type] for pdu_type, event in PDU_EVENTS.items()}
)
