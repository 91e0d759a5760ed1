"""Why TLS with a peer does not come about, or does not go on, in the words of the receiver's log.

Each says what happened, and what to do about it where the receiver's operator can. None holds a
text of the peer's: names of certificates are for whoever writes the line to add. What ends an
association behind the handshake has words of its own.
"""

from __future__ import annotations

import re
import ssl
from typing import TYPE_CHECKING, Final, NamedTuple

from fastscp.tls import reasons
from fastscp.tls.reasons import Reason, alert_of, reason_of

if TYPE_CHECKING:
    from fastscp.tls.material import Material

__all__ = ["CLOSED", "NOT_IN_TIME", "Failure", "failure", "failure_within"]


class Failure(NamedTuple):
    """kind: a few words, the same for all alike. why: the rest. reason: of `reasons.COUNTED`."""

    kind: str
    why: str = ""
    reason: str = Reason.OTHER.label


CLOSED: Final = Failure(
    "closed inside the TLS handshake",
    "the sender may not trust our certificate, or have none of its own to show",
    reasons.CLOSED,
)
NOT_IN_TIME: Final = Failure("no complete TLS handshake in time", reason=reasons.LATE)
_REFUSED: Final = "client certificate refused"
_WORDS: Final[dict[Reason, Failure]] = {
    Reason.EXPIRED: Failure(_REFUSED, "it has expired: have it renewed, or see the clock here"),
    Reason.NOT_YET_VALID: Failure(_REFUSED, "it is not valid yet: see the clocks"),
    Reason.REVOKED: Failure(_REFUSED, "it is revoked (--tls-crl)"),
    Reason.UNKNOWN_CA: Failure(
        _REFUSED, "it is signed by nobody that is trusted here: name its CA with --tls-ca"
    ),
    Reason.WRONG_PURPOSE: Failure(
        _REFUSED, "it, or a CA of it, is for another purpose than TLS clients"
    ),
    Reason.NO_CRL: Failure(_REFUSED, "--tls-crl has no list of the CA that signed it: add it"),
    Reason.CRL_EXPIRED: Failure(
        _REFUSED, "the list of its CA in --tls-crl is out of date: renew it, and reload"
    ),
    Reason.WEAK: Failure(_REFUSED, "its key or signature is too weak for --tls-profile"),
    Reason.NO_CERTIFICATE: Failure("no client certificate", "--tls-client-auth asks for one"),
    Reason.NO_RECORD: Failure("no TLS", "what it sends is not TLS, or not what belongs here"),
    Reason.NOTHING_IN_COMMON: Failure(
        "TLS refused by the sender", "it agrees to no version or cipher of --tls-profile"
    ),
    Reason.REFUSES_OURS: Failure("our certificate refused by the sender"),
    Reason.ASKS_FOR_OURS: Failure("TLS refused by the sender"),
    Reason.OTHER_ALERT: Failure("TLS refused by the sender"),
}
_ITS_ALERT: Final = frozenset(
    {Reason.NOTHING_IN_COMMON, Reason.REFUSES_OURS, Reason.ASKS_FOR_OURS, Reason.OTHER_ALERT}
)

# Of what came behind the handshake.
_CHANGED: Final = frozenset(
    {"BAD_DECRYPT", "BAD_RECORD_MAC", "DECRYPTION_FAILED", "DECRYPTION_FAILED_OR_BAD_RECORD_MAC"}
)
# What Python puts around the words of OpenSSL: its library, and a line of Python's own source.
_AROUND: Final = re.compile(r"^\[[^\]]*\]\s*|\s*\(_?\s*\w+\.c:\d+\)")


def failure(error: ssl.SSLError, material: Material) -> Failure:
    """What a handshake failed for. material: what it was tried with."""
    if isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
        return CLOSED
    reason = reason_of(error)
    return _worded(error, reason, material)._replace(reason=reason.label)


def _worded(error: ssl.SSLError, reason: Reason, material: Material) -> Failure:
    if reason is Reason.NO_COMMON_VERSION:
        why = f"--tls-profile {material.profile} has none of the sender's"
        return Failure("no common version of TLS", why)
    if reason is Reason.NO_COMMON_CIPHER:
        why = (
            f"--tls-profile {material.profile} has none of the sender's that goes with our "
            f"certificate"
        )
        return Failure("no common TLS cipher", why)
    if reason is Reason.UNTRUSTED and isinstance(error, ssl.SSLCertVerificationError):
        return Failure(_REFUSED, f"it cannot be trusted ({error.verify_message})")
    known = _WORDS.get(reason)
    if known is None:
        return Failure("TLS failed", _said(error))
    if reason in _ITS_ALERT:
        about = f"its alert: {alert_of(error) or 'insufficient_security'}"
        return known._replace(why=f"{about}; {known.why}" if known.why else about)
    return known


def failure_within(error: ssl.SSLError) -> Failure:
    """What TLS ended an association for: the handshake was done, and its settings agreed to."""
    if isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
        return Failure("closed by the sender", "TLS ended while something was to be sent")
    if alert := alert_of(error):
        return Failure("TLS ended by the sender", f"its alert: {alert}")
    name = getattr(error, "reason", None) or ""
    if name in _CHANGED:
        why = "what came was changed on its way, or the sender encrypts it wrongly"
        return Failure("TLS broken off", why)
    if reason_of(error) is Reason.NO_RECORD:
        return Failure("TLS broken off", "what came is not TLS, or not what belongs there")
    return Failure("TLS broken off", _said(error))


def _said(error: ssl.SSLError) -> str:
    if name := getattr(error, "reason", None):
        return str(name).replace("_", " ").lower()
    return _AROUND.sub("", error.strerror or str(error)).strip() or "it does not say why"
