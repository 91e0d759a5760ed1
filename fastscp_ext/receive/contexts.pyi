"""The accepted presentation contexts of one association. Nothing of it is seen from Python."""

__all__: list[str] = []
