"""What a received UID is good for. See uid.pyi."""

from libc.stdint cimport uint8_t, uint32_t

from fastscp_ext.wire.cursor cimport Cursor, cursor_over, peek_u8, take_u8

__all__ = ["UID_AS_NAME", "UID_NONE", "UID_STRICT", "UID_USABLE", "uid_grade"]


cdef int uid_grade(Cursor uid) noexcept nogil:
    cdef int grade = UID_STRICT
    cdef uint8_t byte = 0
    cdef uint8_t before = 0
    if not 1 <= uid.left <= UID_LONGEST:
        return UID_NONE
    if peek_u8(&uid, 0, &byte) and not is_alphanumeric(byte):
        return UID_NONE
    while take_u8(&uid, &byte):
        if c"0" <= byte <= c"9":
            pass
        elif byte == c".":
            if before == c".":
                grade = UID_USABLE
        elif is_alphanumeric(byte) or byte == c"_" or byte == c"-":
            grade = min(grade, <int>UID_AS_NAME)
        else:
            return UID_NONE
        before = byte
    return grade if is_alphanumeric(before) else UID_NONE


def _grade(uid not None):
    """What a UID without its padding is good for. See uid.pyi."""
    cdef bytes raw = uid.encode("latin-1", "replace") if isinstance(uid, str) else uid
    # What is too long stays so.
    return uid_grade(cursor_over(
        <const uint8_t*><const char*>raw, <uint32_t>min(len(raw), UID_LONGEST + 1)))


# In here the name belongs to the C function (uid.pxd); Python finds its own under it.
_grade.__name__ = _grade.__qualname__ = "uid_grade"
globals()["uid_grade"] = _grade
