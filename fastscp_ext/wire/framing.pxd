# PDU and PDV framing: bytes in, frames out. No I/O, no clock, no Python object.

from libc.stdint cimport uint8_t, uint32_t

from fastscp_ext.wire.cursor cimport Cursor


cdef enum:
    PDU_ASSOCIATE_RQ = 0x01
    PDU_ASSOCIATE_AC = 0x02
    PDU_ASSOCIATE_RJ = 0x03
    PDU_P_DATA_TF = 0x04
    PDU_RELEASE_RQ = 0x05
    PDU_RELEASE_RP = 0x06
    PDU_ABORT = 0x07

cdef enum FrameKind:
    FRAME_MORE = 0      # the cursor is used up
    FRAME_HEADER = 1    # a PDU begins: pdu_type, pdu_length. Its body is still to come
    FRAME_PDU = 2       # a PDU other than P-DATA-TF is whole: pdu, pdu_size (header included)
    FRAME_COMMAND = 3   # a command set is whole: command, command_size, context_id; then call
    #                     `framer_expect` before the next `framer_next`
    FRAME_DATA = 4      # bytes of a data set: data, context_id, last
    FRAME_ERROR = 5     # abort_source, abort_reason, complaint; the framer is dead

cdef enum FramePhase:
    PHASE_COMMAND = 0        # between messages
    PHASE_COMMAND_REST = 1   # inside a command set
    PHASE_DATA = 2           # inside a data set

cdef enum Complaint:
    COMPLAINT_NONE = 0
    COMPLAINT_PDU_TYPE = 1
    COMPLAINT_ASSOCIATE_LENGTH = 2
    COMPLAINT_PDU_LENGTH = 3
    COMPLAINT_PDATA_TOO_LONG = 4
    COMPLAINT_PDATA_EMPTY = 5
    COMPLAINT_PDV_LENGTH = 6
    COMPLAINT_PDV_OVERRUN = 7
    COMPLAINT_PDV_REST = 8
    COMPLAINT_CONTEXT = 9
    COMPLAINT_DATA_UNEXPECTED = 10
    COMPLAINT_COMMAND_UNEXPECTED = 11
    COMPLAINT_CONTEXT_CHANGED = 12
    COMPLAINT_COMMAND_TOO_LONG = 13
    COMPLAINT_MEMORY = 14

cdef enum:
    COMMAND_PLACE = 320          # bytes held in place: every ordinary command set
    COMMAND_CAP = 65536          # bytes; real command sets stay under 500
    ASSOCIATE_MIN = 68           # bytes of body, PS3.8 9.3.2
    ASSOCIATE_CAP = 1048576
    SMALL_PDU_CAP = 64           # bytes of body of a PDU whose body is 4 bytes by the book

# Invariants: header_have <= 6; pdv_have <= 6; pdv_left <= pdu_left;
# pdu_size <= pdu_room; command_size <= command_room <= COMMAND_CAP.
ctypedef struct Framer:
    uint8_t header[6]
    uint8_t pdv_header[6]
    uint8_t header_have
    uint8_t pdv_have
    uint8_t pdu_type
    uint8_t context_id           # of the message in progress
    uint8_t control              # message control header of the PDV in progress
    uint8_t phase
    bint in_pdu
    bint in_pdv
    bint last
    bint dead
    uint32_t pdu_length          # as announced by the peer
    uint32_t pdu_left            # bytes of the body still to come
    uint32_t pdv_left            # bytes of the fragment still to come
    uint32_t pdata_cap           # longest P-DATA-TF body tolerated
    const uint8_t* contexts      # 256 places, borrowed; non-zero: accepted. NULL: all are
    Cursor data
    uint8_t* pdu                 # owned
    uint32_t pdu_size
    uint32_t pdu_room
    uint8_t* command             # command_place, or owned
    uint32_t command_size
    uint32_t command_room
    uint8_t command_place[COMMAND_PLACE]
    uint8_t abort_source
    uint8_t abort_reason
    uint8_t complaint


cdef void framer_begin(Framer* f, uint32_t pdata_cap) noexcept nogil
cdef void framer_end(Framer* f) noexcept nogil
cdef int framer_next(Framer* f, Cursor* c) noexcept nogil
# The last n bytes of the FRAME_DATA just returned come again, as a frame of their own. c: where it
# came from. 0 < n < data.left.
cdef void framer_give_back(Framer* f, Cursor* c, uint32_t n) noexcept nogil
cdef void framer_drop_pdu(Framer* f) noexcept nogil
cdef void framer_expect(Framer* f, bint data_follows) noexcept nogil
cdef str complaint_text(int complaint)
