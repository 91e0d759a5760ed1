"""An upgrade that fails in the middle: the service goes on, and lets everybody in again."""

from __future__ import annotations

import asyncio
import errno
from types import SimpleNamespace
from typing import Any

import pytest

from fastscp.main.upgrade import Upgrade
from fastscp.messages.handover import Go
from fastscp.messages.totals import Totals


class Doors:
    """All that accepts, which rests and goes on together."""

    def __init__(self) -> None:
        self.is_open = True

    def rest(self) -> None:
        self.is_open = False

    hold = rest

    def go_on(self) -> None:
        self.is_open = True


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.EMFILE, "Too many open files"), "cannot be started (Too many open files)"),
        (RuntimeError("never expected"), "a bug, which the line before tells of"),
    ],
)
def test_whatever_fails_peers_are_let_in_again(
    caplog: pytest.LogCaptureFixture, error: Exception, said: str
) -> None:
    killed: list[int] = []
    doors = [Doors(), Doors(), Doors()]

    class Successor:
        pid = 7

        def send(self, message: object) -> None:
            assert message == Go(Totals())
            # Nobody is let in while the other one takes over.
            assert [one.is_open for one in doors] == [False] * 3
            raise error

        def kill(self) -> None:
            killed.append(self.pid)

        def close(self) -> None: ...

    async def run() -> None:
        work: list[Any] = []
        facts = SimpleNamespace(upgrading="", predecessor=0)
        parts: Any = SimpleNamespace(
            command=["fastscp", "serve"], facts=facts, acceptors=doors[:1],
            control_socket=doors[1], web=doors[2], background=work.append,
            workers=SimpleNamespace(stopping=False), totals=Totals,
        )  # fmt: skip
        upgrade = Upgrade(parts)
        upgrade._start = Successor  # type: ignore[assignment]
        upgrade.begin()
        upgrade._stage.prepared.set_result("")
        await asyncio.gather(*work)
        assert killed
        assert [one.is_open for one in doors] == [True] * 3
        assert not upgrade.has_handed_over
        assert not upgrade.is_under_way
        assert upgrade.refused() == ""

    asyncio.run(run())
    last = caplog.records[-1].getMessage()
    assert said in last
    assert "goes on as before" in last
