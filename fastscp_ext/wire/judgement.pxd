# Whether a command set that came to a requestor answers what it asked: no Python object, no I/O.
#
# Read it, find the request that it names, and judge it by that one.

from libc.stdint cimport uint8_t, uint16_t, uint32_t

from fastscp_ext.wire.command cimport CommandScan


cdef enum Judgement:
    ANSWER_USABLE = 0
    ANSWER_UNREADABLE = 1
    ANSWER_NO_COMMAND_FIELD = 2     # absent, or not of 2 bytes
    ANSWER_IS_REQUEST = 3
    ANSWER_NO_MESSAGE_ID = 4        # Message ID Being Responded To, likewise
    ANSWER_NOT_OUTSTANDING = 5
    ANSWER_OTHER_SERVICE = 6        # its Command Field is not that of the request's response
    ANSWER_OTHER_CONTEXT = 7
    ANSWER_NO_STATUS = 8
    ANSWER_STATUS_LENGTH = 9        # not of 2 bytes
    ANSWER_DATA_SET_TYPE = 10       # not of 2 bytes: what follows cannot be known
    ANSWER_TOO_EARLY = 11           # it has kept what it cannot have

# A request whose response is due.
ctypedef struct Asked:
    uint16_t command_field
    uint8_t context_id
    bint sent                       # all of the message is out of our hands

# `scan.message_id_being_responded_to` may be looked up if the answer is usable. `scan.status` and
# `scan.data_set_type` may be used after the judgement; an absent data set type is 0101 then.
ctypedef struct Answer:
    CommandScan scan
    uint8_t context_id
    Judgement judgement


cdef void answer_read(
    const uint8_t* command, uint32_t n, uint8_t context_id, Answer* out
) noexcept nogil

# asked: the request with the message id that the answer names, NULL if there is none. Returns
# whether the answer is usable; `judgement` then says so, or why not.
cdef bint answer_judge(Answer* answer, const Asked* asked) noexcept nogil

# What the peer did, for people; `asked` as for `answer_judge`.
cdef str judgement_text(const Answer* answer, const Asked* asked)
