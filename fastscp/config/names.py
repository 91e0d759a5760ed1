"""The names of settings, and what to say to one that is none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fastscp.config.settings import SETTINGS
from fastscp.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from fastscp.config.settings import Setting

__all__ = ["BY_NAME", "BY_VARIABLE", "close_to", "known"]

BY_NAME: Final = {setting.name: setting for setting in SETTINGS}
BY_VARIABLE: Final = {setting.environment: setting for setting in SETTINGS}


def known(name: str, option: str, names: Mapping[str, Setting], what: str) -> Setting:
    """The setting of this name. option: where the name stands. Raises ConfigError."""
    setting = names.get(name)
    if setting is None:
        close = close_to(name, names)
        hint = f"did you mean {close}?" if close else "take it out, or see `fastscp serve --help`"
        raise ConfigError(option, f"no such {what}; {hint}")
    if setting.flag_only:
        raise ConfigError(option, f"is accepted as the flag {setting.flag} only; take it out")
    return setting


def close_to(name: str, names: Iterable[str], cutoff: float = 0.7) -> str:
    """The name that somebody most likely meant; empty where none is close.

    cutoff: how alike it has to be, up to 1; of short names two thirds are all but one letter.
    """
    # Where it is needed only: it costs a start some milliseconds.
    import difflib

    # A name written with underscores, or in the wrong case, is as close as one gets.
    folded = {word.replace("_", "-").lower(): word for word in names}
    close = difflib.get_close_matches(name.replace("_", "-").lower(), folded, n=1, cutoff=cutoff)
    return folded[close[0]] if close else ""
