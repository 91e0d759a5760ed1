"""Which rule a peer gets, and which limits hold for it."""

from __future__ import annotations

import dataclasses
import ipaddress
import os
from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastscp.config.settings import ServeConfig
from fastscp.config.tables import AeTable, FromTable, Tables
from fastscp.config.values import AllowRule, read_allow_rule
from fastscp.messages.configuration import Configuration, pack, unpack
from fastscp.rules.book import Peer, Refusal, RuleBook
from fastscp.rules.build import build, titles_named
from fastscp.rules.limits import Bound, LimitBook
from fastscp.rules.networks import network_part, packed_address
from fastscp.rules.rule import Rule
from fastscp.titles import title_text
from fastscp_ext import ae_title

if TYPE_CHECKING:
    from collections.abc import Callable

CT, MR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"


def book(*, tables: Tables | None = None, **values: object) -> RuleBook:
    config = ServeConfig(**values)  # type: ignore[arg-type]
    return RuleBook(build(dataclasses.replace(config, tables=tables or Tables()), 7))


def chosen(found: Rule | Refusal) -> Rule:
    assert isinstance(found, Rule), found
    return found


def who(*words: str) -> tuple[AllowRule, ...]:
    return tuple(read_allow_rule(word) for word in words)


# Layers -------------------------------------------------------------------------------------------


def test_a_called_title_overrides_the_top_level_and_a_sender_both() -> None:
    tables = Tables(
        (AeTable("RES", {"layout": "r/{SOPInstanceUID}.dcm", "durability": "buffered",
                         "compress": "zstd:3", "idle_timeout": 5.0,
                         "sop_classes": ("CTImageStorage",)}),),
        (FromTable("gate", who("GW@*"), values={"idle_timeout": 7.0, "min_rate": 9,
                                                "sop_classes": ("MRImageStorage",)}),
         FromTable("rest", who("*@*"))),
    )  # fmt: skip
    rules = book(tables=tables, digest="sha256", idle_timeout=60.0)
    plain = chosen(rules.choose(Peer("CT1", "FASTSCP", "10.0.0.1")))
    assert plain.name == "from.rest"
    assert (plain.digest, plain.durable, plain.idle_timeout, plain.suffix) == (
        "sha256", True, 60.0, ".dcm",
    )  # fmt: skip
    research = chosen(rules.choose(Peer("CT1", "RES", "10.0.0.1")))
    assert research.name == "ae.RES+from.rest"
    assert (research.digest, research.durable, research.idle_timeout, research.suffix) == (
        "sha256", False, 5.0, ".dcm.zst",
    )  # fmt: skip
    assert research.sop_classes.accepts(CT)
    assert not research.sop_classes.accepts(MR)
    assert (plain.sop_classes_from, research.sop_classes_from) == ("", "ae.RES")
    gateway = chosen(rules.choose(Peer("GW", "RES", "10.0.0.1")))
    assert (gateway.ae, gateway.sender, gateway.name) == (
        "ae.RES", "from.gate", "ae.RES+from.gate",
    )  # fmt: skip
    assert (gateway.layout, gateway.idle_timeout, gateway.min_rate) == (
        "r/{SOPInstanceUID}.dcm", 7.0, 9,
    )  # fmt: skip
    assert gateway.sop_classes.accepts(MR)
    assert not gateway.sop_classes.accepts(CT)
    assert (gateway.sop_classes_from, gateway.transfer_syntaxes_from) == ("from.gate", "")
    # The same tables give the same object: the codec has one form of it.
    assert rules.choose(Peer("GW", "RES", "10.9.9.9")) is gateway


def test_without_tables_everybody_has_the_same_rule() -> None:
    rules = book(strict=True)
    rule = chosen(rules.choose(Peer("ANY", "", "no address")))
    assert (rule.name, rule.strict, rule.ae, rule.sender) == ("default", True, "", "")


def test_names_of_two_tables_are_not_taken_for_one() -> None:
    tables = Tables(
        (AeTable("A+from.B", {"strict": True}), AeTable("A")), (FromTable("B", who("*@*")),)
    )
    rules = book(tables=tables)
    one = chosen(rules.choose(Peer("X", "A+from.B", "10.0.0.1")))
    other = chosen(rules.choose(Peer("X", "A", "10.0.0.1")))
    assert (one.strict, other.strict) == (True, False)


