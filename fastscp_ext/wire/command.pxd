# Command sets: one pass over the bytes, no Python object. The Python surface is in command.pyi.

from libc.stdint cimport uint8_t, uint16_t, uint32_t

from fastscp_ext.wire.cursor cimport Cursor


cdef enum:
    SCAN_OK = 0
    SCAN_BROKEN = 1         # truncated header, value past the end, or a group other than 0000

# One bit per element, and two for "either of a pair" (PS3.7 9.3, 10.3).
cdef enum:
    CMD_HAS_SOP_CLASS = 0x0001               # Affected or Requested: `sop_class` is set
    CMD_HAS_AFFECTED_SOP_CLASS = 0x0002      # (0000,0002), and `sop_class` is its value
    CMD_HAS_COMMAND_FIELD = 0x0004
    CMD_HAS_MESSAGE_ID = 0x0008
    CMD_HAS_MESSAGE_ID_BEING_RESPONDED_TO = 0x0010
    CMD_HAS_PRIORITY = 0x0020
    CMD_HAS_DATA_SET_TYPE = 0x0040
    CMD_HAS_STATUS = 0x0080
    CMD_HAS_SOP_INSTANCE = 0x0100            # Affected or Requested: `sop_instance` is set
    CMD_HAS_AFFECTED_SOP_INSTANCE = 0x0200   # (0000,1000), and `sop_instance` is its value
    CMD_HAS_MOVE_ORIGINATOR_AE = 0x0400
    CMD_HAS_MOVE_ORIGINATOR_MESSAGE_ID = 0x0800

# UID and AE values are never unusable, whatever their length: the caller judges them.
ctypedef struct CommandScan:
    uint32_t present        # CMD_HAS_* of the elements that are there
    uint32_t unusable       # those whose length is not that of a US: their fields are 0
    uint16_t command_field
    uint16_t message_id
    uint16_t message_id_being_responded_to
    uint16_t data_set_type
    uint16_t priority
    uint16_t status
    uint16_t move_originator_message_id
    Cursor sop_class        # the spans are borrowed from the scanned bytes, padding included
    Cursor sop_instance
    Cursor move_originator_ae
    uint32_t error_offset   # SCAN_BROKEN: of the element that cannot be read


# Reads whatever order, repetition (the first occurrence counts), odd length or unknown element a
# peer may send; the group length is not believed. `out` need not be initialised. After SCAN_BROKEN
# it holds what stood before the broken element.
cdef int scan_command(const uint8_t* data, uint32_t n, CommandScan* out) noexcept nogil

# The value without the NULs, spaces, CRs and LFs at either end.
cdef Cursor trimmed_uid(Cursor raw) noexcept nogil

# The value up to its first NUL, without the spaces around it.
cdef Cursor trimmed_ae(Cursor raw) noexcept nogil
