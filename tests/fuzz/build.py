"""Builds of the codec for fuzzing, in a folder of their own; nothing in the tree is touched.

The modules are compiled by the project's `setup.py` with clang and its own switches, plus the
counters libFuzzer reads. `driver.c` is linked with libFuzzer and holds the interpreter.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["CODEC", "Build", "build", "memory", "missing", "weakened"]

TREE: Final = Path(__file__).resolve().parents[2]
# The modules that read what a peer sends, and need none of the others.
TAP: Final = (
    *("tap", "tap_doubt", "tap_forks", "tap_headers", "tap_items", "tap_levels", "tap_parse"),
    *("tap_read", "tap_tags", "tap_values"),
)
# With what it takes from another room.
PROXY: Final = ("digest", "proxy", "record")
SEND: Final = ("head", "judgement", "parcel", "sender", "stage")
CODEC: Final = ("command", "framing", "layout", "part10", "pdu", *TAP, "uid", *PROXY, *SEND)
EXACT: Final = "tests.fuzz.exact"
# A constructor without arguments is called with none by Cython, and adds 0 to where they are.
GLUE: Final = "pointer-overflow:__pyx_pw_*__cinit__\n"
CLANG: Final = os.environ.get("FUZZ_CC", "clang")


def memory() -> Path | None:
    """A folder on memory, where there is one."""
    path = Path("/dev/shm")
    return path if path.is_dir() else None


def missing() -> str:
    """Why there can be no sanitizer build here, or ""."""
    if shutil.which(CLANG) is None and shutil.which("clang-14") is None:
        return "clang is not installed"
    if not sysconfig.get_config_var("Py_ENABLE_SHARED"):
        return "this Python has no shared library to link with"
    if find_spec("Cython") is None or find_spec("setuptools") is None:
        return "Cython and setuptools are not installed"
    probe = subprocess.run(
        [compiler(), "-fsanitize=fuzzer,address,undefined", "-x", "c", "-", "-o", os.devnull],
        input="#include <stddef.h>\nint LLVMFuzzerTestOneInput(const char *d, size_t n);\n"
        "int LLVMFuzzerTestOneInput(const char *d, size_t n) { return d[n - n] == 'x' ? 0 : 0; }\n",
        text=True, capture_output=True, check=False,
    )  # fmt: skip
    return "" if probe.returncode == 0 else f"clang has no libFuzzer: {probe.stderr.strip()[:200]}"


def compiler() -> str:
    return CLANG if shutil.which(CLANG) else "clang-14"


@dataclass(frozen=True)
class Build:
    """A built harness. quick: compiled without optimization."""

    folder: Path
    quick: bool = False

    @property
    def driver(self) -> Path:
        return self.folder / "driver"

    @property
    def ours(self) -> Path:
        """What UBSan is to pass over, as `GLUE` says."""
        return self.folder / "suppressions"

    def environment(self, **more: str) -> dict[str, str]:
        """What the driver needs to find its interpreter, the modules and the tests."""
        packages = [path for path in sys.path if path.endswith("site-packages")]
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith("PYTHON")},
            # An activated environment on PATH is taken for the interpreter's own, and with it the
            # installed package is found beside the build's.
            "PATH": os.defpath,
            "PYTHONHOME": sys.base_prefix,
            "PYTHONPATH": os.pathsep.join([str(self.folder), *packages]),
            "PYTHONMALLOC": "malloc",
            "PYTHONDONTWRITEBYTECODE": "1",
            # An interpreter leaves much behind at its end: leaks show as growth, see RSS_LIMIT_MB.
            "ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=1",
            "UBSAN_OPTIONS": f"print_stacktrace=1:halt_on_error=1:suppressions={self.ours}",
            **more,
        }

    def run(self, *arguments: str, seconds: float | None = None, **environment: str) -> Ran:
        """The driver with libFuzzer's arguments; where it fails, what it printed says why."""
        # libFuzzer leaves without ending the interpreter, so the folder is this side's.
        with tempfile.TemporaryDirectory(prefix="fuzz-", dir=memory()) as scratch:
            done = subprocess.run(
                [self.driver, *arguments], cwd=self.folder,
                env=self.environment(FUZZ_SCRATCH=scratch, **environment),
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, timeout=seconds,
            )  # fmt: skip
        return Ran(done.returncode, done.stdout.decode(errors="replace"))


@dataclass(frozen=True)
class Ran:
    status: int
    output: str


