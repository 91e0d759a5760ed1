"""Lines of the journal looked through without the interpreter. See journal_scan.pyi."""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memchr, memcmp

from fastscp_ext.dataset.digest cimport crc32c
from fastscp_ext.shared.line_index cimport LineIndex
from fastscp_ext.wire.cursor cimport Cursor, cursor_over, peek_u8, skip, take_span, take_u8

__all__ = ["index_lines", "lines_about"]

cdef enum:
    CRC_BYTES = 18           # `,"crc":"01234567"}`
    SEQUENCE_DIGITS = 19     # of a number that surely fits
    LINE_LEAST = 48          # what says what a file holds is longer
    FOUND_AT_ONCE = 64

cdef enum Line:
    LINE_NONE                # it says nothing of what a file holds, or is no whole line
    LINE_PLAIN               # it does
    LINE_ODD                 # it is not plain

# What is looked at of a line.
ctypedef struct Fact:
    Cursor event
    Cursor sequence
    Cursor path
    Cursor duplicate


cdef inline bint _is(Cursor text, const char* word, uint32_t n) noexcept nogil:
    return text.left == n and memcmp(text.at, word, n) == 0


cdef inline bint _take(Cursor* text, char wanted) noexcept nogil:
    cdef uint8_t b = 0
    if not peek_u8(text, 0, &b) or b != <uint8_t>wanted:
        return False
    return skip(text, 1)


cdef inline bint _take_string(Cursor* text, Cursor* out, bint* escaped) noexcept nogil:
    # What stands between a quote, which is taken already, and the next one that is not escaped.
    cdef Cursor from_here = text[0]
    cdef uint32_t n = 0
    cdef uint8_t b = 0
    escaped[0] = False
    while take_u8(text, &b):
        if b == 34:
            return take_span(&from_here, n, out)
        if b == 92:
            escaped[0] = True
            n += 1
            if not take_u8(text, &b):
                return False
        n += 1
    return False


cdef inline bint _take_bare(Cursor* text, Cursor* out) noexcept nogil:
    # A number, true, false or null.
    cdef Cursor from_here = text[0]
    cdef uint32_t n = 0
    cdef uint8_t b = 0
    while peek_u8(text, n, &b) and (
        48 <= b <= 57 or 97 <= b <= 122 or 65 <= b <= 90 or b == 43 or b == 45 or b == 46
    ):
        n += 1
    skip(text, n)
    return n > 0 and take_span(&from_here, n, out)


cdef bint _read(Cursor text, Fact* fact) noexcept nogil:
    # Whether it is plain, and then what is looked at; what is not there is empty. Of members that
    # are there twice the last counts.
    cdef Cursor key
    cdef Cursor value
    cdef Cursor* place
    cdef bint escaped = False
    cdef bint is_string
    fact.event = fact.sequence = fact.path = fact.duplicate = cursor_over(NULL, 0)
    if not _take(&text, c"{"):
        return False
    while True:
        if not _take(&text, c'"') or not _take_string(&text, &key, &escaped) or escaped:
            return False
        if not _take(&text, c":"):
            return False
        is_string = _take(&text, c'"')
        if not (_take_string(&text, &value, &escaped) if is_string else _take_bare(&text, &value)):
            return False
        place = NULL
        if _is(key, b"path", 4):
            place = &fact.path
        elif _is(key, b"seq", 3):
            place = &fact.sequence
        elif _is(key, b"event", 5):
            place = &fact.event
        elif _is(key, b"duplicate", 9):
            place = &fact.duplicate
        if place != NULL:
            if (is_string and escaped) or is_string == (place == &fact.sequence):
                return False
            place[0] = value
        if not _take(&text, c","):
            break
    return _take(&text, c"}") and text.left == 0


cdef bint _number(Cursor digits, uint64_t* out) noexcept nogil:
    cdef uint8_t b = 0
    if not 0 < digits.left <= SEQUENCE_DIGITS:
        return False
    out[0] = 0
    while take_u8(&digits, &b):
        if not 48 <= b <= 57:
            return False
        out[0] = out[0] * 10 + b - 48
    return True


cdef Line _checked(Cursor line) noexcept nogil:
    # Whether its checksum is right: LINE_PLAIN, LINE_NONE, or LINE_ODD for digits of another kind.
    cdef Cursor end = line
    cdef uint32_t crc = 0
    cdef uint8_t b = 0
    if line.left <= CRC_BYTES:
        return LINE_NONE
    skip(&end, line.left - CRC_BYTES)
    if memcmp(end.at, b',"crc":"', 8) != 0 or memcmp(end.at + 16, b'"}', 2) != 0:
        return LINE_NONE
    skip(&end, 8)
    while end.left > 2 and take_u8(&end, &b):
        if 48 <= b <= 57:
            b -= 48
        elif 97 <= b <= 102:
            b -= 87
        elif 65 <= b <= 70:
            b -= 55
        else:
            return LINE_ODD
        crc = crc << 4 | b
    return LINE_PLAIN if crc32c(0, line.at, line.left - CRC_BYTES) == crc else LINE_NONE


