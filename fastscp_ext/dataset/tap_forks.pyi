"""Several parses of one data set: how they come to be, and end.

Python sees nothing of it.
"""

__all__: list[str] = []
