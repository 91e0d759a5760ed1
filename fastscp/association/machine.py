"""The state machine of the upper layer: events in, actions out, nothing done here.

Theory of operation: the table gives the action for a state and an event, and the action gives the
next state. Only two actions leave a choice, AE-6 (is the request acceptable?) and AR-8 (which side
asked for the association?). The machine has no clock: whoever carries the actions out starts, stops
and times ARTIM.
Source: PS3.8 9.2, Tables 9-1 to 9-10.
"""

from __future__ import annotations

from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["NEXT", "REMOTE_EVENTS", "TABLE", "Action", "Event", "Machine", "State", "abort_for"]


class State(StrEnum):
    """Source: PS3.8 Tables 9-1 to 9-5."""

    STA1 = "Sta1"  # idle
    STA2 = "Sta2"  # connected, awaiting A-ASSOCIATE-RQ
    STA3 = "Sta3"  # awaiting local accept or reject
    STA4 = "Sta4"  # awaiting the transport connection
    STA5 = "Sta5"  # awaiting A-ASSOCIATE-AC or -RJ
    STA6 = "Sta6"  # association established
    STA7 = "Sta7"  # awaiting A-RELEASE-RP
    STA8 = "Sta8"  # awaiting local release response
    STA9 = "Sta9"  # collision, requestor: awaiting local release response
    STA10 = "Sta10"  # collision, acceptor: awaiting A-RELEASE-RP
    STA11 = "Sta11"  # collision, requestor: awaiting A-RELEASE-RP
    STA12 = "Sta12"  # collision, acceptor: awaiting local release response
    STA13 = "Sta13"  # awaiting the close of the transport connection


class Event(StrEnum):
    """Source: PS3.8 Table 9-10, first column."""

    EVT1 = "Evt1"  # local A-ASSOCIATE request
    EVT2 = "Evt2"  # transport connection confirmed
    EVT3 = "Evt3"  # A-ASSOCIATE-AC received
    EVT4 = "Evt4"  # A-ASSOCIATE-RJ received
    EVT5 = "Evt5"  # transport connection indicated
    EVT6 = "Evt6"  # A-ASSOCIATE-RQ received
    EVT7 = "Evt7"  # local accept
    EVT8 = "Evt8"  # local reject
    EVT9 = "Evt9"  # local P-DATA request
    EVT10 = "Evt10"  # P-DATA-TF received
    EVT11 = "Evt11"  # local A-RELEASE request
    EVT12 = "Evt12"  # A-RELEASE-RQ received
    EVT13 = "Evt13"  # A-RELEASE-RP received
    EVT14 = "Evt14"  # local A-RELEASE response
    EVT15 = "Evt15"  # local A-ABORT request
    EVT16 = "Evt16"  # A-ABORT received
    EVT17 = "Evt17"  # transport connection closed
    EVT18 = "Evt18"  # ARTIM expired
    EVT19 = "Evt19"  # unrecognized or invalid PDU received


