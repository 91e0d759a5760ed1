"""Whoever opens a file under its final name, at any moment, has a whole instance in his hands.

A reader of its own process (reader.py) opens each file the moment it appears, and the known ones
again and again, while several associations send new instances and other versions of them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
import select
import subprocess
import sys
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING

import pytest

from tests.kept.kit_kept import Item, items, send_all, versions_of
from tests.kept.model import POLICIES, Tally
from tests.kept.reader import problem
from tests.kit import DEADLINE_S, Service, data_set, path_of
from tests.scripted import part10

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from tests.kept.conftest import Figures


@dataclass
class Seen:
    """What the reader found, once it has ended. output: of the reader."""

    output: IO[str]
    reads: int = 0
    files: int = 0
    faults: list[str] = field(default_factory=list)

    def wait_for_a_fault(self) -> None:
        ready, _, _ = select.select([self.output], [], [], DEADLINE_S)
        assert ready
        assert self.output.readline() == "a fault\n"


@contextlib.contextmanager
def reading(store: Path, sent: Sequence[Item], folder: Path) -> Iterator[Seen]:
    """Let the reader run; what it found is there after the block."""
    lines = (f"{hashlib.sha256(item.data).hexdigest()} {item.sop}\n" for item in sent)
    (folder / "sent").write_text("".join(lines))
    with subprocess.Popen(
        [sys.executable, "-m", "tests.kept.reader", store, folder / "sent"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            if process.stdout.readline() != "watching\n":
                raise AssertionError(process.communicate(timeout=DEADLINE_S)[1])
            seen = Seen(process.stdout)
            yield seen
            out, err = process.communicate(timeout=DEADLINE_S)
        except BaseException:
            process.kill()
            raise
    assert process.returncode == 0, err
    found = json.loads(out.splitlines()[-1])
    seen.reads, seen.files, seen.faults = found["reads"], found["files"], found["faults"]


def read_while_sending(
    tmp_path: Path, policy: str, *flags: str, new: int, most: int, seed: int = 0
) -> Seen:
    """new: instances, of three versions each. most: bytes of pixel data of the largest ones."""
    rng = random.Random(seed)
    groups = []
    for item in items("1", new, studies=3, series=2):
        pixels = rng.choice((600, 20_000, most))
        groups.append([*versions_of(item, 2, pixels), *versions_of(item, 3, pixels // 2)[2:]])
    shares: list[list[Item]] = [[] for _ in range(4)]
    for group in groups:
        for k, item in enumerate(group):
            shares[(k + rng.randrange(2)) % 4].append(item)
        # The same once more: identical, or a replacement.
        shares[rng.randrange(4)].append(rng.choice(group))
    everything = [item for group in groups for item in group]
    with Service(tmp_path, "--on-duplicate", policy, *flags) as service:
        with reading(service.store, everything, tmp_path) as seen:
            sent = send_all(service.port, (), shares=shares, window=3)
            assert not sent.broken
        assert seen.files == len(service.instances())
    assert seen.files == (len(everything) if policy == "version" else new)
    assert seen.reads > seen.files
    return seen


@pytest.mark.parametrize(
    ("policy", "compress"),
    [("version", "none"), ("replace", "none"), ("replace", "zstd:1"), ("keep", "none"),
     ("refuse", "zstd:1")],
)  # fmt: skip
def test_a_file_is_whole_from_the_first_moment(
    tmp_path: Path, policy: str, compress: str, figures: Figures
) -> None:
    flags = ("--compress", compress)
    seen = read_while_sending(tmp_path, policy, *flags, new=12, most=1_500_000)
    figures.add("a reader beside the service", "", Tally(reads=seen.reads, losses=len(seen.faults)))
    assert seen.faults == []


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("durability", ["stable", "buffered"])
@pytest.mark.parametrize("compress", ["none", "zstd:3"])
@pytest.mark.parametrize("policy", POLICIES)
def test_many_files_are_whole_from_the_first_moment(
    tmp_path: Path, policy: str, compress: str, durability: str, figures: Figures
) -> None:
    flags = ("--compress", compress, "--durability", durability)
    seen = read_while_sending(tmp_path, policy, *flags, new=50, most=8_000_000)
    figures.add("a reader beside the service", "", Tally(reads=seen.reads, losses=len(seen.faults)))
    assert seen.faults == []


def test_the_reader_sees_what_is_not_whole(tmp_path: Path) -> None:
    """Half a file under a final name, for a moment only."""
    (item,) = items("1", 1)
    raw = part10(item.data, sop=item.sop)
    place = tmp_path / "store" / item.path
    (tmp_path / "store").mkdir()
    with reading(tmp_path / "store", [item], tmp_path) as seen:
        place.parent.mkdir(parents=True)
        with place.open("wb") as file:
            file.write(raw[:1000])
            file.flush()
            seen.wait_for_a_fault()
            file.write(raw[1000:])
    assert seen.faults
    assert all("not what was sent" in fault or "no header" in fault for fault in seen.faults)


def test_what_the_reader_calls_whole() -> None:
    data, name = data_set(sop="1.2.9"), path_of("1.2.9").rpartition("/")[2]
    sent = {hashlib.sha256(data).hexdigest(): "1.2.9"}
    raw = part10(data, sop="1.2.9")
    assert problem(raw, name, sent) == ""
    assert problem(raw, f"{name}~2", sent) == ""
    assert "no header" in problem(raw[:100], name, sent)
    assert "not what was sent" in problem(raw[:-2], name, sent)
    assert "not what was sent" in problem(raw + b"\0\0", name, sent)
    assert "in its header" in problem(raw, "1.2.8.dcm", sent)
    assert "in its header" in problem(part10(data, sop="1.2.7"), name, sent)
    assert "no whole frame" in problem(raw, f"{name}.zst", sent)
