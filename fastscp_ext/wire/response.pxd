# C-STORE responses and their PDUs, written without the interpreter.

from libc.stdint cimport uint8_t, uint16_t, uint32_t

from fastscp_ext.wire.cursor cimport Cursor


cdef enum:
    RESPONSE_COMMAND_ROOM = 512  # bytes: the longest C-STORE-RSP command set
    RESPONSE_ROOM = 4096         # bytes: the longest response, cut for the smallest peer

# What a C-STORE-RSP says. UIDs of at most 128 bytes as they came, padding included; a comment of at
# most 64 characters; empty ones are left out.
ctypedef struct StoreResponse:
    uint16_t message_id
    uint16_t status
    uint8_t offending            # bit 0: Study, bit 1: Series Instance UID
    bint unread                  # first of all this one, which could not be read past
    uint32_t unread_tag
    Cursor sop_class_uid
    Cursor sop_instance_uid
    Cursor comment


cdef uint32_t store_response(const StoreResponse* response, uint8_t* out) noexcept nogil
cdef uint32_t pack_command(
    uint8_t* out, uint32_t room, uint8_t context_id, const uint8_t* command, uint32_t n,
    uint32_t longest
) noexcept nogil
