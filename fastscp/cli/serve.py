"""`fastscp serve`: the receiver."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

from fastscp import log
from fastscp.cli.options import ConfigFile, Quiet, Verbose, load_settings, takes_settings
from fastscp.errors import FastscpError, StartError

if TYPE_CHECKING:
    from fastscp.config.layers import Loaded
    from fastscp.config.settings import ServeConfig

__all__ = ["begin_log", "serve"]


@takes_settings
def serve(
    *,
    config: ConfigFile | None = None,
    verbose: Verbose = 0,
    quiet: Quiet = False,
    **given: object,
) -> int:
    """Run the receiver.

    Every option below may also be given in the environment (--max-pdu-length as
    FASTSCP_MAX_PDU_LENGTH) or in a TOML file (max-pdu-length = 16384). A flag beats the
    environment, the environment beats the file. Times are seconds or 30s, 5m, 1h; sizes are bytes
    or 64K, 10G, 10GiB (1024 each), 10GB (1000 each). Lists repeat the option or use commas.
    """

    def load(*, again: bool = True) -> Loaded:
        """Read all of it, now or for a reload."""
        return load_settings(dict(given), config, verbose, quiet, again=again)

    loaded = load(again=False)
    settings = loaded.config
    begin_log(settings)
    from fastscp.main import serve as service
    from fastscp.main.successor import own_command

    fields = {"--host": "host", "--port": "port", "--tls-port": "tls_port"}
    explicit = {option: loaded.place(field) for option, field in fields.items()}
    try:
        code: int = service.run(
            settings, load=lambda: load().config, file=loaded.file, command=own_command(),
            given={option: where for option, where in explicit.items() if where != "default"},
        )  # fmt: skip
    except FastscpError as error:
        if settings.log_file:
            # Whoever looks for it there should find it, too.
            logging.getLogger("fastscp.main").error("%s", error)
            log.flush()
        raise
    return code


def begin_log(settings: ServeConfig) -> None:
    """Set up the log of a receiver in this process, and what modes it gives. Raises StartError."""
    if settings.umask:
        # Before anything is made, as the file of the log is. Workers inherit it.
        os.umask(int(settings.umask, 8))
    try:
        log.configure(
            "main", settings.log_level, settings.log_format, queued=True, file=settings.log_file
        )
    except log.LogFileError as error:
        raise StartError(f"--log-file: {error.strerror}") from error
    except OSError as error:
        raise StartError(
            f"cannot begin ({error.strerror}); raise the limit of processes and threads"
        ) from error
