"""The head of a Part 10 file: what its sender must know, out of the file's first bytes.

Sources: PS3.10 7.1; PS3.5 7.1.
"""

import os

from libc.errno cimport EINTR, errno
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from posix.types cimport off_t

from fastscp_ext.wire.cursor cimport Cursor, cursor_over, skip, take_span, take_u32_le
from fastscp_ext.wire.command cimport trimmed_uid
from fastscp_ext.stat cimport S_ISREG, fstat, mark_of, stat_of, stat_t
from fastscp_ext.dataset.part10 cimport META_ELEMENT, META_END, MetaElement, take_meta
from fastscp_ext.dataset.tap cimport (
    KEY_SOP_CLASS_UID,
    KEY_SOP_INSTANCE_UID,
    TapState,
    tap_begin,
    tap_drop,
    tap_feed,
    tap_value,
)

from fastscp_ext.dataset.syntaxes import encoding_of

__all__ = ["file_mark", "part10_head", "part10_head_of_file"]

cdef extern from "<fcntl.h>" nogil:
    enum:
        O_CLOEXEC
        O_NONBLOCK
        O_RDONLY
    int open(const char* path, int flags)

cdef extern from "<unistd.h>" nogil:
    int close(int fd)
    ssize_t pread(int fd, void* data, size_t size, off_t offset)

cdef enum:
    FIRST_READ = 4096            # bytes; nearly always all that is needed
    NO_END = 0xFFFFFFFF          # more than any file's first bytes

cdef enum:
    PREAMBLE = 128
    PREFIX = 4
    GROUP_LENGTH = 0x0000
    MEDIA_STORAGE_SOP_CLASS_UID = 0x0002
    MEDIA_STORAGE_SOP_INSTANCE_UID = 0x0003
    TRANSFER_SYNTAX_UID = 0x0010

ctypedef struct Meta:
    Cursor sop_class
    Cursor sop_instance
    Cursor transfer_syntax

# A few syntaxes and classes stand for all files: one text each is enough.
# Transfer syntax as in the file to (itself as text, encoding, deflated).
cdef dict _syntaxes = {}
cdef dict _classes = {}
cdef enum:
    MOST_KNOWN = 1024


cdef bint _scan_meta(Cursor* c, Meta* meta) noexcept nogil:
    # Leaves the cursor at the data set; False: at an element that is cut. The group length counts
    # where it leads to the end of an element, even if the data set begins with the same group. It
    # is often wrong: then another group shows where the data set begins.
    cdef MetaElement found
    cdef Cursor value
    cdef uint32_t length = 0
    cdef uint32_t behind = NO_END
    cdef int outcome = take_meta(c, &found)
    while outcome == META_ELEMENT:
        if found.number == GROUP_LENGTH and behind == NO_END and found.value.left == 4:
            value = found.value
            take_u32_le(&value, &length)
            if 0 < length <= c.left:
                behind = c.left - length
        elif found.number == MEDIA_STORAGE_SOP_CLASS_UID:
            _keep_first(&meta.sop_class, &found)
        elif found.number == MEDIA_STORAGE_SOP_INSTANCE_UID:
            _keep_first(&meta.sop_instance, &found)
        elif found.number == TRANSFER_SYNTAX_UID:
            _keep_first(&meta.transfer_syntax, &found)
        if c.left == behind and meta.transfer_syntax.left:
            return True
        outcome = take_meta(c, &found)
    return outcome == META_END


cdef inline void _keep_first(Cursor* uid, const MetaElement* found) noexcept nogil:
    if not uid.left:
        uid[0] = trimmed_uid(found.value)


cdef bytes _raw(Cursor c):
    return c.at[:c.left] if c.left else b""


def part10_head(const uint8_t[::1] data not None):
    """SOP class, SOP instance, transfer syntax and where the data set begins. See head.pyi."""
    if data.shape[0] < PREAMBLE + PREFIX or data.shape[0] > 0x7FFFFFFF:
        return None
    return _head(cursor_over(&data[0], <uint32_t>data.shape[0]))


