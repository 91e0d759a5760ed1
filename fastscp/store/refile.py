"""What store.toml is to hold: how a store was filed so far, against how it is to be filed.

An instance of a path that another layout or suffix makes would be stored a second time, so nothing
of this changes without consent, unless nothing was filed so.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Final

import msgspec

from fastscp.errors import ConfigError
from fastscp.store.identity import FORMAT, Identity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from fastscp.store.filing import Filing, Filings

__all__ = [
    "AT_START",
    "RUNNING",
    "changes",
    "differences",
    "next_identity",
    "second_copies",
]

# How an operator consents.
AT_START: Final = "add --layout-change"
RUNNING: Final = "stop the service and start it once with --layout-change"
# Tables named in one message.
_NAMED: Final = 5


def next_identity(known: Identity | None, filings: Filings) -> Identity:
    """What store.toml is to hold, where it held `known`; None: it is made now."""
    top = filings.top
    # A table that says what the top level says is remembered, too: the top level may change.
    ae = dict(filings.ae)
    if known is None:
        known = Identity(str(uuid.uuid4()), FORMAT, top.layout, top.suffix)
        before: set[str] = set()
        layouts: tuple[str, ...] = ()
    else:
        before = {*known.suffixes, *(filing.suffix for _key, filing in known.filings)}
        layouts = known.layouts
    suffixes = before | {filing.suffix for _key, filing in filings}
    now = set(filings.layouts)
    return msgspec.structs.replace(
        known, layout=top.layout, suffix=top.suffix, suffixes=tuple(sorted(suffixes)), ae=ae,
        earlier_layouts=tuple(layout for layout in layouts if layout not in now),
    )  # fmt: skip


def changes(
    path: Path,
    known: Identity | None,
    filings: Filings,
    consent: str,
    is_unused: Callable[[Filing], bool],
) -> list[ConfigError]:
    """What needs consent before `next_identity` holds, the top level's first.

    consent: how an operator gives it, `AT_START` or `RUNNING`. is_unused(filing): a title that was
    filed so may be filed otherwise, for nothing of it can be stored a second time.
    """
    return [] if known is None else list(_changes(path, known.filings, filings, consent, is_unused))


def differences(known: Identity, filings: Filings) -> list[str]:
    """What is filed otherwise than store.toml says, a line for each, the top level's first."""
    before = known.filings
    told = []
    if filings.top != before.top:
        told.append(f"the top level files as {filings.top}, and no longer as {before.top}")
    for title, filing in before.ae.items():
        now = filings.of(title)
        if now != filing:
            gone = "" if title in filings.ae else ", for it has no table any more,"
            told.append(f"[ae.{title}] files{gone} as {now}, and no longer as {filing}")
    return told


def second_copies(known: Identity, filings: Filings) -> str:
    """What to tell of titles that are remembered only now, and file otherwise; "": nothing."""
    before = known.filings
    new = [
        f"[ae.{title}]"
        for title, filing in filings.ae.items()
        if title not in before.ae and filing != before.top
    ]
    if not new:
        return ""
    more = f" and {len(new) - _NAMED} more" if len(new) > _NAMED else ""
    return (
        f"new tables file otherwise than the top level did: {', '.join(new[:_NAMED])}{more}: "
        f"instances for these titles that the store holds already stay where they are, and are "
        f"stored a second time if they are sent again"
    )


def _changes(
    path: Path, known: Filings, now: Filings, consent: str, is_unused: Callable[[Filing], bool]
) -> Iterator[ConfigError]:
    if now.top != known.top:
        # The suffix is not set as such.
        is_suffix = now.top.layout == known.top.layout
        option, back = (
            ("--compress", "restore the setting")
            if is_suffix
            else ("--layout", "restore the layout")
        )
        why = f"the store {path} was made with {known.top}, not {now.top}"
        yield _change(option, why, "an instance it holds already", back, consent)
    for title, before in known.ae.items():
        if before == known.top and now.of(title) == now.top:
            # What goes by the top level is told with it.
            continue
        if now.of(title) != before and not is_unused(before):
            yield _change_of_table(path, title, before, now, consent)


def _change_of_table(
    path: Path, title: str, before: Filing, now: Filings, consent: str
) -> ConfigError:
    after = now.of(title)
    key = "compress" if after.layout == before.layout else "layout"
    form = "zstd" if before.suffix.endswith(".zst") else "none"
    said = f"layout = {before.layout!r}" if key == "layout" else f'compress = "{form}"'
    why = f"so far the store {path} files instances for {title} as {before}"
    if title in now.ae:
        why += f", not as {after}"
        back = f"put {said} back into that table"
    else:
        why += f", and without a table they would be filed as {after}"
        back = f"put [ae.{title}] with {said} back"
    return _change(
        now.option(f"ae.{title}", key), why, "one that it may hold already", back, consent
    )


def _change(option: str, why: str, what: str, back: str, consent: str) -> ConfigError:
    return ConfigError(option, f"{why}: {what} would be stored a second time; {back}, or {consent}")
