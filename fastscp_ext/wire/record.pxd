# One TLS record: its header, and where it ends.

from fastscp_ext.wire.cursor cimport Cursor


cdef enum:
    RECORD_HEADER = 5        # bytes: type, version, length
    RECORD_HANDSHAKE = 22    # type of the first one of a connection
    PLAIN_MOST = 16384       # bytes of plaintext in one
    # Bytes of a record's body: of TLS 1.2, which allows more than 1.3.
    BODY_MOST = 16384 + 2048

cdef enum RecordFound:
    RECORD_WHOLE = 0
    RECORD_MORE = 1          # it has not all come
    RECORD_WRONG = 2         # it is longer than any, or no record at all


cdef RecordFound take_record(Cursor* c, Cursor* record) noexcept nogil
