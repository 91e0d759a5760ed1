"""Where the control socket is, under a name that is short enough for the system.

An address of a socket has 107 bytes, and the path of a store may be longer: the folder is named by
a descriptor of it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from fastscp.errors import FastscpError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["SOCKET_NAME", "ControlSocketError", "address"]

# In the folder of a store that is the service's own.
SOCKET_NAME: Final = "admin.sock"
# Bytes of sun_path, without the zero at its end; see unix(7).
_ADDRESS_MOST: Final = 107


class ControlSocketError(FastscpError):
    """The control socket cannot be made or reached. `exit_code`: of the command that wants it."""

    def __init__(self, why: str, exit_code: int = 1) -> None:
        super().__init__(why)
        self.exit_code = exit_code


def address(folder_fd: int, folder: Path) -> str:
    """The address of the socket in a folder, given both its descriptor and its path.

    Raises ControlSocketError where there is none that is short enough.
    """
    through = f"/proc/self/fd/{folder_fd}"
    if os.path.isdir(through):  # noqa: PTH112
        return f"{through}/{SOCKET_NAME}"
    whole = str(folder / SOCKET_NAME)
    if len(os.fsencode(whole)) <= _ADDRESS_MOST:
        return whole
    raise ControlSocketError(
        f"{whole} is longer than the {_ADDRESS_MOST} bytes that the address of a socket has, and "
        f"/proc, which would shorten it, is not there: mount /proc, or name the store by a shorter "
        f"path"
    )
