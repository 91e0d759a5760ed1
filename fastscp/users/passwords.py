"""A file of user names and hashes of their passwords: made, read, and compared with what is sent.

An entry is a line `NAME:scrypt$ln=14,r=8,p=1$SALT$HASH`, salt and hash in base64 without padding.
All entries cost the same to compare, so that how long a comparison takes tells nobody which names
there are: other parameters than these are refused. Source: RFC 7914.
"""

from __future__ import annotations

import base64
import binascii
import os
import stat
from typing import TYPE_CHECKING, Final

import msgspec

from fastscp.guarded import FILE_MOST, read_guarded, told

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "NAME_MOST",
    "PASSCODE_MOST",
    "Entry",
    "check_name",
    "make_entry",
    "name_of",
    "parse",
    "read_passwords",
    "verify",
]

# Bytes of a name, and of a passcode: the latter is what a request has room for (PS3.7 D.3.3.7.1).
NAME_MOST: Final = 255
PASSCODE_MOST: Final = 0xFFFF

# 2^14 rounds of blocks of 8: 16 MiB for each comparison, and some 50 ms.
_LOG_N: Final = 14
_BLOCK: Final = 8
_PARALLEL: Final = 1
_MEMORY_MOST: Final = 32 << 20
_SCHEME: Final = f"scrypt$ln={_LOG_N},r={_BLOCK},p={_PARALLEL}"
_SALT_BYTES: Final = 16
_HASH_BYTES: Final = 32


class Entry(msgspec.Struct, frozen=True):
    """Whom the file knows. Its hash is no secret like a password, and is still shown to nobody."""

    name: str
    salt: bytes
    hash: bytes

    def __repr__(self) -> str:
        return f"Entry({self.name!r})"


# The file ----------------------------------------------------------------------------------------


def read_passwords(path: Path) -> tuple[tuple[Entry, ...], str]:
    """The entries of a file, and what is not as it should be with it, or "".

    Raises ValueError, which names the file, its lines and the way out, and never what is in them.
    """
    data, about, warning = read_guarded(path, _GIVE)
    entries, mistakes = parse(data)
    if mistakes:
        raise ValueError(f"{path}: {told(mistakes)}")
    if not entries:
        raise ValueError(f"{path} has no entry; {_GIVE}")
    if about.st_mode & stat.S_IROTH:
        mode = stat.S_IMODE(about.st_mode)
        readable = (
            f"every user of this machine can read {path} (mode {mode:04o}), and "
            f"try passwords against its hashes: take that away (chmod o-r)"
        )
        warning = f"{warning}; {readable}" if warning else readable
    return entries, warning


_GIVE: Final = "give one that `fastscp password NAME --file FILE` has made"


def parse(data: bytes) -> tuple[tuple[Entry, ...], list[str]]:
    """The entries of a file's contents, and all that is wrong with it, line by line.

    Empty lines, and lines that begin with #, are none.
    """
    if len(data) > FILE_MOST:
        return (), [f"is larger than {FILE_MOST} bytes"]
    lines: dict[str, int] = {}
    entries: list[Entry] = []
    mistakes: list[str] = []
    for number, line in enumerate(data.split(b"\n"), start=1):
        raw = line.strip()
        if not raw or raw.startswith(b"#"):
            continue
        try:
            entry = _entry(raw.decode("utf-8"))
            if entry.name in lines:
                raise ValueError(f"{entry.name!r} stands in line {lines[entry.name]}, too")
        except UnicodeDecodeError:
            mistakes.append(f"line {number}: is not UTF-8")
        except ValueError as error:
            mistakes.append(f"line {number}: {error}")
        else:
            lines[entry.name] = number
            entries.append(entry)
    return tuple(entries), mistakes


def _entry(line: str) -> Entry:
    name, colon, rest = line.rpartition(":")
    if not colon:
        raise ValueError("is no entry NAME:scrypt$...")
    check_name(name)
    scheme, dollar, salt_and_hash = rest.partition("$")
    parameters, _dollar, values = salt_and_hash.partition("$")
    if scheme != "scrypt" or not dollar:
        raise ValueError("has no hash of scrypt behind the name; make the entry anew")
    if f"{scheme}${parameters}" != _SCHEME:
        raise ValueError(f"has other parameters than {_SCHEME}; make the entry anew")
    salt, _dollar, hash_ = values.partition("$")
    return Entry(name, _decoded(salt, _SALT_BYTES), _decoded(hash_, _HASH_BYTES))


def _decoded(text: str, size: int) -> bytes:
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        data = b""
    if len(data) != size or _encoded(data) != text:
        raise ValueError("has a salt or a hash that is cut or changed; make the entry anew")
    return data


def _encoded(data: bytes) -> str:
    return base64.b64encode(data).rstrip(b"=").decode("ascii")


def check_name(name: str) -> None:
    """Raise ValueError for what cannot be a user's name: the second half of a sentence."""
    if not name:
        raise ValueError("has no name")
    if not name.isprintable() or name != name.strip():
        raise ValueError("has a name with blanks around it, or with control characters in it")
    if name.startswith("#"):
        raise ValueError("has a name that begins with #, as comments do")
    if len(name.encode("utf-8")) > NAME_MOST:
        raise ValueError(f"has a name of more than {NAME_MOST} bytes")


def name_of(line: bytes) -> str | None:
    """The name in a line of a file that `parse` finds nothing wrong with; None: it has none."""
    raw = line.strip()
    if not raw or raw.startswith(b"#"):
        return None
    return raw.decode("utf-8").rpartition(":")[0]


# Hashes ------------------------------------------------------------------------------------------


def make_entry(name: str, passcode: bytes) -> str:
    """The line for a user, without its end. Raises ValueError for a name that cannot be one."""
    check_name(name)
    salt = os.urandom(_SALT_BYTES)
    return f"{name}:{_SCHEME}${_encoded(salt)}${_encoded(_hashed(passcode, salt))}"


_NOBODY: Final = Entry("", bytes(_SALT_BYTES), bytes(_HASH_BYTES))


def verify(entry: Entry | None, passcode: bytes) -> bool:
    """Whether a passcode is the entry's. Costs the same whatever it is, and if there is no entry.

    Cost: some 50 ms of a processor, without the lock of the interpreter, and 16 MiB meanwhile.
    """
    import hmac

    one = _NOBODY if entry is None else entry
    is_right = hmac.compare_digest(_hashed(passcode, one.salt), one.hash)
    return is_right and entry is not None


def _hashed(passcode: bytes, salt: bytes) -> bytes:
    import hashlib

    return hashlib.scrypt(
        passcode, salt=salt, n=1 << _LOG_N, r=_BLOCK, p=_PARALLEL, maxmem=_MEMORY_MOST,
        dklen=_HASH_BYTES,
    )  # fmt: skip
