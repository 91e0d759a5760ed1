"""What the settings of TLS name, read."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastscp.config.settings import ServeConfig
    from fastscp.tls.material import Material

__all__ = ["read_material"]


def read_material(config: ServeConfig) -> Material | None:
    """What is in the files now; None where there is no certificate. Raises MaterialError."""
    if not config.tls_cert:
        return None
    # Only those who speak TLS wait for the libraries that it needs.
    from fastscp.tls.reading import Files, read

    return read(
        Files(
            cert=config.tls_cert,
            key=config.tls_key,
            ca=config.tls_ca,
            crl=config.tls_crl,
            client_auth=config.client_auth,
            profile=config.tls_profile,
        )
    )
