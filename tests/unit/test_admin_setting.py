"""Where the service answers HTTP, and the token that it asks for: what is taken, and what not."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from fastscp.config.admin import AdminAddress, AdminToken, read_admin, read_admin_token
from fastscp.config.changes import changes
from fastscp.config.layers import load
from fastscp.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

TOKEN = "0123456789abcdef"


@pytest.fixture
def token(tmp_path: Path) -> Path:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n", encoding="ascii")
    file.chmod(0o600)
    return file


@pytest.mark.parametrize(
    ("text", "host", "port", "shown"),
    [
        ("127.0.0.1:8112", "127.0.0.1", 8112, "127.0.0.1:8112"),
        ("localhost:0", "127.0.0.1", 0, "127.0.0.1:0"),
        ("[::1]:80", "::1", 80, "[::1]:80"),
        ("[0:0::1]:80", "::1", 80, "[::1]:80"),
        (" OFF ", "", 0, "off"),
    ],
)
def test_addresses(text: str, host: str, port: int, shown: str) -> None:
    one = read_admin(text)
    assert (one.host, one.port, one.is_given, str(one)) == (host, port, True, shown)
    assert one.is_local


def test_the_default_is_known_from_the_same_words() -> None:
    """Where another program has the port it matters whether anybody asked for it."""
    default, given = load({}, {}).config, load({"admin": "127.0.0.1:8112"}, {}).config
    assert not default.admin.is_given
    assert given.admin.is_given
    assert list(changes(default, given)) == []


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]", "192.0.2.1"])
def test_beyond_this_machine_only_with_a_token(host: str, token: Path) -> None:
    with pytest.raises(ConfigError, match="is reached from other machines, and no --admin-token"):
        load({"admin": f"{host}:1"}, {})
    # Wherever the two are from.
    config = load({"admin": f"{host}:1"}, {"FASTSCP_ADMIN_TOKEN_FILE": str(token)}).config
    assert config.admin_token_file.token == TOKEN.encode()
    assert not config.admin.is_local


def test_a_token_is_shown_nowhere(token: Path) -> None:
    config = load({"admin_token_file": str(token)}, {}).config
    assert str(config.admin_token_file) == str(token)
    assert TOKEN not in repr(config)


def test_what_else_may_read_it_is_told(token: Path) -> None:
    assert read_admin_token(str(token)).warning == ""
    token.chmod(0o644)
    assert "every user of this machine can read the token" in read_admin_token(str(token)).warning


@pytest.mark.parametrize("mode", [0o620, 0o602])
def test_what_others_may_change_is_refused(token: Path, mode: int) -> None:
    token.chmod(mode)
    with pytest.raises(ValueError, match=r"may be changed by others .* \(chmod go-w\)"):
        read_admin_token(str(token))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "holds no token of 16 to 1024 characters"),
        (b"0123456789abcde\n", "holds no token of 16 to 1024 characters"),
        (b"x" * 1025, "holds no token of 16 to 1024 characters"),
        (b"0123456789abcdef\n0123456789abcdef\n", "more than one line"),
        (b"0123456789abcde f", "without blanks"),
        (b"0123456789abcde\xe9", "printable ASCII"),
        (b"0123456789abcde\x00", "printable ASCII"),
    ],
)
def test_what_is_no_token(token: Path, data: bytes, said: str) -> None:
    token.write_bytes(data)
    with pytest.raises(ValueError, match=said) as caught:
        read_admin_token(str(token))
    assert "0123456789" not in str(caught.value)


def test_a_fifo_holds_nobody_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(ValueError, match="it is no file"):
        read_admin_token(str(tmp_path / "fifo"))


def test_a_reload_finds_another_token(token: Path) -> None:
    before = load({"admin_token_file": str(token)}, {}).config
    token.write_text("fedcba9876543210", encoding="ascii")
    after = load({"admin_token_file": str(token)}, {}).config
    ((field, said),) = changes(before, after)
    assert field == "admin_token_file"
    assert said == f"admin-token-file: {token}: its file has other contents"


def test_nothing_listens_and_nothing_is_asked_for() -> None:
    assert not AdminAddress("", 0)
    assert not AdminToken()
