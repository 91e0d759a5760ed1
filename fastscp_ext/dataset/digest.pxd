# CRC-32C (Castagnoli) by the processor's instruction where it has one.

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t


# Goes on from `crc`, which is 0 at the start; every returned value is a finished checksum.
cdef uint32_t crc32c(uint32_t crc, const uint8_t* data, size_t n) noexcept nogil
