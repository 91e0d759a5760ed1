"""CRC-32C (Castagnoli) by the processor's instruction where it has one."""

from typing import Final

from typing_extensions import Buffer

__all__ = ["HAS_INSTRUCTION", "crc32c", "crc32c_by_steps", "crc32c_portable"]

HAS_INSTRUCTION: Final[bool]

def crc32c(data: Buffer, value: int = 0) -> int:
    """The CRC-32C of what `value` is the checksum of, followed by `data`."""

def crc32c_portable(data: Buffer, value: int = 0) -> int:
    """The same without the instruction, for tests and for comparison."""

def crc32c_by_steps(data: Buffer, value: int = 0) -> int:
    """The same by the instruction alone where there is one, else portable; for tests."""
