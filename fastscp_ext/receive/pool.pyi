"""Instances kept for reuse. Nothing of it is seen from Python."""

__all__: list[str] = []
