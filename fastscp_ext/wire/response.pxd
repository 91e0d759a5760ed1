# C-STORE responses and their PDUs, written without the interpreter.

from libc.stdint cimport uint8_t, uint32_t

from fastscp_ext.receive.instance cimport Instance


cdef enum:
    RESPONSE_COMMAND_ROOM = 512  # bytes: the longest C-STORE-RSP command set
    RESPONSE_ROOM = 4096         # bytes: the longest response, cut for the smallest peer


cdef uint32_t store_response(Instance* i, uint8_t* out) noexcept nogil
cdef uint32_t pack_command(
    uint8_t* out, uint32_t room, uint8_t context_id, const uint8_t* command, uint32_t n,
    uint32_t longest
) noexcept nogil
