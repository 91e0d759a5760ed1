"""The checkpoint thread of a worker's redo log.

It makes log files, and frees them again: it flushes the files that one vouches for, on the
descriptors that wrote them, and the journal; then their folders; and only then has nothing in the
log file count any more. What cannot be flushed ends the log: it stays as it is, for a recovery.
Where descriptors or memory are lacking it is tried again; at a stop until nothing has gone forward
for 5 s, then the log stays.
"""

__all__: list[str] = []
