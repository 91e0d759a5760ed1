"""A-ASSOCIATE, A-RELEASE, A-ABORT and P-DATA-TF, whole: bytes to values and back.

The hot path frames P-DATA-TF without this module; `decode_pdata` is for the sender's side.

Lenient where the standard lets a receiver be: reserved bytes are not tested, an item that has no
place in its list is skipped, order does not matter, the first of a repeated item is used, and up
to 3 zero bytes after the last item of a list are padding. A length that does not fit is an error.
Sources: PS3.8 9.3 and Annex D.1, PS3.7 Annex D.3.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.unicode cimport PyUnicode_DecodeLatin1
from libc.stdint cimport UINT32_MAX, uint8_t, uint16_t, uint32_t

from fastscp_ext.wire.command cimport trimmed_uid
from fastscp_ext.wire.cursor cimport (
    Cursor, cursor_over, peek_u8, skip, take_span, take_u8, take_u16_be, take_u32_be,
)

from fastscp_ext.errors import PDUContextsError, PDUError, PDULimitError
from fastscp_ext.wire.pdus import (
    Abort,
    AssociateAC,
    AssociateRJ,
    AssociateRQ,
    AsyncWindow,
    CommonExtendedNegotiation,
    ExtendedNegotiation,
    PresentationContextAC,
    PresentationContextRQ,
    ReleaseRP,
    ReleaseRQ,
    RoleSelection,
    UserIdentity,
    UserInformation,
)

__all__ = [
    "decode_abort",
    "decode_associate_ac",
    "decode_associate_rj",
    "decode_associate_rq",
    "decode_pdata",
    "decode_pdu",
    "decode_release_rp",
    "decode_release_rq",
    "encode_abort",
    "encode_associate_ac",
    "encode_associate_rj",
    "encode_associate_rq",
    "encode_pdata",
    "encode_release_rp",
    "encode_release_rq",
]

cdef enum:
    ASSOCIATE_RQ = 0x01
    ASSOCIATE_AC = 0x02
    ASSOCIATE_RJ = 0x03
    P_DATA_TF = 0x04
    RELEASE_RQ = 0x05
    RELEASE_RP = 0x06
    ABORT = 0x07
    ANY_PDU = -1

cdef enum:
    ITEM_APPLICATION_CONTEXT = 0x10
    ITEM_PRESENTATION_CONTEXT_RQ = 0x20
    ITEM_PRESENTATION_CONTEXT_AC = 0x21
    ITEM_ABSTRACT_SYNTAX = 0x30
    ITEM_TRANSFER_SYNTAX = 0x40
    ITEM_USER_INFORMATION = 0x50
    ITEM_MAXIMUM_LENGTH = 0x51
    ITEM_IMPLEMENTATION_CLASS_UID = 0x52
    ITEM_ASYNC_WINDOW = 0x53
    ITEM_ROLE_SELECTION = 0x54
    ITEM_IMPLEMENTATION_VERSION_NAME = 0x55
    ITEM_EXTENDED_NEGOTIATION = 0x56
    ITEM_COMMON_EXTENDED_NEGOTIATION = 0x57
    ITEM_USER_IDENTITY = 0x58
    ITEM_USER_IDENTITY_RESPONSE = 0x59

cdef enum:
    REASON_UNRECOGNIZED_PDU = 1
    REASON_UNEXPECTED_PDU = 2
    REASON_INVALID_PARAMETER = 6

cdef enum:
    AE_FIELD = 16               # bytes
    RESERVED_FIELD = 32
    ASSOCIATE_CAP = 1048576
    SHORT_BODY = 4              # bytes of body of reject, release and abort
    SHORT_BODY_CAP = 64         # tolerated for release and abort
    CONTEXTS_CAP = 256          # one for every possible id
    TRANSFER_SYNTAXES_CAP = 256
    PROPOSALS_CAP = 8192        # transfer syntaxes in all: 128 contexts with 64 each
    PDV_MIN = 2                 # context id and message control header
    UID_MAX = 64
    VERSION_NAME_MAX = 16

ctypedef struct Item:
    uint8_t type
    uint32_t offset             # of its header, from the first byte of the PDU
    Cursor value


# Decoding. `start` is the first byte of the PDU throughout: offsets count from it.

cdef object refused(str message, uint32_t offset, int reason=REASON_INVALID_PARAMETER):
    return PDUError(message, offset, reason)


cdef object item_refused(const Item* item):
    return refused(f"item 0x{item.type:02x}: a length inside runs past its end", item.offset)


cdef inline uint32_t offset_of(const uint8_t* start, const Cursor* c) noexcept nogil:
    return <uint32_t>(c.at - start)


cdef bint next_item(const uint8_t* start, Cursor* rest, Item* item) except -1:
    # Take the next item or sub-item of a list. False at the end of the list.
    cdef Cursor c = rest[0]
    cdef uint8_t byte = 0
    cdef uint16_t length = 0
    item.offset = offset_of(start, rest)
    if not (take_u8(&c, &item.type) and skip(&c, 1) and take_u16_be(&c, &length)):
        while take_u8(rest, &byte):
            if byte != 0:
                raise refused("stray bytes after the last item", item.offset)
        return False
    if not take_span(&c, length, &item.value):
        raise refused(f"item 0x{item.type:02x} runs past its parent", item.offset)
    rest[0] = c
    return True


cdef inline bint take_counted(Cursor* c, Cursor* out) noexcept nogil:
    # A value behind its own 16 bit length.
    cdef uint16_t length = 0
    return take_u16_be(c, &length) and take_span(c, length, out)


cdef bytes span_bytes(Cursor span):
    return PyBytes_FromStringAndSize(<const char*>span.at, span.left)


cdef str span_text(Cursor span):
    # Latin-1, because UIDs with bytes above 7F occur and must not shift or stop the parser.
    span = trimmed_uid(span)
    return PyUnicode_DecodeLatin1(<const char*>span.at, span.left, NULL)


cdef object presentation_context(const uint8_t* start, const Item* item, uint32_t* proposals):
    # proposals: transfer syntaxes of the PDU so far.
    cdef Cursor rest = item.value
    cdef Item sub
    cdef uint8_t context_id = 0
    cdef uint8_t result = 0
    cdef str abstract_syntax = None
    cdef list transfer_syntaxes = []
    if not (take_u8(&rest, &context_id) and skip(&rest, 1) and take_u8(&rest, &result)
            and skip(&rest, 1)):
        raise item_refused(item)
    while next_item(start, &rest, &sub):
        if sub.type == ITEM_ABSTRACT_SYNTAX:
            if abstract_syntax is None:
                abstract_syntax = span_text(sub.value)
        elif sub.type == ITEM_TRANSFER_SYNTAX:
            if len(transfer_syntaxes) == TRANSFER_SYNTAXES_CAP:
                raise refused("too many transfer syntaxes in a presentation context", sub.offset)
            proposals[0] += 1
            if proposals[0] > PROPOSALS_CAP:
                raise PDULimitError(
                    f"more than {<int>PROPOSALS_CAP} transfer syntaxes in all", sub.offset)
            transfer_syntaxes.append(span_text(sub.value))
    if item.type == ITEM_PRESENTATION_CONTEXT_AC:
        return PresentationContextAC(
            context_id, result, transfer_syntaxes[0] if transfer_syntaxes else "")
    return PresentationContextRQ(context_id, abstract_syntax or "", tuple(transfer_syntaxes))


cdef object role_selection(const Item* item):
    cdef Cursor rest = item.value
    cdef Cursor sop_class
    cdef uint8_t scu = 0
    cdef uint8_t scp = 0
    if not (take_counted(&rest, &sop_class) and take_u8(&rest, &scu) and take_u8(&rest, &scp)):
        raise item_refused(item)
    return RoleSelection(span_text(sop_class), scu != 0, scp != 0)


cdef object extended_negotiation(const Item* item):
    cdef Cursor rest = item.value
    cdef Cursor sop_class
    if not take_counted(&rest, &sop_class):
        raise item_refused(item)
    # The information has no length of its own: it is the rest of the item.
    return ExtendedNegotiation(span_text(sop_class), span_bytes(rest))


cdef object common_extended_negotiation(const Item* item):
    cdef Cursor rest = item.value
    cdef Cursor sop_class
    cdef Cursor service_class
    cdef Cursor related
    cdef Cursor uid
    cdef list uids = []
    if not (take_counted(&rest, &sop_class) and take_counted(&rest, &service_class)
            and take_counted(&rest, &related)):
        raise item_refused(item)
    while related.left:
        if not take_counted(&related, &uid):
            raise item_refused(item)
        uids.append(span_text(uid))
    return CommonExtendedNegotiation(span_text(sop_class), span_text(service_class), tuple(uids))


cdef object user_identity(const Item* item):
    cdef Cursor rest = item.value
    cdef Cursor primary
    cdef Cursor secondary
    cdef uint8_t identity_type = 0
    cdef uint8_t response_requested = 0
    if not (take_u8(&rest, &identity_type) and take_u8(&rest, &response_requested)
            and take_counted(&rest, &primary) and take_counted(&rest, &secondary)):
        raise item_refused(item)
    return UserIdentity(
        identity_type, response_requested != 0, span_bytes(primary), span_bytes(secondary))


cdef object user_identity_response(const Item* item):
    cdef Cursor rest = item.value
    cdef Cursor response
    if not take_counted(&rest, &response):
        raise item_refused(item)
    return span_bytes(response)


cdef object user_information(const uint8_t* start, const Item* item, bint is_rq):
    cdef Cursor rest = item.value
    cdef Item sub
    cdef uint32_t length = 0
    cdef uint16_t invoked = 0
    cdef uint16_t performed = 0
    cdef dict once = {}
    cdef list roles = []
    cdef list extended = []
    cdef list common_extended = []
    while next_item(start, &rest, &sub):
        if sub.type == ITEM_MAXIMUM_LENGTH:
            # Here and in 53 another length than the right one makes the sub-item absent.
            if sub.value.left == 4 and take_u32_be(&sub.value, &length):
                once.setdefault("max_pdu_length", length)
        elif sub.type == ITEM_IMPLEMENTATION_CLASS_UID:
            once.setdefault("implementation_class_uid", span_text(sub.value))
        elif sub.type == ITEM_ASYNC_WINDOW:
            if (sub.value.left == 4 and take_u16_be(&sub.value, &invoked)
                    and take_u16_be(&sub.value, &performed)):
                once.setdefault("async_window", AsyncWindow(invoked, performed))
        elif sub.type == ITEM_ROLE_SELECTION:
            roles.append(role_selection(&sub))
        elif sub.type == ITEM_IMPLEMENTATION_VERSION_NAME:
            once.setdefault("implementation_version_name", span_text(sub.value))
        elif sub.type == ITEM_EXTENDED_NEGOTIATION:
            extended.append(extended_negotiation(&sub))
        elif sub.type == ITEM_COMMON_EXTENDED_NEGOTIATION and is_rq:
            common_extended.append(common_extended_negotiation(&sub))
        elif sub.type == ITEM_USER_IDENTITY and is_rq:
            once.setdefault("identity", user_identity(&sub))
        elif sub.type == ITEM_USER_IDENTITY_RESPONSE and not is_rq:
            once.setdefault("identity_response", user_identity_response(&sub))
    return UserInformation(
        roles=tuple(roles), extended=tuple(extended), common_extended=tuple(common_extended),
        **once)


cdef object associate(const uint8_t* start, Cursor body, bint is_rq):
    cdef Cursor called
    cdef Cursor calling
    cdef Cursor reserved
    cdef Item item
    cdef uint16_t version = 0
    cdef uint32_t proposals = 0
    cdef uint8_t context_item = ITEM_PRESENTATION_CONTEXT_AC
    cdef list contexts = []
    cdef uint32_t too_many_at = 0
    cdef uint32_t too_many = 0
    application_context = None
    information = None
    # The fixed fields are 68 bytes (PS3.8 9.3.2).
    if body.left > ASSOCIATE_CAP or not (
            take_u16_be(&body, &version) and skip(&body, 2) and take_span(&body, AE_FIELD, &called)
            and take_span(&body, AE_FIELD, &calling)
            and take_span(&body, RESERVED_FIELD, &reserved)):
        raise refused("A-ASSOCIATE PDU shorter than 68 bytes or longer than 1 MiB", 2)
    if is_rq:
        context_item = ITEM_PRESENTATION_CONTEXT_RQ
    while next_item(start, &body, &item):
        if item.type == ITEM_APPLICATION_CONTEXT:
            if application_context is None:
                application_context = span_text(item.value)
        elif item.type == context_item:
            if len(contexts) == CONTEXTS_CAP:
                # Counted, for whoever has to tell the sender's people; not looked into.
                too_many += 1
                too_many_at = too_many_at or item.offset
                continue
            contexts.append(presentation_context(start, &item, &proposals))
        elif item.type == ITEM_USER_INFORMATION:
            if information is None:
                information = user_information(start, &item, is_rq)
    if too_many:
        raise PDUContextsError(
            <int>CONTEXTS_CAP + too_many, too_many_at, span_bytes(calling), span_bytes(called))
    return (AssociateRQ if is_rq else AssociateAC)(
        span_bytes(called), span_bytes(calling), application_context, tuple(contexts), information,
        version, span_bytes(reserved))


cdef object associate_rj(Cursor body):
    cdef uint8_t result = 0
    cdef uint8_t source = 0
    cdef uint8_t reason = 0
    if not (skip(&body, 1) and take_u8(&body, &result) and take_u8(&body, &source)
            and take_u8(&body, &reason)) or body.left != 0:
        raise refused("A-ASSOCIATE-RJ body is not of 4 bytes", 2)
    return AssociateRJ(result, source, reason)


cdef object release_or_abort(int pdu_type, Cursor body):
    # Senders get the length of these wrong; what is missing reads as 0.
    cdef uint8_t source = 0
    cdef uint8_t reason = 0
    if body.left > SHORT_BODY_CAP:
        raise refused("release or abort PDU longer than 64 bytes", 2)
    if pdu_type == RELEASE_RQ:
        return ReleaseRQ()
    if pdu_type == RELEASE_RP:
        return ReleaseRP()
    peek_u8(&body, 2, &source)
    peek_u8(&body, 3, &reason)
    return Abort(source, reason)


cdef list pdata(const uint8_t* start, Cursor body):
    cdef Cursor pdv
    cdef uint32_t length = 0
    cdef uint32_t offset
    cdef uint8_t context_id = 0
    cdef uint8_t control = 0
    cdef list pdvs = []
    if body.left == 0:
        raise refused("P-DATA-TF PDU without a PDV", 2)
    while body.left:
        offset = offset_of(start, &body)
        if not take_u32_be(&body, &length):
            raise refused("stray bytes after the last PDV", offset)
        if length < PDV_MIN:
            raise refused("PDV length below 2", offset)
        if not (take_span(&body, length, &pdv) and take_u8(&pdv, &context_id)
                and take_u8(&pdv, &control)):
            raise refused("PDV runs past the end of its PDU", offset)
        pdvs.append((context_id, control, span_bytes(pdv)))
    return pdvs


cdef object decode_span(const uint8_t* start, Py_ssize_t size, int wanted):
    cdef Cursor c
    cdef uint8_t pdu_type = 0
    cdef uint32_t length = 0
    if size > <Py_ssize_t>UINT32_MAX:
        raise refused("PDU longer than 4 GiB", 0)
    c = cursor_over(start, <uint32_t>size)
    if not (take_u8(&c, &pdu_type) and skip(&c, 1) and take_u32_be(&c, &length)):
        raise refused("PDU header is cut", 0)
    if pdu_type < ASSOCIATE_RQ or pdu_type > ABORT:
        raise refused(f"unrecognized PDU type 0x{pdu_type:02x}", 0, REASON_UNRECOGNIZED_PDU)
    if wanted != ANY_PDU and pdu_type != wanted:
        raise refused(f"unexpected PDU type 0x{pdu_type:02x}", 0, REASON_UNEXPECTED_PDU)
    if length != c.left:
        raise refused("PDU length is not that of the bytes given", 2)
    if pdu_type == ASSOCIATE_RQ or pdu_type == ASSOCIATE_AC:
        return associate(start, c, pdu_type == ASSOCIATE_RQ)
    if pdu_type == ASSOCIATE_RJ:
        return associate_rj(c)
    if pdu_type == P_DATA_TF:
        return pdata(start, c)
    return release_or_abort(pdu_type, c)


cdef object decode(data, int wanted):
    cdef Py_buffer view
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        return decode_span(<const uint8_t*>view.buf, view.len, wanted)
    finally:
        PyBuffer_Release(&view)


def decode_pdu(data):
    return decode(data, ANY_PDU)


def decode_associate_rq(data):
    return decode(data, ASSOCIATE_RQ)


def decode_associate_ac(data):
    return decode(data, ASSOCIATE_AC)


def decode_associate_rj(data):
    return decode(data, ASSOCIATE_RJ)


def decode_release_rq(data):
    return decode(data, RELEASE_RQ)


def decode_release_rp(data):
    return decode(data, RELEASE_RP)


def decode_abort(data):
    return decode(data, ABORT)


def decode_pdata(data):
    return decode(data, P_DATA_TF)


# Encoding. Reserved bytes are 0, items stand in the order of their types.

cdef bytes number(str name, value, int size):
    if value < 0 or value.bit_length() > 8 * size:
        raise ValueError(f"{name} does not fit in {size} bytes")
    return value.to_bytes(size, "big")


cdef bytes fixed(str name, value, int size):
    if len(value) != size:
        raise ValueError(f"{name} is not of {size} bytes")
    return bytes(value)


cdef bytes text(str name, str value, int most):
    if len(value) > most or not value.isascii():
        raise ValueError(f"{name} is not ASCII of at most {most} characters")
    return value.encode("ascii")


cdef bytes counted(str name, bytes value):
    return number(f"length of {name}", len(value), 2) + value


cdef bytes item_bytes(int item_type, bytes value):
    return bytes((item_type, 0)) + counted(f"item 0x{item_type:02x}", value)


cdef bytes pdu_bytes(int pdu_type, bytes body):
    return bytes((pdu_type, 0)) + number("length of the PDU", len(body), 4) + body


cdef bytes counted_uid(str name, str uid):
    return counted(name, text(name, uid, UID_MAX))


cdef bytes uid_item(int item_type, str name, str uid):
    return item_bytes(item_type, text(name, uid, UID_MAX))


cdef bytes encode_context_rq(context):
    if len(context.transfer_syntaxes) > TRANSFER_SYNTAXES_CAP:
        raise ValueError("too many transfer syntaxes in a presentation context")
    parts = [number("presentation context id", context.id, 1), bytes(3)]
    if context.abstract_syntax:
        parts.append(uid_item(ITEM_ABSTRACT_SYNTAX, "abstract syntax", context.abstract_syntax))
    for uid in context.transfer_syntaxes:
        parts.append(uid_item(ITEM_TRANSFER_SYNTAX, "transfer syntax", uid))
    return item_bytes(ITEM_PRESENTATION_CONTEXT_RQ, b"".join(parts))


cdef bytes encode_context_ac(context):
    # The transfer syntax goes into a refusal too: there are requestors that fail without it.
    return item_bytes(ITEM_PRESENTATION_CONTEXT_AC, b"".join((
        number("presentation context id", context.id, 1),
        bytes(1),
        number("result", context.result, 1),
        bytes(1),
        uid_item(ITEM_TRANSFER_SYNTAX, "transfer syntax", context.transfer_syntax),
    )))


cdef bytes encode_common_extended(common):
    related = b"".join([counted_uid("related SOP class", uid) for uid in common.related])
    return item_bytes(ITEM_COMMON_EXTENDED_NEGOTIATION, b"".join((
        counted_uid("SOP class", common.sop_class),
        counted_uid("service class", common.service_class),
        counted("related SOP classes", related),
    )))


cdef bytes encode_identity(identity):
    return item_bytes(ITEM_USER_IDENTITY, b"".join((
        number("user identity type", identity.type, 1),
        b"\1" if identity.response_requested else b"\0",
        counted("primary field", identity.primary),
        counted("secondary field", identity.secondary),
    )))


cdef bytes encode_user_information(information):
    parts = []
    if information.max_pdu_length is not None:
        parts.append(item_bytes(
            ITEM_MAXIMUM_LENGTH, number("max_pdu_length", information.max_pdu_length, 4)))
    if information.implementation_class_uid is not None:
        parts.append(uid_item(ITEM_IMPLEMENTATION_CLASS_UID, "implementation class UID",
                              information.implementation_class_uid))
    if information.async_window is not None:
        parts.append(item_bytes(
            ITEM_ASYNC_WINDOW,
            number("max_invoked", information.async_window.max_invoked, 2)
            + number("max_performed", information.async_window.max_performed, 2)))
    for role in information.roles:
        parts.append(item_bytes(
            ITEM_ROLE_SELECTION,
            counted_uid("SOP class", role.sop_class)
            + bytes((bool(role.scu_role), bool(role.scp_role)))))
    if information.implementation_version_name is not None:
        parts.append(item_bytes(
            ITEM_IMPLEMENTATION_VERSION_NAME,
            text("implementation version name", information.implementation_version_name,
                 VERSION_NAME_MAX)))
    for extended in information.extended:
        parts.append(item_bytes(
            ITEM_EXTENDED_NEGOTIATION,
            counted_uid("SOP class", extended.sop_class) + extended.information))
    for common in information.common_extended:
        parts.append(encode_common_extended(common))
    if information.identity is not None:
        parts.append(encode_identity(information.identity))
    if information.identity_response is not None:
        parts.append(item_bytes(
            ITEM_USER_IDENTITY_RESPONSE,
            counted("user identity response", information.identity_response)))
    return item_bytes(ITEM_USER_INFORMATION, b"".join(parts))


cdef bytes encode_associate(int pdu_type, value, list contexts):
    if len(contexts) > CONTEXTS_CAP:
        raise ValueError("too many presentation contexts")
    parts = [
        number("protocol version", value.protocol_version, 2),
        bytes(2),
        fixed("called AE title", value.called_ae, AE_FIELD),
        fixed("calling AE title", value.calling_ae, AE_FIELD),
        fixed("reserved field", value.reserved, RESERVED_FIELD),
    ]
    if value.application_context is not None:
        parts.append(uid_item(
            ITEM_APPLICATION_CONTEXT, "application context", value.application_context))
    parts.extend(contexts)
    if value.user_information is not None:
        parts.append(encode_user_information(value.user_information))
    body = b"".join(parts)
    if len(body) > ASSOCIATE_CAP:
        raise ValueError("A-ASSOCIATE PDU longer than 1 MiB")
    return pdu_bytes(pdu_type, body)


def encode_associate_rq(value):
    information = value.user_information
    if information is not None and information.identity_response is not None:
        raise ValueError("a request carries no user identity response")
    return encode_associate(
        ASSOCIATE_RQ, value, [encode_context_rq(c) for c in value.presentation_contexts])


def encode_associate_ac(value):
    information = value.user_information
    if information is not None and (information.identity is not None
                                    or information.common_extended):
        raise ValueError("user identity and common extended negotiation belong to a request")
    return encode_associate(
        ASSOCIATE_AC, value, [encode_context_ac(c) for c in value.presentation_contexts])


def encode_associate_rj(value):
    return pdu_bytes(ASSOCIATE_RJ, b"".join((
        bytes(1),
        number("result", value.result, 1),
        number("source", value.source, 1),
        number("reason", value.reason, 1),
    )))


def encode_release_rq(value=None):
    return pdu_bytes(RELEASE_RQ, bytes(SHORT_BODY))


def encode_release_rp(value=None):
    return pdu_bytes(RELEASE_RP, bytes(SHORT_BODY))


def encode_abort(value):
    return pdu_bytes(ABORT, b"".join((
        bytes(2),
        number("source", value.source, 1),
        number("reason", value.reason, 1),
    )))


def encode_pdata(pdvs):
    parts = []
    for context_id, control, fragment in pdvs:
        parts.append(number("length of the PDV", len(fragment) + PDV_MIN, 4))
        parts.append(number("presentation context id", context_id, 1))
        parts.append(number("message control header", control, 1))
        parts.append(fragment)
    if not parts:
        raise ValueError("a P-DATA-TF PDU carries at least one PDV")
    return pdu_bytes(P_DATA_TF, b"".join(parts))
