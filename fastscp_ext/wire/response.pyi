"""C-STORE responses, written without the interpreter. Python sees nothing of it."""

__all__: list[str] = []
