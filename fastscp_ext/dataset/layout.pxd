# Where an instance is stored: a template compiled once, rendered per instance without Python.

from libc.stdint cimport uint8_t, uint32_t

from fastscp_ext.wire.cursor cimport Cursor
from fastscp_ext.dataset.tap cimport TAP_KEYS


# The values of render(): the tap's keys under their numbers (tap.pxd), then these three.
cdef enum:
    KEY_CALLING_AE = TAP_KEYS
    KEY_CALLED_AE = TAP_KEYS + 1
    KEY_RECEIVED_DATE = TAP_KEYS + 2  # YYYYMMDD, UTC
    LAYOUT_KEYS = TAP_KEYS + 3

cdef enum:
    LAYOUT_OK = 0
    LAYOUT_BAD_UID = 1      # SOP Instance, Study or Series Instance UID unfit as a name
    LAYOUT_MISSING_UID = 2  # Study or Series Instance UID absent or empty
    LAYOUT_TOO_LONG = 3     # the path and its NUL over `cap`

cdef enum:
    LAYOUT_MAX_PATH = 4096     # bytes, the final NUL included
    LAYOUT_MAX_PARTS = 64
    LAYOUT_MAX_LITERALS = 1024

ctypedef struct LayoutPart:
    int key          # a key, or one of layout.pyx's PART_*
    uint32_t start   # of a literal, in `literals`
    uint32_t size


cdef class Layout:
    cdef readonly str template
    cdef readonly bytes suffix
    cdef bint dated           # whether it names ReceivedDate
    cdef uint32_t n_parts
    cdef LayoutPart parts[LAYOUT_MAX_PARTS]
    cdef uint8_t literals[LAYOUT_MAX_LITERALS]

    # values: LAYOUT_KEYS cursors, padding already taken off. out: `cap` bytes, gets the path
    # relative to the store, '/' between components, and a NUL behind it; *length without the NUL.
    # *bad_key: the key at fault, or -1. `out` is undefined unless LAYOUT_OK.
    cdef int render_into(self, const Cursor* values, uint8_t* out, uint32_t cap,
                         uint32_t* length, int* bad_key) noexcept nogil
