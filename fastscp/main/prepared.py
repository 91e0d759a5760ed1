"""What follows from a configuration, for a start and for a reload: all of it, or why not."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fastscp.main.admission import Limits
from fastscp.main.descriptors import associations_allowed
from fastscp.main.members import WORKERS_MOST
from fastscp.messages.configuration import Configuration
from fastscp.rules.book import RuleBook
from fastscp.rules.build import build, titles_named
from fastscp.rules.limits import LimitBook
from fastscp.store.filing import Filing, Filings

if TYPE_CHECKING:
    from fastscp.config.settings import ServeConfig

__all__ = ["Prepared", "prepare"]


@dataclass(frozen=True)
class Prepared:
    """All that the parts of the service need of a configuration.

    limits, book, titles: for the books of main. configuration: for the workers. filings,
    durabilities: for the store.
    """

    config: ServeConfig
    limits: Limits
    book: LimitBook
    titles: frozenset[str]
    configuration: Configuration
    filings: Filings
    durabilities: frozenset[str]

    @property
    def generation(self) -> int:
        return self.book.generation


def prepare(
    config: ServeConfig, generation: int, retired: int = 0, redo_files: int | None = None
) -> Prepared:
    """Check a configuration against this machine, and look up all that it names.

    generation: of its rules. retired: workers that are still there beside those it asks for.
    redo_files: as `associations_allowed` has it. Raises ConfigError. Cost: reads the dictionary of
    pydicom; for a thread.
    """
    workers = min(config.workers + retired, WORKERS_MOST)
    limits = Limits(
        associations_allowed(replace(config, workers=workers), redo_files),
        by_files=not config.max_associations,
    )
    rules = build(config, generation)
    book = RuleBook(rules)
    titles = {title: book.rule(title, None) for title in rules.ae}
    return Prepared(
        config=config,
        limits=limits,
        book=LimitBook(rules),
        titles=frozenset(titles_named(config)),
        configuration=Configuration(config.for_workers(), rules, config.tls),
        filings=Filings(
            Filing(rules.top.layout, rules.top.suffix),
            {title: Filing(rule.layout, rule.suffix) for title, rule in titles.items()},
            config.tables.places,
        ),
        # What is discarded leaves nothing that an unclean end could spoil.
        durabilities=frozenset(
            "stable" if config.discard else rule.durability
            for rule in (rules.top, *titles.values())
        ),
    )
