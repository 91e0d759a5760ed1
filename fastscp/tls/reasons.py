"""Why TLS does not come about, as OpenSSL tells it, put in order: for both ends.

`failures` has the receiver's words for it, `fastscp.scu.strangers` the sender's.
"""

from __future__ import annotations

import ssl
from enum import Enum, auto
from typing import Final

__all__ = [
    "CLOSED", "COUNTED", "ENDED", "LATE", "TURNED_AWAY", "Reason", "alert_of", "reason_of",
]  # fmt: skip


class Reason(Enum):
    """What went wrong. `alert_of` names the alert of the last four."""

    EXPIRED = auto()
    NOT_YET_VALID = auto()
    REVOKED = auto()
    UNKNOWN_CA = auto()
    WRONG_PURPOSE = auto()
    OTHER_NAME = auto()
    NO_CRL = auto()
    CRL_EXPIRED = auto()
    WEAK = auto()
    UNTRUSTED = auto()
    NO_CERTIFICATE = auto()
    NO_RECORD = auto()
    NO_COMMON_VERSION = auto()
    NO_COMMON_CIPHER = auto()
    OTHER = auto()
    NOTHING_IN_COMMON = auto()
    REFUSES_OURS = auto()
    ASKS_FOR_OURS = auto()
    OTHER_ALERT = auto()

    @property
    def label(self) -> str:
        """What it is counted under."""
        return self.name.lower()


# What a receiver counts besides: the peer closed, took too long, was closed by us, and found no
# worker.
CLOSED: Final = "closed"
LATE: Final = "not_in_time"
ENDED: Final = "ended_here"
TURNED_AWAY: Final = "turned_away"
# By which it counts handshakes that fail: all that there can be.
COUNTED: Final = (*(one.label for one in Reason), CLOSED, LATE, ENDED, TURNED_AWAY)

# Of OpenSSL's x509_vfy.h, by `SSLCertVerificationError.verify_code`.
_CODES: Final = {
    3: Reason.NO_CRL,
    9: Reason.NOT_YET_VALID,
    10: Reason.EXPIRED,
    11: Reason.CRL_EXPIRED,
    12: Reason.CRL_EXPIRED,
    23: Reason.REVOKED,
    26: Reason.WRONG_PURPOSE,
    **dict.fromkeys((2, 18, 19, 20, 21, 27), Reason.UNKNOWN_CA),
    **dict.fromkeys((62, 64), Reason.OTHER_NAME),
    **dict.fromkeys((66, 67, 68), Reason.WEAK),
}
# Of OpenSSL's sslerr.h, by `SSLError.reason`.
_REASONS: Final = {
    # Bytes that are no TLS record, or none that can come here.
    **dict.fromkeys(
        (
            "BAD_RECORD_TYPE",
            "HTTPS_PROXY_REQUEST",
            "HTTP_REQUEST",
            "PACKET_LENGTH_TOO_LONG",
            "RECORD_LAYER_FAILURE",
            "UNEXPECTED_MESSAGE",
            "UNKNOWN_PROTOCOL",
            "WRONG_VERSION_NUMBER",
        ),
        Reason.NO_RECORD,
    ),
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": Reason.NO_CERTIFICATE,
    **dict.fromkeys(
        ("NO_PROTOCOLS_AVAILABLE", "UNSUPPORTED_PROTOCOL", "VERSION_TOO_LOW", "WRONG_SSL_VERSION"),
        Reason.NO_COMMON_VERSION,
    ),
    **dict.fromkeys(
        (
            "NO_SHARED_CIPHER",
            "NO_SHARED_GROUP",
            "NO_SHARED_SIGNATURE_ALGORITHMS",
            "NO_SUITABLE_KEY_SHARE",
            "NO_SUITABLE_SIGNATURE_ALGORITHM",
        ),
        Reason.NO_COMMON_CIPHER,
    ),
    **dict.fromkeys(
        (
            "INSUFFICIENT_SECURITY",
            "SSLV3_ALERT_HANDSHAKE_FAILURE",
            "TLSV1_ALERT_INSUFFICIENT_SECURITY",
            "TLSV1_ALERT_PROTOCOL_VERSION",
        ),
        Reason.NOTHING_IN_COMMON,
    ),
    **dict.fromkeys(
        (
            "SSLV3_ALERT_BAD_CERTIFICATE",
            "SSLV3_ALERT_CERTIFICATE_EXPIRED",
            "SSLV3_ALERT_CERTIFICATE_REVOKED",
            "SSLV3_ALERT_CERTIFICATE_UNKNOWN",
            "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE",
            "TLSV1_ALERT_ACCESS_DENIED",
            "TLSV1_ALERT_DECRYPT_ERROR",
            "TLSV1_ALERT_UNKNOWN_CA",
        ),
        Reason.REFUSES_OURS,
    ),
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": Reason.ASKS_FOR_OURS,
}


def reason_of(error: ssl.SSLError) -> Reason:
    """What an error of OpenSSL says."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _CODES.get(error.verify_code, Reason.UNTRUSTED)
    reason = _name_of(error)
    return _REASONS.get(reason) or (Reason.OTHER_ALERT if alert_of(error) else Reason.OTHER)


def alert_of(error: ssl.SSLError) -> str:
    """The alert that the peer sent, by its name in RFC 8446 6; "": it is about none."""
    _version, alert, name = _name_of(error).partition("_ALERT_")
    return name.lower() if alert else ""


def _name_of(error: ssl.SSLError) -> str:
    # Those that Python itself makes have none.
    return getattr(error, "reason", None) or ""
