"""Where the figures come from: commit, machine, kernel, file systems, versions."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def about(folder: Path, disk: Path) -> dict[str, object]:
    """What the JSON says of the place where it was made.

    folder: where stores are, disk: where those are that are flushed.
    """
    return {
        "commit": commit(),
        "cpu": _field(Path("/proc/cpuinfo"), "model name") or platform.machine(),
        "cpus": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "kernel": f"{os.uname().sysname} {os.uname().release}",
        "virtual": "hypervisor" in _field(Path("/proc/cpuinfo"), "flags").split(),
        "load_average": round(os.getloadavg()[0], 2),
        "file_system": file_system(folder),
        "disk_file_system": file_system(disk),
        "python": platform.python_version(),
        "libc": " ".join(platform.libc_ver()),
    }


def commit(tree: Path = ROOT) -> str:
    """The commit of a checkout, `+` behind it if files were changed since."""
    git = ["git", "-C", str(tree)]
    try:
        name = _said(*git, "rev-parse", "--short=12", "HEAD")
        changed = _said(*git, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return name + "+" * bool(changed)


def _said(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def _field(path: Path, name: str) -> str:
    for line in path.read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""


def file_system(folder: Path) -> str:
    """Kind of the file system a folder is in, and its options.

    Source: proc(5), /proc/PID/mountinfo.
    """
    here = folder.resolve()
    best, found = Path(), "unknown"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        # Blanks in names are written as \040; none of ours has any.
        point, options = left.split(" ")[4:6]
        # Of two mounts on one place the later one is seen.
        if here.is_relative_to(point) and len(Path(point).parts) >= len(best.parts):
            best, found = Path(point), f"{right.split(' ')[0]} ({options})"
    return found