def part10_head_of_file(bytes path not None):
    """What `part10_head` finds in the first 4 KiB of a file, its size and mark. See head.pyi."""
    cdef uint8_t data[FIRST_READ]
    cdef const char* name = path
    cdef off_t size = 0
    cdef uint64_t mark = 0
    cdef int failed = 0
    with nogil:
        failed = _read_first(name, data, &size, &mark)
    if failed:
        raise OSError(failed, os.strerror(failed), os.fsdecode(path))
    if size < PREAMBLE + PREFIX:
        return None
    head = _head(cursor_over(data, <uint32_t>min(size, FIRST_READ)))
    return None if head is None else (head, size, mark)


def file_mark(int fd):
    """Which file is open, and in what state, as one number. See head.pyi."""
    cdef stat_t about
    if fstat(fd, &about) < 0:
        raise OSError(errno, os.strerror(errno))
    return mark_of(&about)


cdef int _read_first(
    const char* name, uint8_t* data, off_t* size, uint64_t* mark
) noexcept nogil:
    # The first of a file, and its size: 0 for what is no regular file. Returns 0 or an errno.
    cdef stat_t about
    cdef ssize_t got
    cdef int failed = 0
    cdef int fd
    # Asked before it is opened, which does something to a pipe or a device: a writer that waits for
    # a reader would go on, and end as that is gone again. And before it is read: whoever opens it
    # to send it sees then whether it was another one already.
    if stat_of(name, &about) < 0:
        return errno
    if not S_ISREG(about.st_mode):
        return 0
    fd = open(name, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
    if fd < 0:
        return errno
    got = pread(fd, data, FIRST_READ, 0)
    while got < 0 and errno == EINTR:
        got = pread(fd, data, FIRST_READ, 0)
    if got < 0:
        failed = errno
    else:
        # A short read is the whole of a file.
        size[0] = got if got < FIRST_READ else max(<off_t>got, about.st_size)
        mark[0] = mark_of(&about)
    close(fd)
    return failed


cdef tuple _head(Cursor c):
    cdef Cursor prefix
    cdef Cursor found
    cdef Meta meta
    cdef TapState tap
    cdef uint32_t size = c.left
    cdef tuple known
    cdef bytes raw
    cdef bint complete
    skip(&c, PREAMBLE)
    prefix = cursor_over(NULL, 0)
    take_span(&c, PREFIX, &prefix)
    if _raw(prefix) != b"DICM":
        return None
    meta.sop_class = meta.sop_instance = meta.transfer_syntax = cursor_over(NULL, 0)
    # At the very end nothing is cut: a file may end with its header.
    if not _scan_meta(&c, &meta) and c.left:
        return "", "", "", size, False
    raw = _raw(meta.transfer_syntax)
    known = _syntaxes.get(raw)
    if known is None:
        known = (raw.decode("latin-1"), *encoding_of(raw))
        if len(_syntaxes) < MOST_KNOWN:
            _syntaxes[raw] = known
    syntax, encoding, deflated = known
    complete = deflated and c.left != 0
    if deflated:
        return _identity(&meta, syntax, size - c.left, complete)
    # The command has to agree with the data set, whatever the file's own header says.
    tap_begin(&tap, encoding)
    tap_feed(&tap, c.at, c.left)
    try:
        found = tap_value(&tap, KEY_SOP_CLASS_UID)
        complete = found.left != 0
        if found.left:
            meta.sop_class = found
        found = tap_value(&tap, KEY_SOP_INSTANCE_UID)
        complete = (complete and found.left != 0) or tap.settled or tap.stopped
        if found.left:
            meta.sop_instance = found
        return _identity(&meta, syntax, size - c.left, complete)
    finally:
        tap_drop(&tap)


cdef tuple _identity(const Meta* meta, str syntax, uint32_t at, bint complete):
    cdef bytes raw = _raw(meta.sop_class)
    sop_class = _classes.get(raw)
    if sop_class is None:
        sop_class = raw.decode("latin-1")
        if len(_classes) < MOST_KNOWN:
            _classes[raw] = sop_class
    return sop_class, _raw(meta.sop_instance).decode("latin-1"), syntax, at, complete
