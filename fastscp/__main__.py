"""The `fastscp` command, also as `python -m fastscp`."""

from __future__ import annotations

import os
import signal
import sys

__all__ = ["main"]

# Commands that run the service.
_SERVICES = (["serve"], ["demo"])
# What a shell gives for a program that INT ended.
_INTERRUPTED = 130


def main() -> int:
    """Run the command line; returns the exit code."""
    if sys.argv[1:2] in _SERVICES:
        # Before the imports, which take a while: a HUP may come as soon as there is a process.
        from fastscp.main.signals import hold_off

        hold_off()
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:
        # Nothing has begun yet; an exception would come out of the middle of an import.
        signal.signal(signal.SIGINT, lambda *_: os._exit(_INTERRUPTED))
    from fastscp.cli.app import main as run

    signal.signal(signal.SIGINT, before)
    return run()


if __name__ == "__main__":
    raise SystemExit(main())
