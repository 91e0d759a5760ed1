"""The extension modules and the switches they are built with.

Everything else about the package stands in pyproject.toml. Switches, read from the environment:

FASTSCP_SANITIZE=1   AddressSanitizer and UndefinedBehaviorSanitizer, -O1, no recovery
FASTSCP_COVERAGE=1   clang source coverage of the generated C (with CC=clang)
FASTSCP_TRACE=1      Cython line tracing, for line coverage of the .pyx files
FASTSCP_DEBUG=1      -O0, debug information
"""

import os
from pathlib import Path

from Cython.Build import cythonize
from Cython.Compiler import Options
from setuptools import Extension, setup

Options.warning_errors = True


def switch(name: str) -> bool:
    return os.environ.get(f"FASTSCP_{name}", "") not in ("", "0")


# Cython's own glue is not written for -Wconversion; the rest holds.
compile_args = [
    "-std=c11",
    "-O2",
    "-g1",
    "-fno-strict-aliasing",
    "-Wall",
    "-Wextra",
    "-Wno-unused-parameter",
    "-Wno-missing-field-initializers",
]
link_args: list[str] = []
macros: list[tuple[str, str | None]] = []
directives: dict[str, object] = {
    "language_level": 3,
    "boundscheck": True,
    "wraparound": False,
    "initializedcheck": True,
    "cdivision": True,
    "auto_pickle": False,
    "autotestdict": False,
    "embedsignature": False,
    "warn.maybe_uninitialized": True,
    "warn.unused": True,
}
if switch("SANITIZE"):
    flags = [
        "-O1",
        "-g",
        "-fsanitize=address,undefined",
        "-fno-sanitize-recover=undefined",
        "-fno-omit-frame-pointer",
    ]
    compile_args += flags
    link_args += ["-fsanitize=address,undefined"]
if switch("COVERAGE"):
    compile_args += ["-fprofile-instr-generate", "-fcoverage-mapping"]
    link_args += ["-fprofile-instr-generate"]
if switch("TRACE"):
    directives["linetrace"] = True
    macros += [("CYTHON_TRACE_NOGIL", "1"), ("CYTHON_USE_SYS_MONITORING", "0")]
if switch("DEBUG"):
    compile_args += ["-O0", "-g3"]

modules = sorted(path.with_suffix("") for path in Path("fastscp_ext").rglob("*.pyx"))
extensions = [
    Extension(
        ".".join(path.parts),
        [f"{path}.pyx"],
        extra_compile_args=compile_args,
        extra_link_args=link_args,
        define_macros=macros,
        depends=[str(header) for header in Path("fastscp_ext").rglob("*.h")],
    )
    for path in modules
]

setup(ext_modules=cythonize(extensions, compiler_directives=directives, build_dir="build"))
