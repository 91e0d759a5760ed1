"""The books of main, and what workers are told, as a configuration says."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from fastscp.config.settings import ServeConfig
from fastscp.main.admission import Admission, Limits
from fastscp.messages.configuration import Configuration
from fastscp.rules.build import build, titles_named
from fastscp.rules.limits import LimitBook

if TYPE_CHECKING:
    from fastscp.config.tables import Tables
    from fastscp.rules.rule import Rule

__all__ = ["configuration", "limit", "limited", "top_rule"]


def limited(
    associations: int = 0,
    pending: int = 1000,
    *,
    tables: Tables | None = None,
    by_files: bool = False,
    **settings: Any,
) -> Admission:
    """New books. settings: of the configuration, by field; what Admission takes may be there."""
    own = {name: settings.pop(name) for name in ("rows", "tallies", "clock") if name in settings}
    books = Admission(Limits(associations, pending, by_files=by_files), **own)
    limit(books, associations, pending, tables=tables, by_files=by_files, **settings)
    return books


def limit(
    books: Admission,
    associations: int = 0,
    pending: int = 1000,
    *,
    tables: Tables | None = None,
    by_files: bool = False,
    generation: int = 0,
    **settings: Any,
) -> None:
    """Give books new limits."""
    config = ServeConfig(**settings)
    if tables is not None:
        config = dataclasses.replace(config, tables=tables)
    book = LimitBook(build(config, generation))
    books.limit(Limits(associations, pending, by_files=by_files), book, titles_named(config))


def configuration(config: ServeConfig | None = None, generation: int = 0) -> Configuration:
    """What workers are told of a configuration."""
    config = config or ServeConfig(workers=1)
    return Configuration(config.for_workers(), build(config, generation))


def top_rule(**settings: Any) -> Rule:
    """The rule of whoever has no table."""
    return build(ServeConfig(**settings), 0).top
