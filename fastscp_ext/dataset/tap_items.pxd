# Items inside the value of an element of defined length.
# Source: PS3.5 7.5.

from fastscp_ext.wire.cursor cimport Cursor
from fastscp_ext.dataset.tap_state cimport TapParse


# A sequence starts.
cdef void note_sequence(TapParse* p) noexcept nogil

# Of a sequence of defined length, what the slice holds: items, up to its very end. An item of
# undefined length ends by a delimiter, which its length does not tell.
cdef void take_items(TapParse* p, Cursor passing) noexcept nogil

# Who reads over the start of an item with a value may come out in that item.
cdef void look_for_items(TapParse* p, Cursor passing) noexcept nogil
