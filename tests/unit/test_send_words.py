"""What the sender says of its peers and files: own words, bounded, and harmless on a terminal."""

from __future__ import annotations

import errno
import json
import os
import socket
import ssl
from typing import TYPE_CHECKING

import pytest

from fastscp.scu.errors import ConnectionFailed
from fastscp.scu.heads import Head
from fastscp.scu.response import Response
from fastscp.scu.send.outcomes import Outcome, Outcomes, Report, Summary
from fastscp.scu.strangers import handshake_words, lost_words, stranger_words
from fastscp_ext import decode_command, encode_command
from tests.kit import CT, ELE, SOP

if TYPE_CHECKING:
    from pathlib import Path

# Ends a line, moves the cursor, sets a title; the last two are single bytes of latin-1.
NASTY = "a\n\x1b[2J\x1b]0;title\x07\x9b31m\x7f"


def outcome(comment: str = "", tags: int = 0, path: str = "file") -> Outcome:
    elements: dict[int, object] = {0x0100: 0x8001, 0x0120: 1, 0x0800: 0x0101, 0x0900: 0xC000}
    if comment:
        elements[0x0902] = comment.encode("latin-1")
    if tags:
        elements[0x0901] = tuple(range(tags))
    answer = Response.of(decode_command(encode_command(elements)))  # type: ignore[arg-type]
    return Outcome(path, SOP, 10, 0xC000, 1.0, 1, answer)


def harmless(text: str) -> bool:
    return text.isprintable()


def test_a_comment_is_cut_and_harmless() -> None:
    """An LO has 64 characters; a peer may send 64 KiB."""
    one = outcome(NASTY * 5000)
    assert len(one.reason) < 150
    assert harmless(one.reason)
    line = one.line()
    assert len(line["error_comment"]) < 100
    assert harmless(line["error_comment"])
    assert outcome("x" * 64).line()["error_comment"] == "x" * 64
    # The program's own user sees all of it.
    assert one.response is not None
    assert len(one.response.error_comment or "") > 1000


def test_offending_elements_are_bounded() -> None:
    one = outcome(tags=16000)
    assert one.reason.endswith("(0000,0007), and 15992 more elements")
    assert len(one.line()["offending_elements"]) == 64


def test_reasons_are_bounded() -> None:
    """However many different ones a peer makes up: in memory, on the screen and in JSON."""
    summary = Summary()
    for number in range(3000):
        summary.add(outcome(f"reason {number % 2000}"))
    top, further, theirs = summary.top_reasons(10)
    assert len(summary.reasons) == 1000
    assert sum(count for _, count in top) + theirs == 3000
    assert further == 991
    shown = summary.as_json()
    assert len(shown["reasons"]) == 20
    assert shown["further_reasons"]["reasons"] == 981
    assert sum(shown["reasons"].values()) + shown["further_reasons"]["instances"] == 3000


def test_names_never_look_alike(tmp_path: Path) -> None:
    """Of bytes that are no UTF-8, and of texts that look like their escapes."""
    surrogate = "a\udcff".encode("utf-8", "surrogatepass")
    names = [b"a\xff", rb"a\xff", rb"a\\xff", b"a\xfe", "aÿ".encode(), surrogate, b"a\n", rb"a\n"]
    said: list[str] = []
    report = Report(tmp_path / "report")
    outcomes = Outcomes(Summary(report=report), said.append)
    for name in names:
        outcomes.unreadable(name, "why")
    report.close()
    lines = [json.loads(line) for line in (tmp_path / "report").read_bytes().splitlines()]
    assert len({line["path"] for line in lines}) == len(names)
    assert len(set(said)) == len(names)
    assert all(harmless(line) for line in said)


def test_reasons_are_escaped_once() -> None:
    said: list[str] = []
    outcomes = Outcomes(Summary(), said.append)
    outcomes._add(outcome("\x1b", path="a\\b"))
    assert said == ["a\\\\b: C000 cannot understand, '\\x1b'"]


