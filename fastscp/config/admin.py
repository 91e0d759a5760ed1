"""Where the service answers HTTP, and the token that whoever asks there has to show."""

from __future__ import annotations

import ipaddress
import stat
from dataclasses import dataclass, field, replace
from typing import Final

from fastscp.config.values import ExplainedError, quoted, read_path, read_text
from fastscp.guarded import read_guarded

__all__ = [
    "ADMIN_PORT",
    "AdminAddress",
    "AdminToken",
    "open_to_all",
    "read_admin",
    "read_admin_token",
]

ADMIN_PORT: Final = 8112
# Characters of a token: fewer may be guessed, and a header has no room for many more.
_TOKEN_LEAST: Final = 16
_TOKEN_MOST: Final = 1024
_GIVE: Final = "give one that `head -c 24 /dev/urandom | base64 > FILE` has made"


@dataclass(frozen=True, slots=True)
class AdminAddress:
    """host: an address, without brackets; empty: nothing listens. is_given: by an operator."""

    host: str
    port: int
    is_given: bool = field(default=True, compare=False)

    def __bool__(self) -> bool:
        return bool(self.host)

    def __str__(self) -> str:
        if not self.host:
            return "off"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_local(self) -> bool:
        """Whether nobody on another machine reaches it."""
        return not self.host or ipaddress.ip_address(self.host).is_loopback

    @property
    def from_here(self) -> AdminAddress:
        """The address by which it is asked on the machine, or in the container, of the service."""
        if not self.host or not ipaddress.ip_address(self.host).is_unspecified:
            return self
        return replace(self, host="::1" if ":" in self.host else "127.0.0.1")


@dataclass(frozen=True, slots=True)
class AdminToken:
    """file: that holds it, as it was written; empty: none is asked for. token: never shown.

    warning: what is not as it should be with the file; empty: nothing.
    """

    file: str = ""
    token: bytes = b""
    warning: str = ""

    def __bool__(self) -> bool:
        return bool(self.file)

    def __str__(self) -> str:
        return self.file

    def __repr__(self) -> str:
        return f"AdminToken({self.file!r})"


def read_admin(raw: object) -> AdminAddress:
    """`HOST:PORT` or `off`."""
    text = read_text(raw)
    if text.lower() == "off":
        return AdminAddress("", 0)
    host, colon, digits = text.rpartition(":")
    if not colon or not host:
        raise ValueError("has no port")
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        raise ValueError("has an IPv6 address without brackets")
    if not (digits.isascii() and digits.isdigit() and len(digits) < 6 and int(digits) < 65536):
        raise ValueError("has a port that is no number up to 65535")
    bare = host.removeprefix("[").removesuffix("]")
    if bare.lower() == "localhost":
        bare = "127.0.0.1"
    try:
        # Whether others reach it has to be known here, and not what a name stands for later.
        address = ipaddress.ip_address(bare)
    except ValueError:
        raise ValueError("has a host that is no address, such as 127.0.0.1") from None
    return AdminAddress(str(address), int(digits))


def read_admin_token(raw: object) -> AdminToken:
    """The name of a file, and the token that is in it now. No message repeats any of that."""
    named = read_path(raw)
    # As messages name it.
    path = named.absolute()
    try:
        data, about, warning = read_guarded(path, _GIVE)
    except ValueError as error:
        raise ExplainedError(str(error)) from None
    token = data.strip()
    if not _TOKEN_LEAST <= len(token) <= _TOKEN_MOST:
        raise ExplainedError(
            f"{path} holds no token of {_TOKEN_LEAST} to {_TOKEN_MOST} characters; {_GIVE}"
        )
    if not all(0x21 <= byte < 0x7F for byte in token):
        raise ExplainedError(
            f"{path} holds a token with other characters than printable ASCII without blanks, or "
            f"more than one line; {_GIVE}"
        )
    if about.st_mode & stat.S_IROTH:
        warning = (
            f"every user of this machine can read the token in {path} "
            f"(mode {stat.S_IMODE(about.st_mode):04o}): take that away (chmod o-r)"
        )
    return AdminToken(str(named), token, warning)


def open_to_all(admin: AdminAddress, token: AdminToken) -> str:
    """Why the address cannot be meant without a token; empty: it can."""
    if not admin.is_local and not token:
        return (
            f"{quoted(str(admin))} is reached from other machines, and no --admin-token-file says "
            f"who may ask; give one, or an address such as 127.0.0.1:{ADMIN_PORT}"
        )
    return ""
