"""What `--umask` leaves of the modes of all that the service makes."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest

from tests.kit import Service, store

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("umask", "file_mode", "folder_mode"),
    [("0007", 0o640, 0o750), ("0027", 0o640, 0o750), ("0077", 0o600, 0o700)],
)
def test_umask(tmp_path: Path, umask: str, file_mode: int, folder_mode: int) -> None:
    """Of all that main and its workers make, whatever the process had."""
    before = os.umask(0o022 if umask == "0077" else 0o077)
    try:
        with Service(tmp_path, "--umask", umask, "--compress", "zstd") as service:
            with service.peer() as peer:
                peer.send(store())
                assert peer.read_response().status == 0
                peer.release()
            # Else one may go while all is looked at.
            service.ends_parts()
            modes = {
                str(path.relative_to(service.store)): stat.S_IMODE(path.lstat().st_mode)
                for path in service.store.rglob("*")
                if not path.is_socket()
            }
            folders = {name for name in modes if (service.store / name).is_dir()}
            assert any(name.endswith(".dcm.zst") for name in modes)
            assert any("journal" in name for name in modes)
            wrong = {
                name: oct(mode)
                for name, mode in modes.items()
                if mode != (folder_mode if name in folders else file_mode)
            }
            assert wrong == {}
    finally:
        os.umask(before)
