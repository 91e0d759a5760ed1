"""The journal's lines: one JSON object an instance, its checksum last.

They are made without the interpreter. The README says what the members mean; this module writes
them. Python sees nothing of it.
"""

__all__: list[str] = []
