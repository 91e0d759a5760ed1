"""Headers of elements, items and ends: what they say, and whether that can be so.

Python sees nothing of it.
"""

__all__: list[str] = []
