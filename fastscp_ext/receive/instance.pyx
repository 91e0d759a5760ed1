"""One instance on its way from the wire to its part file: tapped, digested, written.

Python sees nothing of it. `receiver` drives it, and `commit` takes over when it is complete.
Sources: PS3.4 Annex B (statuses), PS3.10 7.1 (the file).
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.ref cimport Py_DECREF, Py_INCREF, PyObject
from libc.errno cimport (
    EACCES, EINTR, EINVAL, EIO, ENOENT, ENOSYS, EOPNOTSUPP, EPERM, EXDEV, errno,
)
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, strlen
from libc.time cimport gmtime_r, time_t, tm
from posix.fcntl cimport O_CREAT, O_EXCL, O_RDWR
from posix.time cimport clock_gettime, clockid_t, timespec
from posix.types cimport off_t
from posix.uio cimport iovec, writev
from posix.unistd cimport close

from fastscp_ext.commit.nameless cimport nameless_link, nameless_open
from fastscp_ext.commit.remover cimport remover_post
from fastscp_ext.wire.command cimport trimmed_uid
from fastscp_ext.wire.cursor cimport Cursor, cursor_over
from fastscp_ext.dataset.digest cimport crc32c
from fastscp_ext.dataset.inflate cimport INFLATE_SLICE, Inflation
from fastscp_ext.dataset.layout cimport (
    KEY_CALLED_AE, KEY_CALLING_AE, KEY_RECEIVED_DATE, LAYOUT_BAD_UID, LAYOUT_KEYS,
    LAYOUT_MISSING_UID, LAYOUT_OK, Layout,
)
from fastscp_ext.dataset.part10 cimport (
    EMBEDDED_LOOK, NO_META, STRIP_BAD, STRIP_MORE, embedded_begin, embedded_end, embedded_feed,
    embedded_prefix, meta_build,
)
from fastscp_ext.receive.contexts cimport Encoding
from fastscp_ext.receive.label cimport (
    LABEL_CHANGED, LABEL_WRONG, label_begun, label_judged, label_named, pixels_contradict,
)
from fastscp_ext.receive.rules cimport DIGEST_CRC32C, DIGEST_SHA256, Rules
from fastscp_ext.shared.atomic cimport word_get, word_set
from fastscp_ext.shared.tables cimport refusal_text
from fastscp_ext.dataset.tap cimport (
    KEY_SERIES_UID, KEY_SOP_CLASS_UID, KEY_SOP_INSTANCE_UID, KEY_STUDY_UID, TAP_EXPLICIT_LE,
    TAP_KEYS, tap_begin, tap_end, tap_feed, tap_value,
)
from fastscp_ext.dataset.uid cimport uid_is_strict
from fastscp_ext.status cimport (
    CANNOT_UNDERSTAND, DATA_SET_MISMATCH, INVALID_SOP_INSTANCE, OUT_OF_RESOURCES,
)
from fastscp_ext.text cimport put_decimal, put_hex8, put_padded, put_upper_hex

__all__ = []

cdef extern from "time.h" nogil:
    clockid_t CLOCK_MONOTONIC_COARSE

cdef extern from "fcntl.h" nogil:
    int O_CLOEXEC
    int O_NOFOLLOW
    int openat(int dirfd, const char* path, int flags, ...)

cdef extern from "unistd.h" nogil:
    ssize_t pwrite(int fd, const void* data, size_t size, off_t offset)

cdef enum:
    _FILING = (1 << KEY_STUDY_UID) | (1 << KEY_SERIES_UID)
    VERSION_ROOM = 6            # bytes of the path that a duplicate's ".zst" and "~2" may need


cdef void disk_begin(Worker* worker) noexcept nogil:
    # A disk may block inside the call that follows; main sees since when.
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now)  # to some milliseconds, at a third of the cost
    word_set(
        &worker.live.disk,
        <uint64_t>now.tv_sec * 1000 + <uint64_t>now.tv_nsec // 1000000 + 1,
    )


cdef void disk_end(Worker* worker) noexcept nogil:
    word_set(&worker.live.disk, 0)


cdef Cursor sop_class_uid(Instance* i) noexcept nogil:
    return trimmed_uid(cursor_over(i.sop_class_raw, i.sop_class_size))


cdef Cursor sop_instance_uid(Instance* i) noexcept nogil:
    return trimmed_uid(cursor_over(i.sop_instance_raw, i.sop_instance_size))


cdef Cursor tapped_uid(const Instance* i, int key) noexcept nogil:
    return trimmed_uid(tap_value(&i.tap, key))


cdef void instance_begin(Instance* i, const Encoding* encoding) noexcept nogil:
    # Everything up to `transfer_syntax` was set by the caller, the rest was zeroed.
    i.fd = -1
    i.lock_fd = -1
    i.stage = STAGE_RECEIVING
    i.header_stage = HEADER_UNKNOWN
    i.encoding = encoding[0]
    _begin_tap(i)


cdef void _begin_tap(Instance* i) noexcept nogil:
    i.deflated = i.inflating = i.encoding.deflated
    tap_begin(&i.tap, TAP_EXPLICIT_LE if i.deflated else i.encoding.tap_syntax)


cdef void instance_blame(Instance* i, int key, Cursor uid) noexcept nogil:
    if i.status:
        return
    i.blamed = <uint8_t>(key + 1)
    i.blamed_size = <uint8_t>(uid.left if uid.left < RAW_UID_ROOM else RAW_UID_ROOM)
    if uid.left:
        memcpy(i.blamed_uid, uid.at, i.blamed_size)


cdef void instance_refuse(Instance* i, uint16_t status, const char* comment) noexcept nogil:
    # The first refusal stands; what is still to come of the data set is drained.
    cdef size_t n = strlen(comment)
    i.discarding = True
    if i.status:
        return
    i.status = status
    if n >= COMMENT_ROOM:
        n = COMMENT_ROOM - 1
    memcpy(i.comment, comment, n)
    i.comment[n] = 0


cdef void instance_fail(Instance* i, int error_no, const char* step) noexcept nogil:
    if not i.error_no:
        i.error_no = error_no
        i.error_step = step
    # The peer is told what the log and the counters call it.
    instance_refuse(i, OUT_OF_RESOURCES, refusal_text(error_no))


cdef void instance_drop_part(Worker* worker, Instance* i) noexcept nogil:
    cdef const char* name = NULL
    # Either call may hang with the disk, and this is mostly the loop: a thread makes them.
    if i.fd >= 0 or i.has_part:
        if i.has_part:
            name = i.part
        remover_post(&worker.removing, i.fd, worker.incoming_fd, name)
        i.fd = -1
        i.has_part = False


cdef void instance_unlock(Worker* worker, Instance* i, bint here) noexcept nogil:
    # Give the lock of its path back, which closing does. here: on a thread of the committer.
    if i.lock_fd >= 0:
        if here:
            close(i.lock_fd)
        else:
            remover_post(&worker.unlocking, i.lock_fd, -1, NULL)
        i.lock_fd = -1


cdef int instance_flush(Worker* worker, Instance* i, bint is_whole) noexcept nogil:
    # Write the fragments collected so far; the iovecs point into the receive buffer and the
    # instance, so this must come before either is used again. 0, or -1 after instance_fail.
    # is_whole: nothing follows.
    cdef int used = worker.iov_used
    cdef int got
    worker.iov_used = 0
    if i.discarding or used == 0:
        return 0
    disk_begin(worker)
    got = _write_out(worker, i, used, is_whole)
    disk_end(worker)
    return got


cdef void _create(Worker* worker, Instance* i, bint is_whole) noexcept nogil:
    # Its part. What is written at once needs no name until it gets the final one: to give one name
    # instead of two is a fifth of what such a file costs. A larger one is seen while it grows, and
    # a file that is to be compressed is opened by its name.
    worker.parts += 1
    memcpy(put_hex8(i.part, worker.parts), b".part", 6)
    if is_whole and worker.nameless and not (
        i.treatment.compress_level or word_get(&worker.names_first)
    ):
        i.fd = nameless_open(worker.incoming_fd)
        # Of a folder that is gone some file systems say just that nothing can be made in it.
        if i.fd >= 0 or errno != EPERM:
            return
    i.fd = openat(
        worker.incoming_fd, i.part,
        O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, <int>0o640,
    )
    i.has_part = i.fd >= 0


cdef void instance_name_refused(Worker* worker, int error_no) noexcept nogil:
    # The start tried it in a folder of its own. What the system allows there it may refuse
    # elsewhere, or later, as it does once /proc is gone; and it may still allow a rename.
    if error_no in (EACCES, EINVAL, ENOENT, ENOSYS, EOPNOTSUPP, EPERM, EXDEV):
        word_set(&worker.names_first, 1)


cdef int instance_show_part(Worker* worker, Instance* i) noexcept nogil:
    # 0, or -1 after instance_fail. What was flushed stays so.
    cdef int failed
    if i.has_part or i.fd < 0:
        return 0
    failed = nameless_link(i.fd, worker.nameless, worker.incoming_fd, i.part)
    if failed:
        instance_name_refused(worker, failed)
        instance_fail(i, failed, b"give a part file its name")
        return -1
    i.has_part = True
    close(i.fd)
    i.fd = -1
    return 0


cdef int _write_out(Worker* worker, Instance* i, int used, bint is_whole) noexcept nogil:
    cdef iovec* at = worker.iov
    cdef ssize_t n
    if i.fd < 0:
        if i.treatment.discard:
            return 0
        _create(worker, i, is_whole)
        if i.fd < 0:
            instance_fail(i, errno, b"create a part file")
            return -1
    while used:
        n = writev(i.fd, at, used)
        if n < 0 and errno == EINTR:
            continue
        if n <= 0:
            # A file system that takes nothing and says nothing would hold the loop for ever.
            instance_fail(i, errno if n < 0 else EIO, b"write a part file")
            instance_drop_part(worker, i)
            return -1
        while used and <size_t>n >= at.iov_len:
            n -= <ssize_t>at.iov_len
            at += 1
            used -= 1
        if used:
            at.iov_base = <uint8_t*>at.iov_base + n
            at.iov_len -= <size_t>n
    return 0


cdef inline int _push(Worker* worker, Instance* i, const uint8_t* data, uint32_t n) noexcept nogil:
    if worker.iov_used == IOV_ROOM and instance_flush(worker, i, False) < 0:
        return -1
    worker.iov[worker.iov_used].iov_base = <void*>data
    worker.iov[worker.iov_used].iov_len = n
    worker.iov_used += 1
    return 0


cdef void _tap_inflated(Instance* i, const uint8_t* data, uint32_t n) noexcept:
    # A copy of the deflated stream is inflated until the tap has what it wants (PS3.5 A.5).
    cdef Inflation inflation
    if i.inflater == NULL:
        inflation = Inflation.__new__(Inflation)
        hold(&i.inflater, inflation)
    inflation = <Inflation>i.inflater
    inflation.take(&i.tap, data, n)
    i.inflated = inflation.done
    if inflation.plain:
        i.deflated = False
        i.sniffed = True
    if i.tap.settled or inflation.ended or inflation.faulty:
        i.inflating = False
        i.inflated_all = inflation.ended
        drop(&i.inflater)


cdef void hold(PyObject** place, object value) noexcept:
    # Own a reference from C memory.
    Py_INCREF(value)
    place[0] = <PyObject*>value


cdef void drop(PyObject** place) noexcept:
    cdef object value
    if place[0] != NULL:
        value = <object>place[0]
        place[0] = NULL
        Py_DECREF(value)


cdef uint32_t _data_set(
    Worker* worker, Instance* i, const uint8_t* data, uint32_t n
) noexcept:
    # Bytes that will be stored, exactly as they came. Returns how many of them it took.
    if i.inflating and n > INFLATE_SLICE:
        n = INFLATE_SLICE
    i.data_bytes += n
    if i.treatment.max_instance_size and i.data_bytes > i.treatment.max_instance_size:
        instance_refuse(i, OUT_OF_RESOURCES, b"data set above the size limit")
        worker.iov_used = 0
        instance_drop_part(worker, i)
        return n
    if i.inflating:
        _tap_inflated(i, data, n)
    elif not i.deflated:
        tap_feed(&i.tap, data, n)
    if i.treatment.digest == DIGEST_CRC32C:
        i.crc = crc32c(i.crc, data, n)
    elif i.treatment.digest == DIGEST_SHA256 and i.hasher != NULL:
        (<object>i.hasher).update(<const uint8_t[:n]>data)
    if i.meta_due:
        i.meta_due = False
        if i.other_size:
            label_begun(i)
        _build_meta(i)
        if _push(worker, i, i.meta, i.meta_size) < 0:
            return n
    _push(worker, i, data, n)
    return n


cdef void _build_meta(Instance* i) noexcept nogil:
    i.meta_size = meta_build(
        i.meta, sop_class_uid(i), sop_instance_uid(i),
        cursor_over(i.transfer_syntax, i.transfer_syntax_size),
        i.implementation, i.version, i.calling_ae, i.called_ae,
        cursor_over(i.other_syntax, i.other_size),
    )


cdef void _begin_file(Instance* i) noexcept nogil:
    # What comes is data set. The header is built once the tap has seen the first of it.
    i.meta_due = True
    i.header_stage = HEADER_PAST


cdef void _embedded_done(Worker* worker, Instance* i) noexcept:
    # The embedded header has passed. The eight bytes read too far start the data set; they must
    # outlive this call.
    i.stripped = i.stripped + i.embedded.at
    memcpy(i.first, i.embedded.bytes + i.embedded.at, 8)
    label_named(i, i.embedded.transfer_syntax)
    embedded_end(&i.embedded)
    _begin_tap(i)
    _begin_file(i)


cdef uint32_t _strip(Worker* worker, Instance* i, const uint8_t* data, uint32_t n) noexcept:
    # Returns how many of the bytes it took.
    cdef Cursor c = cursor_over(data, n)
    cdef int outcome = embedded_feed(&i.embedded, &c)
    if outcome == STRIP_MORE:
        return n
    if outcome == STRIP_BAD:
        instance_refuse(i, CANNOT_UNDERSTAND, b"unreadable file header in the data set")
        embedded_end(&i.embedded)
        return n
    _embedded_done(worker, i)
    _data_set(worker, i, i.first, 8)
    n -= c.left
    if c.left and not i.discarding:
        n += _data_set(worker, i, c.at, c.left)
    return n


cdef uint32_t _find_header(
    Worker* worker, Instance* i, const uint8_t* data, uint32_t n
) noexcept:
    # `data` starts the data set and is long enough to tell, or all there is. Returns how many of
    # its bytes are done with: all of those that are no more than EMBEDDED_LOOK.
    cdef uint32_t prefix = embedded_prefix(data, n, i.deflated)
    if prefix == NO_META:
        _begin_file(i)
        return _data_set(worker, i, data, n) if n else 0
    if i.treatment.strict:
        instance_refuse(i, CANNOT_UNDERSTAND, b"file header in the data set")
        return n
    i.header_stage = HEADER_PASSING
    i.stripped = prefix
    embedded_begin(&i.embedded)
    return prefix + _strip(worker, i, data + prefix, n - prefix)


cdef uint32_t instance_append(
    Worker* worker, Instance* i, const uint8_t* data, uint32_t n
) noexcept:
    # The next bytes of the data set as sent. They must stay until instance_flush. Returns how many
    # of them it took: all, except where inflating them would be too much work for one step.
    cdef uint32_t take
    if i.discarding:
        i.drained += n
        return n
    if i.header_stage == HEADER_PAST:
        return _data_set(worker, i, data, n)
    if i.header_stage == HEADER_PASSING:
        return _strip(worker, i, data, n)
    if i.first_have == 0 and n >= EMBEDDED_LOOK:
        return _find_header(worker, i, data, n)
    take = EMBEDDED_LOOK - i.first_have
    if take > n:
        take = n
    if take:
        memcpy(i.first + i.first_have, data, take)
    i.first_have += <uint8_t>take
    if i.first_have == EMBEDDED_LOOK:
        _find_header(worker, i, i.first, EMBEDDED_LOOK)
        if n > take:
            take += instance_append(worker, i, data + take, n - take)
    return take


cdef bint _same(Cursor a, Cursor b) noexcept nogil:
    return a.left == b.left and memcmp(a.at, b.at, a.left) == 0


cdef void _digest(Instance* i) noexcept:
    cdef bytes text
    i.digest[0] = 0
    if i.treatment.digest == DIGEST_CRC32C:
        memcpy(i.digest, b"crc32c:", 7)
        put_hex8(i.digest + 7, i.crc)[0] = 0
    elif i.treatment.digest == DIGEST_SHA256 and i.hasher != NULL:
        text = b"sha256:" + (<object>i.hasher).hexdigest().encode()
        memcpy(i.digest, PyBytes_AS_STRING(text), <size_t>PyBytes_GET_SIZE(text) + 1)


cdef void _received_date(Instance* i, char* out) noexcept nogil:
    cdef tm day
    cdef time_t when = <time_t>i.received_s
    gmtime_r(&when, &day)
    out = put_padded(out, <uint32_t>(day.tm_year + 1900), 4)
    out = put_padded(out, <uint32_t>(day.tm_mon + 1), 2)
    put_padded(out, <uint32_t>day.tm_mday, 2)


cdef void _say_where(const Instance* i, char* out) noexcept nogil:
    # Where reading stopped: at most 59 characters and a NUL. The byte is one of the data set as it
    # is stored; of a deflated one, as it is inflated.
    cdef uint32_t tag = i.tap.stop_tag
    memcpy(out, b"cannot be read past (", 21)
    out = put_upper_hex(out + 21, tag >> 16, 4)
    out[0] = c","
    out = put_upper_hex(out + 1, tag & 0xFFFF, 4)
    memcpy(out, b") at byte ", 10)
    put_decimal(out + 10, i.tap.stop_at)[0] = 0


cdef void _find_path(Instance* i, const Cursor* values) noexcept:
    # Its path below the store, or a refusal that says why there is none.
    cdef Layout layout = (<Rules>i.rules).layout
    cdef uint32_t size = 0
    cdef int bad_key = -1
    cdef char where[COMMENT_ROOM]
    cdef int outcome = layout.render_into(
        values, <uint8_t*>i.path, PATH_ROOM - VERSION_ROOM, &size, &bad_key)
    if outcome == LAYOUT_OK:
        i.path_size = size
        i.path_hash = crc32c(0, <const uint8_t*>i.path, size)
    elif outcome == LAYOUT_MISSING_UID:
        if not values[<int>KEY_STUDY_UID].left:
            i.offending |= 1
        if not values[<int>KEY_SERIES_UID].left:
            i.offending |= 2
        if i.tap.conflicting & _FILING:
            instance_refuse(
                i, CANNOT_UNDERSTAND, b"two different Study or Series Instance UIDs found")
        elif i.tap.stopped:
            i.unread = True
            i.unread_tag = i.tap.stop_tag
            _say_where(i, where)
            instance_refuse(i, CANNOT_UNDERSTAND, where)
        elif i.tap.unproved & _FILING:
            instance_refuse(
                i, CANNOT_UNDERSTAND, b"broken sequences: Study or Series Instance UID not sure")
        else:
            i.neither = i.offending == 3 and not i.status
            instance_refuse(i, CANNOT_UNDERSTAND, b"no Study or Series Instance UID found")
    elif outcome == LAYOUT_BAD_UID:
        instance_blame(i, bad_key, values[bad_key])
        instance_refuse(i, INVALID_SOP_INSTANCE, b"UID is not usable as a name")
    else:
        instance_refuse(i, CANNOT_UNDERSTAND, b"path too long for the layout")


cdef void _judge_values(Instance* i) noexcept:
    # What was tapped against the command set, and the path that it gives.
    cdef Cursor values[LAYOUT_KEYS]
    cdef Cursor found
    cdef char date[8]
    cdef int odd = 0
    cdef int k
    for k in range(<int>TAP_KEYS):
        values[k] = tap_value(&i.tap, k)
    for k in (KEY_SOP_CLASS_UID, KEY_SOP_INSTANCE_UID, KEY_STUDY_UID, KEY_SERIES_UID):
        values[k] = trimmed_uid(values[k])
    found = values[<int>KEY_SOP_INSTANCE_UID]
    if found.left and not _same(found, sop_instance_uid(i)):
        instance_blame(i, KEY_SOP_INSTANCE_UID, found)
        instance_refuse(i, DATA_SET_MISMATCH, b"SOP Instance UID differs from the data set's")
    found = values[<int>KEY_SOP_CLASS_UID]
    if found.left and not _same(found, sop_class_uid(i)):
        instance_blame(i, KEY_SOP_CLASS_UID, found)
        instance_refuse(i, DATA_SET_MISMATCH, b"SOP Class UID differs from the data set's")
    values[<int>KEY_SOP_INSTANCE_UID] = sop_instance_uid(i)
    values[<int>KEY_SOP_CLASS_UID] = sop_class_uid(i)
    values[<int>KEY_CALLING_AE] = i.calling_ae
    values[<int>KEY_CALLED_AE] = i.called_ae
    values[<int>KEY_RECEIVED_DATE] = cursor_over(NULL, 0)
    if (<Rules>i.rules).layout.dated:
        _received_date(i, date)
        values[<int>KEY_RECEIVED_DATE] = cursor_over(<uint8_t*>date, 8)
    _find_path(i, values)
    for k in (KEY_SOP_INSTANCE_UID, KEY_STUDY_UID, KEY_SERIES_UID):
        if not uid_is_strict(values[k]):
            i.odd_uid = True
            odd = k
    if i.treatment.strict and i.truncated:
        instance_refuse(i, CANNOT_UNDERSTAND, b"data set ends inside an element")
    if i.treatment.strict and i.odd_uid:
        instance_blame(i, odd, values[odd])
        instance_refuse(i, INVALID_SOP_INSTANCE, b"UID is not made of digits and dots")


cdef void _judge_label(Instance* i) noexcept nogil:
    # Whether the data set is in the transfer syntax that its file names.
    cdef int label
    i.sniffed = i.sniffed or i.tap.sniffed or pixels_contradict(i, &i.encoding)
    if not i.stripped:
        return
    i.sniffed = False
    label = label_judged(i)
    if label == LABEL_WRONG:
        instance_refuse(i, CANNOT_UNDERSTAND, b"data set does not match its embedded header")
    elif label == LABEL_CHANGED:
        # What is still to be written is so from `meta`, too.
        _build_meta(i)
        i.meta_stale = i.fd >= 0


cdef int _rewrite_meta(Worker* worker, Instance* i) noexcept nogil:
    # In the part, whose data set stays where it is: the header is as long as it was.
    cdef uint32_t at = 0
    cdef ssize_t n
    cdef int failed = 0
    disk_begin(worker)
    while at < i.meta_size and not failed:
        n = pwrite(i.fd, i.meta + at, i.meta_size - at, at)
        if n > 0:
            at += <uint32_t>n
        elif n == 0:
            failed = EIO
        elif errno != EINTR:
            failed = errno
    disk_end(worker)
    if failed:
        instance_fail(i, failed, b"write a part file")
        return -1
    return 0


cdef void instance_judge(Worker* worker, Instance* i) noexcept:
    # The last byte has come: every check that may refuse the instance, and its path.
    # Leaves STAGE_COMPLETE, or a status and no part.
    if not i.discarding and i.header_stage == HEADER_UNKNOWN:
        _find_header(worker, i, i.first, i.first_have)
    if not i.discarding and i.header_stage == HEADER_PASSING:
        instance_refuse(i, CANNOT_UNDERSTAND, b"data set ends inside a file header")
    if not i.discarding and i.data_bytes == 0:
        instance_refuse(i, CANNOT_UNDERSTAND, b"empty data set")
    if not i.discarding:
        # Of a deflated data set the tap has seen all only if the stream came to its end.
        tap_end(&i.tap, not i.deflated or i.inflated_all)
        _judge_label(i)
        i.truncated = not i.deflated and i.tap.truncated
        _judge_values(i)
    if not i.discarding and instance_flush(worker, i, True) == 0 and i.meta_stale:
        _rewrite_meta(worker, i)
    if i.discarding:
        worker.iov_used = 0
        instance_drop_part(worker, i)
        return
    _digest(i)
    i.stage = STAGE_COMPLETE
