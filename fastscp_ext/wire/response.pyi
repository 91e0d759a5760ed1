"""C-STORE responses, written without the interpreter. Nothing of it is seen from Python."""

__all__: list[str] = []
