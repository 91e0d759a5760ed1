"""The transfer syntax that an instance's file names. Python sees nothing of it."""

__all__: list[str] = []
