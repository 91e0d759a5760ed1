"""`fastscp demo` as a program: shows, stops or serves on, leaves nothing behind."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import urllib.request
from typing import TYPE_CHECKING

import pytest

from fastscp.cli import app as cli
from tests.kit import DEADLINE_S, Service, wait_for

if TYPE_CHECKING:
    from pathlib import Path


def demo(tmp_path: Path, *arguments: str) -> list[str]:
    return [
        *Service.program(), "demo", "--host", "127.0.0.1", "--workers", "1", *arguments,
    ]  # fmt: skip


def test_once(tmp_path: Path) -> None:
    """Exit code 0, a tree of what was kept, and the temporary store is gone."""
    done = subprocess.run(
        demo(tmp_path, "--once", "--port", "0"),
        env=Service.environment({"TMPDIR": str(tmp_path), "COLUMNS": "200"}),
        cwd=tmp_path, capture_output=True, text=True, timeout=DEADLINE_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    # A worker may be heard before the main process.
    said = [line for line in done.stderr.splitlines() if " worker-" not in line]
    assert said[0].startswith("listening on 127.0.0.1:")
    sent = re.findall(r"^C-STORE (\S+) \(.*\): (.*)$", done.stdout, re.MULTILINE)
    assert len(sent) >= 6
    assert {said for _, said in sent} == {"0000 success"}
    assert done.stdout.count(".dcm ") >= 2 * len(sent)
    # Nobody can send to a service that is about to stop.
    assert "fastscp send" not in done.stdout
    folder = re.escape(f"{tmp_path}/fastscp-demo-")
    assert re.search(rf"^{folder}\S+ is deleted at the end", done.stdout, re.MULTILINE)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_serves_on_until_told_to_stop(tmp_path: Path, name: signal.Signals, code: int) -> None:
    store = tmp_path / "store"
    out = tmp_path / "out"
    with out.open("wb") as file:
        process = subprocess.Popen(
            demo(tmp_path, "--port", "0", "--store", str(store)),
            env=Service.environment(), cwd=tmp_path, stdout=file, stderr=file,
        )  # fmt: skip
    try:
        wait_for(lambda: "Listening until Ctrl-C" in out.read_text(), "the demonstration")
        found = re.search(r"^listening on (\S+)$", out.read_text(), re.MULTILINE)
        assert found is not None
        assert f"fastscp send {found.group(1)}" in out.read_text()
        assert f"Kept in {store}." in out.read_text()
        page = re.search(r"^  http://(127\.0\.0\.1:\d+)/$", out.read_text(), re.MULTILINE)
        assert page is not None
        with urllib.request.urlopen(f"http://{page.group(1)}/readyz", timeout=DEADLINE_S) as ready:
            assert ready.status == 200
        for command in ("status", "top"):
            assert f"fastscp {command} --store {store}\n" in out.read_text()
        assert cli.main(["echo", found.group(1)]) == 0
        process.send_signal(name)
        assert process.wait(DEADLINE_S) == code
    finally:
        process.kill()
        process.wait()
    # A store that was asked for stays.
    assert len(list(store.rglob("*.dcm"))) >= 6


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    """An error that says what to do: never another port than the one asked for."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = subprocess.run(
            demo(tmp_path, "--once", "--port", str(taken.getsockname()[1])),
            env=Service.environment({"TMPDIR": str(tmp_path)}),
            cwd=tmp_path, capture_output=True, text=True, timeout=DEADLINE_S, check=False,
        )  # fmt: skip
    assert done.returncode == 3
    assert "another program has the port: stop it, or choose one with --port" in done.stderr
    assert os.listdir(tmp_path) == []
