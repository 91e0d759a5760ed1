"""Who is told at the start that anybody may send."""

from __future__ import annotations

import ipaddress
from types import SimpleNamespace
from typing import Any

import pytest

from fastscp.config.settings import ServeConfig
from fastscp.config.tables import FromTable, Tables
from fastscp.config.values import AllowRule
from fastscp.main.exposure import exposed
from fastscp.main.serve import Service
from fastscp.users.identities import UserIdentities

ANY = AllowRule("*", ipaddress.ip_network("10.0.0.0/8"))


@pytest.mark.parametrize(
    ("addresses", "told"),
    [
        (["127.0.0.1:104"], ""),
        (["[::1]:104", "127.9.9.9:104"], ""),
        (["0.0.0.0:104"], "0.0.0.0:104"),
        (["[::]:104"], "[::]:104"),
        (["10.1.2.3:104"], "10.1.2.3:104"),
        (["[fe80::1%eth0]:104"], "[fe80::1%eth0]:104"),
        (["127.0.0.1:104", "192.168.1.1:104", "[2001:db8::1]:104"],
         "192.168.1.1:104 or [2001:db8::1]:104"),
    ],
)  # fmt: skip
def test_where_others_reach_it(addresses: list[str], told: str) -> None:
    said = exposed(ServeConfig(), addresses)
    assert said.startswith(f"whoever reaches {told} may store") if told else said == ""


def test_whoever_names_the_senders_is_told_nothing() -> None:
    everywhere = ["0.0.0.0:104"]
    assert exposed(ServeConfig(allow=(ANY,)), everywhere) == ""
    table = FromTable("ct", (ANY,), (), (), {})
    assert exposed(ServeConfig(tables=Tables(senders=(table,))), everywhere) == ""
    assert exposed(ServeConfig(user_identity=UserIdentities("users", True)), everywhere) == ""
    assert exposed(ServeConfig(user_identity=UserIdentities("users")), everywhere) != ""
    said = exposed(ServeConfig(), everywhere)
    assert all(word in said for word in ("--allow", "[from.NAME]", "--host 127.0.0.1"))


@pytest.mark.parametrize("address", ["127.0.0.1:104", "10.1.2.3:104"])
def test_the_start_says_it_in_one_line(caplog: pytest.LogCaptureFixture, address: str) -> None:
    nothing: Any = SimpleNamespace(folders=0)
    store: Any = SimpleNamespace(
        facts=SimpleNamespace(file_system="ext4", noreplace=True), path="/store", id="1",
        warnings=[], suspect=False, buffered=False,
    )  # fmt: skip
    service: Any = SimpleNamespace(
        _config=ServeConfig(),
        _workers=None,
        _facts=SimpleNamespace(addresses=(address,), admin="", rules=SimpleNamespace(file="")),
    )
    with caplog.at_level("WARNING"):
        Service._say_start(service, store, nothing)
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == (0 if address.startswith("127.") else 1)
    assert all(address in line for line in said)
