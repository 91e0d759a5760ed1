"""What tests of the Python API share, and services that speak TLS."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from tests.scripted import LOOPS

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from tests.kit import TLS


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Callable[[Coroutine[Any, Any, Any]], Any]:
    """Run a coroutine on each kind of event loop."""

    def run(work: Coroutine[Any, Any, Any]) -> Any:
        with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
            return runner.run(work)

    return run


@pytest.fixture(scope="module", params=["plain", "TLS"])
def wire(request: pytest.FixtureRequest) -> TLS | None:
    """What a service speaks: `Service(tls=wire)`. The tests of a module have it in turn."""
    tls: TLS | None = None
    if request.param == "TLS":
        tls = request.getfixturevalue("secured")
    return tls