def test_what_was_never_tried_says_so(tmp_path: Path) -> None:
    report = Report(tmp_path / "report")
    said: list[str] = []
    outcomes = Outcomes(Summary(report=report), said.append)
    head = Head(CT, SOP, ELE, 10, 10)
    outcomes.lose((b"file", head), None, ConnectionFailed("h:1", "no"))
    report.close()
    line = json.loads((tmp_path / "report").read_bytes())
    assert (line["attempts"], line["error"]) == (0, "not tried: cannot connect to h:1: no")


def tls_error(reason: str) -> ssl.SSLError:
    error = ssl.SSLError(1, f"[SSL: {reason}] words (_ssl.c:1000)")
    error.reason = reason
    return error


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("WRONG_VERSION_NUMBER", "does not answer in TLS"),
        ("UNSUPPORTED_PROTOCOL", "no version or cipher of TLS"),
        ("TLSV13_ALERT_CERTIFICATE_REQUIRED", "asks for a certificate of ours"),
        ("TLSV1_ALERT_UNKNOWN_CA", "does not trust our certificate (its alert: unknown_ca)"),
        (
            "SSLV3_ALERT_CERTIFICATE_REVOKED",
            "our certificate is revoked (its alert: certificate_revoked): have a new one",
        ),
        (
            "SSLV3_ALERT_CERTIFICATE_EXPIRED",
            "our certificate has expired (its alert: certificate_expired)",
        ),
        ("SOMETHING_NEW", "TLS failed: something new"),
    ],
)
def test_tls_in_own_words(reason: str, words: str) -> None:
    why, transient = handshake_words(tls_error(reason), "pacs", connected=True)
    assert words in why
    assert not transient
    assert words in lost_words(tls_error(reason), tls=True, answered=False)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (10, "has expired: have it renewed, or set this machine's clock"),
        (9, "is not valid yet"),
        (23, "was revoked"),
        (20, "nobody who is trusted here: name the certificate of its CA (--tls-ca)"),
        (62, "for another name than pacs: connect by a name that is in it"),
        (1000, "cannot be trusted: what OpenSSL says"),
    ],
)
def test_certificates_in_own_words(code: int, words: str) -> None:
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_code, error.verify_message = code, "what OpenSSL says"
    why, transient = handshake_words(error, "pacs", connected=True)
    assert words in why
    assert not transient


@pytest.mark.parametrize(
    ("error", "connected", "words", "transient"),
    [
        # What asyncio raises where a peer hangs up in the handshake: no number, and no words.
        (ConnectionResetError(), True, "left in the TLS handshake (it hung up)", True),
        (ConnectionResetError(errno.ECONNRESET, ""), True, "(Connection reset by peer)", True),
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connect call failed"), False,
         "Connection refused", True),
        # What it raises for a name with several addresses: a receiver that restarts refuses at all.
        (OSError("Multiple exceptions: [Errno 111] Connect call failed ('::1', 1, 0, 0), "
                 "[Errno 111] Connect call failed ('127.0.0.1', 1)"), False,
         "Connection refused", True),
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), False,
         "Name or service not known", False),
        (socket.gaierror(socket.EAI_AGAIN, "Temporary failure"), False, "Temporary failure", True),
        (OSError(), False, "OSError", False),
    ],
)  # fmt: skip
def test_no_connection_in_own_words(
    error: OSError, connected: bool, words: str, transient: bool
) -> None:
    why, again = handshake_words(error, "pacs", connected=connected)
    assert words in why
    assert again is transient


def test_ends_in_own_words() -> None:
    assert lost_words(None, tls=False, answered=True) == ""
    reset = ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
    assert lost_words(reset, tls=False, answered=True) == "Connection reset by peer"
    assert "expects TLS" in lost_words(reset, tls=False, answered=False)
    assert "certificate of ours" in lost_words(None, tls=True, answered=False)
    assert "SSH" in stranger_words(b"SSH-2.0-x")
    assert stranger_words(b"\x07\0\0\0") == ""
