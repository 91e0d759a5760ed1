"""The redo log of a worker: small instances in one flush.

An instance of stable durability whose file is small takes the lane: its bytes and its journal line
go into a log file together, and one flush makes both durable. Only then it gets its final name, and
its line goes to the journal, neither of them flushed; and only then it is answered. A checkpoint in
the background flushes the files, on the descriptors that wrote them, their folders and the journal;
then the log file is free again. Until then whoever starts after a kill or a power cut finds in the
log what the file system lost (`fastscp.store.redo`).

The log only makes things faster. Whatever it cannot take (a path that is taken or claimed, a log
that is full, or fails) goes through `committer` as if there were none.

Two threads: the lane commits, a batch at a time, whatever waits; the checkpoint makes log files and
frees them. Both start with the first instance that can use them.
"""

__all__: list[str] = []
