"""JSON Web Tokens against the whole service: who is let in, and what is told of it."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from fastscp_ext import UserIdentity
from tests.kit import RELEASE_RP, RELEASE_RQ, Peer, Service, reject, send_signal, store
from tests.showing import answer, response, rq
from tests.tokens import claims, jwk, private, public, token, write_keys

if TYPE_CHECKING:
    from collections.abc import Callable

WRONG: Final = reject(1, 2, 1)


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """A file with the public key that checks what `token` signs by default."""
    return write_keys(
        tmp_path / "keys.json", public("P-256", "k1"), public("RSA", "enc", use="enc")
    )


def showing(text: bytes, *, confirm: bool = False) -> bytes:
    return rq(UserIdentity(5, confirm, text, b""))


def now() -> int:
    return int(time.time())


# What is shown, whether that is let in where it is required and where it is not, and what the log
# says of it where it is not.
SHOWN: Final[dict[str, tuple[Callable[[], UserIdentity | None], bool, bool, str]]] = {
    "right": (lambda: UserIdentity(5, False, token(), b""), True, True, ""),
    "right, in a line": (lambda: UserIdentity(5, False, token() + b"\r\n", b""), True, True, ""),
    "right, for us": (
        lambda: UserIdentity(5, False, token(claims(aud=["FASTSCP"])), b""), True, True, "",
    ),
    "none": (lambda: None, False, True, "shows no user identity, and --user-identity wants a JSON"),
    "a password": (
        lambda: UserIdentity(2, True, b"jo", b"sesame"), False, True,
        "shows a user name and a passcode, and --user-identity wants a JSON Web Token",
    ),
    "of another kind": (
        lambda: UserIdentity(1, True, token(), b""), False, True, "a user name without a passcode",
    ),
    "empty": (
        lambda: UserIdentity(5, False, b"", token()), False, False,
        "JSON Web Token: it is not three parts in base64url",
    ),
    "of another key": (
        lambda: UserIdentity(5, False, token(key=private("P-256", 1)), b""), False, False,
        "JSON Web Token: its signature is wrong",
    ),
    "expired": (
        lambda: UserIdentity(5, True, token(claims(exp=now() - 99)), b""), False, False,
        "JSON Web Token of user 'jo': it expired at 20",
    ),
    "for others": (
        lambda: UserIdentity(5, True, token(claims(sub="mo", aud="PACS")), b""), False, False,
        "JSON Web Token of user 'mo': it is for others",
    ),
    "as long as can be": (
        lambda: UserIdentity(5, False, b"a" * 65000, b""), False, False,
        "JSON Web Token: it has more than 16384 bytes",
    ),
}  # fmt: skip


@pytest.mark.parametrize("form", ["jwt", "jwt?"])
def test_who_is_let_in(tmp_path: Path, keys: Path, form: str) -> None:
    with Service(tmp_path, "--user-identity", f"{form}:{keys}", workers=1) as service:
        peers = {
            name: Peer(service.host, service.port, source=f"127.0.0.{n}")
            for n, name in enumerate(SHOWN, start=2)
        }
        try:
            # Side by side: wrong ones have to wait.
            for name, peer in peers.items():
                peer.send(rq(SHOWN[name][0]()))
            for name, peer in peers.items():
                got = peer.read_pdu()
                assert got is not None
                _, required, optional, _ = SHOWN[name]
                assert (got[0] == 2) is (required if form == "jwt" else optional), name
                if got[0] == 2:
                    assert response(got) is None
                    peer.release()
                else:
                    assert got == WRONG, name
        finally:
            for peer in peers.values():
                peer.close()
    log = service.log()
    for name, (_, _, optional, why) in SHOWN.items():
        assert why in log or (form == "jwt?" and optional), name
    assert log.count("user 'jo', 4 of 4 presentation contexts") == 3


def test_a_user_is_named_and_its_token_never(tmp_path: Path, keys: Path) -> None:
    """In the log, whatever its level and form, the journal, and all else that can be looked at."""
    good, bad = token(claims(sub="Zoë")), token(claims(aud="PACS"))
    flags = ("-vv", "--log-format", "json", "--user-identity", f"jwt:{keys}")
    with Service(tmp_path, *flags, workers=1) as service:
        with Peer(service.host, service.port) as peer:
            ac = peer.associate(showing(good, confirm=True))
            assert ac is not None
            # There is nothing to add to it.
            assert response(ac) == b""
            peer.send(store())
            assert peer.read_response().status == 0
            (fact,) = service.journal()
            assert fact["user"] == "Zoë"
            peer.send(RELEASE_RQ)
            assert peer.read_pdu() == RELEASE_RP
        assert answer(service, showing(bad)) == WRONG
        shown = b"".join(
            Path(f"/proc/{pid}/{name}").read_bytes()
            for pid in (service.process.pid, *service.worker_pids())
            for name in ("cmdline", "environ", "comm")
        )
    log = service.log()
    assert '"user":"Zoë"' in log
    assert "UserIdentity(type=5" in log
    files = (file for file in (tmp_path / "store").rglob("*") if file.is_file())
    written = log.encode() + b"".join(file.read_bytes() for file in files) + shown
    for text in (good, bad):
        for part in text.split(b"."):
            assert part not in written


def test_what_is_asked_of_tokens(tmp_path: Path, keys: Path) -> None:
    """An issuer and an audience stand behind the file's name, and hold until a reload."""
    asked = f"jwt:{keys} issuer=https://example.com/a audience=dicom"
    config = tmp_path / "config.toml"
    config.write_text(f'user-identity = "{asked}"\n')
    good = token(claims(iss="https://example.com/a", aud=["dicom", "web"]))
    with Service(tmp_path, "--config", str(config), workers=1) as service:
        assert answer(service, showing(good))[0] == 2
        assert answer(service, showing(token())) == WRONG
        config.write_text(f'user-identity = "{asked} audience=other"\n'.replace("dicom", "pacs"))
        service.process.send_signal(signal.SIGHUP)
        service.in_log(f"user-identity: {asked} -> jwt:{keys} issuer=https://example.com/a audienc")
        service.followed()
        assert answer(service, showing(good)) == WRONG


