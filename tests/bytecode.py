"""Compiled modules for the programs that tests start, where the environment lets write none."""

from __future__ import annotations

import os
import shutil
import tempfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

__all__ = ["share_among_programs"]

_FORBIDS = "PYTHONDONTWRITEBYTECODE"
_FOLDER = "PYTHONPYCACHEPREFIX"


def share_among_programs(config: pytest.Config) -> None:
    """Let every program of this run find what the first one has compiled, in a folder of the run.

    Else each service that a test starts compiles the whole package, main and every worker for
    itself, and that is half of what a start costs. The folder goes when the run ends, and nothing
    is written beside the sources: that is what the environment asks for.
    """
    if not os.environ.get(_FORBIDS) or _FOLDER in os.environ:
        return
    folder = tempfile.mkdtemp(prefix="fastscp-bytecode-")
    config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
    forbids = os.environ.pop(_FORBIDS)
    os.environ[_FOLDER] = folder

    def as_before() -> None:
        del os.environ[_FOLDER]
        os.environ[_FORBIDS] = forbids

    config.add_cleanup(as_before)
