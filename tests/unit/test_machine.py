"""The state machine against PS3.8 Table 9-10, typed here once more, cell by cell."""

from __future__ import annotations

import pytest

from fastscp.association.machine import (
    NEXT,
    REMOTE_EVENTS,
    TABLE,
    Action,
    Event,
    Machine,
    State,
    abort_for,
)
from fastscp.association.names import PDU_EVENTS, PDU_NAMES, PDU_NAMES_OF_EVENTS

# Columns: Sta1 to Sta13. A dot is a blank cell.
GRID = """
Evt1  | AE-1 | .    | .    | .    | .    | .    | .    | .    | .    | .     | .    | .    | .
Evt2  | .    | .    | .    | AE-2 | .    | .    | .    | .    | .    | .     | .    | .    | .
Evt3  | .    | AA-1 | AA-8 | .    | AE-3 | AA-8 | AA-8 | AA-8 | AA-8 | AA-8  | AA-8 | AA-8 | AA-6
Evt4  | .    | AA-1 | AA-8 | .    | AE-4 | AA-8 | AA-8 | AA-8 | AA-8 | AA-8  | AA-8 | AA-8 | AA-6
Evt5  | AE-5 | .    | .    | .    | .    | .    | .    | .    | .    | .     | .    | .    | .
Evt6  | .    | AE-6 | AA-8 | .    | AA-8 | AA-8 | AA-8 | AA-8 | AA-8 | AA-8  | AA-8 | AA-8 | AA-7
Evt7  | .    | .    | AE-7 | .    | .    | .    | .    | .    | .    | .     | .    | .    | .
Evt8  | .    | .    | AE-8 | .    | .    | .    | .    | .    | .    | .     | .    | .    | .
Evt9  | .    | .    | .    | .    | .    | DT-1 | .    | AR-7 | .    | .     | .    | .    | .
Evt10 | .    | AA-1 | AA-8 | .    | AA-8 | DT-2 | AR-6 | AA-8 | AA-8 | AA-8  | AA-8 | AA-8 | AA-6
Evt11 | .    | .    | .    | .    | .    | AR-1 | .    | .    | .    | .     | .    | .    | .
Evt12 | .    | AA-1 | AA-8 | .    | AA-8 | AR-2 | AR-8 | AA-8 | AA-8 | AA-8  | AA-8 | AA-8 | AA-6
Evt13 | .    | AA-1 | AA-8 | .    | AA-8 | AA-8 | AR-3 | AA-8 | AA-8 | AR-10 | AR-3 | AA-8 | AA-6
Evt14 | .    | .    | .    | .    | .    | .    | .    | AR-4 | AR-9 | .     | .    | AR-4 | .
Evt15 | .    | .    | AA-1 | AA-2 | AA-1 | AA-1 | AA-1 | AA-1 | AA-1 | AA-1  | AA-1 | AA-1 | .
Evt16 | .    | AA-2 | AA-3 | .    | AA-3 | AA-3 | AA-3 | AA-3 | AA-3 | AA-3  | AA-3 | AA-3 | AA-2
Evt17 | .    | AA-5 | AA-4 | AA-4 | AA-4 | AA-4 | AA-4 | AA-4 | AA-4 | AA-4  | AA-4 | AA-4 | AR-5
Evt18 | .    | AA-2 | .    | .    | .    | .    | .    | .    | .    | .     | .    | .    | AA-2
Evt19 | .    | AA-1 | AA-8 | .    | AA-8 | AA-8 | AA-8 | AA-8 | AA-8 | AA-8  | AA-8 | AA-8 | AA-7
"""

# Next state per action (Tables 9-6 to 9-9); AE-6 and AR-8 are tested by themselves.
FOLLOWS = {
    "AE-1": "Sta4",
    "AE-2": "Sta5",
    "AE-3": "Sta6",
    "AE-4": "Sta1",
    "AE-5": "Sta2",
    "AE-7": "Sta6",
    "AE-8": "Sta13",
    "DT-1": "Sta6",
    "DT-2": "Sta6",
    "AR-1": "Sta7",
    "AR-2": "Sta8",
    "AR-3": "Sta1",
    "AR-4": "Sta13",
    "AR-5": "Sta1",
    "AR-6": "Sta7",
    "AR-7": "Sta8",
    "AR-9": "Sta11",
    "AR-10": "Sta12",
    "AA-1": "Sta13",
    "AA-2": "Sta1",
    "AA-3": "Sta1",
    "AA-4": "Sta1",
    "AA-5": "Sta1",
    "AA-6": "Sta13",
    "AA-7": "Sta13",
    "AA-8": "Sta13",
}


def cells() -> list[tuple[str, str, str]]:
    found = []
    for line in GRID.strip().splitlines():
        event, *actions = (part.strip() for part in line.split("|"))
        assert len(actions) == 13
        found += [(f"Sta{n}", event, action) for n, action in enumerate(actions, start=1)]
    return found


