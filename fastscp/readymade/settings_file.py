"""`fastscp print config`: a TOML file with all settings, and what each of them is."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Final

from fastscp.config.file_tables import MATCHERS
from fastscp.config.settings import SETTINGS, TLS_FIELDS
from fastscp.readymade.source import toml_name, toml_value

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from fastscp.config.settings import Setting
    from fastscp.readymade.source import Source

__all__ = ["render", "render_given"]

_HEAD = """\
The settings of `fastscp serve`, each with what it is and its default. Name the file with --config,
or in FASTSCP_CONFIG. A flag beats the environment, which beats the file, which beats the default;
the environment has each setting as FASTSCP_ and its name in capitals (FASTSCP_MAX_PDU_LENGTH).
`fastscp config --check FILE` tells what is wrong with a file, `fastscp config` what is in force.
"""
_TABLES = """\
Tables treat senders and called AE titles in their own way; see "Rules" in the README. Those of
[ae.TITLE] are for whoever calls this title, those of [from.NAME] for the senders they name.
"""
_EXAMPLES = """\
# [ae.RESEARCH]
# layout = "+research/{PatientID}/{SOPInstanceUID}.dcm"
#
# [from.modalities]
# who = ["CT1@10.1.2.0/24", "MR1@10.1.3.0/24"]
# max-associations = 20
"""
# What depends on the machine, and what is a mistake where there is no certificate.
_OWN_DEFAULTS: Final = {"workers", "tls_port", *TLS_FIELDS}


def render(source: Source) -> str:
    """All settings with the values in force; reading it gives these again.

    What cannot be written, as an empty list, and what depends on the machine, is in a comment.
    """
    text = _wrapped(_HEAD)
    group = None
    for setting in SETTINGS:
        if setting.flag_only:
            continue
        if setting.group is not group:
            group = setting.group
            text += f"\n# {group.value} ".ljust(101, "-") + "\n"
        text += "\n" + _entry(source, setting)
    text += "\n# Tables ".ljust(101, "-") + "\n\n" + _wrapped(_TABLES)
    tables = "".join(_tables(source))
    return text + "\n" + (tables.lstrip("\n") or _EXAMPLES)


def render_given(source: Source, *without: str) -> str:
    """The settings that somebody has set, and the tables, with no more words."""
    lines = [
        f"{setting.name} = {toml_value(setting.kind, getattr(source.config, setting.field))}\n"
        for setting in SETTINGS
        if not setting.flag_only
        and not source.is_default(setting.field)
        and setting.field not in without
    ]
    return "".join(lines) + "".join(_tables(source))


def _entry(source: Source, setting: Setting) -> str:
    value = getattr(source.config, setting.field)
    default = setting.default_text
    text = f"{setting.text} Default: {default}."
    # Of an empty list or text: only a comment says what it would look like.
    is_empty = value is None or toml_value(setting.kind, value) in ("[]", '""')
    if is_empty or (setting.field in _OWN_DEFAULTS and source.is_default(setting.field)):
        shown = toml_value(setting.kind, value) if not is_empty else f'"{setting.kind.metavar}"'
        return f"{_wrapped(text)}# {setting.name} = {shown}\n"
    return f"{_wrapped(text)}{setting.name} = {toml_value(setting.kind, value)}\n"


def _tables(source: Source) -> Iterator[str]:
    tables = source.config.tables
    for one in tables.ae:
        yield f"\n[{toml_name('ae', one.title)}]\n" + _of_table(one.values)
    for sender in tables.senders:
        matchers = "".join(
            f"{word} = {toml_value(kind, getattr(sender, word))}\n"
            for word, kind in MATCHERS.items()
            if getattr(sender, word)
        )
        yield f"\n[{toml_name('from', sender.name)}]\n" + matchers + _of_table(sender.values)


def _of_table(values: Mapping[str, Any]) -> str:
    return "".join(
        f"{setting.name} = {toml_value(setting.kind, values[setting.field])}\n"
        for setting in SETTINGS
        if setting.field in values
    )


def _wrapped(text: str) -> str:
    lines = textwrap.wrap(" ".join(text.split()), 98, break_long_words=False)
    return "".join(f"# {line}\n" for line in lines)
