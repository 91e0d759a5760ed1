"""The log of the service in a file: rotated under load, and its level changed while it runs."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests.kit import ANY_PORT, Service, store, wait_for

if TYPE_CHECKING:
    from pathlib import Path


class Filed(Service):
    """A service whose log is a file; `stderr` is what it says beside."""

    def __init__(self, tmp_path: Path, *flags: str, **more: Any) -> None:
        self.file = tmp_path / "logs" / "fastscp.log"
        self.file.parent.mkdir(parents=True)
        super().__init__(tmp_path, "--log-file", str(self.file), *flags, **more)

    def __enter__(self) -> Filed:
        super().__enter__()
        return self

    def stderr(self) -> str:
        return super().log()

    def told(self, text: str, file: Path | None = None) -> str:
        """Wait for a line of the log with this text, and return it."""

        def look() -> str:
            lines = (file or self.file).read_text().splitlines()
            return next((line for line in lines if text in line), "")

        return wait_for(look, f"a line with {text!r} in the log")


def _stores(service: Service, sop: str) -> None:
    with service.peer() as peer:
        peer.send(store(sop=sop))
        assert peer.read_response().status == 0
        peer.release()


def test_stderr_has_the_first_line_alone(tmp_path: Path) -> None:
    with Filed(tmp_path, "--umask", "0077", workers=1) as service:
        _stores(service, "1.2.3.1")
        service.told("worker-0: ")
        service.told(f"listening on 127.0.0.1:{service.port}")
        assert stat.S_IMODE(service.file.stat().st_mode) == 0o600
    assert service.stderr() == f"listening on 127.0.0.1:{service.port}\n"
    service.told("main: stopped")


@pytest.mark.parametrize("how", ["HUP", "reload", "refused"])
def test_it_is_opened_anew(tmp_path: Path, how: str) -> None:
    """By all processes, also where the configuration is refused."""
    config = tmp_path / "fastscp.toml"
    config.write_text("strict = false\n")
    with Filed(tmp_path, "--config", str(config)) as service:
        service.told("listening on ")
        moved = service.file.rename(service.file.with_suffix(".1"))
        if how == "refused":
            config.write_text("nonsense = 1\n")
        if how == "reload":
            subprocess.run(
                [*service.program(), "reload", "--store", str(service.store)],
                env=service.environment(), capture_output=True, timeout=60, check=True,
            )  # fmt: skip
        else:
            service.process.send_signal(signal.SIGHUP)
        wait_for(service.file.exists, "the new file")
        everybody = [service.pid, *service.worker_pids()]
        wait_for(lambda: all(str(service.file) in _open_in(pid) for pid in everybody), "its use")
        wait_for(lambda: not any(str(moved) in _open_in(pid) for pid in everybody), "the old's end")
        before = moved.read_text()
        _stores(service, "1.2.3.1")
        service.told("released; stored 1")
        assert moved.read_text() == before
    assert service.stderr().count("\n") == 1


def _open_in(pid: int) -> set[str]:
    found = set()
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            found.add(os.readlink(f"/proc/{pid}/fd/{fd}"))
        except FileNotFoundError:
            continue
    return found


def test_no_line_is_lost_or_torn_when_it_is_rotated_under_load(tmp_path: Path) -> None:
    with Filed(tmp_path, "-v") as service:
        files = []
        with service.peer() as peer:
            for number in range(60):
                peer.send(store(number + 1, sop=f"1.2.3.{number}"))
                assert peer.read_response().status == 0
                if number % 20 == 10:
                    files.append(service.file.with_suffix(f".{number}"))
                    service.file.rename(files[-1])
                    service.process.send_signal(signal.SIGHUP)
                    wait_for(service.file.exists, "the new file")
            peer.release()
        service.told("released; stored 60")
    text = "".join(file.read_text() for file in (*files, service.file))
    for number in range(60):
        assert text.count(f"stored 1.2.3.{number},") == 1, number
    assert all(line[:2] == "20" for line in text.splitlines())
    assert "lost since" not in text


def test_the_level_changes_in_associations_that_go_on(tmp_path: Path) -> None:
    config = tmp_path / "fastscp.toml"
    config.write_text('log-level = "warning"\n')
    with Filed(tmp_path, "--config", str(config), workers=1) as service:
        with service.peer() as peer:
            peer.send(store(1, sop="1.2.3.1"))
            assert peer.read_response().status == 0
            for level, number in (("debug", 2), ("error", 3), ("trace", 4)):
                config.write_text(f'log-level = "{level}"\n')
                subprocess.run(
                    [*service.program(), "reload", "--store", str(service.store)],
                    env=service.environment(), capture_output=True, timeout=60, check=True,
                )  # fmt: skip
                peer.send(store(number, sop=f"1.2.3.{number}"))
                assert peer.read_response().status == 0
            peer.release()
        service.told("received P-DATA-TF")
        service.told("1.2.3.4")
        text = service.file.read_text()
        assert ["1.2.3.1" in text, "1.2.3.2" in text, "1.2.3.3" in text, "1.2.3.4" in text] == [
            False, True, False, True,
        ]  # fmt: skip


def test_a_worker_that_cannot_open_it_says_so_on_stderr_and_serves(tmp_path: Path) -> None:
    with Filed(tmp_path, workers=1) as service:
        (worker,) = service.worker_pids()
        moved = service.file.rename(service.file.with_suffix(".1"))
        service.file.mkdir()
        os.kill(worker, signal.SIGKILL)
        wait_for(
            lambda: "goes to stderr until a reload finds it" in service.stderr(),
            "the error of the new worker",
        )
        why = f"--log-file: cannot write {service.file}: it is no regular file"
        assert f" worker-0: {why}" in service.stderr()
        # Main says it beside its log, which goes on in a file that has been moved away.
        service.process.send_signal(signal.SIGHUP)
        wait_for(lambda: f"\nfastscp: {why}" in service.stderr(), "what main says of it")
        service.told(f"reload refused: {why}", moved)
        _stores(service, "1.2.3.1")
        wait_for(lambda: "released; stored 1" in service.stderr(), "its line on stderr")
        # Main has gone on in the old file.
        service.told("worker 0", moved)
        service.file.rmdir()
        service.process.send_signal(signal.SIGHUP)
        wait_for(service.file.exists, "the new file")
        (worker,) = service.worker_pids()
        wait_for(lambda: str(service.file) in _open_in(worker), "its use")
        _stores(service, "1.2.3.2")
        service.told("released; stored 1")


def test_a_reload_may_take_it_elsewhere_and_refuses_what_cannot_be(tmp_path: Path) -> None:
    config = tmp_path / "fastscp.toml"
    config.write_text("strict = false\n")
    other = tmp_path / "other.log"
    with Service(tmp_path, "--config", str(config), workers=1) as service:
        config.write_text(f'log-file = "{tmp_path}/none/x.log"\n')
        service.process.send_signal(signal.SIGHUP)
        service.in_log("reload refused: --log-file")
        config.write_text(f'log-file = "{other}"\n')
        service.process.send_signal(signal.SIGHUP)
        wait_for(other.exists, "the new file")
        service.followed()
        _stores(service, "1.2.3.1")
        wait_for(lambda: "released; stored 1" in other.read_text(), "a line of the worker")


@pytest.mark.parametrize(
    ("make", "why"),
    [
        ("", "its folder is not there: make it"),
        ("folder", "it is no regular file"),
        ("fifo", "it is no regular file"),
        ("link", "it is a symbolic link"),
    ],
)
def test_a_start_without_its_log_is_none(tmp_path: Path, make: str, why: str) -> None:
    file = tmp_path / "x.log"
    if make == "folder":
        file.mkdir()
    elif make == "fifo":
        os.mkfifo(file)
    elif make == "link":
        file.symlink_to(tmp_path / "elsewhere.log")
    else:
        file = tmp_path / "none" / "x.log"
    done = subprocess.run(
        [
            *Service.program(), "serve", *ANY_PORT, "--store", str(tmp_path / "store"),
            "--log-file", str(file),
        ],
        env=Service.environment(), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 3
    assert f"fastscp: --log-file: cannot write {file}: {why}" in done.stderr
    # It has made nothing.
    assert not (tmp_path / "store").exists()


def test_a_failed_start_is_in_the_file_too(tmp_path: Path) -> None:
    file = tmp_path / "x.log"
    done = subprocess.run(
        [
            *Service.program(), "serve", *ANY_PORT, "--store", str(tmp_path / "store"),
            "--store-must-exist", "--log-file", str(file),
        ],
        env=Service.environment(), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 3
    why = done.stderr.strip().removeprefix("fastscp: ")
    assert why
    assert why in file.read_text()
