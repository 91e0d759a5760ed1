"""One instance on its way from the wire to its part file. Nothing of it is seen from Python."""

__all__: list[str] = []
