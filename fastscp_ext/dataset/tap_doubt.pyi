"""Headers that may be meant in another way than they say, and whether a way is borne out.

Python sees nothing of it.
"""

__all__: list[str] = []
