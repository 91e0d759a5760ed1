"""PROXY protocol headers, versions 1 and 2: whom a proxy speaks for.

Source: HAProxy's doc/proxy-protocol.txt, 2.1 (version 1), 2.2 (version 2, TLVs).
"""

cimport cython
from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memset

from fastscp_ext.dataset.digest cimport crc32c
from fastscp_ext.wire.cursor cimport (
    Cursor, collect, cursor_over, peek_u8, skip, take_span, take_u8, take_u16_be, take_u32_be,
)

from fastscp_ext.errors import ProxyHeaderError

__all__ = ["ProxyHeader"]

cdef extern from "<arpa/inet.h>" nogil:
    int AF_INET
    int AF_INET6
    int inet_pton(int family, const char* text, void* into)
    const char* inet_ntop(int family, const void* address, char* into, unsigned int room)

# Bytes. The longest and the shortest line of version 1, with its CRLF; the fixed fields of
# version 2, and what may follow them: HAProxy sends some hundred bytes with all it knows of TLS.
cdef enum:
    LINE_MOST = 107
    LINE_LEAST = 15
    WORD_SIZE = 6
    SIGNATURE_SIZE = 12
    FIXED_SIZE = 16
    BLOCK_MOST = 4096

# The longest textual address, with its NUL.
cdef enum:
    ADDRESS_ROOM = 46

cdef const char* WORD = b"PROXY "
cdef const char* SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"

cdef enum:
    TLV_CRC32C = 0x03
    TLV_SSL = 0x20
    TLV_SSL_CN = 0x22
    # Of the client field: a certificate was there, in this connection or earlier in its session.
    CLIENT_CERTIFICATE = 0x02 | 0x04

cdef enum Complaint:
    COMPLAINT_NONE
    COMPLAINT_ABSENT
    COMPLAINT_LINE_END
    COMPLAINT_LINE_LONG
    COMPLAINT_LINE
    COMPLAINT_PROTOCOL
    COMPLAINT_ADDRESS
    COMPLAINT_PORT
    COMPLAINT_VERSION
    COMPLAINT_COMMAND
    COMPLAINT_FAMILY
    COMPLAINT_BLOCK_LONG
    COMPLAINT_BLOCK_SHORT
    COMPLAINT_TLV
    COMPLAINT_CHECKSUM_TLV
    COMPLAINT_CHECKSUM

_COMPLAINTS = {
    COMPLAINT_ABSENT: "no PROXY header",
    COMPLAINT_LINE_END: "its line does not end in CR LF",
    COMPLAINT_LINE_LONG: f"its line is longer than {LINE_MOST} bytes",
    COMPLAINT_LINE: "its line has not the words it should",
    COMPLAINT_PROTOCOL: "neither TCP4, TCP6 nor UNKNOWN",
    COMPLAINT_ADDRESS: "an address that is none",
    COMPLAINT_PORT: "a port that is none",
    COMPLAINT_VERSION: "neither version 1 nor 2",
    COMPLAINT_COMMAND: "neither LOCAL nor PROXY",
    COMPLAINT_FAMILY: "an address family or a transport that is none",
    COMPLAINT_BLOCK_LONG: f"more than {BLOCK_MOST} bytes of addresses and TLVs",
    COMPLAINT_BLOCK_SHORT: "shorter than its addresses",
    COMPLAINT_TLV: "a TLV that runs past the end",
    COMPLAINT_CHECKSUM_TLV: "a checksum that is not 4 bytes, or two of them",
    COMPLAINT_CHECKSUM: "a checksum that is wrong",
}


cdef bint _begins(Cursor c, const char* of, uint32_t size) noexcept nogil:
    # Whether bytes are those of a constant, as far as both go.
    cdef Cursor wanted = cursor_over(<const uint8_t*>of, size)
    cdef uint8_t a = 0
    cdef uint8_t b = 0
    while take_u8(&c, &a) and take_u8(&wanted, &b):
        if a != b:
            return False
    return True


