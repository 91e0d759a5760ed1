"""The journal's lines: one JSON object an instance, its checksum last.

They are made without the interpreter. What the members mean is told where the journal is
documented; here only how they are written. Nothing of it is seen from Python.
"""

__all__: list[str] = []
