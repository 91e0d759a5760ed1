"""The fixed tables of rows: transfer syntaxes, statuses and reasons. See tables.pyi.

A row's number is its place: whoever changes an order here makes another version of the block.
"""

import errno

from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memcmp, memcpy, strlen, strncmp

from fastscp_ext.shared.block cimport STATUS_ROWS, SYNTAX_ROWS
from fastscp_ext.status cimport (
    CANNOT_UNDERSTAND, DATA_SET_MISMATCH, DUPLICATE_INVOCATION, ELEMENTS_DISCARDED,
    INVALID_SOP_INSTANCE, OUT_OF_RESOURCES, SOP_CLASS_NOT_SUPPORTED, SUCCESS,
)

__all__ = ["reason_of", "status_name", "syntax_name"]

cdef enum:
    UID_ROOM = 64
    REASON_ROOM = 65         # the Error Comment's 64 and a NUL
    NO_STATUS = 0x10000

ctypedef struct Syntax:
    uint32_t size
    char text[UID_ROOM]

ctypedef struct Reason:
    uint32_t status
    int error_no             # a refusal for this error has this text, or 0
    char text[REASON_ROOM]

# Says no more than that it is refused.
cdef const char* _GENERAL = b"cannot store now"

cdef Syntax _syntaxes[SYNTAX_ROWS]
cdef Reason _reasons[STATUS_ROWS]

# Those met most first. Source: PS3.6 Table A-1, retired ones included.
_SYNTAXES = (
    b"",
    b"1.2.840.10008.1.2.1",
    b"1.2.840.10008.1.2",
    *(b"1.2.840.10008.1.2.4.%d" % n for n in (70, 50, 90, 91, 80, 81, 57, 51)),
    b"1.2.840.10008.1.2.5",
    b"1.2.840.10008.1.2.2",
    b"1.2.840.10008.1.2.1.98",
    b"1.2.840.10008.1.2.1.99",
    b"1.2.840.10008.1.2.8.1",
    b"1.2.840.10008.1.2.6.1",
    b"1.2.840.10008.1.2.6.2",
    *(b"1.2.840.10008.1.2.7.%d" % n for n in (1, 2, 3)),
    *(b"1.2.840.10008.1.2.4.%d" % n for n in (201, 202, 203, 204, 205, 92, 93, 94, 95)),
    *(b"1.2.840.10008.1.2.4.%d" % n for n in (*range(100, 109), *range(110, 113))),
    *(b"1.2.840.10008.1.2.4.%d.1" % n for n in range(100, 107)),
    *(b"1.2.840.10008.1.2.4.%d" % n for n in (*range(52, 57), *range(58, 67))),
    # Private, in wide use.
    b"1.2.840.113619.5.2",
)

# In the order of StatusRow, then what refusals say in the Error Comment, which is the text of the
# error where a system call failed. What begins with all of another text comes before that one.
_REASONS = (
    (NO_STATUS, None, 0),
    (SUCCESS, b"stored", 0),
    (SUCCESS, b"identical", 0),
    (SUCCESS, b"version", 0),
    (SUCCESS, b"replaced", 0),
    (ELEMENTS_DISCARDED, b"existing instance kept", 0),
    (SUCCESS, b"stored, not answered", 0),
    (NO_STATUS, b"unfinished", 0),
    (SUCCESS, b"discarded", 0),
    (INVALID_SOP_INSTANCE, b"SOP Instance UID is not usable", 0),
    (INVALID_SOP_INSTANCE, b"UID is not usable as a name", 0),
    (INVALID_SOP_INSTANCE, b"UID is not made of digits and dots", 0),
    (SOP_CLASS_NOT_SUPPORTED, b"SOP Class UID is not usable", 0),
    (SOP_CLASS_NOT_SUPPORTED, b"SOP class is not accepted here", 0),
    (DUPLICATE_INVOCATION, b"Message ID is still outstanding", 0),
    (OUT_OF_RESOURCES, b"store is not there", 0),
    (OUT_OF_RESOURCES, b"data set above the size limit", 0),
    (OUT_OF_RESOURCES, b"disk full", errno.ENOSPC),
    (OUT_OF_RESOURCES, b"quota exceeded", errno.EDQUOT),
    (OUT_OF_RESOURCES, b"I/O error", errno.EIO),
    (OUT_OF_RESOURCES, b"read-only file system", errno.EROFS),
    (OUT_OF_RESOURCES, b"too many open files in the system", errno.ENFILE),
    (OUT_OF_RESOURCES, b"too many open files", errno.EMFILE),
    (OUT_OF_RESOURCES, b"out of memory", errno.ENOMEM),
    (OUT_OF_RESOURCES, b"folder or journal not there", errno.ENOENT),
    (OUT_OF_RESOURCES, b"timed out", errno.ETIMEDOUT),
    (OUT_OF_RESOURCES, b"symbolic link in the way", errno.ELOOP),
    (OUT_OF_RESOURCES, b"no regular file in the way", errno.ENXIO),
    (OUT_OF_RESOURCES, b"directory in the way", errno.EISDIR),
    (OUT_OF_RESOURCES, b"file in the way of a folder", errno.ENOTDIR),
    (OUT_OF_RESOURCES, _GENERAL, 0),
    (OUT_OF_RESOURCES, b"folder could not be flushed", 0),
    (OUT_OF_RESOURCES, b"existing instance may not be on the disk", 0),
    (DATA_SET_MISMATCH, b"SOP Instance UID differs from the data set's", 0),
    (DATA_SET_MISMATCH, b"SOP Class UID differs from the data set's", 0),
    (CANNOT_UNDERSTAND, b"no data set", 0),
    (CANNOT_UNDERSTAND, b"empty data set", 0),
    (CANNOT_UNDERSTAND, b"data set ends inside an element", 0),
    (CANNOT_UNDERSTAND, b"no Study or Series Instance UID found", 0),
    # And where: the rest of the comment.
    (CANNOT_UNDERSTAND, b"cannot be read past", 0),
    (CANNOT_UNDERSTAND, b"two different Study or Series Instance UIDs found", 0),
    (CANNOT_UNDERSTAND, b"broken sequences: Study or Series Instance UID not sure", 0),
    (CANNOT_UNDERSTAND, b"path too long for the layout", 0),
    (CANNOT_UNDERSTAND, b"another instance has this UID", 0),
    (CANNOT_UNDERSTAND, b"too many versions of this UID", 0),
    (CANNOT_UNDERSTAND, b"file header in the data set", 0),
    (CANNOT_UNDERSTAND, b"data set ends inside a file header", 0),
    (CANNOT_UNDERSTAND, b"unreadable file header in the data set", 0),
    (CANNOT_UNDERSTAND, b"data set does not match its embedded header", 0),
    *((status, reason, 0) for reason in (b"refused on purpose", None) for status in (
        INVALID_SOP_INSTANCE, SOP_CLASS_NOT_SUPPORTED, DUPLICATE_INVOCATION, OUT_OF_RESOURCES,
        DATA_SET_MISMATCH, CANNOT_UNDERSTAND,
    )),
)


