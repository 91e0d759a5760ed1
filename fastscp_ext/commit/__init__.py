"""From part files to acknowledged instances."""
