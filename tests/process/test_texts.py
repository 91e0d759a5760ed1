"""Text of peers, wherever they can put any: it forges no line, controls no terminal, and leads
nowhere out of the store.

Every place has a text of its own, which begins with a word; so a test can tell that it was there.
"""

from __future__ import annotations

import contextlib
import json
import re
import struct
import subprocess
import unicodedata
from typing import TYPE_CHECKING, Any, Final

import pytest

from fastscp.users.passwords import make_entry
from fastscp_ext import UserIdentity, UserInformation
from tests.kit import (
    CT,
    ELE,
    RELEASE_RQ,
    TLS,
    VERIFICATION,
    Peer,
    Service,
    associate_rq,
    data_set,
    echo,
    message,
    pdu,
    store_rq,
    wait_for,
)
from tests.streams.proxied import v2

if TYPE_CHECKING:
    import ssl
    from pathlib import Path

    from tests.certificates import Certificates

PROXY: Final = "127.0.0.2"
# Ends a line and begins one that looks like the service's; clears the screen, in both of its
# spellings; sets a title; turns the order of writing; goes out of a folder and into a format.
FORGED: Final = "2026-01-01T00:00:00.000Z INFO main: all is well"
EVIL: Final = f'\x1b[2J\x9b2J\r\n{FORGED}\n\x1b]0;x\x07\u2028\u202e../../%s{{}}\x00\x7f"\\'
EVIL_BYTES: Final = EVIL.encode("utf-8").replace(b"\xc2\x9b", b"\x9b")
# As much of it as 16 bytes hold.
SHORT: Final = b'\x1b[2J\r\n\x9bA\x00"%\\'


def evil(word: str) -> bytes:
    return word.encode() + EVIL_BYTES


def title(word: str) -> bytes:
    """Of an application entity."""
    return (word.encode() + SHORT)[:16].ljust(16)


def _request(*words: str, **more: Any) -> bytes:
    """A request with such text in each field that it may stand in.

    words: more values to be followed by it. The encoder would not write any of that.
    """
    information = UserInformation(
        max_pdu_length=16384,
        implementation_class_uid="UID",
        implementation_version_name="VERSION",
        **more,
    )
    contexts = ((1, CT, ELE), (3, "ABSTRACT", ELE), (5, CT, "TRANSFER"), (7, VERIFICATION, ELE))
    made = associate_rq(
        *contexts,
        calling=title("CALL"),
        called=title("HERE"),
        user_information=information,
    )
    for word in ("UID", "VERSION", "ABSTRACT", "TRANSFER", *words):
        made = _followed(made, word)
    return made


def _followed(rq: bytes, word: str) -> bytes:
    """The request with EVIL behind an item's value, and all lengths around it right."""
    value = evil(word)
    at = rq.index(struct.pack(">H", len(word)) + word.encode())
    made = bytearray(rq)
    made[at : at + 2 + len(word)] = struct.pack(">H", len(value)) + value
    # The item of the top level that it is, or is in.
    place = 74
    while at >= place + 4 + int.from_bytes(rq[place + 2 : place + 4], "big"):
        place += 4 + int.from_bytes(rq[place + 2 : place + 4], "big")
    if place + 2 != at:
        (length,) = struct.unpack_from(">H", rq, place + 2)
        struct.pack_into(">H", made, place + 2, length + len(value) - len(word))
    struct.pack_into(">I", made, 2, len(made) - 6)
    return bytes(made)


def _peers_say_it(service: Service, shown: ssl.SSLContext) -> list[Peer]:
    """All of it; the peers that are associated at the end. shown: with a certificate's names."""
    stays = [service.connect(source=PROXY, before=_from_proxy())]
    answer = stays[0].associate(_request())
    assert answer is not None
    assert answer[0] == 2, answer
    peer = stays[0]
    messages = [
        message(store_rq(1, sop=evil("SOP"), sop_class=CT), data_set()),
        message(store_rq(2, sop_class=evil("CLASS")), data_set()),
        message(store_rq(3, more={0x1030: evil("MOVER")}), data_set(patient_id="../../P\x1b[2J")),
        message(
            store_rq(4, sop="1.2.4"), data_set(sop="1.2.4", study="S/../..\x1b[2J", series="1.2")
        ),
        message(store_rq(5, sop="1.2.5"), data_set(sop="1.2.6\x1b[2J")),
    ]
    peer.send(b"".join(messages) + echo(6))
    answers = dict(peer.read_statuses(6))
    assert {n: answers[n] for n in (1, 2, 3, 4, 6)} == {
        1: 0x0117, 2: 0x0122, 3: 0, 4: 0x0117, 6: 0,
    }  # fmt: skip
    assert answers[5] != 0
    stays.append(service.connect(secured=True, tls=shown, source="127.0.1.1"))
    answer = stays[1].associate(associate_rq())
    assert answer is not None
    assert answer[0] == 2, answer
    # Refused, with what they are refused for in the line; and those that speak something else.
    openings = [
        _request("1.2.840.10008.3.1.1.1"),
        _request(identity=UserIdentity(2, True, evil("USER")[:60], b"x")),
        _request(identity=UserIdentity(1, True, evil("NOBODY"), b"")),
        b"GET /" + EVIL_BYTES + b" HTTP/1.1\r\nHost: " + EVIL_BYTES + b"\r\n\r\n",
        b"\x0bMSH|^~\\&|" + EVIL_BYTES + b"\x1c\r",
        evil("ANY"),
        pdu(9, EVIL_BYTES),
    ]
    for n, opening in enumerate(openings, start=3):
        # A few lines of each address are shown.
        with service.connect(source=f"127.0.0.{n}") as other:
            other.send(opening)
            # Who is quick has closed it by then.
            with contextlib.suppress(OSError):
                other.half_close()
            other.read_until_close(reset=True)
    for header in (v2(bytes(11)), b"PROXY TCP4 " + EVIL_BYTES + b"\r\n"):
        with service.connect(source=PROXY) as other:
            other.send(header + EVIL_BYTES)
            other.read_until_close(reset=True)
    return stays


