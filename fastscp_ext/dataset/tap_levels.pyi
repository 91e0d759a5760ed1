"""At which level the tap is: the readings of it that one parse follows.

Python sees nothing of it.
"""

__all__: list[str] = []
