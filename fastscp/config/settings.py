"""The settings of `fastscp serve`, declared once each.

A field of `WorkerConfig` or `ServeConfig` is the declaration: its name is the flag, the TOML key
and, behind `FASTSCP_`, the environment variable. Help, the table of the README, what `fastscp
config` prints and what a worker is told come from the same place. `layers` reads them.
"""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from fastscp import uids
from fastscp.config.admin import (
    ADMIN_PORT,
    AdminAddress,
    AdminToken,
    read_admin,
    read_admin_token,
)
from fastscp.config.faults import ACCEPTS, FaultRule, read_fault
from fastscp.config.quantities import Duration, Size
from fastscp.config.tables import Tables
from fastscp.config.values import (
    AllowRule,
    Choice,
    ExplainedError,
    Kind,
    Many,
    Parsed,
    Switch,
    Whole,
    quoted,
    read_allow_rule,
    read_compress,
    read_file_name,
    read_host,
    read_log_file,
    read_network,
    read_own_title,
    read_path,
    read_text,
    read_umask,
    read_user_identity,
)
from fastscp.errors import ConfigError
from fastscp.tls.profiles import DEFAULT as DEFAULT_PROFILE
from fastscp.tls.profiles import NAMES as PROFILE_NAMES
from fastscp.tls.profiles import OTHER_NAMES as OTHER_PROFILE_NAMES
from fastscp.users.identities import UserIdentities

if TYPE_CHECKING:
    from fastscp.tls.material import Material

__all__ = [
    "ENVIRONMENT_PREFIX",
    "SETTINGS",
    "SUFFIX",
    "TLS_FIELDS",
    "AllowRule",
    "Group",
    "ServeConfig",
    "Setting",
    "WorkerConfig",
    "options_table",
    "read_value",
    "suffix_of",
    "where_table",
]

ENVIRONMENT_PREFIX: Final = "FASTSCP_"
SUFFIX: Final = ".dcm"
DEFAULT_LAYOUT: Final = "{StudyInstanceUID}/{SeriesInstanceUID}/{SOPInstanceUID}" + SUFFIX


class Group(Enum):
    """The headings of the help, in its order."""

    NETWORK = "Network"
    TLS = "TLS"
    ASSOCIATION = "Association"
    STORE = "Store"
    LIMITS = "Limits and timers"
    ADMIN = "Metrics and health"
    LOGGING = "Logging"
    AIDS = "Test aids"


def _layout(raw: object) -> str:
    from fastscp_ext import Layout

    template = read_text(raw)
    try:
        Layout(template, SUFFIX.encode())
    except ValueError as error:
        raise ExplainedError(str(error)) from None
    return template


# The settings ------------------------------------------------------------------------------------

# Who is called decides how an instance is kept; who calls, only what is taken and how much of it.
_AE: Final = frozenset({"ae"})
_AE_AND_FROM: Final = frozenset({"ae", "from"})


@dataclass(frozen=True)
class Setting:
    """A setting as declared by a field of `ServeConfig` or of its base.

    default_text: the default for people, where the value depends on the machine or says too little.
    flag_only: a consent to be given by hand each time, never left behind in a file.
    tables: the kinds of tables of a file it may also stand in: {"ae"}, {"ae", "from"} or none.
    """

    name: str
    kind: Kind
    group: Group
    help: str
    default_text: str
    flag_only: bool
    tables: frozenset[str]

    @property
    def field(self) -> str:
        return self.name.replace("-", "_")

    @property
    def flag(self) -> str:
        return f"--{self.name}"

    @property
    def environment(self) -> str:
        return ENVIRONMENT_PREFIX + self.field.upper()

    @property
    def text(self) -> str:
        """The sentence of help and README, with the limits."""
        return f"{self.help} ({self.kind.limits})" if self.kind.limits else self.help


