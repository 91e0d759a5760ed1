"""What a trace says of the two PDUs that make an association, and of each command set."""

from __future__ import annotations

import pytest

from fastscp.worker.telling import Telling
from fastscp.worker.tracing import command_line, item_lines
from fastscp_ext import (
    AssociateAC,
    AssociateRQ,
    PresentationContextAC,
    PresentationContextRQ,
    RoleSelection,
    UserIdentity,
    UserInformation,
    encode_command,
)
from tests.kit import CT, ELE, SOP, VERIFICATION

NAMES = {CT: "CTImageStorage", ELE: "ExplicitVRLittleEndian", VERIFICATION: "Verification"}
NAMED = Telling("1", "10.0.0.1", "10.0.0.1:104", NAMES).named
TITLES = (b"PACS            ", b"CT\x1b1            ")


def request(*contexts: PresentationContextRQ, said: UserInformation | None = None) -> list[str]:
    return list(item_lines(AssociateRQ(*TITLES, "1.2.3", contexts, said), NAMED))


def test_a_request_has_a_line_for_each_presentation_context() -> None:
    said = UserInformation(
        max_pdu_length=0,
        implementation_version_name="OLD\x01",
        roles=(RoleSelection(CT, True, False),),
    )
    contexts = (
        PresentationContextRQ(1, CT, (ELE, "1.2.4")),
        PresentationContextRQ(3, "1.3\n", ()),
        PresentationContextRQ(5, "", tuple(f"1.{n}" for n in range(25))),
    )
    first, *others = request(*contexts, said=said)
    assert first == (
        r"'CT%1B1' calls 'PACS', application context '1.2.3', protocol version 1, "
        r"max pdu length 0, implementation version name 'OLD\x01', "
        rf"roles (RoleSelection(sop_class='{CT}', scu_role=True, scp_role=False),)"
    )
    assert others == [
        "presentation context 1: CTImageStorage in ExplicitVRLittleEndian, '1.2.4'",
        r"presentation context 3: '1.3\n' in nothing",
        "presentation context 5: '' in "
        + "".join(f"'1.{n}', " for n in range(20)) + "and 5 others",
    ]  # fmt: skip


def test_an_answer_says_what_became_of_each() -> None:
    contexts = tuple(
        PresentationContextAC(2 * n + 1, result, ELE) for n, result in enumerate((0, 3, 4, 9))
    )
    first, *others = item_lines(AssociateAC(*TITLES, None, contexts, None), NAMED)
    assert first == r"'CT%1B1' calls 'PACS', protocol version 1"
    assert others == [
        "presentation context 1: accepted in ExplicitVRLittleEndian",
        "presentation context 3: result 3, abstract syntax not supported",
        "presentation context 5: result 4, transfer syntaxes not supported",
        "presentation context 7: result 9, unknown",
    ]


def test_no_line_holds_credentials() -> None:
    identity = UserIdentity(2, True, b"jo", b"secret")
    (line,) = request(said=UserInformation(identity=identity))
    assert line.endswith("identity UserIdentity(type=2, response_requested=True)")
    answer = UserInformation(identity_response=b"ticket")
    (line,) = item_lines(AssociateAC(*TITLES, None, (), answer), NAMED)
    assert "ticket" not in line


def test_what_is_said_once_is_cut() -> None:
    (line,) = request(said=UserInformation(implementation_version_name="x" * 9000))
    assert len(line) < 1600
    assert line.endswith("characters)")


@pytest.mark.parametrize(
    ("elements", "line"),
    [
        (
            {
                0x0002: CT, 0x0100: 0x0001, 0x0110: 7, 0x0700: 2, 0x0800: 1, 0x1000: SOP,
                0x1030: "MOVER", 0x1031: 9,
            },
            (
                "C-STORE-RQ: presentation context 5, message 7, class CTImageStorage, "
                f"instance '{SOP}', priority 2, moved for 'MOVER', by its message 9"
            ),
        ),
        (
            {0x0100: 0x8001, 0x0120: 7, 0x0800: 0x0101, 0x0900: 0xA700, 0x0902: "full"},
            (
                "C-STORE-RSP: presentation context 5, answers message 7, "
                "status A700 out of resources, comment 'full'"
            ),
        ),
        (
            {0x0002: VERIFICATION, 0x0100: 0x0030, 0x0110: 1, 0x0800: 0x0101},
            "C-ECHO-RQ: presentation context 5, message 1, class Verification",
        ),
        (
            {0x0003: "1.2\x1b", 0x0100: 0x0130, 0x0110: 1, 0x0800: 0x0101, 0x1001: "1.2.9"},
            r"command 0130: presentation context 5, message 1, class '1.2\x1b', instance '1.2.9'",
        ),
        ({0x0800: 0x0101}, "a command: presentation context 5"),
    ],
)  # fmt: skip
def test_a_command_set_says_what_it_holds(elements: dict[int, int | str], line: str) -> None:
    assert command_line(5, encode_command(elements), NAMED) == line
