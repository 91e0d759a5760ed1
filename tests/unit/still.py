"""Tests for which the receiver's clock stands still.

`@still` runs a test once more in a process of its own, over the library of still.c, where `Clock`
says what time it is. What such a test sees does not depend on how busy the machine is.
"""

from __future__ import annotations

import ctypes
import functools
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final, ParamSpec

from tests.compiled import compile_c

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Clock", "still"]

ROOT: Final = Path(__file__).resolve().parents[2]
INSIDE: Final = "FASTSCP_TEST_STILL"

P = ParamSpec("P")


def still(test: Callable[P, None]) -> Callable[P, None]:
    """Run the test in a process whose clock can be held."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        name = os.environ["PYTEST_CURRENT_TEST"].rpartition(" (")[0]
        if os.environ.get(INSIDE) == name:
            test(*args, **kwargs)
            return
        with tempfile.TemporaryDirectory() as folder:
            library = compile_c(Path(__file__).with_suffix(".c"), Path(folder), "-shared", "-fPIC")
            done = subprocess.run(
                [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", name],
                cwd=ROOT,
                env=os.environ | {"LD_PRELOAD": str(library), INSIDE: name},
                capture_output=True,
                text=True,
                check=False,
            )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "1 passed" in done.stdout

    return run


class Clock:
    """The receiver's clock, which goes on when it is told to; and what it set of its socket."""

    def __init__(self) -> None:
        library = ctypes.CDLL(None)
        self._hold = library.hold_clock
        self._hold.argtypes = (ctypes.c_double,)
        self._times = library.times_set
        self._now = 1000.0
        self._hold(self._now)

    @property
    def now(self) -> float:
        return self._now

    def goes_on(self, seconds: float) -> None:
        self._now += seconds
        self._hold(self._now)

    def acknowledgements(self) -> int:
        """How often the kernel was told since the last call not to put one off."""
        return int(self._times(socket.IPPROTO_TCP, socket.TCP_QUICKACK))
