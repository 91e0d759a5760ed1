"""The directories of a batch: made, and flushed before anything in them is acknowledged.

Python sees nothing of it.
"""

__all__: list[str] = []
