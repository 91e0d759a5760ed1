"""What is different between two configurations, as the log and `fastscp reload` say it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fastscp.config.changes import changes
from fastscp.config.settings import SETTINGS, ServeConfig
from fastscp.config.tables import AeTable, FromTable, Tables
from fastscp.config.values import read_allow_rule
from fastscp.tls.material import Material
from fastscp.users.identities import UserIdentities
from fastscp.users.passwords import Entry


def told(old: ServeConfig, new: ServeConfig) -> list[str]:
    return [text for _name, text in changes(old, new)]


def with_tables(*tables: AeTable | FromTable, **values: Any) -> ServeConfig:
    return ServeConfig(
        tables=Tables(
            tuple(one for one in tables if isinstance(one, AeTable)),
            tuple(one for one in tables if isinstance(one, FromTable)),
        ),
        **values,
    )


def sender(name: str, who: str = "*@10.0.0.0/8", **values: Any) -> FromTable:
    return FromTable(name, (read_allow_rule(who),), values=values)


def test_nothing_is_different() -> None:
    config = with_tables(AeTable("A", {"strict": True}), sender("x"), workers=3)
    again = with_tables(AeTable("A", {"strict": True}), sender("x"), workers=3)
    assert told(config, again) == []


def test_settings_in_the_words_of_an_operator() -> None:
    old = ServeConfig(workers=2)
    new = ServeConfig(
        workers=4, allow=(read_allow_rule("CT1@10.1.2.0/24"),), idle_timeout=7200.0,
        max_instance_size=1 << 30, check_called_ae=True,
    )  # fmt: skip
    assert list(changes(old, new)) == [
        ("workers", "workers: 2 -> 4"),
        ("allow", "allow: anyone -> CT1@10.1.2.0/24"),
        ("check_called_ae", "check-called-ae: off -> on"),
        ("max_instance_size", "max-instance-size: 0 -> 1 GiB"),
        ("idle_timeout", "idle-timeout: 600 s -> 2 h"),
    ]
    assert told(new, old)[1] == "allow: CT1@10.1.2.0/24 -> anyone"


def test_every_setting_can_be_told() -> None:
    old = ServeConfig()
    for setting in SETTINGS:
        value = getattr(old, setting.field)
        other: Any = "other"
        match value:
            case bool():
                other = not value
            case int() | float():
                other = value + 1
            case tuple():
                other = (*value, "other")
        ((name, text),) = changes(old, replace(old, **{setting.field: other}))
        assert name == setting.field
        assert text.startswith(f"{setting.name}: ")
        assert " -> " in text


def test_a_file_with_other_contents_is_a_difference() -> None:
    old, new = (
        ServeConfig(user_identity=UserIdentities("users", True, (Entry("jo", b"", hash_),)))
        for hash_ in (b"1", b"2")
    )
    assert told(old, new) == ["user-identity: password:users: its file has other contents"]
    assert told(old, old) == []


def test_tables_come_go_and_change() -> None:
    old = with_tables(AeTable("A", {"durability": "stable"}), AeTable("GONE"), sender("x"))
    new = with_tables(
        AeTable("NEW", {"durability": "buffered", "max_instance_size": 4096}),
        AeTable("A", {"durability": "buffered", "strict": True}),
        FromTable("x", (read_allow_rule("*@::1"),), values={"min_rate": 0}),
        sender("y"),
    )
    assert list(changes(old, new)) == [
        ("ae.GONE", "[ae.GONE]: removed"),
        ("ae.NEW", "[ae.NEW]: added (durability = buffered, max-instance-size = 4 KiB)"),
        ("ae.A", "[ae.A]: durability: stable -> buffered, strict: not set -> on"),
        ("from.x", "[from.x]: who: *@10.0.0.0/8 -> *@::1/128, min-rate: not set -> 0"),
        ("from.y", "[from.y]: added (who = *@10.0.0.0/8)"),
    ]
    assert "[ae.A]: strict: on -> not set, durability: buffered -> stable" in told(new, old)
    assert told(with_tables(), with_tables(AeTable("E"))) == ["[ae.E]: added"]
    called = (FromTable("z", called=(titles,)) for titles in "AB")
    assert told(*map(with_tables, called)) == ["[from.z]: called: A -> B"]


def test_the_order_of_senders_is_a_difference_and_that_of_titles_is_none() -> None:
    a, b, c = sender("a"), sender("b"), sender("c")
    assert told(with_tables(a, b), with_tables(b, a)) == ["[from] tables: now in the order b, a"]
    # Who comes or goes says so already.
    assert told(with_tables(a, b), with_tables(c, a, b)) == ["[from.c]: added (who = *@10.0.0.0/8)"]
    assert told(with_tables(a, b, c), with_tables(a, c)) == ["[from.b]: removed"]
    first, second = AeTable("A"), AeTable("B")
    assert told(with_tables(first, second), with_tables(second, first)) == []
    one = with_tables(AeTable("A", {"strict": True, "digest": "none"}))
    assert told(one, with_tables(AeTable("A", {"digest": "none", "strict": True}))) == []


def certificate(subject: str = "CN=S", expires: float = 1_800_000_000.0, **of: Any) -> Material:
    given: dict[str, Any] = {"chain": b"c", "key": b"k", "profile": "8996", "begins": 0.0}
    return Material(subject=subject, expires=expires, **given | of)


def test_what_is_in_the_files_of_tls() -> None:
    def between(old: Material | None, new: Material | None) -> list[str]:
        return told(ServeConfig(tls=old), ServeConfig(tls=new))

    one = certificate()
    assert between(one, certificate()) == []
    # What is not as it should be with a file is no difference of what is in it.
    assert between(one, certificate(warnings=("open",))) == []
    was = "that of CN=S, which expires 2027-01-15"
    later = certificate(chain=b"d", expires=1_900_000_000.0)
    assert between(one, later) == [f"certificate: {was} -> that of CN=S, which expires 2030-03-17"]
    assert between(one, certificate(chain=b"d")) == [f"certificate: {was}: another one"]
    assert between(one, certificate(key=b"l")) == ["key of the certificate: another one"]
    two = b"-----BEGIN CERTIFICATE-----" * 2
    assert between(one, certificate(ca=two)) == ["CAs of tls-ca: 0 -> 2"]
    lists = certificate(crl=b"-----BEGIN X509 CRL-----", crl_expires=1_800_000_000.0)
    assert between(one, lists) == ["lists of tls-crl: 0 -> 1, good until 2027-01-15"]
    # That there is TLS at all, the settings tell.
    assert between(None, one) == between(one, None) == []


def test_settings_of_tls() -> None:
    old = ServeConfig(tls_cert="a.pem")
    new = ServeConfig(tls_cert="b.pem", tls_ca=("c.pem",), tls_profile="aes")
    assert told(old, new) == [
        "tls-cert: a.pem -> b.pem",
        "tls-ca: none -> c.pem",
        "tls-profile: 8996 -> aes",
    ]
