"""The values that the tap looks for: their places, and how they are taken.

Python sees nothing of it.
"""

__all__: list[str] = []
