"""The commit off the loop, without the interpreter. Nothing of it is seen from Python."""

__all__: list[str] = []
