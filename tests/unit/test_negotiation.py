"""Negotiation: from a request and a policy to an acceptance or a rejection."""

from __future__ import annotations

import pickle
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastscp import uids
from fastscp.association.negotiation import (
    Accepted,
    AcceptedContext,
    Policy,
    Rejected,
    foreign,
    negotiate,
)
from fastscp.uids import sop_class_rule, transfer_syntax_rule
from fastscp_ext import (
    AssociateRQ,
    AsyncWindow,
    CommonExtendedNegotiation,
    ExtendedNegotiation,
    PresentationContextAC,
    PresentationContextRQ,
    RoleSelection,
    UserIdentity,
    UserInformation,
    decode_associate_ac,
    decode_associate_rq,
    encode_associate_ac,
)
from tests import streams

CT = "1.2.840.10008.5.1.4.1.1.2"
MR = "1.2.840.10008.5.1.4.1.1.4"
STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
COMMITMENT = "1.2.840.10008.1.20.1"
UNKNOWN = "1.2.840.10008.5.1.4.1.1.999.1"
PRIVATE = "1.3.12.2.1107.5.9.1"

IVL = uids.IMPLICIT_VR_LITTLE_ENDIAN
EVL = uids.EXPLICIT_VR_LITTLE_ENDIAN
EVB = uids.EXPLICIT_VR_BIG_ENDIAN
DEFLATED = uids.DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN
JPIP = "1.2.840.10008.1.2.4.94"
J2K = "1.2.840.10008.1.2.4.90"
JPEG = "1.2.840.10008.1.2.4.50"

OPEN = Policy(sop_classes=sop_class_rule(("any",)))
INFORMATION = UserInformation(max_pdu_length=16384, implementation_class_uid="1.2.3")


def context(number: int = 1, abstract: str = CT, *syntaxes: str) -> PresentationContextRQ:
    return PresentationContextRQ(number, abstract, syntaxes or (IVL,))


def request(*contexts: PresentationContextRQ, **changes: object) -> AssociateRQ:
    rq = AssociateRQ(
        called_ae=b"FASTSCP".ljust(16),
        calling_ae=b"MODALITY".ljust(16),
        application_context=uids.APPLICATION_CONTEXT,
        presentation_contexts=contexts or (context(),),
        user_information=INFORMATION,
    )
    return replace(rq, **changes)  # type: ignore[arg-type]


def informed(*contexts: PresentationContextRQ, **changes: object) -> AssociateRQ:
    information = replace(INFORMATION, **changes)  # type: ignore[arg-type]
    return request(*contexts, user_information=information)


def accepted(rq: AssociateRQ, policy: Policy = OPEN) -> Accepted:
    outcome = negotiate(rq, policy)
    assert isinstance(outcome, Accepted)
    # Whatever is accepted can be sent.
    assert decode_associate_ac(encode_associate_ac(outcome.ac)) == outcome.ac
    return outcome


def answered(outcome: Accepted) -> UserInformation:
    assert outcome.ac.user_information is not None
    return outcome.ac.user_information


def results(outcome: Accepted) -> list[tuple[int, int, str]]:
    return [(c.id, c.result, c.transfer_syntax) for c in outcome.ac.presentation_contexts]


# Rejections --------------------------------------------------------------------------------------

STRICT = Policy(sop_classes=OPEN.sop_classes, strict=True)


@pytest.mark.parametrize(
    ("rq", "policy", "expected", "why"),
    [
        (request(protocol_version=0), OPEN, (1, 2, 2), "protocol version 0x0000"),
        (request(protocol_version=2), OPEN, (1, 2, 2), "protocol version 0x0002"),
        (request(application_context="1.2.3"), OPEN, (1, 1, 2), "application context is '1.2.3'"),
        (request(application_context=None), OPEN, (1, 1, 2), "application context is missing"),
        (request(application_context=None), STRICT, (1, 1, 2), "application context is missing"),
        (request(presentation_contexts=()), OPEN, (1, 2, 1), "no presentation context"),
        (request(context(1), context(1)), STRICT, (1, 2, 1), "proposed twice"),
        *(
            (informed(max_pdu_length=n), OPEN, (1, 2, 1), f"maximum length {n} is too small")
            for n in range(1, 8)
        ),
    ],
)
def test_rejected(
    rq: AssociateRQ, policy: Policy, expected: tuple[int, int, int], why: str
) -> None:
    outcome = foreign(rq) or negotiate(rq, policy)
    assert isinstance(outcome, Rejected)
    assert (outcome.result, outcome.source, outcome.reason) == expected
    assert outcome.why.startswith(why) or why in outcome.why


