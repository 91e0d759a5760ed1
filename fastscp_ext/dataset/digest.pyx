"""CRC-32C (Castagnoli) by the processor's instruction where it has one."""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t


cdef extern from "crc32c.h" nogil:
    void crc32c_init() noexcept
    uint32_t crc32c_extend(uint32_t crc, const uint8_t* data, size_t n) noexcept
    uint32_t crc32c_extend_portable(uint32_t crc, const uint8_t* data, size_t n) noexcept
    uint32_t crc32c_extend_by_steps(uint32_t crc, const uint8_t* data, size_t n) noexcept
    bint crc32c_has_instruction() noexcept

__all__ = ["HAS_INSTRUCTION", "crc32c", "crc32c_by_steps", "crc32c_portable"]

# The tables are this module's: importing it, or a cimport of `crc32c`, fills them.
crc32c_init()

HAS_INSTRUCTION = bool(crc32c_has_instruction())


cdef uint32_t crc32c(uint32_t crc, const uint8_t* data, size_t n) noexcept nogil:
    return crc32c_extend(crc, data, n)


def _checksum(const uint8_t[::1] data not None, uint32_t value=0):
    """The CRC-32C of what `value` is the checksum of, followed by `data`."""
    if data.shape[0] == 0:
        return value
    return crc32c_extend(value, &data[0], <size_t>data.shape[0])


def crc32c_portable(const uint8_t[::1] data not None, uint32_t value=0):
    """The same without the instruction, for tests and for comparison."""
    if data.shape[0] == 0:
        return value
    return crc32c_extend_portable(value, &data[0], <size_t>data.shape[0])


def crc32c_by_steps(const uint8_t[::1] data not None, uint32_t value=0):
    """The same by the instruction alone where there is one, else portable; for tests."""
    if data.shape[0] == 0:
        return value
    return crc32c_extend_by_steps(value, &data[0], <size_t>data.shape[0])


# In here the name belongs to the C function (digest.pxd); Python finds its own under it.
_checksum.__name__ = _checksum.__qualname__ = "crc32c"
globals()["crc32c"] = _checksum
