"""The accepted presentation contexts of one association, each UID kept once."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING
from libc.stdint cimport uint8_t
from libc.stdlib cimport calloc, free

from fastscp_ext.wire.cursor cimport Cursor, cursor_over

from fastscp_ext.dataset.syntaxes import pixels_of

__all__ = []


@cython.final
cdef class Contexts:
    """The accepted presentation contexts of one association.

    contexts: (id, abstract syntax, transfer syntax, tap syntax, deflated, storage) each.
    """

    def __cinit__(self, contexts not None):
        cdef int used = 0
        cdef int size = 0
        cdef int context_id
        cdef Context* context
        cdef dict at = {}
        if len(contexts) > 256:
            raise ValueError("more than 256 accepted contexts")
        self.accepted = <Context*>calloc(len(contexts) + 1, sizeof(Context))
        if self.accepted == NULL:
            raise MemoryError()
        for context_id, abstract, transfer, tap_syntax, deflated, storage in contexts:
            if len(transfer) > 64 or len(abstract) > 64:
                raise ValueError("UID longer than 64")
            for uid in (abstract, transfer):
                if uid not in at:
                    at[uid] = size
                    size += len(uid)
            context = &self.accepted[used]
            context.abstract_at = at[abstract]
            context.abstract_size = len(abstract)
            context.transfer_at = at[transfer]
            context.transfer_size = len(transfer)
            context.encoding.tap_syntax = tap_syntax
            context.encoding.deflated = deflated
            context.encoding.pixels = pixels_of(transfer)
            context.storage = storage
            self.in_use[context_id & 255] = 1
            self.places[context_id & 255] = <uint8_t>used
            used += 1
        self.uids = b"".join(at)

    def __dealloc__(self):
        free(self.accepted)

    cdef Context* of(self, uint8_t context_id) noexcept:
        # Of an id that is in use.
        return &self.accepted[self.places[context_id]]

    cdef Cursor abstract_syntax(self, Context* context) noexcept:
        return cursor_over(
            <const uint8_t*>PyBytes_AS_STRING(self.uids) + context.abstract_at,
            context.abstract_size,
        )

    cdef Cursor transfer_syntax(self, Context* context) noexcept:
        return cursor_over(
            <const uint8_t*>PyBytes_AS_STRING(self.uids) + context.transfer_at,
            context.transfer_size,
        )
