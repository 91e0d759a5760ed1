"""How much of the codec a corpus reaches, from clang's source coverage of the generated C.

An edge is one outcome, true or false, of one condition. Counted are the conditions of the functions
Cython made of the `cdef` functions of the codec. Left out are those Cython adds on its own: checks
whether a Python call failed (they end in `__PYX_ERR` or unpack a sequence) and the two ways through
a loop over a Python sequence or a method call. A function of cursor.pxd or vr.pxd is compiled into
every module that uses it; it counts once, with the outcomes of all its copies.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fuzz.build import Build

__all__ = ["PARTS", "Part", "measure", "table"]

# What the requirement names, and what else reads received bytes. `pdu` is its decoders.
PARTS: Final = (
    "cursor",
    "framing",
    "pdu",
    "command",
    "tap",
    "tap_doubt",
    "tap_forks",
    "tap_headers",
    "tap_items",
    "tap_levels",
    "tap_parse",
    "tap_read",
    "tap_tags",
    "tap_values",
    "vr",
    "part10",
    "layout",
    "uid",
    "proxy",
    "record",
    "head",
    "judgement",
    "sender",
    "receiver",
    "instance",
    "secure",
)
# Each part of a dotted name stands behind its length.
_FUNCTION: Final = re.compile(r"(?:[\w.]+:)?__pyx_f_11fastscp_ext_(\d+\w+)")
_PLACE: Final = re.compile(r' ?/\* "fastscp_ext/(?:\w+/)?(\w+\.p[yx][xd])":(\d+)')
_GLUE: Final = re.compile(
    r"__PYX_ERR|__Pyx_Raise(TooMany|NeedMore)|__pyx_temp\) break;|exc_type|PyMethod_Check|CYTHON_"
    r"|__pyx_optional_args"
)
# Where the methods of a class do the reading, and count as well.
_METHODS: Final = frozenset({"proxy", "secure", "sender"})
_ENCODERS: Final = re.compile(
    r"_?(encode_|number|fixed|text|counted|item_bytes|pdu_bytes|uid_item)"
)


@dataclass
class Part:
    """The edges of one part: (file and line, ordinal there, outcome) to whether it was taken."""

    edges: dict[tuple[str, int, bool], bool] = field(default_factory=dict)

    @property
    def reached(self) -> int:
        return sum(self.edges.values())

    @property
    def share(self) -> float:
        return self.reached / len(self.edges) if self.edges else 0.0

    def missed(self) -> list[str]:
        return sorted(
            f"{place} {'true' if outcome else 'false'}"
            for (place, _, outcome), reached in self.edges.items() if not reached
        )  # fmt: skip


def tool(name: str) -> str:
    for candidate in (name, f"{name}-14"):
        if shutil.which(candidate):
            return candidate
    raise RuntimeError(f"{name} is not installed")


def measure(built: Build, corpus: Path) -> dict[str, Part]:
    """Run the corpus through a coverage build."""
    raw = built.folder / "raw"
    ran = built.run(
        "-runs=0", "-max_len=2000000", str(corpus), LLVM_PROFILE_FILE=f"{raw}/%m.profraw"
    )
    if ran.status != 0:
        raise RuntimeError(ran.output[-4000:])
    profile = built.folder / "profile"
    profiles = [str(path) for path in raw.iterdir()]
    subprocess.run([tool("llvm-profdata"), "merge", "-o", profile, *profiles], check=True)
    parts = {name: Part() for name in PARTS}
    for module in sorted((built.folder / "fastscp_ext").rglob("*.so")):
        name = module.name.split(".")[0]
        place = module.parent.relative_to(built.folder)
        source = built.folder / "build" / place / f"{name}.c"
        exported = subprocess.run(
            [
                tool("llvm-cov"), "export", "-format=text", "-skip-expansions",
                f"-instr-profile={profile}", str(module), str(source),
            ],
            check=True, capture_output=True, cwd=built.folder,
        )  # fmt: skip
        add(parts, json.loads(exported.stdout), source)
    return parts


def add(parts: dict[str, Part], exported: dict[str, list[dict[str, object]]], source: Path) -> None:
    lines = source.read_text().split("\n")
    for function in exported["data"][0]["functions"]:  # type: ignore[attr-defined]
        found = _FUNCTION.fullmatch(function["name"])
        if found is None:
            continue
        module, name = parted(found[1])
        if module not in parts or (module == "pdu" and _ENCODERS.match(name.lstrip("_"))):
            continue
        if module == "command" and _ENCODERS.match(name.lstrip("_")):
            continue
        ordinals: dict[str, int] = {}
        for line, _, _, _, taken, not_taken, in_macro, *_ in sorted(function["branches"]):
            if in_macro or _GLUE.search(lines[line - 1]):
                continue
            place = f"{name.lstrip('_')} {origin(lines, line)}"
            ordinal = ordinals[place] = ordinals.get(place, 0) + 1
            for outcome, count in ((True, taken), (False, not_taken)):
                edge = (place, ordinal, outcome)
                edges = parts[module].edges
                edges[edge] = edges.get(edge, False) or count > 0


def parted(mangled: str) -> tuple[str, str]:
    """The module and the function of a name as Cython makes it: 4wire_6cursor_take_u8."""
    module = ""
    while (part := re.match(r"(\d+)", mangled)) is not None:
        end = part.end() + int(part[1])
        if module in _METHODS:
            return module, mangled[end:].removeprefix("_")
        module, mangled = mangled[part.end() : end], mangled[end:].removeprefix("_")
    return module, mangled


def origin(lines: list[str], line: int) -> str:
    """The line of the .pyx that a line of the C was made of."""
    for above in range(line - 1, max(line - 400, 0), -1):
        found = _PLACE.match(lines[above].lstrip())
        if found is not None:
            return f"{found[1]}:{found[2]}"
    return "?"


def table(parts: dict[str, Part]) -> str:
    rows = ["| part | edges | reached | |", "| --- | ---: | ---: | ---: |"]
    for name, part in parts.items():
        rows.append(f"| {name} | {len(part.edges)} | {part.reached} | {part.share:.1%} |")
    return "\n".join(rows)