cdef bint _is(Cursor c, const char* of, uint32_t size) noexcept nogil:
    return c.left == size and _begins(c, of, size)


cdef bint _word(Cursor* c, Cursor* out) noexcept nogil:
    # The bytes up to a space or the end, at least one; the space stays.
    cdef uint32_t n = 0
    cdef uint8_t byte = 0
    while peek_u8(c, n, &byte) and byte != c" ":
        n += 1
    return n > 0 and take_span(c, n, out)


cdef bint _space(Cursor* c) noexcept nogil:
    cdef uint8_t byte = 0
    return take_u8(c, &byte) and byte == c" "


cdef bint _address(Cursor c, int family, void* into) noexcept nogil:
    # A textual address, as 4 or 16 bytes. Nothing that would end the text early gets through.
    cdef char text[ADDRESS_ROOM]
    cdef uint32_t size = c.left
    cdef Cursor look = c
    cdef uint8_t byte = 0
    if size >= ADDRESS_ROOM:
        return False
    while take_u8(&look, &byte):
        if not (c"0" <= byte <= c"9" or c"a" <= byte <= c"f" or c"A" <= byte <= c"F"
                or byte == c":" or byte == c"."):
            return False
    memset(text, 0, ADDRESS_ROOM)
    collect(&c, <uint8_t*>text, 0, size)
    return inet_pton(family, text, into) == 1


cdef bint _port(Cursor c, uint16_t* out) noexcept nogil:
    # Decimal digits without a zero in front.
    cdef uint32_t value = 0
    cdef uint32_t size = c.left
    cdef uint8_t byte = 0
    if not 0 < size <= 5:
        return False
    while take_u8(&c, &byte):
        if not c"0" <= byte <= c"9" or (value == 0 and c.left + 1 < size):
            return False
        value = value * 10 + <uint32_t>(byte - c"0")
    out[0] = <uint16_t>value
    return value <= 65535


