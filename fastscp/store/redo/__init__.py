"""The redo log after its worker: read, and its records brought to their files and their lines."""
