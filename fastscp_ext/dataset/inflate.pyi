"""A deflated data set, inflated for the tap while it passes. Python sees nothing of it."""

__all__: list[str] = []
