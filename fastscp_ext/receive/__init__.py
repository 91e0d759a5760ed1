"""From the wire to a part file."""
