"""From files to the wire."""
