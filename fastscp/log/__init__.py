"""Logging: one format for main and workers, on stderr, that no peer can write lines into or flood.

The service's lines go through a bounded queue to a thread that writes them: a log that nobody
reads stops nothing. What a peer causes is logged with `extra=caused(...)`, and repeats are counted.
"""

from fastscp.log.form import TRACE
from fastscp.log.handlers import LEVELS, announce, configure, flush, hold
from fastscp.log.repeats import caused
from fastscp.log.text import escape, in_json, printable, shown

__all__ = [
    "LEVELS",
    "TRACE",
    "announce",
    "caused",
    "configure",
    "escape",
    "flush",
    "hold",
    "in_json",
    "printable",
    "shown",
]
