"""Logging: one format for main and workers, that no peer can write lines into or flood.

It goes to stderr, or into a file.

The service's lines go through a bounded queue to a thread that writes them: a log that nobody
reads stops nothing. What a peer causes is logged with `extra=caused(...)`, and repeats are counted.
What a line tells of somebody it has as `extra=fields(...)`, too, for the log in JSON.
"""

from fastscp.log.copies import Copies, Line
from fastscp.log.fields import FIELDS, Fields, fields, fields_table
from fastscp.log.form import TRACE
from fastscp.log.handlers import (
    LEVELS,
    announce,
    beside,
    configure,
    copy_to,
    flush,
    hold,
    lines_lost,
    once_told,
    reopen,
)
from fastscp.log.repeats import caused, concluding
from fastscp.log.target import LogFileError, open_log_file
from fastscp.log.text import address, counted, escape, in_json, printable, shown

__all__ = [
    "FIELDS",
    "LEVELS",
    "TRACE",
    "Copies",
    "Fields",
    "Line",
    "LogFileError",
    "address",
    "announce",
    "beside",
    "caused",
    "concluding",
    "configure",
    "copy_to",
    "counted",
    "escape",
    "fields",
    "fields_table",
    "flush",
    "hold",
    "in_json",
    "lines_lost",
    "once_told",
    "open_log_file",
    "printable",
    "reopen",
    "shown",
]
