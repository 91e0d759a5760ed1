"""The header in hand, as it says or in another form.

Python sees nothing of it.
"""

__all__: list[str] = []
