# The accepted presentation contexts of one association.

from libc.stdint cimport uint8_t, uint16_t

from fastscp_ext.wire.cursor cimport Cursor


# How the data sets of a transfer syntax are encoded: of syntaxes.py, and tap.pxd.
ctypedef struct Encoding:
    uint8_t tap_syntax            # UNKNOWN: it tells nothing
    bint deflated
    uint8_t pixels

ctypedef struct Context:
    uint16_t abstract_at          # places in the association's `uids`
    uint16_t transfer_at
    uint8_t abstract_size         # bytes, <= 64
    uint8_t transfer_size
    Encoding encoding
    bint storage


cdef class Contexts:
    cdef uint8_t in_use[256]      # context id -> accepted or not
    cdef uint8_t places[256]      # context id -> place in `accepted`
    cdef Context* accepted
    cdef bytes uids               # of all contexts, end to end

    cdef Context* of(self, uint8_t context_id) noexcept
    cdef Cursor abstract_syntax(self, Context* context) noexcept
    cdef Cursor transfer_syntax(self, Context* context) noexcept
