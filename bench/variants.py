"""Our receiver with other flags, or out of another checkout: what a change is measured by.

    --variant on='--redo on' --variant before='@../before --durability buffered'

A variant is a receiver like the others: it has the flags of its text, and those of `fastscp` where
the text names none.
"""

from __future__ import annotations

import functools
import re
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from bench import machine, programs
from bench.receiver import ROOT, Receiver, Setup, Word
from bench.receivers import receiver

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+_-]*")
DEFAULTS = (("--durability", "stable"), ("--log-level", "warning"))


def variant(text: str) -> Receiver:
    """The receiver of `NAME=[@CHECKOUT] [FLAG ...]`. Raises ValueError, with what is wrong.

    CHECKOUT: the folder of another checkout, as built; its own interpreter runs it, if it has one.
    """
    name, equals, rest = text.partition("=")
    if not equals or not NAME.fullmatch(name):
        raise ValueError(f"{text!r} is no NAME=[@CHECKOUT] [FLAGS]")
    words = shlex.split(rest)
    tree = ROOT
    if words and words[0].startswith("@"):
        tree = Path(words.pop(0)[1:]).resolve()
        if not (tree / "fastscp/__main__.py").is_file():
            raise ValueError(f"{tree} is no checkout of fastscp")
    python = interpreter(tree)
    return replace(
        receiver("fastscp"),
        name=name,
        label=f"fastscp, {rest.strip() or 'at its defaults'}",
        durability="as its flags say",
        command=_serving(python, words),
        version=functools.partial(_version, tree, python),
        tree=tree,
    )


def interpreter(tree: Path) -> str:
    """What runs the program of a checkout."""
    own = tree / ".venv/bin/python"
    return str(own) if tree != ROOT and own.exists() else sys.executable


def _serving(python: str, flags: Sequence[str]) -> Callable[[Setup], Sequence[Word]]:
    def command(setup: Setup) -> Sequence[Word]:
        words: list[Word] = [python, "-m", "fastscp", "serve", "--host", "127.0.0.1"]
        words += ["--port", "0", "--store", setup.store]
        for flag, value in DEFAULTS:
            # It may be given once.
            if not any(word.partition("=")[0] == flag for word in flags):
                words += [flag, value]
        words += flags
        return words if setup.workers is None else [*words, "--workers", str(setup.workers)]

    return command


def _version(tree: Path, python: str) -> str:
    return f"{programs.fastscp_version(tree, python)} at {machine.commit(tree)}"
