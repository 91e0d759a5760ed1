"""Data sets: values, headers, paths, digests."""
