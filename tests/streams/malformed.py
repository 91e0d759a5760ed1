"""Streams that break the standard: what a client writes to its socket, annotated where it lies.

The names are those of the streams in ../shared/vectors/bad that show the same. What each has to get
is told by the tests.
"""

from __future__ import annotations

from typing import Final

from tests.streams.pieces import (
    APPLICATION,
    CT_CONTEXT,
    DATA_EXPLICIT,
    DATA_EXPLICIT_2,
    FIXED,
    INFORMATION,
    PARTS_OF_STORE,
    RELEASE_RQ,
    RQ,
    command,
    data_pdu,
    pdu,
)

__all__ = ["MALFORMED"]

STORE: Final = command(*PARTS_OF_STORE.values())
COMMAND: Final = data_pdu(3, STORE)
DATA: Final = data_pdu(2, DATA_EXPLICIT)
# (0000,0800) Command Data Set Type, 2 bytes: none.
NO_DATA: Final = b"\x00\x00\x00\x08\x02\x00\x00\x00\x01\x01"


def instance(uid: bytes) -> bytes:
    """(0000,1000) Affected SOP Instance UID, of fewer than 256 bytes."""
    return b"\x00\x00\x00\x10" + bytes((len(uid), 0, 0, 0)) + uid


def stores(**parts: bytes) -> bytes:
    """A whole C-STORE-RQ and a release; parts: elements of the command set instead of the usual."""
    return RQ + data_pdu(3, command(*(PARTS_OF_STORE | parts).values())) + DATA + RELEASE_RQ


