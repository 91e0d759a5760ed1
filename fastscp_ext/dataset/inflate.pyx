"""A deflated data set, inflated for the tap while it passes. See inflate.pxd.

Nothing inflated is kept except the tap's values, and nothing is inflated once the tap has all.
Source: PS3.5 A.5, RFC 1951.
"""

import zlib

cimport cython
from libc.stdint cimport uint8_t, uint32_t

from fastscp_ext.dataset.part10 cimport EMBEDDED_LOOK
from fastscp_ext.dataset.tap cimport TapState, tap_feed, tap_stop

__all__ = []

cdef enum:
    STEP = 65536         # bytes inflated in one go, at most
    KEPT_MOST = 16384    # received bytes kept


@cython.final
cdef class Inflation:
    # A call of the inflater that fails keeps what it had inflated to itself. So that what is found
    # in front of a fault does not depend on how the stream was cut, there is a mark to go back to:
    # a copy of the inflater, made anew after so many bytes in or out, for a copy costs as much as
    # some hundred bytes.

    def __cinit__(self):
        self.inflater = zlib.decompressobj(-15)
        self.kept = b""

    cdef void take(self, TapState* tap, const uint8_t* data, uint32_t n) noexcept:
        # The next n bytes, at most INFLATE_SLICE. Once the stream has ended nothing may come: the
        # inflater would keep what stands behind its end, all of it.
        cdef bytes pending = data[:n]
        cdef bytes tail
        cdef bytes out
        if tap.settled or self.ended or self.faulty:
            return
        # Until all went well: an error of another kind, as where memory runs out, must not leave a
        # gap for the tap to read over.
        self.faulty = True
        while pending and not (tap.settled or self.ended):
            if self.kept_out >= STEP or len(self.kept) + len(pending) > KEPT_MOST:
                self.mark = self.inflater.copy()
                self.kept = b""
                self.kept_out = 0
            try:
                out = self.inflater.decompress(pending, STEP)
            except zlib.error:
                self._look_for_fault(tap, pending)
                return
            tail = self.inflater.unconsumed_tail
            self.kept += pending[:len(pending) - len(tail)]
            self.kept_out += len(out)
            self.done += <uint32_t>len(out)
            self.ended = self.inflater.eof
            tap_feed(tap, <const uint8_t*>out, <uint32_t>len(out))
            pending = tail
        self.faulty = False

    cdef void _look_for_fault(self, TapState* tap, bytes pending) noexcept:
        # From the mark once more, in halves, down to the byte. What comes out in front of the fault
        # is at most `kept_out` and what one call may make. Of that the tap has the first.
        cdef object inflater = zlib.decompressobj(-15) if self.mark is None else self.mark
        cdef object attempt
        cdef bytes data = self.kept + pending
        cdef bytes out
        cdef Py_ssize_t at = 0
        cdef Py_ssize_t step = len(data)
        cdef Py_ssize_t had = self.kept_out
        while step and at < len(data):
            attempt = inflater.copy()
            try:
                out = attempt.decompress(data[at:at + step])
            except zlib.error:
                self.done += STEP
                step //= 2
                continue
            inflater = attempt
            at += step
            self.done += <uint32_t>len(out)
            if had >= len(out):
                had -= len(out)
                continue
            tap_feed(tap, <const uint8_t*>out + had, <uint32_t>(len(out) - had))
            self.kept_out += len(out) - had
            had = 0
        if self.mark is None and self.kept_out == 0 and at < EMBEDDED_LOOK:
            # Labelled deflated, sent plain: elements are no deflate stream, and fail that early.
            self.plain = True
            tap_feed(tap, <const uint8_t*>data, <uint32_t>len(data))
        else:
            tap_stop(tap)
