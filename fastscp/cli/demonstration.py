"""What `fastscp demo` shows: instances that come with pydicom, sent to a receiver."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import signal
import sys
import tempfile
import threading
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fastscp.association.account import in_bytes
from fastscp.errors import FastscpError
from fastscp.log import escape
from fastscp.titles import title_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

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
    Raises FastscpError where the service cannot start, or the demonstration fails.
    """
    with contextlib.ExitStack() as undo:
        if not keep:
            store = undo.enter_context(tempfile.TemporaryDirectory(prefix="fastscp-demo-"))
            config = replace(config, store=Path(store))
        return _Demonstration(config, once, keep).run()


class _Demonstration:
    """The service in this thread, the sender in another, and what they tell each other."""

    def __init__(self, config: ServeConfig, once: bool, keep: bool) -> None:
        self._config = config
        self._once = once
        self._keep = keep
        self._sender: threading.Thread | None = None
        self._error: BaseException | None = None
        self._interrupted = False

    def run(self) -> int:
        from fastscp.main import serve as service

        code: int = service.run(self._config, ready=self._ready, signalled=self._signalled)
        if self._sender is not None:
            self._sender.join()
        if self._interrupted:
            raise KeyboardInterrupt
        if isinstance(self._error, OSError) and not isinstance(self._error, BrokenPipeError):
            raise FastscpError(f"the demonstration failed: {self._error}") from self._error
        if self._error is not None:
            raise self._error
        return code

    def _ready(self, plain: Sequence[str], _tls: Sequence[str]) -> None:
        self._sender = threading.Thread(target=self._show, args=(plain[0],), name="sender")
        self._sender.start()

    def _signalled(self, name: signal.Signals) -> None:
        self._interrupted = self._interrupted or name is signal.SIGINT

    def _show(self, address: str) -> None:
        """The sender's thread. Whatever ends it ends the service, unless that is to go on."""
        host, _, port = address.rpartition(":")
        # Where it listens on all addresses, it also listens on the loopback.
        host = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}.get(host, host)  # noqa: S104
        try:
            asyncio.run(self._send(host.strip("[]"), int(port)))
            print("\n".join(self._tree()))
            print(self._farewell(f"{host}:{port}"), flush=True)
        except BaseException as error:
            self._error = error
        finally:
            if self._once or self._error is not None:
                os.kill(os.getpid(), signal.SIGTERM)

    def _farewell(self, address: str) -> str:
        store = escape(str(self._config.store.absolute()))
        kept = (
            f"Kept in {store}."
            if self._keep
            else f"{store} is deleted at the end; --store DIR keeps the instances."
        )
        if self._once:
            return f"\n{kept}\nThat is all; --once stops here."
        program = program_name()
        place = shlex.quote(str(self._config.store.absolute()))
        return (
            f"\n{kept} Now your own:\n"
            f"  {program} echo {address}\n"
            f"  {program} send {address} PATH...\n"
            f"Look at it, in a browser and in another terminal:\n{self._page()}"
            f"  {program} status --store {escape(place)}\n"
            f"  {program} top --store {escape(place)}\n"
            "Listening until Ctrl-C."
        )

    def _page(self) -> str:
        """The line that names the page; empty: there is none, or who knows it cannot be asked."""
        from fastscp.cli.operate import service_of
        from fastscp.messages.control import GetStatus, Status

        try:
            with service_of(self._config.store.absolute()) as service:
                admin = service.ask(GetStatus(), Status).admin
        except FastscpError:
            return ""
        return f"  http://{admin}/\n" if admin else ""

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
                    size = in_bytes(head.size)
                    # A line is to be seen when it is done.
                    print(f"C-STORE {path.name} ({size}): {response}", flush=True)

    def _tree(self) -> Iterator[str]:
        """What was kept, a line each, as deep as it lies."""
        root = self._config.store
        yield escape(str(root.absolute()))
        for path in _visible(root):
            indent = "  " * (len(path.parts) - len(root.parts))
            size = "" if path.is_dir() else f"  {in_bytes(path.stat().st_size)}"
            yield f"{indent}{escape(path.name)}{'/' if path.is_dir() else ''}{size}"


def program_name() -> str:
    """This program, as another shell finds it from another folder."""
    called = Path(sys.argv[0])
    if called.name == "fastscp" and os.access(called, os.X_OK):
        return shlex.quote(str(called.absolute()))
    # `python -m fastscp`: the script of the same installation, or that again.
    script = Path(sys.executable).with_name("fastscp")
    if os.access(script, os.X_OK):
        return shlex.quote(str(script))
    return f"{shlex.quote(sys.executable)} -m fastscp"


def _visible(root: Path) -> Iterator[Path]:
    """What lies below a store, parents first, without its own administration."""
    for path in sorted(root.iterdir()):
        if path.name.startswith("."):
            continue
        yield path
        if path.is_dir():
            yield from _visible(path)
