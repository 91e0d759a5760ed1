"""What an association is secured with: the versions and ciphers of a profile of the standard."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastscp.scu.errors import UsageError
from fastscp.scu.names import given
from fastscp.tls.context import client_context
from fastscp.tls.profiles import DEFAULT, OTHER_NAMES, PROFILES

if TYPE_CHECKING:
    import ssl

__all__ = ["tls_context"]


def tls_context(profile: str = DEFAULT) -> ssl.SSLContext:
    """For `associate(tls=...)`: it offers what a TLS profile has, and trusts whom the system does.

    profile: a name as of `--tls-profile`. Others are trusted with `load_verify_locations`, and a
    certificate is shown with `load_cert_chain`, as `ssl` has them.
    Raises UsageError for an unknown name, ssl.SSLError where this OpenSSL has none of its ciphers.

    >>> context = tls_context("8996")
    >>> print(context.minimum_version.name, context.maximum_version.name)
    TLSv1_2 TLSv1_3

    Source: PS3.15 Annex B.
    """
    name = profile if isinstance(profile, str) else ""
    found = PROFILES.get(dict(OTHER_NAMES).get(name, name))
    if found is None:
        raise UsageError(f"profile is {given(profile)}: write one of {', '.join(PROFILES)}")
    return client_context(found)
