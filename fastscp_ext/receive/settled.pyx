"""The end of every instance: it is counted. See settled.pyi."""

from fastscp_ext.receive.instance cimport (
    DUPLICATE_IDENTICAL, DUPLICATE_REPLACED, DUPLICATE_VERSION, STAGE_ANSWERABLE, Instance, Worker,
)
from fastscp_ext.shared.rows cimport (
    OUTCOME_REFUSED, OUTCOME_STORED, OUTCOME_UNFINISHED, Ended, count_ended,
)
from fastscp_ext.shared.tables cimport (
    STATUS_ROW_DISCARDED, STATUS_ROW_IDENTICAL, STATUS_ROW_KEPT, STATUS_ROW_REPLACED,
    STATUS_ROW_STORED, STATUS_ROW_UNFINISHED, STATUS_ROW_UNTOLD, STATUS_ROW_VERSION, status_row,
    syntax_row,
)
from fastscp_ext.status cimport ELEMENTS_DISCARDED, SUCCESS

__all__ = []


cdef inline int _stored_row(const Instance* i) noexcept nogil:
    if i.status == ELEMENTS_DISCARDED:
        return STATUS_ROW_KEPT
    if i.treatment.discard:
        return STATUS_ROW_DISCARDED
    if i.peer_gone:
        return STATUS_ROW_UNTOLD
    if i.duplicate == DUPLICATE_IDENTICAL:
        return STATUS_ROW_IDENTICAL
    if i.duplicate == DUPLICATE_VERSION:
        return STATUS_ROW_VERSION
    if i.duplicate == DUPLICATE_REPLACED:
        return STATUS_ROW_REPLACED
    return STATUS_ROW_STORED


cdef void settled(Worker* worker, Instance* i) noexcept nogil:
    # Whoever gives an instance back calls this, and nobody else: each is counted once, however it
    # ended. Answers to other commands travel as instances, too.
    cdef Ended ended
    if i.reply != NULL or i.no_reply:
        return
    if i.stage != STAGE_ANSWERABLE:
        ended.outcome = OUTCOME_UNFINISHED
        ended.status = STATUS_ROW_UNFINISHED
    elif i.status == SUCCESS or i.status == ELEMENTS_DISCARDED:
        ended.outcome = OUTCOME_STORED
        ended.status = _stored_row(i)
    else:
        ended.outcome = OUTCOME_REFUSED
        ended.status = status_row(i.status, i.comment, i.error_no)
    ended.ae = i.ae_row
    ended.syntax = syntax_row(i.transfer_syntax, i.transfer_syntax_size)
    ended.bytes = i.data_bytes
    ended.stamps = i.stamps
    count_ended(worker.rows, &ended)
