"""Peers that are not what they were taken for, in words: no TLS, TLS alone, another certificate.

OpenSSL and the system name functions and states. Whoever reads these words looks for the mistake,
and for what to do about it; options of the command line stand in brackets.
"""

from __future__ import annotations

import os
import re
import socket
import ssl
from typing import Final

from fastscp.tls.reasons import Reason, alert_of, reason_of

__all__ = ["handshake_words", "lost_words", "silence_words", "stranger_words"]

_NO_TLS: Final = "this port may be one without TLS (try without --tls)"


def handshake_words(error: OSError, host: str, *, connected: bool) -> tuple[str, bool]:
    """Why there is no connection, and whether trying again may help.

    connected: TCP was, so that TLS did not come about.
    """
    if isinstance(error, ssl.SSLCertVerificationError):
        return _certificate_words(error, host), False
    if isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError):
        return _tls_words(error), False
    if connected:
        how = os.strerror(error.errno) if _is_plain(error) and error.errno else "it hung up"
        return f"the peer left in the TLS handshake ({how}): {_NO_TLS}, or not let us in", True
    if _is_plain(error):
        if error.errno:
            return os.strerror(error.errno), True
        # Of several addresses of a name, each with an error of its own.
        numbers = dict.fromkeys(re.findall(r"\[Errno (\d+)\]", str(error)))
        words = "; ".join(os.strerror(int(number)) for number in numbers)
        return words or str(error) or type(error).__name__, bool(numbers)
    again = isinstance(error, socket.gaierror) and error.errno == socket.EAI_AGAIN
    return error.strerror or str(error) or type(error).__name__, again


def silence_words(seconds: float, *, tls: bool, connected: bool) -> str:
    """Why there is no connection: the peer said nothing for so long."""
    if tls and connected:
        return f"no answer to our TLS handshake within {seconds:g} s: {_NO_TLS}"
    return f"no answer within {seconds:g} s"


def lost_words(error: Exception | None, *, tls: bool, answered: bool) -> str:
    """What is known of the end of a connection; "" if nothing is.

    answered: the peer had said something on this connection.
    """
    if isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError):
        return _tls_words(error)
    why = _system_words(error)
    if answered:
        return why
    how = why or "the peer hung up"
    if tls:
        return f"{how}: it may ask for a certificate of ours (--tls-cert), or not let us in"
    return f"{how}: a port that expects TLS may do so (--tls), or one that is no DICOM"


def _system_words(error: Exception | None) -> str:
    number = error.errno if isinstance(error, OSError) and _is_plain(error) else None
    return os.strerror(number) if number else str(error or "")


def stranger_words(first: bytes) -> str:
    """What a peer speaks whose first bytes are these; "" if they do not tell."""
    # A TLS record of type alert or handshake, of any version 3.x (RFC 8446 5.1).
    if first[:2] in (b"\x15\x03", b"\x16\x03"):
        return "it answered with TLS: this port expects TLS (--tls)"
    for start, name in ((b"HTTP/", "HTTP"), (b"SSH-", "SSH")):
        if first.startswith(start):
            return f"it answered with {name}: this is no DICOM port"
    return ""


def _is_plain(error: OSError) -> bool:
    """Whether it is the system's own error: resolvers and TLS have numbers of their own."""
    return type(error).__module__ == "builtins"


def _certificate_words(error: ssl.SSLCertVerificationError, host: str) -> str:
    match reason_of(error):
        case Reason.EXPIRED:
            return (
                "the peer's certificate has expired: have it renewed, or set this machine's clock"
            )
        case Reason.NOT_YET_VALID:
            return (
                "the peer's certificate is not valid yet: set the clock of this machine or the peer"
            )
        case Reason.REVOKED:
            return "the peer's certificate was revoked: have it renewed"
        case Reason.UNKNOWN_CA:
            return (
                "the peer's certificate is signed by nobody who is trusted here: "
                "name the certificate of its CA (--tls-ca)"
            )
        case Reason.OTHER_NAME:
            return (
                f"the peer's certificate is for another name than {host}: "
                "connect by a name that is in it, or have it renewed with this one"
            )
    return f"the peer's certificate cannot be trusted: {error.verify_message}"


def _refused_words(alert: str) -> str:
    """What the peer has against our certificate. alert: the one that it sent."""
    match alert:
        case "certificate_revoked":
            why, do = "says that our certificate is revoked", "have a new one made"
        case "certificate_expired":
            why, do = "says that our certificate has expired", "have it renewed, or see its clock"
        case _:
            why, do = "does not trust our certificate", "give one that it knows"
    return f"the peer {why} (its alert: {alert}): {do} (--tls-cert)"


def _tls_words(error: ssl.SSLError) -> str:
    match reason_of(error):
        case Reason.NO_RECORD:
            return f"the peer does not answer in TLS: {_NO_TLS}"
        case Reason.NO_COMMON_VERSION | Reason.NOTHING_IN_COMMON:
            return (
                "the peer agrees to no version or cipher of TLS that we offer (--tls-profile), "
                "or it asks for a certificate of ours (--tls-cert)"
            )
        case Reason.REFUSES_OURS:
            return _refused_words(alert_of(error))
        case Reason.ASKS_FOR_OURS:
            return "the peer asks for a certificate of ours (--tls-cert, --tls-key)"
    reason = getattr(error, "reason", None) or ""
    return f"TLS failed: {reason.replace('_', ' ').lower() or error.strerror or error}"
