"""The measures of the service in the form of Prometheus, or of OpenMetrics where that is asked for.

Each family stands once in `FAMILIES`: its name, its labels, and how its values are read from a
snapshot. Instances are told in three families, by AE title, by transfer syntax, and by status and
reason, and never by two of these at once: so their number is bounded.
Source: prometheus.io, "Metric and label naming"; OpenMetrics 1.0.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.exposition import choose_encoder

from fastscp.admin.templates import Labels, Row, Templates
from fastscp.messages.control import State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from prometheus_client.core import Metric
    from prometheus_client.registry import Collector

    from fastscp.messages.metrics import Snapshot
    from fastscp.messages.totals import Counted, Distribution

__all__ = ["FAMILIES", "Family", "Texts", "content_type", "families_table"]

_NOTHING: Final[Labels] = ()

_US: Final = 1e6
# Bounds of times, as powers of two in microseconds: 128 us to 67 s. And of batches, in instances.
_TIMES: Final = range(7, 27)
_INSTANCES: Final = range(1, 10)
# A bound is inclusive. Instances below 2^k are up to 2^k - 1; a time has fractions.
_TIME_BOUNDS: Final = (*(str((1 << k) / _US) for k in _TIMES), "+Inf")
_INSTANCE_BOUNDS: Final = (*(str((1 << k) - 1.0) for k in _INSTANCES), "+Inf")
# So many forms have templates, those that were asked for last: a client may ask for any number.
_FORMS_MOST: Final = 4


@dataclass(frozen=True, slots=True)
class Family:
    """A family of metrics. name: as samples have it, without the ending of a histogram's.

    read: its values, by the values of its labels; of a histogram `Distribution`s.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    text: str
    labels: Labels
    read: Callable[[Snapshot], Iterable[tuple[Labels, Any]]]

    @property
    def _is_time(self) -> bool:
        return self.name.endswith("_seconds")

    def rows(self, now: Snapshot) -> list[Row]:
        """Its numbers; of a histogram those up to each bound, and the sum."""
        if self.kind != "histogram":
            return [(labels, (value,)) for labels, value in self.read(now)]
        numbers = _times if self._is_time else _instances
        return [(labels, numbers(value)) for labels, value in self.read(now)]

    def metric(self, rows: Iterable[Row]) -> Metric:
        """It, as prometheus_client knows it."""
        if self.kind == "histogram":
            histogram = HistogramMetricFamily(self.name, self.text, labels=self.labels)
            bounds = _TIME_BOUNDS if self._is_time else _INSTANCE_BOUNDS
            for labels, (*below, total) in rows:
                histogram.add_metric(labels, list(zip(bounds, below, strict=True)), total)
            return histogram
        kind = CounterMetricFamily if self.kind == "counter" else GaugeMetricFamily
        found = kind(self.name, self.text, labels=self.labels)
        for labels, (value,) in rows:
            found.add_metric(labels, value)
        return found


def _times(value: Distribution) -> list[float]:
    return [*_up_to(_TIMES, value.buckets), value.total / _US]


def _instances(value: Distribution) -> list[float]:
    return [*_up_to(_INSTANCES, value.buckets), value.total]


def _up_to(bounds: range, buckets: tuple[int, ...]) -> list[int]:
    """How many there are up to each bound, and all. A predecessor may have had other buckets."""
    sums = list(accumulate(buckets, initial=0))
    whole = sums[-1]
    sums += [whole] * (bounds.stop + 1 - len(sums))
    return [*sums[bounds.start + 1 : bounds.stop + 1], whole]


def _one(read: Callable[[Snapshot], float | None]) -> Callable[[Snapshot], Iterable[Any]]:
    """The value of a family without labels; None: it has none now."""

    def found(now: Snapshot) -> Iterator[tuple[Labels, float]]:
        value = read(now)
        if value is not None:
            yield _NOTHING, value

    return found


def _by_outcome(rows: Mapping[str, Counted]) -> Iterator[tuple[Labels, int]]:
    for name, counts in rows.items():
        yield (name, "stored"), counts.stored
        yield (name, "refused"), counts.refused
        yield (name, "unfinished"), counts.unfinished


def _bytes(rows: Mapping[str, Counted]) -> Iterator[tuple[Labels, int]]:
    for name, counts in rows.items():
        yield (name,), counts.bytes


def _is_kept(key: tuple[str, str]) -> bool:
    """Whether instances of this status may be stored: of success, and of warning."""
    return key[0] == "0000" or key[0].startswith("B")


def _ended(now: Snapshot) -> Iterator[tuple[Labels, int]]:
    for labels, counts in now.by_status.items():
        yield labels, counts.stored + counts.refused + counts.unfinished


def _each(counts: Mapping[str, Any]) -> Iterator[tuple[Labels, Any]]:
    for name, value in counts.items():
        yield (name,), value


def _states(now: Snapshot) -> Iterator[tuple[Labels, int]]:
    for state in get_args(State):
        yield (state,), int(now.status.state == state)


def _time(name: str) -> Callable[[Snapshot], Iterable[tuple[Labels, Distribution]]]:
    return lambda now: [(_NOTHING, now.times[name])]


