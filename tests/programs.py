"""Programs that tests run and that not every machine has."""

from __future__ import annotations

import os
import shutil

import pytest

__all__ = ["needed"]


def needed(name: str) -> str:
    """The path of a program; the test skips without it, and fails where CI is set."""
    # What root alone runs is not on everybody's path.
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if found is None:
        if os.environ.get("CI"):
            pytest.fail(f"{name} is not there")
        pytest.skip(f"{name} is not there")
    return found
