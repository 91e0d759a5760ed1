"""What may stand in an element, by its tag (PS3.6 Table 6-1).

Python sees nothing of it.
"""

__all__: list[str] = []
