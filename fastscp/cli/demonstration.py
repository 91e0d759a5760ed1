"""What `fastscp demo` shows: instances that come with pydicom, sent to a receiver."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import tempfile
import threading
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.filesize import decimal
from rich.text import Text
from rich.tree import Tree

from fastscp.errors import FastscpError
from fastscp.titles import title_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastscp.config.settings import ServeConfig

__all__ = ["run"]

# Of several modalities and transfer syntaxes; all of them are in pydicom's package.
_SAMPLES: Final = (
    "CT_small.dcm",
    "MR_small.dcm",
    "SC_rgb_rle.dcm",
    "JPEG2000.dcm",
    "waveform_ecg.dcm",
    "rtplan.dcm",
    "test-SR.dcm",
    "image_dfl.dcm",
)


def run(config: ServeConfig, once: bool, *, keep: bool = True) -> int:
    """Serve, send the samples over the network, show what was kept; returns the exit code.

    once: stop then, instead of serving on until SIGINT or SIGTERM. keep: use the configured store;
    else a temporary one, gone when the demonstration is over.
    Raises FastscpError where the service cannot start.
    """
    with contextlib.ExitStack() as undo:
        if not keep:
            store = undo.enter_context(tempfile.TemporaryDirectory(prefix="fastscp-demo-"))
            config = replace(config, store=Path(store))
        return _Demonstration(config, once).run()


class _Demonstration:
    """The service in this thread, the sender in another, and what they tell each other."""

    def __init__(self, config: ServeConfig, once: bool) -> None:
        self._config = config
        self._once = once
        self._console = Console(highlight=False)
        self._sender: threading.Thread | None = None
        self._failed = False

    def run(self) -> int:
        from fastscp.main import serve as service

        code: int = service.run(self._config, ready=self._ready)
        if self._sender is not None:
            self._sender.join()
        return code or int(self._failed)

    def _ready(self, addresses: list[str]) -> None:
        self._sender = threading.Thread(target=self._show, args=(addresses[0],), name="sender")
        self._sender.start()

    def _show(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        # Where it listens on all addresses, it also listens on the loopback.
        host = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}.get(host, host)  # noqa: S104
        try:
            asyncio.run(self._send(host.strip("[]"), int(port)))
            self._console.print(self._tree())
            self._console.print(
                "\nThat is all; --once stops here."
                if self._once
                else f"\nKept in {self._config.store}. Now your own:\n"
                f"  fastscp echo {host}:{port}\n"
                f"  fastscp send {host}:{port} PATH...\n"
                "Listening until Ctrl-C.",
                markup=False,
                soft_wrap=True,
            )
        except (FastscpError, OSError) as error:
            self._failed = True
            self._console.print(f"the demonstration failed: {error}", markup=False, soft_wrap=True)
        if self._once or self._failed:
            os.kill(os.getpid(), signal.SIGTERM)

    async def _send(self, host: str, port: int) -> None:
        from fastscp.scu import associate
        from fastscp.scu.heads import Head, read_head

        with resources.as_file(resources.files("pydicom.data") / "test_files") as folder:
            heads = [
                (folder / name, head)
                for name in _SAMPLES
                if (folder / name).is_file() and isinstance(head := read_head(folder / name), Head)
            ]
            contexts = {(head.sop_class, head.transfer_syntax) for _, head in heads}
            association = await associate(
                host,
                port,
                [(sop_class, [syntax]) for sop_class, syntax in sorted(contexts)],
                called_ae=title_bytes(self._config.ae_title).decode("latin-1"),
                calling_ae="DEMO",
            )
            async with association:
                for path, head in heads:
                    response = await association.store(path)
                    size = decimal(head.size)
                    self._console.print(
                        f"C-STORE {path.name} ({size}): {response}", markup=False, soft_wrap=True
                    )

    def _tree(self) -> Tree:
        root = self._config.store
        tree = Tree(Text(str(root), style="bold"))
        branches = {root: tree}
        for path in _visible(root):
            branch = branches[path.parent]
            if path.is_dir():
                branches[path] = branch.add(Text(path.name))
            else:
                size = decimal(path.stat().st_size)
                branch.add(Text.assemble(path.name, (f"  {size}", "dim")))
        return tree


def _visible(root: Path) -> Iterator[Path]:
    """What lies below a store, parents first, without its own administration."""
    for path in sorted(root.iterdir()):
        if path.name.startswith("."):
            continue
        yield path
        if path.is_dir():
            yield from _visible(path)
