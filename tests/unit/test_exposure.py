"""Who is told at the start that anybody may send."""

from __future__ import annotations

import ipaddress
from types import SimpleNamespace
from typing import Any

import pytest

from fastscp.config.settings import ServeConfig
from fastscp.config.tables import FromTable, Tables
from fastscp.config.values import AllowRule
from fastscp.main.expiry import Expiry
from fastscp.main.exposure import exposed, overheard, told_of_files
from fastscp.main.startline import say_start
from fastscp.tls.material import Material
from fastscp.users.identities import UserIdentities
from fastscp.users.keys import Keys

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
        created=False,
        warnings=[], suspect=False, buffered=False,
    )  # fmt: skip
    facts: Any = SimpleNamespace(
        addresses=(address,), admin="", tls_addresses=(), tls=None, expiry=Expiry(),
        rules=SimpleNamespace(file=""),
    )  # fmt: skip
    with caplog.at_level("WARNING"):
        say_start(ServeConfig(), facts, store, nothing)
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == (0 if address.startswith("127.") else 1)
    assert all(address in line for line in said)


def test_tls_that_asks_for_certificates_is_a_lock_of_its_own_port_alone() -> None:
    locked = ServeConfig(tls_cert="c", tls_ca=("a",))
    assert locked.client_auth == "require"
    plain, tls = ["0.0.0.0:11112"], ["0.0.0.0:2762"]
    assert exposed(locked, [], tls) == ""
    assert exposed(locked, ["127.0.0.1:11112"], tls) == ""
    said = exposed(locked, plain, tls)
    assert "whoever reaches 0.0.0.0:11112 may store" in said
    assert said.endswith("or listen with TLS alone with --no-plain")
    for asked in ("request", "none"):
        open_to_all = ServeConfig(tls_cert="c", tls_ca=("a",), tls_client_auth=asked)
        assert "0.0.0.0:2762" in exposed(open_to_all, [], tls)
    assert "0.0.0.0:11112 or 0.0.0.0:2762" in exposed(ServeConfig(tls_cert="c"), plain, tls)


def test_passcodes_in_the_clear() -> None:
    users = UserIdentities("users", True)
    assert overheard(ServeConfig(), ["0.0.0.0:11112"]) == ""
    assert overheard(ServeConfig(user_identity=users), ["127.0.0.1:11112"]) == ""
    assert overheard(ServeConfig(user_identity=users), []) == ""
    said = overheard(ServeConfig(user_identity=users), ["0.0.0.0:11112", "[::1]:11112"])
    assert "users log in at 0.0.0.0:11112 without TLS" in said
    assert "reads their passcodes: give" in said
    tokens = UserIdentities("keys", True, keys=Keys((), (), ()))
    said = overheard(ServeConfig(user_identity=tokens), ["0.0.0.0:11112"])
    assert "reads their tokens: give" in said
    behind = ServeConfig(user_identity=users, proxy_protocol_from=("10.0.0.0/8",))
    assert overheard(behind, ["0.0.0.0:11112"]) == ""


def test_what_is_wrong_with_files() -> None:
    assert told_of_files(ServeConfig()) == ()
    users = UserIdentities("users", True, warning="is open")
    tls = Material(
        chain=b"", key=b"", profile="aes", subject="S", begins=0, expires=1, warnings=("a", "b")
    )
    config = ServeConfig(user_identity=users, tls=tls)
    assert told_of_files(config) == ("--user-identity: is open", "a", "b")
