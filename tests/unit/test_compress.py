"""Compressed instances: made, read back, and told apart from others in a store of both forms."""

from __future__ import annotations

import io
import os
import resource
import signal
from typing import TYPE_CHECKING, Any

import pytest
import zstandard

from fastscp.store.compress import level_of, open_part10, twin
from fastscp.store.duplicates import Outcome, Resolution, vouched
from fastscp.store.journal import append_fact
from fastscp.store.store import Store
from fastscp_ext import Shared, build_meta, crc32c, status
from tests.kit import CT, ELE, ILE, SOP, data_set
from tests.stores import compressed, filed, replacing, resolved

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("no_descriptor_left")

LAYOUT = "{SOPInstanceUID}.dcm"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def noise(size: int) -> bytes:
    """Bytes that do not compress, always the same."""
    return b"".join(crc32c(b"%d" % n).to_bytes(4, "big") for n in range(size // 4 + 1))[:size]


# Compressing ------------------------------------------------------------------------------------


def test_level_of() -> None:
    assert [level_of(form) for form in ("none", "zstd", "zstd:1", "zstd:19")] == [0, 3, 1, 19]


@pytest.mark.parametrize("level", [1, 3, 19])
@pytest.mark.parametrize("size", [0, 1, 1000, (1 << 20) - 1, 1 << 20, (5 << 20) + 7])
def test_there_and_back(tmp_path: Path, folder: int, level: int, size: int) -> None:
    content = noise(size // 2) + bytes(size - size // 2)
    (tmp_path / "00000001.part").write_bytes(content)
    name, fd = compressed(folder, "00000001.part", level)
    try:
        assert name == "00000001.zst"
        # The commit flushes through it, so it has to be the one that wrote.
        assert os.lseek(fd, 0, os.SEEK_CUR) == os.fstat(fd).st_size
        assert os.fstat(fd).st_ino == (tmp_path / name).stat().st_ino
    finally:
        os.close(fd)
    assert (tmp_path / "00000001.part").read_bytes() == content
    packed = (tmp_path / name).read_bytes()
    assert zstandard.frame_content_size(packed) == size
    assert zstandard.get_frame_parameters(packed).has_checksum
    assert zstandard.ZstdDecompressor().decompress(packed) == content
    if size > 2000:
        assert len(packed) < size * 0.6
    with open_part10(name, folder) as file:
        assert file.read() == content


def test_a_full_disk_leaves_nothing(tmp_path: Path, folder: int) -> None:
    content = noise(3 << 20)
    (tmp_path / "1.part").write_bytes(content)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        # Cuts the second write short and refuses the next.
        resource.setrlimit(resource.RLIMIT_FSIZE, ((1 << 20) + 1000, limits[1]))
        with pytest.raises(OSError, match="File too large"):
            compressed(folder, "1.part", 3)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert os.listdir(tmp_path) == ["1.part"]
    assert (tmp_path / "1.part").read_bytes() == content


def test_what_cannot_be_compressed(tmp_path: Path, folder: int) -> None:
    with pytest.raises(FileNotFoundError):
        compressed(folder, "1.part", 3)
    (tmp_path / "1.part").write_bytes(b"x")
    (tmp_path / "1.zst").write_bytes(b"y")
    with pytest.raises(FileExistsError):
        compressed(folder, "1.part", 3)
    assert (tmp_path / "1.zst").read_bytes() == b"y"


# Reading ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"\x28", b"\x28\xb5\x2f", bytes(300)])
def test_what_is_not_compressed_is_read_as_it_is(
    tmp_path: Path, folder: int, content: bytes
) -> None:
    # The content decides, not the name.
    (tmp_path / "1.dcm.zst").write_bytes(content)
    with open_part10("1.dcm.zst", folder) as file:
        assert file.read() == content


def test_a_version_of_a_compressed_file(tmp_path: Path, folder: int) -> None:
    (tmp_path / "1.dcm.zst~2").write_bytes(zstandard.ZstdCompressor().compress(b"content"))
    with open_part10("1.dcm.zst~2", folder) as file:
        assert [file.read(4), file.read(100), file.read(1)] == [b"cont", b"ent", b""]


def test_a_frame_that_does_not_say_its_size(tmp_path: Path, folder: int) -> None:
    packed = io.BytesIO()
    with zstandard.ZstdCompressor().stream_writer(packed, closefd=False) as writer:
        writer.write(b"content")
    assert zstandard.frame_content_size(packed.getvalue()) == -1
    (tmp_path / "1").write_bytes(packed.getvalue())
    with open_part10("1", folder) as file:
        assert file.read() == b"content"


# The last four bytes are a checksum: without them nothing is lost.
@pytest.mark.parametrize("left", [5, 40, 100_000, -5])
def test_a_cut_file_is_an_error(tmp_path: Path, folder: int, left: int) -> None:
    (tmp_path / "1.part").write_bytes(noise(200_000))
    name, fd = compressed(folder, "1.part", 3)
    os.close(fd)
    packed = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(packed[:left])
    with pytest.raises(zstandard.ZstdError), open_part10(name, folder) as file:
        list(iter(lambda: file.read(1 << 16), b""))


def test_a_flipped_bit_is_an_error(tmp_path: Path, folder: int) -> None:
    (tmp_path / "1.part").write_bytes(noise(200_000))
    name, fd = compressed(folder, "1.part", 3)
    os.close(fd)
    packed = bytearray((tmp_path / name).read_bytes())
    packed[100_000] ^= 1
    (tmp_path / name).write_bytes(packed)
    with pytest.raises(zstandard.ZstdError), open_part10(name, folder) as file:
        file.read()


def test_links_are_not_followed(tmp_path: Path, folder: int) -> None:
    (tmp_path / "1").write_bytes(b"x")
    (tmp_path / "2").symlink_to("1")
    with pytest.raises(OSError, match="symbolic"), open_part10("2", folder):
        pass


@pytest.mark.parametrize(
    ("path", "other"),
    [
        ("a/1.dcm", "a/1.dcm.zst"),
        ("a/1.dcm~2", "a/1.dcm.zst~2"),
        ("a/1.dcm~9", "a/1.dcm.zst~9"),
        ("a/1~x/1.dcm", "a/1~x/1.dcm.zst"),
        ("a~3/1.dcm", "a~3/1.dcm.zst"),
        ("1~.dcm", "1~.dcm.zst"),
    ],
)
def test_twin(path: str, other: str) -> None:
    assert twin(path) == other
    assert twin(other) == path


# A store of both forms --------------------------------------------------------------------------


class Mixed:
    """A store made uncompressed, then changed to compressed, with one life's incoming folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        Store.open(path, filed(LAYOUT)).close()
        self.store = Store.open(path, filed(LAYOUT, ".dcm.zst"), layout_change=True)
        life = path / ".fastscp/incoming/life"
        life.mkdir()
        self.incoming = life
        self.incoming_fd = os.open(life, os.O_RDONLY | os.O_DIRECTORY)
        self._number = 0

    def close(self) -> None:
        os.close(self.incoming_fd)
        self.store.close()

    def put(self, path: str, data: bytes, syntax: str = ELE, *, header: bytes = b"1.2.3") -> None:
        content = part10(data, syntax, header)
        if ".zst" in path:
            content = zstandard.ZstdCompressor().compress(content)
        (self.path / path).write_bytes(content)

    def part(self, data: bytes, syntax: str = ELE, *, packed: bool = True) -> str:
        self._number += 1
        name = f"{self._number:08x}.part"
        (self.incoming / name).write_bytes(part10(data, syntax, b"1.2.4"))
        if not packed:
            return name
        packed_name, fd = compressed(self.incoming_fd, name, 3)
        os.close(fd)
        (self.incoming / name).unlink()
        return packed_name

    def resolve(self, part: str, path: str, policy: str, **more: Any) -> Outcome:
        resolution = Resolution(
            self.store.dir_fd, self.incoming_fd, part, path,
            policy=policy, durable=True, mixed=True, replaced=replacing(self.store.dir_fd), **more,
        )  # fmt: skip
        outcome = resolved(resolution)
        assert (outcome.lock_fd >= 0) == (outcome.kind != "refused")
        if outcome.lock_fd >= 0:
            os.close(outcome.lock_fd)
        return outcome

    def journal(self, path: str, data: bytes, sequence: int = 1) -> None:
        fact = {
            "v": 1,
            "event": "stored",
            "seq": sequence,
            "path": path,
            "bytes": len(data),
            "digest": f"crc32c:{crc32c(data):08x}",
            "durability": "buffered",
        }
        with (self.path / f".fastscp/journal/{sequence}-w-1.jsonl").open("wb") as file:
            append_fact(file.fileno(), fact)

    def names(self) -> set[str]:
        return {name for name in os.listdir(self.path) if name != ".fastscp"}

    def data(self, path: str) -> bytes:
        with open_part10(path, self.store.dir_fd) as file:
            content = file.read()
        return content[144 + int.from_bytes(content[140:144], "little") :]


def part10(data: bytes, syntax: str, implementation: bytes) -> bytes:
    words = (CT.encode(), SOP.encode(), syntax.encode(), implementation, b"KIT", b"CT1", b"")
    return build_meta(*words) + data


@pytest.fixture
def mixed(tmp_path: Path) -> Iterator[Mixed]:
    made = Mixed(tmp_path / "store")
    assert made.store.mixed
    yield made
    made.close()


OLD = data_set(pixels=70_000)
NEW = data_set(pixels=70_000, seed=1)


@pytest.mark.parametrize("policy", ["version", "replace", "keep", "refuse"])
@pytest.mark.parametrize("there", ["1.dcm", "1.dcm.zst"])
@pytest.mark.parametrize("packed", [True, False])
def test_an_identical_resend_in_any_form(
    mixed: Mixed, policy: str, there: str, packed: bool
) -> None:
    mixed.put(there, OLD)
    path = "1.dcm.zst" if packed else "1.dcm"
    outcome = mixed.resolve(mixed.part(OLD, packed=packed), path, policy)
    assert (outcome.kind, outcome.path) == ("identical", there)
    assert mixed.names() == {there}
    assert len(os.listdir(mixed.incoming)) == 1


@pytest.mark.parametrize(
    ("policy", "kind", "path", "names"),
    [
        ("version", "version", "1.dcm.zst~2", {"1.dcm", "1.dcm.zst~2"}),
        ("replace", "replaced", "1.dcm.zst", {"1.dcm", "1.dcm.zst"}),
        ("keep", "kept", "1.dcm", {"1.dcm"}),
        ("refuse", "refused", "1.dcm", {"1.dcm"}),
    ],
)
def test_a_different_resend_in_the_other_form(
    mixed: Mixed, policy: str, kind: str, path: str, names: set[str]
) -> None:
    mixed.put("1.dcm", OLD)
    outcome = mixed.resolve(mixed.part(NEW), "1.dcm.zst", policy)
    assert (outcome.kind, outcome.path) == (kind, path)
    assert outcome.status == (status.CANNOT_UNDERSTAND if kind == "refused" else 0)
    assert mixed.names() == names
    assert mixed.data("1.dcm") == OLD
    if kind in ("version", "replaced"):
        assert mixed.data(path) == NEW
        assert os.listdir(mixed.incoming) == []


def test_versions_of_both_forms(mixed: Mixed) -> None:
    mixed.put("1.dcm", OLD)
    mixed.put("1.dcm~2", NEW)
    assert mixed.resolve(mixed.part(NEW), "1.dcm.zst", "version").path == "1.dcm~2"
    other = data_set(pixels=70_000, seed=2)
    outcome = mixed.resolve(mixed.part(other), "1.dcm.zst", "version")
    assert (outcome.kind, outcome.path) == ("version", "1.dcm.zst~3")
    assert mixed.data("1.dcm.zst~3") == other


def test_no_more_versions(mixed: Mixed) -> None:
    mixed.put("1.dcm", OLD)
    for number in range(2, 10):
        mixed.put(f"1.dcm~{number}", data_set(seed=number))
    outcome = mixed.resolve(mixed.part(NEW), "1.dcm.zst", "version")
    assert (outcome.kind, outcome.status) == ("refused", status.CANNOT_UNDERSTAND)
    assert len(mixed.names()) == 9


@pytest.mark.parametrize("use_link", [True, False])
def test_a_name_that_became_free(mixed: Mixed, use_link: bool) -> None:
    outcome = mixed.resolve(mixed.part(NEW), "1.dcm.zst", "version", use_link=use_link)
    assert (outcome.kind, outcome.path) == ("named", "1.dcm.zst")
    assert mixed.data("1.dcm.zst") == NEW
    assert os.listdir(mixed.incoming) == []


@pytest.mark.parametrize("there", ["1.dcm", "1.dcm.zst"])
def test_another_transfer_syntax_is_another_instance(mixed: Mixed, there: str) -> None:
    mixed.put(there, OLD)
    outcome = mixed.resolve(mixed.part(OLD, ILE), "1.dcm.zst", "version")
    assert (outcome.kind, outcome.path) == ("version", "1.dcm.zst~2")


@pytest.mark.parametrize(
    "other", [OLD[:-2], OLD + b"\0\0", OLD[:1] + b"\xff" + OLD[2:], OLD[:-1] + b"\xff"]
)
def test_nearly_the_same_is_different(mixed: Mixed, other: bytes) -> None:
    mixed.put("1.dcm", other)
    assert mixed.resolve(mixed.part(OLD), "1.dcm.zst", "keep").kind == "kept"


def test_a_damaged_file_does_not_keep_its_resend_away(mixed: Mixed) -> None:
    mixed.put("1.dcm.zst", OLD)
    there = mixed.path / "1.dcm.zst"
    there.write_bytes(there.read_bytes()[:-5])
    outcome = mixed.resolve(mixed.part(OLD), "1.dcm.zst", "version")
    assert (outcome.kind, outcome.path) == ("version", "1.dcm.zst~2")


@pytest.mark.parametrize("policy", ["version", "keep", "refuse"])
@pytest.mark.parametrize("there", ["1.dcm", "1.dcm.zst"])
def test_after_an_unclean_buffered_life(mixed: Mixed, policy: str, there: str) -> None:
    """A file that no line vouches for is replaced, whatever the policy; one with a line is not."""
    mixed.put(there, OLD)
    cut = (mixed.path / there).read_bytes()[:-5]
    mixed.journal(there, OLD)
    assert vouched(mixed.store.dir_fd, there)
    assert (
        mixed.resolve(mixed.part(NEW), there, policy, suspect=Shared().liveness).kind != "replaced"
    )
    (mixed.path / there).write_bytes(cut)
    assert not vouched(mixed.store.dir_fd, there)
    outcome = mixed.resolve(
        mixed.part(OLD, packed=there != "1.dcm"), there, policy, suspect=Shared().liveness
    )
    assert (outcome.kind, outcome.path) == ("replaced", there)
    assert mixed.data(there) == OLD


def test_a_failing_disk_is_an_outcome(mixed: Mixed, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_fd: int) -> None:
        raise OSError(5, "failed")

    mixed.put("1.dcm.zst", OLD)
    part = mixed.part(OLD)
    monkeypatch.setattr(os, "fsync", fail)
    outcome = mixed.resolve(part, "1.dcm.zst", "version")
    assert (outcome.kind, outcome.status, outcome.error_no) == (
        "refused",
        status.OUT_OF_RESOURCES,
        5,
    )