def test_the_version_is_judged_first() -> None:
    rq = request(protocol_version=2, application_context="1.2.3", presentation_contexts=())
    assert foreign(rq) == Rejected(1, 2, 2, "protocol version 0x0002 is not supported")


def test_a_rejection_is_safe_to_log() -> None:
    outcome = foreign(request(application_context="9" * 60000))
    assert isinstance(outcome, Rejected)
    assert len(outcome.why) < 160


# The answer --------------------------------------------------------------------------------------


def test_bytes_10_to_73_come_back() -> None:
    rq = request(called_ae=b"A\0" * 8, calling_ae=b"\xff\r\n".ljust(16), reserved=bytes(range(32)))
    ac = accepted(rq).ac
    assert (ac.called_ae, ac.calling_ae, ac.reserved) == (rq.called_ae, rq.calling_ae, rq.reserved)
    assert ac.protocol_version == 1


def test_who_we_are() -> None:
    outcome = accepted(request(), Policy(max_pdu_length=65536))
    information = answered(outcome)
    assert outcome.ac.application_context == "1.2.840.10008.3.1.1.1"
    assert information.max_pdu_length == 65536
    assert information.implementation_class_uid == uids.IMPLEMENTATION_CLASS_UID
    assert information.implementation_version_name == uids.IMPLEMENTATION_VERSION_NAME
    assert information.async_window is None
    assert information.roles == ()
    assert information.extended == ()
    assert information.common_extended == ()
    assert information.identity_response is None


@pytest.mark.parametrize("version", [1, 3, 0xFFFF])
def test_only_bit_0_of_the_version_counts(version: int) -> None:
    accepted(request(protocol_version=version))


@pytest.mark.parametrize(
    ("announced", "expected"),
    [(None, 16384), (0, 0), (8, 8), (16383, 16383), (0xFFFFFFFF, 0xFFFFFFFF)],
)
def test_maximum_length_of_the_peer(announced: int | None, expected: int) -> None:
    assert accepted(informed(max_pdu_length=announced)).peer_max_pdu_length == expected


def test_no_user_information() -> None:
    outcome = accepted(request(user_information=None))
    assert outcome.peer_max_pdu_length == 16384
    assert outcome.window == 1
    assert outcome.notes == ("announces no maximum length: 16384 assumed",)


# Contexts ----------------------------------------------------------------------------------------


def test_order_and_results() -> None:
    outcome = accepted(
        request(
            context(7, CT, JPEG),
            context(1, STUDY_ROOT_FIND, EVL, IVL),
            context(3, uids.VERIFICATION),
            context(5, COMMITMENT),
            context(9, PRIVATE, "1.3.46.670589.33.1.4.1"),
            context(11, UNKNOWN),
        )
    )
    assert results(outcome) == [
        (7, 0, JPEG),
        (1, 3, EVL),
        (3, 0, IVL),
        (5, 3, IVL),
        (9, 0, "1.3.46.670589.33.1.4.1"),
        (11, 0, IVL),
    ]
    assert outcome.contexts == {
        7: AcceptedContext(CT, JPEG),
        3: AcceptedContext(uids.VERIFICATION, IVL),
        9: AcceptedContext(PRIVATE, "1.3.46.670589.33.1.4.1"),
        11: AcceptedContext(UNKNOWN, IVL),
    }
    assert outcome.notes == ()


def test_all_refused_is_still_an_acceptance() -> None:
    outcome = accepted(request(context(1, STUDY_ROOT_FIND), context(3, COMMITMENT)))
    assert outcome.contexts == {}
    assert [result for _, result, _ in results(outcome)] == [3, 3]


@pytest.mark.parametrize(
    ("proposed", "expected"),
    [
        (PresentationContextRQ(1, "", (IVL,)), (1, 3, IVL)),
        (PresentationContextRQ(1, CT, ()), (1, 4, IVL)),
        (PresentationContextRQ(1, "", ()), (1, 3, IVL)),
        (PresentationContextRQ(1, "1" * 65, (EVL,)), (1, 3, EVL)),
        (PresentationContextRQ(1, "1.2/../3", (EVL,)), (1, 3, EVL)),
        (PresentationContextRQ(1, CT, ("1" * 65,)), (1, 4, IVL)),
        (PresentationContextRQ(1, CT, ("\xff", EVL)), (1, 0, EVL)),
        (PresentationContextRQ(1, CT, ("",)), (1, 4, IVL)),
    ],
)
def test_malformed_context(proposed: PresentationContextRQ, expected: tuple[int, int, str]) -> None:
    assert results(accepted(request(proposed))) == [expected]


