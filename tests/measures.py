"""What the service measures, made up, and asked for: for tests of whoever shows it."""

from __future__ import annotations

import http.client
import re
from typing import TYPE_CHECKING, Any

from prometheus_client.parser import text_string_to_metric_families

from fastscp.admin.exposition import Texts, content_type
from fastscp.messages.control import RulesStatus, Status, StoreStatus
from fastscp.messages.metrics import Snapshot
from fastscp.messages.page import Disk, View
from fastscp.messages.totals import Aborted, Counted, Distribution

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.kit import Service

__all__ = [
    "STATUS",
    "Samples",
    "address_of",
    "ask",
    "exposition",
    "parsed",
    "samples",
    "snapshot",
    "view",
]

STATUS = Status(
    version="1", pid=7, run="run", addresses=("127.0.0.1:104",), uptime_s=1.5, state="accepting",
    why="", since=0.0, store=StoreStatus(path="/s", id="id", free_bytes=9, min_free_bytes=5),
    rules=RulesStatus(generation=1, tables=0, loaded_at=0.0), workers=2, workers_up=1,
    associations=3, limit=10, connections=4, stored=5, bytes=6, received_bytes=7, refused=8,
    unfinished=9, kept=0, rejected=1, in_flight_bytes=11, certificate="CN=here",
    certificate_expires=2e9, crl_expires=1.9e9,
)  # fmt: skip

# By the name of a sample, and its labels in the order of their names.
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def snapshot(**changed: Any) -> Snapshot:
    """One with something of everything."""
    of_five = Distribution((0, 1, 4, *[0] * 28), 9)
    values: dict[str, Any] = {
        "status": STATUS,
        "by_ae": {"CT1": Counted(1, 2, 3, 4)},
        "by_transfer_syntax": {"1.2.840.10008.1.2.1": Counted(1, 2, 3, 4)},
        "by_status": {
            ("0000", "stored"): Counted(5, 6, 0, 0),
            ("A700", "full"): Counted(0, 0, 2, 0),
        },
        "received_bytes": 7,
        "times": dict.fromkeys(("receive", "commit", "answer", "whole", "response"), of_five),
        "flushes": {"data": of_five, "batch": of_five},
        "batches": {"stable": of_five, "buffered": of_five},
        "redo_ways": {"log": 9, "full": 0},
        "throttled_us": {"space": 1_500_000, "commit": 0},
        "accepted": 12,
        "rejected": {"2,3,1": 1},
        "ended": {"released": 1},
        "aborted": {Aborted("peer", "0", "other"): 1},
        "contexts_refused": {"1.2": 1},
        "workers_waiting": 1,
        "worker_restarts": {"no": 1, "yes": 0},
        "disk_blocked_s": 0.5,
        "journal_bytes": 4096,
        "log_lines_lost": 3,
        "handshakes_failed": {"certificate expired": 1},
    }
    return Snapshot(**(values | changed))


def view(**changed: Any) -> View:
    """What a page is told where there is nothing to tell."""
    values: dict[str, Any] = {
        "whole": True, "actions": False, "now": 1.0, "status": STATUS, "more": 0,
        "disk": Disk(
            journal_bytes=None, disk_blocked_s=0.0, workers_waiting=0,
            worker_restarts={"no": 0, "yes": 0}, log_lines_lost=0,
        ),
        **dict.fromkeys(
            ("connections", "workers", "refused", "latest", "hour", "refusals", "stored", "log"), ()
        ),
    }  # fmt: skip
    return View(**(values | changed))


def exposition(now: Snapshot, accept: str = "") -> tuple[bytes, str]:
    """The first text that is made for whoever asks with this header, and its content type."""
    return Texts().text(now, accept), content_type(accept)


def parsed(text: str) -> Samples:
    """All samples of an exposition, as Prometheus's own parser reads them."""
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = sample.name, tuple(sorted(sample.labels.items()))
            assert key not in found, key
            found[key] = sample.value
    return found


def samples(service: Service, headers: Mapping[str, str] | None = None) -> Samples:
    status, _kind, body = ask(address_of(service), "/metrics", headers=headers)
    assert status == 200
    return parsed(body.decode("utf-8"))


def address_of(service: Service) -> str:
    """Where a service answers HTTP."""
    found = re.search(r"metrics and health: http://(\S+)/metrics", service.in_log("/metrics"))
    assert found is not None
    return found[1]


def ask(
    address: str, path: str, method: str = "GET", headers: Mapping[str, str] | None = None
) -> tuple[int, str, bytes]:
    """The status, the content type and the body of an answer."""
    connection = http.client.HTTPConnection(address, timeout=60)
    try:
        connection.request(method, path, headers=dict(headers or {}))
        answer = connection.getresponse()
        return answer.status, answer.headers["content-type"], answer.read()
    finally:
        connection.close()
