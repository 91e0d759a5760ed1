"""A worker process: its loop, its associations."""