def test_repeated_id() -> None:
    outcome = accepted(request(context(1, CT, EVL), context(1, MR, IVL), context(3, MR)))
    assert results(outcome) == [(1, 0, EVL), (3, 0, IVL)]
    assert outcome.contexts[1] == AcceptedContext(CT, EVL)
    assert outcome.notes == ("presentation context ids repeated, first one used: 1",)


def test_even_ids() -> None:
    rq = request(context(0), context(1), context(2))
    outcome = accepted(rq)
    assert sorted(outcome.contexts) == [0, 1, 2]
    assert outcome.notes == ("presentation context ids even: 0, 2",)
    outcome = accepted(rq, STRICT)
    assert [result for _, result, _ in results(outcome)] == [2, 0, 2]
    assert sorted(outcome.contexts) == [1]


def test_256_contexts_fit_and_do_not_flood_the_log() -> None:
    outcome = accepted(
        request(*(context(n, "1." * 31 + "11", "2." * 31 + "22") for n in range(256)))
    )
    assert len(outcome.contexts) == 256
    assert outcome.notes == (
        "presentation context ids even: 0, 2, 4, 6, 8, 10, 12, 14 and 120 more",
    )


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        ((JPEG, EVL, IVL), JPEG),
        ((J2K, JPEG), J2K),
        ((IVL, JPEG, EVL), IVL),
        ((IVL, EVL), EVL),
        ((EVB, EVL), EVL),
        ((IVL, EVB, EVL), EVL),
        ((EVB, IVL), EVB),
        ((IVL, IVL), IVL),
        ((DEFLATED, EVL, IVL), EVL),
        ((DEFLATED, IVL), IVL),
        ((DEFLATED, JPEG), JPEG),
        ((JPIP, DEFLATED, J2K), J2K),
        ((JPIP, DEFLATED), JPIP),
        ((DEFLATED,), DEFLATED),
        (("1.2.3.4.5", EVL), "1.2.3.4.5"),
    ],
)
def test_transfer_syntax(offered: tuple[str, ...], chosen: str) -> None:
    assert results(accepted(request(context(1, CT, *offered)))) == [(1, 0, chosen)]


@pytest.mark.parametrize(
    ("names", "offered", "expected"),
    [
        (("ExplicitVRLittleEndian",), (JPEG, EVL), (1, 0, EVL)),
        (("ExplicitVRLittleEndian",), (JPEG, J2K), (1, 4, JPEG)),
        (("ExplicitVRLittleEndian",), (JPEG, IVL, EVL), (1, 0, EVL)),
        (("JPEG2000*",), (EVL, IVL), (1, 0, IVL)),
        (("JPEG2000*",), (EVL, J2K, IVL), (1, 0, J2K)),
    ],
)
def test_listed_transfer_syntaxes(
    names: tuple[str, ...], offered: tuple[str, ...], expected: tuple[int, int, str]
) -> None:
    policy = Policy(transfer_syntaxes=transfer_syntax_rule(names))
    outcome = accepted(
        request(context(1, CT, *offered), context(3, uids.VERIFICATION, JPEG)), policy
    )
    # Verification carries no data set: any transfer syntax does.
    assert results(outcome) == [expected, (3, 0, JPEG)]


def test_unknown_class_declared_to_be_storage() -> None:
    declared = (
        CommonExtendedNegotiation(UNKNOWN, uids.STORAGE_SERVICE_CLASS, (CT,)),
        CommonExtendedNegotiation(PRIVATE, "1.2.840.10008.4.999", ()),
        CommonExtendedNegotiation(STUDY_ROOT_FIND, uids.STORAGE_SERVICE_CLASS, ()),
    )
    rq = informed(
        context(1, UNKNOWN),
        context(3, PRIVATE),
        context(5, STUDY_ROOT_FIND),
        common_extended=declared,
    )
    outcome = accepted(rq, Policy(sop_classes=sop_class_rule(("storage",))))
    assert [result for _, result, _ in results(outcome)] == [0, 3, 3]
    assert answered(outcome).common_extended == ()


# Sub-items of the user information ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "answer", "window"),
    [
        (None, None, 1),
        (AsyncWindow(1, 1), AsyncWindow(1, 1), 1),
        (AsyncWindow(5, 9), AsyncWindow(5, 1), 5),
        (AsyncWindow(0, 0), AsyncWindow(16, 1), 16),
        (AsyncWindow(65535, 0), AsyncWindow(16, 1), 16),
        (AsyncWindow(16, 1), AsyncWindow(16, 1), 16),
    ],
)
def test_window(asked: AsyncWindow | None, answer: AsyncWindow | None, window: int) -> None:
    outcome = accepted(informed(async_window=asked), Policy(max_async_operations=16))
    assert answered(outcome).async_window == answer
    assert outcome.window == window


