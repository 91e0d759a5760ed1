"""A transport as the event loop has it, with nobody behind it."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["Raw"]


@dataclass
class Raw:
    """The loop's transport. sent: ciphertext for the client."""

    sent: bytearray = field(default_factory=bytearray)
    paused: bool = False
    ended: bool = False
    closed: bool = False
    aborted: bool = False
    held: int = 0

    def get_extra_info(self, name: str, default: object = None) -> object:
        return default

    def write(self, data: bytes) -> None:
        assert not self.ended
        assert not self.closed
        self.sent += data

    def get_write_buffer_size(self) -> int:
        return self.held

    def set_write_buffer_limits(self, high: int) -> None: ...

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        assert not self.paused
        self.paused = True

    def resume_reading(self) -> None:
        assert self.paused
        self.paused = False

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.ended = True

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = self.aborted = True
