"""The interposed library, compiled once."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.compiled import compile_c

HERE = Path(__file__).resolve().parent


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """disk.c as a library to be preloaded."""
    return compile_c(HERE / "disk.c", tmp_path_factory.mktemp("disk"), "-shared", "-fPIC")


@pytest.fixture(scope="session")
def slow_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The slow disk of bench/flush as a library to be preloaded."""
    source = HERE.parents[1] / "bench/flush/slow.c"
    return compile_c(source, tmp_path_factory.mktemp("slow"), "-shared", "-fPIC")


@pytest.fixture
def privileged() -> None:
    """Skip where no file system can be mounted."""
    probe = (
        subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False)
        if shutil.which("unshare")
        else None
    )
    if os.geteuid() != 0 or probe is None or probe.returncode != 0:
        pytest.skip("mounting a file system takes root")
