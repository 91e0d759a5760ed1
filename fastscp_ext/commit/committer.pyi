"""The commit off the loop, for stable durability.

Theory of operation: an instance is flushed by a thread of its own as soon as it is complete, beside
whatever else is being flushed. When a flush ends and nobody commits, those that are under way at
that moment still join: the disk is busy with them anyway, and what it merges should be answered
together. The thread that ends the last of these leads: it takes them through the rest of the commit
as one batch. Instances that came in the meantime are the next one.
Nobody waits for instances that are still to come, nor for the flush of a large one; and no thread
waits for another. Except for the large ones, instances are named and journaled in the order in
which they became complete, however their flushes ended.

Python sees nothing of it.
"""

__all__: list[str] = []
