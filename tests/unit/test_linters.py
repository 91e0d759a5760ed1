"""The linters as ordinary tests, with the settings of pyproject.toml."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import fastscp_ext

if TYPE_CHECKING:
    from fastscp.worker.association import Association
    from fastscp.worker.faults import FaultyAssociation
    from fastscp_ext.receive.receiver import AskedHooks, Hooks

ROOT = Path(__file__).resolve().parents[2]
PYPROJECT = ROOT / "pyproject.toml"
EXTENSIONS = ROOT / "fastscp_ext"


def need(module: str) -> None:
    """Skip without a tool of the `lint` group; in CI all of them have to be there."""
    if importlib.util.find_spec(module) is None:
        if os.environ.get("CI"):
            pytest.fail(f"{module} is not installed; it comes with the dependency group `lint`")
        pytest.skip(f"{module} is not installed; it comes with the dependency group `lint`")


def clean(*command: str | Path, cwd: Path = ROOT) -> None:
    """Run a linter and fail with what it says."""
    # Some of them call others by name.
    path = os.pathsep.join((sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)))
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def script(name: str) -> Path:
    return Path(sysconfig.get_path("scripts")) / name


def test_ruff_check() -> None:
    need("ruff")
    clean(sys.executable, "-m", "ruff", "check", "--no-cache", ".")


def test_ruff_format() -> None:
    need("ruff")
    clean(sys.executable, "-m", "ruff", "format", "--no-cache", "--check", ".")


def test_mypy() -> None:
    need("mypy")
    clean(sys.executable, "-m", "mypy", "--config-file", PYPROJECT)


def test_cython_lint() -> None:
    need("cython_lint")
    from cython_lint.cython_lint import PYCODESTYLE_CODES

    # It would start pycodestyle for each file, which takes them all at once.
    clean(script("cython-lint"), "--no-pycodestyle", "fastscp_ext")
    files = [path for path in EXTENSIONS.rglob("*.p*") if path.suffix in (".pyx", ".pxd")]
    assert len(files) > 100
    length = tomllib.loads(PYPROJECT.read_text())["tool"]["cython-lint"]["max-line-length"]
    clean(
        sys.executable, "-m", "pycodestyle", f"--max-line-length={length}",
        f"--ignore={','.join(sorted(PYCODESTYLE_CODES))}", *files,
    )  # fmt: skip


def test_stubs_match_the_built_modules(tmp_path: Path) -> None:
    need("mypy")
    allowed = tmp_path / "allowed"
    # The buffer interface has these names from Python 3.12 on.
    names = ("__buffer__", "__release_buffer__") if sys.version_info < (3, 12) else ()
    buffers = ("receiver.Receiver", "secure.Secured")
    lines = (f"fastscp_ext.receive.{one}.{name}" for one in buffers for name in names)
    allowed.write_text("".join(re.escape(line) + "\n" for line in lines))
    clean(
        sys.executable, "-m", "mypy.stubtest", "fastscp_ext", "--allowlist", allowed,
        "--mypy-config-file", PYPROJECT, cwd=Path(fastscp_ext.__file__).parents[1],
    )  # fmt: skip


def test_every_extension_module_has_its_stub() -> None:
    sources = {path.with_suffix("") for path in (ROOT / "fastscp_ext").rglob("*.pyx")}
    assert sources
    assert {path.with_suffix("") for path in (ROOT / "fastscp_ext").rglob("*.pyi")} == sources


def _association_has_the_hooks(association: Association) -> Hooks:
    # Never called: mypy compares the signatures.
    return association


def _faulty_association_has_more(association: FaultyAssociation) -> AskedHooks:
    return association
