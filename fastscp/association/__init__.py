"""The upper layer and DIMSE: no I/O of its own, no clock."""
