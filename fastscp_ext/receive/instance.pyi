"""One instance on its way from the wire to its part file. Python sees nothing of it."""

__all__: list[str] = []
