"""Files read into P-DATA-TF, without the interpreter. Python sees nothing of it."""

__all__: list[str] = []
