"""A slow, obvious rendering of layouts: the oracle for fastscp_ext.dataset.layout."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

UID = re.compile(rb"[0-9A-Za-z](?:[0-9A-Za-z._-]{0,62}[0-9A-Za-z])?")
STRICT_UID = re.compile(rb"[0-9]+(?:\.[0-9]+)*")


def usable_uid(uid: bytes) -> bool:
    return UID.fullmatch(uid) is not None


def valid_uid(uid: bytes) -> bool:
    return usable_uid(uid) and b".." not in uid


def strict_uid(uid: bytes) -> bool:
    return len(uid) <= 64 and STRICT_UID.fullmatch(uid) is not None


def fnv_1a(data: bytes) -> int:
    hashed = 14695981039346656037
    for byte in data:
        hashed = (hashed ^ byte) * 1099511628211 % 2**64
    return hashed


def encode(raw: bytes) -> str:
    if not raw:
        return "_"
    text = re.sub(r"[^A-Za-z0-9_.-]", lambda m: f"%{ord(m[0]):02X}", raw.decode("latin-1"))
    text = re.sub(r"\A[.-]", lambda m: f"%{ord(m[0]):02X}", text)
    return text if len(text) <= 200 else f"{text[:150]}~{fnv_1a(raw):016x}"


def shortened(name: str, most: int) -> str:
    raw = name.encode()
    return name if len(raw) <= most else f"{raw[:150].decode(errors='ignore')}~{fnv_1a(raw):016x}"


def render(template: str, values: Mapping[str, bytes], suffix: str = ".dcm") -> str | None:
    """The path, or None where the instance must be refused."""
    uids = [values.get(f"{level}InstanceUID", b"") for level in ("SOP", "Study", "Series")]
    if not all(valid_uid(uid) for uid in uids):
        return None
    *folders, stem = (
        re.sub(r"\{(\w+)\}", lambda m: encode(values.get(m[1], b"")), component)
        for component in template.removesuffix(".dcm").split("/")
    )
    folders = [re.sub(r"\.(dcm|(?<=\.dcm\.)zst)\Z", r"%2E\1", folder) for folder in folders]
    folders = [re.sub(r"\A\.fastscp\Z", "%2Efastscp", folder) for folder in folders]
    folders = [shortened(folder, 255) for folder in folders]
    path = "/".join([*folders, shortened(stem, 245) + suffix])
    return None if len(path.encode()) > 4095 else path
