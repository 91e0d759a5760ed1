"""One way to read a data set, header by header.

Python sees nothing of it.
"""

__all__: list[str] = []