def test_roles() -> None:
    asked = (
        RoleSelection(CT, True, True),
        RoleSelection(MR, False, True),
        RoleSelection(CT, False, False),
        RoleSelection(PRIVATE, True, False),
        RoleSelection(STUDY_ROOT_FIND, True, False),
    )
    outcome = accepted(informed(context(1, CT), context(3, MR), context(5, PRIVATE), roles=asked))
    assert answered(outcome).roles == (
        RoleSelection(CT, True, False),
        RoleSelection(MR, False, False),
        RoleSelection(PRIVATE, True, False),
    )
    assert outcome.notes == (f"asks for the SCP role of '{CT}' and 1 more: refused",)


def test_extended_negotiation() -> None:
    asked = tuple(
        ExtendedNegotiation(uid, information)
        for uid, information in [
            (CT, b"\2\0\0\0\1\0"),
            (CT, b"\1"),
            (uids.VERIFICATION, b"\1"),
            (STUDY_ROOT_FIND, b"\1\1"),
            (MR, b""),
            (PRIVATE, b"\2\0\0\0\1\0"),
        ]
    )
    contexts = (
        context(1, CT),
        context(3, uids.VERIFICATION),
        context(5, STUDY_ROOT_FIND),
        context(7, PRIVATE),
    )
    outcome = accepted(informed(*contexts, extended=asked))
    level_2 = bytes.fromhex("020003000000")
    assert answered(outcome).extended == (
        ExtendedNegotiation(CT, level_2),
        ExtendedNegotiation(PRIVATE, level_2),
    )


def test_user_identity_is_ignored() -> None:
    outcome = accepted(informed(identity=UserIdentity(2, True, b"user", b"secret")))
    assert answered(outcome).identity_response is None
    assert "secret" not in repr(outcome)


def test_answers_are_bounded_by_what_is_proposed() -> None:
    # 64 KiB of sub-items about classes nobody proposes must not become an answer too long to send.
    many = tuple(ExtendedNegotiation(f"1.2.{n}", b"") for n in range(5000))
    roles = tuple(RoleSelection(f"1.2.{n}", True, True) for n in range(5000))
    outcome = accepted(informed(extended=many, roles=roles))
    assert answered(outcome).extended == ()
    assert answered(outcome).roles == ()


def test_the_policy_goes_to_a_worker() -> None:
    policy = Policy(
        sop_classes=sop_class_rule(("storage", "1.3.*")),
        transfer_syntaxes=transfer_syntax_rule(("JPEG*",)),
    )
    assert pickle.loads(pickle.dumps(policy)) == policy


# Anything at all ---------------------------------------------------------------------------------

names = st.one_of(
    st.sampled_from([CT, MR, uids.VERIFICATION, STUDY_ROOT_FIND, UNKNOWN, IVL, EVL, JPEG, ""]),
    st.text(st.characters(max_codepoint=255), max_size=70),
)
requests = st.builds(
    AssociateRQ,
    called_ae=st.binary(min_size=16, max_size=16),
    calling_ae=st.binary(min_size=16, max_size=16),
    application_context=st.sampled_from([uids.APPLICATION_CONTEXT] * 3 + [None, "", "\n"]),
    presentation_contexts=st.lists(
        st.builds(
            PresentationContextRQ,
            st.integers(0, 255),
            names,
            st.lists(names, max_size=5).map(tuple),
        ),
        max_size=12,
    ).map(tuple),
    user_information=st.none()
    | st.builds(
        UserInformation,
        max_pdu_length=st.none() | st.integers(0, 0xFFFFFFFF),
        async_window=st.none()
        | st.builds(AsyncWindow, st.integers(0, 65535), st.integers(0, 65535)),
        roles=st.lists(
            st.builds(RoleSelection, names, st.booleans(), st.booleans()), max_size=4
        ).map(tuple),
        extended=st.lists(
            st.builds(ExtendedNegotiation, names, st.binary(max_size=8)), max_size=4
        ).map(tuple),
        common_extended=st.lists(
            st.builds(CommonExtendedNegotiation, names, names, st.just(())), max_size=4
        ).map(tuple),
    ),
    protocol_version=st.sampled_from([1, 1, 1, 0, 3]),
)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(requests, st.booleans())
def test_any_request(rq: AssociateRQ, strict: bool) -> None:
    outcome = negotiate(rq, Policy(sop_classes=OPEN.sop_classes, strict=strict))
    if isinstance(outcome, Rejected):
        assert outcome.why.isprintable()
        return
    encode_associate_ac(outcome.ac)
    proposed = list(dict.fromkeys(c.id for c in rq.presentation_contexts))
    assert [c.id for c in outcome.ac.presentation_contexts] == proposed
    for answer in outcome.ac.presentation_contexts:
        first = next(c for c in rq.presentation_contexts if c.id == answer.id)
        assert (answer.id in outcome.contexts) == (answer.result == 0)
        if answer.result == 0:
            assert answer.transfer_syntax in first.transfer_syntaxes
            assert outcome.contexts[answer.id].abstract_syntax == first.abstract_syntax
        else:
            assert answer.result in (2, 3, 4)
    assert 1 <= outcome.window <= 64
    assert all(note.isprintable() for note in outcome.notes)


