"""The journal's lines: one JSON object an instance. See journal_line.pyi."""

from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, strlen
from libc.time cimport gmtime_r, time_t, tm
from posix.time cimport CLOCK_REALTIME, clock_gettime

from fastscp_ext.wire.cursor cimport Cursor, cursor_over, skip, take_u8
from fastscp_ext.dataset.digest cimport crc32c
from fastscp_ext.receive.instance cimport (
    DUPLICATE_IDENTICAL, DUPLICATE_KEPT, DUPLICATE_REPLACED, DUPLICATE_VERSION, sop_class_uid,
    sop_instance_uid, tapped_uid,
)
from fastscp_ext.dataset.tap cimport KEY_SERIES_UID, KEY_STUDY_UID
from fastscp_ext.text cimport put_decimal, put_hex8, put_padded, put_upper_hex

__all__ = []


cdef void lines_begin(Lines* lines) noexcept nogil:
    # Forget those of before; what is put from here on is written now.
    cdef time_t seconds
    cdef tm day
    cdef char* at = lines.text
    lines.size = 0
    lines.failed = False
    clock_gettime(CLOCK_REALTIME, &lines.at)
    if lines.at.tv_sec == lines.text_of:
        return
    lines.text_of = lines.at.tv_sec
    seconds = lines.at.tv_sec
    gmtime_r(&seconds, &day)
    at = put_padded(at, <uint32_t>(day.tm_year + 1900), 4)
    at[0] = c"-"
    at = put_padded(at + 1, <uint32_t>(day.tm_mon + 1), 2)
    at[0] = c"-"
    at = put_padded(at + 1, <uint32_t>day.tm_mday, 2)
    at[0] = c"T"
    at = put_padded(at + 1, <uint32_t>day.tm_hour, 2)
    at[0] = c":"
    at = put_padded(at + 1, <uint32_t>day.tm_min, 2)
    at[0] = c":"
    at = put_padded(at + 1, <uint32_t>day.tm_sec, 2)
    at[0] = 0


cdef void lines_end(Lines* lines) noexcept nogil:
    free(lines.bytes)
    lines.bytes = NULL
    lines.room = 0


cdef void _put(Lines* lines, const char* text, size_t n) noexcept nogil:
    cdef char* got
    cdef size_t room
    if lines.failed:
        return
    if n > lines.room - lines.size:
        room = lines.room * 2 + n + 4096
        got = <char*>realloc(lines.bytes, room)
        if got == NULL:
            lines.failed = True
            return
        lines.bytes = got
        lines.room = room
    if n:
        memcpy(lines.bytes + lines.size, text, n)
    lines.size += n


cdef inline void _put_text(Lines* lines, const char* text) noexcept nogil:
    _put(lines, text, strlen(text))


cdef void _put_string(Lines* lines, const char* key, Cursor value) noexcept nogil:
    # key: with its comma, quotes and colon, and the value's first quote. The value is ASCII or
    # UTF-8 of the layout; characters that JSON wants escaped are escaped.
    cdef uint8_t b = 0
    cdef char unit[10]
    cdef uint32_t n = 0
    cdef Cursor plain
    _put_text(lines, key)
    while value.left:
        plain = value
        while take_u8(&plain, &b) and b >= 32 and b != 34 and b != 92 and b != 127:
            n += 1
        _put(lines, <const char*>value.at, n)
        skip(&value, n)
        n = 0
        if take_u8(&value, &b):
            put_hex8(unit + 2, b)
            memcpy(unit + 4, b"\\u", 2)
            _put(lines, unit + 4, 6)
    _put(lines, b'"', 1)


cdef void _put_title(Lines* lines, const char* key, Cursor title) noexcept nogil:
    # An AE title in its written form: printable ASCII, and any other byte as %XX.
    cdef uint8_t b = 0
    cdef char written[48]
    cdef uint32_t n = 0
    while n <= 45 and take_u8(&title, &b):
        if 32 <= b <= 126 and b != 37:
            written[n] = <char>b
            n += 1
        else:
            written[n] = c"%"
            put_upper_hex(written + n + 1, b, 2)
            n += 3
    _put_string(lines, key, cursor_over(<uint8_t*>written, n))


