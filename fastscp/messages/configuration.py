"""Settings and rules on their way to the workers: in shared memory, which all of them read.

A message between processes is bounded, and a thousand tables are larger than that.
"""

from __future__ import annotations

import os
from typing import Final

import msgspec

from fastscp.config.settings import WorkerConfig  # noqa: TC001 - msgspec reads the annotations
from fastscp.rules.rule import RuleSet  # noqa: TC001
from fastscp.tls.material import Material  # noqa: TC001

__all__ = ["Configuration", "pack", "unpack"]

_ENCODER: Final = msgspec.msgpack.Encoder()


class Configuration(msgspec.Struct, frozen=True):
    """What workers go by. tls: what they need for it; None: nobody listens with TLS. Immutable."""

    config: WorkerConfig
    rules: RuleSet
    tls: Material | None = None


def pack(configuration: Configuration) -> int:
    """A descriptor of memory with it, owned by the caller; `unpack` reads it. Raises OSError."""
    data = _ENCODER.encode(configuration)
    fd = os.memfd_create("fastscp-rules", os.MFD_CLOEXEC)
    try:
        written = 0
        while written < len(data):
            written += os.pwrite(fd, data[written:], written)
    except BaseException:
        os.close(fd)
        raise
    return fd


def unpack(fd: int) -> Configuration:
    """What is in the memory of a descriptor, which stays the caller's. Raises OSError."""
    size = os.fstat(fd).st_size
    data = bytearray()
    while len(data) < size:
        data += os.pread(fd, size - len(data), len(data))
    return msgspec.msgpack.decode(data, type=Configuration)
