# The fixed tables of rows: transfer syntaxes, statuses and reasons.

from libc.stdint cimport uint8_t, uint16_t, uint32_t


# Rows of the family by status that need no search.
cdef enum StatusRow:
    STATUS_ROW_OTHER = 0
    STATUS_ROW_STORED = 1
    STATUS_ROW_IDENTICAL = 2
    STATUS_ROW_VERSION = 3
    STATUS_ROW_REPLACED = 4
    STATUS_ROW_KEPT = 5
    STATUS_ROW_UNTOLD = 6
    STATUS_ROW_UNFINISHED = 7
    STATUS_ROW_DISCARDED = 8

cdef int syntax_row(const uint8_t* uid, uint32_t size) noexcept nogil
cdef int status_row(uint16_t status, const char* comment, int error_no) noexcept nogil
cdef const char* refusal_text(int error_no) noexcept nogil
cpdef object reason_of(int error_no)
cpdef object syntax_name(int row)
cpdef object status_name(int row)
