"""User identities against the whole service: who is let in, who waits, and what is told of it."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import TYPE_CHECKING, Final

import pytest

from fastscp.users.passwords import make_entry
from fastscp_ext import UserIdentity
from tests.kit import (
    RELEASE_RP,
    RELEASE_RQ,
    SOP,
    Peer,
    Service,
    abort,
    reject,
    split_pdus,
    store,
    wait_for,
)
from tests.showing import answer, response, rq

if TYPE_CHECKING:
    from pathlib import Path

SESAME: Final = b"sesame-4711"
WRONG: Final = reject(1, 2, 1)


@pytest.fixture
def users(tmp_path: Path) -> Path:
    """A file that knows jo, whose password is SESAME."""
    file = tmp_path / "users"
    file.write_text(f"# who may\n{make_entry('jo', SESAME)}\n{make_entry('Zoë', SESAME)}\n")
    file.chmod(0o600)
    return file


def jo(passcode: bytes = SESAME, *, user: str = "jo", confirm: bool = False) -> bytes:
    return rq(UserIdentity(2, confirm, user.encode(), passcode))


# What is offered, and the answer where it is required, and where it is not.
OFFERS: Final[dict[str, tuple[UserIdentity | None, bool, bool]]] = {
    "right": (UserIdentity(2, False, b"jo", SESAME), True, True),
    "right, not ASCII": (UserIdentity(2, False, "Zoë".encode(), SESAME), True, True),
    "none": (None, False, True),
    "a name": (UserIdentity(1, True, b"jo", b""), False, True),
    "wrong": (UserIdentity(2, True, b"jo", b"open"), False, False),
    "empty": (UserIdentity(2, False, b"jo", b""), False, False),
    "nobody": (UserIdentity(2, False, b"mo", SESAME), False, False),
    "not UTF-8": (UserIdentity(2, False, b"\xff\x1b[2J", SESAME), False, False),
    "a line": (UserIdentity(2, True, b"jo\n2026 INFO main: forged", SESAME), False, False),
    "a long name": (UserIdentity(2, False, b"x" * 65000, b"y"), False, False),
    "a long passcode": (UserIdentity(2, True, b"jo", b"x" * 65000), False, False),
    "a name, and a passcode all the same": (UserIdentity(1, True, b"jo", SESAME), False, True),
    "no name": (UserIdentity(2, False, b"", b""), False, False),
    "Kerberos": (UserIdentity(3, True, b"ticket", b""), False, True),
    "SAML": (UserIdentity(4, True, b"<assertion/>", b""), False, True),
    "a token": (UserIdentity(5, True, b"a.b.c", b""), False, True),
    "type 9": (UserIdentity(9, True, b"a", b"b"), False, True),
}


@pytest.mark.parametrize("form", ["password", "password?"])
def test_who_is_let_in(tmp_path: Path, users: Path, form: str) -> None:
    with Service(tmp_path, "--user-identity", f"{form}:{users}", workers=1) as service:
        # The log shows a few lines of each address.
        peers = {
            name: Peer(service.host, service.port, source=f"127.0.0.{n}")
            for n, name in enumerate(OFFERS, start=2)
        }
        try:
            # Side by side: wrong ones have to wait.
            for name, peer in peers.items():
                peer.send(rq(OFFERS[name][0]))
            for name, peer in peers.items():
                got = peer.read_pdu()
                assert got is not None
                _, required, optional = OFFERS[name]
                assert (got[0] == 2) is (required if form == "password" else optional), name
                if got[0] != 2:
                    assert got == WRONG, name
                else:
                    # Nobody asked for one, or nobody looked.
                    assert response(got) is None
                    peer.release()
        finally:
            for peer in peers.values():
                peer.close()
        # The last lines are written by then.
        service.stop()
        log = service.log()
    assert "user 'mo': is not in the file of --user-identity" in log
    assert "user 'jo': the passcode is wrong" in log
    assert r"user '\\xff\x1b[2J': is not in the file" in log
    assert "\x1b" not in log
    assert r"user 'jo\n2026 INFO main: forged': is not in the file" in log
    assert "user of 65000 bytes, which may be a secret, so it is not shown: is not in" in log
    assert max(map(len, log.splitlines())) < 600
    if form == "password":
        assert "rejected (1,2,1): shows no user identity, and --user-identity wants" in log
        assert "shows a Kerberos ticket" in log
        assert "shows a user identity of the unknown type 9" in log
    # Once, when it ended; and of those only who was looked at.
    assert "user 'jo', 4 of 4 presentation contexts" in log
    assert "user 'Zoë', 4 of 4 presentation contexts" in log


def test_who_is_right_is_told_so_if_wished(tmp_path: Path, users: Path) -> None:
    with Service(tmp_path, "--user-identity", f"password:{users}", workers=1) as service:
        for confirm in (True, False, True):
            got = answer(service, jo(confirm=confirm))
            assert response(got) == (b"" if confirm else None)


def test_off_ignores_what_is_offered(tmp_path: Path) -> None:
    with Service(tmp_path, "--user-identity", "off", workers=1) as service:
        for name, (identity, _, _) in OFFERS.items():
            got = answer(service, rq(identity))
            assert got[0] == 2, name
            assert response(got) is None


def test_a_user_is_named_and_its_passcode_never(tmp_path: Path, users: Path) -> None:
    """In the log, whatever its level and form, the journal, and all else the service writes."""
    flags = ("-vv", "--log-format", "json", "--user-identity", f"password:{users}")
    with Service(tmp_path, *flags, workers=1) as service:
        with Peer(service.host, service.port) as peer:
            assert (peer.associate(jo(confirm=True)) or b"")[0] == 2
            peer.send(store())
            assert peer.read_response().status == 0
            peer.send(RELEASE_RQ)
            assert peer.read_pdu() == RELEASE_RP
        assert answer(service, jo(b"guess-0815", user="mo")) == WRONG
        ended = service.in_log('"ended":"released"')
        assert '"user":"jo"' in ended
        (fact,) = service.journal()
        assert (fact["user"], fact["sop_instance_uid"]) == ("jo", SOP)
        rejected = service.in_log('"ended":"rejected"')
        assert '"user"' not in rejected
        log = service.log()
    written = log.encode() + b"".join(
        file.read_bytes() for file in (tmp_path / "store").rglob("*") if file.is_file()
    )
    assert b"UserIdentity(type=2" in written
    for secret in (SESAME, b"guess-0815"):
        assert secret not in written
        assert secret.hex().encode() not in written


def test_a_wrong_one_waits_and_takes_no_place(tmp_path: Path, users: Path) -> None:
    """It is none of the associations there may be, and is told after a second."""
    flags = ("--user-identity", f"password:{users}", "--max-associations", "1")
    with Service(tmp_path, *flags, workers=1) as service:
        peers = [Peer(service.host, service.port) for _ in range(5)]
        began = time.monotonic()
        for peer in peers:
            peer.send(jo(b"wrong"))
        # Beside them, and not behind them.
        assert answer(service, jo())[0] == 2
        for peer in peers:
            assert peer.read_pdu() == WRONG
            peer.close()
        assert time.monotonic() - began >= 1.0


def test_who_guesses_is_limited_and_others_are_not(tmp_path: Path, users: Path) -> None:
    with Service(tmp_path, "--user-identity", f"password:{users}", workers=1) as service:
        guessers = [Peer(service.host, service.port, source="127.0.0.9") for _ in range(16)]
        # No more of one address than may wait at a time.
        for some in (guessers[:8], guessers[8:]):
            for peer in some:
                peer.send(jo(b"guess %d" % guessers.index(peer)))
            assert {peer.read_pdu() for peer in some} == {WRONG}
        for peer in guessers:
            peer.close()
        said = "127.0.0.9: 10 user identities were wrong within 60 s"
        service.in_log(said)
        with Peer(service.host, service.port, source="127.0.0.9") as peer:
            # It cannot tell that this one was right.
            assert peer.associate(jo()) == WRONG
        assert answer(service, jo())[0] == 2
    assert service.log().count(said) == 1


def test_a_flood_of_passwords_is_bounded_and_a_good_sender_beside_it(
    tmp_path: Path, users: Path
) -> None:
    """One address has a few checks at a time, and whoever is beside it has its turn."""
    with Service(tmp_path, "--user-identity", f"password:{users}", workers=1) as service:
        flood = [Peer(service.host, service.port, source="127.0.0.9") for _ in range(60)]
        # However long it takes to send them: the worker is to find all of them at once.
        (worker,) = service.worker_pids()
        os.kill(worker, signal.SIGSTOP)
        try:
            for n, peer in enumerate(flood):
                peer.send(jo(b"guess %d" % n, user=f"u{n}"))
        finally:
            os.kill(worker, signal.SIGCONT)
        assert answer(service, jo())[0] == 2
        answers = [peer.read_pdu() for peer in flood]
        # Beyond the few that wait the answer is "later".
        assert set(answers) == {WRONG, reject(2, 3, 1)}
        assert 8 <= answers.count(WRONG) < 30
        for peer in flood:
            peer.close()


def test_peers_that_go_while_they_are_checked_leave_nothing(tmp_path: Path, users: Path) -> None:
    """By closing, by RST and by A-ABORT, before the check is through and while it is kept back."""
    with Service(tmp_path, "--user-identity", f"password:{users}", workers=1) as service:
        at_rest = descriptors(service, "socket:")
        assert answer(service, jo(user="Zoë"))[0] == 2
        # The worker closes that connection in its own time.
        wait_for(
            lambda: descriptors(service, "socket:") == at_rest or None,
            "the first connection closed",
        )
        before = descriptors(service)
        for passcode in (SESAME, b"wrong"):
            for leave in (Peer.close, Peer.reset, lambda peer: peer.send(abort(0, 0))):
                with Peer(service.host, service.port) as peer:
                    peer.send(jo(passcode))
                    leave(peer)
        with Peer(service.host, service.port) as peer:
            # Another request is out of place, as at any time.
            peer.send(jo(b"wrong") + jo())
            assert [pdu[0] for pdu in split_pdus(peer.read_until_close())] == [7]
        wait_for(lambda: descriptors(service) == before or None, "all connections closed")
        assert answer(service, jo())[0] == 2
        assert "bug" not in service.log()


def descriptors(service: Service, kind: str = "") -> int:
    """How many of a kind its worker has open, all by default."""
    (worker,) = service.worker_pids()
    count = 0
    for entry in os.scandir(f"/proc/{worker}/fd"):
        # One that is closed meanwhile does not count.
        with contextlib.suppress(FileNotFoundError):
            count += os.readlink(entry.path).startswith(kind)
    return count


def test_the_end_waits_for_nobody_who_is_checked(tmp_path: Path, users: Path) -> None:
    flags = ("--user-identity", f"password:{users}", "--drain-timeout", "0")
    with Service(tmp_path, *flags, workers=1) as service:
        with Peer(service.host, service.port) as first, Peer(service.host, service.port) as second:
            first.send(jo(b"wrong"))
            second.send(jo(b"guess"))
            service.process.send_signal(signal.SIGTERM)
            for peer in (first, second):
                # Before the second in which it is kept back is over, or behind it.
                got = peer.read_pdus_until_close()
                assert [pdu[0] for pdu in got] in ([7], [3], [])
        service.ends(0)


def test_a_changed_file_holds_from_the_reload_on(tmp_path: Path, users: Path) -> None:
    """Who is there stays, who was known is forgotten, and what cannot be read changes nothing."""
    with Service(tmp_path, "--user-identity", f"password:{users}", workers=1) as service:
        for _ in range(3):
            assert answer(service, jo())[0] == 2
        with Peer(service.host, service.port) as there:
            assert (there.associate(jo()) or b"")[0] == 2
            users.write_text(make_entry("jo", b"new") + "\n" + make_entry("mo", SESAME) + "\n")
            users.chmod(0o644)
            service.process.send_signal(signal.SIGHUP)
            service.in_log("reload 2: --user-identity: every user of this machine can read")
            said = service.in_log("its file has other contents")
            assert f"reload 2: user-identity: password:{users}: its file" in said
            service.followed()
            assert answer(service, jo(user="mo"))[0] == 2
            assert answer(service, jo(b"new"))[0] == 2
            assert answer(service, jo()) == WRONG
            users.write_text("jo:secret-4711\n")
            service.process.send_signal(signal.SIGHUP)
            assert "users: line 1: has no hash" in service.in_log("reload refused: ")
            service.in_log("reload refused: nothing was changed")
            assert answer(service, jo(b"new"))[0] == 2
            there.send(store())
            assert there.read_response().status == 0
            there.release()
        assert "secret-4711" not in service.log()


def test_rules_go_before_identities(tmp_path: Path, users: Path) -> None:
    """Whoever may not call is told so at once, whatever its password is."""
    flags = ("--user-identity", f"password:{users}", "--check-called-ae", "--allow", "KIT@*")
    with Service(tmp_path, *flags, workers=1) as service:
        right = UserIdentity(2, False, b"jo", SESAME)
        wrong = UserIdentity(2, False, b"jo", b"wrong")
        for identity in (right, wrong):
            assert answer(service, rq(identity, called="OTHER")) == reject(1, 1, 7)
            assert answer(service, rq(identity, calling="OTHER")) == reject(1, 1, 3)


def test_a_file_that_everybody_can_read_is_told(tmp_path: Path, users: Path) -> None:
    users.chmod(0o644)
    with Service(tmp_path, "--user-identity", f"password:{users}", workers=1) as service:
        said = service.in_log("every user of this machine can read")
        assert "--user-identity: " in said
        assert "WARNING" in said
