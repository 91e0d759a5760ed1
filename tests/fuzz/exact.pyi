"""Memory whose end a sanitizer guards; exists in the builds of `tests.fuzz.build` only."""

class Exact:
    """A read-only copy of `data` in a block of its own, of exactly its size."""

    def __init__(self, data: bytes) -> None: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...

def guard(buffer: object, size: int) -> None:
    """Forbid access to all bytes of a writable buffer but the first `size`; 0: allow all."""

def refuse_allocation(countdown: int) -> None:
    """Let the codec's `countdown`-th allocation from now fail; 0: none."""
