"""The journal's lines, made without the interpreter. Nothing of it is seen from Python."""

__all__: list[str] = []
