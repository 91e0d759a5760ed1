"""The list of paths of `fastscp send --files-from`: however it comes, and while it comes."""

from __future__ import annotations

import os
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from fastscp.cli.send_list import paths_listed
from fastscp.errors import ConfigError, FastscpError

if TYPE_CHECKING:
    from pathlib import Path


def test_a_list_in_pieces() -> None:
    """A pause is told, wherever it is made; NUL ends each path as soon as there is one."""
    end, writer = os.pipe()
    with paths_listed(f"/dev/fd/{end}") as listed:
        os.close(end)
        paths = iter(listed)
        os.write(writer, b"a")
        assert next(paths) == b""
        os.write(writer, b"b\nc\0d\0\0e")
        assert [next(paths), next(paths), next(paths)] == [b"ab\nc", b"d", b""]
        os.write(writer, b"f")
        os.close(writer)
        assert list(paths) == [b"ef"]


def test_lines_in_pieces() -> None:
    end, writer = os.pipe()
    with paths_listed(f"/dev/fd/{end}") as listed:
        os.close(end)
        paths = iter(listed)
        os.write(writer, b"a\n\nb")
        assert [next(paths), next(paths)] == [b"a", b""]
        os.write(writer, b"c\n")
        os.close(writer)
        assert list(paths) == [b"bc"]


@pytest.mark.parametrize("text", [b"", b"\n", b"\0\0"])
def test_a_list_of_nothing(text: bytes, tmp_path: Path) -> None:
    (tmp_path / "list").write_bytes(text)
    with paths_listed(str(tmp_path / "list")) as listed:
        assert list(listed) == []


def test_a_line_without_end_is_read_once(tmp_path: Path) -> None:
    (tmp_path / "list").write_bytes(b"x" * 20_000_000)
    began = time.process_time()
    with paths_listed(str(tmp_path / "list")) as listed:
        assert [len(path) for path in listed] == [20_000_000]
    # Many seconds, where all that came before is looked at once more for each piece.
    assert time.process_time() - began < 2


def test_what_is_no_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (str(tmp_path), str(tmp_path / "none"), "a\0b"):
        with pytest.raises(ConfigError, match=r"cannot read .*; name a readable file"):
            paths_listed(name).__enter__()
    folder = os.open(tmp_path, os.O_RDONLY)
    monkeypatch.setattr("sys.stdin", SimpleNamespace(fileno=lambda: folder))
    with pytest.raises(FastscpError, match=r"cannot read stdin \(Is a directory\)"):
        paths_listed("-").__enter__()
    os.close(folder)
    # Open, and not for reading.
    closed = os.open(os.devnull, os.O_WRONLY)
    monkeypatch.setattr("sys.stdin", SimpleNamespace(fileno=lambda: closed))
    with (
        pytest.raises(FastscpError, match=r"cannot read stdin \(it is closed\)"),
        paths_listed("-") as listed,
    ):
        list(listed)
    os.close(closed)
