"""A service that is upgraded, for tests: its main process is another one then."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

from tests.kit import DEADLINE_S, Service, children_of, send_signal, wait_for

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Upgrading", "lives"]

PROGRAM = """\
#!{python}
import fastscp.main.upgrade
fastscp.main.upgrade._PREPARES_S = {patience}
from fastscp.__main__ import main
raise SystemExit(main())
"""


def lives(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(") ")[2][0] != "Z"
    except OSError:
        return False


class Upgrading(Service):
    """Its program is a script, which `replace` replaces; its end is that of all its mains."""

    def __init__(
        self, tmp_path: Path, *flags: str, patience: float = DEADLINE_S, **more: Any
    ) -> None:
        tmp_path.mkdir(exist_ok=True)
        self._script = tmp_path / "fastscp-of-today"
        self.replace(PROGRAM.format(python=sys.executable, patience=patience))
        super().__init__(tmp_path, *flags, **more)
        self._command[0:3] = [str(self._script)]
        self.mains: list[int] = []

    def replace(self, text: str) -> None:
        """Another program, as an installation writes it: in one step."""
        new = self._script.with_suffix(".new")
        new.write_text(text)
        new.chmod(0o755)
        new.rename(self._script)

    def main(self) -> int:
        """The process that is the service; never 0, for a signal to that is one to the tests."""
        return wait_for(self._holder, "the lock")

    def _holder(self) -> int:
        """0 while nobody has written into the lock."""
        text = (self.store / ".fastscp/lock").read_text()
        return int(text) if text.strip() else 0

    def upgrade(self) -> int:
        """Have another process take over; returns its id."""
        before = self.main()
        self.worker_pids()
        os.kill(before, signal.SIGUSR2)
        return self.taken_over(before)

    def taken_over(self, before: int) -> int:
        """Wait until another process is the service; returns its id."""

        def is_taken_over() -> bool:
            now = self.main()
            return now != before and f"process {now} is the service now" in self.log()

        wait_for(is_taken_over, "the upgrade")
        self.worker_pids()
        return self.main()

    def worker_pids(self) -> list[int]:
        """Those of the newest main; all that ever were are remembered."""
        for main in {self.pid, *([self._holder()] if self.store.exists() else [])} - {0}:
            if main not in self.mains:
                self.mains.append(main)
        for main in self.mains:
            self._workers.update(pid for pid in children_of(main) if self._is_worker(pid))
        return [one for one in children_of(self.mains[-1]) if self._is_worker(one)]

    def _is_worker(self, pid: int) -> bool:
        with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline") as file:
            return "worker" in file.read()
        return False

    def is_alone(self) -> None:
        """Wait until the mains before the newest are gone."""
        newest = self.main()
        others = [pid for pid in self.mains if pid != newest]

        def look() -> bool:
            self.process.poll()
            return not any(map(lives, others))

        wait_for(look, "the end of those before")

    def stop(self, name: signal.Signals = signal.SIGTERM, seconds: float = DEADLINE_S) -> None:
        self.worker_pids()
        os.kill(self.main(), name)
        self.all_end(seconds)

    def all_end(self, seconds: float = DEADLINE_S) -> None:
        """Wait for the end of all mains, and check that they leave nothing behind."""

        def look() -> bool:
            # It may end between the two looks, and nobody else would wait for it.
            return not any(map(lives, self.mains)) and self.process.poll() is not None

        wait_for(look, f"the end of all mains\n{self.log()}", seconds)
        assert not (self.store / ".fastscp/admin.sock").exists()
        self.leaves_nothing()

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        try:
            if kind is None and any(map(lives, self.mains)):
                self.stop()
        finally:
            self.kill()
            if kind is not None:
                print(f"--- the log of the service\n{self.log()}", file=sys.stderr)

    def kill(self) -> None:
        if self._process is None:
            return
        with contextlib.suppress(OSError, ValueError):
            self.worker_pids()
        for pid in self.mains:
            for child in children_of(pid):
                self._workers.add(child)
            if lives(pid):
                send_signal(pid, signal.SIGKILL)
        super().kill()
