"""The end of every instance: it is counted. Nothing of it is seen from Python."""

__all__: list[str] = []
