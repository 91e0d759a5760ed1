"""Files read into P-DATA-TF, without the interpreter. Nothing of it is seen from Python."""

__all__: list[str] = []
