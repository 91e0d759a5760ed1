"""The TLS profiles: which versions and ciphers each allows, by the names that DCMTK 3.7 has.

Source: PS3.15 Annex B.9 to B.13 and, of the retired ones, B.1 to B.11; RFC 9325 (BCP 195).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["DEFAULT", "NAMES", "OTHER_NAMES", "PROFILES", "Profile"]


_1_0: Final = "TLSv1"
_1_2: Final = "TLSv1_2"
_1_3: Final = "TLSv1_3"


@dataclass(frozen=True)
class Profile:
    """A profile. ciphers: of TLS up to 1.2, the preferred first; those of 1.3 are all allowed.

    title: as PS3.15 names it. oldest, newest: members of `ssl.TLSVersion`. warning: why
    it is for old peers alone; empty: it is not.
    """

    title: str
    oldest: str
    newest: str
    ciphers: tuple[str, ...]
    warning: str = ""

    @property
    def openssl(self) -> str:
        """The ciphers as OpenSSL takes them."""
        # OpenSSL lets go of MD5 and SHA-1 in signatures, which TLS 1.0 and 1.1 have, at level 0.
        level = "@SECLEVEL=0" if self.oldest == _1_0 else "@SECLEVEL=2"
        return ":".join((*self.ciphers, level))


# AES-128 first: to decrypt costs up to 6 per cent less, and nobody breaks either. The order of TLS
# 1.3 is OpenSSL's own, AES-256 first.
_ECDHE: Final = (
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
)
_DHE: Final = ("DHE-RSA-AES128-GCM-SHA256", "DHE-RSA-AES256-GCM-SHA384")
_MODIFIED: Final = (
    *_ECDHE,
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-CHACHA20-POLY1305",
    "ECDHE-ECDSA-AES128-CCM",
    "ECDHE-ECDSA-AES256-CCM",
    *_DHE,
    "DHE-RSA-CHACHA20-POLY1305",
    "DHE-RSA-AES128-CCM",
    "DHE-RSA-AES256-CCM",
)
_NO_SECRECY: Final = (
    "allows TLS 1.0 and 1.1, and ciphers without forward secrecy: whoever keeps what was sent can "
    "read it once the key is stolen; use it for peers that have nothing newer"
)
_RETIRED: Final = "is retired by the standard; use 8996 unless a peer asks for it"

PROFILES: Final[dict[str, Profile]] = {
    "8996": Profile("BCP 195 RFC 8996", _1_2, _1_3, _ECDHE),
    "8996-mod": Profile(
        "Modified BCP 195 RFC 8996", _1_2, _1_3, _MODIFIED
    ),
    "bcp195-nd": Profile(
        "Non-downgrading BCP 195", _1_2, _1_3, (*_ECDHE, *_DHE),
        _RETIRED,
    ),
    "bcp195-ex": Profile(
        "Extended BCP 195", _1_2, _1_3, _MODIFIED, _RETIRED
    ),
    "bcp195": Profile(
        "BCP 195", _1_0, _1_3,
        (*_ECDHE, *_DHE, "AES128-SHA", "DES-CBC3-SHA"), _NO_SECRECY,
    ),
    "aes": Profile(
        "AES TLS Secure Transport Connection", _1_0, _1_2,
        ("AES128-SHA", "DES-CBC3-SHA"), _NO_SECRECY,
    ),
    "basic": Profile(
        "Basic TLS Secure Transport Connection", _1_0, _1_2,
        ("DES-CBC3-SHA",), _NO_SECRECY,
    ),
}  # fmt: skip
NAMES: Final = tuple(PROFILES)
DEFAULT: Final = "8996"
# What others call them.
OTHER_NAMES: Final = (
    ("bcp195-rfc-8996", "8996"),
    ("bcp195-rfc-8996-modified", "8996-mod"),
    ("bcp195-extended", "bcp195-ex"),
)