# Real requests -----------------------------------------------------------------------------------


COMMITMENTS = streams.names("own/commitment.c2s", "recorded/*stgcmt*")


@pytest.mark.parametrize("name", [name for name in streams.told() if name.endswith(".c2s")])
def test_every_real_client_is_accepted(name: str) -> None:
    outcome = accepted(decode_associate_rq(streams.first_pdu(name)))
    # Those that ask for storage commitment ask for nothing else.
    assert bool(outcome.contexts) == (name not in COMMITMENTS)


@pytest.mark.parametrize(
    "name",
    streams.names(
        "own/many_contexts.c2s",
        "recorded/dcmtk367_storescu_allclasses.c2s",
        "recorded/pynetdicom304_128contexts.c2s",
    ),
)
def test_like_another_acceptor(name: str) -> None:
    outcome = accepted(decode_associate_rq(streams.first_pdu(name)))
    theirs = decode_associate_ac(streams.first_pdu(name.replace(".c2s", ".s2c")))

    def ids(contexts: tuple[PresentationContextAC, ...]) -> list[int]:
        return [context.id for context in contexts if context.result == 0]

    assert ids(outcome.ac.presentation_contexts) == ids(theirs.presentation_contexts)
    assert len(outcome.contexts) == 128


@pytest.mark.parametrize(
    "name",
    streams.names("own/store_extended_negotiation.c2s", "recorded/pynetdicom304_extneg.c2s"),
)
def test_extended_items_of_a_real_client(name: str) -> None:
    outcome = accepted(decode_associate_rq(streams.first_pdu(name)))
    information = answered(outcome)
    assert information.async_window == AsyncWindow(64, 1)
    assert information.roles
    assert information.extended
    assert information.identity_response is None


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (name, expected)
        for kind, expected in (
            ("bad_rq_no_contexts", (1, 2, 1)),
            ("bad_rq_protocol_version_0002", (1, 2, 2)),
            ("bad_rq_app_context", (1, 1, 2)),
        )
        for name in streams.names(f"*/{kind}.c2s")
    ],
)
def test_real_rejections(name: str, expected: tuple[int, int, int]) -> None:
    rq = decode_associate_rq(streams.first_pdu(name))
    outcome = foreign(rq) or negotiate(rq, OPEN)
    assert isinstance(outcome, Rejected)
    assert (outcome.result, outcome.source, outcome.reason) == expected


@pytest.mark.parametrize("name", streams.names("*/bad_rq_protocol_version_0003.c2s"))
def test_version_3_has_bit_0(name: str) -> None:
    accepted(decode_associate_rq(streams.first_pdu(name)))


def test_each_transfer_syntax_is_judged_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many contexts propose it: patterns of an operator cost a search each."""
    judged: list[str] = []
    matches = uids._matches

    def counting(uid: str, patterns: tuple[str, ...]) -> bool:
        judged.append(uid)
        return matches(uid, patterns)

    monkeypatch.setattr(uids, "_matches", counting)
    private = tuple(f"1.2.840.77.{n}" for n in range(40))
    policy = Policy(
        sop_classes=sop_class_rule(("any",)), transfer_syntaxes=transfer_syntax_rule(("1.2.*.7",))
    )
    contexts = [context(n, CT, *private, *private) for n in range(1, 256, 2)]
    judged.clear()
    outcome = negotiate(request(*contexts), policy)
    assert isinstance(outcome, Accepted)
    assert sorted(judged) == sorted(private)
    assert {one.transfer_syntax for one in outcome.contexts.values()} == {"1.2.840.77.7"}
