"""What several commands have in common: their options, and how these are read."""

from __future__ import annotations

import inspect
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from cyclopts import Group as HelpGroup
from cyclopts import Parameter

from fastscp.config.layers import Loaded, load, load_one
from fastscp.config.quantities import Duration
from fastscp.config.settings import SETTINGS, Group, read_value
from fastscp.config.values import (
    Choice,
    Kind,
    Many,
    Parsed,
    Switch,
    Whole,
    read_path,
    read_peer,
    read_title,
)
from fastscp.errors import ConfigError
from fastscp.tls.profiles import DEFAULT as DEFAULT_PROFILE
from fastscp.tls.profiles import NAMES as PROFILE_NAMES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cyclopts import Token

    FileName = str
else:
    # For the completion of a shell it is a file; the command gets it as it was written.
    FileName = Path

__all__ = [
    "JSON",
    "MAX_PDU_LENGTH",
    "PEER",
    "TIMEOUT",
    "TITLE",
    "TLS",
    "TLSCA",
    "AskedAbout",
    "CalledAE",
    "CallingAE",
    "CheckedFile",
    "ConfigFile",
    "FileName",
    "MaxPDULength",
    "Quiet",
    "ShownCertificate",
    "Store",
    "StoreConfigFile",
    "TLSCert",
    "TLSKey",
    "TLSNoVerify",
    "TLSProfile",
    "Umask",
    "Verbose",
    "VerboseRequestor",
    "as_written",
    "load_settings",
    "named_file",
    "store_directory",
    "take_umask",
    "takes_settings",
]

_HELP_GROUPS: Final = {
    group: HelpGroup(group.value, sort_key=order) for order, group in enumerate(Group, start=1)
}


def as_written(type_: object, tokens: Sequence[Token]) -> str:  # noqa: ARG001
    """The text of an option, which config reads: the type is for the completion of a shell."""
    return tokens[0].value


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
VerboseRequestor = Annotated[
    int,
    Parameter(
        name="-v",
        count=True,
        show_default=False,
        help="Say more on stderr: -vv also has a line per PDU.",
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
    FileName,
    Parameter(
        name="--config",
        metavar="FILE",
        converter=as_written,
        show_default=False,
        help="TOML file with settings; FASTSCP_CONFIG names one too.",
    ),
]
CheckedFile = Annotated[
    FileName,
    Parameter(
        name="--check",
        metavar="FILE",
        converter=as_written,
        show_default=False,
        help="Tell all that is wrong with this TOML file, and no more. Exit code 2 if there is "
        "anything.",
    ),
]
AskedAbout = Annotated[
    str,
    Parameter(
        name="--who",
        metavar="AE@ADDRESS/CALLED",
        show_default=False,
        help="Tell what becomes of a sender of this AE title and address that calls this AE title "
        "(without /CALLED: --ae-title), and why. Exit code 1 if it is rejected.",
    ),
]


ShownCertificate = Annotated[
    list[str],
    Parameter(
        name="--certificate",
        metavar="RULE",
        negative="",
        show_default=False,
        help="With --who: what the certificate of the sender shows, as a [from] table names it "
        "(subject=NAME, san=NAME, sha256=FINGERPRINT); repeatable.",
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
            show_choices=False,
            converter=None if switch or isinstance(setting.kind, Many) else as_written,
            # A switch set in the environment must be possible to take back.
            negative=f"--no-{setting.name}" if switch and not setting.flag_only else "",
        )
        parameters.append(
            inspect.Parameter(
                setting.field,
                inspect.Parameter.KEYWORD_ONLY,
                default=None,
                annotation=Annotated[_completed_as(setting.kind), option],
            )
        )
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {one.name: one.annotation for one in parameters}
    return command


def _completed_as(kind: Kind) -> Any:
    """What a shell is to offer for a value; only lists and switches get more than their text."""
    match kind:
        case Switch():
            return bool
        case Many():
            return list[str]
        case Choice(words):
            return Literal[words]
        case Parsed(parse) if parse is read_path:
            return Path
    return str


_FILE: Final = Parsed(read_path, "FILE", "a TOML file with settings")


def named_file(option: str, name: str | None) -> Path | None:
    """The file that an option names. Raises ConfigError: an unset variable names none."""
    if name is None:
        return None
    path: Path = read_value(option, name, _FILE)
    return path


def load_settings(
    given: dict[str, object],
    config: str | None,
    verbose: int,
    quiet: bool,
    *,
    again: bool = False,
    for_elsewhere: bool = False,
) -> Loaded:
    """Layer the settings, with -v and -q standing for a log level.

    again, for_elsewhere: as in `load`.
    """
    spelled: dict[str, str] = {}
    if verbose or quiet:
        spelling = "-q" if not verbose else "-v" if verbose == 1 else "-vv"
        if verbose and quiet:
            raise ConfigError("-v", "contradicts -q; give one of them")
        if "log_level" in given:
            raise ConfigError(spelling, "sets the log level, and so does --log-level; give one")
        given["log_level"] = "warning" if quiet else "debug" if verbose == 1 else "trace"
        spelled["log_level"] = spelling
    return load(
        given, file=named_file("--config", config), spelled=spelled, again=again,
        for_elsewhere=for_elsewhere,
    )  # fmt: skip


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
    FileName | None,
    Parameter(
        name="--tls-ca",
        metavar="FILE",
        converter=as_written,
        help="Certificates to trust, instead of the system's.",
    ),
]
TLSCert = Annotated[
    FileName | None,
    Parameter(
        name="--tls-cert",
        metavar="FILE",
        converter=as_written,
        help="Certificate to show to the peer.",
    ),
]
TLSKey = Annotated[
    FileName | None,
    Parameter(name="--tls-key", metavar="FILE", converter=as_written, help="Its key."),
]
TLSProfile = Annotated[
    str | None,
    Parameter(
        name="--tls-profile",
        metavar="|".join(PROFILE_NAMES),
        help=f"Versions and ciphers to offer: those of the profile that serve calls so. "
        f"(default: {DEFAULT_PROFILE})",
    ),
]
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
    FileName,
    Parameter(
        name="--store",
        metavar="DIR",
        converter=as_written,
        help="Directory of the store; else what FASTSCP_STORE or the file with settings names. "
        "Default: ./dicom-store",
        show_default=False,
    ),
]
StoreConfigFile = Annotated[
    FileName,
    Parameter(
        name="--config",
        metavar="FILE",
        converter=as_written,
        show_default=False,
        help="TOML file with the settings of serve, for its store; FASTSCP_CONFIG names one too.",
    ),
]


Umask = Annotated[
    str,
    Parameter(
        name="--umask",
        metavar="OCTAL",
        converter=as_written,
        show_default=False,
        help="Bits that files and folders are not to have, as in serve; else what FASTSCP_UMASK or "
        "the file with settings says. Default: the umask of the process",
    ),
]


def take_umask(umask: str | None, config: str | None) -> None:
    """Give what this process makes in a store the modes that serve would. Raises ConfigError."""
    if taken := load_one("umask", umask, named_file("--config", config)):
        os.umask(int(taken, 8))


def store_directory(store: str | None, config: str | None) -> Path:
    """The store that serve would use with the same options. Raises ConfigError."""
    path: Path = load_one("store", store, named_file("--config", config))
    return path
