"""The test aids of a service: nobody is to take one that has any for a receiver to rely on."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastscp.config.settings import ServeConfig

__all__ = ["aids", "told_of_aids"]


def aids(config: ServeConfig) -> tuple[str, ...]:
    """The aids in use, each as the flag that asks for it."""
    faults = tuple(f"--fault '{rule}'" for rule in config.fault)
    return ("--discard",) * config.discard + faults


def told_of_aids(config: ServeConfig) -> tuple[str, ...]:
    """What an operator has to know at each start."""
    said = [f"test aid: {one}: it fails on purpose" for one in aids(config)]
    if config.discard:
        said[0] = "test aid: --discard: what is answered with success is stored nowhere"
    return tuple(said)
