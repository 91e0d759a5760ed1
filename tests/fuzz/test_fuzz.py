"""A short and repeatable part of the fuzzing; tests/fuzz/README.md says how to do more."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from tests import wire
from tests.fuzz import build, checks, coverage, generate, seeds
from tests.fuzz.__main__ import begin, limits

if TYPE_CHECKING:
    from pathlib import Path

ROUNDS = 2500  # generated inputs a target
SLOW = {"secure": 500}  # three stores each
# Checks in cursor.pxd, each with the same one asking for a byte less than is read.
SEEDED = {
    "u32_be": (
        "    if c.left < 4:\n        return False\n    out[0] = ((<uint32_t>c.at[0] << 24)",
        "    if c.left < 3:\n        return False\n    out[0] = ((<uint32_t>c.at[0] << 24)",
    ),
    "u16_be": (
        "    if c.left < 2:\n        return False\n    out[0] = <uint16_t>((<uint32_t>c.at[0] <",
        "    if c.left < 1:\n        return False\n    out[0] = <uint16_t>((<uint32_t>c.at[0] <",
    ),
    "span": (
        "    if n > c.left:\n        return False\n    out.at = c.at",
        "    if n > c.left + 1:\n        return False\n    out.at = c.at",
    ),
}

why_not = build.missing()
needs_clang = pytest.mark.skipif(bool(why_not), reason=f"no sanitizer build: {why_not}")


@pytest.mark.parametrize(
    "target", range(len(checks.TARGETS)), ids=lambda n: checks.TARGETS[n].__name__
)
def test_generated(target: int) -> None:
    for number in range(SLOW.get(checks.TARGETS[target].__name__, ROUNDS)):
        raw = generate.sample(random.Random(number * 7 + target), target)
        try:
            checks.check(raw)
        except Exception as error:
            pytest.fail(f"input {number}, {raw[:200]!r}: {error!r}")


def test_written_seeds() -> None:
    for raw in seeds.written():
        checks.check(raw)


def test_recorded_seeds() -> None:
    for raw in seeds.recorded():
        checks.check(raw)


def test_mutations_are_repeatable_and_checked() -> None:
    raw = next(seeds.written())
    for seed in range(1000):
        changed = generate.mutate(raw, seed)
        assert changed == generate.mutate(raw, seed)
        checks.check(changed)
        raw = changed or raw


def test_a_wrong_codec_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The checks compare with something: a decoder that says too much fails them."""
    monkeypatch.setattr(checks, "decode_command", lambda data: None)
    with pytest.raises(AttributeError):
        checks.check(checks.pack("command", b""))
    monkeypatch.setattr(checks, "strip_embedded", lambda data, step=0: (step, b""))
    with pytest.raises(AssertionError):
        checks.check(checks.pack("part10", b"x"))


@pytest.fixture(scope="module")
def codec(tmp_path_factory: pytest.TempPathFactory) -> build.Build:
    folder = tmp_path_factory.mktemp("fuzz") / "build"
    return build.build(folder, modules=build.CODEC, quick=True)


@needs_clang
@pytest.mark.timeout(600)
def test_sanitizers_short(codec: build.Build, tmp_path: Path) -> None:
    corpus, dictionary = begin(tmp_path, 600)
    ran = codec.run(*limits(1, dictionary), "-runs=4000", str(corpus), seconds=300)
    assert ran.status == 0, ran.output


@needs_clang
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "check",
    ["u32_be", *(pytest.param(name, marks=pytest.mark.long) for name in ("u16_be", "span"))],
)
def test_a_seeded_bounds_bug_is_found(codec: build.Build, tmp_path: Path, check: str) -> None:
    """The weakened check is in a copy, made here; it starts from nothing but sound PDUs."""
    built = build.weakened(codec, tmp_path / "build", "pdu", "wire/cursor.pxd", *SEEDED[check])
    dictionary = tmp_path / "dictionary"
    dictionary.write_text(seeds.dictionary())
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for name, pdu in wire.PDUS.items():
        (corpus / name).write_bytes(checks.pack("pdu", pdu))
    ran = built.run(*limits(1, dictionary), "-runs=100000", str(corpus), seconds=300)
    assert ran.status != 0
    assert "AddressSanitizer: heap-buffer-overflow" in ran.output


@needs_clang
@pytest.mark.long
@pytest.mark.timeout(1800)
def test_sanitizers_long(tmp_path: Path) -> None:
    """The whole receiver too, for ten minutes."""
    built = build.build(tmp_path / "build")
    corpus, dictionary = begin(tmp_path, 4000)
    ran = built.run(*limits(1, dictionary), "-max_total_time=600", str(corpus), seconds=900)
    assert ran.status == 0, ran.output


@needs_clang
@pytest.mark.long
@pytest.mark.timeout(600)
def test_edges(tmp_path: Path) -> None:
    """The seeds alone reach 95 of 100 edges of what reads received bytes."""
    corpus, _ = begin(tmp_path, 4000)
    built = build.build(tmp_path / "build", modules=build.CODEC, coverage=True)
    parts = coverage.measure(built, corpus)
    for name in (
        "cursor",
        "framing",
        "pdu",
        "command",
        "tap",
        "vr",
        "part10",
        "layout",
        "uid",
        "proxy",
    ):
        assert parts[name].share >= 0.95, "\n".join([coverage.table(parts), *parts[name].missed()])