class Action(StrEnum):
    """Source: PS3.8 Tables 9-6 to 9-9."""

    NONE = "-"  # the peer did something while there is no connection: nothing to do, state kept

    AE_1 = "AE-1"  # connect
    AE_2 = "AE-2"  # send A-ASSOCIATE-RQ
    AE_3 = "AE-3"  # confirm the association to the user
    AE_4 = "AE-4"  # tell the user of the rejection, close
    AE_5 = "AE-5"  # answer the connection, start ARTIM
    AE_6 = "AE-6"  # stop ARTIM; offer the request to the user, or send RJ and start ARTIM
    AE_7 = "AE-7"  # send A-ASSOCIATE-AC
    AE_8 = "AE-8"  # send A-ASSOCIATE-RJ, start ARTIM

    DT_1 = "DT-1"  # send P-DATA-TF
    DT_2 = "DT-2"  # deliver P-DATA

    AR_1 = "AR-1"  # send A-RELEASE-RQ
    AR_2 = "AR-2"  # tell the user of the release request
    AR_3 = "AR-3"  # confirm the release, close
    AR_4 = "AR-4"  # send A-RELEASE-RP, start ARTIM
    AR_5 = "AR-5"  # stop ARTIM
    AR_6 = "AR-6"  # deliver P-DATA
    AR_7 = "AR-7"  # send P-DATA-TF
    AR_8 = "AR-8"  # release collision
    AR_9 = "AR-9"  # send A-RELEASE-RP
    AR_10 = "AR-10"  # confirm the release

    AA_1 = "AA-1"  # send A-ABORT of the service user, (re)start ARTIM
    AA_2 = "AA-2"  # stop ARTIM, close
    AA_3 = "AA-3"  # tell the user of the abort, close
    AA_4 = "AA-4"  # tell the user that the connection is gone
    AA_5 = "AA-5"  # stop ARTIM
    AA_6 = "AA-6"  # ignore
    AA_7 = "AA-7"  # send A-ABORT
    AA_8 = "AA-8"  # send A-ABORT of the service provider, tell the user, start ARTIM


REMOTE_EVENTS: Final = frozenset(
    {
        Event.EVT3,
        Event.EVT4,
        Event.EVT6,
        Event.EVT10,
        Event.EVT12,
        Event.EVT13,
        Event.EVT16,
        Event.EVT17,
        Event.EVT19,
    }
)

# Two next states: AE-6 acceptable, not acceptable; AR-8 requestor, acceptor of the association.
NEXT: Final[Mapping[Action, tuple[State, ...]]] = MappingProxyType(
    {
        Action.AE_1: (State.STA4,),
        Action.AE_2: (State.STA5,),
        Action.AE_3: (State.STA6,),
        Action.AE_4: (State.STA1,),
        Action.AE_5: (State.STA2,),
        Action.AE_6: (State.STA3, State.STA13),
        Action.AE_7: (State.STA6,),
        Action.AE_8: (State.STA13,),
        Action.DT_1: (State.STA6,),
        Action.DT_2: (State.STA6,),
        Action.AR_1: (State.STA7,),
        Action.AR_2: (State.STA8,),
        Action.AR_3: (State.STA1,),
        Action.AR_4: (State.STA13,),
        Action.AR_5: (State.STA1,),
        Action.AR_6: (State.STA7,),
        Action.AR_7: (State.STA8,),
        Action.AR_8: (State.STA9, State.STA10),
        Action.AR_9: (State.STA11,),
        Action.AR_10: (State.STA12,),
        Action.AA_1: (State.STA13,),
        Action.AA_2: (State.STA1,),
        Action.AA_3: (State.STA1,),
        Action.AA_4: (State.STA1,),
        Action.AA_5: (State.STA1,),
        Action.AA_6: (State.STA13,),
        Action.AA_7: (State.STA13,),
        Action.AA_8: (State.STA13,),
    }
)


