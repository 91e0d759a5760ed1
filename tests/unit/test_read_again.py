"""A file with settings that a running service reads again: it is there whole, or nothing of it."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fastscp import log
from fastscp.cli import serve as command
from fastscp.config.layers import load
from fastscp.errors import ConfigError
from fastscp.main import serve as service

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastscp.config.settings import ServeConfig


def again(file: Path) -> ServeConfig:
    return load({}, {}, file, again=True).config


@pytest.mark.parametrize("text", ["", " \n\n", "\ufeff"])
def test_an_empty_file_is_refused_and_at_a_start_it_is_not(tmp_path: Path, text: str) -> None:
    """A full disk, or an editor at it, empties a file; its defaults would let everybody in."""
    file = tmp_path / "c.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"c\.toml is empty; write a comment \(#\) into it"):
        again(file)
    load({}, {}, file)


def test_a_comment_alone_means_the_defaults(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text("# none\n")
    assert again(file) == load({}, {}).config


def test_what_cannot_be_read_twice_is_refused(tmp_path: Path) -> None:
    """A FIFO without a writer, which would wait for ever, a pipe that is spent, a device."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reading, writing = os.pipe()
    os.close(writing)
    try:
        for file in (fifo, Path(f"/proc/self/fd/{reading}"), Path("/dev/null")):
            with pytest.raises(ConfigError, match=f"{file} cannot be read again: give a regular"):
                again(file)
    finally:
        os.close(reading)
    with pytest.raises(ConfigError, match="Is a directory"):
        again(tmp_path)


def test_a_start_reads_a_pipe(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    writer = threading.Thread(target=fifo.write_text, args=("port = 7\n",), daemon=True)
    writer.start()
    assert load({}, {}, fifo).config.port == 7
    writer.join(60)
    assert not writer.is_alive()


def test_serve_reads_it_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The start of `fastscp serve` takes an empty file, and its reloads do not."""
    file = tmp_path / "c.toml"
    file.write_text("")

    def run(config: ServeConfig, *, load: Callable[[], ServeConfig], **_more: object) -> int:
        with pytest.raises(ConfigError, match="is empty"):
            load()
        file.write_text("port = 8\n")
        assert (config.port, load().port) == (11112, 8)
        return 5

    monkeypatch.setattr(service, "run", run)
    monkeypatch.setattr(log, "configure", lambda *_, **__: None)
    assert command.serve(config=str(file)) == 5
