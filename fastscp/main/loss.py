"""What a power cut may take, and of which titles: instances that were acknowledged as buffered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from fastscp.config.settings import ServeConfig

__all__ = ["told_of_loss"]

# Tables that a line names; there may be a thousand.
_NAMED_MOST: Final = 8
_BUFFERED: Final = "buffered"
_RISK: Final = "a power cut may lose instances already acknowledged"


def told_of_loss(config: ServeConfig, before: ServeConfig | None = None) -> str:
    """What an operator has to know where instances are acknowledged as buffered; "": nowhere.

    before: what was in force until now; then only of what was not buffered by that.
    """
    top = config.durability == _BUFFERED
    own = _of_tables(config)
    if before is None:
        titles = [title for title, durability in own.items() if durability == _BUFFERED]
        is_top_told = top
    else:
        then, then_own = before.durability, _of_tables(before)
        is_top_told = top and then != _BUFFERED
        titles = [
            title
            for title in {**own, **then_own}
            if own.get(title, config.durability) == _BUFFERED
            and then_own.get(title, then) != _BUFFERED
            # What goes by the top level is told with it.
            and (title in own or not is_top_told)
        ]
    if not titles:
        return f"--durability buffered: {_RISK}" if is_top_told else ""
    places = [f"[ae.{title}]" for title in titles[:_NAMED_MOST]]
    if more := len(titles) - len(places):
        places.append(f"{more} tables more" if more > 1 else "1 table more")
    what = "--durability buffered, also in" if is_top_told else "durability buffered in"
    return f"{what} {', '.join(places)}: {_RISK}"


def _of_tables(config: ServeConfig) -> dict[str, str]:
    """By called title, of the tables that set it."""
    return {
        table.title: str(table.values["durability"])
        for table in config.tables.ae
        if "durability" in table.values
    }
