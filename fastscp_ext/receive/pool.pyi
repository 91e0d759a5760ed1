"""Instances kept for reuse. Python sees nothing of it."""

__all__: list[str] = []
