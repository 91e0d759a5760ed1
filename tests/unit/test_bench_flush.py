"""The disks of bench/flush, and what `python -m bench.flush` says of them."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bench import results
from bench.flush import __main__ as command
from bench.flush import disks
from bench.flush.commits import SCENARIO, SETTLE_S, Point
from bench.flush.table import markdown
from bench.programs import Absent
from tests.disks import program
from tests.kit import children_of, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
DELAY_US = 40_000
SIZE = 64 << 20


def needs_mounts() -> None:
    if os.geteuid() != 0 or not Path("/dev/fuse").exists():
        pytest.skip("mounting a file system takes root, and a slow one /dev/fuse")


def mounts() -> str:
    return Path("/proc/mounts").read_text()


# Prints a line once it has mounted, and waits.
_ALONE = """
import subprocess, sys
from bench.flush.mounts import keep_to_ourselves
assert keep_to_ourselves()
for command in {commands!r}:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
print(flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def alone(*commands: tuple[str, ...]) -> Iterator[subprocess.Popen[str]]:
    """A process with mounts of its own, in which these commands were run; killed at the end."""
    words = [sys.executable, "-c", _ALONE.format(commands=commands)]
    with subprocess.Popen(
        words, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "\n"
            yield process
        finally:
            process.kill()


def test_mounts_of_a_program_that_is_killed_are_gone(tmp_path: Path) -> None:
    needs_mounts()
    (tmp_path / "a b").mkdir()
    with alone(("mount", "-t", "tmpfs", "none", f"{tmp_path}/a b")) as process:
        assert str(tmp_path) in Path(f"/proc/{process.pid}/mounts").read_text()
        assert str(tmp_path) not in mounts()
    assert str(tmp_path) not in mounts()


# Its mounts are shared, as systemd has them. It unmounts one that the other has taken over, and
# prints whether that one has it before and after.
_OTHERS = """
import subprocess, sys
from pathlib import Path
point, alone = sys.argv[1:]
subprocess.run(("mount", "-t", "tmpfs", "none", point), check=True)
words = [sys.executable, "-c", alone]
with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
    assert process.stdout.readline()
    there = Path(f"/proc/{process.pid}/mounts")
    before = point in there.read_text()
    subprocess.run(("umount", point), check=True)
    print(before, point in there.read_text())
    process.stdin.close()
"""


def test_what_others_unmount_is_gone_here_too(tmp_path: Path) -> None:
    """Else its device would be busy as long as the program runs."""
    needs_mounts()
    point = tmp_path / "others"
    point.mkdir()
    words = ["unshare", "--mount", "--propagation", "shared", sys.executable, "-c", _OTHERS]
    words += [str(point), _ALONE.format(commands=())]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "True False\n"
    assert str(point) not in mounts()


def test_what_a_program_around_unmounts_is_gone_here_too(tmp_path: Path) -> None:
    """That one keeps its mounts to itself as well, as tests do that run a bench."""
    needs_mounts()
    point = tmp_path / "around"
    point.mkdir()
    keep = "from bench.flush.mounts import keep_to_ourselves\nassert keep_to_ourselves()\n"
    words = [sys.executable, "-c", keep + _OTHERS, str(point), _ALONE.format(commands=())]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "True False\n"
    assert str(point) not in mounts()


# Prints what has a mount that is made after a second call: the program, and one that it started
# before that.
_TWICE = """
import subprocess, sys
from pathlib import Path
from bench.flush.mounts import keep_to_ourselves
point = sys.argv[1]
assert keep_to_ourselves()
with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process:
    assert keep_to_ourselves()
    subprocess.run(("mount", "-t", "tmpfs", "none", point), check=True)
    found = [point in Path(f"/proc/{who}/mounts").read_text() for who in ("self", process.pid)]
    process.stdin.close()
print(*found)
"""


def test_a_second_call_leaves_nothing_behind(tmp_path: Path) -> None:
    needs_mounts()
    words = [sys.executable, "-c", _TWICE, str(tmp_path)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "True True\n"
    assert str(tmp_path) not in mounts()


def test_a_disk_that_nobody_serves_any_more_is_in_nobodys_way(tmp_path: Path) -> None:
    needs_mounts()
    other = tmp_path / "image"
    with other.open("xb") as file:
        file.truncate(144 << 20)
    with disks.slow("ext4", tmp_path, 0, SIZE) as disk:
        server = next(
            child for child in children_of(os.getpid())
            if b"slowdisk" in Path(f"/proc/{child}/cmdline").read_bytes()
        )  # fmt: skip
        os.kill(server, signal.SIGKILL)
        wait_for(lambda: is_dead(disk.point.parent / "served"), "the end of it")
        make = (program("mkfs.btrfs", "btrfs-progs"), "-q", "-f", str(other))
        assert subprocess.run(make, capture_output=True, check=False).returncode != 0
        with alone(make) as process:
            assert str(disk.point) not in Path(f"/proc/{process.pid}/mounts").read_text()
        assert str(disk.point) in mounts()
    assert str(disk.point) not in mounts()


def is_dead(path: Path) -> bool:
    try:
        path.stat()
    except OSError as error:
        return error.errno == errno.ENOTCONN
    return False


def flushed_s(fd: int) -> float:
    began = time.perf_counter()
    os.fdatasync(fd)
    return time.perf_counter() - began


def test_a_flush_takes_its_time_and_is_counted(tmp_path: Path) -> None:
    """As a disk counts: a new name takes a commit of the journal, an overwritten block does not."""
    needs_mounts()
    with disks.slow("ext4", tmp_path, 0, SIZE) as disk:
        fd = os.open(disk.point / "log", os.O_RDWR | os.O_CREAT)
        try:
            os.write(fd, bytes(1 << 20))
            os.fsync(fd)
            for overwrites in (True, False):
                before, ours = disk.counted(), disk.state.counted()
                disk.state.slow_down(DELAY_US)
                if not overwrites:
                    os.close(fd)
                    fd = os.open(disk.point / "new", os.O_RDWR | os.O_CREAT)
                os.pwrite(fd, os.urandom(4096), 8192)
                took_s = flushed_s(fd)
                disk.state.slow_down(0)
                did, told = disk.counted() - before, disk.state.counted() - ours
                flushes = 1 if overwrites else 2
                assert (did.flushes, told.flushes) == (flushes, flushes)
                assert took_s >= flushes * DELAY_US / 1e6
                assert did.written_bytes == told.written_bytes >= 4096
        finally:
            os.close(fd)


def test_nothing_stays_of_a_disk(tmp_path: Path) -> None:
    needs_mounts()

    def fail() -> None:
        with disks.slow("ext4", tmp_path, 1000, SIZE) as disk:
            (disk.point / "file").write_bytes(bytes(100_000))
            assert str(disk.point) in mounts()
            assert Path(f"/sys/block/{disk.device}/loop/backing_file").exists()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert list(tmp_path.iterdir()) == []
    assert str(tmp_path) not in mounts()
    said = subprocess.run(["losetup", "--list"], capture_output=True, text=True, check=True).stdout
    assert str(tmp_path) not in said


def test_what_cannot_be_mounted_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow_one() -> None:
        with disks.slow("ext4", tmp_path, 1000, SIZE):
            raise AssertionError

    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(Absent, match="mounting ext4 takes root"):
        slow_one()
    monkeypatch.undo()
    monkeypatch.setitem(disks.MAKE, "ext4", ("mkfs.ext4", "--no-such-option"))
    if os.geteuid() == 0:
        with pytest.raises(Absent, match=r"^mkfs\.ext4: "):
            slow_one()
    assert list(tmp_path.iterdir()) == []


def test_tables_of_commits(tmp_path: Path) -> None:
    made = results.Results(tmp_path / "r.json", {})
    point = Point("xfs", "3KB", 8, 1)
    old, new, peer = (
        made.cell(SCENARIO, point.disk, name, point._asdict()) for name in ("old", "new", "peer")
    )
    for rate, flushes in ((100.0, 6.0), (120.0, 6.1), (110.0, 5.9)):
        shared = {"response_p50_us": 7300.0, "response_p99_us": 12_000.0}
        old.rounds.append({"rate": rate, **shared, "device_flushes_per_instance": flushes})
        new.rounds.append({"rate": rate * 5, **shared, "written_bytes_per_instance": 10_000.0})
    peer.error = "takes no connections"
    made.ratio("xfs 3KB 8 1: new to old", "rate", new, old)
    made.save()
    lines = markdown(results.read(tmp_path / "r.json")).splitlines()
    assert "| disk | workload | associations | workers | old | new | peer |" in lines
    assert "| xfs | 3KB | 8 | 1 | 110 [100-120] | 550 [500-600] 5.00x | – |" in lines  # noqa: RUF001
    assert "| xfs | 3KB | 8 | 1 | old | 110 | 7.30 | 12.0 | – | 6.00 | – |" in lines  # noqa: RUF001
    assert "| xfs | 3KB | 8 | 1 | new | 550 | 7.30 | 12.0 | – | – | 10.0 |" in lines  # noqa: RUF001
    assert "- xfs/3KB/8/1, peer: takes no connections" in lines


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--disks", "ext4,ntfs"], "no disk 'ntfs'"),
        (["--associations", "1,0"], "no number above 0"),
        (["--sizes", "400MB"], "no size '400MB'"),
        (["--variant", "x"], "is no NAME="),
        (["--receivers", "fastcsp"], "no receiver 'fastcsp'"),
    ],
)
def test_misuse_is_explained(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as raised:
        command.main(words)
    assert raised.value.code == 2
    assert said in capsys.readouterr().err


@pytest.mark.long
@pytest.mark.timeout(300)
def test_two_variants_from_end_to_end(tmp_path: Path) -> None:
    """Each on the disks, with what they stored; one that does not start is named."""
    needs_mounts()
    words = ["--disks", "ext4,btrfs,interposed", "--sizes", "3KB", "--associations", "2"]
    words += ["--rounds", "1", "--seconds", "0.5", "--folder", str(tmp_path)]
    words += ["--variant", "one=", "--variant", "two=--durability buffered"]
    words += ["--variant", "three=--no-such-flag", "--out", str(tmp_path / "r.json")]
    done = subprocess.run(
        [sys.executable, "-m", "bench.flush", *words], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 1, done.stdout + done.stderr
    cells = results.read(tmp_path / "r.json")["cells"]
    assert len(cells) == 9
    for cell in cells:
        if cell["receiver"] == "three":
            assert "did not start" in cell["error"]
            continue
        figures = cell["figures"]
        assert figures["same_bytes"]["median"] > figures["instances"]["median"] > 0
        if cell["receiver"] == "one":
            assert figures["device_flushes_per_instance"]["median"] > 0.1
        else:
            # What the file system does by itself, in the background.
            most = 20 * (SETTLE_S + 0.5) / figures["instances"]["median"]
            assert figures["device_flushes_per_instance"]["median"] < most
    assert [path.name for path in tmp_path.iterdir()] == ["r.json"]
    assert str(tmp_path) not in mounts()
