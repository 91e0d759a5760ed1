"""Several senders at once, an instance larger than any buffer, and all ways to keep one."""

from __future__ import annotations

import hashlib
import os
import struct
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fastscp_ext import crc32c
from tests.interop.material import (
    Instance,
    data_set_at,
    dcmtk,
    made_up,
    same_bytes,
    stored,
    write_part10,
)
from tests.interop.senders import associated, run
from tests.kit import CT, DEADLINE_S, ELE, Service, data_set

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.interop

SENDERS = 4


def test_senders_in_parallel(tmp_path: Path) -> None:
    """Eight associations at once, by two implementations: everything is there as it was sent."""
    batches = [
        made_up(tmp_path / f"files-{n}", f"1.2.3.70.{n}", 40, pixels=40_000 + 2 * n)
        for n in range(2 * SENDERS)
    ]
    begin = threading.Barrier(SENDERS + 1, timeout=DEADLINE_S)

    def send(service: Service, batch: list[Instance]) -> None:
        with associated(service) as scu:
            begin.wait()
            for one in batch:
                assert scu.send_c_store(one.path).Status == 0

    with Service(tmp_path) as service, ThreadPoolExecutor(SENDERS) as pool:
        threads = [pool.submit(send, service, batch) for batch in batches[SENDERS:]]
        begin.wait()
        processes = [
            subprocess.Popen(
                [
                    *(dcmtk("storescu"), "--scan-directories"),
                    *(service.host, str(service.port), batch[0].path.parent),
                ],
                env=os.environ | {"TCP_NODELAY": "1"},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            for batch in batches[:SENDERS]
        ]
        try:
            assert [process.wait(DEADLINE_S) for process in processes] == [0] * SENDERS
        finally:
            for process in processes:
                process.kill()
                process.wait()
        for thread in threads:
            thread.result(DEADLINE_S)

        kept = list(stored(service))
        assert len({one.fact["association"] for one in kept}) == 2 * SENDERS
        assert len({one.fact["worker"] for one in kept}) == 2
        sent = {one.sop_instance: one.data_set for batch in batches for one in batch}
        assert {one.fact["sop_instance_uid"]: one.data_set for one in kept} == sent
        assert len(kept) == len(service.instances()) == len(sent)


PIXEL_DATA = 400 << 20
MEMORY = 16 << 20


@pytest.fixture
def large(tmp_path: Path) -> Iterator[Path]:
    """A multi-frame object of 400 MiB; a number in each page, the rest of it a hole."""
    path = tmp_path / "large.dcm"
    head = data_set(ELE, sop="1.2.3.71", pixels=0)[:-12]
    head += struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OW", 0, PIXEL_DATA)
    write_part10(path, head, sop_class=CT, sop_instance="1.2.3.71", transfer_syntax=ELE)
    with path.open("r+b") as file:
        begin = file.seek(0, os.SEEK_END)
        file.truncate(begin + PIXEL_DATA)
        for at in range(begin, begin + PIXEL_DATA - 8, 1 << 16):
            os.pwrite(file.fileno(), struct.pack("<Q", at), at)
    yield path
    path.unlink()


def memory(pid: int, key: str) -> int:
    """A figure of /proc, in bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == key:
            return int(value.removesuffix("kB")) << 10
    raise AssertionError(f"no {key}")


def test_large_instance(tmp_path: Path, large: Path) -> None:
    """It streams: the workers' memory does not grow with it."""
    (small,) = made_up(tmp_path / "files", "1.2.3.72", 1)
    with Service(tmp_path) as service:
        run("storescu", service.host, str(service.port), small.path)
        before = {pid: memory(pid, "VmRSS") for pid in service.worker_pids()}
        run(
            "storescu", service.host, str(service.port), large,
            env={"TCP_NODELAY": "1"},
        )  # fmt: skip
        # The most it ever was, before or since.
        grown = {pid: memory(pid, "VmHWM") - size for pid, size in before.items()}
        assert max(grown.values()) < MEMORY
        fact = service.journal()[-1]
        path = service.store / fact["path"]
        with large.open("rb") as sent, path.open("rb") as kept:
            sent_from, kept_from = data_set_at(sent.read(4096)), data_set_at(kept.read(4096))
        assert same_bytes(large, sent_from, path, kept_from)
        assert fact["bytes"] == large.stat().st_size - sent_from
        path.unlink()


# Whether it is flushed and what is summed up have nothing to do with each other.
@pytest.mark.parametrize(
    ("durability", "digest"),
    [
        ("stable", "crc32c"),
        ("stable", "none"),
        ("buffered", "sha256"),
        ("buffered", "none"),
        pytest.param("stable", "sha256", marks=pytest.mark.long),
        pytest.param("buffered", "crc32c", marks=pytest.mark.long),
    ],
)
def test_durability_and_digest(tmp_path: Path, durability: str, digest: str) -> None:
    instances = made_up(tmp_path / "files", "1.2.3.73", 5, pixels=70_000)
    with Service(tmp_path, "--durability", durability, "--digest", digest) as service:
        run("storescu", service.host, str(service.port), *(one.path for one in instances))
        kept = list(stored(service))
    assert [one.data_set for one in kept] == [one.data_set for one in instances]
    for one in kept:
        expected = {
            "crc32c": f"crc32c:{crc32c(one.data_set):08x}",
            "sha256": f"sha256:{hashlib.sha256(one.data_set).hexdigest()}",
            "none": None,
        }
        assert one.fact.get("digest") == expected[digest]