def test_changed_keys_hold_from_the_reload_on(tmp_path: Path, keys: Path) -> None:
    """Who is there stays, a token of the older key is refused, and a bad file changes nothing."""
    old, new = token(), token(kid="k2", key=private("P-256", 1))
    with Service(tmp_path, "--user-identity", f"jwt:{keys}") as service:
        assert answer(service, showing(old))[0] == 2
        with Peer(service.host, service.port) as there:
            assert (there.associate(showing(old)) or b"")[0] == 2
            write_keys(keys, public("P-256", "k2", number=1))
            service.process.send_signal(signal.SIGHUP)
            assert "its file has other contents" in service.in_log("reload 2: user-identity")
            service.followed()
            assert answer(service, showing(old)) == WRONG
            assert answer(service, showing(new))[0] == 2
            write_keys(keys, jwk(private("P-256", 1), "k2"))
            service.process.send_signal(signal.SIGHUP)
            said = service.in_log("reload refused: --user-identity")
            assert f"{keys}: key 1 is private, and whoever reads this file can make tokens" in said
            assert answer(service, showing(new))[0] == 2
            there.send(store())
            assert there.read_response().status == 0
            there.release()


def test_who_guesses_is_limited(tmp_path: Path, keys: Path) -> None:
    """A flood of tokens has few checks at a time, and whoever is beside it has its turn."""
    with Service(tmp_path, "--user-identity", f"jwt:{keys}", workers=1) as service:
        answer(service, showing(token()))
        with contextlib.ExitStack() as stack:
            flood = [
                stack.enter_context(Peer(service.host, service.port, source="127.0.0.9"))
                for _ in range(60)
            ]
            guesses = [
                showing(token(claims(sub=f"u{n}"), key=private("P-256", 1)))
                for n in range(len(flood))
            ]
            # To sign takes longer than to check: the worker is to find all of them at once.
            (worker,) = service.worker_pids()
            os.kill(worker, signal.SIGSTOP)
            stack.callback(send_signal, worker, signal.SIGCONT)
            for peer, guess in zip(flood, guesses, strict=True):
                peer.send(guess)
            os.kill(worker, signal.SIGCONT)
            assert answer(service, showing(token(claims(sub="mo"))))[0] == 2
            assert {peer.read_pdu() for peer in flood} == {WRONG, reject(2, 3, 1)}
        # One was looked at, and eight waited: now the limit is passed.
        with Peer(service.host, service.port, source="127.0.0.9") as peer:
            assert peer.associate(showing(b"a.b.c")) == WRONG
        service.in_log("127.0.0.9: 10 user identities were wrong within 60 s")
        with Peer(service.host, service.port, source="127.0.0.9") as peer:
            # It cannot tell that this one was right.
            assert peer.associate(showing(token())) == WRONG
        assert answer(service, showing(token()))[0] == 2


@pytest.mark.parametrize("form", ["off", "jwt"])
def test_only_who_checks_tokens_pays_for_that(tmp_path: Path, keys: Path, form: str) -> None:
    flags = ("--user-identity", f"jwt:{keys}" if form == "jwt" else "off")
    with Service(tmp_path, *flags, workers=1) as service:
        assert answer(service, showing(token()))[0] == 2
        maps = Path(f"/proc/{service.worker_pids()[0]}/maps").read_text("utf-8")
        assert ("cryptography" in maps) is (form == "jwt")
