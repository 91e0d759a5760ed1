"""Where an instance is stored: a template compiled once, rendered per instance without Python."""

cimport cython
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from fastscp_ext.wire.cursor cimport Cursor, cursor_over, take_u8
from fastscp_ext.dataset.tap cimport (
    KEY_ACCESSION_NUMBER,
    KEY_INSTANCE_NUMBER,
    KEY_MODALITY,
    KEY_PATIENT_ID,
    KEY_SERIES_NUMBER,
    KEY_SERIES_UID,
    KEY_SOP_CLASS_UID,
    KEY_SOP_INSTANCE_UID,
    KEY_STUDY_DATE,
    KEY_STUDY_UID,
)
from fastscp_ext.dataset.uid cimport is_alphanumeric, uid_ok

__all__ = ["KEYS", "Layout", "LayoutError"]

# A key's number is its place among the values of render_into().
_NUMBERS = {
    "StudyInstanceUID": KEY_STUDY_UID,
    "SeriesInstanceUID": KEY_SERIES_UID,
    "SOPInstanceUID": KEY_SOP_INSTANCE_UID,
    "SOPClassUID": KEY_SOP_CLASS_UID,
    "PatientID": KEY_PATIENT_ID,
    "AccessionNumber": KEY_ACCESSION_NUMBER,
    "Modality": KEY_MODALITY,
    "StudyDate": KEY_STUDY_DATE,
    "SeriesNumber": KEY_SERIES_NUMBER,
    "InstanceNumber": KEY_INSTANCE_NUMBER,
    "CallingAE": KEY_CALLING_AE,
    "CalledAE": KEY_CALLED_AE,
    "ReceivedDate": KEY_RECEIVED_DATE,
}
_NAMES = {number: name for name, number in _NUMBERS.items()}

KEYS = tuple(_NUMBERS)

cdef enum:
    PART_LITERAL = -1
    PART_SLASH = -2   # ends a directory
    PART_SUFFIX = -3  # ends the file name, and the template

    MAX_COMPONENT = 255  # NAME_MAX
    MAX_STEM = 245       # of the file: ".dcm", ".zst" and the "~2" of a version still fit behind it
    MAX_VALUE = 200      # of an encoded value; a longer one is cut and gets a hash
    CUT_VALUE = 150


class LayoutError(ValueError):
    """No path for an instance: `key` is the value at fault, None if the path is too long."""

    def __init__(self, key, why):
        super().__init__(f"{key}: {why}" if key else why)
        self.key = key
        self.why = why


# Rendering ------------------------------------------------------------------------------------

ctypedef struct Path:
    # The path being written: at <= cap; what no longer fits only sets `full`.
    uint8_t* out
    uint32_t cap
    uint32_t at
    bint full


cdef inline void put(Path* path, uint8_t byte) noexcept nogil:
    if path.at == path.cap:
        path.full = True
        return
    path.out[path.at] = byte
    path.at += 1


cdef inline void put_hex(Path* path, uint64_t value, int digits, bint upper) noexcept nogil:
    cdef uint8_t nibble
    cdef int shift
    for shift in range(4 * (digits - 1), -1, -4):
        nibble = <uint8_t>((value >> shift) & 0xF)
        if nibble < 10:
            put(path, c"0" + nibble)
        else:
            put(path, (c"A" if upper else c"a") + nibble - 10)


cdef uint64_t fnv_1a(Cursor value) noexcept nogil:
    cdef uint64_t hashed = 0xCBF29CE484222325u
    cdef uint8_t byte = 0
    while take_u8(&value, &byte):
        hashed = (hashed ^ byte) * 0x100000001B3u
    return hashed


cdef void put_value(Path* path, Cursor value) noexcept nogil:
    # Never empty and never begins with ".": a component with a value in it is no "." or "..".
    cdef Cursor rest = value
    cdef uint32_t start = path.at
    cdef uint32_t size = 0  # encoded, whether there was room or not
    cdef bint full = path.full
    cdef uint8_t byte = 0
    if value.left == 0:
        put(path, c"_")
        return
    while take_u8(&rest, &byte):
        if is_alphanumeric(byte) or byte == c"_" or (
                size > 0 and (byte == c"." or byte == c"-")):
            put(path, byte)
            size += 1
        else:
            put(path, c"%")
            put_hex(path, byte, 2, upper=True)
            size += 3
        if size > MAX_VALUE:
            # What ran over `cap` behind the cut does not count.
            if path.at - start >= CUT_VALUE:
                path.at = start + CUT_VALUE
                path.full = full
            put(path, c"~")
            put_hex(path, fnv_1a(value), 16, upper=False)
            return


