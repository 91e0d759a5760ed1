"""What a peer's certificate shows, as tables of senders name it."""

from __future__ import annotations

import hashlib
import ipaddress
import ssl
import time
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["NAMES_MOST", "shown_by", "subject_of"]

# Of a certificate, so many names count: each costs lookups when an association is asked for.
NAMES_MOST: Final = 100
_ALTERNATIVE: Final = frozenset({"DNS", "IP Address", "email", "URI"})
# Of OpenSSL's x509_vfy.h.
_EXPIRED: Final = 10
_COMMON_NAME: Final = "commonName"


def shown_by(connection: ssl.SSLObject | ssl.SSLSocket) -> tuple[str, ...]:
    """What the certificate of a peer shows: `subject=`, `san=` and `sha256=`; () for none.

    The handshake is over, and the certificate verified: subject is each common name of it, san each
    DNS name, address, mail address and URI. A name that no rule can have is left out.
    Raises ssl.SSLCertVerificationError where it has expired: a session of TLS 1.2 that is taken up
    again outlives it.
    """
    raw = connection.getpeercert(binary_form=True)
    facts: Mapping[str, Any] = connection.getpeercert() or {}
    if raw is None or not facts:
        return ()
    if ssl.cert_time_to_seconds(facts["notAfter"]) < time.time():
        error = ssl.SSLCertVerificationError(1, "certificate has expired")
        error.verify_code, error.verify_message = _EXPIRED, "certificate has expired"
        raise error
    names = dict.fromkeys(_names(facts))
    return (*list(names)[:NAMES_MOST], f"sha256={hashlib.sha256(raw).hexdigest()}")


def subject_of(connection: ssl.SSLObject | ssl.SSLSocket) -> str:
    """The subject of a peer's certificate for people, as in `CN=GATE-1, O=Hospital`; "": none.

    It may have any characters: whoever shows it escapes them.
    """
    facts: Mapping[str, Any] = connection.getpeercert() or {}
    parts = [(key, value) for one in facts.get("subject", ()) for key, value in one]
    return ", ".join(f"{_SHORT.get(key, key)}={value}" for key, value in reversed(parts))


_SHORT: Final = {
    _COMMON_NAME: "CN",
    "countryName": "C",
    "localityName": "L",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "stateOrProvinceName": "ST",
}


def _names(facts: Mapping[str, Any]) -> Iterator[str]:
    for one in facts.get("subject", ()):
        for key, value in one:
            if key == _COMMON_NAME and _is_text(value):
                yield f"subject={value}"
    for kind, value in facts.get("subjectAltName", ()):
        if kind in _ALTERNATIVE and _is_text(value):
            yield f"san={_address(value) if kind == 'IP Address' else value}"


def _is_text(value: object) -> bool:
    """Whether a rule can name it: a certificate may hold anything."""
    return isinstance(value, str) and value == value.strip() != "" and value.isprintable()


def _address(value: str) -> str:
    try:
        return str(ipaddress.ip_address(value.strip()))
    except ValueError:
        return value
