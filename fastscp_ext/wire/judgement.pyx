"""Whether a command set that came to a requestor answers what it asked.

Lenient where peers are known to be careless: nothing is asked of the SOP class and instance, and a
Command Data Set Type may be absent. What decides over an outcome has to be there, and whole.
Sources: PS3.7 6.3.1, 9.1.1, 9.3.1.2, 9.3.5.2, Annex C, Annex E.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t

from fastscp_ext.status cimport SUCCESS, status_is_warning
from fastscp_ext.wire.command cimport (
    CMD_HAS_COMMAND_FIELD,
    CMD_HAS_DATA_SET_TYPE,
    CMD_HAS_MESSAGE_ID_BEING_RESPONDED_TO,
    CMD_HAS_STATUS,
    SCAN_OK,
    scan_command,
)

from fastscp_ext.errors import CommandError

__all__ = ["judge_response"]

cdef enum:
    RESPONSE_BIT = 0x8000
    NO_DATA_SET = 0x0101

_TEXTS = {
    ANSWER_USABLE: "",
    ANSWER_UNREADABLE: "it sent an unreadable command set",
    ANSWER_NO_COMMAND_FIELD: "it sent a command set without a usable Command Field",
    ANSWER_IS_REQUEST: "it invoked an operation ({field:04X}) on our association",
    ANSWER_NO_MESSAGE_ID: "it sent a response without a usable Message ID Being Responded To",
    ANSWER_NOT_OUTSTANDING: "it answered message {id}, which is not outstanding",
    ANSWER_OTHER_SERVICE: "it answered message {id}, a {request}, with a {response}",
    ANSWER_OTHER_CONTEXT:
        "it answered message {id}, sent on presentation context {asked_on}, on context {came_on}",
    ANSWER_NO_STATUS: "it sent a response without a status",
    ANSWER_STATUS_LENGTH: "it answered message {id} with a Status that is not of 2 bytes",
    ANSWER_DATA_SET_TYPE:
        "it answered message {id} with a Command Data Set Type that is not of 2 bytes",
    ANSWER_TOO_EARLY: "it answered message {id} with {status:04X} before it had all of it",
}

# PS3.7 Table E.1-1.
_SERVICES = {
    0x0001: "C-STORE",
    0x0010: "C-GET",
    0x0020: "C-FIND",
    0x0021: "C-MOVE",
    0x0030: "C-ECHO",
    0x0100: "N-EVENT-REPORT",
    0x0110: "N-GET",
    0x0120: "N-SET",
    0x0130: "N-ACTION",
    0x0140: "N-CREATE",
    0x0150: "N-DELETE",
}


cdef inline bint _kept(uint16_t status) noexcept nogil:
    # Success or a warning: the operation was done (PS3.7 Annex C).
    return status == SUCCESS or status_is_warning(status)


cdef void answer_read(
    const uint8_t* command, uint32_t n, uint8_t context_id, Answer* out
) noexcept nogil:
    cdef int outcome = scan_command(command, n, &out.scan)
    cdef uint32_t usable = out.scan.present & ~out.scan.unusable
    out.context_id = context_id
    if outcome != SCAN_OK:
        out.judgement = ANSWER_UNREADABLE
    elif not usable & CMD_HAS_COMMAND_FIELD:
        out.judgement = ANSWER_NO_COMMAND_FIELD
    elif not out.scan.command_field & RESPONSE_BIT:
        out.judgement = ANSWER_IS_REQUEST
    elif not usable & CMD_HAS_MESSAGE_ID_BEING_RESPONDED_TO:
        out.judgement = ANSWER_NO_MESSAGE_ID
    else:
        out.judgement = ANSWER_USABLE


cdef bint answer_judge(Answer* answer, const Asked* asked) noexcept nogil:
    cdef CommandScan* scan = &answer.scan
    if answer.judgement != ANSWER_USABLE:
        return False
    if asked == NULL:
        answer.judgement = ANSWER_NOT_OUTSTANDING
    elif scan.command_field != (asked.command_field | RESPONSE_BIT):
        answer.judgement = ANSWER_OTHER_SERVICE
    elif answer.context_id != asked.context_id:
        # Also one that was never accepted: no request went out on such a context.
        answer.judgement = ANSWER_OTHER_CONTEXT
    elif not scan.present & CMD_HAS_STATUS:
        answer.judgement = ANSWER_NO_STATUS
    elif scan.unusable & CMD_HAS_STATUS:
        answer.judgement = ANSWER_STATUS_LENGTH
    elif scan.unusable & CMD_HAS_DATA_SET_TYPE:
        answer.judgement = ANSWER_DATA_SET_TYPE
    elif not asked.sent and _kept(scan.status):
        # A peer may refuse what it has not seen, but it cannot have kept it.
        answer.judgement = ANSWER_TOO_EARLY
    elif not scan.present & CMD_HAS_DATA_SET_TYPE:
        # A response that does not say so brings no data set.
        scan.data_set_type = NO_DATA_SET
    return answer.judgement == ANSWER_USABLE


cdef str _message(uint16_t command_field):
    # Its name, PS3.7 9.3 and 10.3.
    name = _SERVICES.get(command_field & ~RESPONSE_BIT)
    if name is None:
        return f"message of Command Field {command_field:04X}"
    return f"{name}-RSP" if command_field & RESPONSE_BIT else f"{name}-RQ"


cdef str judgement_text(const Answer* answer, const Asked* asked):
    return _TEXTS[answer.judgement].format(
        field=answer.scan.command_field,
        id=answer.scan.message_id_being_responded_to,
        status=answer.scan.status,
        request="" if asked == NULL else _message(asked.command_field),
        response=_message(answer.scan.command_field),
        asked_on=0 if asked == NULL else asked.context_id,
        came_on=answer.context_id,
    )


def judge_response(bytes command not None, uint8_t context_id, outstanding not None):
    """Message id and status of a response, out of its command set. See judgement.pyi."""
    cdef Answer answer
    cdef Asked asked
    cdef const uint8_t* data = command
    cdef bint found = False
    answer_read(data, <uint32_t>len(command), context_id, &answer)
    if answer.judgement == ANSWER_USABLE:
        request = outstanding.get(answer.scan.message_id_being_responded_to)
        if request is not None:
            asked.command_field, asked.context_id, asked.sent = request
            found = True
    if not answer_judge(&answer, &asked if found else NULL):
        raise CommandError(
            judgement_text(&answer, &asked if found else NULL), answer.scan.error_offset
        )
    return answer.scan.message_id_being_responded_to, answer.scan.status
