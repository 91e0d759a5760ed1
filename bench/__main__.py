"""The benchmark's command line: python -m bench run | render | tools"""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bench import machine, programs, render, results, tools
from bench.arguments import (
    accounting,
    add_variant,
    check_out,
    counts,
    described,
    existing_folder,
    listed,
    look_for,
    positive,
    set_up,
    span_s,
)
from bench.measure import Bench
from bench.programs import Absent
from bench.receivers import receiver, receivers
from bench.scenarios import SCENARIOS, named
from bench.senders import FILE_SENDERS
from bench.warmth import spare_bytes, warm
from bench.workloads import IMAGES, MIX, SIZES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bench.receiver import Receiver

QUICK_RECEIVERS = ("fastscp-buffered", "storescp-best", "floor")
QUICK_SIZES = ("3KB", "34KB", "525KB")


def parser() -> argparse.ArgumentParser:
    """Of the whole command line."""
    names = {one.name for one in receivers()}
    made = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    commands = made.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="measure; writes JSON")
    run.add_argument(
        "--scenario",
        type=listed({*SCENARIOS, "all"}.__contains__, "scenario"),
        default=["matrix"],
        metavar="NAME,...",
        help=f"all, or of: {', '.join(SCENARIOS)} (matrix)",
    )
    run.add_argument(
        "--receivers",
        type=listed(names.__contains__, "receiver"),
        metavar="NAME,...",
        help="those of `python -m bench tools` (all that are here)",
    )
    add_variant(run, ", before --receivers")
    run.add_argument(
        "--sizes",
        type=listed(SIZES.__contains__, "size"),
        metavar="SIZE,...",
        help=f"of: {', '.join(SIZES)} (all)",
    )
    run.add_argument("--rounds", type=positive, metavar="N", help="(5; 1 with --quick)")
    run.add_argument("--quick", action="store_true", help="a few small cells, under two minutes")
    run.add_argument(
        "--folder",
        type=existing_folder,
        metavar="DIR",
        help="for stores and files (/dev/shm, if there)",
    )
    run.add_argument(
        "--disk",
        type=existing_folder,
        metavar="DIR",
        help="for stores of the scenario flush (temporary)",
    )
    run.add_argument(
        "--seconds", type=span_s, metavar="S", help="of a run, about (3; 0.5 with --quick)"
    )
    run.add_argument(
        "--budget", type=positive, metavar="MIB", help="data sent in a run (1024; 64 with --quick)"
    )
    run.add_argument(
        "--counts",
        type=counts,
        default={},
        metavar="SIZE=N,...",
        help="files of a run in the scenarios targets and send",
    )
    run.add_argument(
        "--instances", type=positive, default=1_000_000, metavar="N", help="growth (1000000)"
    )
    run.add_argument("--idle", type=positive, metavar="N", help="(2000; 50 with --quick)")
    run.add_argument(
        "--minutes", type=positive, metavar="N", help="soak (30; with --quick seconds)"
    )
    run.add_argument("--out", type=Path, required=True, metavar="FILE.json")
    show = commands.add_parser("render", help="write Markdown, and SVG with matplotlib")
    show.add_argument("results", type=Path, metavar="RESULTS.json")
    show.add_argument("--into", type=Path, required=True, metavar="DIR")
    commands.add_parser("tools", add_help=False, help="which receivers are here; --install")
    return made


def _sender_versions() -> dict[str, str]:
    found = {}
    for one in FILE_SENDERS:
        try:
            found[one.name] = one.version()
        except Absent as absent:
            found[one.name] = str(absent)
    return found


def _wanted(options: argparse.Namespace) -> list[Receiver]:
    if options.receivers or options.variant:
        return [*options.variant, *(receiver(name) for name in options.receivers or [])]
    return [one for one in receivers() if not options.quick or one.name in QUICK_RECEIVERS]


@contextlib.contextmanager
def _bench(options: argparse.Namespace) -> Iterator[Bench]:
    """All set up, below folders that are removed at the end."""
    quick = options.quick
    here, absent = look_for(_wanted(options))
    if not here:
        raise Absent("; ".join(f"{name}: {reason}" for name, reason in absent.items()))
    with contextlib.ExitStack() as undo:
        folder, disk, material = undo.enter_context(set_up(options))
        kept = undo.enter_context(warm(0 if quick else spare_bytes()))
        made = Bench(
            folder=folder,
            disk=disk,
            material=material,
            results=results.Results(options.out, {}),
            receivers=[one for one, _ in here],
            sizes=options.sizes or (QUICK_SIZES if quick else SIZES),
            rounds=options.rounds or (1 if quick else 5),
            seconds=options.seconds or (0.5 if quick else 3.0),
            budget=(options.budget or (64 if quick else 1024)) << 20,
            counts=options.counts,
            instances=options.instances,
            idle=options.idle or (50 if quick else 2000),
            minutes=options.minutes or (2 if quick else 30),
            quick=quick,
        )
        made.results.about = {
            "machine": machine.about(folder, disk) | {"kept_warm_bytes": kept},
            "accounting": accounting(),
            "options": _options(made),
            "receivers": {one.name: described(one, version) for one, version in here},
            "absent": absent,
            "senders": _sender_versions(),
            "sizes": {name: material.workload(name).size for name in _sizes(made)},
        }
        yield made


def _options(bench: Bench) -> dict[str, object]:
    return {
        "sizes": list(bench.sizes),
        "rounds": bench.rounds,
        "seconds": bench.seconds,
        "budget_bytes": bench.budget,
        "counts": bench.counts,
        "instances": bench.instances,
        "idle": bench.idle,
        "minutes": bench.minutes,
        "quick": bench.quick,
    }


def _sizes(bench: Bench) -> list[str]:
    """Templates of this run, and the mix; the big ones take long to make."""
    small = [name for name in IMAGES if IMAGES[name].pixel_bytes < 2_000_000 and name not in MIX]
    return list(dict.fromkeys([*small, *bench.sizes, *["mix"] * (not bench.quick)]))


def run(options: argparse.Namespace) -> int:
    """Exit code 1 if a cell has no figures, or not those of all rounds."""
    try:
        check_out(options.out)
        # Senders and peers of the scenarios need it, too, whatever the receivers are.
        programs.fastscp_version()
        with _bench(options) as bench:
            for name in named(options.scenario):
                SCENARIOS[name](bench)
            bench.results.save()
            failed = [cell for cell in bench.results.cells if cell.error]
    except (Absent, OSError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    for cell in failed:
        where = ", ".join(str(value) for value in cell.point.values())
        print(f"bench: {cell.scenario}, {where}: {cell.receiver}: {cell.error}", file=sys.stderr)
    return 1 if failed else 0


def show(options: argparse.Namespace) -> int:
    """Exit code 2 if the file is not ours."""
    try:
        files = render.write(results.read(options.results), options.into)
    except results.ResultsError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    print(*files, sep="\n")
    if len(files) == 1:
        print("no plots: matplotlib is not installed (pip install .[bench]), or nothing to plot")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ["tools"]:
        return tools.main(words[1:])
    options = parser().parse_args(words)
    # Receivers live in sessions of their own: they end only if this does so in order.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    return run(options) if options.command == "run" else show(options)


if __name__ == "__main__":
    raise SystemExit(main())