FAMILIES: Final[tuple[Family, ...]] = (
    Family(
        "fastscp_build_info", "gauge", "The version that runs; always 1.", ("version",),
        lambda now: [((now.status.version,), 1)],
    ),
    Family(
        "fastscp_ready", "gauge", "Whether associations are accepted, as /readyz says.", (),
        _one(lambda now: int(now.status.is_ready)),
    ),
    Family("fastscp_state", "gauge", "The state of the service: 1 for one.", ("state",), _states),
    Family(
        "fastscp_uptime_seconds", "gauge", "Since the start of the main process.", (),
        _one(lambda now: now.status.uptime_s),
    ),
    Family(
        "fastscp_rules_generation", "gauge",
        "Of the configuration in force: 1 at the start, one more with each reload that differs.",
        (), _one(lambda now: now.status.rules.generation),
    ),
    Family(
        "fastscp_reload_refused", "gauge", "Whether the last reload was refused.", (),
        _one(lambda now: int(bool(now.status.rules.refused))),
    ),
    Family(
        "fastscp_test_aids", "gauge", "Whether --discard or --fault is on: 1 is none to rely on.",
        (), _one(lambda now: int(bool(now.status.aids))),
    ),
    Family(
        "fastscp_ae_instances_total", "counter", "Instances by calling AE title.",
        ("calling_ae", "outcome"), lambda now: _by_outcome(now.by_ae),
    ),
    Family(
        "fastscp_ae_stored_bytes_total", "counter", "Bytes of data sets stored.",
        ("calling_ae",), lambda now: _bytes(now.by_ae),
    ),
    Family(
        "fastscp_transfer_syntax_instances_total", "counter", "Instances by transfer syntax.",
        ("transfer_syntax", "outcome"), lambda now: _by_outcome(now.by_transfer_syntax),
    ),
    Family(
        "fastscp_transfer_syntax_stored_bytes_total", "counter", "Bytes of data sets stored.",
        ("transfer_syntax",), lambda now: _bytes(now.by_transfer_syntax),
    ),
    Family(
        "fastscp_instances_total", "counter",
        "Instances by the status they were answered with, none where there was none, and why.",
        ("status", "reason"), _ended,
    ),
    Family(
        "fastscp_stored_bytes_total", "counter", "Bytes of data sets stored.",
        ("status", "reason"),
        lambda now: ((key, one.bytes) for key, one in now.by_status.items() if _is_kept(key)),
    ),
    Family(
        "fastscp_received_bytes_total", "counter", "Bytes read from connections.", (),
        _one(lambda now: now.received_bytes),
    ),
    Family(
        "fastscp_associations", "gauge", "Associations that are open.", (),
        _one(lambda now: now.status.associations),
    ),
    Family(
        "fastscp_associations_limit", "gauge", "Associations at a time, at most; 0: no limit.", (),
        _one(lambda now: now.status.limit),
    ),
    Family(
        "fastscp_connections", "gauge", "Connections, with those that are associations.", (),
        _one(lambda now: now.status.connections),
    ),
    Family(
        "fastscp_associations_accepted_total", "counter", "Associations that were accepted.", (),
        _one(lambda now: now.accepted),
    ),
    Family(
        "fastscp_associations_rejected_total", "counter",
        "Associations that were rejected, by the numbers of PS3.8 Table 9-21.",
        ("result", "source", "reason"),
        lambda now: ((tuple(code.split(",")), count) for code, count in now.rejected.items()),
    ),
    Family(
        "fastscp_associations_ended_total", "counter", "Associations that are over, by their end.",
        ("how",), lambda now: _each(now.ended),
    ),
    Family(
        "fastscp_associations_aborted_total", "counter",
        "Associations that were aborted, by who did, and the numbers of PS3.8 Table 9-26.",
        ("side", "source", "reason"),
        lambda now: ((tuple(key), count) for key, count in now.aborted.items()),
    ),
    Family(
        "fastscp_contexts_refused_total", "counter",
        "Presentation contexts that were refused in associations that were accepted.",
        ("abstract_syntax",), lambda now: _each(now.contexts_refused),
    ),
    Family(
        "fastscp_receive_seconds", "histogram",
        "From the command of an instance to its last byte, as they are read; both of a fast sender "
        "in one read.",
        (), _time("receive"),
    ),
    Family(
        "fastscp_commit_seconds", "histogram",
        "From its last byte until it is kept as --durability asks.", (), _time("commit"),
    ),
    Family(
        "fastscp_answer_seconds", "histogram",
        "From there until its response is handed to the socket.", (), _time("answer"),
    ),
    Family(
        "fastscp_response_seconds", "histogram",
        "From its last byte until its response is handed to the socket.", (), _time("response"),
    ),
    Family(
        "fastscp_instance_seconds", "histogram",
        "From its command until its response is handed to the socket.", (), _time("whole"),
    ),
    Family(
        "fastscp_flush_seconds", "histogram",
        "Flushes of stable durability: data = of one instance's file, batch = of a batch's folders "
        "and of the journal, log = of a batch in the redo log, checkpoint = of all that a file of "
        "that log vouches for.",
        ("what",), lambda now: _each(now.flushes),
    ),
    Family(
        "fastscp_batch_instances", "histogram",
        "Instances that were committed together; log: stable ones, in the redo log.",
        ("durability",), lambda now: _each(now.batches),
    ),
    Family(
        "fastscp_redo_instances_total", "counter",
        "Stable instances where there is a redo log: log = they took it; the others did not, for "
        "larger = their file is too large, full = the log has no room, or is not made yet, "
        "taken = something is at the path, other = the log failed, or the folder did.",
        ("way",), lambda now: _each(now.redo_ways),
    ),
    Family(
        "fastscp_in_flight_bytes", "gauge", "Of complete instances that are not committed yet.", (),
        _one(lambda now: now.status.in_flight_bytes),
    ),
    Family(
        "fastscp_throttled_seconds_total", "counter",
        "How long associations were not read from, all together: space = for want of space, "
        "commit = for much was owed or uncommitted.",
        ("reason",),
        lambda now: ((key, us / _US) for key, us in _each(now.throttled_us)),
    ),
    Family(
        "fastscp_disk_blocked_seconds_total", "counter",
        "How long workers waited for the disk in calls of more than 250 ms or flushes of more than "
        "10 s, all together.", (), _one(lambda now: now.disk_blocked_s),
    ),
    Family(
        "fastscp_store_free_bytes", "gauge", "Free in the store, where that is known.", (),
        _one(lambda now: now.status.store.free_bytes),
    ),
    Family(
        "fastscp_store_min_free_bytes", "gauge", "Below that nothing is stored; 0: no limit.", (),
        _one(lambda now: now.status.store.min_free_bytes),
    ),
    Family(
        "fastscp_journal_bytes", "gauge", "Size of the journal, looked at once a minute.", (),
        _one(lambda now: now.journal_bytes),
    ),
    Family(
        "fastscp_workers", "gauge", "Workers that there are to be.", (),
        _one(lambda now: now.status.workers),
    ),
    Family(
        "fastscp_workers_up", "gauge", "Of these, those that take connections and answer.", (),
        _one(lambda now: now.status.workers_up),
    ),
    Family(
        "fastscp_workers_disk_blocked", "gauge", "Of these, those that wait for the disk.", (),
        _one(lambda now: now.workers_waiting),
    ),
    Family(
        "fastscp_worker_restarts_total", "counter",
        "Workers that ended, or did not come up, and were to be replaced; asked: by a signal.",
        ("asked",), lambda now: _each(now.worker_restarts),
    ),
    Family(
        "fastscp_log_lines_lost_total", "counter", "Lines of the log that were dropped.", (),
        _one(lambda now: now.log_lines_lost),
    ),
    Family(
        "fastscp_tls_certificate_expiry_timestamp_seconds", "gauge",
        "When the TLS certificate of the service expires; absent where it has none.", (),
        _one(lambda now: now.status.certificate_expires or None),
    ),
    Family(
        "fastscp_tls_crl_expiry_timestamp_seconds", "gauge",
        "When the first of the revocation lists is out of date, and the senders of its CA are "
        "refused; absent where there is none.", (),
        _one(lambda now: now.status.crl_expires or None),
    ),
    Family(
        "fastscp_tls_handshakes_failed_total", "counter", "TLS handshakes that failed, by why.",
        ("reason",), lambda now: _each(now.handshakes_failed),
    ),
)  # fmt: skip


