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
    before = signal.getsignal(signal.SIGINT)
    is_service = sys.argv[1:2] in _SERVICES
    # Nothing has begun yet; an exception would come out of the middle of an import, and one in that
    # of an extension module can crash the interpreter.
    _ends_at_once(before, 0 if sys.argv[1:2] == ["serve"] else _INTERRUPTED)
    from fastscp.cli.streams import prepare

    prepare()
    if is_service:
        # Before the other imports, which take a while: a HUP may come as soon as there is a
        # process.
        from fastscp.main.signals import hold_off

        hold_off()
    from fastscp.cli.app import main as run

    signal.signal(signal.SIGINT, before)
    code = run()
    # All is said; what is left is the interpreter's own end.
    _ends_at_once(before, code)
    return code


def _ends_at_once(before: object, code: int) -> None:
    """Let INT end the process with this code, unless whoever started it wants it ignored."""
    if before is signal.default_int_handler:
        signal.signal(signal.SIGINT, lambda *_: os._exit(code))


if __name__ == "__main__":
    raise SystemExit(main())
