"""The measures as Prometheus reads them: names, units, values, and no more than there may be."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_families
from prometheus_client.parser import text_string_to_metric_families

from fastscp.admin.exposition import FAMILIES
from fastscp.admin.health import alive, readiness
from fastscp.association.account import Ending
from fastscp.main.dispatch import Takers
from fastscp.main.endings import LOST, Endings
from fastscp.main.inherited import Inherited
from fastscp.main.measured import Measured
from fastscp.messages.totals import OTHER, Aborted, Counted
from fastscp.worker import process
from fastscp_ext import Shared
from tests.books import limited
from tests.measures import STATUS, exposition, parsed, snapshot

OPEN = "application/openmetrics-text; version=1.0.0"


def shown(**changed: Any) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return parsed(exposition(snapshot(**changed), "")[0].decode())


def test_names_and_units() -> None:
    """Source: prometheus.io, Metric and label naming."""
    names = [one.name for one in FAMILIES]
    assert len(set(names)) == len(names)
    for one in FAMILIES:
        assert re.fullmatch(r"fastscp_[a-z_]+", one.name)
        assert (one.kind == "counter") == one.name.endswith("_total")
        assert one.text.endswith(".")
        assert "seconds" in one.name or not re.search(r"time\b|latency|_ms|_us", one.name)
        assert all(re.fullmatch(r"[a-z_]+", label) for label in one.labels)


@pytest.mark.parametrize("accept", ["", "text/plain", "*/*", OPEN])
def test_a_real_parser_reads_it(accept: str) -> None:
    text, kind = exposition(snapshot(), accept)
    is_open = accept == OPEN
    assert kind.startswith("application/openmetrics-text" if is_open else "text/plain")
    read = open_families if is_open else text_string_to_metric_families
    found = {(one.name, one.type) for one in read(text.decode())}
    # OpenMetrics calls a counter by its name without the ending.
    wanted = {
        (one.name.removesuffix("_total") if one.kind == "counter" else one.name, one.kind)
        for one in FAMILIES
    }
    assert found == wanted
    assert text.endswith(b"# EOF\n") == is_open


def test_values() -> None:
    found = shown()
    assert found["fastscp_ready", ()] == 1
    assert found["fastscp_state", (("state", "accepting"),)] == 1
    assert found["fastscp_state", (("state", "paused"),)] == 0
    by_ae = "fastscp_ae_instances_total"
    outcomes = ("stored", "refused", "unfinished")
    assert [found[by_ae, (("calling_ae", "CT1"), ("outcome", one))] for one in outcomes] == [
        1,
        3,
        4,
    ]
    stored = (("reason", "stored"), ("status", "0000"))
    assert found["fastscp_instances_total", stored] == 5
    assert found["fastscp_stored_bytes_total", stored] == 6
    refused = (("reason", "full"), ("status", "A700"))
    assert found["fastscp_instances_total", refused] == 2
    assert ("fastscp_stored_bytes_total", refused) not in found
    congested = (("reason", "1"), ("result", "2"), ("source", "3"))
    assert found["fastscp_associations_rejected_total", congested] == 1
    aborted = (("reason", "other"), ("side", "peer"), ("source", "0"))
    assert found["fastscp_associations_aborted_total", aborted] == 1
    assert found["fastscp_throttled_seconds_total", (("reason", "space"),)] == 1.5
    assert found["fastscp_store_free_bytes", ()] == 9
    assert found["fastscp_tls_certificate_expiry_timestamp_seconds", ()] == 2e9


def test_what_is_not_known_is_not_told() -> None:
    without = msgspec.structs.replace(STATUS, certificate="", certificate_expires=0.0)
    found = shown(journal_bytes=None, status=without)
    assert ("fastscp_journal_bytes", ()) not in found
    assert ("fastscp_tls_certificate_expiry_timestamp_seconds", ()) not in found


def test_a_histogram_of_times() -> None:
    buckets = [0] * 31
    # 100 us, 128 us, 1 s, and an hour: below 2^7, 2^8, 2^20 us, and above all bounds.
    for bits in (7, 8, 20, 30):
        buckets[bits] += 1
    times = dict(snapshot().times) | {
        "receive": type(snapshot().times["receive"])(tuple(buckets), 5 * 10**6)
    }
    found = shown(times=times)

    def below(bound: str) -> float:
        return found["fastscp_receive_seconds_bucket", (("le", bound),)]

    assert below("0.000128") == 1
    assert below("0.000256") == 2
    assert below("0.524288") == 2
    assert below("1.048576") == 3
    assert below("67.108864") == 3
    assert below("+Inf") == found["fastscp_receive_seconds_count", ()] == 4
    assert found["fastscp_receive_seconds_sum", ()] == 5.0


def test_a_histogram_of_instances() -> None:
    found = shown()
    name, stable = "fastscp_batch_instances", ("durability", "stable")
    # One batch of 1, four of 2 or 3.
    assert found[f"{name}_bucket", (stable, ("le", "1.0"))] == 1
    assert found[f"{name}_bucket", (stable, ("le", "3.0"))] == 5
    assert found[f"{name}_bucket", (stable, ("le", "+Inf"))] == 5
    assert found[f"{name}_sum", (stable,)] == 9


@pytest.mark.parametrize("title", ['A"B', "A\\B", "A%0AB", "A{}B", "é"])
def test_no_title_breaks_a_line(title: str) -> None:
    found = shown(by_ae={title: Counted(1, 2, 3, 4)})
    assert found["fastscp_ae_stored_bytes_total", (("calling_ae", title),)] == 2


def test_how_many_there_can_be() -> None:
    """As many rows as there are places for, of each family, and as many ends as there are."""
    endings = Endings()
    endings.known = {f"1.2.{n}": f"name {n}" for n in range(1000)}
    for source in range(256):
        for reason in range(256):
            endings.end(2 | (1 | source << 1 | reason << 9) << 8)
            endings.end(3 | (1 | source << 1 | reason << 9) << 8)
    for kind in range(300):
        endings.end(kind)
    endings.refuse_contexts({f"1.2.{n}": 1 for n in range(1000)} | {"made up": 5, "": 6})
    assert len(endings.aborted) == 2 * 3 * 7
    assert len(endings.ended) == 9
    assert len(endings.contexts_refused) == 101
    assert endings.contexts_refused.total() == 1011
    assert endings.contexts_refused[OTHER] == 900 + 11
    row = Counted(1, 2, 3, 4)
    text, _kind = exposition(
        snapshot(
            by_ae={str(n): row for n in range(256)},
            by_transfer_syntax={str(n): row for n in range(80)},
            by_status={(str(n), "x"): row for n in range(64)},
            ended=endings.ended, aborted=endings.aborted,
            contexts_refused=endings.contexts_refused,
        ), "",
    )  # fmt: skip
    assert len(text) < 256 << 10
    assert text.count(b"\n") < 2500


def test_how_associations_end() -> None:
    endings = Endings()
    for ending in (
        Ending("released"), Ending("aborted", "2,6"), Ending("aborted by the peer", "0,0"),
        Ending("aborted by the peer", "7,200"), Ending("aborted by the peer"), Ending("whatever"),
    ):  # fmt: skip
        endings.end(ending.number)
    endings.end(0)
    assert {key: n for key, n in endings.ended.items() if n} == {
        "released": 1, "aborted": 1, "aborted by the peer": 3, "ended": 1, LOST: 1,
    }  # fmt: skip
    assert endings.aborted == {
        Aborted("fastscp", "2", "6"): 1,
        Aborted("peer", "0", "0"): 1,
        Aborted("peer", "other", "other"): 2,
    }


@pytest.mark.parametrize("aids", [(), ("--discard",), ("--discard", "--fault every=2")])
def test_test_aids_are_told(aids: tuple[str, ...]) -> None:
    """A service that keeps nothing looks as well as any other."""
    status = msgspec.structs.replace(STATUS, aids=aids)
    assert shown(status=status)["fastscp_test_aids", ()] == (1 if aids else 0)
    told = readiness(status)
    assert (told["ready"], told["test_aids"]) == (True, list(aids))


def test_readiness() -> None:
    told = readiness(STATUS)
    assert told["ready"] is True
    assert told["reasons"] == []
    assert told["load"] == {
        "associations": 3, "associations_limit": 10, "connections": 4, "workers": 2,
        "workers_up": 1, "in_flight_bytes": 11,
    }  # fmt: skip
    assert told["space"] == {"free_bytes": 9, "min_free_bytes": 5}
    paused = msgspec.structs.replace(STATUS, state="paused", why="a drill", since=5.0)
    told = readiness(paused)
    assert (told["ready"], told["state"], told["reasons"]) == (False, "paused", ["a drill"])
    # A list that is out of date keeps out the senders of its CA, and nobody else.
    told = readiness(msgspec.structs.replace(STATUS, warnings=("a list is out of date",)))
    assert (told["ready"], told["warnings"]) == (True, ["a list is out of date"])
    # It is named also where nobody said more.
    told = readiness(msgspec.structs.replace(STATUS, state="paused"))
    assert told["reasons"] == ["paused"]
    assert alive(paused)["alive"] is True


def test_every_refusal_is_there_before_it_is_counted() -> None:
    """Else nobody sees the first one of its kind: a counter that was not there did not grow."""
    shared = Shared()
    dispatch: Any = SimpleNamespace(takers=Takers(1, 1, 1), blocked_s=0.0, handshakes_failed={})
    books = limited(rows=shared.rows)
    before = Inherited(shared.rows, books.endings)
    now = Measured(lambda: STATUS, shared.rows, books, dispatch, before).snapshot()
    assert now.by_status["A700", "disk full"] == Counted(0, 0, 0, 0)
    assert now.by_status["none", "unfinished"] == Counted(0, 0, 0, 0)
    assert now.by_status["C000", OTHER] == Counted(0, 0, 0, 0)
    assert now.rejected["2,3,1"] == now.ended[LOST] == 0
    shared.rows.lose_lines(3, 5)
    shared.rows.lose_lines(3, 2)
    assert shared.rows.lines_lost() == 7


def test_what_a_worker_lost_of_its_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each tick it counts what is new, where main reads it."""
    shared, lost = Shared(), [0]
    worker: Any = SimpleNamespace(_shared=shared, _setup=SimpleNamespace(worker=2), _lines_lost=0)
    monkeypatch.setattr("fastscp.log.lines_lost", lambda: lost[0])
    for now in (0, 4, 4, 9):
        lost[0] = now
        process.Worker._count_lost_lines(worker)
        assert shared.rows.lines_lost() == now
