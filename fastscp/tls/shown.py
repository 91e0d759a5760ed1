"""What a peer's certificate shows, as tables of senders name it."""

from __future__ import annotations

import hashlib
import ssl
import time
from typing import TYPE_CHECKING, Any, Final

from fastscp.tls.names import common_name, san, subject, written

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["NAMES_MOST", "shown_by", "subject_of"]

# Of a certificate, so many names count: each costs lookups when an association is asked for.
NAMES_MOST: Final = 100
_ALTERNATIVE: Final = frozenset({"DNS", "IP Address", "email", "URI"})
# Of OpenSSL's x509_vfy.h.
_UNSPECIFIED: Final = 1
_EXPIRED: Final = 10
_COMMON_NAME: Final = "commonName"


def shown_by(connection: ssl.SSLObject | ssl.SSLSocket) -> tuple[str, ...]:
    """What the certificate of a peer shows: `subject=`, `san=` and `sha256=`; () for none.

    The handshake is over, and the certificate verified: subject is each common name of it and,
    where there is more, the whole of it; san each DNS name, address, mail address and URI. A name
    that no rule can have is left out.
    Raises ssl.SSLCertVerificationError where it has expired: a session of TLS 1.2 that is taken up
    again outlives it; and where a name or time in it cannot be read, though its CA has signed it.
    """
    raw = connection.getpeercert(binary_form=True)
    try:
        facts: Mapping[str, Any] = connection.getpeercert() or {}
        if raw is None or not facts:
            return ()
        end = ssl.cert_time_to_seconds(facts["notAfter"])
    except (ValueError, ssl.SSLError) as error:
        # Such as a name that is not UTF-8.
        raise _refusal(_UNSPECIFIED, "a name or a time in it cannot be read") from error
    if end < time.time():
        raise _refusal(_EXPIRED, "certificate has expired")
    names = dict.fromkeys(_names(facts))
    return (*list(names)[:NAMES_MOST], f"sha256={hashlib.sha256(raw).hexdigest()}")


def subject_of(connection: ssl.SSLObject | ssl.SSLSocket) -> str:
    """The subject of a peer's certificate, as in `CN=GATE-1, O=Hospital`; "": none.

    A rule takes it behind `subject=`. It may have any characters: whoever shows it escapes them.
    """
    return written(reversed(_subject(connection.getpeercert() or {})))


def _subject(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(key, value) for one in facts.get("subject", ()) for key, value in one]


def _refusal(code: int, why: str) -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(1, why)
    error.verify_code, error.verify_message = code, why
    return error


def _names(facts: Mapping[str, Any]) -> Iterator[str]:
    attributes = _subject(facts)
    for key, value in attributes:
        if key == _COMMON_NAME and _is_text(value):
            yield common_name(value)
    if all(_is_text(value) for _key, value in attributes) and (whole := subject(attributes)):
        yield whole
    for kind, value in facts.get("subjectAltName", ()):
        if kind in _ALTERNATIVE and _is_text(value):
            yield san(kind, value)


def _is_text(value: object) -> bool:
    """Whether a rule can name it: a certificate may hold anything."""
    return isinstance(value, str) and value == value.strip() != "" and value.isprintable()
