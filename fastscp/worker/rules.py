"""The rules that a worker holds for its associations, by their ids."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fastscp.store.compress import level_of
from fastscp_ext import Layout, Rules

if TYPE_CHECKING:
    from fastscp.config.settings import WorkerConfig

__all__ = ["DEFAULT", "rules_from"]

# The id of the rules that hold for whoever has none of their own.
DEFAULT: Final = 0


def rules_from(config: WorkerConfig) -> dict[int, Rules]:
    """The rules a worker begins with. Raises ValueError."""
    rules = Rules(
        layout=Layout(config.layout, config.suffix.encode()),
        digest=config.digest,
        on_duplicate=config.on_duplicate,
        strict=config.strict,
        durable=config.durable,
        compress_level=level_of(config.compress),
        max_instance_size=config.max_instance_size,
    )
    return {DEFAULT: rules}
