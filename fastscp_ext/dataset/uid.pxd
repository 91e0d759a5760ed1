# What a received UID is good for: one rule with grades, each of which implies those before it.

from libc.stdint cimport uint8_t

from fastscp_ext.wire.cursor cimport Cursor


cdef enum:
    UID_LONGEST = 64   # bytes, without padding (PS3.5 9.1)

# Letters, "_" and "-" are illegal, seen, and harmless, and so are leading zeros.
cpdef enum:
    UID_NONE = 0
    UID_USABLE = 1   # 1 to 64 of [0-9A-Za-z._-], first and last alphanumeric
    UID_AS_NAME = 2  # and no "..": may be a name in a path
    UID_STRICT = 3   # and digits and dots only

# uid: without its padding.
cdef int uid_grade(Cursor uid) noexcept nogil


cdef inline bint uid_ok(Cursor uid) noexcept nogil:
    return uid_grade(uid) >= UID_AS_NAME


cdef inline bint uid_is_strict(Cursor uid) noexcept nogil:
    return uid_grade(uid) == UID_STRICT


cdef inline bint is_alphanumeric(uint8_t byte) noexcept nogil:
    return c"0" <= byte <= c"9" or c"A" <= byte <= c"Z" or c"a" <= byte <= c"z"
