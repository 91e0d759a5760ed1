"""What the command lines share: how their words are read, what they name, and what is set up."""

from __future__ import annotations

import argparse
import contextlib
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from bench.accounting import Accounting
from bench.variants import variant
from bench.workloads import SIZES, Material

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from bench.receiver import Receiver


def listed(known: Callable[[str], bool], what: str) -> Callable[[str], list[str]]:
    """A reader of lists with commas; names what is not known."""

    def read(text: str) -> list[str]:
        names = [name.strip() for name in text.split(",") if name.strip()]
        for name in names:
            if not known(name):
                raise argparse.ArgumentTypeError(f"no {what} {name!r}")
        if not names:
            raise argparse.ArgumentTypeError(f"no {what} named")
        return names

    return read


def our_variant(text: str) -> Receiver:
    """Our receiver in another way: see variants.py."""
    try:
        return variant(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def add_variant(made: argparse.ArgumentParser, more: str) -> None:
    """The option for `our_variant`. more: for its help."""
    made.add_argument(
        "--variant",
        type=our_variant,
        action="append",
        default=[],
        metavar="NAME=[@CHECKOUT] [FLAGS]",
        help=f"fastscp with these flags, out of this checkout; repeatable{more}",
    )


def positive(text: str) -> int:
    """A number above 0."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return int(text)


def span_s(text: str) -> float:
    """A time in seconds, up to a day."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 86400:
        raise argparse.ArgumentTypeError(f"{text!r} is no time in seconds")
    return value


def counts(text: str) -> dict[str, int]:
    """Sizes and instances: 3KB=60000,34KB=30000."""
    found = {}
    for pair in text.split(","):
        name, _, count = pair.partition("=")
        if name not in SIZES:
            raise argparse.ArgumentTypeError(f"no size {name!r}")
        found[name] = positive(count)
    return found


def existing_folder(text: str) -> Path:
    """A folder that is there."""
    path = Path(text).resolve()
    if not path.is_dir():
        raise argparse.ArgumentTypeError(f"{text} is no folder")
    return path


def default_folder() -> Path:
    """Memory, where there is some: what is compared is receivers, not disks."""
    memory = Path("/dev/shm")
    return memory if os.access(memory, os.W_OK) else Path(tempfile.gettempdir())


def check_out(out: Path) -> None:
    """Raises OSError where the results could not be written: not after an hour."""
    if not os.access(out.parent, os.W_OK):
        raise OSError(f"cannot write to {out.parent}: name another file (--out)")


@contextlib.contextmanager
def set_up(options: argparse.Namespace) -> Iterator[tuple[Path, Path, Material]]:
    """Folders below --folder and --disk, removed at the end, and what is to be sent."""
    place = options.folder or default_folder()
    with contextlib.ExitStack() as undo:
        folder, disk = (
            Path(undo.enter_context(tempfile.TemporaryDirectory(prefix="bench-", dir=where)))
            for where in (place, options.disk)
        )
        yield folder, disk, undo.enter_context(Material(folder / "material"))


def accounting() -> str:
    """How CPU time is counted here."""
    with Accounting() as books:
        return books.kind


def look_for(wanted: Iterable[Receiver]) -> tuple[list[tuple[Receiver, str]], dict[str, str]]:
    """Those that are here with their versions, and those that are absent with reasons."""
    here, absent = [], {}
    for one in wanted:
        presence = one.find()
        if presence.version is not None:
            here.append((one, presence.version))
        else:
            absent[one.name] = presence.reason
    return here, absent


def described(one: Receiver, version: str) -> dict[str, object]:
    """What the JSON says of a receiver."""
    return {
        "label": one.label,
        "version": version,
        "durability": one.durability,
        "shape": one.shape,
        "command": one.command_line(),
        "compared": "by value" if one.rewrites else "byte for byte" if one.stores else "nothing",
    }
