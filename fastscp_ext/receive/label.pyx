"""The transfer syntax that an instance's file names. See label.pxd."""

import zlib

from libc.stdint cimport uint8_t, uint16_t
from libc.string cimport memcmp, memcpy

from fastscp_ext.dataset.tap cimport TAP_SYNTAX_UNKNOWN
from fastscp_ext.dataset.uid cimport UID_LONGEST
from fastscp_ext.receive.contexts cimport Encoding
from fastscp_ext.receive.instance cimport Instance
from fastscp_ext.wire.cursor cimport Cursor

from fastscp_ext.dataset.syntaxes import encoding_of, pixels_of

__all__ = []


cdef void _swap(Instance* i) noexcept nogil:
    # The label and the other one, each with what is known of it.
    cdef uint8_t text[UID_LONGEST]
    cdef uint16_t size = i.transfer_syntax_size
    cdef Encoding encoding = i.encoding
    memcpy(text, i.transfer_syntax, UID_LONGEST)
    memcpy(i.transfer_syntax, i.other_syntax, UID_LONGEST)
    memcpy(i.other_syntax, text, UID_LONGEST)
    i.transfer_syntax_size = i.other_size
    i.encoding = i.other
    i.other_size = size
    i.other = encoding


cdef void label_named(Instance* i, Cursor named) noexcept:
    cdef bytes text
    cdef tuple known
    if not 1 <= named.left <= UID_LONGEST:
        return
    if named.left == i.transfer_syntax_size and memcmp(
        named.at, i.transfer_syntax, named.left
    ) == 0:
        return
    text = named.at[:named.left]
    known = encoding_of(text)
    if known[0] == TAP_SYNTAX_UNKNOWN:
        return
    memcpy(i.other_syntax, named.at, named.left)
    i.other_size = <uint16_t>named.left
    i.other.tap_syntax, i.other.deflated = known
    i.other.pixels = pixels_of(text)
    # Nothing begins like elements and like a deflate stream: a data set that is one, though the
    # header says otherwise, is in what was negotiated.
    if not i.encoding.deflated or i.other.deflated or not _inflates(i.first[:8]):
        _swap(i)


cdef bint _inflates(bytes first) noexcept:
    try:
        zlib.decompressobj(-15).decompress(first)
    except zlib.error:
        return False
    return True


cdef inline bint _is_read(const Instance* i, const Encoding* encoding) noexcept nogil:
    # Whether the elements are read as the encoding says; an unknown one says nothing.
    return encoding.deflated == i.deflated and (
        encoding.tap_syntax == TAP_SYNTAX_UNKNOWN or encoding.tap_syntax == i.tap.syntax)


cdef bint pixels_contradict(const Instance* i, const Encoding* encoding) noexcept nogil:
    return encoding.pixels and i.tap.pixels and encoding.pixels != i.tap.pixels


cdef void label_begun(Instance* i) noexcept nogil:
    if not _is_read(i, &i.encoding):
        _swap(i)
    # What is left open, pixel data alone can tell.
    if not _is_read(i, &i.other) or i.encoding.pixels == i.other.pixels:
        i.other_size = 0


cdef int label_judged(Instance* i) noexcept nogil:
    if _is_read(i, &i.encoding) and not pixels_contradict(i, &i.encoding):
        return LABEL_STANDS
    if i.other_size and _is_read(i, &i.other) and not pixels_contradict(i, &i.other):
        _swap(i)
        return LABEL_CHANGED
    return LABEL_WRONG
