"""What `config --who` says of a rule is what the book of rules gives."""

from __future__ import annotations

import ipaddress
import random

from fastscp.config.settings import SETTINGS, ServeConfig
from fastscp.config.tables import AeTable, FromTable, Tables
from fastscp.config.values import AllowRule
from fastscp.rules.book import Peer, Refusal, RuleBook
from fastscp.rules.build import build
from fastscp.rules.explain import explain
from fastscp.rules.limits import LimitBook
from fastscp.rules.rule import TOP_LEVEL

AES = ("A", "B", "C")
HOSTS = ("10.0.0.1", "10.0.1.1", "::1")
NETWORKS = (None, "10.0.0.0/24", "10.0.0.0/8", "::/0", "10.0.0.1/32")
VALUES = {
    "min_rate": (0, 5, 7),
    "idle_timeout": (0.0, 9.0),
    "max_associations": (0, 3, 4),
    "max_associations_per_host": (0, 2),
    "max_association_rate": (0, 6),
}
NAMES = {
    "max_associations_per_host": "per_host",
    "max_associations_per_ae": "per_ae",
    "max_association_rate": "rate",
}


def values(random_: random.Random) -> dict[str, object]:
    return {name: random_.choice(VALUES[name]) for name in VALUES if random_.random() < 0.4}


def rules_of(random_: random.Random, most: int) -> tuple[AllowRule, ...]:
    return tuple(
        AllowRule(
            random_.choice((*AES, "*")),
            ipaddress.ip_network(network) if (network := random_.choice(NETWORKS)) else None,
        )
        for _ in range(random_.randrange(most + 1))
    )


def configuration(random_: random.Random) -> ServeConfig:
    senders = [
        FromTable(
            f"t{number}",
            rules_of(random_, 2),
            tuple(random_.sample(AES, random_.randrange(2))),
            values=values(random_),
        )
        for number in range(random_.randrange(4))
    ]
    titles = random_.sample(AES, random_.randrange(3))
    ae = tuple(AeTable(title, values(random_) | {"digest": "none"}) for title in titles)
    return ServeConfig(
        ae_title="A",
        check_called_ae=random_.random() < 0.3,
        allow=rules_of(random_, 1),
        tables=Tables(ae, tuple(senders)),
    )


def matches(table: FromTable, peer: Peer) -> bool:
    by_who = any(one.matches(peer.calling_ae, peer.host) for one in table.who)
    return (not table.who or by_who) and (not table.called or peer.called_ae in table.called)


def test_what_is_said_is_what_is_done() -> None:
    random_ = random.Random(16)
    admitted = 0
    for _ in range(300):
        config = configuration(random_)
        peer = Peer(random_.choice(AES), random_.choice(AES), random_.choice(HOSTS))
        rules = build(config, 1)
        chosen = RuleBook(rules).choose(peer)
        said = explain(config, peer)
        senders = [one for one in said.judged if one.table.startswith("from.")]
        if isinstance(chosen, Refusal):
            assert (said.refusal, said.rule, said.decided) == (chosen, "", ())
            assert not any(one.applies for one in said.judged)
        else:
            admitted += 1
            assert (said.refusal, said.rule) == (None, chosen.name)
        if not isinstance(chosen, Refusal) or chosen.reason == 3:
            # The first table that matches is the last that is looked at.
            fitting = [matches(table, peer) for table in config.tables.senders]
            until = fitting.index(True) + 1 if True in fitting else len(fitting)
            assert [one.applies for one in senders] == fitting[:until]
        if isinstance(chosen, Refusal):
            continue

        decided = {one.setting.field: one for one in reversed(said.decided)}
        assert set(decided) == {one.field for one in SETTINGS if one.tables}
        for name in set(decided) & set(chosen.__struct_fields__) - {
            "sop_classes",
            "transfer_syntaxes",
        }:
            assert decided[name].value == getattr(chosen, name)
        bounds = LimitBook(rules).bounds(chosen.ae, chosen.sender)
        for field, name in NAMES.items():
            bound = getattr(bounds, name)
            one = decided[field]
            assert (bound.table, bound.number) == (one.table, one.value) if bound else not one.value
        totals = [one for one in said.decided if one.setting.field == "max_associations"]
        assert [(one.table, one.number) for one in bounds.total] == [
            (one.table, one.value) for one in totals if one.value and one.table != TOP_LEVEL
        ]
    assert 100 < admitted < 290
