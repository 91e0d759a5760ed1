"""The programs of the receivers: where they are, and which version.

Every function raises Absent, with the reason, if its program is not on this machine.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent


class Absent(Exception):  # noqa: N818  (a finding, not a failure)
    """The receiver is not on this machine; says what is missing."""


def program(name: str) -> str:
    """Path of a program on PATH, or in the places of system programs."""
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/local/sbin:/usr/sbin"))
    found = shutil.which(name, path=path)
    if found is None:
        raise Absent(f"no {name} on PATH")
    return found


@functools.cache
def first_line(*command: str, folder: Path = HERE.parent) -> str:
    """What a program says of itself, without DCMTK's dollar signs. Run in the checkout."""
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )
    lines = (done.stdout + done.stderr).strip().splitlines()
    if not lines:
        raise Absent(f"{' '.join(command)} says nothing")
    return lines[0].strip("$ ")


@functools.cache
def fastscp_version(tree: Path = HERE.parent, python: str = sys.executable) -> str:
    """Version of fastscp in a checkout, if its extension modules are built."""
    words = (python, "-c", "import fastscp_ext")
    done = subprocess.run(words, cwd=tree, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        why = done.stderr.strip().rpartition("\n")[2] or f"exit code {done.returncode}"
        raise Absent(
            f"the extension modules of {tree} are not built, or not for {python} ({why});"
            f" run `{python} -m pip install -e .` there"
        )
    return first_line(python, "-m", "fastscp", "--version", folder=tree)


def dcmtk_version(name: str) -> str:
    """Version of a program of DCMTK."""
    line = first_line(dcmtk(name), "--version")
    found = re.search(r" v(\S+)", line)
    return f"DCMTK {found[1]}" if found else line


@functools.cache
def dcmtk(name: str) -> str:
    """Path of a program of DCMTK; others have a storescp, too, and may come first on PATH."""
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/bin"))
    for folder in path.split(os.pathsep):
        found = shutil.which(name, path=folder)
        if found and first_line(found, "--version").startswith("dcmtk:"):
            return found
    raise Absent(f"no {name} of DCMTK on PATH")


def dcmrecv_version() -> str:
    """Version of DCMTK's dcmrecv, if its profiles are there as well."""
    version = dcmtk_version("dcmrecv")
    dcmtk_profile()
    return version


@functools.cache
def dcmtk_profile() -> Path:
    """The association profiles that come with DCMTK."""
    prefix = Path(dcmtk("dcmrecv")).parent.parent
    for folder in (prefix / "etc", Path("/etc")):
        for profile in sorted(folder.glob("dcmtk*/storescp.cfg")):
            return profile
    raise Absent(f"no storescp.cfg of DCMTK below {prefix}/etc or /etc")


def python_module_version(name: str) -> str:
    """Version of a package of this interpreter."""
    if importlib.util.find_spec(name) is None:
        raise Absent(f"{sys.executable} has no {name}")
    show = f"import {name}; print({name}.__version__)"
    return f"{name} {first_line(sys.executable, '-c', show)}"


def orthanc_version() -> str:
    """Version of Orthanc."""
    # The line begins with the path it was called by.
    return "Orthanc " + first_line(program("Orthanc"), "--version").rpartition(" ")[2]


def dicom_rs_version() -> str:
    """Version of the storescp of DICOM-rs."""
    return first_line(program("dicom-storescp"), "--version")


def dcm4che_jars() -> Path:
    """Folder of a dcm4che distribution, or of its jars, as FASTSCP_BENCH_DCM4CHE names it."""
    named = os.environ.get("FASTSCP_BENCH_DCM4CHE")
    if not named:
        raise Absent(
            "FASTSCP_BENCH_DCM4CHE names no folder with dcm4che's jars"
            " (Maven Central has none of them)"
        )
    home = Path(named)
    return home / "lib" if (home / "lib").is_dir() else home


def dcm4che_version() -> str:
    """Version of dcm4che, from the name of its jar; asking would take a Java machine's start."""
    program("java")
    for jar in sorted(dcm4che_jars().glob("dcm4che-tool-storescp-*.jar")):
        return "dcm4che " + jar.stem.removeprefix("dcm4che-tool-storescp-")
    raise Absent(f"no dcm4che-tool-storescp-*.jar in {dcm4che_jars()}")


@functools.cache
def _build_folder() -> tempfile.TemporaryDirectory[str]:
    # Removed when the interpreter ends.
    return tempfile.TemporaryDirectory(prefix="bench-")


@functools.cache
def compiled(source: Path) -> Path:
    """A C program of this folder, compiled for this run of the benchmark. Raises Absent."""
    if not source.exists():
        raise Absent(f"no {source.name}")
    compiler = shutil.which("cc")
    if compiler is None:
        raise Absent("no C compiler (cc)")
    built = Path(_build_folder().name) / source.stem
    subprocess.run([compiler, "-O2", "-o", built, source], check=True)
    return built


def ours_in_c_version(name: str) -> str:
    """Compile a C program of this folder, if that was not done yet."""
    compiled(HERE / f"{name}.c")
    return "of this checkout"
