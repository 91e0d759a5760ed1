"""What Grafana and Prometheus read of us: a dashboard, and alerts worth waking somebody for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from fastscp.config.admin import AdminAddress

__all__ = ["EXPRESSIONS", "grafana_dashboard", "prometheus_rules"]

# Of the dashboard, which is 24 wide.
_WIDTH: Final = 12
_HEIGHT: Final = 8
_SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
# The service instances that are picked on the dashboard.
_PICKED: Final = 'job=~"$job",instance=~"$instance"'
_RATE: Final = "$__rate_interval"


@dataclass(frozen=True, slots=True)
class _Panel:
    """title, unit as Grafana calls it, and lines: each an expression with its legend.

    $ in an expression stands for the labels that are picked.
    """

    title: str
    unit: str
    lines: tuple[tuple[str, str], ...]


def _quantiles(name: str, by: str = "") -> tuple[tuple[str, str], ...]:
    """The median, and what one in a hundred takes longer than."""
    legend = f" {{{{{by}}}}}" if by else ""
    labels = f"le, {by}" if by else "le"
    return tuple(
        (
            f"histogram_quantile({q}, sum by ({labels}) (rate({name}_bucket{{$}}[{_RATE}])))",
            f"{word}{legend}",
        )
        for q, word in ((0.5, "median"), (0.99, "99 of 100"))
    )


def _rate(name: str, by: str, legend: str = "") -> tuple[str, str]:
    legend = legend or " ".join(f"{{{{{one.strip()}}}}}" for one in by.split(","))
    return f"sum by ({by}) (rate({name}{{$}}[{_RATE}]))", legend


_PANELS: Final[tuple[tuple[str, tuple[_Panel, ...]], ...]] = (
    (
        "Is it well?",
        (
            _Panel("Accepts associations", "bool_yes_no", (("fastscp_ready{$}", "{{instance}}"),)),
            _Panel("State", "none", (("fastscp_state{$} == 1", "{{instance}} {{state}}"),)),
            _Panel(
                "Workers", "none",
                (
                    ("fastscp_workers{$}", "to be, {{instance}}"),
                    ("fastscp_workers_up{$}", "up, {{instance}}"),
                    ("fastscp_workers_disk_blocked{$}", "wait for the disk, {{instance}}"),
                ),
            ),
            _Panel(
                "Space", "bytes",
                (
                    ("fastscp_store_free_bytes{$}", "free, {{instance}}"),
                    ("fastscp_store_min_free_bytes{$}", "mark, {{instance}}"),
                    ("fastscp_journal_bytes{$}", "journal, {{instance}}"),
                ),
            ),
        ),
    ),
    (
        "What comes in",
        (
            _Panel(
                "Instances", "ops", (_rate("fastscp_instances_total", "status, reason"),)
            ),
            _Panel(
                "Bytes", "Bps",
                (
                    (f"sum(rate(fastscp_received_bytes_total{{$}}[{_RATE}]))", "received"),
                    (f"sum(rate(fastscp_stored_bytes_total{{$}}[{_RATE}]))", "stored"),
                ),
            ),
            _Panel(
                "Instances by calling AE title", "ops",
                (_rate("fastscp_ae_instances_total", "calling_ae, outcome"),),
            ),
            _Panel(
                "Bytes by calling AE title", "Bps",
                (_rate("fastscp_ae_stored_bytes_total", "calling_ae"),),
            ),
            _Panel(
                "Instances by transfer syntax", "ops",
                (_rate("fastscp_transfer_syntax_instances_total", "transfer_syntax, outcome"),),
            ),
            _Panel(
                "Bytes by transfer syntax", "Bps",
                (_rate("fastscp_transfer_syntax_stored_bytes_total", "transfer_syntax"),),
            ),
        ),
    ),
    (
        "Associations",
        (
            _Panel(
                "Open", "none",
                (
                    ("fastscp_associations{$}", "associations, {{instance}}"),
                    ("fastscp_associations_limit{$}", "limit, {{instance}}"),
                    ("fastscp_connections{$}", "connections, {{instance}}"),
                ),
            ),
            _Panel(
                "Begun and ended", "ops",
                (
                    (
                        f"sum(rate(fastscp_associations_accepted_total{{$}}[{_RATE}]))",
                        "accepted",
                    ),
                    _rate("fastscp_associations_ended_total", "how"),
                ),
            ),
            _Panel(
                "Rejected (result, source, reason)", "ops",
                (_rate("fastscp_associations_rejected_total", "result, source, reason"),),
            ),
            _Panel(
                "Aborted (by whom, source, reason)", "ops",
                (_rate("fastscp_associations_aborted_total", "side, source, reason"),),
            ),
            _Panel(
                "Presentation contexts refused", "ops",
                (_rate("fastscp_contexts_refused_total", "abstract_syntax"),),
            ),
        ),
    ),
    (
        "How long it takes",
        (
            _Panel("To receive an instance", "s", _quantiles("fastscp_receive_seconds")),
            _Panel("Last byte to response", "s", _quantiles("fastscp_response_seconds")),
            _Panel("Last byte to kept", "s", _quantiles("fastscp_commit_seconds")),
            _Panel("Kept to response", "s", _quantiles("fastscp_answer_seconds")),
            _Panel("Command to response", "s", _quantiles("fastscp_instance_seconds")),
            _Panel("Flushes", "s", _quantiles("fastscp_flush_seconds", "what")),
            _Panel(
                "Instances of a batch", "none", _quantiles("fastscp_batch_instances", "durability")
            ),
            _Panel(
                "Stable instances by their way", "ops",
                (_rate("fastscp_redo_instances_total", "way"),),
            ),
            _Panel("In flight", "bytes", (("fastscp_in_flight_bytes{$}", "{{instance}}"),)),
        ),
    ),
    (
        "What hurts",
        (
            _Panel(
                "Reading held back", "s", (_rate("fastscp_throttled_seconds_total", "reason"),)
            ),
            _Panel(
                "Waiting for the disk", "s",
                (_rate("fastscp_disk_blocked_seconds_total", "instance"),),
            ),
            _Panel(
                "Workers replaced", "none",
                (
                    (
                        "sum by (asked) (increase(fastscp_worker_restarts_total{$}[1h]))",
                        "in an hour, asked for: {{asked}}",
                    ),
                ),
            ),
            _Panel(
                "Lines of the log lost", "ops",
                (_rate("fastscp_log_lines_lost_total", "instance"),),
            ),
            _Panel(
                "TLS certificate", "s",
                (
                    (
                        "fastscp_tls_certificate_expiry_timestamp_seconds{$} - time()",
                        "expires in, {{instance}}",
                    ),
                ),
            ),
            _Panel(
                "Revocation lists", "s",
                (
                    (
                        "fastscp_tls_crl_expiry_timestamp_seconds{$} - time()",
                        "out of date in, {{instance}}",
                    ),
                ),
            ),
            _Panel(
                "TLS handshakes that failed", "ops",
                (_rate("fastscp_tls_handshakes_failed_total", "reason"),),
            ),
            _Panel(
                "Configuration", "none",
                (
                    ("fastscp_rules_generation{$}", "generation, {{instance}}"),
                    ("fastscp_reload_refused{$}", "last reload refused, {{instance}}"),
                    ("fastscp_test_aids{$}", "test aids, {{instance}}"),
                ),
            ),
        ),
    ),
)  # fmt: skip


def _variable(name: str, label: str, query: str) -> dict[str, object]:
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": _SOURCE,
        "definition": query,
        "query": {"query": query, "refId": name},
        "refresh": 2,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"]},
    }


def _drawn(panel: _Panel, number: int, x: int, y: int) -> dict[str, object]:
    return {
        "id": number,
        "type": "timeseries",
        "title": panel.title,
        "datasource": _SOURCE,
        "gridPos": {"x": x, "y": y, "w": _WIDTH, "h": _HEIGHT},
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}},
        "targets": [
            {
                "refId": chr(ord("A") + at),
                "datasource": _SOURCE,
                "expr": expression.replace("{$}", f"{{{_PICKED}}}"),
                "legendFormat": legend,
            }
            for at, (expression, legend) in enumerate(panel.lines)
        ],
    }


def grafana_dashboard() -> str:
    """A dashboard to import into Grafana, as JSON; it asks for its data source."""
    panels: list[dict[str, object]] = []
    y = 0
    for title, row in _PANELS:
        number = len(panels) + 1
        place = {"x": 0, "y": y, "w": 2 * _WIDTH, "h": 1}
        panels.append({"id": number, "type": "row", "title": title, "gridPos": place, "panels": []})
        y += 1
        for at, panel in enumerate(row):
            x = _WIDTH * (at % 2)
            panels.append(_drawn(panel, len(panels) + 1, x, y + _HEIGHT * (at // 2)))
        y += _HEIGHT * ((len(row) + 1) // 2)
    source = {"name": "datasource", "label": "Data source", "type": "datasource"}
    dashboard = {
        "title": "fastscp",
        "uid": "fastscp",
        "tags": ["dicom"],
        "timezone": "browser",
        "schemaVersion": 39,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {
            "list": [
                {**source, "query": "prometheus"},
                _variable("job", "Job", "label_values(fastscp_build_info, job)"),
                _variable(
                    "instance",
                    "Instance",
                    'label_values(fastscp_build_info{job=~"$job"}, instance)',
                ),
            ]
        },
        "panels": panels,
    }
    return msgspec.json.format(msgspec.json.encode(dashboard), indent=2).decode() + "\n"


# Alerts ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Alert:
    """for_: how long it has to be so. action: what to do, for whoever is woken."""

    name: str
    expression: str
    for_: str
    severity: str
    summary: str
    action: str


_ALERTS: Final[tuple[_Alert, ...]] = (
    _Alert(
        "FastscpDown", 'up{job="fastscp"} == 0', "2m", "critical",
        "fastscp on {{ $labels.instance }} is down or does not answer",
        "See whether the process runs, and the end of its log. Senders keep what they have, and "
        "try again.",
    ),
    _Alert(
        "FastscpNotReady", "fastscp_ready == 0", "5m", "critical",
        "fastscp on {{ $labels.instance }} accepts no associations",
        "`fastscp status` says why: paused, draining, disk full, no worker.",
    ),
    _Alert(
        "FastscpInstancesRefused",
        'sum by (job, instance, status, reason) '
        '(increase(fastscp_instances_total{status=~"[AC].*|0[12].*"}[15m])) > 0',
        "0m", "warning",
        "fastscp on {{ $labels.instance }} refuses instances: {{ $labels.status }} "
        "({{ $labels.reason }})",
        "The log names their senders and instances. A sender may or may not try again.",
    ),
    _Alert(
        "FastscpAssociationsRejected",
        "sum by (job, instance, result, source, reason) "
        "(increase(fastscp_associations_rejected_total[15m])) > 10",
        "0m", "warning",
        "fastscp on {{ $labels.instance }} rejects associations ({{ $labels.result }},"
        "{{ $labels.source }},{{ $labels.reason }})",
        "The log says whose and why: an AE title that is not allowed, a limit, no space.",
    ),
    _Alert(
        "FastscpSpaceShort",
        "fastscp_store_free_bytes < 2 * fastscp_store_min_free_bytes", "0m", "warning",
        "fastscp on {{ $labels.instance }} has less than twice --min-free-space, and reads slowly",
        "Free some space before it is below the mark, for nothing is stored then.",
    ),
    _Alert(
        "FastscpSpaceOut",
        "fastscp_store_free_bytes < fastscp_store_min_free_bytes", "0m", "critical",
        "fastscp on {{ $labels.instance }} stores nothing: the space is below --min-free-space",
        "Free some space: it goes on by itself once there is a tenth more than the mark.",
    ),
    _Alert(
        "FastscpSpaceSoonOut",
        "predict_linear(fastscp_store_free_bytes[6h], 86400) < fastscp_store_min_free_bytes",
        "1h", "warning",
        "fastscp on {{ $labels.instance }} fills its disk within a day",
        "Free some space, or add some.",
    ),
    _Alert(
        "FastscpDiskBlocked",
        "rate(fastscp_disk_blocked_seconds_total[5m]) > 0.05", "5m", "critical",
        "fastscp on {{ $labels.instance }} waits for its disk",
        "See the disk, its controller or its network: file calls take over 250 ms, or flushes over "
        "10 s.",
    ),
    _Alert(
        "FastscpWorkersRestart",
        'increase(fastscp_worker_restarts_total{asked="no"}[15m]) > 0', "0m", "warning",
        "fastscp on {{ $labels.instance }} has lost a worker process",
        "The log says how it ended. Its associations were lost, and nothing that was acknowledged.",
    ),
    _Alert(
        "FastscpWorkersMissing", "fastscp_workers_up < fastscp_workers", "5m", "warning",
        "fastscp on {{ $labels.instance }} has fewer workers than it is to have",
        "The log says why they do not come up, or which of them stands still.",
    ),
    _Alert(
        "FastscpLogLinesLost", "increase(fastscp_log_lines_lost_total[15m]) > 0", "0m", "warning",
        "fastscp on {{ $labels.instance }} loses lines of its log",
        "Whoever reads its log is too slow or stopped, or what it is written to is full.",
    ),
    _Alert(
        "FastscpReloadRefused", "fastscp_reload_refused == 1", "10m", "warning",
        "fastscp on {{ $labels.instance }} goes by an old configuration: the new one was refused",
        "`fastscp status` says what is wrong with it.",
    ),
    _Alert(
        "FastscpTestAids", "fastscp_test_aids == 1", "0m", "critical",
        "fastscp on {{ $labels.instance }} was started with --discard or --fault",
        "It keeps nothing, or fails on purpose: start it without, and send again what it took.",
    ),
    _Alert(
        "FastscpCertificateExpires",
        "fastscp_tls_certificate_expiry_timestamp_seconds - time() < 14 * 86400", "1h", "warning",
        "the TLS certificate of fastscp on {{ $labels.instance }} expires within two weeks",
        "Renew it, and `fastscp reload`.",
    ),
    _Alert(
        "FastscpCertificateExpiresSoon",
        "fastscp_tls_certificate_expiry_timestamp_seconds - time() < 2 * 86400", "0m", "critical",
        "the TLS certificate of fastscp on {{ $labels.instance }} expires within two days",
        "Renew it now, and `fastscp reload`: senders that check it are about to be cut off.",
    ),
    _Alert(
        "FastscpCertificateExpired",
        "fastscp_tls_certificate_expiry_timestamp_seconds - time() <= 0", "0m", "critical",
        "the TLS certificate of fastscp on {{ $labels.instance }} has expired",
        "Renew it, and `fastscp reload`: senders that check it do not send any more.",
    ),
    _Alert(
        "FastscpRevocationsExpire",
        "fastscp_tls_crl_expiry_timestamp_seconds - time() < 7 * 86400", "1h", "warning",
        "a revocation list of fastscp on {{ $labels.instance }} is good for less than a week",
        "Get it anew, and `fastscp reload`. Where lists are made for a week or less, lower the "
        "bound of this alert.",
    ),
    _Alert(
        "FastscpRevocationsExpired",
        "fastscp_tls_crl_expiry_timestamp_seconds - time() <= 0", "0m", "critical",
        "a revocation list of fastscp on {{ $labels.instance }} is out of date",
        "Get it anew, and `fastscp reload`: every sender that its CA has signed is refused.",
    ),
    _Alert(
        "FastscpHandshakesFail",
        "sum by (job, instance) (increase(fastscp_tls_handshakes_failed_total[15m])) > "
        "clamp_min(sum by (job, instance) (increase(fastscp_associations_accepted_total[15m])), "
        "10)",
        "5m", "warning",
        "more TLS handshakes fail than associations begin on {{ $labels.instance }}",
        "The log says whose and why: certificates, revocation lists, or who scans the port.",
    ),
)  # fmt: skip

_HEAD: Final = """\
# Alerts of fastscp for Prometheus: name this file under rule_files. They expect the job to be
# called fastscp:
#
#   scrape_configs:
#     - job_name: fastscp
{asked}
groups:
  - name: fastscp
    rules:
