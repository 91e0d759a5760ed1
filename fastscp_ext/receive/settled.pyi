"""The end of every instance: it is counted. Python sees nothing of it."""

__all__: list[str] = []
