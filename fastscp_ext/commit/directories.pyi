"""The directories of a batch: made, and flushed before anything in them is acknowledged.

A directory whose flush failed is not flushed again: the kernel may have dropped what was to be
written together with the error. All workers refuse its instances, where the failure says something
of the disk. Where the system only lacked something (space, a quota, descriptors, memory), and there
is no new directory in it, its instances are refused this once, and the next try writes and names
them anew. What is left open is the moment between a failed flush in one worker and its entry in the
shared block, in which another worker may have its own flush succeed.

Python sees nothing of it.
"""

__all__: list[str] = []
