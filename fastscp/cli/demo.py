"""`fastscp demo`: a receiver at work."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from cyclopts import Parameter

from fastscp.cli.options import ConfigFile, Quiet, Verbose, load_settings, takes_settings
from fastscp.cli.serve import begin_log
from fastscp.config.admin import AdminAddress
from fastscp.errors import ConfigError

__all__ = ["demo"]


@takes_settings
def demo(
    *,
    once: Annotated[
        bool, Parameter(negative="", show_default=False, help="Stop after showing it once.")
    ] = False,
    config: ConfigFile | None = None,
    verbose: Verbose = 0,
    quiet: Quiet = False,
    **given: object,
) -> int:
    """Show a receiver at work: start one, send it something, look at what it kept.

    Takes the options of serve, and reads the same environment and file. Without --store it keeps
    everything in a temporary directory, without --host it listens on 127.0.0.1 only, and without
    --admin it shows its page on a free port of 127.0.0.1. Ctrl-C ends it.
    """
    loaded = load_settings(given, config, verbose, quiet)
    settings = loaded.config
    if settings.no_plain:
        raise ConfigError("--no-plain", "the demonstration sends without TLS; leave it out")
    if loaded.sources["host"] == "default":
        # Nobody else is to reach what only shows itself.
        settings = replace(settings, host=("127.0.0.1",))
    if loaded.sources["admin"] == "default":
        # Not the port of a service that may run here, nor the name of one that nobody gave.
        settings = replace(settings, admin=AdminAddress("127.0.0.1", 0))
    begin_log(settings)
    from fastscp.cli import demonstration

    return demonstration.run(settings, once, keep=loaded.sources["store"] != "default")
