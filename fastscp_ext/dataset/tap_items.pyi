"""Items inside the value of an element of defined length.

Python sees nothing of it.
"""

__all__: list[str] = []