cdef Line _look(Cursor line, Fact* fact, uint64_t* sequence) noexcept nogil:
    # sequence: NULL where the checksum does not matter.
    cdef Line checked
    if sequence != NULL:
        checked = _checked(line)
        if checked != LINE_PLAIN:
            return checked
    if not _read(line, fact):
        return LINE_ODD
    if fact.path.at == NULL or fact.sequence.at == NULL:
        return LINE_NONE
    if not _is(fact.event, b"stored", 6) and not _is(fact.event, b"adopted", 7):
        return LINE_NONE
    if _is(fact.duplicate, b"kept", 4):
        return LINE_NONE
    if sequence != NULL and not _number(fact.sequence, sequence):
        return LINE_ODD
    return LINE_PLAIN


cdef bint _next_line(Cursor* text, Cursor* line, uint32_t* size, uint32_t longest) noexcept nogil:
    # line: without its newline, empty where it is too long. size: with it.
    cdef const void* found
    if not text.left:
        return False
    found = memchr(text.at, 10, text.left)
    if found == NULL:
        size[0] = text.left
        take_span(text, size[0], line)
        if size[0] >= longest:
            line.left = 0
        return True
    size[0] = <uint32_t>(<const uint8_t*>found - text.at) + 1
    take_span(text, size[0], line)
    line.left -= 1
    if size[0] > longest:
        line.left = 0
    return True


cdef uint32_t _index(
    LineIndex index, uint32_t segment, uint32_t offset, Cursor text, uint32_t longest,
    uint32_t* odd
) noexcept nogil:
    # Returns the bytes done with. There is room for all the lines that there may be.
    cdef Cursor line
    cdef Fact fact
    cdef Line what
    cdef uint32_t done = 0
    cdef uint32_t size = 0
    cdef uint64_t sequence = 0
    while _next_line(&text, &line, &size, longest):
        what = _look(line, &fact, &sequence)
        if what == LINE_ODD:
            odd[0] = size
            break
        if what == LINE_PLAIN:
            index.put(fact.path.at, fact.path.left, sequence, segment, offset + done)
        done += size
    return done


def index_lines(
    LineIndex index not None, uint32_t segment, uint64_t offset, const uint8_t[::1] text not None,
    uint32_t longest
):
    """See journal_scan.pyi."""
    cdef uint32_t odd = 0
    cdef uint32_t done
    cdef Cursor all_of
    if offset + <uint64_t>text.shape[0] > <uint64_t>0xFFFFFFFF:
        raise OverflowError("a file of the journal is longer than 4 GiB")
    if not text.shape[0]:
        return 0, 0
    index.make_room(<size_t>text.shape[0] // LINE_LEAST + 1)
    all_of = cursor_over(&text[0], <uint32_t>text.shape[0])
    with nogil:
        done = _index(index, segment, <uint32_t>offset, all_of, longest, &odd)
    return done, odd


cdef int _about(
    Cursor* text, uint32_t* at, Cursor path, uint32_t longest, uint32_t* places, uint32_t* sizes
) noexcept nogil:
    # The next lines that may be about the path, at most FOUND_AT_ONCE; returns how many. at: where
    # the text stands.
    cdef Cursor line
    cdef Fact fact
    cdef Line what
    cdef int count = 0
    cdef uint32_t size = 0
    while count < FOUND_AT_ONCE and _next_line(text, &line, &size, longest):
        what = _look(line, &fact, NULL) if line.left > CRC_BYTES else LINE_NONE
        if what == LINE_ODD or (
            what == LINE_PLAIN and fact.path.left == path.left
            and memcmp(fact.path.at, path.at, path.left) == 0
        ):
            places[count] = at[0]
            sizes[count] = size
            count += 1
        at[0] += size
    return count


def lines_about(const uint8_t[::1] text not None, bytes path not None, uint32_t longest):
    """See journal_scan.pyi."""
    cdef uint32_t places[FOUND_AT_ONCE]
    cdef uint32_t sizes[FOUND_AT_ONCE]
    cdef uint32_t at = 0
    cdef Cursor rest
    cdef Cursor wanted = cursor_over(<const uint8_t*><const char*>path, <uint32_t>len(path))
    cdef int count
    cdef int k
    if text.shape[0] > <Py_ssize_t>0xFFFFFFFF:
        raise OverflowError("more text than can be looked through at once")
    found = []
    if text.shape[0]:
        rest = cursor_over(&text[0], <uint32_t>text.shape[0])
        while rest.left:
            with nogil:
                count = _about(&rest, &at, wanted, longest, places, sizes)
            for k in range(count):
                found.append((places[k], sizes[k]))
    return found