cdef void shorten(Path* path, uint32_t start, uint32_t most) noexcept nogil:
    # A name above `most` bytes is cut as a value is, and gets a hash of all of it.
    cdef Cursor name = cursor_over(path.out + start, path.at - start)
    cdef uint64_t hashed
    if name.left <= most:
        return
    hashed = fnv_1a(name)
    path.at = start + CUT_VALUE
    while path.out[path.at] & 0xC0 == 0x80:
        path.at -= 1  # not inside a character of the template
    put(path, c"~")
    put_hex(path, hashed, 16, upper=False)


cdef bint ends_with(const Path* path, uint32_t start, const char* suffix,
                    uint32_t size) noexcept nogil:
    cdef uint32_t i
    if size > path.at - start:
        return False
    for i in range(size):
        if path.out[path.at - size + i] != <uint8_t>suffix[i]:
            return False
    return True


cdef void hide_dot(Path* path, uint32_t start) noexcept nogil:
    # A folder must not look like a file of the store, nor like a store's own folder, where nobody
    # looks for instances: its last dot becomes "%2E".
    cdef uint8_t tail[7]
    cdef uint32_t size
    cdef uint32_t i
    if ends_with(path, start, b".dcm", 4) or ends_with(path, start, b".dcm.zst", 8):
        size = 3
    elif path.at - start == 8 and ends_with(path, start, b".fastscp", 8):
        size = 7
    else:
        return
    path.at -= size
    memcpy(tail, path.out + path.at, size)
    path.at -= 1
    put(path, c"%")
    put_hex(path, c".", 2, upper=True)
    for i in range(size):
        put(path, tail[i])


cdef int check_uids(const Cursor* values, int* bad_key) noexcept nogil:
    # Checked whether the template names them or not.
    bad_key[0] = KEY_SOP_INSTANCE_UID
    if not uid_ok(values[<int>KEY_SOP_INSTANCE_UID]):
        return LAYOUT_BAD_UID
    bad_key[0] = KEY_STUDY_UID
    if values[<int>KEY_STUDY_UID].left == 0:
        return LAYOUT_MISSING_UID
    if not uid_ok(values[<int>KEY_STUDY_UID]):
        return LAYOUT_BAD_UID
    bad_key[0] = KEY_SERIES_UID
    if values[<int>KEY_SERIES_UID].left == 0:
        return LAYOUT_MISSING_UID
    if not uid_ok(values[<int>KEY_SERIES_UID]):
        return LAYOUT_BAD_UID
    bad_key[0] = -1
    return LAYOUT_OK