# Who is let in ------------------------------------------------------------------------------------


def test_whoever_matches_nothing_is_refused() -> None:
    tables = Tables(senders=(FromTable("ct", who("CT1@10.1.0.0/16"), called=("RES",)),))
    rules = book(tables=tables, allow=who("PACS@*"))
    assert chosen(rules.choose(Peer("CT1", "RES", "10.1.2.3"))).name == "from.ct"
    assert chosen(rules.choose(Peer("PACS", "RES", "10.9.2.3"))).name == "default"
    for calling, called, host in (
        ("CT1", "FASTSCP", "10.1.2.3"), ("CT1", "RES", "10.2.0.1"), ("ct1", "RES", "10.1.2.3"),
        ("CT1", "RES", "::1"), ("CT1", "RES", ""),
    ):  # fmt: skip
        refused = rules.choose(Peer(calling, called, host))
        assert isinstance(refused, Refusal)
        assert refused[:3] == (1, 1, 3)
        # As `config --who` takes it.
        assert refused.why == (
            f"'{calling}' from {host} calling '{called}' matches no [from] table and no --allow "
            f"entry"
        )
    refused = book(allow=who("CT1@10.1.0.0/16")).choose(Peer("a\nb\x1b[2J", "X", "10.1.2.3"))
    assert isinstance(refused, Refusal)
    assert refused.why.isprintable()
    assert refused.why.endswith(" from 10.1.2.3 calling 'X' matches no --allow entry")


@pytest.mark.parametrize(
    "called", [b"FASTSCP\0garbage.", b"  FASTSCP       ", b"FASTSCP".ljust(16), b"RES".ljust(16)]
)
def test_our_titles_however_padded(called: bytes) -> None:
    rules = book(check_called_ae=True, tables=Tables((AeTable("RES"),)))
    chosen(rules.choose(Peer("CT", title_text(ae_title(called)), "10.0.0.1")))


@pytest.mark.parametrize("called", ["OTHER", "fastscp", "", "A%0AINFO: x"])
def test_a_title_that_is_not_ours(called: str) -> None:
    refused = book(check_called_ae=True).choose(Peer("CT", called, "10.0.0.1"))
    assert refused == Refusal(
        1, 1, 7, f"called AE title '{called}' is not ours (--ae-title, --check-called-ae)"
    )
    chosen(book().choose(Peer("CT", called, "10.0.0.1")))
    rules = book(check_called_ae=True, tables=Tables((AeTable("RES"),), (FromTable("x", who()),)))
    # Before who it is that calls.
    refused = rules.choose(Peer("CT", called, "10.0.0.1"))
    assert isinstance(refused, Refusal)
    assert refused[:3] == (1, 1, 7)
    assert refused.why.endswith("(--ae-title, --check-called-ae, [ae])")


def test_a_certificate_has_to_show_one_of_them() -> None:
    tables = Tables(
        senders=(
            FromTable("north", who("*@*"), certificate=("san=north", "subject=CN=n")),
            FromTable("south", who("*@*"), certificate=("san=south",)),
        )
    )
    rules = book(tables=tables)
    shown = {"north": ("subject=CN=n", "san=x"), "south": ("san=south",)}
    for name, facts in shown.items():
        assert chosen(rules.choose(Peer("A", "B", "10.0.0.1", facts))).name == f"from.{name}"
    for facts in ((), ("san=x",)):
        assert isinstance(rules.choose(Peer("A", "B", "10.0.0.1", facts)), Refusal)


# Against a slow reference -------------------------------------------------------------------------

TITLES = ("A", "B", "C%0AD")
NETWORKS = (
    "*", "10.0.0.0/8", "10.1.0.0/16", "10.1.2.3/32", "0.0.0.0/0", "::/0", "fe80::/10",
    "2001:db8::/32", "2001:db8::1/128", "::ffff:10.0.0.0/104",
)  # fmt: skip
HOSTS = (
    "10.1.2.3", "10.1.9.9", "10.200.0.1", "11.0.0.1", "::1", "fe80::1%eth0", "2001:db8::1",
    "2001:db8::2", "::ffff:10.1.2.3", "", "nonsense", "10.1.2.300",
)  # fmt: skip
FACTS = ("san=a", "san=b")

