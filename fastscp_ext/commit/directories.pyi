"""The directories of a batch: made, and flushed before anything in them is acknowledged.

Nothing of it is seen from Python.
"""

__all__: list[str] = []
