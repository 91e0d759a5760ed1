"""What is wrong with a command line, and what to write instead."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, Final

from cyclopts.exceptions import (
    CoercionError,
    MissingArgumentError,
    RepeatArgumentError,
    UnknownCommandError,
    UnknownOptionError,
    UnusedCliTokensError,
)

from fastscp.config.settings import SETTINGS
from fastscp.config.values import Many, Switch
from fastscp.log import escape

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cyclopts import CycloptsError

    from fastscp.config.settings import Setting

__all__ = ["explained"]

# What other programs call them.
_ELSEWHERE: Final = {"--verbose": "-v", "--quiet": "-q", "--debug": "-v", "-V": "--version"}
# Where the word that is too many would have belonged.
_NAMED_BY: Final = {
    "verify": "the store is named by an option: write --store {}",
    "config": "a file is named by an option: write --config {0}, or --check {0}",
    "serve": "a store is named by an option: write --store {}, and a file --config {}",
    "demo": "a store is named by an option: write --store {}, and a file --config {}",
    "status": "the store is named by an option: write --store {}",
    "top": "the store is named by an option: write --store {}",
    "reload": "the store is named by an option: write --store {}",
    "associations": "the store is named by an option: write --store {}",
    "pause": "the reason is named by an option: write --reason {}",
    "resume": "the store is named by an option: write --store {}",
    "cat": "it takes one PATH: write a file out with one command each",
}
_ALONE: Final = ("--help", "-h", "--version")
_SETTINGS: Final = {setting.flag: setting for setting in SETTINGS}
_OFF: Final = ("0", "false", "no", "off")


def explained(error: CycloptsError, words: Sequence[str]) -> str:
    """The error in one line. words: the command line, without the program's name."""
    command = " ".join(error.command_chain or ())
    see = f"See `fastscp {command} --help`." if command else "See `fastscp --help`."
    match error:
        case UnusedCliTokensError(unused_tokens=[stray, *_]):
            return f"{command}: {_about_stray(stray, command, words)} {see}"
        case UnknownOptionError():
            option = error.token.keyword or error.token.value
            if (name := option.partition("=")[0]) in _ALONE:
                return f"{command}: {name} takes no value: write {name} alone. {see}".lstrip(": ")
            names = [name for one in error.argument_collection if one.parse for name in one.names]
            hint = _nearest(option.partition("=")[0], [*names, "--help", "-h"])
            said = f" Did you mean {hint}?" if hint else ""
            return f"{command}: Unknown option: {escape(option)}.{said} {see}"
        case UnknownCommandError(unused_tokens=["help", *_]):
            return "Unknown command: help. Write `fastscp --help`, or `fastscp serve --help`."
        case UnknownCommandError(unused_tokens=["version", *_]):
            return "Unknown command: version. Write `fastscp --version`."
        case UnknownCommandError(unused_tokens=[word, *_]) if word.startswith("-"):
            return _command_first(word, error, words)
        case MissingArgumentError(argument=argument) if argument is not None:
            option = error.keyword or argument.name
            if option.startswith("-"):
                value = argument.parameter.metavar or "VALUE"
                return f"{_about_missing(option, value, words)} {see}"
            return f"{command}: {option} is missing: it requires an argument. {see}"
        case CoercionError(token=token, target_type=kind) if token is not None and kind is bool:
            switch = token.keyword
            return f"{switch}: {token.value!r} is no value for it; write {switch} alone. {see}"
        case RepeatArgumentError():
            return f"{error.token.keyword}: is given more than once; give it once. {see}"
    return escape(f"{' '.join(str(error).split())} {see}")


def _about_stray(stray: str, command: str, words: Sequence[str]) -> str:
    """Where a word that nobody takes may have come from, as a sentence."""
    if stray.startswith("-"):
        return f"no option is called {stray!r}."
    too_many = f"{stray!r} is one word too many"
    option, before = _words_before(stray, words)
    if before.startswith("--") and "=" not in before:
        other = f"--no-{before[2:]}" if stray.lower() in _OFF else before
        return f"{before} takes no value: write {other} alone."
    if before.startswith("--"):
        option, _, before = before.partition("=")
    setting = _SETTINGS.get(option)
    if setting is not None and isinstance(setting.kind, Many):
        value = shlex.quote(f"{before},{stray}")
        return f"{too_many}: repeat the option, or use commas: write {option} {value}."
    # What is no value of the setting together was not meant to be one.
    if option.startswith("--") and (setting is None or _is_read(f"{before} {stray}", setting)):
        value = shlex.quote(f"{before} {stray}")
        joined = f" or {before}{stray}" if re.fullmatch("[0-9.]+", before) else ""
        return f"{too_many}: a value with a space stands in quotes: write {option} {value}{joined}."
    if command == "echo" and stray.isdecimal():
        return f"{too_many}: write HOST:PORT in one word, as {before}:{stray}."
    if command in _NAMED_BY:
        return f"{too_many}; {_NAMED_BY[command].format(shlex.quote(stray), 'FILE')}."
    return f"{too_many}."


def _words_before(stray: str, words: Sequence[str]) -> tuple[str, str]:
    """The two words before it, or empty ones. The same word may stand elsewhere as a value."""
    places = [place for place, word in enumerate(words) if word == stray]
    free = [place for place in places if place and not _takes_value(words[place - 1])]
    least = [place for place in free if not words[place - 1].startswith("--")]
    place = [0, *places, *free, *least][-1]
    before = ["", "", *words[:place]]
    return before[-2], before[-1]


def _takes_value(option: str) -> bool:
    setting = _SETTINGS.get(option)
    return setting is not None and not isinstance(setting.kind, Switch)


def _is_read(text: str, setting: Setting) -> bool:
    try:
        setting.kind.read(text)
    except ValueError:
        return False
    return True


def _about_missing(option: str, value: str, words: Sequence[str]) -> str:
    """What an option lacks, as a sentence; or how it takes a value that looks like an option."""
    place = words.index(option) + 1 if option in words else len(words)
    given = words[place] if place < len(words) else ""
    if re.fullmatch("-(?![-vqh]).*", given):
        joined = f"{option}={shlex.quote(given)}"
        return f"{option}: a value that begins with - is joined to it: write {joined}."
    return f"{option}: requires an argument; write {option} {value}."


def _nearest(option: str, names: Iterable[str]) -> str:
    """The option that somebody may have meant, or nothing."""
    import difflib

    folded = {name.lower(): name for name in names}
    if option in _ELSEWHERE:
        return _ELSEWHERE[option]
    if re.fullmatch("-[A-Za-z]", option):
        # A letter: the option that other programs shorten so.
        return next((name for name in folded.values() if name.startswith(f"-{option}")), "")
    word = f"--{option.lstrip('-').replace('_', '-').lower()}"
    close = difflib.get_close_matches(word, folded, n=1, cutoff=0.6)
    return folded[close[0]] if close else ""


def _command_first(word: str, error: CycloptsError, words: Sequence[str]) -> str:
    commands = [name for name in error.app or () if not name.startswith("-")]
    found = next((one for one in words if one in commands), None)
    if found is None:
        return f"The command comes before {escape(word)}: write one of {', '.join(commands)}."
    rest = [one for one in words if one != found]
    return f"The command comes first: write `fastscp {shlex.join([found, *rest])}`."