def at(state: State, *, is_requestor: bool = False) -> Machine:
    machine = Machine(is_requestor=is_requestor)
    machine.state = state
    return machine


def test_the_grid_is_whole() -> None:
    assert {(state, event) for state, event, _ in cells()} == {
        (state.value, event.value) for state in State for event in Event
    }


@pytest.mark.parametrize(("state", "event", "action"), cells())
def test_cell(state: str, event: str, action: str) -> None:
    machine = at(State(state))
    if action != ".":
        assert TABLE[State(state), Event(event)] == action
        assert machine.handle(Event(event)) == action
        if action not in ("AE-6", "AR-8"):
            assert machine.state == FOLLOWS[action]
        return
    assert (State(state), Event(event)) not in TABLE
    if Event(event) in REMOTE_EVENTS:
        assert machine.handle(Event(event)) is Action.NONE
    else:
        with pytest.raises(ValueError, match=f"{event} .* cannot happen in {state}"):
            machine.handle(Event(event))
    assert machine.state == state


def test_every_action_has_its_next_state() -> None:
    assert set(NEXT) == set(Action) - {Action.NONE}
    assert set(TABLE.values()) == set(NEXT)


def test_an_unacceptable_request_is_rejected() -> None:
    assert at(State.STA2).handle(Event.EVT6, acceptable=False) is Action.AE_6
    machine = at(State.STA2)
    machine.handle(Event.EVT6, acceptable=False)
    assert machine.state is State.STA13
    machine = at(State.STA2)
    machine.handle(Event.EVT6)
    assert machine.state is State.STA3


@pytest.mark.parametrize(
    ("is_requestor", "steps", "states"),
    [
        (True, ["EVT12", "EVT14", "EVT13"], ["STA9", "STA11", "STA1"]),
        (False, ["EVT12", "EVT13", "EVT14"], ["STA10", "STA12", "STA13"]),
    ],
)
def test_release_collision(is_requestor: bool, steps: list[str], states: list[str]) -> None:
    machine = at(State.STA7, is_requestor=is_requestor)
    for step, state in zip(steps, states, strict=True):
        machine.handle(Event[step])
        assert machine.state is State[state]


def test_an_association_as_acceptor() -> None:
    machine = Machine()
    steps = ["EVT5", "EVT6", "EVT7", "EVT10", "EVT9", "EVT12", "EVT9", "EVT14", "EVT17"]
    actions = [machine.handle(Event[step]).value for step in steps]
    assert actions == ["AE-5", "AE-6", "AE-7", "DT-2", "DT-1", "AR-2", "AR-7", "AR-4", "AR-5"]
    assert machine.state is State.STA1


@pytest.mark.parametrize(
    ("action", "event", "expected"),
    [
        (Action.AA_1, Event.EVT10, (0, 0)),
        (Action.AA_1, Event.EVT19, (0, 0)),
        (Action.AA_1, Event.EVT15, (0, 0)),
        (Action.AA_8, Event.EVT6, (2, 2)),
        (Action.AA_8, Event.EVT10, (2, 2)),
        (Action.AA_8, Event.EVT19, (2, 1)),
        (Action.AA_7, Event.EVT6, (2, 2)),
        (Action.AA_7, Event.EVT19, (2, 1)),
    ],
)
def test_abort_parameters(action: Action, event: Event, expected: tuple[int, int]) -> None:
    assert abort_for(action, event) == expected


def test_abort_parameters_of_an_invalid_pdu() -> None:
    assert abort_for(Action.AA_8, Event.EVT19, reason=6) == (2, 6)
    assert abort_for(Action.AA_8, Event.EVT10, reason=6) == (2, 2)
    with pytest.raises(ValueError, match="AA-3 sends no A-ABORT"):
        abort_for(Action.AA_3, Event.EVT16)


def test_every_pdu_has_a_name_and_an_event() -> None:
    assert PDU_NAMES.keys() == PDU_EVENTS.keys() == set(range(1, 8))
    # Table 9-10 names them in its first column; the rest are not the arrival of a PDU.
    assert set(PDU_EVENTS.values()) == REMOTE_EVENTS - {Event.EVT17, Event.EVT19}
    assert {PDU_NAMES_OF_EVENTS[event]: event for event in PDU_EVENTS.values()} == {
        "A-ASSOCIATE-AC": Event.EVT3,
        "A-ASSOCIATE-RJ": Event.EVT4,
        "A-ASSOCIATE-RQ": Event.EVT6,
        "P-DATA-TF": Event.EVT10,
        "A-RELEASE-RQ": Event.EVT12,
        "A-RELEASE-RP": Event.EVT13,
        "A-ABORT": Event.EVT16,
    }
