"""The `fastscp` command, also as `python -m fastscp`."""

from __future__ import annotations

import sys

__all__ = ["main"]

# Commands that run the service.
_SERVICES = (["serve"], ["demo"])


def main() -> int:
    """Run the command line; returns the exit code."""
    if sys.argv[1:2] in _SERVICES:
        # Before the imports, which take a while: a HUP may come as soon as there is a process.
        from fastscp.main.signals import hold_off

        hold_off()
    from fastscp.cli.app import main as run

    return run()


if __name__ == "__main__":
    raise SystemExit(main())
