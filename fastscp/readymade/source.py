"""What a ready-made file is rendered from, and how settings are written in it."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fastscp.config.tomlfile import written_path
from fastscp.config.values import Many, Switch, Whole
from fastscp.main.descriptors import main_needs, worker_needs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastscp.config.layers import Loaded
    from fastscp.config.settings import ServeConfig, Setting

__all__ = [
    "ADMIN_PORT",
    "AFTER_DRAIN_S",
    "PRIVILEGED",
    "Source",
    "comment",
    "open_files",
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
            own = ("store", "store_must_exist", "host", "port", "tls_port", "log_file")
            words += [word for one in self.flags(*own) for word in one]
        ports = ["--tls-port", "0"] if self.config.tls_cert else []
        return [*words, "--host", "127.0.0.1", "--port", "0", *ports]


def _as_flags(setting: Setting, value: Any) -> list[list[str]]:
    kind = setting.kind
    if isinstance(kind, Switch):
        return [[setting.flag if value else f"--no-{setting.name}"]]
    if isinstance(kind, Many):
        return [[setting.flag, kind.each.show(one)] for one in value]
    text = str(value.absolute()) if isinstance(value, Path) else kind.show(value)
    return [[setting.flag, text]]


def open_files(config: ServeConfig) -> int:
    """Open files for the associations that are allowed, in thousands."""
    most = config.max_associations
    needed = max(main_needs(config), worker_needs(config, most)) if most else _MANY_FILES
    return math.ceil(needed / 1024) * 1024


def toml_value(kind: Any, value: Any) -> str:
    """A value as a TOML file of settings has it."""
    if isinstance(kind, Switch):
        return "true" if value else "false"
    if isinstance(kind, Whole):
        return str(value)
    if isinstance(kind, Many):
        return "[" + ", ".join(_quoted(kind.each.show(one)) for one in value) + "]"
    return _quoted(str(value.absolute()) if isinstance(value, Path) else kind.show(value))


def _quoted(text: str) -> str:
    # JSON's strings are TOML's, except that this one escape is missing in JSON.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def toml_name(*parts: str) -> str:
    """A name of TOML, its parts in quotes where they need some."""
    return written_path(parts)


def comment(text: str) -> str:
    """Text as lines of comment, as `#` begins them in all of these files."""
    return "".join(f"# {line}\n" if line else "#\n" for line in text.strip("\n").split("\n"))
