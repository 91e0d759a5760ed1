"""The main process: start, workers, connections, the store's watch."""