rules_of_who = st.builds(
    lambda ae, network: read_allow_rule(f"{ae}@{network}"),
    st.sampled_from(("*", *TITLES)),
    st.sampled_from(NETWORKS),
)
senders = st.lists(
    st.tuples(
        st.lists(rules_of_who, max_size=3),
        st.lists(st.sampled_from(TITLES), max_size=2),
        st.lists(st.sampled_from(FACTS), max_size=2),
    ),
    max_size=5,
)
peers = st.builds(
    Peer,
    st.sampled_from((*TITLES, "*", "")),
    st.sampled_from((*TITLES, "*", "")),
    st.sampled_from(HOSTS),
    st.lists(st.sampled_from((*FACTS, "san=c")), max_size=2).map(tuple),
)


@settings(max_examples=400, deadline=None)
@given(
    senders,
    st.lists(rules_of_who, max_size=3),
    st.booleans(),
    st.lists(st.sampled_from(TITLES), unique=True, max_size=2),
    st.lists(peers, max_size=12),
)
def test_matching_is_as_slow_and_plain_code_says(
    tables: list[tuple[list[AllowRule], list[str], list[str]]],
    allow: list[AllowRule],
    check: bool,
    titles: list[str],
    asking: list[Peer],
) -> None:
    froms = tuple(
        FromTable(f"t{at}", tuple(who_), tuple(called), tuple(certificate))
        for at, (who_, called, certificate) in enumerate(tables)
    )
    config = ServeConfig(
        allow=tuple(allow), check_called_ae=check, ae_title="A",
        tables=Tables(tuple(AeTable(title) for title in titles), froms),
    )  # fmt: skip
    rules = RuleBook(build(config, 1))
    for peer in asking:
        ae = f"ae.{peer.called_ae}" if peer.called_ae in titles else ""
        first = next((one for one in froms if _matches(one, peer)), None)
        found = rules.choose(peer)
        if check and peer.called_ae not in ("A", *titles):
            assert found[:3] == (1, 1, 7)  # type: ignore[index]
        elif first is not None:
            rule = chosen(found)
            assert (rule.ae, rule.sender) == (ae, first.key)
        elif (froms or allow) and not any(one.matches(peer.calling_ae, peer.host) for one in allow):
            assert found[:3] == (1, 1, 3)  # type: ignore[index]
        else:
            rule = chosen(found)
            assert (rule.ae, rule.sender) == (ae, "")


def _matches(table: FromTable, peer: Peer) -> bool:
    return (
        (not table.who or any(one.matches(peer.calling_ae, peer.host) for one in table.who))
        and (not table.called or peer.called_ae in table.called)
        and (not table.certificate or not set(table.certificate).isdisjoint(peer.certificate))
    )


@given(st.ip_addresses(), st.integers(0, 128))
def test_the_network_of_an_address(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address, prefix: int
) -> None:
    prefix = min(prefix, address.max_prefixlen)
    packed = packed_address(str(address))
    assert packed is not None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        assert packed == address.ipv4_mapped.packed
        return
    network = ipaddress.ip_network((address, prefix), strict=False)
    assert network_part(packed, prefix) == network_part(network.network_address.packed, prefix)


# On the way to the workers ------------------------------------------------------------------------


def test_what_workers_read_is_what_main_wrote() -> None:
    tables = Tables(
        (AeTable("RES", {"sop_classes": ("storage",), "idle_timeout": 5.0, "max_associations": 3}),
         AeTable("OTHER", {"sop_classes": ("storage",), "transfer_syntaxes": ("any",)})),
        tuple(FromTable(f"s{n}", who(f"S{n}@10.0.0.0/8"), values={"min_rate": n})
              for n in range(1000)),
    )  # fmt: skip
    config = ServeConfig(tables=tables, allow=who("X@::/0"))
    sent = Configuration(config.for_workers(), build(config, 3))
    # Lists that several tables name are there once.
    assert (len(sent.rules.sop_classes), len(sent.rules.transfer_syntaxes)) == (1, 1)
    fd = pack(sent)
    try:
        got = unpack(fd)
        assert unpack(fd) == got
    finally:
        os.close(fd)
    assert got == sent
    rules = RuleBook(got.rules)
    assert chosen(rules.choose(Peer("S999", "RES", "10.0.0.1"))).min_rate == 999
    assert len(list(rules.every_rule())) == 1 + 2 + 1000


