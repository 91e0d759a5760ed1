"""The pictures of the README: the page in both themes, and top, of a service under a made-up load.

    python -m bench.pictures --into DIR [--seconds S] [--store DIR]

Needs Chromium, and playwright of the dependency group `test`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from rich.console import Console

from fastscp.cli.operate import service_of
from fastscp.cli.top_run import Watch
from fastscp.messages.control import GetOverview, Overview
from fastscp.scu import AssociationRejected, associate

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from playwright.sync_api import Browser

ROOT: Final = Path(__file__).resolve().parents[1]
TOKEN: Final = "a-token-for-pictures-alone"
CHROMIUM: Final = "/usr/bin/chromium"
# Width and height of the window, in CSS pixels.
WIDTH: Final = 1180
HEIGHT: Final = 940
# AE title, SOP class, bytes of pixel data, instances a second.
SENDERS: Final = (
    ("CT_ROOM_1", "CTImageStorage", 524288, 9.0),
    ("CT_ROOM_2", "CTImageStorage", 524288, 5.0),
    ("MR_NORTH", "MRImageStorage", 32768, 30.0),
    ("US_CARDIO", "UltrasoundImageStorage", 262144, 4.0),
    ("XA_THEATRE", "XRayAngiographicImageStorage", 131072, 7.0),
    ("ROUTER_EAST", "MRImageStorage", 32768, 18.0),
)
SETTINGS: Final = """
sop-classes = ["storage"]
[from.modalities]
who = ["CT_ROOM_1@*", "CT_ROOM_2@*", "MR_NORTH@*", "US_CARDIO@*", "XA_THEATRE@*"]
[from.router]
who = ["ROUTER_EAST@*", "ROUTER_WEST@*", "OLD_SCANNER@*"]
sop-classes = ["MRImageStorage", "CTImageStorage"]
"""
_SVG: Final = """<svg class="rich-terminal" viewBox="0 0 {width} {height}" width="{width}"
xmlns="http://www.w3.org/2000/svg"><style>
.{unique_id}-matrix {{ font-family: "DejaVu Sans Mono", monospace; font-size: {char_height}px;
line-height: {line_height}px; }}
{styles}</style><defs><clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/></clipPath>{lines}</defs>
{chrome}<g transform="translate({terminal_x}, {terminal_y})"
clip-path="url(#{unique_id}-clip-terminal)">{backgrounds}
<g class="{unique_id}-matrix">{matrix}</g></g></svg>"""


def image(sop_class: str, nbytes: int, study: str, series: str) -> Dataset:
    """An instance of nobody."""
    from pydicom import uid

    made = Dataset()
    made.SOPClassUID = getattr(uid, sop_class)
    made.SOPInstanceUID = generate_uid()
    made.StudyInstanceUID, made.SeriesInstanceUID = study, series
    made.Rows, made.Columns = 256, max(1, nbytes // 512)
    made.BitsAllocated = made.BitsStored = 16
    made.HighBit, made.PixelRepresentation, made.SamplesPerPixel = 15, 0, 1
    made.PhotometricInterpretation = "MONOCHROME2"
    made.PixelData = bytes(nbytes)
    made.ensure_file_meta()
    made.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    return made


async def sender(port: int, title: str, sop_class: str, nbytes: int, rate: float) -> None:
    """Send for ever, now and then in a new association, faster and slower."""
    rng = random.Random(title)
    contexts = [(sop_class, ["ExplicitVRLittleEndian"])]
    while True:
        study, series = generate_uid(), generate_uid()
        async with associate(
            "127.0.0.1", port, contexts, called_ae="FASTSCP", calling_ae=title
        ) as one:
            for number in range(rng.randrange(200, 900)):
                await one.store(image(sop_class, nbytes, study, series))
                pace = 1.0 if number // 60 % 3 else 2.5
                await asyncio.sleep(rng.expovariate(rate) * pace)


async def strangers(port: int) -> None:
    """Ask for what is refused."""
    asked = (
        ("WORKSTATION7", "CTImageStorage"), ("ROUTER_WEST", "EnhancedSRStorage"),
        ("OLD_SCANNER", "UltrasoundImageStorage"), ("WORKSTATION7", "CTImageStorage"),
    )  # fmt: skip
    while True:
        for title, sop_class in asked:
            contexts = [(sop_class, ["ExplicitVRLittleEndian"])]
            with contextlib.suppress(AssociationRejected):
                async with associate(
                    "127.0.0.1", port, contexts, called_ae="FASTSCP", calling_ae=title
                ):
                    pass
            await asyncio.sleep(4.0)


@contextlib.contextmanager
def service(folder: Path, store: Path) -> Iterator[tuple[int, str]]:
    """A service that has its files in a folder: its port, and the address of its page."""
    (folder / "token").write_text(TOKEN, "ascii")
    (folder / "token").chmod(0o600)
    (folder / "site.toml").write_text(SETTINGS, "utf-8")
    log = folder / "log"
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [
                sys.executable, "-m", "fastscp", "serve", "--host", "127.0.0.1", "--port", "0",
                "--store", store, "--workers", "2", "--config", folder / "site.toml",
                "--admin", "127.0.0.1:0", "--admin-token-file", folder / "token",
                "--min-free-space", "1 MiB",
            ],
            cwd=folder, stderr=stderr, env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
    try:
        end = time.monotonic() + 60
        while not (
            found := re.search(
                r"listening on \S+:(\d+)\n.*http://(\S+)/metrics", log.read_text("utf-8"), re.DOTALL
            )
        ):
            if process.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"the service does not come up:\n{log.read_text('utf-8')}")
            time.sleep(0.05)
        yield int(found[1]), f"http://{found[2]}/"
    finally:
        process.terminate()
        process.wait(60)


@contextlib.contextmanager
def load(port: int) -> Iterator[None]:
    """All senders at work, in a thread."""
    loop = asyncio.new_event_loop()

    async def work() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(strangers(port))
            for one in SENDERS:
                group.create_task(sender(port, *one))

    task = loop.create_task(work())

    def run() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            loop.run_until_complete(task)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join()
        loop.close()


def page(browser: Browser, address: str, into: Path, theme: str) -> None:
    """A picture of the page."""
    shown = browser.new_page(
        viewport={"width": WIDTH, "height": HEIGHT},
        color_scheme="dark" if theme == "dark" else "light",
    )
    try:
        shown.goto(address)
        shown.get_by_label("Token", exact=True).fill(TOKEN)
        shown.get_by_role("button", name="Show the page").click()
        shown.get_by_role("table", name="Associations").wait_for()
        # So that connections have rates.
        shown.locator("#connections td", has_text="B/s").first.wait_for()
        shown.screenshot(path=into / f"page-{theme}.png")
    finally:
        shown.close()


def top(browser: Browser, store: Path, into: Path) -> None:
    """A picture of what `fastscp top` shows on a terminal."""
    looks = []
    for _ in range(2):
        with service_of(store) as asked:
            looks.append(asked.ask(GetOverview(), Overview))
        time.sleep(2.0)
    watch = Watch(looks[0])
    watch.answered(looks[1])
    console = Console(
        record=True, width=118, height=24, force_terminal=True, color_system="truecolor",
        file=io.StringIO(),
    )  # fmt: skip
    console.print(watch.screen("q ends; every 2 s"))
    drawn = console.export_svg(title="fastscp top", code_format=_SVG)
    shown = browser.new_page(viewport={"width": 1240, "height": 700})
    try:
        shown.set_content(f"<body style='margin:0;width:fit-content'>{drawn}</body>")
        shown.locator("svg.rich-terminal").screenshot(path=into / "top.png")
    finally:
        shown.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0 once all pictures are there."""
    parser = argparse.ArgumentParser(prog="python -m bench.pictures", description=__doc__)
    parser.add_argument("--into", type=Path, required=True, metavar="DIR")
    parser.add_argument(
        "--seconds", type=float, default=300.0, metavar="S", help="of load, before that (300)"
    )
    parser.add_argument(
        "--store", type=Path, metavar="DIR",
        help="that the page names; it must not be there, and goes again (a temporary one)",
    )  # fmt: skip
    options = parser.parse_args(arguments)
    from playwright.sync_api import sync_playwright

    options.into.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="pictures-") as folder, sync_playwright() as player:
        browser = player.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        store = options.store or Path(folder) / "archive"
        store.mkdir()
        try:
            with service(Path(folder), store) as (port, address), load(port):
                time.sleep(options.seconds)
                for theme in ("light", "dark"):
                    page(browser, address, options.into, theme)
                top(browser, store, options.into)
        finally:
            shutil.rmtree(store)
        browser.close()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
