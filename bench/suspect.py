"""Duplicates on a suspect store: python -m bench.suspect [--lines N] [--duplicates N] [--tree DIR]

A buffered receiver stores instances, and its journal gets lines of others that were stored before;
then the mark of an unclean end is left. After that each instance comes again as it was, and again
with other bytes (`--on-duplicate keep`), which makes the receiver look for its line. Rates are
instances per second over all associations, times are those of a response. --tree: the checkout, as
built, whose receiver is measured.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import re
import signal
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from bench import programs

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROOT = Path(__file__).resolve().parent.parent
CT, EXPLICIT = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.1"
STUDY, SERIES = "1.2.3.4.5.6.7", "1.2.3.4.5.6.7.8"
PIXELS = 32 * 1024
SEGMENT_BYTES = 64 << 20
LISTENING = re.compile(r"^listening on \S+:(\d+)$", re.MULTILINE)
START_S = 120.0


def sop(number: int) -> str:
    return f"{SERIES}.{100_000_000 + number}"


def _element(group: int, element: int, vr: bytes, value: bytes) -> bytes:
    long = vr == b"OW"
    length = struct.pack("<2xI" if long else "<H", len(value) + len(value) % 2)
    return struct.pack("<HH", group, element) + vr + length + value + bytes(len(value) % 2)


def data_set(number: int, filling: int) -> bytes:
    return b"".join((
        _element(0x0008, 0x0016, b"UI", CT.encode()),
        _element(0x0008, 0x0018, b"UI", sop(number).encode()),
        _element(0x0020, 0x000D, b"UI", STUDY.encode()),
        _element(0x0020, 0x000E, b"UI", SERIES.encode()),
        _element(0x7FE0, 0x0010, b"OW", bytes([filling]) * PIXELS),
    ))  # fmt: skip


@contextlib.contextmanager
def receiver(tree: Path, folder: Path) -> Iterator[tuple[int, Path]]:
    """A receiver on `folder/store`: its port and its log. Raises RuntimeError."""
    log = folder / "log"
    words = ["--host", "127.0.0.1", "--port", "0", "--store", str(folder / "store")]
    words += ["--durability", "buffered", "--on-duplicate", "keep", "--workers", "2"]
    words += ["--min-free-space", "0"]
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "fastscp", "serve", *words],
            cwd=folder, stdin=subprocess.DEVNULL, stdout=file, stderr=file,
            env={**os.environ, "PYTHONPATH": str(tree)},
        )  # fmt: skip
    try:
        deadline = time.monotonic() + START_S
        while not (found := LISTENING.search(log.read_text("utf-8"))):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the receiver did not start:\n{log.read_text('utf-8')}")
            time.sleep(0.01)
        yield int(found[1]), log
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


async def send(port: int, numbers: Sequence[int], filling: int, associations: int) -> list[float]:
    """Send instances; returns the seconds that each response took. Raises RuntimeError."""
    from fastscp.scu import associate

    took: list[float] = []

    async def share(mine: Sequence[int]) -> None:
        contexts = [(CT, [EXPLICIT])]
        async with await associate("127.0.0.1", port, contexts) as association:
            (context_id,) = association.contexts
            for number in mine:
                data = data_set(number, filling)
                began = time.perf_counter()
                response = await association.store(
                    data, context_id=context_id, sop_class=CT, sop_instance=sop(number)
                )
                took.append(time.perf_counter() - began)
                if response.status not in (0x0000, 0xB006):
                    raise RuntimeError(f"answered {response.status:04X}")

    await asyncio.gather(*(share(numbers[k::associations]) for k in range(associations)))
    return took


def fill_journal(store: Path, lines: int, first: int) -> None:
    """Add lines of instances that are not there, as many as are missing."""
    from fastscp.store.journal import append_fact, parse_line

    journal = store / ".fastscp/journal"
    text = b"".join(path.read_bytes() for path in sorted(journal.iterdir()))
    known = [fact for fact in map(parse_line, text.splitlines()) if fact is not None]
    model, path, file, size = known[0], known[0]["path"], 0, SEGMENT_BYTES
    fd = -1
    for number in range(len(known), lines):
        if size >= SEGMENT_BYTES:
            file, size = file + 1, 0
            if fd >= 0:
                os.close(fd)
            name = journal / f"0-bench-{file}.jsonl"
            fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
        other = sop(first + number)
        fact = model | {
            "seq": number + 1,
            "sop_instance_uid": other,
            "path": f"{path.rpartition('/')[0]}/{other}.dcm",
        }
        del fact["crc"]
        size += append_fact(fd, fact)
    if fd >= 0:
        os.close(fd)


def main() -> None:
    made = argparse.ArgumentParser(prog="python -m bench.suspect", description=__doc__)
    made.add_argument("--lines", type=int, default=200_000, metavar="N")
    made.add_argument("--duplicates", type=int, default=1000, metavar="N")
    made.add_argument("--different", type=int, default=0, metavar="N", help="(as --duplicates)")
    made.add_argument("--associations", type=int, default=4, metavar="N")
    made.add_argument("--folder", type=Path, metavar="DIR")
    made.add_argument("--tree", type=Path, default=ROOT, metavar="DIR")
    options = made.parse_args()
    try:
        programs.fastscp_version()
    except programs.Absent as absent:
        made.exit(2, f"bench: {absent}\n")
    numbers = range(options.duplicates)
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        with receiver(options.tree, folder) as (port, _log):
            asyncio.run(send(port, numbers, 0, options.associations))
        fill_journal(folder / "store", options.lines, options.duplicates)
        (folder / "store/.fastscp/suspect").touch()
        figures: dict[str, object] = {"lines": options.lines, "associations": options.associations}
        with receiver(options.tree, folder) as (port, log):
            for what, filling, count in (
                ("identical", 0, options.duplicates),
                ("different", 1, options.different or options.duplicates),
            ):
                began = time.perf_counter()
                took = sorted(
                    asyncio.run(send(port, numbers[:count], filling, options.associations))
                )
                figures[what] = {
                    "rate": round(count / (time.perf_counter() - began), 1),
                    "p50_ms": round(took[len(took) // 2] * 1000, 2),
                    "p99_ms": round(took[len(took) * 99 // 100] * 1000, 2),
                    "most_ms": round(took[-1] * 1000, 2),
                }
        built = re.search(r"index of the journal is built: .*", log.read_text("utf-8"))
        figures["index"] = built[0] if built else "none"
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
