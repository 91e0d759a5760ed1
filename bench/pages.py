"""What open pages cost the main process, as a share of one processor.

    python -m bench.pages [--pages N,...] [--associations N] [--seconds S]

A service with some associations that send now and then; each page is a connection that reads what
it is told. Prints a line for each number of pages.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fastscp.scu import associate

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT: Final = Path(__file__).resolve().parents[1]
_TICKS: Final = os.sysconf("SC_CLK_TCK")
# How long everything may take to come up, and rests before a measurement.
_UP_S: Final = 60.0
_SETTLE_S: Final = 5.0
_VERIFICATION: Final = [("Verification", ["ImplicitVRLittleEndian"])]


def used(pid: int) -> float:
    """Processor time of a process by now, seconds; see proc(5)."""
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def up(log: Path) -> tuple[int, str, int]:
    """The port of the service, and where its page is, once both are there."""
    end = time.monotonic() + _UP_S
    said = r"listening on \S+:(\d+)\n.*http://(\S+):(\d+)/metrics"
    while not (found := re.search(said, log.read_text("utf-8"), re.DOTALL)):
        if time.monotonic() > end:
            raise SystemExit("the service does not come up")
        time.sleep(0.05)
    return int(found[1]), found[2], int(found[3])


async def look(host: str, port: int, read: list[int]) -> None:
    """A page: read what it is told, for ever. read: bytes, and messages, of all of them."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(b"GET /events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        while data := await reader.read(1 << 16):
            read[0] += len(data)
            read[1] += data.count(b"\n\n")
    finally:
        writer.close()


async def ask_now_and_then(port: int, number: int) -> None:
    async with associate(
        "127.0.0.1", port, _VERIFICATION, called_ae="FASTSCP", calling_ae=f"PAGES{number}"
    ) as one:
        while True:
            await one.echo()
            await asyncio.sleep(1.0)


async def measure(options: argparse.Namespace, pid: int, log: Path) -> None:
    port, host, admin = up(log)
    asked = [asyncio.ensure_future(ask_now_and_then(port, n)) for n in range(options.associations)]
    before = None
    for wanted in options.pages:
        read = [0, 0]
        pages = [asyncio.ensure_future(look(host, admin, read)) for _ in range(wanted)]
        await asyncio.sleep(_SETTLE_S)
        began, read[:] = used(pid), [0, 0]
        await asyncio.sleep(options.seconds)
        share = (used(pid) - began) / options.seconds
        before = share if before is None else before
        print(
            f"{wanted:4d} pages: {share:7.2%} of a processor, {share - before:+7.2%} against "
            f"{options.pages[0]} pages; {read[1]} messages, {read[0] / 1e6:.1f} MB read",
            flush=True,
        )
        for task in pages:
            task.cancel()
        await asyncio.gather(*pages, return_exceptions=True)
    for task in asked:
        task.cancel()
    await asyncio.gather(*asked, return_exceptions=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0 once all is measured."""
    parser = argparse.ArgumentParser(prog="python -m bench.pages", description=__doc__)
    parser.add_argument(
        "--pages", type=lambda text: [int(one) for one in text.split(",")], default=[0, 1, 100],
        metavar="N,...", help="pages at a time (0,1,100)",
    )  # fmt: skip
    parser.add_argument(
        "--associations", type=int, default=20, metavar="N", help="C-ECHO a second each (20)"
    )
    parser.add_argument("--seconds", type=float, default=30.0, metavar="S", help="of each (30)")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="pages-") as folder:
        log = Path(folder, "log")
        with log.open("wb") as stderr:
            process = subprocess.Popen(
                [
                    sys.executable, "-m", "fastscp", "serve", "--host", "127.0.0.1", "--port", "0",
                    "--store", Path(folder, "store"), "--admin", "127.0.0.1:0",
                    "--min-free-space", "1 MiB",
                ],
                stderr=stderr, env={**os.environ, "PYTHONPATH": str(ROOT)},
            )  # fmt: skip
        try:
            asyncio.run(measure(options, process.pid, log))
        finally:
            process.terminate()
            process.wait(_UP_S)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
