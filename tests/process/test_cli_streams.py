"""The program with standard streams that are closed or full, and with Ctrl-C: a line, a code."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.kit import ANY_PORT, DEADLINE_S, Service, wait_for

if TYPE_CHECKING:
    from collections.abc import Sequence

CLOSED = "fastscp: cannot write the result to stdout (it is closed); "
FULL = "fastscp: cannot write the result to stdout (No space left on device); "


def in_shell(tmp_path: Path, arguments: str, redirected: str) -> tuple[int, str, str]:
    """Run the program with these redirections of a shell; returns code, stdout and stderr."""
    words = " ".join(Service.program())
    done = subprocess.run(
        ["sh", "-c", f"exec {words} {arguments} {redirected}"],
        cwd=tmp_path, env=Service.environment({"TMPDIR": str(tmp_path)}), check=False,
        # What `cat` writes is no text.
        stdin=subprocess.DEVNULL, capture_output=True, encoding="latin-1", timeout=DEADLINE_S,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def check_streams(tmp_path: Path, arguments: str, redirected: str, code: int = 0) -> None:
    """A command that prints, and would end with `code`, does what is right with such streams."""
    got, out, err = in_shell(tmp_path, arguments, redirected)
    lines = [line for line in err.splitlines() if line.startswith("fastscp: ")]
    if redirected.startswith((">&-", ">/dev/full")):
        assert got == 1, (arguments, redirected, err)
        assert out == ""
        if "2>" not in redirected:
            (line,) = lines
            assert line.startswith(CLOSED if redirected.startswith(">&-") else FULL)
            assert err.endswith(f"{line}\n")
    else:
        assert got == code, (arguments, redirected, err)
        assert out
        assert lines == []
    assert "Traceback" not in err
    assert "Exception" not in err


@pytest.mark.parametrize(
    ("arguments", "redirected"),
    [
        ("--version", ">&- <&- 2>&-"),
        ("--help", ">&-"),
        ("config", ">/dev/full"),
        ("config --json", "2>/dev/full <&-"),
        ("print bash-completion", ">/dev/full 2>/dev/full"),
        ("demo --once --port 0 --host 127.0.0.1 --workers 1", ">&-"),
    ],
)
def test_streams(tmp_path: Path, arguments: str, redirected: str) -> None:
    check_streams(tmp_path, arguments, redirected)


@pytest.mark.parametrize("redirected", ["2>&-", "2>/dev/full", ">&- 2>&- <&-"])
def test_an_error_that_cannot_be_told_keeps_its_code(tmp_path: Path, redirected: str) -> None:
    assert in_shell(tmp_path, "serve --port x", redirected) == (2, "", "")


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_streams_of_every_command(tmp_path: Path) -> None:
    with Service(tmp_path, workers=1) as service:
        address = service.addresses[0]
        sample = tmp_path / "sample.dcm"
        assert (
            in_shell(tmp_path, f"demo --once --port 0 --workers 1 --store {tmp_path}/d", "")[0] == 0
        )
        first = next((tmp_path / "d").rglob("*.dcm"))
        sample.write_bytes(first.read_bytes())
        for arguments in (
            "--version", "--help", "serve --help", "config", "config --json",
            "config --check /dev/null", "print zsh-completion", f"echo {address}",
            f"echo {address} --json", f"send {address} {sample}", f"send {address} {sample} --json",
            f"send {address} {sample} --dry-run", f"verify --store {tmp_path}/d",
            f"verify --store {tmp_path}/d --json",
            f"top --once --interval 0.1 --store {service.store}", f"cat {sample}",
            "demo --once --port 0 --host 127.0.0.1 --workers 1",
        ):  # fmt: skip
            for redirected in (
                ">&-", ">/dev/full", "<&-", "2>&-", "2>/dev/full", ">&- 2>&- <&-",
                ">/dev/full 2>/dev/full", "<&- 2>&-",
            ):  # fmt: skip
                check_streams(tmp_path, arguments, redirected)
    assert list(tmp_path.glob("fastscp-demo-*")) == []


def test_a_list_from_stdin_that_is_closed(tmp_path: Path) -> None:
    code, out, err = in_shell(tmp_path, "send 127.0.0.1:1 --files-from -", "<&-")
    assert (code, out) == (1, "")
    assert err == "fastscp: cannot read stdin (it is closed); give it a file or a pipe\n"


@pytest.mark.parametrize("redirected", [">&- 2>&- <&-", ">&- <&-"])
def test_a_service_keeps_its_standard_descriptors(tmp_path: Path, redirected: str) -> None:
    """No socket and no file of the store takes their numbers, in main and in its workers."""
    words = " ".join([*Service.program(), "serve", *ANY_PORT, "--workers", "1"])
    process = subprocess.Popen(
        ["sh", "-c", f"exec {words} {redirected}"],
        cwd=tmp_path, env=Service.environment(), stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        port = wait_for(lambda: port_of(process.pid), "its port")
        wait_for(lambda: answers(port), "the service listening")
        for fd in range(3):
            if fd < 2 or "2>" in redirected:
                assert os.readlink(f"/proc/{process.pid}/fd/{fd}") == os.devnull
        process.send_signal(signal.SIGINT)
        assert process.wait(DEADLINE_S) == 0
    finally:
        process.kill()
        process.wait()


def port_of(pid: int) -> int:
    """Of a service that says nothing, by the title of its main process; 0: it has none yet."""
    title = Path("/proc", str(pid), "cmdline").read_text()
    return int(title.partition("fastscp: main, port ")[2].strip("\0 ") or 0)


def answers(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


def test_a_reader_that_has_seen_enough(tmp_path: Path) -> None:
    """No word of it, whatever the command, and a demonstration ends."""
    words = " ".join(Service.program())
    demo = f"{words} demo --once --port 0 --host 127.0.0.1 --workers 1 --log-level error"
    for command in (f"{words} config", demo):
        # The reader is gone before anything is written.
        done = subprocess.run(
            ["bash", "-c", f"set -o pipefail; {command} | true"],
            cwd=tmp_path, env=Service.environment({"TMPDIR": str(tmp_path)}), check=False,
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=DEADLINE_S,
        )  # fmt: skip
        said = [line for line in done.stderr.splitlines() if not line.startswith("listening on ")]
        assert (done.returncode, said) == (1, []), done.stderr
    assert list(tmp_path.glob("fastscp-demo-*")) == []


# Ctrl-C -------------------------------------------------------------------------------------------

# In the middle of the imports of a program, a Ctrl-C.
AT_ONCE = """\
import os, signal, sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "msgspec":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Finder())
"""


@pytest.mark.parametrize(("command", "code"), [("serve", 0), ("demo", 130), ("config", 130)])
def test_interrupted_while_it_starts(tmp_path: Path, command: str, code: int) -> None:
    (tmp_path / "sitecustomize.py").write_text(AT_ONCE, encoding="utf-8")
    environment = Service.environment()
    environment["PYTHONPATH"] = f"{tmp_path}:{environment['PYTHONPATH']}"
    done = subprocess.run(
        [*Service.program(), command], cwd=tmp_path, env=environment, check=False,
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=DEADLINE_S,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (code, "", "")


def interrupted(tmp_path: Path, arguments: Sequence[str], ready: str) -> tuple[int, str, str]:
    """Run a command, send INT once stdout or stderr says what is waited for."""
    out, err = tmp_path / "out", tmp_path / "err"
    with out.open("wb") as one, err.open("wb") as other:
        process = subprocess.Popen(
            [*Service.program(), *arguments],
            cwd=tmp_path, env=Service.environment({"TMPDIR": str(tmp_path)}),
            stdin=subprocess.DEVNULL, stdout=one, stderr=other,
        )  # fmt: skip
    try:
        wait_for(lambda: ready in out.read_text("latin-1") + err.read_text("latin-1"), ready)
        process.send_signal(signal.SIGINT)
        code = process.wait(DEADLINE_S)
    finally:
        process.kill()
        process.wait()
    return code, out.read_text("latin-1"), err.read_text("latin-1")


def test_interrupted_demo(tmp_path: Path) -> None:
    """It said what it deletes, and how to reach it from another shell."""
    demo = ["demo", "--host", "127.0.0.1", "--port", "0", "--workers", "1"]
    code, out, err = interrupted(tmp_path, demo, "Listening until Ctrl-C.")
    assert code == 130
    assert err.endswith("fastscp: interrupted\n")
    folder = re.escape(f"{tmp_path}/fastscp-demo-")
    found = re.search(rf"^({folder}\S+) is deleted at the end", out, re.MULTILINE)
    assert found is not None, out
    assert not os.path.exists(found[1])
    command = re.search(r"^  (\S.*) echo 127\.0\.0\.1:\d+$", out, re.MULTILINE)
    assert command is not None, out
    done = subprocess.run(
        f"{command[1]} --version", shell=True, cwd="/", check=False, capture_output=True, text=True,
        env={"PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    assert (done.returncode, done.stdout[:8]) == (0, "fastscp "), done.stderr


def test_interrupted_echo(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(DEADLINE_S)
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        process = subprocess.Popen(
            [*Service.program(), "echo", address],
            cwd=tmp_path, env=Service.environment(), text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        with silent.accept()[0] as connection:
            # It has sent its request, and waits.
            connection.settimeout(DEADLINE_S)
            assert connection.recv(1) == b"\x01"
            process.send_signal(signal.SIGINT)
            assert process.communicate(timeout=DEADLINE_S) == ("", "fastscp: interrupted\n")
            assert process.returncode == 130


def test_interrupted_cat(tmp_path: Path) -> None:
    file = tmp_path / "file"
    with file.open("wb") as sparse:
        sparse.truncate(1 << 22)
    process = subprocess.Popen(
        [*Service.program(), "cat", str(file)], cwd=tmp_path, env=Service.environment(),
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    # It writes, and nobody reads on.
    assert process.stdout.read(1) == b"\0"
    process.send_signal(signal.SIGINT)
    _out, err = process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, err) == (130, b"fastscp: interrupted\n")
