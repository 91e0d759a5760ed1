"""What a ready-made file is rendered from, and how settings are written in it."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from fastscp.config.admin import AdminToken
from fastscp.config.tomlfile import written_path
from fastscp.config.values import Many, Parsed, Switch, Whole, read_file_name
from fastscp.main.descriptors import main_needs, redo_files_wanted, worker_needs
from fastscp.users.identities import UserIdentities

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastscp.config.layers import Loaded
    from fastscp.config.settings import ServeConfig, Setting

__all__ = [
    "ADMIN_PORT",
    "AFTER_DRAIN_S",
    "NAMING_FILES",
    "PRIVILEGED",
    "Source",
    "admin_for_probes",
    "comment",
    "open_files",
    "renamed",
    "toml_name",
    "toml_value",
]

# Ports below this one are for root, or for who has CAP_NET_BIND_SERVICE. See ip(7).
PRIVILEGED: Final = 1024
# Of health and metrics, on the loopback of the machine or container.
ADMIN_PORT: Final = 8112
# What an end takes beside the drain time: main kills workers that do not end 15 s after it, and
# leaves the store then, which may take 10 s. Where a flush takes longer, it tells systemd.
AFTER_DRAIN_S: Final = 30
# Settings that name files which the service reads, beside that of --config.
NAMING_FILES: Final = (
    "tls_cert", "tls_key", "tls_ca", "tls_crl", "user_identity", "admin_token_file",
)  # fmt: skip
# Where nothing limits associations, as many open files as a kernel grants by default.
_MANY_FILES: Final = 1 << 20


@dataclass(frozen=True)
class Source:
    """The effective configuration, where its values come from, and the program.

    program: the words by which it is called, the first an absolute path.
    """

    loaded: Loaded
    program: tuple[str, ...]

    @property
    def config(self) -> ServeConfig:
        return self.loaded.config

    @property
    def ports(self) -> dict[str, int]:
        """Where senders reach it: `dicom` without TLS, `dicom-tls` with it."""
        config = self.config
        plain = {} if config.no_plain else {"dicom": config.port}
        return plain | ({"dicom-tls": config.tls_port} if config.tls_cert else {})

    @property
    def privileged(self) -> tuple[int, ...]:
        """The ports that are not for everybody."""
        return tuple(port for port in self.ports.values() if 0 < port < PRIVILEGED)

    @property
    def files(self) -> dict[str, tuple[str, ...]]:
        """What the service reads, by the field of the setting that names it: absolute paths."""
        found = {}
        for field in NAMING_FILES:
            if paths := tuple(map(_absolute, _names(self.config, field))):
                found[field] = paths
        return found

    @property
    def all_files(self) -> list[str]:
        """The same, each path once."""
        return list(dict.fromkeys(one for paths in self.files.values() for one in paths))

    @property
    def folder(self) -> str:
        """The folder that relative paths in the file of --config count from; empty: it has none."""
        if not self.loaded.file:
            return ""
        here = str(Path.cwd())
        config = self.config
        named = [one for field in self.files for one in _names(config, field)]
        is_relative = any(not Path(one).is_absolute() for one in named)
        # This one is absolute as soon as it is read.
        below = config.log_file.startswith(f"{here}/") and "log_file" in self.loaded.lines
        return here if is_relative or below else ""

    def is_default(self, field: str) -> bool:
        """Whether nobody has set this."""
        return self.loaded.sources[field] == "default"

    def given(self) -> Iterator[tuple[Setting, Any]]:
        """The settings that a flag or a variable gives, with their values; no consents, no aids."""
        for setting, _shown, _place in self.loaded.rows():
            source = self.loaded.sources[setting.field]
            if not setting.flag_only and source not in ("default", self.loaded.file):
                yield setting, getattr(self.config, setting.field)

    def flags(self, *without: str) -> list[list[str]]:
        """The command line that gives the same again, each flag with its value.

        The file of `--config` is named by its path. without: fields to leave out.
        """
        words = [["--config", self.loaded.file]] if self.loaded.file else []
        for setting, value in self.given():
            if setting.field not in without:
                words += _as_flags(setting, value)
        return words

    def making(self, program: tuple[str, ...], store: str, *config: str) -> list[str]:
        """The command that makes a store: a start that nobody reaches, ended after a while.

        It has all that a store remembers, as the layout. config: words that name a file instead of
        the one here.
        """
        words = [*program, "serve", "--store", store, "--no-store-must-exist"]
        if config:
            words += config
        else:
            own = ("store", "store_must_exist", "host", "port", "tls_port", "log_file", "admin")
            words += [word for one in self.flags(*own) for word in one]
        ports = ["--tls-port", "0"] if self.config.tls_cert else []
        # The port for metrics may be a running service's.
        return [*words, "--host", "127.0.0.1", "--port", "0", *ports, "--admin", "off"]


def admin_for_probes(source: Source) -> str:
    """HOST:PORT for --admin where probes from within ask the loopback; others as it was given."""
    admin = source.config.admin
    if not admin or not admin.is_given:
        return f"127.0.0.1:{ADMIN_PORT}"
    host = admin.host
    if not (admin.is_local or ip_address(host).is_unspecified):
        # An address of this machine, and no container has it.
        host = "::" if ":" in host else "0.0.0.0"  # noqa: S104
    return str(replace(admin, host=host, port=admin.port or ADMIN_PORT))


def _names(config: ServeConfig, field: str) -> tuple[str, ...]:
    """The files that a setting names, as they were written."""
    value = getattr(config, field)
    if isinstance(value, UserIdentities | AdminToken):
        value = value.file
    return value if isinstance(value, tuple) else (value,) if value else ()


def renamed(value: UserIdentities | AdminToken, file: str) -> UserIdentities | AdminToken:
    """The same, with its file in another place."""
    if isinstance(value, UserIdentities):
        return msgspec.structs.replace(value, file=file)
    return replace(value, file=file)


def _absolute(path: str) -> str:
    return str(Path(path).absolute())


def _text(kind: Any, value: Any) -> str:
    """A value as people write it, its path so that it is found from anywhere."""
    if isinstance(value, Path):
        return str(value.absolute())
    if isinstance(value, UserIdentities) and value:
        return str(renamed(value, _absolute(value.file)))
    if isinstance(value, AdminToken) and value:
        return _absolute(value.file)
    if isinstance(kind, Parsed) and kind.parse is read_file_name and value:
        return _absolute(value)
    text: str = kind.show(value)
    return text


def _as_flags(setting: Setting, value: Any) -> list[list[str]]:
    kind = setting.kind
    if isinstance(kind, Switch):
        return [[setting.flag if value else f"--no-{setting.name}"]]
    if isinstance(kind, Many):
        return [[setting.flag, _text(kind.each, one)] for one in value]
    return [[setting.flag, _text(kind, value)]]


def open_files(config: ServeConfig) -> int:
    """Open files for the associations that are allowed and for the redo log, in thousands."""
    most = config.max_associations
    worker = worker_needs(config, most, redo_files_wanted(config))
    needed = max(main_needs(config), worker) if most else _MANY_FILES
    return math.ceil(needed / 1024) * 1024


def toml_value(kind: Any, value: Any) -> str:
    """A value as a TOML file of settings has it."""
    if isinstance(kind, Switch):
        return "true" if value else "false"
    if isinstance(kind, Whole):
        return str(value)
    if isinstance(kind, Many):
        return "[" + ", ".join(_quoted(_text(kind.each, one)) for one in value) + "]"
    return _quoted(_text(kind, value))


def _quoted(text: str) -> str:
    # JSON's strings are TOML's, except that this one escape is missing in JSON.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def toml_name(*parts: str) -> str:
    """A name of TOML, its parts in quotes where they need some."""
    return written_path(parts)


def comment(text: str) -> str:
    """Text as lines of comment, as `#` begins them in all of these files."""
    return "".join(f"# {line}\n" if line else "#\n" for line in text.strip("\n").split("\n"))
