"""The accepted presentation contexts of one association. Python sees nothing of it."""

__all__: list[str] = []
