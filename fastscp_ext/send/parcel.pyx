"""What to send of one instance, and what became of it: `Job`, plain memory that lives as long as
its `Parcel`.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.stdint cimport uint8_t, uint32_t, uint64_t

__all__ = ["Parcel"]

# Element (0000,0110), its length, and before it only what an ascending command set has there.
_MESSAGE_ID = b"\x00\x00\x10\x01\x02\x00\x00\x00"


@cython.final
cdef class Parcel:
    """An instance on its way: what to send, and then what became of it. See parcel.pyi."""

    def __cinit__(
        self,
        object item,
        bytes path not None,
        bytes command not None,
        uint8_t context_id,
        uint64_t offset,
        uint64_t size,
        tuple patches=(),
        uint64_t mark=0,
        object opener=None,
    ):
        cdef Py_ssize_t id_at = command.find(_MESSAGE_ID) + 8
        if id_at < 8 or id_at + 2 > PyBytes_GET_SIZE(command) or not size:
            raise ValueError("a command set with a message id, and a data set, are needed")
        if PyBytes_GET_SIZE(command) > COMMAND_MOST:
            raise ValueError("the command set is too long")
        self.item = item
        self.path = path
        self.command = command
        self.patches = patches
        self.opener = opener
        self.job.opens = opener is not None
        self.job.parcel = <void*>self
        self.job.path = PyBytes_AS_STRING(path)
        self.job.command = <const uint8_t*>PyBytes_AS_STRING(command)
        self.job.command_size = <uint32_t>PyBytes_GET_SIZE(command)
        self.job.id_at = <uint32_t>id_at
        self.job.context_id = context_id
        self.job.offset = offset
        self.job.size = size
        self.job.mark = mark
        self.job.status = -1
        if patches:
            self._take_patches()

    cdef int _take_patches(self) except -1:
        cdef uint32_t i = 0
        cdef bytes value
        self.patch = <Patch*>PyMem_Malloc(<size_t>len(self.patches) * sizeof(Patch))
        if self.patch == NULL:
            raise MemoryError
        for at, value in self.patches:
            self.patch[i].at = at
            self.patch[i].size = <uint32_t>PyBytes_GET_SIZE(value)
            self.patch[i].value = <const uint8_t*>PyBytes_AS_STRING(value)
            i += 1
        self.job.patch = self.patch
        self.job.patch_count = i
        return 0

    def __dealloc__(self):
        PyMem_Free(self.patch)

    @property
    def context_id(self):
        return self.job.context_id

    @property
    def offset(self):
        return self.job.offset

    @property
    def size(self):
        return self.job.size

    @property
    def attempts(self):
        return self.job.attempts

    @property
    def status(self):
        return self.job.status

    @property
    def error(self):
        return self.job.error

    @property
    def nanoseconds(self):
        return self.job.nanoseconds

    def again(self):
        """Forget the outcome, to be sent once more."""
        self.job.status = -1
        self.job.error = 0
        self.job.message_id = 0
        if self.response is not None:
            self.before = self.response
        self.response = None
