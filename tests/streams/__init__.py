"""Byte streams of the wire: our own, written out, and those of ../shared/vectors where it is there.

Our own have names that begin with `own/`. They show what the others show, so nothing that is tested
depends on ../shared; its recorded streams add what other makes of software really send.
"""

from __future__ import annotations

import json
from copy import deepcopy
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any, Final

from tests.streams.harmless import HARMLESS
from tests.streams.malformed import MALFORMED

__all__ = ["first_pdu", "names", "read", "told"]

VECTORS: Final = Path(__file__).resolve().parents[2] / ".." / "shared" / "vectors"

_OWN: Final = {f"own/{name}": sent for name, (sent, _told) in HARMLESS.items()} | {
    f"own/bad_{name}.c2s": sent for name, sent in MALFORMED.items()
}
_SUFFIX: Final = ".bin"


@cache
def _shared() -> dict[str, Path]:
    return {
        str(path.relative_to(VECTORS)).removesuffix(_SUFFIX): path
        for path in sorted(VECTORS.glob(f"*/*{_SUFFIX}"))
    }


def names(*patterns: str) -> list[str]:
    """The streams whose names fit one of the shell patterns, our own first.

    A name is `own/NAME.c2s` (what a client sends), `own/NAME.s2c` (what it is answered), or that of
    a file below ../shared/vectors without its suffix.
    """
    every = [*_OWN, *_shared()]
    return [name for name in every if any(fnmatchcase(name, one) for one in patterns)]


def read(name: str) -> bytes:
    """The bytes of a stream."""
    return _OWN[name] if name in _OWN else _shared()[name].read_bytes()


def first_pdu(name: str) -> bytes:
    """The first PDU of a stream, or what is there of it."""
    sent = read(name)
    return sent[: 6 + int.from_bytes(sent[2:6], "big")]


@cache
def _told() -> dict[str, dict[str, Any]]:
    own = {f"own/{name}": told for name, (_sent, told) in HARMLESS.items()}
    if not _shared():
        return own
    files: dict[str, dict[str, Any]] = json.loads((VECTORS / "expect.json").read_text())["files"]
    theirs = {name.removesuffix(_SUFFIX): told for name, told in files.items()}
    return own | {name: told for name, told in theirs.items() if "pdus" in told}


def told() -> dict[str, dict[str, Any]]:
    """What is in each stream that is not malformed, as ../shared/vectors/expect.json tells it.

    `pdus`: kinds and lengths. `rq` or `ac`: what the first PDU says. `messages`: of each its
    presentation context (`pc`), its command set, and length and SHA-256 of its data set.
    """
    return deepcopy(_told())
