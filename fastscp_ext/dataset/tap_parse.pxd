# One way to read a data set, header by header.

from libc.stdint cimport uint8_t, uint32_t

from fastscp_ext.dataset.tap_state cimport TapParse, TapState


# The header in hand is as long as it was wanted: takes it, or asks for 12 bytes.
cdef void take_header(TapState* tap, TapParse* p) noexcept nogil

# Read the slice of n bytes on to its end, as long as there is one parse and nothing to read again.
cdef void run_alone(TapState* tap, const uint8_t* data, uint32_t n) noexcept nogil

# How many more bytes it takes until something is decided.
cdef uint32_t bytes_to_step(const TapParse* p) noexcept nogil

# Read `amount` bytes, at most those of `bytes_to_step`; n: of the slice.
cdef void advance(
    TapState* tap, TapParse* p, const uint8_t* data, uint32_t n, uint32_t amount
) noexcept nogil
