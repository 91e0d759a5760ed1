"""What the settings of TLS name, read."""

from __future__ import annotations

from pathlib import Path
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
            cert=_absolute(config.tls_cert),
            key=_absolute(config.tls_key),
            ca=tuple(map(_absolute, config.tls_ca)),
            crl=tuple(map(_absolute, config.tls_crl)),
            client_auth=config.client_auth,
            profile=config.tls_profile,
        )
    )


def _absolute(name: str) -> str:
    """As messages name a file; "" of none."""
    return str(Path(name).absolute()) if name else ""