def _from_proxy() -> bytes:
    """A header that tells the common name of a certificate that the proxy verified."""
    name = evil("NAME")
    inner = b"\x07\0\0\0\0" + b"\x22" + struct.pack(">H", len(name)) + name
    addresses = b"\x0a\x01\x02\x03\x0a\x00\x00\x05\x9d\x08\x2b\x68"
    return v2(addresses + b"\x20" + struct.pack(">H", len(inner)) + inner)


def harmless(text: str, *, lines: bool = True) -> None:
    """Check that a terminal shows each character of a text, and obeys none but the line feed."""
    obeyed = {
        char
        for char in text
        if unicodedata.category(char) in ("Cc", "Cf", "Zl", "Zp", "Cs", "Co")
        and not (lines and char == "\n")
    }
    assert not obeyed, [line[:300] for line in text.split("\n") if obeyed & set(line)]
    assert not any(line.startswith(FORGED[:20]) for line in text.split("\n"))


def _said(service: Service, *words: str) -> str:
    done = subprocess.run(
        [*service.program(), *words],
        env=service.environment(), capture_output=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode in (0, 1), done.stderr
    return (done.stdout + done.stderr).decode("utf-8")


@pytest.mark.parametrize("form", ["text", "json"])
def test_text_of_peers_is_shown_and_never_obeyed(
    tmp_path: Path, certificates: Certificates, form: str
) -> None:
    users = tmp_path / "users"
    users.write_text(make_entry("jo", b"sesame") + "\n")
    users.chmod(0o600)
    layout = "{CallingAE}/{PatientID}/{StudyInstanceUID}/{SOPInstanceUID}.dcm"
    flags: tuple[str, ...] = (
        "--log-format",
        form,
        "-vvv",
        "--layout",
        layout,
        "--proxy-protocol-from",
        PROXY,
    )
    # A name has 64 characters.
    client = certificates.signed(f"SUBJECT\x1b[2J\r\n{FORGED}\u202e")
    tls = TLS(
        ("--tls-cert", str(certificates.server.both), "--tls-ca", str(certificates.ca.cert)),
        certificates.client_context(client),
    )
    flags += ("--user-identity", f"password?:{users}")
    before = {path.name for path in tmp_path.iterdir()}
    with Service(tmp_path, *flags, tls=tls, plain=True, workers=1) as service:
        peers = _peers_say_it(service, tls.context)
        # What commands say is the same with either form.
        shown = [] if form == "json" else [
            _said(service, command, "--store", str(service.store), *more)
            for command in ("status", "associations")
            for more in ((), ("--json",))
        ] + [
            _said(service, "top", "--once", "--interval", "0.1", "--store", str(service.store))
        ]  # fmt: skip
        for peer in peers:
            peer.send(RELEASE_RQ)
            peer.read_until_close()
            peer.close()
        wait_for(lambda: service.log().count("released") >= len(peers), "the last lines")
        service.stop()
        if form == "text":
            assert any("CALL%1B" in one for one in shown)
            shown += [
                _said(service, "verify", "--store", str(service.store), *more)
                for more in ((), ("--json",))
            ]
        for one in shown:
            harmless(one)
        for segment in (service.store / ".fastscp/journal").iterdir():
            harmless(segment.read_bytes().decode("utf-8"))
        _of_the_log(service.log(), form)
        # Nothing is outside, and inside there is what the layout makes of it.
        assert len(service.instances()) == 1
        (path,) = service.instances()
        harmless(path, lines=False)
        assert ".." not in path.split("/")
    assert {path.name for path in tmp_path.iterdir()} - before == {"store", "log-0"}


def _of_the_log(log: str, form: str) -> None:
    harmless(log)
    first, second, *lines = log.splitlines()
    assert first.startswith("listening on ")
    assert second.endswith(" with TLS")
    if form == "json":
        told = [json.loads(line) for line in lines]
        assert all(one["level"] for one in told)
    else:
        line = r"\d{4}-\d\d-\d\dT\S+Z (?:TRACE|DEBUG|INFO|WARNING|ERROR) [\w-]+: .+"
        assert [one for one in lines if not re.fullmatch(line, one)] == []
    # All of it came so far that somebody could have obeyed it.
    for word in (
        "CALL",
        "HERE",
        "VERSION",
        "ABSTRACT",
        "TRANSFER",
        "SOP",
        "CLASS",
        "USER",
        "SUBJECT",
    ):
        assert f"{word}%1B" in log or f"{word}\\x1b" in log or f"{word}\\\\x1b" in log, word