class Texts:
    """Makes texts of snapshots. What a text and the one before it have in common is made once."""

    def __init__(self) -> None:
        # By content type, the one that was asked for last at the end.
        self._templates: dict[str, Templates] = {}

    def text(self, now: Snapshot, accept: str) -> bytes:
        """A snapshot as text. accept: the header of whoever asks; see `content_type`."""
        encoder, kind = _chosen(accept)
        templates = self._templates.pop(kind, None) or Templates(encoder)
        self._templates[kind] = templates
        if len(self._templates) > _FORMS_MOST:
            del self._templates[next(iter(self._templates))]
        return templates.text((family, family.rows(now)) for family in FAMILIES)


def content_type(accept: str) -> str:
    """Of a text for whoever asks with this header."""
    return _chosen(accept)[1]


def _chosen(accept: str) -> tuple[Callable[[Collector], bytes], str]:
    """An encoder, and the content type of what it makes."""
    try:
        found: tuple[Callable[[Collector], bytes], str] = choose_encoder(accept)
    except (TypeError, ValueError):
        # A version that is no number: whoever asks so is told as if any text would do.
        found = choose_encoder("")
    return found


def families_table() -> str:
    """The families as a Markdown table, for the README."""
    lines = ["| family | kind | labels | what it is |", "| --- | --- | --- | --- |"]
    for one in FAMILIES:
        labels = ", ".join(f"`{label}`" for label in one.labels)
        lines.append(f"| `{one.name}` | {one.kind} | {labels} | {one.text} |")
    return "\n".join(lines) + "\n"
