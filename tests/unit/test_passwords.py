"""The file of user names and hashes: what an entry is, what is none, what a comparison costs."""

from __future__ import annotations

import hashlib
import itertools
import os
from typing import TYPE_CHECKING, Any

import pytest

from fastscp.guarded import FILE_MOST
from fastscp.users import passwords
from fastscp.users.identities import UserIdentities
from fastscp.users.passwords import (
    NAME_MOST,
    Entry,
    make_entry,
    name_of,
    parse,
    read_passwords,
    verify,
)

if TYPE_CHECKING:
    from pathlib import Path

JO = make_entry("jo", b"sesame")


def entry(line: str) -> Entry:
    (one,), mistakes = parse(line.encode())
    assert mistakes == []
    return one


def mistake(line: str | bytes) -> str:
    entries, (one,) = parse(line.encode() if isinstance(line, str) else line)
    assert entries == ()
    return one


@pytest.mark.parametrize("passcode", [b"sesame", "Öffne dich".encode(), b"\xff\x01", b"x" * 65535])
def test_an_entry_knows_its_password_and_no_other(passcode: bytes) -> None:
    one = entry(make_entry("jo", passcode))
    assert verify(one, passcode)
    assert not any(verify(one, other) for other in (b"", passcode + b"x", passcode[:-1]))


def test_two_entries_of_one_password_have_nothing_in_common() -> None:
    first, second = (entry(make_entry("jo", b"sesame")) for _ in range(2))
    assert first.salt != second.salt
    assert first.hash != second.hash


def test_the_hash_is_the_one_of_rfc_7914() -> None:
    """The test vector of section 12 with N of 16384, cut to what an entry holds."""
    wanted = bytes.fromhex("7023bdcb3afd7348461c06cd81fd38ebfda8fbba904f8e3ea9b543f6545da1f2")
    assert passwords._hashed(b"pleaseletmein", b"SodiumChloride") == wanted


def test_a_name_that_is_not_there_costs_what_one_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not timed, which says little on a busy machine: the work itself is looked at."""
    done: list[dict[str, Any]] = []
    scrypt = hashlib.scrypt

    def noted(passcode: bytes, **how: Any) -> bytes:
        done.append({**how, "passcode": passcode})
        return scrypt(passcode, **how)

    one = entry(JO)
    monkeypatch.setattr(hashlib, "scrypt", noted)
    assert verify(one, b"sesame")
    assert not verify(one, b"wrong!")
    assert not verify(None, b"sesame")
    assert len(done) == 3
    costs = {tuple(how[word] for word in ("n", "r", "p", "dklen")) for how in done}
    assert len(costs) == 1
    assert len({len(how["salt"]) for how in done}) == 1


def test_nobody_is_let_in_by_the_entry_that_stands_for_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(passwords, "_hashed", lambda *_: passwords._NOBODY.hash)
    assert not verify(None, b"")


def test_what_is_in_a_file() -> None:
    text = f"# who\n\n{JO}\r\n  \nDr. Ä:b:{JO.partition(':')[2]}"
    entries, mistakes = parse(text.encode())
    assert mistakes == []
    assert [one.name for one in entries] == ["jo", "Dr. Ä:b"]
    assert entries[0].hash == entries[1].hash
    assert [name_of(line) for line in text.encode().split(b"\n")] == [
        None, None, "jo", None, "Dr. Ä:b",
    ]  # fmt: skip


HASH = JO.partition(":")[2]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("jo", "no entry NAME:scrypt"),
        (":" + HASH, "has no name"),
        ("jo:sesame", "no hash of scrypt"),
        ("jo:$2y$10$abcdefghijklmnopqrstuv", "no hash of scrypt"),
        ("jo:" + HASH.replace("ln=14", "ln=15"), "has other parameters than scrypt"),
        ("jo:" + HASH.replace("p=1", "p=16"), "has other parameters than scrypt"),
        ("jo:" + HASH[:-1], "is cut or changed"),
        ("jo:" + HASH + "A", "is cut or changed"),
        ("jo:" + HASH + "=", "is cut or changed"),
        ("jo:" + HASH + "$", "is cut or changed"),
        ("jo:" + HASH.rpartition("$")[0], "is cut or changed"),
        ("jo :" + HASH, "blanks around"),
        ("j\x07o:" + HASH, "control characters"),
        ("j" * (NAME_MOST + 1) + ":" + HASH, f"more than {NAME_MOST} bytes"),
    ],
    # Not by what is in them: a hash is another one in each process that collects the tests.
    ids=itertools.count(),
)
def test_what_is_no_entry(line: str, why: str) -> None:
    said = mistake("\n" + line)
    assert said.startswith("line 2: ")
    assert why in said
    # Not a secret, and not what may be one put there by mistake.
    assert "sesame" not in said
    assert HASH[-20:] not in said


def test_every_mistake_is_told_with_its_line() -> None:
    entries, mistakes = parse(f"{JO}\n\xff\njo:x\n{JO}\n".encode("latin-1"))
    assert [one.name for one in entries] == ["jo"]
    assert [one.partition(":")[0] for one in mistakes] == ["line 2", "line 3", "line 4"]
    assert "not UTF-8" in mistakes[0]
    assert "'jo' stands in line 1, too" in mistakes[2]


def test_a_file_is_read(tmp_path: Path) -> None:
    file = tmp_path / "users"
    file.write_text(JO + "\n")
    file.chmod(0o600)
    assert read_passwords(file) == ((entry(JO),), "")
    file.chmod(0o640)
    assert read_passwords(file)[1] == ""
    file.chmod(0o644)
    entries, warning = read_passwords(file)
    assert entries == (entry(JO),)
    assert "mode 0644" in warning
    assert "chmod o-r" in warning


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_may_change_is_refused(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "users"
    file.write_text(JO + "\n")
    file.chmod(mode)
    with pytest.raises(ValueError, match=rf"may be changed by others \(mode {mode:04o}\).*chmod"):
        read_passwords(file)


def test_a_file_that_cannot_be_used(tmp_path: Path) -> None:
    file = tmp_path / "users"
    with pytest.raises(ValueError, match=r"cannot read .*users \(No such file.*fastscp password"):
        read_passwords(file)
    file.write_text("# nobody\n")
    file.chmod(0o600)
    with pytest.raises(ValueError, match=r"has no entry; give one that `fastscp password"):
        read_passwords(file)
    file.write_text("jo:secret\n" * 9)
    with pytest.raises(ValueError, match=r"users: line 1: .*; line 5: .*; and 4 more$") as error:
        read_passwords(file)
    assert "secret" not in str(error.value)
    file.write_bytes(b"#" * FILE_MOST + b"#")
    with pytest.raises(ValueError, match=f"is larger than {FILE_MOST} bytes"):
        read_passwords(file)
    # Neither waits for a writer, nor reads what has no end.
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for none in (fifo, tmp_path):
        with pytest.raises(ValueError, match=r"is no file"):
            read_passwords(none)


def test_nothing_shows_a_hash() -> None:
    one = UserIdentities("users", True, (entry(JO),))
    for text in (repr(one), str(one), f"{one.entries}"):
        assert repr(one.entries[0].hash) not in text
        assert HASH[-20:] not in text
    assert str(one) == "password:users"
    assert str(UserIdentities("users")) == "password?:users"
    assert str(UserIdentities()) == "off"
    assert not UserIdentities()
