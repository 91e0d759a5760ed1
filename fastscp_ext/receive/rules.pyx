"""How an association's instances are treated. See rules.pyi."""

cimport cython
from libc.stdint cimport uint64_t

from fastscp_ext.dataset.layout cimport Layout

__all__ = ["Rules"]

_DIGESTS = {"none": DIGEST_NONE, "crc32c": DIGEST_CRC32C, "sha256": DIGEST_SHA256}
_ON_DUPLICATE = ("version", "replace", "keep", "refuse")


@cython.final
cdef class Rules:
    """How an association's instances are treated. See rules.pyi."""

    def __cinit__(
        self, *, Layout layout not None, str digest not None, str on_duplicate not None,
        bint strict, bint durable, int compress_level, uint64_t max_instance_size,
        bint discard=False,
    ):
        if digest not in _DIGESTS:
            raise ValueError(f"unknown digest {digest}")
        if on_duplicate not in _ON_DUPLICATE:
            raise ValueError(f"unknown policy for duplicates {on_duplicate}")
        self.layout = layout
        self.digest = digest
        self.on_duplicate = on_duplicate
        self.treatment.digest = _DIGESTS[digest]
        self.treatment.strict = strict
        self.treatment.durable = durable
        self.treatment.discard = discard
        self.treatment.compress_level = compress_level
        self.treatment.max_instance_size = max_instance_size

    @property
    def strict(self):
        return self.treatment.strict

    @property
    def durable(self):
        return self.treatment.durable

    @property
    def discard(self):
        return self.treatment.discard

    @property
    def compress_level(self):
        return self.treatment.compress_level

    @property
    def max_instance_size(self):
        return self.treatment.max_instance_size
