"""TLS and user identity, from the files that the command line names."""

from __future__ import annotations

import logging
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fastscp.config.settings import read_value
from fastscp.config.values import Choice, Parsed, read_text
from fastscp.errors import ConfigError
from fastscp.scu import jwt_identity, password_identity
from fastscp.tls.context import client_context, lacks_ciphers
from fastscp.tls.profiles import DEFAULT, NAMES, OTHER_NAMES, PROFILES

if TYPE_CHECKING:
    from fastscp_ext import UserIdentity

__all__ = ["tls_context", "user_identity"]

log = logging.getLogger("fastscp.tls")

_PROFILE: Final = Choice(NAMES, also=OTHER_NAMES)
_USER: Final = Parsed(read_text, "NAME", "a user name")


def tls_context(
    wanted: bool,
    ca: str | None,
    certificate: str | None,
    key: str | None,
    profile: str | None,
    *,
    no_verify: bool,
) -> ssl.SSLContext | None:
    """What a requestor needs for TLS; None if no option asks for it.

    Warns of an old profile. Raises ConfigError for what cannot be used.
    """
    if not (wanted or ca or certificate or key or profile or no_verify):
        return None
    if key is not None and certificate is None:
        raise ConfigError("--tls-key", "is of no use without its certificate; add --tls-cert")
    context = _context(DEFAULT if profile is None else profile)
    if ca is not None:
        try:
            context.load_verify_locations(cafile=ca)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError("--tls-ca", _unusable(ca, error)) from None
    if certificate is not None:
        _show(context, certificate, key)
    if no_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _context(profile: str) -> ssl.SSLContext:
    """Raises ConfigError for a profile that is not known, or that this OpenSSL cannot do."""
    name = read_value("--tls-profile", profile, _PROFILE)
    try:
        context = client_context(PROFILES[name])
    except ssl.SSLError as error:
        why = lacks_ciphers(error, name) or f"OpenSSL cannot do it ({error}); choose another"
        raise ConfigError("--tls-profile", why) from None
    if warning := PROFILES[name].warning:
        log.warning("--tls-profile %s %s", name, warning)
    return context


def _show(context: ssl.SSLContext, certificate: str, key: str | None) -> None:
    """Have a context show this certificate. Raises ConfigError: of which of the files, and why."""
    text = _pem("--tls-cert", certificate)
    if b"-----BEGIN CERTIFICATE-----" not in text:
        raise ConfigError("--tls-cert", f"{certificate} has no certificate in it; give its file")
    if key is None and b"PRIVATE KEY-----" not in text:
        why = f"{certificate} has no private key in it; name the file of its key with --tls-key"
        raise ConfigError("--tls-cert", why)
    if key is not None and b"PRIVATE KEY-----" not in _pem("--tls-key", key):
        raise ConfigError("--tls-key", f"{key} has no private key in it; give the file of the key")
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        if getattr(error, "reason", None) == "KEY_VALUES_MISMATCH":
            why = (
                f"{key or certificate} has the key of another certificate than that of "
                f"{certificate}; give the two that belong together"
            )
            raise ConfigError("--tls-key" if key else "--tls-cert", why) from None
        raise ConfigError("--tls-cert", _unusable(certificate, error)) from None


def _pem(option: str, path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:
        raise ConfigError(option, _unusable(path, error)) from None


def _unusable(path: str, error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        if error.reason == "NO_CERTIFICATE_OR_CRL_FOUND":
            return f"{path} has no certificate in it; give its file"
        # Of damaged lines it has no word.
        why = f" ({error.reason.replace('_', ' ')})" if error.reason else ""
        return f"OpenSSL does not take what is in {path}{why}: give another, or get it anew"
    reason = (error.strerror if isinstance(error, OSError) else None) or error
    return f"cannot use {path} ({reason}); give a readable PEM file"


def user_identity(
    user: str | None, password_file: str | None, jwt_file: str | None
) -> UserIdentity | None:
    """The user identity to offer; None if none was asked for. Raises ConfigError.

    Secrets come from files: the command line is there for everybody to see.
    """
    if jwt_file is not None:
        if user is not None or password_file is not None:
            raise ConfigError("--jwt-file", "contradicts --user and --password-file; give one")
        return jwt_identity(_secret("--jwt-file", jwt_file))
    if user is None:
        if password_file is not None:
            raise ConfigError("--password-file", "is of no use without a name; add --user")
        return None
    read_value("--user", user, _USER)
    return password_identity(
        user, None if password_file is None else _secret("--password-file", password_file)
    )


def _secret(option: str, path: str) -> str:
    try:
        secret = Path(path).read_text(encoding="utf-8").strip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(option, f"cannot read {path} ({error}); give a text file") from None
    if not secret or len(secret.encode()) > 0xFFFF:
        raise ConfigError(option, f"{path} is empty or longer than 65535 bytes")
    return secret
