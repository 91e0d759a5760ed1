"""The benchmark: receivers side by side, `python -m bench` from the root of a checkout."""