def _setting(
    kind: Kind,
    group: Group,
    help: str,  # noqa: A002 - what it is called everywhere else
    *,
    default: Any = dataclasses.MISSING,
    factory: Any = dataclasses.MISSING,
    default_text: str = "",
    flag_only: bool = False,
    tables: frozenset[str] = frozenset(),
) -> Any:
    metadata = {
        "kind": kind,
        "group": group,
        "help": help,
        "default_text": default_text or kind.show(default),
        "flag_only": flag_only,
        "tables": tables,
    }
    if factory is not dataclasses.MISSING:
        return dataclasses.field(default_factory=factory, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


_AE_TITLE: Final = Parsed(
    read_own_title,
    "TITLE",
    "1 to 16 ASCII characters, without a backslash, with %XX for any other byte",
)
_DAY_S: Final = 86400.0
_PEM: Final = Parsed(read_file_name, "FILE", "a PEM file")
# The settings of which the files and the context of TLS are made.
TLS_FIELDS: Final = (
    "tls_cert",
    "tls_key",
    "tls_ca",
    "tls_crl",
    "tls_client_auth",
    "tls_profile",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerConfig:
    """What a worker is told of the configuration: how to treat what arrives. Immutable.

    Main sends the object itself: a setting that stands here needs no other way to a worker.
    layout_change and min_free_space are main's to act on, and stand beside what they are about.
    """

    proxy_protocol_from: tuple[str, ...] = _setting(
        Many(
            Parsed(read_network, "NETWORK", "a network or an address, such as 10.1.2.0/28 or ::1")
        ),
        Group.NETWORK,
        "Proxies to believe: connections from this network have to begin with a PROXY header "
        "(version 1 or 2), which says whom they are from; repeatable.",
        default=(),
        default_text="nobody",
    )
    ae_title: str = _setting(
        _AE_TITLE, Group.ASSOCIATION, "AE title of the receiver.", default="FASTSCP"
    )
    check_called_ae: bool = _setting(
        Switch(),
        Group.ASSOCIATION,
        "Reject an association that calls another AE title.",
        default=False,
    )
    max_pdu_length: int = _setting(
        Whole(4096, 16777216, even=True),
        Group.ASSOCIATION,
        "Largest P-DATA-TF to announce, in bytes without its header.",
        default=131072,
    )
    max_async_operations: int = _setting(
        Whole(1, 65535),
        Group.ASSOCIATION,
        "Most operations a sender may have outstanding, where it asks for more than one.",
        default=64,
    )
    user_identity: UserIdentities = _setting(  # noqa: RUF009 - they are immutable
        Parsed(
            read_user_identity,
            "FORM",
            "off, password:FILE or jwt:FILE, or one of these with a ? before the colon",
        ),
        Group.ASSOCIATION,
        "Which user a sender has to log in as: off = any or none, password:FILE = one of that "
        "file, with the password, jwt:FILE = whoever a JSON Web Token names that a key of that "
        "file signed (a JWK Set); with password?:FILE or jwt?:FILE it may also show none.",
        default=UserIdentities(),
    )
    sop_classes: tuple[str, ...] = _setting(
        Many(
            Parsed(
                read_text,
                "LIST",
                "any, storage, keywords or UIDs, with * as wildcard, comma separated",
            ),
            uids.sop_class_rule,
        ),
        Group.ASSOCIATION,
        "SOP classes to accept: keywords or UIDs, comma separated, * as wildcard; storage = the "
        "known storage classes; any = also private and unknown ones. Verification is always "
        "accepted.",
        default=("any",),
        tables=_AE_AND_FROM,
    )
    transfer_syntaxes: tuple[str, ...] = _setting(
        Many(
            Parsed(read_text, "LIST", "any, keywords or UIDs, with * as wildcard, comma separated"),
            uids.transfer_syntax_rule,
        ),
        Group.ASSOCIATION,
        "Transfer syntaxes to accept: keywords or UIDs, comma separated, * as wildcard. Implicit "
        "VR Little Endian is always accepted.",
        default=("any",),
        tables=_AE_AND_FROM,
    )
    strict: bool = _setting(
        Switch(),
        Group.ASSOCIATION,
        "Refuse harmless violations of the standard that are otherwise tolerated.",
        default=False,
        tables=_AE,
    )
    durability: str = _setting(
        Choice(("stable", "buffered")),
        Group.STORE,
        "When success is answered: stable = once the instance survives a power cut, buffered = "
        "once it has its name.",
        default="stable",
        tables=_AE,
    )
    layout: str = _setting(
        Parsed(_layout, "TEMPLATE", f"a template such as {DEFAULT_LAYOUT}"),
        Group.STORE,
        "Path of an instance below the store; it contains {SOPInstanceUID} and ends in .dcm.",
        default=DEFAULT_LAYOUT,
        tables=_AE,
    )
    layout_change: bool = _setting(
        Switch(),
        Group.STORE,
        "Consent to a layout other than the one the store was made with. Flag only.",
        default=False,
        flag_only=True,
    )
    on_duplicate: str = _setting(
        Choice(("version", "replace", "keep", "refuse")),
        Group.STORE,
        "What becomes of an instance that differs from the one already stored under its path.",
        default="version",
        tables=_AE,
    )
    digest: str = _setting(
        Choice(("crc32c", "sha256", "none")),
        Group.STORE,
        "Digest of the data set as received, kept in the journal.",
        default="crc32c",
        tables=_AE,
    )
    compress: str = _setting(
        Parsed(read_compress, "FORM", "none, zstd or zstd:LEVEL with a level of 1 to 19"),
        Group.STORE,
        "Compression of the files: none, zstd or zstd:LEVEL (1 to 19); files then end in .dcm.zst.",
        default="none",
        tables=_AE,
    )
    max_instance_size: int = _setting(
        Size(),
        Group.LIMITS,
        "Largest data set to store; 0 = no limit.",
        default=0,
        tables=_AE_AND_FROM,
    )
    max_bytes_in_flight: int = _setting(
        Size(),
        Group.LIMITS,
        "Bytes of complete instances that wait for their commit, in each worker and for each "
        "durability; beyond it reading pauses; 0 = no limit.",
        default=1 << 30,
    )
    min_free_space: int = _setting(
        Size(),
        Group.LIMITS,
        "Free space below which nothing is stored; below twice that, reading slows; 0 = no limit.",
        default=1 << 30,
    )
    artim_timeout: float = _setting(
        Duration(0.1, 3600.0),
        Group.LIMITS,
        "How long a connection may take to complete its association request.",
        default=30.0,
    )
    message_timeout: float = _setting(
        Duration(0.1, _DAY_S),
        Group.LIMITS,
        "How long a sender may make no progress inside a message.",
        default=60.0,
        tables=_AE_AND_FROM,
    )
    idle_timeout: float = _setting(
        Duration(0.0, 7 * _DAY_S),
        Group.LIMITS,
        "How long an association may rest between messages; 0 = for ever.",
        default=600.0,
        tables=_AE_AND_FROM,
    )
    min_rate: int = _setting(
        Size(metavar="RATE", per_second=True),
        Group.LIMITS,
        "Bytes per second a sender must keep up inside a message; 0 = any.",
        default=1024,
        tables=_AE_AND_FROM,
    )
    drain_timeout: float = _setting(
        Duration(0.0, _DAY_S),
        Group.LIMITS,
        "How long associations may go on after SIGTERM.",
        default=30.0,
    )
    log_format: str = _setting(
        Choice(("text", "json")), Group.LOGGING, "Form of the log.", default="text"
    )
    log_file: str = _setting(
        Parsed(read_log_file, "FILE", "a file"),
        Group.LOGGING,
        "File that the log is appended to (mode 0640), opened anew by HUP and `fastscp reload`.",
        default="",
        default_text="stderr",
    )
    log_level: str = _setting(
        Choice(("trace", "debug", "info", "warning", "error"), also=(("warn", "warning"),)),
        Group.LOGGING,
        "Least severe message to log.",
        default="info",
    )
    discard: bool = _setting(
        Switch(),
        Group.AIDS,
        "Store nothing: receive, check and answer alone. Flag only.",
        default=False,
        flag_only=True,
    )
    fault: tuple[FaultRule, ...] = _setting(
        Many(Parsed(read_fault, "RULE", ACCEPTS), commas=False),
        Group.AIDS,
        "Fail on purpose: every=100 status=A700, ae=CT1 delay=2s, abort, reject or close; "
        "repeatable. Flag only.",
        default=(),
        default_text="none",
        flag_only=True,
    )

    @property
    def suffix(self) -> str:
        """What the names of stored files end in."""
        return suffix_of(self.compress)


def suffix_of(compress: str) -> str:
    """What the names of files end in that are kept in this form."""
    return SUFFIX if compress == "none" else SUFFIX + ".zst"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeConfig(WorkerConfig):
    """The effective configuration of a receiver. Immutable, picklable.

    What stands here is for main alone. tables: of the file; no flag and no variable gives any.
    tls: what is in the files that the settings of TLS name; None: they name no certificate.
    """

    host: tuple[str, ...] = _setting(
        Many(Parsed(read_host, "HOST", "an address or a host name")),
        Group.NETWORK,
        "Address to listen on, IPv4 or IPv6; repeatable.",
        default=("0.0.0.0",),  # noqa: S104 - a receiver is there to be reached
    )
    port: int = _setting(
        Whole(0, 65535, metavar="PORT"),
        Group.NETWORK,
        "TCP port to listen on; 0 lets the system pick one.",
        default=11112,
    )
    no_plain: bool = _setting(
        Switch(),
        Group.TLS,
        "Listen with TLS alone: there is no --port then.",
        default=False,
    )
    tls_port: int = _setting(
        Whole(0, 65535, metavar="PORT"),
        Group.TLS,
        "TCP port to listen on with TLS; 0 lets the system pick one.",
        default=2762,
        default_text="2762 where there is a certificate",
    )
    tls_cert: str = _setting(
        _PEM,
        Group.TLS,
        "Certificate of the receiver, followed by those of the CAs between it and the one that "
        "senders know, as PEM. With it the receiver speaks TLS.",
        default="",
        default_text="none",
    )
    tls_key: str = _setting(
        _PEM,
        Group.TLS,
        "Private key of the certificate, as PEM, not encrypted.",
        default="",
        default_text="in the file of the certificate",
    )
    tls_ca: tuple[str, ...] = _setting(
        Many(_PEM),
        Group.TLS,
        "Certificates of CAs, as PEM, that have to have signed those of senders; repeatable.",
        default=(),
        default_text="none",
    )
    tls_crl: tuple[str, ...] = _setting(
        Many(_PEM),
        Group.TLS,
        "Revocation lists of these CAs, as PEM; repeatable.",
        default=(),
        default_text="none",
    )
    tls_client_auth: str = _setting(
        Choice(("none", "request", "require")),
        Group.TLS,
        "Whether senders have to show a certificate: require = yes, request = they are asked, and "
        "may have none, none = they are not asked.",
        default="",
        default_text="require with --tls-ca, else none",
    )
    tls_profile: str = _setting(
        Choice(PROFILE_NAMES, also=OTHER_PROFILE_NAMES),
        Group.TLS,
        "Versions and ciphers, by the names that DCMTK has for the profiles of the standard: 8996 "
        "= BCP 195 of RFC 8996 and 9325 (TLS 1.2 and 1.3), 8996-mod = its modified form, with more "
        "ciphers; the others are retired: see the README, TLS.",
        default=DEFAULT_PROFILE,
    )
    workers: int = _setting(
        Whole(1, 256),
        Group.NETWORK,
        "Worker processes that receive.",
        factory=lambda: min(256, len(os.sched_getaffinity(0))),
        default_text="the CPUs this process may use",
    )
    allow: tuple[AllowRule, ...] = _setting(
        Many(
            Parsed(
                read_allow_rule,
                "AE@NETWORK",
                "AE@NETWORK, such as CT1@10.1.2.0/24, *@::1 or PACS@*",
            )
        ),
        Group.NETWORK,
        "Who may associate: a calling AE title (* = any) from a network (* = any); repeatable.",
        default=(),
        default_text="anyone",
    )
    store: Path = _setting(  # noqa: RUF009 - a path is immutable
        Parsed(read_path, "DIR", "a directory"),
        Group.STORE,
        "Directory the instances are kept in.",
        default=Path("dicom-store"),
        default_text="./dicom-store",
    )
    store_must_exist: bool = _setting(
        Switch(),
        Group.STORE,
        "Refuse a directory that is not a store already, such as a mount point without its mount.",
        default=False,
    )
    store_new_life: bool = _setting(
        Switch(),
        Group.STORE,
        "Consent to begin anew in a directory that holds instances and has lost its store.toml or "
        "its journal. Flag only.",
        default=False,
        flag_only=True,
    )
    redo: str = _setting(
        Choice(("auto", "on", "off")),
        Group.STORE,
        "Whether small stable instances are written to a log first, so that one flush is enough "
        "before their answer: auto = where the store is on ext4, xfs or btrfs.",
        default="auto",
    )
    log_instance_size: int = _setting(
        Size(most=128 << 10),
        Group.STORE,
        "Largest file of an instance that goes to the log of --redo; 0 = none does.",
        default=64 << 10,
    )
    umask: str = _setting(
        Parsed(read_umask, "OCTAL", "an octal number such as 0027"),
        Group.STORE,
        "Bits that files (0640) and folders (0750) are not to have; it takes away, and adds none.",
        default="",
        default_text="the umask of the process",
    )
    max_associations: int = _setting(
        Whole(0, 1_000_000),
        Group.LIMITS,
        "Associations at a time; 0 = as many as there are open files for.",
        default=1000,
        tables=_AE_AND_FROM,
    )
    max_associations_per_host: int = _setting(
        Whole(0, 1_000_000),
        Group.LIMITS,
        "Associations at a time from one address; 0 = no limit.",
        default=0,
        tables=_AE_AND_FROM,
    )
    max_associations_per_ae: int = _setting(
        Whole(0, 1_000_000),
        Group.LIMITS,
        "Associations at a time from one calling AE title; 0 = no limit.",
        default=0,
        tables=_AE_AND_FROM,
    )
    max_association_rate: int = _setting(
        Whole(0, 1_000_000),
        Group.LIMITS,
        "New associations from one address in a second; 0 = no limit.",
        default=0,
        tables=_AE_AND_FROM,
    )
    reload_linger: float = _setting(
        Duration(0.0, 7 * _DAY_S),
        Group.LIMITS,
        "How long a worker that a reload retires may live for its associations.",
        default=3600.0,
    )
    admin: AdminAddress = _setting(  # noqa: RUF009 - immutable
        Parsed(read_admin, "HOST:PORT", "HOST:PORT, an IPv6 address in brackets, or off"),
        Group.ADMIN,
        "Where to answer HTTP for the page (/), /metrics, /healthz and /readyz; port 0 lets the "
        "system pick one; off = nowhere. Beyond this machine only with --admin-token-file.",
        default=AdminAddress("127.0.0.1", ADMIN_PORT, is_given=False),
    )
    admin_token_file: AdminToken = _setting(  # noqa: RUF009 - immutable
        Parsed(read_admin_token, "FILE", "a file with a token"),
        Group.ADMIN,
        "File with the token that whoever asks there shows (Authorization: Bearer); with it the "
        "page can stop and start accepting, and abort associations.",
        default=AdminToken(),
        default_text="none",
    )
    tables: Tables = dataclasses.field(default_factory=Tables)
    tls: Material | None = None

    @property
    def client_auth(self) -> str:
        """Whether senders have to show a certificate: none, request or require."""
        return self.tls_client_auth or ("require" if self.tls_ca else "none")

    def for_workers(self) -> WorkerConfig:
        """The part that workers are told, without a list of its fields."""
        return msgspec.convert(self, WorkerConfig, from_attributes=True)


def _declared() -> list[dataclasses.Field[Any]]:
    """The fields of `ServeConfig` in the order of help: by heading, those of main alone first."""
    told = {field.name for field in dataclasses.fields(WorkerConfig)}
    headings = list(Group)
    return sorted(
        (field for field in dataclasses.fields(ServeConfig) if field.metadata),
        key=lambda field: (headings.index(field.metadata["group"]), field.name in told),
    )


SETTINGS: Final[tuple[Setting, ...]] = tuple(
    Setting(name=field.name.replace("_", "-"), **field.metadata) for field in _declared()
)


# Reading and showing ----------------------------------------------------------------------------


def read_value(option: str, raw: object, kind: Kind) -> Any:
    """A value given as `option`, read by its kind. Raises ConfigError."""
    try:
        return kind.read(raw)
    except ExplainedError as error:
        raise ConfigError(option, str(error)) from None
    except ValueError as error:
        if isinstance(raw, list) and isinstance(kind, Many):
            raw = ", ".join(one if isinstance(one, str) else quoted(one) for one in raw)
        raise ConfigError(option, f"{quoted(raw)} {error}; give {kind.accepts}") from None


def options_table() -> str:
    """The settings as a Markdown table, in the words of `fastscp serve --help`."""
    lines = ["| option | default | what it does |", "| --- | --- | --- |"]
    for setting in SETTINGS:
        usage = f"{setting.flag} {setting.kind.metavar}".strip()
        cells = (f"`{usage}`", setting.default_text, setting.text)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def where_table() -> str:
    """What may be set where, as a Markdown table."""
    both, only_ae = (
        ", ".join(f"`{one.name}`" for one in SETTINGS if one.tables == tables)
        for tables in (_AE_AND_FROM, _AE)
    )
    lines = [
        "| setting | flag, environment, top of the file | `[ae.TITLE]` | `[from.NAME]` |",
        "| --- | --- | --- | --- |",
        f"| {only_ae} | yes | yes | no |",
        f"| {both} | yes | yes | yes |",
        "| `who`, `called`, `certificate` | no | no | yes |",
        "| all others | yes | no | no |",
    ]
    return "\n".join(lines) + "\n"