@cython.final
cdef class ProxyHeader:
    """One header, taken in piece by piece. See proxy.pyi."""

    cdef uint8_t place[FIXED_SIZE + BLOCK_MOST]
    cdef uint32_t have
    cdef uint32_t size
    cdef uint8_t last
    cdef bint whole
    cdef Complaint complaint
    cdef bint local
    # Of the peer; family is 0 where the header tells of none.
    cdef int family
    cdef uint8_t address[16]
    cdef uint16_t port
    cdef bint has_checksum
    cdef bint has_name
    cdef Cursor name

    @property
    def version(self):
        return 0 if self.have == 0 else 1 if self._is_line() else 2

    @property
    def is_whole(self):
        return self.whole

    @property
    def least(self):
        """See proxy.pyi."""
        if self.whole or self.complaint:
            return 0
        if self.have and not self._is_line():
            return (self.size if self.size else <uint32_t>FIXED_SIZE) - self.have
        if self.have < LINE_LEAST:
            return LINE_LEAST - self.have
        return 1 if self.last == c"\r" else 2

    @property
    def is_local(self):
        return self.local

    @property
    def source(self):
        """See proxy.pyi."""
        cdef char text[ADDRESS_ROOM]
        cdef int family = self.family
        cdef const uint8_t* packed = self.address
        cdef char* mapped = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, -1, -1]
        if not self.whole or not family:
            return None
        if family == AF_INET6 and _begins(cursor_over(packed, 12), mapped, 12):
            # As a socket that serves both families shows an IPv4 peer.
            family, packed = AF_INET, packed + 12
        inet_ntop(family, packed, text, ADDRESS_ROOM)
        return (<bytes>text).decode("ascii"), self.port

    @property
    def common_name(self):
        """See proxy.pyi."""
        if not self.whole or not self.has_name:
            return None
        return (<const char*>self.name.at)[:self.name.left]

    def feed(self, const uint8_t[::1] data not None):
        """See proxy.pyi."""
        cdef Cursor c
        cdef uint32_t size
        if self.complaint:
            raise self._error()
        if data.shape[0] == 0 or self.whole:
            return 0
        size = <uint32_t>min(data.shape[0], FIXED_SIZE + BLOCK_MOST)
        c = cursor_over(&data[0], size)
        self._take(&c)
        if self.complaint:
            raise self._error()
        return size - c.left

    cdef object _error(self):
        error = ProxyHeaderError(_COMPLAINTS[self.complaint], self.have)
        error.is_absent = self.complaint == COMPLAINT_ABSENT
        return error

    cdef bint _is_line(self) noexcept nogil:
        return _begins(cursor_over(self.place, self.have), WORD, 1)

    cdef void _take(self, Cursor* c) noexcept nogil:
        # A byte at a time up to where it is known how many there are.
        cdef uint32_t want
        while c.left and not self.whole and not self.complaint:
            want = self.size if self.size else self.have + 1
            self.have = collect(c, self.place, self.have, want)
            if self._is_line():
                self.complaint = self._line_goes_on()
            elif self.size:
                if self.have == self.size:
                    self.complaint = self._block()
                    self.whole = not self.complaint
            else:
                self.complaint = self._fixed_goes_on()

    # Version 1 -----------------------------------------------------------------------------------

    cdef Complaint _line_goes_on(self) noexcept nogil:
        cdef uint8_t byte = 0
        cdef Cursor c = cursor_over(self.place, self.have)
        cdef Complaint complaint
        if not _begins(c, WORD, WORD_SIZE):
            return COMPLAINT_ABSENT
        peek_u8(&c, self.have - 1, &byte)
        if (byte == c"\n") != (self.last == c"\r"):
            return COMPLAINT_LINE_END
        self.last = byte
        if byte == c"\n":
            skip(&c, WORD_SIZE)
            c.left -= 2
            complaint = self._line(c)
            self.whole = not complaint
            return complaint
        return COMPLAINT_LINE_LONG if self.have == LINE_MOST else COMPLAINT_NONE

    cdef Complaint _line(self, Cursor c) noexcept nogil:
        # What is between `PROXY ` and CR LF.
        cdef Cursor protocol, source, target, source_port, target_port
        cdef int family
        cdef uint8_t unused[16]
        cdef uint16_t number = 0
        if not _word(&c, &protocol):
            return COMPLAINT_LINE
        if _is(protocol, b"UNKNOWN", 7):
            # Whatever follows is to be ignored.
            return COMPLAINT_NONE
        if _is(protocol, b"TCP4", 4):
            family = AF_INET
        elif _is(protocol, b"TCP6", 4):
            family = AF_INET6
        else:
            return COMPLAINT_PROTOCOL
        if not (_space(&c) and _word(&c, &source) and _space(&c) and _word(&c, &target)
                and _space(&c) and _word(&c, &source_port) and _space(&c)
                and _word(&c, &target_port) and c.left == 0):
            return COMPLAINT_LINE
        if not _address(source, family, self.address) or not _address(target, family, unused):
            return COMPLAINT_ADDRESS
        if not _port(source_port, &self.port) or not _port(target_port, &number):
            return COMPLAINT_PORT
        self.family = family
        return COMPLAINT_NONE

    # Version 2 -----------------------------------------------------------------------------------

    cdef Complaint _fixed_goes_on(self) noexcept nogil:
        cdef Cursor c = cursor_over(self.place, self.have)
        cdef uint8_t command = 0
        cdef uint8_t family = 0
        cdef uint16_t length = 0
        if not _begins(c, SIGNATURE, SIGNATURE_SIZE):
            return COMPLAINT_ABSENT
        if self.have < FIXED_SIZE:
            return COMPLAINT_NONE
        skip(&c, SIGNATURE_SIZE)
        take_u8(&c, &command)
        take_u8(&c, &family)
        take_u16_be(&c, &length)
        if command >> 4 != 2:
            return COMPLAINT_VERSION
        if command & 0x0F > 1:
            return COMPLAINT_COMMAND
        if length > BLOCK_MOST:
            return COMPLAINT_BLOCK_LONG
        self.local = command & 0x0F == 0
        self.size = FIXED_SIZE + length
        if length == 0:
            # Nothing more comes that would have it judged.
            self.whole = self.local or family == 0
            return COMPLAINT_NONE if self.whole else _family_complaint(family)
        return COMPLAINT_NONE

    cdef Complaint _block(self) noexcept nogil:
        # Addresses, then TLVs.
        cdef Cursor c = cursor_over(self.place, self.have)
        cdef Cursor addresses
        cdef uint8_t family = 0
        cdef uint32_t size
        skip(&c, SIGNATURE_SIZE + 1)
        take_u8(&c, &family)
        skip(&c, 2)
        if self.local or family == 0:
            # The connection is the proxy's own, or it does not know whose: nothing here counts.
            return COMPLAINT_NONE
        size = _addresses_size(family)
        if not size or not take_span(&c, size, &addresses):
            return _family_complaint(family)
        if family == 0x11 or family == 0x21:
            size = 4 if family == 0x11 else 16
            collect(&addresses, self.address, 0, size)
            skip(&addresses, size)
            take_u16_be(&addresses, &self.port)
            self.family = AF_INET if family == 0x11 else AF_INET6
        return self._tlvs(c)

    cdef Complaint _tlvs(self, Cursor c) noexcept nogil:
        cdef Cursor value
        cdef Complaint complaint
        cdef uint8_t kind = 0
        while c.left:
            if not _tlv(&c, &kind, &value):
                return COMPLAINT_TLV
            complaint = COMPLAINT_NONE
            if kind == TLV_CRC32C:
                complaint = self._checksum(value, self.have - c.left - value.left)
            elif kind == TLV_SSL:
                complaint = self._ssl(value)
            if complaint:
                return complaint
        return COMPLAINT_NONE

    cdef Complaint _checksum(self, Cursor value, uint32_t at) noexcept nogil:
        # Of the whole header, in which the four bytes at `at` are 0 for that.
        cdef uint8_t* place = self.place
        cdef uint8_t* nothing = [0, 0, 0, 0]
        cdef uint32_t told = 0
        cdef uint32_t crc
        if value.left != 4 or self.has_checksum:
            return COMPLAINT_CHECKSUM_TLV
        self.has_checksum = True
        take_u32_be(&value, &told)
        crc = crc32c(crc32c(0, place, at), nothing, 4)
        crc = crc32c(crc, place + at + 4, self.have - at - 4)
        return COMPLAINT_NONE if crc == told else COMPLAINT_CHECKSUM

    cdef Complaint _ssl(self, Cursor c) noexcept nogil:
        # What the client's certificate shows, if the proxy verified it (`verify` is 0 then).
        cdef Cursor value
        cdef uint8_t client = 0
        cdef uint8_t kind = 0
        cdef uint32_t verify = 0
        cdef bint verified
        if not take_u8(&c, &client) or not take_u32_be(&c, &verify):
            return COMPLAINT_TLV
        verified = client & CLIENT_CERTIFICATE != 0 and verify == 0
        while c.left:
            if not _tlv(&c, &kind, &value):
                return COMPLAINT_TLV
            if kind == TLV_SSL_CN and verified and not self.has_name:
                self.has_name = True
                self.name = value
        return COMPLAINT_NONE


cdef uint32_t _addresses_size(uint8_t family) noexcept nogil:
    # Bytes of both addresses: TCP or UDP over IPv4 or IPv6, or a UNIX socket; 0: it is none.
    if family == 0x11 or family == 0x12:
        return 12
    if family == 0x21 or family == 0x22:
        return 36
    if family == 0x31 or family == 0x32:
        return 216
    return 0


cdef Complaint _family_complaint(uint8_t family) noexcept nogil:
    return COMPLAINT_BLOCK_SHORT if _addresses_size(family) else COMPLAINT_FAMILY


cdef bint _tlv(Cursor* c, uint8_t* kind, Cursor* value) noexcept nogil:
    cdef uint16_t size = 0
    return take_u8(c, kind) and take_u16_be(c, &size) and take_span(c, size, value)
