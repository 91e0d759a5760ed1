"""What a commit costs on disks whose device flushes are counted: python -m bench.flush

Each variant of our receiver, and each peer, on a fresh file system per run. The slow disks' flushes
take --delay-us; loop-ext4 and its like pass flushes on to the disk that --disk is on. Takes root.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bench import machine, programs, results
from bench.arguments import (
    accounting,
    add_variant,
    check_out,
    described,
    existing_folder,
    listed,
    look_for,
    our_variant,
    positive,
    set_up,
    span_s,
)
from bench.flush.commits import DISKS, SIZES, Places, commits
from bench.flush.mounts import keep_to_ourselves
from bench.flush.table import markdown
from bench.measure import Bench
from bench.programs import Absent
from bench.receivers import receiver, receivers

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


def _numbers(text: str) -> list[int]:
    return [positive(word) for word in text.split(",")]


def parser() -> argparse.ArgumentParser:
    """Of the command line."""
    names = {one.name for one in receivers()}
    made = argparse.ArgumentParser(
        prog="python -m bench.flush",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument(
        "--disks",
        type=listed(DISKS.__contains__, "disk"),
        default=["ext4", "xfs", "loop-ext4"],
        metavar="NAME,...",
        help=f"of: {', '.join(DISKS)} (ext4,xfs,loop-ext4)",
    )
    made.add_argument("--delay-us", type=positive, default=1000, metavar="N", help="(1000)")
    made.add_argument(
        "--sizes",
        type=listed(SIZES.__contains__, "size"),
        default=["3KB", "34KB"],
        metavar="SIZE,...",
        help=f"of: {', '.join(SIZES)} (3KB,34KB)",
    )
    made.add_argument("--associations", type=_numbers, default=[1, 8, 64], metavar="N,...")
    made.add_argument("--workers", type=_numbers, default=[1], metavar="N,...")
    add_variant(made, "; the first is what the others are ratios to (`fastscp=`)")
    made.add_argument(
        "--receivers",
        type=listed(names.__contains__, "receiver"),
        default=[],
        metavar="NAME,...",
        help="others, such as storescp-best, which flushes nothing",
    )
    made.add_argument("--rounds", type=positive, default=3, metavar="N", help="(3)")
    made.add_argument("--seconds", type=span_s, default=2.0, metavar="S", help="of a run (2)")
    made.add_argument(
        "--folder", type=existing_folder, metavar="DIR", help="for images of slow disks (/dev/shm)"
    )
    made.add_argument(
        "--disk", type=existing_folder, metavar="DIR", help="for the image of loop-* (temporary)"
    )
    made.add_argument("--out", type=Path, metavar="FILE.json")
    return made


@contextlib.contextmanager
def _bench(options: argparse.Namespace) -> Iterator[tuple[Bench, Places]]:
    wanted = [*(options.variant or [our_variant("fastscp=")]), *map(receiver, options.receivers)]
    here, absent = look_for(wanted)
    if absent:
        raise Absent("; ".join(f"{name}: {reason}" for name, reason in absent.items()))
    with contextlib.ExitStack() as undo:
        folder, disk, material = undo.enter_context(set_up(options))
        places = undo.enter_context(Places(folder, disk, options.delay_us))
        about = {
            "machine": machine.about(folder, disk),
            "accounting": accounting(),
            "options": {"delay_us": options.delay_us, "seconds": options.seconds},
            "receivers": {one.name: described(one, version) for one, version in here},
            "sizes": {name: material.workload(name).size for name in options.sizes},
        }
        out = options.out or folder / "results.json"
        yield (
            Bench(
                folder=folder,
                disk=disk,
                material=material,
                results=results.Results(out, about),
                receivers=[one for one, _ in here],
                sizes=options.sizes,
                rounds=options.rounds,
                seconds=options.seconds,
            ),
            places,
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 1 if a cell has no figures, 2 if nothing could begin."""
    options = parser().parse_args(arguments)
    keep_to_ourselves()
    # Receivers end only if this does so in order.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        if options.out is not None:
            check_out(options.out)
        programs.fastscp_version()
        with _bench(options) as (bench, places):
            commits(bench, places, options.disks, options.associations, options.workers)
            document = results.read(bench.results.path)
    except (Absent, OSError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    print(markdown(document))
    return 1 if any(cell["error"] for cell in document["cells"]) else 0


if __name__ == "__main__":
    raise SystemExit(main())