MALFORMED: Final[dict[str, bytes]] = {
    # Not DICOM.
    "http_get": b"GET /studies HTTP/1.1\r\nHost: pacs\r\nAccept: */*\r\n\r\n",
    "tls_client_hello": (
        b"\x16\x03\x01\x00\x2f"  # TLS record: handshake, version, 47 bytes
        b"\x01\x00\x00\x2b"  # ClientHello, 43 bytes
        b"\x03\x03"  # TLS 1.2
        b"\x11\x11\x11\x11\x11\x11\x11\x11\x11\x11\x11\x11\x11\x11\x11\x11"  # random, 32 bytes
        b"\x11\x11\x11\x11\x11\x11\x11\x11\x11\x11\x11\x11\x11\x11\x11\x11"
        b"\x00"  # no session id
        b"\x00\x02\xc0\x2f"  # one cipher suite
        b"\x01\x00"  # one compression method: none
        b"\x00\x00"  # no extensions
    ),
    "unknown_first_pdu_type": (
        b"\x09\x00\x00\x00\x00\x04"  # PDU of type 9, 4 bytes
        b"\x00\x00\x00\x00"
    ),
    "first_pdu_length_ffffffff": (
        b"\x01\x00\xff\xff\xff\xff"  # A-ASSOCIATE-RQ of 4 GiB
        b"\x00\x01"  # protocol version 1
    ),
    # The request.
    "rq_truncated_then_close": RQ[:100],
    "pdata_before_rq": COMMAND + DATA,
    "release_before_rq": RELEASE_RQ,
    "rq_item_overruns": pdu(
        1,
        FIXED,
        b"\x10\x00\x7f\xff"  # application context, 32767 bytes, of which 21 are there
        b"1.2.840.10008.3.1.1.1",
    ),
    "rq_no_contexts": pdu(1, FIXED, APPLICATION, INFORMATION),
    "rq_protocol_version_0002": pdu(
        1,
        b"\x00\x02",  # protocol version 2, not 1
        FIXED[2:], APPLICATION, CT_CONTEXT, INFORMATION,
    ),
    "rq_protocol_version_0003": pdu(
        1,
        b"\x00\x03",  # protocol versions 1 and 2
        FIXED[2:], APPLICATION, CT_CONTEXT, INFORMATION,
    ),
    "rq_app_context": pdu(
        1,
        FIXED,
        b"\x10\x00\x00\x15"  # application context, 21 bytes: none that is known
        b"1.2.840.10008.3.1.1.9",
        CT_CONTEXT, INFORMATION,
    ),
    # PDUs inside an association.
    "unknown_pdu_type": RQ + (
        b"\x09\x00\x00\x00\x00\x04"  # PDU of type 9, 4 bytes
        b"\x00\x00\x00\x00"
    ),
    "second_rq": RQ + RQ,
    "ac_from_client": RQ + b"\x02" + RQ[1:],  # an A-ASSOCIATE-AC
    "pdu_length_ffffffff": RQ + (
        b"\x04\x00\xff\xff\xff\xff"  # P-DATA-TF of 4 GiB
        b"\x00\x00\x00\x03\x01\x03"  # PDV, 3 bytes, context id 1, command
    ),
    "pdata_empty": RQ + b"\x04\x00\x00\x00\x00\x00",  # P-DATA-TF, 0 bytes
    "pdv_length_0": RQ + (
        b"\x04\x00\x00\x00\x00\x04"  # P-DATA-TF, 4 bytes
        b"\x00\x00\x00\x00"  # PDV, 0 bytes: no room for its id
    ),
    "pdv_length_1": RQ + (
        b"\x04\x00\x00\x00\x00\x05"  # P-DATA-TF, 5 bytes
        b"\x00\x00\x00\x01"  # PDV, 1 byte: no room for its header
        b"\x01"  # context id 1
    ),
    "pdv_longer_than_pdu": RQ + (
        b"\x04\x00\x00\x00\x00\x72"  # P-DATA-TF, 114 bytes
        b"\x00\x00\x13\x88"  # PDV, 5000 bytes
        b"\x01\x03"  # context id 1; command, last fragment
        + STORE
    ),
    "truncated_pdata_then_close": RQ + COMMAND + DATA[:100],
    # Contexts and the order of fragments.
    "unknown_context_id": RQ + data_pdu(3, STORE, context=99) + DATA,
    "even_context_id": RQ + data_pdu(3, STORE, context=2) + DATA,
    "data_before_command": RQ + DATA,
    "command_inside_data": RQ + COMMAND + data_pdu(0, DATA_EXPLICIT[:100]) + COMMAND,
    "context_changes_in_data": (
        RQ + COMMAND
        + data_pdu(0, DATA_EXPLICIT[:100])
        + data_pdu(2, DATA_EXPLICIT[100:], context=3)
    ),
    # Command sets.
    "command_element_overruns": (
        RQ + data_pdu(3, STORE[:-4])  # 14 bytes of a UID, of which 10 are there
        + RELEASE_RQ
    ),
    "no_message_id": stores(id=b""),
    "no_priority": stores(priority=b""),
    "no_sop_instance_uid": stores(instance=b""),
    "cstore_without_dataset": (
        RQ + data_pdu(3, command(*(PARTS_OF_STORE | {"type": NO_DATA}).values())) + RELEASE_RQ
    ),
    "unknown_command_field": (
        RQ
        + data_pdu(
            3,
            command(
                PARTS_OF_STORE["class"],
                b"\x00\x00\x00\x01\x02\x00\x00\x00"  # (0000,0100) Command Field, 2 bytes
                b"\x77\x07",  # 0777: none that is known
                PARTS_OF_STORE["id"],
                NO_DATA,
                PARTS_OF_STORE["instance"],
            ),
        )
        + RELEASE_RQ
    ),
    "uid_traversal": stores(instance=instance(b"../../../etc/own")),
    "uid_embedded_nul": stores(instance=instance(b"1.2.3\x00.71.1.1.1\x00")),
    "uid_80_chars": stores(instance=instance(b"1.2.3.71" + b".11111111" * 8)),
    # Data sets.
    "sop_instance_differs_from_dataset": RQ + COMMAND + data_pdu(2, DATA_EXPLICIT_2) + RELEASE_RQ,
    "empty_dataset": RQ + COMMAND + data_pdu(2, b"") + RELEASE_RQ,
    # Inside the Patient ID, in front of the UIDs.
    "dataset_truncated": RQ + COMMAND + data_pdu(2, DATA_EXPLICIT[:190]) + RELEASE_RQ,
}  # fmt: skip
