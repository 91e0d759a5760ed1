# Numbers as text: three of them go into every instance's names and journal line.

from libc.stdint cimport uint8_t, uint32_t, uint64_t


cdef inline char _digit(uint32_t value) noexcept nogil:
    return <char>(value + (48 if value < 10 else 87))


cdef inline char* put_hex8(char* at, uint32_t value) noexcept nogil:
    # Eight lower case digits; returns what follows them.
    cdef int shift
    for shift in range(28, -1, -4):
        at[0] = _digit((value >> shift) & 15)
        at += 1
    return at


cdef inline char* put_upper_hex(char* at, uint32_t value, int digits) noexcept nogil:
    # So many digits, as in a tag and in %XX; returns what follows them.
    cdef int k
    for k in range(digits - 1, -1, -1):
        at[k] = b"0123456789ABCDEF"[value & 15]
        value >>= 4
    return at + digits


cdef inline char* put_padded(char* at, uint32_t value, int digits) noexcept nogil:
    # So many decimal digits, zeros in front.
    cdef int k
    for k in range(digits - 1, -1, -1):
        at[k] = _digit(value % 10)
        value //= 10
    return at + digits


cdef inline char* put_decimal(char* at, uint64_t value) noexcept nogil:
    # At most 20 digits.
    cdef char digits[20]
    cdef int n = 0
    while True:
        digits[n] = _digit(<uint32_t>(value % 10))
        value //= 10
        n += 1
        if value == 0:
            break
    while n:
        n -= 1
        at[0] = digits[n]
        at += 1
    return at
