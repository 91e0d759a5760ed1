"""pynetdicom and DCMTK's programs as the requestors they are."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
from typing import TYPE_CHECKING, Any

from pynetdicom import AE
from pynetdicom.presentation import build_context

from tests.interop.material import dcmtk
from tests.kit import CT, DEADLINE_S, ELE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from pynetdicom.association import Association
    from pynetdicom.presentation import PresentationContext

    from tests.kit import Service

__all__ = ["associated", "run"]


class _Gate(threading.Event):
    """Holds the reactor thread of an association.

    pynetdicom means to pause it while a request waits for its response, but may take it for paused
    when it is about to go on; then the reactor takes a quick response away, and the request waits
    in vain. Behind a gate it is paused once, for as long as the test has the association.
    """

    def __init__(self) -> None:
        super().__init__()
        self.reached = threading.Event()

    def wait(self, timeout: float | None = None) -> bool:
        self.reached.set()
        return super().wait(timeout)

    def set(self) -> None:
        """Called after each response, to let the reactor go on; it does not."""

    def open(self) -> None:
        super().set()


@contextlib.contextmanager
def associated(
    service: Service, contexts: Sequence[PresentationContext] = (), **more: Any
) -> Iterator[Association]:
    """pynetdicom's side of an association, released at the end.

    contexts: by default CT in Explicit VR Little Endian. more: as `AE.associate` takes it.
    """
    ae = AE("PYNETDICOM")
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = DEADLINE_S
    offered = list(contexts) or [build_context(CT, [ELE])]
    association = ae.associate(service.host, service.port, contexts=offered, **more)
    gate = _Gate()
    try:
        assert association.is_established
        association._reactor_checkpoint = gate
        assert gate.reached.wait(DEADLINE_S)
        yield association
        association.release()
        assert association.is_released
    finally:
        gate.open()
        if not association.is_released:
            association.abort()
        association.join(DEADLINE_S)
        assert not association.is_alive()


def run(
    program: str, *arguments: str | Path, env: Mapping[str, str] | None = None, code: int = 0
) -> str:
    """Run one of DCMTK's programs to its end and check how it ended; returns what it said."""
    done = subprocess.run(
        [dcmtk(program), *map(str, arguments)],
        env=os.environ | dict(env or {}),
        check=False,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=60,
    )
    said = done.stdout + done.stderr
    assert done.returncode == code, said
    return said
