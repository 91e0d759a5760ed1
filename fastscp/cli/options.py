"""What several commands have in common: their options, and how these are read."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

from cyclopts import Group as HelpGroup
from cyclopts import Parameter

from fastscp.config.settings import SETTINGS, Group, Loaded, load, load_one
from fastscp.config.values import (
    Duration,
    Many,
    Parsed,
    Switch,
    Whole,
    read_peer,
    read_title,
)
from fastscp.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "JSON",
    "MAX_PDU_LENGTH",
    "PEER",
    "TIMEOUT",
    "TITLE",
    "TLS",
    "TLSCA",
    "CalledAE",
    "CallingAE",
    "ConfigFile",
    "MaxPDULength",
    "Quiet",
    "Store",
    "StoreConfigFile",
    "TLSCert",
    "TLSKey",
    "TLSNoVerify",
    "Verbose",
    "load_settings",
    "store_directory",
    "takes_settings",
]

_HELP_GROUPS: Final = {
    group: HelpGroup(group.value, sort_key=order) for order, group in enumerate(Group, start=1)
}

Verbose = Annotated[
    int,
    Parameter(
        name="-v",
        count=True,
        show_default=False,
        group=_HELP_GROUPS[Group.LOGGING],
        help="Log more: -v is --log-level debug, -vv is trace.",
    ),
]
Quiet = Annotated[
    bool,
    Parameter(
        name="-q",
        negative="",
        show_default=False,
        group=_HELP_GROUPS[Group.LOGGING],
        help="Log less: --log-level warning.",
    ),
]

# Of the receiver: serve, config, demo ------------------------------------------------------------

ConfigFile = Annotated[
    str,
    Parameter(
        name="--config",
        metavar="FILE",
        show_default=False,
        help="TOML file with settings; FASTSCP_CONFIG names one too.",
    ),
]


def takes_settings(command: Callable[..., int]) -> Callable[..., int]:
    """Give a command one option per setting, as text: reading and layering is config's.

    The command's own keyword parameters come first; the settings that were given arrive in
    `**given`.
    """
    own = inspect.signature(command, eval_str=True).parameters.values()
    parameters = [one for one in own if one.kind is not inspect.Parameter.VAR_KEYWORD]
    for setting in SETTINGS:
        switch = isinstance(setting.kind, Switch)
        option = Parameter(
            name=setting.flag,
            metavar=setting.kind.metavar or None,
            group=_HELP_GROUPS[setting.group],
            help=setting.text,
            show_default=setting.default_text,
            # A switch set in the environment must be possible to take back.
            negative=f"--no-{setting.name}" if switch and not setting.flag_only else "",
        )
        given: Any = bool if switch else list[str] if isinstance(setting.kind, Many) else str
        parameters.append(
            inspect.Parameter(
                setting.field,
                inspect.Parameter.KEYWORD_ONLY,
                default=None,
                annotation=Annotated[given, option],
            )
        )
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {one.name: one.annotation for one in parameters}
    return command


def load_settings(
    given: dict[str, object], config: str | None, verbose: int, quiet: bool
) -> Loaded:
    """Layer the settings, with -v and -q standing for a log level."""
    spelled: dict[str, str] = {}
    if verbose or quiet:
        spelling = "-q" if not verbose else "-v" if verbose == 1 else "-vv"
        if verbose and quiet:
            raise ConfigError("-v", "contradicts -q; give one of them")
        if "log_level" in given:
            raise ConfigError(spelling, "sets the log level, and so does --log-level; give one")
        given["log_level"] = "warning" if quiet else "debug" if verbose == 1 else "trace"
        spelled["log_level"] = spelling
    return load(given, file=None if config is None else Path(config), spelled=spelled)


# Of the requestor: echo, send --------------------------------------------------------------------

CalledAE = Annotated[str, Parameter(metavar="TITLE", help="AE title of the peer.")]
CallingAE = Annotated[str, Parameter(metavar="TITLE", help="AE title to call as.")]
MaxPDULength = Annotated[
    str, Parameter(metavar="N", help="Largest P-DATA-TF to announce, in bytes.")
]

JSON = Annotated[
    bool,
    Parameter(name="--json", negative="", show_default=False, help="Print the result as JSON."),
]
TLS = Annotated[bool, Parameter(name="--tls", negative="", show_default=False, help="Use TLS.")]
TLSCA = Annotated[
    str | None,
    Parameter(
        name="--tls-ca",
        metavar="FILE",
        help="Certificates to trust, instead of the system's.",
    ),
]
TLSCert = Annotated[
    str | None,
    Parameter(name="--tls-cert", metavar="FILE", help="Certificate to show to the peer."),
]
TLSKey = Annotated[str | None, Parameter(name="--tls-key", metavar="FILE", help="Its key.")]
TLSNoVerify = Annotated[
    bool,
    Parameter(
        name="--tls-no-verify",
        negative="",
        show_default=False,
        help="Trust whoever answers. For tests only.",
    ),
]

PEER: Final = Parsed(read_peer, "HOST:PORT", "HOST:PORT, an IPv6 address in brackets")
TITLE: Final = Parsed(read_title, "TITLE", "1 to 16 ASCII characters without a backslash")
TIMEOUT: Final = Duration(0.1, 3600.0)
MAX_PDU_LENGTH: Final = Whole(4096, 16777216, even=True)

# Of a store: verify, cat -------------------------------------------------------------------------

Store = Annotated[
    str,
    Parameter(
        name="--store",
        metavar="DIR",
        help="Directory of the store; else what FASTSCP_STORE or the file with settings names. "
        "Default: ./dicom-store",
        show_default=False,
    ),
]
StoreConfigFile = Annotated[
    str,
    Parameter(
        name="--config",
        metavar="FILE",
        show_default=False,
        help="TOML file with the settings of serve, for its store; FASTSCP_CONFIG names one too.",
    ),
]


def store_directory(store: str | None, config: str | None) -> Path:
    """The store that serve would use with the same options. Raises ConfigError."""
    path: Path = load_one("store", store, None if config is None else Path(config))
    return path
