# DIMSE statuses: each code stands here and nowhere else. Python has them through status.pyx.
# Sources: PS3.7 Annex C, PS3.4 B.2.3.


# What the service sends, each below its condition, in the words of the README's table. The Error
# Comments of a refusal are in shared/tables.pyx.
cpdef enum:
    # the instance is kept
    SUCCESS = 0x0000
    # `--on-duplicate keep`, and another instance has its path
    ELEMENTS_DISCARDED = 0xB006
    # a UID cannot be used as a name (empty, over 64 characters, `/`, `..`, ...)
    INVALID_SOP_INSTANCE = 0x0117
    # the SOP class is not let in on this association
    SOP_CLASS_NOT_SUPPORTED = 0x0122
    # the Message ID is still in use by an unanswered request
    DUPLICATE_INVOCATION = 0x0210
    # not a C-STORE and not a C-ECHO
    UNRECOGNIZED_OPERATION = 0x0211
    # the file cannot be written (disk full, I/O error, quota, ...), its folder could not be
    # flushed before, space is below `--min-free-space`, the store is not there, or the instance is
    # above `--max-instance-size`
    OUT_OF_RESOURCES = 0xA700
    # SOP class or instance in the data set differ from the command's
    DATA_SET_MISMATCH = 0xA900
    # no data set; or no Study or Series Instance UID found in it, or two different ones, or
    # one that may belong to an item, because the sequences in front of it are broken; or
    # `cannot be read past (0009,1001) at byte 412`, and they were not found up to there; or
    # the data set agrees neither with the header inside it nor with the negotiated transfer
    # syntax; or `--on-duplicate refuse`; or a tenth version of one path
    CANNOT_UNDERSTAND = 0xC000

# What others send besides.
cpdef enum:
    OPTIONAL_ATTRIBUTES_NOT_SUPPORTED = 0x0001
    NO_SUCH_ATTRIBUTE = 0x0105
    INVALID_ATTRIBUTE_VALUE = 0x0106
    ATTRIBUTE_LIST_ERROR = 0x0107
    PROCESSING_FAILURE = 0x0110
    DUPLICATE_SOP_INSTANCE = 0x0111
    NO_SUCH_SOP_INSTANCE = 0x0112
    NO_SUCH_EVENT_TYPE = 0x0113
    NO_SUCH_ARGUMENT = 0x0114
    INVALID_ARGUMENT_VALUE = 0x0115
    ATTRIBUTE_VALUE_OUT_OF_RANGE = 0x0116
    NO_SUCH_SOP_CLASS = 0x0118
    CLASS_INSTANCE_CONFLICT = 0x0119
    MISSING_ATTRIBUTE = 0x0120
    MISSING_ATTRIBUTE_VALUE = 0x0121
    NO_SUCH_ACTION = 0x0123
    NOT_AUTHORIZED = 0x0124
    MISTYPED_ARGUMENT = 0x0212
    RESOURCE_LIMITATION = 0x0213
    COERCION_OF_ELEMENTS = 0xB000
    DATA_SET_MISMATCH_WARNING = 0xB007
    CANCEL = 0xFE00
    PENDING = 0xFF00
    PENDING_OPTIONAL_KEYS = 0xFF01

# Where a range ends that has one meaning; the low bits are the implementation's own. It begins with
# the code of that name, and that of the warnings with COERCION_OF_ELEMENTS.
cpdef enum:
    OUT_OF_RESOURCES_LAST = 0xA7FF
    DATA_SET_MISMATCH_LAST = 0xA9FF
    WARNING_LAST = 0xBFFF
    CANNOT_UNDERSTAND_LAST = 0xCFFF
    PENDING_LAST = 0xFFFF


cdef inline bint status_is_warning(int status) noexcept nogil:
    return (
        COERCION_OF_ELEMENTS <= status <= WARNING_LAST
        or status == OPTIONAL_ATTRIBUTES_NOT_SUPPORTED
        or status == ATTRIBUTE_LIST_ERROR
        or status == ATTRIBUTE_VALUE_OUT_OF_RANGE
    )