def test_a_thousand_tables_take_no_more_lookups_than_ten() -> None:
    """What a peer costs is counted in lookups: it is bound by the kinds of entries."""

    class Counting(dict[bytes, int]):
        lookups = 0

        def get(self, key: bytes, default: int | None = None) -> int | None:  # type: ignore[override]
            self.lookups += 1
            return super().get(key, default)

    def lookups(count: int) -> int:
        tables = Tables(
            tuple(AeTable(f"AE{n}") for n in range(count)),
            tuple(
                FromTable(f"s{n}", who(f"S{n}@10.{n // 250}.{n % 250}.0/24", f"*@11.0.0.{n % 99}"))
                for n in range(count)
            ),
        )  # fmt: skip
        rules = book(tables=tables)
        counting = Counting(rules.rules.index)
        rules.rules = msgspec.structs.replace(rules.rules, index=counting)
        at = count - 1
        found = rules.choose(Peer(f"S{at}", "AE1", f"10.{at // 250}.{at % 250}.9"))
        assert chosen(found).sender == f"from.s{at}"
        return counting.lookups

    assert lookups(1000) == lookups(10) <= 12


# Limits -------------------------------------------------------------------------------------------


def limits(tables: Tables, **values: int) -> LimitBook:
    return LimitBook(build(ServeConfig(tables=tables, **values), 0))  # type: ignore[arg-type]


def test_the_most_specific_table_that_sets_a_limit_decides() -> None:
    found = limits(
        Tables(
            (AeTable("RES", {"max_associations": 8, "max_associations_per_host": 4,
                             "max_association_rate": 0}),),
            (FromTable("gate", values={"max_associations": 3, "max_associations_per_host": 9}),),
        ),
        max_associations_per_host=2, max_associations_per_ae=5, max_association_rate=6,
    )  # fmt: skip
    top = found.bounds("", "")
    assert top.tables == ()
    assert top.total == ()
    assert top.per_host == Bound("default", 2)
    assert top.rate == Bound("default", 6)
    both = found.bounds("ae.RES", "from.gate")
    assert both.tables == ("from.gate", "ae.RES")
    assert both.total == (Bound("from.gate", 3), Bound("ae.RES", 8))
    assert both.per_host == Bound("from.gate", 9)
    assert both.per_ae == Bound("default", 5)
    # A table may lift what holds above it.
    assert both.rate is None
    assert found.bounds("ae.RES", "").per_host == Bound("ae.RES", 4)
    assert found.bounds("ae.GONE", "").per_host == Bound("default", 2)


@pytest.mark.parametrize(
    ("bound", "told"),
    [
        (Bound("default", 2), "--max-associations-per-host 2"),
        (Bound("from.gate", 9), "[from.gate] max-associations-per-host 9"),
    ],
)
def test_how_a_limit_is_told(bound: Bound, told: str) -> None:
    assert bound.told("max_associations_per_host") == told


def test_titles_that_a_configuration_names() -> None:
    tables = Tables(senders=(FromTable("a", who("CT1@*", "*@10.0.0.0/8", "MR1@*")),))
    config = ServeConfig(tables=tables, allow=who("PACS@*", "CT1@::/0"))
    assert titles_named(config) == ["PACS", "CT1", "MR1"]


@pytest.mark.parametrize("made", [RuleBook, LimitBook])
def test_what_is_kept_has_an_end(made: Callable[..., RuleBook | LimitBook]) -> None:
    """A peer chooses among the tables, and there may be many of both kinds."""
    tables = Tables(
        tuple(AeTable(f"AE{n}") for n in range(70)),
        tuple(FromTable(f"s{n}", who(f"S{n}@*")) for n in range(70)),
    )
    one = made(build(ServeConfig(tables=tables), 0))
    for ae in range(70):
        for sender in range(70):
            if isinstance(one, RuleBook):
                found = one.choose(Peer(f"S{sender}", f"AE{ae}", "10.0.0.1"))
                assert chosen(found).name == f"ae.AE{ae}+from.s{sender}"
            else:
                one.bounds(f"ae.AE{ae}", f"from.s{sender}")
    assert len(one._made) <= 4096
