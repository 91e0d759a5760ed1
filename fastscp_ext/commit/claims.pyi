"""Claims: whoever gives an instance its name has the path to itself until the line is written.

A claim is a write lock on one byte of `.fastscp/locks`: the byte that the CRC-32C of the path has
for its number, which `fastscp.store.waits` takes as well for a comparison. It is one of the open
file description: threads and processes that opened the file apart exclude each other, and it ends
with its process, whatever ends that. A path has the same number with `.zst` behind it and without,
so a claim covers both forms of an instance. So whoever has the claim of a path knows: what is
there has its journal line, or will never get one.

Nothing here waits. A path that somebody else has counts as taken, as if its name were, and whoever
compares has to wait for the lock. Inside one open file description locks do not exclude, so the
numbers of a batch are compared with each other; two paths with the same number merely take turns.

Python sees nothing of it.
"""

__all__: list[str] = []