cdef int _fill() except -1:
    cdef int row
    cdef const char* text
    if len(_SYNTAXES) > SYNTAX_ROWS or len(_REASONS) > STATUS_ROWS:
        raise ValueError("a table has more rows than there are")
    for row, uid in enumerate(_SYNTAXES):
        text = uid
        _syntaxes[row].size = len(uid)
        memcpy(_syntaxes[row].text, text, _syntaxes[row].size)
    for row, (status, reason, error_no) in enumerate(_REASONS):
        reason = reason or b""
        text = reason
        _reasons[row].status = status
        _reasons[row].error_no = error_no
        memcpy(_reasons[row].text, text, <size_t>len(reason) + 1)
    return 0


_fill()
cdef int _syntax_rows = len(_SYNTAXES)
cdef int _status_rows = len(_REASONS)


cdef int syntax_row(const uint8_t* uid, uint32_t size) noexcept nogil:
    # The row of a transfer syntax, or 0.
    cdef int row
    for row in range(1, _syntax_rows):
        if _syntaxes[row].size == size and memcmp(_syntaxes[row].text, uid, size) == 0:
            return row
    return 0


cdef inline bint _says(const char* comment, const char* text) noexcept nogil:
    # Whether the comment is the text, or begins with it as a sentence with its words.
    cdef size_t size = strlen(text)
    return strncmp(comment, text, size) == 0 and (comment[size] == 0 or comment[size] == c" ")


cdef int status_row(uint16_t status, const char* comment, int error_no) noexcept nogil:
    # The row of a refusal: of its error where the table knows that, else of its Error Comment, else
    # the one of its status.
    cdef Reason* at
    cdef int row
    for row in range(<int>STATUS_ROW_UNFINISHED + 1, _status_rows):
        at = &_reasons[row]
        if error_no and at.error_no == error_no and at.status == status:
            return row
    for row in range(<int>STATUS_ROW_UNFINISHED + 1, _status_rows):
        at = &_reasons[row]
        # The row without a text is the last one of its status.
        if at.status == status and (at.text[0] == 0 or _says(comment, at.text)):
            return row
    return STATUS_ROW_OTHER


cdef const char* _error_text(int error_no) noexcept nogil:
    # NULL where the error has no words of its own.
    cdef int row
    if error_no:
        for row in range(_status_rows):
            if _reasons[row].error_no == error_no:
                return _reasons[row].text
    return NULL


cdef const char* refusal_text(int error_no) noexcept nogil:
    # What a refusal for this error says. error_no: 0 for none that is known.
    cdef const char* text = _error_text(error_no)
    return text if text != NULL else _GENERAL


cpdef object reason_of(int error_no):
    """See tables.pyi."""
    cdef const char* text = _error_text(error_no)
    return None if text == NULL else (<bytes>text).decode()


cpdef object syntax_name(int row):
    """See tables.pyi."""
    if not 0 < row < _syntax_rows:
        return None
    return _SYNTAXES[row].decode()


cpdef object status_name(int row):
    """See tables.pyi."""
    if not 0 <= row < _status_rows:
        return None, None
    status, reason = _REASONS[row][:2]
    return None if status == NO_STATUS else status, reason.decode() if reason else None
