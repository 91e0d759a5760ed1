"""Fuzz the codec: `python -m tests.fuzz --help`."""

from __future__ import annotations

import argparse
import re
import shutil
import sys
import tempfile
from pathlib import Path

from tests.fuzz import coverage, seeds
from tests.fuzz.build import CODEC, Build, build, missing

# What no input may cost: one block of memory, and all of it. The sanitizer keeps up to 256 MiB of
# freed memory back.
MALLOC_LIMIT_MB = 64
RSS_LIMIT_MB = 2048


def limits(seed: int, dictionary: Path) -> list[str]:
    return [
        f"-seed={seed}", f"-dict={dictionary}", "-max_len=8192", "-timeout=20", "-reload=0",
        f"-malloc_limit_mb={MALLOC_LIMIT_MB}", f"-rss_limit_mb={RSS_LIMIT_MB}",
        "-print_final_stats=1",
    ]  # fmt: skip


def begin(folder: Path, count: int) -> tuple[Path, Path]:
    """Seeds and dictionary, written to `folder`."""
    corpus = folder / "corpus"
    seeds.write(corpus, count)
    dictionary = folder / "dictionary"
    dictionary.write_text(seeds.dictionary())
    return corpus, dictionary


def figures(output: str) -> dict[str, str]:
    """libFuzzer's closing figures: runs, edges it counts, resident memory."""
    found = dict(re.findall(r"^stat::(\w+):\s+(\d+)", output, re.MULTILINE))
    last = re.findall(r"\bcov: (\d+)", output)
    if last:
        found["edges_of_the_whole_build"] = last[-1]
    return found


def fuzz(built: Build, options: argparse.Namespace, folder: Path) -> int:
    corpus, dictionary = begin(folder, options.seeds)
    end = f"-runs={options.runs}" if options.runs else f"-max_total_time={options.minutes * 60:.0f}"
    ran = built.run(
        *limits(options.seed, dictionary), end, str(corpus), FUZZ_TARGETS=options.targets
    )
    if ran.status != 0:
        print(re.sub(r"^#\d+\t.*\n", "", ran.output, flags=re.MULTILINE))
        for found in built.folder.glob("*-" + "[0-9a-f]" * 40):
            print("kept as", shutil.copy(found, tempfile.gettempdir()))
        return 1
    for name, value in figures(ran.output).items():
        print(f"{name}: {value}")
    print("clean")
    if options.keep is not None:
        shutil.copytree(corpus, options.keep, dirs_exist_ok=True)
    return 0


def cover(options: argparse.Namespace, folder: Path) -> int:
    corpus, _ = begin(folder, options.seeds)
    if options.keep is not None and options.keep.is_dir():
        shutil.copytree(options.keep, corpus, dirs_exist_ok=True)
    modules = CODEC if options.codec_only else None
    parts = coverage.measure(build(folder / "build", modules=modules, coverage=True), corpus)
    print(coverage.table(parts))
    if options.missed:
        for name, part in parts.items():
            for edge in part.missed():
                print(f"{name}: {edge}")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10, help="how long (default: 10)")
    parser.add_argument("--runs", type=int, default=0, help="how many inputs instead")
    parser.add_argument("--seed", type=int, default=1, help="of libFuzzer (default: 1)")
    parser.add_argument("--seeds", type=int, default=4000, help="inputs generated to begin with")
    parser.add_argument("--keep", type=Path, help="a folder for the corpus found, or to start from")
    parser.add_argument("--codec-only", action="store_true", help="leave the receiver out: faster")
    parser.add_argument("--targets", default="", help="pass over all others: head,sender")
    parser.add_argument("--coverage", action="store_true", help="print the edges reached instead")
    parser.add_argument("--missed", action="store_true", help="with --coverage: name the others")
    parser.add_argument(
        "--repeat", type=Path, help="run one input that was found, and nothing else"
    )
    options = parser.parse_args()
    why = missing()
    if why:
        print(f"cannot fuzz here: {why}", file=sys.stderr)
        return 3
    with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
        folder = Path(name)
        if options.coverage:
            return cover(options, folder)
        built = build(folder / "build", modules=CODEC if options.codec_only else None)
        if options.repeat is not None:
            ran = built.run(str(options.repeat.resolve()))
            print(ran.output)
            return int(ran.status != 0)
        return fuzz(built, options, folder)


if __name__ == "__main__":
    sys.exit(main())