def build(
    folder: Path,
    *,
    modules: Sequence[str] | None = None,
    coverage: bool = False,
    quick: bool = False,
) -> Build:
    """Compile the harness into `folder`, which must not exist.

    modules: of the codec; None: all, so that the receiver is there too. coverage: clang's source
    coverage in place of the sanitizers. quick: without optimization, which takes the compiler a
    fifth of the time; for runs that are shorter than that. Raises RuntimeError with what the
    compiler said.
    """
    copy(folder, modules)
    (folder / "suppressions").write_text(GLUE)
    extensions(folder, coverage=coverage, quick=quick)
    include, library = (sysconfig.get_config_var(name) for name in ("INCLUDEPY", "LIBDIR"))
    sanitizers = "fuzzer" if coverage else "fuzzer,address,undefined"
    version = sysconfig.get_config_var("LDVERSION")
    call(
        [
            compiler(), "-std=c11", "-O1", "-g", "-Wall", "-Wextra", f"-fsanitize={sanitizers}",
            f"-I{include}", "tests/fuzz/driver.c", "-o", "driver", "-rdynamic", f"-L{library}",
            f"-Wl,-rpath,{library}", f"-lpython{version}",
        ],
        folder, dict(os.environ),
    )  # fmt: skip
    return Build(folder, quick)


def weakened(base: Build, folder: Path, module: str, name: str, before: str, after: str) -> Build:
    """A copy of a sanitizer build in which one module has a bug made on purpose.

    `before` becomes `after` in fastscp_ext/`name`, then `module` is compiled again. Raises
    ValueError unless `before` is there exactly once.
    """
    shutil.copytree(base.folder, folder)
    sources = folder / "fastscp_ext"
    text = (sources / name).read_text()
    if text.count(before) != 1:
        raise ValueError(f"{name}: {before!r} is there {text.count(before)} times")
    (sources / name).write_text(text.replace(before, after))
    for path in (*sources.rglob("*.pyx"), folder / "tests" / "fuzz" / "exact.pyx"):
        if path.stem != module:
            path.unlink()
    setup = folder / "setup.py"
    kept = [line for line in setup.read_text().splitlines(keepends=True) if EXACT not in line]
    setup.write_text("".join(kept))
    extensions(folder, coverage=False, quick=base.quick)
    return Build(folder, base.quick)


def extensions(folder: Path, *, coverage: bool, quick: bool) -> None:
    flags = f"-include {folder / 'tests/fuzz/faults.h'}"
    environment = {
        **os.environ,
        "CC": compiler(),
        "FASTSCP_COVERAGE" if coverage else "FASTSCP_SANITIZE": "1",
        "FASTSCP_DEBUG": "1" if quick else "",
        "CFLAGS": flags if coverage else f"{flags} -fsanitize=fuzzer-no-link",
    }
    processors = f"-j{len(os.sched_getaffinity(0))}"
    command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace", processors]
    call(command, folder, environment)


def copy(folder: Path, modules: Sequence[str] | None) -> None:
    """The sources as a tree of their own, with `exact` as one more module of the codec's."""
    ignored = shutil.ignore_patterns("*.so", "*.c", "__pycache__", "*.html")
    shutil.copytree(TREE / "fastscp_ext", folder / "fastscp_ext", ignore=ignored)
    (folder / "tests" / "fuzz").mkdir(parents=True)
    own = (TREE / "tests" / name for name in ("raw.py", "wire.py"))
    for path in (*(TREE / "tests").glob("reference_*.py"), *own):
        shutil.copy(path, folder / "tests")
    for path in Path(__file__).parent.iterdir():
        if path.suffix in (".py", ".pyx", ".h", ".c"):
            shutil.copy(path, folder / "tests" / "fuzz")
    for package in ("tests", "tests/fuzz"):
        (folder / package / "__init__.py").touch()
    shutil.copy(TREE / "pyproject.toml", folder)
    setup = (TREE / "setup.py").read_text()
    # Such as is not passed over stops it all the same.
    extra = 'compile_args.append("-fsanitize-recover=pointer-overflow")\n'
    extra += f'extensions.append(Extension("{EXACT}", ["tests/fuzz/exact.pyx"], '
    extra += "extra_compile_args=compile_args, extra_link_args=link_args))\n"
    last = setup.rindex("setup(")
    (folder / "setup.py").write_text(setup[:last] + extra + setup[last:])
    # What Cython made for the tree's own build serves here, too: what is older than its sources is
    # made anew.
    with contextlib.suppress(FileNotFoundError):
        shutil.copytree(
            TREE / "build" / "fastscp_ext", folder / "build" / "fastscp_ext",
            ignore=lambda path, names: [
                name for name in names if not (Path(path, name).is_dir() or name.endswith(".c"))
            ],
        )  # fmt: skip
    if modules is not None:
        # Without the door, which imports them all; what the checks need they take by name.
        (folder / "fastscp_ext" / "__init__.py").write_text("")
        for path in (folder / "fastscp_ext").rglob("*.pyx"):
            if path.stem not in modules:
                path.unlink()


def call(command: list[str], folder: Path, environment: dict[str, str]) -> None:
    done = subprocess.run(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}\n{done.stdout[-8000:]}")
