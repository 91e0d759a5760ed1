# What follows a VR of an explicit data set: the one table of lengths.
# Source: PS3.5 7.1.2 Tables 7.1-1 and 7.1-2, 6.2.

from libc.stdint cimport uint8_t


cdef enum VR:
    VR_INVALID     # not two capitals
    VR_UNKNOWN     # two capitals: read like VR_LONG (PS3.5 7.1.2)
    VR_SHORT       # 16-bit length
    VR_LONG        # two reserved bytes, 32-bit length
    VR_SEQUENCE    # VR_LONG, holds items
    VR_UN          # VR_LONG, holds implicit items when its length is undefined


cdef inline VR vr_of(uint8_t first, uint8_t second) noexcept nogil:
    if first < c"A" or first > c"Z" or second < c"A" or second > c"Z":
        return VR_INVALID
    if first == c"S" and second == c"Q":
        return VR_SEQUENCE
    if first == c"U" and second == c"N":
        return VR_UN
    if first == c"O":
        if second in (c"B", c"D", c"F", c"L", c"V", c"W"):
            return VR_LONG
    elif first == c"U":
        if second in (c"C", c"R", c"T", c"V"):
            return VR_LONG
        if second in (c"I", c"L", c"S"):
            return VR_SHORT
    elif first == c"S":
        if second == c"V":
            return VR_LONG
        if second in (c"H", c"L", c"S", c"T"):
            return VR_SHORT
    elif first == c"A":
        if second in (c"E", c"S", c"T"):
            return VR_SHORT
    elif first == c"D":
        if second in (c"A", c"S", c"T"):
            return VR_SHORT
    elif first == c"L":
        if second in (c"O", c"T"):
            return VR_SHORT
    elif first == c"F":
        if second in (c"D", c"L"):
            return VR_SHORT
    elif first == c"C":
        if second == c"S":
            return VR_SHORT
    elif first == c"I":
        if second == c"S":
            return VR_SHORT
    elif first == c"P":
        if second == c"N":
            return VR_SHORT
    elif first == c"T":
        if second == c"M":
            return VR_SHORT
    return VR_UNKNOWN


cdef inline bint is_long(VR vr) noexcept nogil:
    # A VR that is known to have a 32-bit length; what an unknown one has, its reader decides.
    return vr == VR_LONG or vr == VR_SEQUENCE or vr == VR_UN
