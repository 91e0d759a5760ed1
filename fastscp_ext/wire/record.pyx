"""One TLS record: its header, and where it ends. See record.pyi.

Sources: RFC 8446 5.1 and 5.2, RFC 5246 6.2.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t

from fastscp_ext.wire.cursor cimport Cursor, cursor_over, peek_u8, take_span, take_u16_be, take_u8

__all__ = ["tls_records"]

cdef enum:
    TYPE_FIRST = 20              # change_cipher_spec
    TYPE_LAST = 24               # heartbeat
    MAJOR = 3                    # of the version: the minor one says nothing any more


cdef RecordFound take_record(Cursor* c, Cursor* record) noexcept nogil:
    # The whole record at the cursor, with its header. Whatever else is found, the cursor stays.
    cdef Cursor look = c[0]
    cdef uint8_t kind = 0
    cdef uint8_t major = 0
    cdef uint8_t minor = 0
    cdef uint16_t length = 0
    if peek_u8(&look, 0, &kind) and not TYPE_FIRST <= kind <= TYPE_LAST:
        return RECORD_WRONG
    if peek_u8(&look, 1, &major) and major != MAJOR:
        return RECORD_WRONG
    if not (
        take_u8(&look, &kind) and take_u8(&look, &major) and take_u8(&look, &minor)
        and take_u16_be(&look, &length)
    ):
        return RECORD_MORE
    if length > BODY_MOST:
        return RECORD_WRONG
    if not take_span(c, <uint32_t>RECORD_HEADER + length, record):
        return RECORD_MORE
    return RECORD_WHOLE


def tls_records(const uint8_t[::1] data not None):
    """The whole records that these bytes begin with. See record.pyi."""
    cdef Cursor c = cursor_over(&data[0] if data.shape[0] else NULL, <uint32_t>data.shape[0])
    cdef Cursor record
    cdef RecordFound found
    cdef list sizes = []
    while True:
        found = take_record(&c, &record)
        if found != RECORD_WHOLE:
            return sizes, found == RECORD_MORE
        sizes.append(record.left)
