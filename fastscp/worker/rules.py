"""What a worker goes by: the settings, the rules, and the codec's form of each rule."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from fastscp.rules.book import RuleBook
from fastscp.rules.networks import Networks
from fastscp.store.compress import level_of
from fastscp.tls.context import server_context
from fastscp_ext import Layout, Rules

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable

    from fastscp.messages.configuration import Configuration
    from fastscp.rules.rule import Rule
    from fastscp.tls.material import Material

__all__ = ["Going", "Tls", "codec_rules"]

# Rules whose form for the codec is kept; a peer chooses among the tables alone.
_KEPT: Final = 1024


def codec_rules(rule: Rule, *, discard: bool = False) -> Rules:
    """A rule as the codec takes it. discard: nothing is stored. Raises ValueError."""
    return Rules(
        layout=Layout(rule.layout, rule.suffix.encode()),
        digest=rule.digest,
        on_duplicate=rule.on_duplicate,
        strict=rule.strict,
        durable=rule.durable,
        compress_level=level_of(rule.compress),
        max_instance_size=rule.max_instance_size,
        discard=discard,
    )


class Tls(NamedTuple):
    """A context, and what it was made of."""

    context: ssl.SSLContext
    material: Material


class Going:
    """What holds for whoever asks from now on, until a newer one is there.

    tls: None without a certificate. Each configuration has a context of its own, so that no session
    outlives what it was verified by; connections keep theirs.
    """

    def __init__(self, configuration: Configuration) -> None:
        self.config = configuration.config
        self.book = RuleBook(configuration.rules)
        material = configuration.tls
        self.tls = None if material is None else Tls(server_context(material), material)
        self.proxies = Networks(self.config.proxy_protocol_from)
        self._rules: dict[tuple[str, str], Rules] = {}
        rules = list(self.book.every_rule())
        self.layouts = tuple(dict.fromkeys(rule.layout for rule in rules))
        self.is_buffered_somewhere = not (
            self.config.discard or all(rule.durable for rule in rules)
        )
        self.tick_s = _tick_s(self.config.artim_timeout, rules)

    def codec_rules(self, rule: Rule) -> Rules:
        """One of the book's as the codec takes it: the same object for the same rule."""
        key = (rule.ae, rule.sender)
        found = self._rules.get(key)
        if found is None:
            if len(self._rules) >= _KEPT:
                self._rules.clear()
            found = self._rules[key] = codec_rules(rule, discard=self.config.discard)
        return found


def _tick_s(artim_timeout: float, rules: Iterable[Rule]) -> float:
    """Seconds between looks at the timers: a quarter of the shortest, within reason."""
    shortest = artim_timeout
    for rule in rules:
        shortest = min(shortest, rule.message_timeout)
        if rule.idle_timeout:
            shortest = min(shortest, rule.idle_timeout)
    return min(1.0, max(0.02, shortest / 4))