cdef void _put_number(Lines* lines, const char* key, unsigned long long value) noexcept nogil:
    # key: with its comma, quotes and colon.
    cdef char text[20]
    _put_text(lines, key)
    _put(lines, text, <size_t>(put_decimal(text, value) - text))


cdef void line_stored(Lines* lines, const Worker* worker, Instance* i) noexcept nogil:
    # The line of an instance that has its final name.
    cdef size_t begin = lines.size
    cdef char text[16]
    cdef char* name = <char*>worker.name
    cdef uint32_t crc
    _put_number(lines, b'{"v":1,"event":"stored","seq":', i.sequence)
    _put_text(lines, b',"time":"')
    _put(lines, lines.text, 19)
    text[0] = c"."
    put_padded(text + 1, <uint32_t>(lines.at.tv_nsec // 1000), 6)
    _put(lines, text, 7)
    _put_string(
        lines, b'Z","worker":"', cursor_over(<uint8_t*>name, <uint32_t>strlen(name))
    )
    _put(lines, <const char*>i.journal_text.at, i.journal_text.left)
    if i.has_move:
        _put_title(lines, b',"move_originator_ae":"', cursor_over(i.move_ae, i.move_ae_size))
        if i.has_move_id:
            _put_number(lines, b',"move_originator_message_id":', i.move_id)
    _put_number(lines, b',"message_id":', i.message_id)
    _put_string(lines, b',"sop_class_uid":"', sop_class_uid(i))
    _put_string(lines, b',"sop_instance_uid":"', sop_instance_uid(i))
    _put_string(lines, b',"study_instance_uid":"', tapped_uid(i, KEY_STUDY_UID))
    _put_string(lines, b',"series_instance_uid":"', tapped_uid(i, KEY_SERIES_UID))
    _put_string(
        lines, b',"transfer_syntax_uid":"', cursor_over(i.transfer_syntax, i.transfer_syntax_size)
    )
    _put_string(lines, b',"path":"', cursor_over(<uint8_t*>i.path, i.path_size))
    _put_number(lines, b',"bytes":', i.data_bytes)
    if i.digest[0]:
        _put_string(
            lines, b',"digest":"', cursor_over(<uint8_t*>i.digest, <uint32_t>strlen(i.digest))
        )
    if i.duplicate == DUPLICATE_IDENTICAL:
        _put_text(lines, b',"duplicate":"identical"')
    elif i.duplicate == DUPLICATE_VERSION:
        _put_text(lines, b',"duplicate":"version"')
    elif i.duplicate == DUPLICATE_REPLACED:
        _put_text(lines, b',"duplicate":"replaced"')
    elif i.duplicate == DUPLICATE_KEPT:
        _put_text(lines, b',"duplicate":"kept"')
    if not i.treatment.durable:
        _put_text(lines, b',"durability":"buffered"')
    if i.truncated:
        _put_text(lines, b',"truncated":true')
    if i.tap.stopped:
        _put_text(lines, b',"unread_from":"(')
        put_upper_hex(text, i.tap.stop_tag >> 16, 4)
        put_upper_hex(text + 5, i.tap.stop_tag & 0xFFFF, 4)
        text[4] = c","
        _put(lines, text, 9)
        _put_number(lines, b') at byte ', i.tap.stop_at)
        _put_text(lines, b'"')
    if i.sniffed:
        _put_text(lines, b',"syntax_mismatch":true')
    if i.odd_uid:
        _put_text(lines, b',"odd_uid":true')
    if i.stripped:
        _put_number(lines, b',"stripped":', i.stripped)
    if i.peer_gone:
        _put_text(lines, b',"responded":false')
    if lines.failed:
        return
    crc = crc32c(0, <const uint8_t*>lines.bytes + begin, lines.size - begin)
    _put_text(lines, b',"crc":"')
    put_hex8(text, crc)
    _put(lines, text, 8)
    _put(lines, b'"}\n', 3)