def _table() -> dict[tuple[State, Event], Action]:
    """Table 9-10, state by state: what is ordinary there first, then what breaks the protocol."""
    s, e, a = State, Event, Action
    engaged = (
        s.STA3,
        s.STA5,
        s.STA6,
        s.STA7,
        s.STA8,
        s.STA9,
        s.STA10,
        s.STA11,
        s.STA12,
    )
    pdus = (e.EVT3, e.EVT4, e.EVT6, e.EVT10, e.EVT12, e.EVT13, e.EVT19)
    table: dict[tuple[State, Event], Action] = {}

    # No PDU means anything before a request has arrived: the abort speaks for the user (AA-1).
    # After one, an unexpected PDU is the provider's complaint (AA-8).
    for event in pdus:
        table[s.STA2, event] = a.AA_1
        for state in engaged:
            table[state, event] = a.AA_8
        table[s.STA13, event] = a.AA_6
    for state in engaged:
        table[state, e.EVT15] = a.AA_1
        table[state, e.EVT16] = a.AA_3
        table[state, e.EVT17] = a.AA_4

    table |= {
        (s.STA1, e.EVT1): a.AE_1,
        (s.STA1, e.EVT5): a.AE_5,
        (s.STA2, e.EVT6): a.AE_6,
        (s.STA2, e.EVT16): a.AA_2,
        (s.STA2, e.EVT17): a.AA_5,
        (s.STA2, e.EVT18): a.AA_2,
        (s.STA3, e.EVT7): a.AE_7,
        (s.STA3, e.EVT8): a.AE_8,
        (s.STA4, e.EVT2): a.AE_2,
        (s.STA4, e.EVT15): a.AA_2,
        (s.STA4, e.EVT17): a.AA_4,
        (s.STA5, e.EVT3): a.AE_3,
        (s.STA5, e.EVT4): a.AE_4,
        (s.STA6, e.EVT9): a.DT_1,
        (s.STA6, e.EVT10): a.DT_2,
        (s.STA6, e.EVT11): a.AR_1,
        (s.STA6, e.EVT12): a.AR_2,
        (s.STA7, e.EVT10): a.AR_6,
        (s.STA7, e.EVT12): a.AR_8,
        (s.STA7, e.EVT13): a.AR_3,
        (s.STA8, e.EVT9): a.AR_7,
        (s.STA8, e.EVT14): a.AR_4,
        (s.STA9, e.EVT14): a.AR_9,
        (s.STA10, e.EVT13): a.AR_10,
        (s.STA11, e.EVT13): a.AR_3,
        (s.STA12, e.EVT14): a.AR_4,
        (s.STA13, e.EVT6): a.AA_7,
        (s.STA13, e.EVT16): a.AA_2,
        (s.STA13, e.EVT17): a.AR_5,
        (s.STA13, e.EVT18): a.AA_2,
        (s.STA13, e.EVT19): a.AA_7,
    }
    return table


TABLE: Final[Mapping[tuple[State, Event], Action]] = MappingProxyType(_table())


class Machine:
    """One side of one association.

    is_requestor: whether this side asked for it; decides a release collision (AR-8).
    """

    __slots__ = ("_is_requestor", "state")

    def __init__(self, *, is_requestor: bool = False) -> None:
        self._is_requestor = is_requestor
        self.state = State.STA1

    def handle(self, event: Event, *, acceptable: bool = True) -> Action:
        """Take an event; returns the action to carry out, the state is then already the next one.

        acceptable: for EVT6, whether the provider itself can take the request.
        Every state has an answer to what a peer does. Raises ValueError, and changes nothing, for a
        local event that the state does not allow: our own mistake.
        Source: PS3.8 9.2.3, Table 9-10.
        """
        action = TABLE.get((self.state, event))
        if action is None:
            if event in REMOTE_EVENTS:
                return Action.NONE
            raise ValueError(f"{event} ({event.name}) cannot happen in {self.state}")
        following = NEXT[action]
        if action is Action.AE_6:
            self.state = following[0 if acceptable else 1]
        elif action is Action.AR_8:
            self.state = following[0 if self._is_requestor else 1]
        else:
            self.state = following[0]
        return action


def abort_for(action: Action, event: Event, reason: int = 1) -> tuple[int, int]:
    """Source and reason of the A-ABORT that an action sends.

    reason: for EVT19, what is wrong with the PDU (1 unrecognized, 6 invalid value, ...); any other
    event is a PDU that is unexpected where it came (2).
    Raises ValueError for an action that sends none.
    Source: PS3.8 9.3.8, Table 9-26.
    """
    if action is Action.AA_1:
        return (0, 0)
    if action in (Action.AA_7, Action.AA_8):
        return (2, reason if event is Event.EVT19 else 2)
    raise ValueError(f"{action} sends no A-ABORT")