"""
_ASKED: Final = "#       static_configs: [{{targets: [{target}]}}]"
_SHOWS: Final = """\
#       authorization: {{credentials_file: {file}}}
"""
_NOBODY: Final = """\
#       static_configs: []
#
# There is nobody to ask: --admin {admin} leaves no port that a target could name."""


def prometheus_rules(admin: AdminAddress, token_file: str) -> str:
    """Rules for Prometheus, as YAML, and how it asks the service.

    token_file: an absolute path; empty: the service wants no token.
    """
    asked = _SHOWS.format(file=_text(token_file)) if token_file else ""
    if not admin or not admin.port:
        asked += _NOBODY.format(admin=admin)
    else:
        asked += _ASKED.format(target=_text(str(admin.from_here)))
    if token_file:
        asked += "\n#\n# Prometheus reads that file: give it a copy that its user can read."
    if admin.from_here != admin:
        asked += "\n# On another machine than the service the target is an address of the service."
    return _HEAD.format(asked=asked) + "".join(map(_rule, _ALERTS))


def _rule(alert: _Alert) -> str:
    # A JSON text is one of YAML, too.
    lines = [
        f"      - alert: {alert.name}",
        f"        expr: {_text(alert.expression)}",
        f"        for: {alert.for_}",
        "        labels:",
        f"          severity: {alert.severity}",
        "        annotations:",
        f"          summary: {_text(alert.summary)}",
        f"          description: {_text(alert.action)}",
    ]
    return "\n".join(lines) + "\n"


def _text(text: str) -> str:
    return msgspec.json.encode(text).decode()


# All that is asked of the metrics, by where.
EXPRESSIONS: Final = {
    **{
        f"{panel.title}: {legend}": expression
        for _row, panels in _PANELS
        for panel in panels
        for expression, legend in panel.lines
    },
    **{alert.name: alert.expression for alert in _ALERTS},
}