@cython.final
cdef class Layout:
    """A compiled template of paths below the store. See layout.pyi."""

    def __cinit__(self, str template not None, bytes suffix not None=b".dcm"):
        self.template = template
        self.suffix = suffix
        self.n_parts = 0
        cdef uint32_t n_literals = 0
        cdef uint32_t size
        cdef bytes text
        for kind, text in _parse(template, suffix):
            size = <uint32_t>len(text)
            if self.n_parts == LAYOUT_MAX_PARTS or size > LAYOUT_MAX_LITERALS - n_literals:
                raise _bad(template, "it is too long: at most "
                           f"{LAYOUT_MAX_PARTS} parts and {LAYOUT_MAX_LITERALS} bytes")
            self.parts[self.n_parts].key = kind
            self.dated = self.dated or kind == KEY_RECEIVED_DATE
            self.parts[self.n_parts].start = n_literals
            self.parts[self.n_parts].size = size
            memcpy(self.literals + n_literals, <const uint8_t*><const char*>text, size)
            n_literals += size
            self.n_parts += 1

    cdef int render_into(self, const Cursor* values, uint8_t* out, uint32_t cap,
                         uint32_t* length, int* bad_key) noexcept nogil:
        cdef Path path
        cdef const LayoutPart* part
        cdef uint32_t start = 0  # of the component
        cdef uint32_t i
        cdef uint32_t j
        cdef int outcome = check_uids(values, bad_key)
        if outcome != LAYOUT_OK:
            return outcome
        path.out = out
        path.cap = cap
        path.at = 0
        path.full = False
        for i in range(self.n_parts):
            part = &self.parts[i]
            if part.key >= 0:
                put_value(&path, values[part.key])
                continue
            if part.key == PART_SLASH:
                if not path.full:
                    hide_dot(&path, start)
                    shorten(&path, start, MAX_COMPONENT)
                if path.full:
                    return LAYOUT_TOO_LONG
                start = path.at + 1
            elif part.key == PART_SUFFIX and not path.full:
                shorten(&path, start, MAX_STEM)
            for j in range(part.size):
                put(&path, self.literals[part.start + j])
        put(&path, 0)
        if path.full:
            return LAYOUT_TOO_LONG
        length[0] = path.at - 1
        return LAYOUT_OK

    def render(self, values):
        """The path of an instance, relative to the store. See layout.pyi."""
        cdef Cursor cursors[LAYOUT_KEYS]
        cdef uint8_t out[LAYOUT_MAX_PATH]
        cdef uint32_t length = 0
        cdef int bad_key = -1
        cdef int outcome
        cdef bytes value
        given = {}  # holds what the cursors point at
        for number in range(<int>LAYOUT_KEYS):
            cursors[number] = cursor_over(NULL, 0)
        for name, raw in values.items():
            if name not in _NUMBERS:
                raise ValueError(f"{name!r} is no layout key; keys: {', '.join(KEYS)}")
            value = bytes(raw)
            given[name] = value
            cursors[<int>_NUMBERS[name]] = cursor_over(
                <const uint8_t*><const char*>value, <uint32_t>len(value))
        outcome = self.render_into(cursors, out, LAYOUT_MAX_PATH, &length, &bad_key)
        if outcome == LAYOUT_BAD_UID:
            raise LayoutError(_NAMES[bad_key], f"unfit as a name: {given.get(_NAMES[bad_key])!r}")
        if outcome == LAYOUT_MISSING_UID:
            raise LayoutError(_NAMES[bad_key], "absent or empty")
        if outcome == LAYOUT_TOO_LONG:
            raise LayoutError(None, f"a path over {LAYOUT_MAX_PATH - 1} bytes")
        return (<bytes>out[:length]).decode()


# Templates ------------------------------------------------------------------------------------

def _bad(template, why):
    return ValueError(f"layout {template!r}: {why}")


def _parse(template, suffix):
    # The parts of a template as (key or PART_*, literal bytes), the suffix last.
    if suffix not in (b".dcm", b".dcm.zst"):
        raise ValueError(f"suffix {suffix!r}: .dcm and .dcm.zst are known")
    if template.startswith("/"):
        raise _bad(template, "it must be relative to the store")
    *folders, name = template.split("/")
    for component in (*folders, name):
        if component in ("", ".", ".."):
            raise _bad(template, f"{component!r} is no name")
    if template.startswith("."):
        # Not only ".fastscp": a value could complete ".{Modality}" to it.
        raise _bad(template, "it begins with a dot; the store keeps .fastscp there")
    if not name.endswith(".dcm") or name == ".dcm":
        raise _bad(template, "its last name must be the file's and end in .dcm")
    parts = []
    for component in folders:
        parts += _parse_component(template, component)
        parts.append((PART_SLASH, b"/"))
    parts += _parse_component(template, name.removesuffix(".dcm"))
    parts.append((PART_SUFFIX, suffix))
    if KEY_SOP_INSTANCE_UID not in [kind for kind, _ in parts]:
        raise _bad(template, "{SOPInstanceUID} must be in it, or instances share a path")
    return parts


def _parse_component(template, component):
    parts = []
    literals = 0
    rest = component
    while rest:
        literal, brace, rest = rest.partition("{")
        if "}" in literal:
            raise _bad(template, "a } without its {")
        if not literal.isprintable():
            raise _bad(template, "it holds a character that is not printable")
        if literal:
            encoded = literal.encode()
            parts.append((PART_LITERAL, encoded))
            literals += len(encoded)
        if not brace:
            break
        name, brace, rest = rest.partition("}")
        if not brace or "{" in name:
            raise _bad(template, "a { without its }")
        if name not in _NUMBERS:
            raise _bad(template, f"{name!r} is no key; keys: {', '.join(KEYS)}")
        parts.append((_NUMBERS[name], b""))
    if literals > MAX_COMPONENT:
        raise _bad(template, f"a name in it is over {MAX_COMPONENT} bytes")
    return parts
