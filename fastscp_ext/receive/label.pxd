# The transfer syntax that an instance's file names, where the data set says something of it itself.
#
# A File Meta Information inside the data set may name one. It holds where it is known and the data
# agree with it, pixel data included; else the one of the presentation context, if they agree with
# that. What the elements are encoded in the first bytes show. What the pixel data are their end
# shows, when the header of the file is long written: that has room for either (meta_build).

from fastscp_ext.receive.contexts cimport Encoding
from fastscp_ext.receive.instance cimport Instance
from fastscp_ext.wire.cursor cimport Cursor


cdef enum Label:
    LABEL_WRONG = 0
    LABEL_STANDS = 1
    LABEL_CHANGED = 2        # it is the other one: the header has to be written anew


# The first eight bytes of the data set are in `first`; named: by the header in front of it, left ==
# 0: nothing. `transfer_syntax` and `encoding` are what to begin with afterwards.
cdef void label_named(Instance* i, Cursor named) noexcept

# The tap has seen the first bytes, and the header of the file is due.
cdef void label_begun(Instance* i) noexcept nogil

# The tap has seen the end. One of Label.
cdef int label_judged(Instance* i) noexcept nogil

# Whether the pixel data are what the transfer syntax does not have.
cdef bint pixels_contradict(const Instance* i, const Encoding* encoding) noexcept nogil
