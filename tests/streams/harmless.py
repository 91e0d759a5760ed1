"""Streams that a service has to take: what senders send, and oddities that do no harm.

Each is what a client writes to its socket, and what is in it, in the words of `expect.json` in
../shared/vectors. The names of oddities are those of the streams there that show the same.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Final

from tests.streams.pieces import (
    APPLICATION,
    CALLED,
    CALLING,
    CT_CONTEXT,
    DATA_BIG,
    DATA_COMMITMENT,
    DATA_DEFLATED,
    DATA_EXPLICIT,
    DATA_EXPLICIT_2,
    DATA_IMPLICIT,
    DATA_PRIVATE,
    DATA_RLE,
    DATA_UNDEFINED,
    FIXED,
    INFORMATION,
    META,
    PARTS_OF_ECHO,
    PARTS_OF_STORE,
    PREAMBLE,
    RELEASE_RP,
    RELEASE_RQ,
    RQ,
    command,
    context,
    data_pdu,
    information,
    pdu,
    pdv,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["HARMLESS"]

CT: Final = b"1.2.840.10008.5.1.4.1.1.2"
VERIFICATION: Final = b"1.2.840.10008.1.1"
IMPLICIT: Final = b"1.2.840.10008.1.2"
EXPLICIT: Final = b"1.2.840.10008.1.2.1"
DEFLATED: Final = b"1.2.840.10008.1.2.1.99"
BIG: Final = b"1.2.840.10008.1.2.2"
RLE: Final = b"1.2.840.10008.1.2.5"

STORE: Final = command(*PARTS_OF_STORE.values())
# The second instance, as message 2.
STORE_2: Final = command(
    *(
        PARTS_OF_STORE
        | {
            "id": b"\x00\x00\x10\x01\x02\x00\x00\x00"  # (0000,0110) Message ID, 2 bytes
            b"\x02\x00",  # 2
            "instance": b"\x00\x00\x00\x10\x0e\x00\x00\x00"  # (0000,1000) Affected SOP Instance UID
            b"1.2.3.71.1.1.2",
        }
    ).values()
)
ECHO: Final = command(*PARTS_OF_ECHO.values())

# What is told of them ----------------------------------------------------------------------------

TOLD_STORE: Final[dict[str, Any]] = {
    "pc": 1,
    "affected_sop_class": "1.2.840.10008.5.1.4.1.1.2",
    "command_field": 0x0001,
    "message_id": 1,
    "priority": 0,
    "data_set_type": 1,
    "affected_sop_instance": "1.2.3.71.1.1.1",
}
TOLD_ECHO: Final[dict[str, Any]] = {
    "pc": 1,
    "affected_sop_class": "1.2.840.10008.1.1",
    "command_field": 0x0030,
    "message_id": 1,
    "data_set_type": 0x0101,
}
TOLD_CONTEXT: Final = {"id": 1, "as": CT.decode(), "ts": [EXPLICIT.decode()]}


def stored(data: bytes = DATA_EXPLICIT, **more: Any) -> dict[str, Any]:
    """A C-STORE-RQ with this data set. more: what else is told, or otherwise."""
    digest = hashlib.sha256(data).hexdigest()
    return TOLD_STORE | {"dataset_bytes": len(data), "dataset_sha256": digest} | more


def second(data: bytes = DATA_EXPLICIT_2, **more: Any) -> dict[str, Any]:
    return stored(data, message_id=2, affected_sop_instance="1.2.3.71.1.1.2", **more)


def asked(*contexts: dict[str, Any], kinds: Iterable[int] = (), **more: Any) -> dict[str, Any]:
    """An A-ASSOCIATE-RQ. kinds: types of the sub-items beside the usual ones."""
    return {
        "protocol_version": "0001",
        "called": CALLED.decode(),
        "calling": CALLING.decode(),
        "application_context": "1.2.840.10008.3.1.1.1",
        "contexts": list(contexts or [TOLD_CONTEXT]),
        "user_items": [{"type": f"{kind:02x}"} for kind in kinds],
        "max_pdu": 16384,
        "impl_uid": "1.2.3.71",
        "impl_version": "OWN_BYTES",
    } | more


HARMLESS: Final[dict[str, tuple[bytes, dict[str, Any]]]] = {}


def add(
    name: str,
    *pdus: bytes,
    told: list[str],
    messages: Iterable[dict[str, Any]] = (),
    rq: dict[str, Any] | None = None,
    ac: dict[str, Any] | None = None,
) -> None:
    """A stream. told: its PDUs with their lengths; messages, rq, ac: what is in them."""
    what: dict[str, Any] = {"pdus": told, "messages": list(messages)}
    if ac is None:
        what["rq"] = rq or asked()
    else:
        what["ac"] = ac
    HARMLESS[name] = b"".join(pdus), what


def of(size: int, kind: str = "P-DATA-TF") -> str:
    return f"{kind}({size})"


# RQ: 68 bytes of fixed fields, 25 of application context, 60 of the context, 37 of information.
REQUEST: Final = of(190, "A-ASSOCIATE-RQ")
RELEASE: Final = of(4, "A-RELEASE-RQ")
GRANTED: Final = of(4, "A-RELEASE-RP")
# A command set or data set in a PDV: 6 bytes more.
COMMAND: Final = of(len(STORE) + 6)
DATA: Final = of(len(DATA_EXPLICIT) + 6)


def told_context(number: int, abstract: bytes, *syntaxes: bytes) -> dict[str, Any]:
    return {"id": number, "as": abstract.decode(), "ts": [uid.decode() for uid in syntaxes]}


# What senders send -------------------------------------------------------------------------------

add(
    "echo.c2s",
    pdu(1, FIXED, APPLICATION, context(1, VERIFICATION, IMPLICIT), INFORMATION),
    data_pdu(3, ECHO),
    RELEASE_RQ,
    told=[of(180, "A-ASSOCIATE-RQ"), of(74), RELEASE],
    rq=asked(told_context(1, VERIFICATION, IMPLICIT)),
    messages=[TOLD_ECHO],
)
add(
    "echo.s2c",
    pdu(
        2, FIXED, APPLICATION,
        b"\x21\x00\x00\x19"  # presentation context, 25 bytes
        b"\x01\x00\x00\x00"  # id 1, reserved, accepted, reserved
        b"\x40\x00\x00\x11"  # transfer syntax, 17 bytes: Implicit VR Little Endian
        b"1.2.840.10008.1.2",
        INFORMATION,
    ),
    data_pdu(
        3,
        b"\x00\x00\x00\x00\x04\x00\x00\x00"  # (0000,0000) Command Group Length, 4 bytes
        b"\x42\x00\x00\x00"  # 66
        b"\x00\x00\x02\x00\x12\x00\x00\x00"  # (0000,0002) Affected SOP Class UID, 18 bytes
        b"1.2.840.10008.1.1\x00"
        b"\x00\x00\x00\x01\x02\x00\x00\x00"  # (0000,0100) Command Field, 2 bytes
        b"\x30\x80"  # C-ECHO-RSP
        b"\x00\x00\x20\x01\x02\x00\x00\x00"  # (0000,0120) Message ID Being Responded To, 2 bytes
        b"\x01\x00"  # 1
        b"\x00\x00\x00\x08\x02\x00\x00\x00"  # (0000,0800) Command Data Set Type, 2 bytes
        b"\x01\x01"  # none
        b"\x00\x00\x00\x09\x02\x00\x00\x00"  # (0000,0900) Status, 2 bytes
        b"\x00\x00",  # success
    ),
    RELEASE_RP,
    told=[of(159, "A-ASSOCIATE-AC"), of(84), GRANTED],
    ac=asked({"id": 1, "result": 0, "ts": [IMPLICIT.decode()]}),
    messages=[
        {
            "pc": 1,
            "affected_sop_class": "1.2.840.10008.1.1",
            "command_field": 0x8030,
            "message_id_rsp_to": 1,
            "data_set_type": 0x0101,
            "status": 0,
        }
    ],
)  # fmt: skip
add(
    "store_explicit.c2s",
    RQ, data_pdu(3, STORE), data_pdu(2, DATA_EXPLICIT), RELEASE_RQ,
    told=[REQUEST, COMMAND, DATA, RELEASE],
    messages=[stored()],
)  # fmt: skip
add(
    "store_undefined_lengths.c2s",
    RQ, data_pdu(3, STORE), data_pdu(2, DATA_UNDEFINED), RELEASE_RQ,
    told=[REQUEST, COMMAND, of(len(DATA_UNDEFINED) + 6), RELEASE],
    messages=[stored(DATA_UNDEFINED)],
)  # fmt: skip
add(
    "store_two_instances.c2s",
    RQ,
    data_pdu(3, STORE), data_pdu(2, DATA_EXPLICIT),
    data_pdu(3, STORE_2), data_pdu(2, DATA_EXPLICIT_2),
    RELEASE_RQ,
    told=[REQUEST, COMMAND, DATA, COMMAND, DATA, RELEASE],
    messages=[stored(), second()],
)  # fmt: skip
add(
    "store_another_instance.c2s",
    RQ, data_pdu(3, STORE_2), data_pdu(2, DATA_EXPLICIT_2), RELEASE_RQ,
    told=[REQUEST, COMMAND, DATA, RELEASE],
    messages=[second()],
)  # fmt: skip
for name, syntax, data in (
    ("implicit", IMPLICIT, DATA_IMPLICIT),
    ("big_endian", BIG, DATA_BIG),
    ("deflated", DEFLATED, DATA_DEFLATED),
    ("rle", RLE, DATA_RLE),
):
    add(
        f"store_{name}.c2s",
        pdu(1, FIXED, APPLICATION, context(1, CT, syntax), INFORMATION),
        data_pdu(3, STORE),
        data_pdu(2, data),
        RELEASE_RQ,
        told=[of(171 + len(syntax), "A-ASSOCIATE-RQ"), COMMAND, of(len(data) + 6), RELEASE],
        rq=asked(told_context(1, CT, syntax)),
        messages=[stored(data)],
    )
add(
    "store_small_pdus.c2s",
    pdu(1, FIXED, APPLICATION, CT_CONTEXT, information(longest=b"\x00\x00\x10\x00")),  # 4096
    data_pdu(3, STORE),
    *(data_pdu(0, DATA_EXPLICIT[at : at + 50]) for at in range(0, 250, 50)),
    data_pdu(2, DATA_EXPLICIT[250:]),
    RELEASE_RQ,
    told=[REQUEST, COMMAND, *[of(56)] * 5, of(len(DATA_EXPLICIT) - 250 + 6), RELEASE],
    rq=asked(max_pdu=4096),
    messages=[stored()],
)
add(
    "store_no_maximum_length.c2s",
    pdu(1, FIXED, APPLICATION, CT_CONTEXT, information(longest=b"\x00\x00\x00\x00")),  # none
    data_pdu(3, STORE), data_pdu(2, DATA_EXPLICIT), RELEASE_RQ,
    told=[REQUEST, COMMAND, DATA, RELEASE],
    rq=asked(max_pdu=0),
    messages=[stored()],
)  # fmt: skip
add(
    "store_abort.c2s",
    RQ,
    data_pdu(3, STORE),
    data_pdu(2, DATA_EXPLICIT),
    b"\x07\x00\x00\x00\x00\x04"  # A-ABORT, 4 bytes
    b"\x00\x00"  # reserved
    b"\x00\x00",  # source: service user; reason: none
    told=[REQUEST, COMMAND, DATA, of(4, "A-ABORT")],
    messages=[stored()],
)
add(
    "store_move_originator.c2s",
    RQ,
    data_pdu(
        3,
        command(
            PARTS_OF_STORE["class"],
            PARTS_OF_STORE["field"],
            PARTS_OF_STORE["id"],
            b"\x00\x00\x00\x07\x02\x00\x00\x00"  # (0000,0700) Priority, 2 bytes
            b"\x02\x00",  # low
            PARTS_OF_STORE["type"],
            PARTS_OF_STORE["instance"],
            b"\x00\x00\x30\x10\x08\x00\x00\x00"  # (0000,1030) Move Originator AE Title, 8 bytes
            b"ARCHIVE ",
            b"\x00\x00\x31\x10\x02\x00\x00\x00"  # (0000,1031) Move Originator Message ID, 2 bytes
            b"\x4d\x00",  # 77
        ),
    ),
    data_pdu(2, DATA_EXPLICIT),
    RELEASE_RQ,
    told=[REQUEST, of(len(STORE) + 6 + 26), DATA, RELEASE],
    messages=[stored(priority=2, move_originator_aet="ARCHIVE", move_originator_id=77)],
)
add(
    "store_private_class.c2s",
    pdu(1, FIXED, APPLICATION, context(1, b"1.2.3.71.99.55", EXPLICIT), INFORMATION),
    data_pdu(
        3,
        command(
            b"\x00\x00\x02\x00\x0e\x00\x00\x00"  # (0000,0002) Affected SOP Class UID, 14 bytes
            b"1.2.3.71.99.55",
            *list(PARTS_OF_STORE.values())[1:],
        ),
    ),
    data_pdu(2, DATA_PRIVATE),
    RELEASE_RQ,
    told=[of(179, "A-ASSOCIATE-RQ"), of(len(STORE) + 6 - 12), of(len(DATA_PRIVATE) + 6), RELEASE],
    rq=asked(told_context(1, b"1.2.3.71.99.55", EXPLICIT)),
    messages=[stored(DATA_PRIVATE, affected_sop_class="1.2.3.71.99.55")],
)
# Every context that ids allow, each with four transfer syntaxes.
add(
    "many_contexts.c2s",
    pdu(
        1, FIXED, APPLICATION,
        *(context(n, CT, IMPLICIT, EXPLICIT, DEFLATED, BIG) for n in range(1, 256, 2)),
        INFORMATION,
    ),
    RELEASE_RQ,
    # A context: 8 bytes, its class 29, its syntaxes 21, 23, 26 and 23.
    told=[of(130 + 128 * 130, "A-ASSOCIATE-RQ"), RELEASE],
    rq=asked(
        told_context(1, CT, IMPLICIT, EXPLICIT, DEFLATED, BIG),
        told_context(3, CT, IMPLICIT, EXPLICIT, DEFLATED, BIG),
        "... 128 in all",  # type: ignore[arg-type]  # as expect.json shortens them
    ),
)  # fmt: skip
add(
    "many_contexts.s2c",
    pdu(
        2, FIXED, APPLICATION,
        *(
            b"\x21\x00\x00\x1b"  # presentation context, 27 bytes
            + bytes((n, 0, 0, 0))  # id, reserved, accepted, reserved
            + b"\x40\x00\x00\x13"  # transfer syntax, 19 bytes: Explicit VR Little Endian
            + b"1.2.840.10008.1.2.1"
            for n in range(1, 256, 2)
        ),
        INFORMATION,
    ),
    RELEASE_RP,
    told=[of(130 + 128 * 31, "A-ASSOCIATE-AC"), GRANTED],
    ac=asked(
        {"id": 1, "result": 0, "ts": [EXPLICIT.decode()]},
        {"id": 3, "result": 0, "ts": [EXPLICIT.decode()]},
        "... 128 in all",  # type: ignore[arg-type]
    ),
)  # fmt: skip
# The instance travels on one of 128 contexts of different classes.
add(
    "store_one_of_many_contexts.c2s",
    pdu(
        1, FIXED, APPLICATION,
        *(
            context(n, CT if n == 41 else b"1.2.3.71.99.%d" % (500 + n), EXPLICIT, IMPLICIT)
            for n in range(1, 256, 2)
        ),
        INFORMATION,
    ),
    data_pdu(3, STORE, context=41), data_pdu(2, DATA_EXPLICIT, context=41), RELEASE_RQ,
    # A context: 8 bytes, its class 19, or 29 that of CT, its syntaxes 23 and 21.
    told=[of(130 + 128 * 71 + 10, "A-ASSOCIATE-RQ"), COMMAND, DATA, RELEASE],
    rq=asked(
        told_context(1, b"1.2.3.71.99.501", EXPLICIT, IMPLICIT),
        told_context(3, b"1.2.3.71.99.503", EXPLICIT, IMPLICIT),
        "... 128 in all",  # type: ignore[arg-type]
    ),
    messages=[stored(pc=41)],
)  # fmt: skip
add(
    "store_extended_negotiation.c2s",
    pdu(
        1, FIXED, APPLICATION, CT_CONTEXT,
        information(
            b"\x54\x00\x00\x1d"  # role selection, 29 bytes
            b"\x00\x19"  # SOP class UID, 25 bytes
            b"1.2.840.10008.5.1.4.1.1.2"
            b"\x01\x01",  # SCU role yes, SCP role yes
            b"\x53\x00\x00\x04"  # asynchronous operations window
            b"\x00\x00\x00\x00",  # any number invoked, any performed
            b"\x58\x00\x00\x0f"  # user identity, 15 bytes
            b"\x02\x01"  # user name and passcode, positive response requested
            b"\x00\x05nurse"  # primary field, 5 bytes
            b"\x00\x04ward",  # secondary field, 4 bytes
            b"\x56\x00\x00\x21"  # extended negotiation, 33 bytes
            b"\x00\x19"  # SOP class UID, 25 bytes
            b"1.2.840.10008.5.1.4.1.1.2"
            b"\x02\x00\x03\x00\x02\x00",  # service class application information, the rest
            b"\x57\x00\x00\x2d"  # common extended negotiation, 45 bytes
            b"\x00\x0e"  # SOP class UID, 14 bytes
            b"1.2.3.71.99.55"
            b"\x00\x11"  # service class UID, 17 bytes: Storage
            b"1.2.840.10008.4.2"
            b"\x00\x08"  # related general SOP classes, 8 bytes
            b"\x00\x06"  # 6 bytes
            b"1.2.99",
        ),
    ),
    data_pdu(3, STORE), data_pdu(2, DATA_EXPLICIT), RELEASE_RQ,
    told=[of(190 + 33 + 8 + 19 + 37 + 49, "A-ASSOCIATE-RQ"), COMMAND, DATA, RELEASE],
    rq=asked(kinds=(0x54, 0x53, 0x58, 0x56, 0x57)),
    messages=[stored()],
)  # fmt: skip
add(
    "commitment.c2s",
    pdu(1, FIXED, APPLICATION, context(1, b"1.2.840.10008.1.20.1", IMPLICIT), INFORMATION),
    data_pdu(
        3,
        b"\x00\x00\x00\x00\x04\x00\x00\x00"  # (0000,0000) Command Group Length, 4 bytes
        b"\x62\x00\x00\x00"  # 98
        b"\x00\x00\x03\x00\x14\x00\x00\x00"  # (0000,0003) Requested SOP Class UID, 20 bytes
        b"1.2.840.10008.1.20.1"
        b"\x00\x00\x00\x01\x02\x00\x00\x00"  # (0000,0100) Command Field, 2 bytes
        b"\x30\x01"  # N-ACTION-RQ
        b"\x00\x00\x10\x01\x02\x00\x00\x00"  # (0000,0110) Message ID, 2 bytes
        b"\x01\x00"  # 1
        b"\x00\x00\x00\x08\x02\x00\x00\x00"  # (0000,0800) Command Data Set Type, 2 bytes
        b"\x01\x00"  # present
        b"\x00\x00\x01\x10\x16\x00\x00\x00"  # (0000,1001) Requested SOP Instance UID, 22 bytes
        b"1.2.840.10008.1.20.1.1"
        b"\x00\x00\x08\x10\x02\x00\x00\x00"  # (0000,1008) Action Type ID, 2 bytes
        b"\x01\x00",  # 1
    ),
    data_pdu(2, DATA_COMMITMENT),
    RELEASE_RQ,
    told=[of(183, "A-ASSOCIATE-RQ"), of(116), of(len(DATA_COMMITMENT) + 6), RELEASE],
    rq=asked(told_context(1, b"1.2.840.10008.1.20.1", IMPLICIT)),
    messages=[
        {
            "pc": 1,
            "requested_sop_class": "1.2.840.10008.1.20.1",
            "command_field": 0x0130,
            "message_id": 1,
            "data_set_type": 1,
            "requested_sop_instance": "1.2.840.10008.1.20.1.1",
            "action_type": 1,
            "dataset_bytes": len(DATA_COMMITMENT),
            "dataset_sha256": hashlib.sha256(DATA_COMMITMENT).hexdigest(),
        }
    ],
)
# A refusal has no transfer syntax that counts, and this one none at all.
add(
    "commitment.s2c",
    pdu(
        2, FIXED, APPLICATION,
        b"\x21\x00\x00\x19"  # presentation context, 25 bytes
        b"\x01\x00\x03\x00"  # id 1, reserved, abstract syntax not supported, reserved
        b"\x40\x00\x00\x11"  # transfer syntax, 17 bytes, not to be looked at
        b"1.2.840.10008.1.2",
        INFORMATION,
    ),
    RELEASE_RP,
    told=[of(159, "A-ASSOCIATE-AC"), GRANTED],
    ac=asked({"id": 1, "result": 3, "ts": [IMPLICIT.decode()]}),
)  # fmt: skip

# Oddities in the request -------------------------------------------------------------------------


def with_request(name: str, rq: bytes, size: int, told: dict[str, Any]) -> None:
    add(
        f"derived_{name}.c2s",
        rq, data_pdu(3, STORE), data_pdu(2, DATA_EXPLICIT), RELEASE_RQ,
        told=[of(size, "A-ASSOCIATE-RQ"), COMMAND, DATA, RELEASE],
        rq=told,
        messages=[stored()],
    )  # fmt: skip


with_request(
    "ae_null_padded",
    RQ.replace(CALLED, b"OWN_RECEIVER\0\0\0\0").replace(CALLING, b"OWN_SENDER\0\0\0\0\0\0"),
    190,
    asked(called="OWN_RECEIVER\0\0\0\0", calling="OWN_SENDER\0\0\0\0\0\0"),
)
with_request(
    "calling_ae_blank", RQ.replace(CALLING, b" " * 16), 190, asked(calling="                ")
)
with_request(
    "reserved_bytes_nonzero",
    b"\x01\xee\x00\x00\x00\xbe"  # A-ASSOCIATE-RQ, reserved byte set, 190 bytes
    b"\x00\x01"  # protocol version 1
    b"\xee\xee"  # reserved
    b"OWN_RECEIVER    "  # called AE title
    b"OWN_SENDER      "  # calling AE title
    b"\xee\xee\xee\xee\xee\xee\xee\xee\xee\xee\xee\xee\xee\xee\xee\xee"  # reserved, 32 bytes
    b"\xee\xee\xee\xee\xee\xee\xee\xee\xee\xee\xee\xee\xee\xee\xee\xee"
    b"\x10\xee\x00\x15"  # application context, 21 bytes
    b"1.2.840.10008.3.1.1.1"
    b"\x20\xee\x00\x38"  # presentation context, 56 bytes
    b"\x01\xee\xee\xee"  # id 1, reserved
    b"\x30\xee\x00\x19"  # abstract syntax, 25 bytes
    b"1.2.840.10008.5.1.4.1.1.2"
    b"\x40\xee\x00\x13"  # transfer syntax, 19 bytes
    b"1.2.840.10008.1.2.1"
    b"\x50\xee\x00\x21"  # user information, 33 bytes
    b"\x51\xee\x00\x04"  # maximum length
    b"\x00\x00\x40\x00"
    b"\x52\xee\x00\x08"  # implementation class UID, 8 bytes
    b"1.2.3.71"
    b"\x55\xee\x00\x09"  # implementation version name, 9 bytes
    b"OWN_BYTES",
    190,
    asked(),
)
with_request(
    "trailing_bytes_after_user_info",
    pdu(
        1, FIXED, APPLICATION, CT_CONTEXT, INFORMATION,
        b"\x60\x00\x00\x04"  # unknown item, 4 bytes
        b"\xff\xff\xff\xff",
    ),
    198,
    asked(),
)  # fmt: skip

# Oddities in the command set ---------------------------------------------------------------------


def with_command(name: str, data: bytes, size: int, **more: Any) -> None:
    add(
        f"derived_{name}.c2s",
        RQ, data_pdu(3, data), data_pdu(2, DATA_EXPLICIT), RELEASE_RQ,
        told=[REQUEST, of(size + 6), DATA, RELEASE],
        messages=[stored(**more)],
    )  # fmt: skip


# The group length: 12 bytes. The elements: 34, 10, 10, 10, 10 and 22.
with_command("no_command_group_length", b"".join(PARTS_OF_STORE.values()), 96)
with_command("command_elements_reversed", command(*reversed(PARTS_OF_STORE.values())), 108)
with_command(
    "datasettype_0000",
    command(
        *(
            PARTS_OF_STORE
            | {
                "type": b"\x00\x00\x00\x08\x02\x00\x00\x00"  # (0000,0800) Command Data Set Type
                b"\x00\x00"  # present, for it is not 0101
            }
        ).values()
    ),
    108,
    data_set_type=0,
)
with_command(
    "datasettype_0202",
    command(
        *(
            PARTS_OF_STORE
            | {
                "type": b"\x00\x00\x00\x08\x02\x00\x00\x00"  # (0000,0800) Command Data Set Type
                b"\x02\x02"  # present, for it is not 0101
            }
        ).values()
    ),
    108,
    data_set_type=0x0202,
)
with_command(
    "uid_space_padded",
    command(
        *(
            PARTS_OF_STORE
            | {
                "instance": b"\x00\x00\x00\x10\x10\x00\x00\x00"  # (0000,1000), 16 bytes
                b"1.2.3.71.1.1.1  "
            }
        ).values()
    ),
    110,
    # Without padding, as the codec tells it; a response gives it back as it came.
    affected_sop_instance="1.2.3.71.1.1.1",
)
with_command(
    "extra_command_elements",
    command(
        b"\x00\x00\x01\x00\x04\x00\x00\x00"  # (0000,0001) Length to End (retired), 4 bytes
        b"\x64\x00\x00\x00",
        PARTS_OF_STORE["class"],
        PARTS_OF_STORE["field"],
        PARTS_OF_STORE["id"],
        b"\x00\x00\x00\x02\x08\x00\x00\x00"  # (0000,0200) Initiator (retired), 8 bytes
        b"STATION1",
        PARTS_OF_STORE["priority"],
        PARTS_OF_STORE["type"],
        PARTS_OF_STORE["instance"],
        b"\x00\x00\x30\x10\x0a\x00\x00\x00"  # (0000,1030) Move Originator AE Title, 10 bytes
        b"ORIGINATOR",
        b"\x00\x00\x31\x10\x02\x00\x00\x00"  # (0000,1031) Move Originator Message ID, 2 bytes
        b"\x05\x00",  # 5
    ),
    108 + 12 + 16 + 18 + 10,
    move_originator_aet="ORIGINATOR",
    move_originator_id=5,
)
add(
    "derived_echo_on_storage_context.c2s",
    RQ, data_pdu(3, ECHO), RELEASE_RQ,
    told=[REQUEST, of(74), RELEASE],
    messages=[TOLD_ECHO],
)  # fmt: skip

# Oddities in the PDVs ----------------------------------------------------------------------------


def with_pdus(
    name: str, *pdus: bytes, told: list[str], data: bytes = DATA_EXPLICIT, two: bool = False
) -> None:
    add(
        f"derived_{name}.c2s", RQ, *pdus, RELEASE_RQ,
        told=[REQUEST, *told, RELEASE],
        messages=[stored(data), *([second()] if two else [])],
    )  # fmt: skip


with_pdus(
    "cmd_and_data_in_one_pdu",
    pdu(
        4,
        pdv(3, STORE),  # 114 bytes
        pdv(0, DATA_EXPLICIT[:100]),  # 106
        pdv(0, DATA_EXPLICIT[100:200]),  # 106
        pdv(2, DATA_EXPLICIT[200:]),  # 6, and the rest
    ),
    told=[of(332 + len(DATA_EXPLICIT) - 200)],
)
with_pdus(
    "two_messages_in_one_pdu",
    pdu(4, pdv(3, STORE), pdv(2, DATA_EXPLICIT), pdv(3, STORE_2), pdv(2, DATA_EXPLICIT_2)),
    told=[of(2 * (114 + 6 + len(DATA_EXPLICIT)))],
    two=True,
)
with_pdus(
    "zero_length_last_fragment",
    data_pdu(3, STORE),
    data_pdu(0, DATA_EXPLICIT),
    b"\x04\x00\x00\x00\x00\x06"  # P-DATA-TF, 6 bytes
    b"\x00\x00\x00\x02"  # PDV, 2 bytes: no fragment
    b"\x01"  # context id 1
    b"\x02",  # message control header: data set, last fragment
    told=[COMMAND, DATA, of(6)],
)
with_pdus(
    "zero_length_middle_fragment",
    pdu(4, pdv(1, STORE), pdv(3, b"")),
    pdu(4, pdv(0, DATA_EXPLICIT[:100]), pdv(0, b""), pdv(2, DATA_EXPLICIT[100:])),
    told=[of(120), of(118 - 100 + len(DATA_EXPLICIT))],
)
with_pdus(
    "command_split_over_pdus",
    data_pdu(1, STORE[:10]),  # inside the value of the group length
    data_pdu(1, STORE[10:14]),  # inside the head of the second element
    data_pdu(3, STORE[14:]),
    data_pdu(2, DATA_EXPLICIT),
    told=[of(16), of(10), of(100), DATA],
)
with_pdus(
    "two_byte_fragments",
    data_pdu(3, STORE),
    *(data_pdu(0, DATA_EXPLICIT[at : at + 2]) for at in range(0, len(DATA_EXPLICIT) - 2, 2)),
    data_pdu(2, DATA_EXPLICIT[-2:]),
    # Of PDUs without end three are told, their number and two.
    told=[COMMAND, of(8), f"... {len(DATA_EXPLICIT) // 2 - 2} more P-DATA-TF ...", of(8)],
)
with_pdus(
    "mch_high_bits_set",
    data_pdu(0xFF, STORE),
    data_pdu(0xFE, DATA_EXPLICIT),
    told=[COMMAND, DATA],
)
with_pdus(
    "odd_length_fragments",
    data_pdu(3, STORE),
    data_pdu(0, DATA_EXPLICIT[:101]),
    data_pdu(2, DATA_EXPLICIT[101:]),
    told=[COMMAND, of(107), of(len(DATA_EXPLICIT) - 101 + 6)],
)
# More than a service announces with --max-pdu-length 16384.
_LARGE: Final = (
    DATA_EXPLICIT
    + b"\xfc\xff\xfc\xffOB\x00\x00\x40\x9c\x00\x00"  # (FFFC,FFFC) Trailing Padding, 40000 bytes
    + bytes(40000)
)
with_pdus(
    "pdu_larger_than_max",
    data_pdu(3, STORE),
    data_pdu(2, _LARGE),
    told=[COMMAND, of(len(_LARGE) + 6)],
    data=_LARGE,
)
# The release comes before the response is read, with the last PDV.
with_pdus(
    "release_before_response",
    data_pdu(3, STORE),
    pdu(4, pdv(0, DATA_EXPLICIT[:50]), pdv(2, DATA_EXPLICIT[50:])),
    told=[COMMAND, of(12 + len(DATA_EXPLICIT))],
)
_EMBEDDED: Final = PREAMBLE + META + DATA_EXPLICIT
with_pdus(
    "preamble_in_dataset",
    data_pdu(3, STORE),
    data_pdu(2, _EMBEDDED),
    told=[COMMAND, of(len(_EMBEDDED) + 6)],
    data=_EMBEDDED,
)
with_pdus(
    "group2_in_dataset",
    data_pdu(3, STORE),
    data_pdu(2, META + DATA_EXPLICIT),
    told=[COMMAND, of(len(META) + len(DATA_EXPLICIT) + 6)],
    data=META + DATA_EXPLICIT,
)
