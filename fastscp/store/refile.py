"""What store.toml is to hold: how a store was filed so far, against how it is to be filed.

An instance of a path that another layout or suffix makes would be stored a second time, so nothing
of this changes without consent.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Final

import msgspec

from fastscp.errors import ConfigError
from fastscp.store.identity import FORMAT, Identity

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fastscp.store.filing import Filing, Filings

__all__ = ["AT_START", "RUNNING", "changes", "next_identity"]

# How an operator consents.
AT_START: Final = "add --layout-change"
RUNNING: Final = "stop the service and start it once with --layout-change"


def next_identity(known: Identity | None, filings: Filings) -> Identity:
    """What store.toml is to hold, where it held `known`; None: it is made now."""
    top = filings.top
    # A table that says what the top level says is remembered, too: the top level may change.
    ae = dict(filings.ae)
    if known is None:
        known = Identity(str(uuid.uuid4()), FORMAT, top.layout, top.suffix)
        before: set[str] = set()
    else:
        before = {*known.suffixes, *(filing.suffix for _key, filing in known.filings)}
    suffixes = before | {filing.suffix for _key, filing in filings}
    return msgspec.structs.replace(
        known, layout=top.layout, suffix=top.suffix, suffixes=tuple(sorted(suffixes)), ae=ae
    )


def changes(
    path: Path, known: Identity | None, filings: Filings, consent: str
) -> list[ConfigError]:
    """What needs consent before `next_identity` holds, the top level's first.

    consent: how an operator gives it, `AT_START` or `RUNNING`.
    """
    return [] if known is None else list(_changes(path, known.filings, filings, consent))


def _changes(path: Path, known: Filings, now: Filings, consent: str) -> Iterator[ConfigError]:
    if now.top != known.top:
        # The suffix is not set as such.
        is_suffix = now.top.layout == known.top.layout
        option, back = (
            ("--compress", "restore the setting")
            if is_suffix
            else ("--layout", "restore the layout")
        )
        why = f"the store {path} was made with {known.top}, not {now.top}"
        yield _change(option, why, back, consent)
    for title, before in known.ae.items():
        if now.of(title) != before:
            yield _change_of_table(path, title, before, now, consent)


def _change_of_table(
    path: Path, title: str, before: Filing, now: Filings, consent: str
) -> ConfigError:
    after = now.of(title)
    key = "compress" if after.layout == before.layout else "layout"
    said = f"layout = {before.layout!r}" if key == "layout" else f"the compress of {before.suffix}"
    why = f"instances for {title} are filed as {before} in the store {path}"
    if title in now.ae:
        why += f", not as {after}"
    else:
        why += f", and without a table they would be filed as {after}"
    return _change(f"[ae.{title}] {key}", why, f"put {said} back into that table", consent)


def _change(option: str, why: str, back: str, consent: str) -> ConfigError:
    return ConfigError(
        option,
        f"{why}: an instance it holds already would be stored a second time; {back}, or {consent}",
    )
