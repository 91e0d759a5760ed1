"""Files that others read, rendered from the effective configuration; nothing here writes any."""
