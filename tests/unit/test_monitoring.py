"""The dashboard and the alerts: what they ask for is there, and Prometheus takes them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from fastscp.admin.exposition import FAMILIES
from fastscp.association.account import KINDS
from fastscp.cli import app as cli
from fastscp.cli.monitoring import EXPRESSIONS
from fastscp.main.endings import LOST
from fastscp_ext import Shared
from tests.measures import exposition, parsed, snapshot

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def promtool() -> str:
    found = shutil.which("promtool")
    if found is None:
        assert not os.environ.get("CI"), "promtool is missing: install prometheus"
        pytest.skip("there is no promtool")
    return found


def printed(what: str, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert cli.main(["print", what, *words]) == 0
    return capsys.readouterr().out


def test_what_is_asked_for_is_there() -> None:
    """Each name is one of a sample that the service writes, with the labels it has."""
    found = parsed(exposition(snapshot(), "")[0].decode())
    labels_of: dict[str, set[str]] = {}
    for name, labels in found:
        labels_of.setdefault(name, set()).update(label for label, _value in labels)
    used = set()
    for where, expression in EXPRESSIONS.items():
        names = set(re.findall(r"fastscp_\w+", expression))
        assert names <= set(labels_of), where
        used |= names
        known = set().union(*(labels_of[name] for name in names)) | {"job", "instance"}
        for group in re.findall(r"\bby \(([^)]*)\)", expression):
            assert {one.strip() for one in group.split(",")} <= known, where
        assert set(re.findall(r'(\w+)\s*=~?"', expression)) <= known, where
        if where.partition(": ")[2]:
            assert set(re.findall(r"{{(\w+)}}", where)) <= known, where
    # And nothing is measured that nobody looks at.
    bare = {name.removesuffix("_bucket") for name in used}
    assert {one.name for one in FAMILIES} - bare == {"fastscp_build_info", "fastscp_uptime_seconds"}


def test_the_dashboard(capsys: pytest.CaptureFixture[str]) -> None:
    dashboard = json.loads(printed("grafana-dashboard", capsys))
    panels = [one for one in dashboard["panels"] if one["type"] != "row"]
    expressions = [target["expr"] for one in panels for target in one["targets"]]
    assert len(expressions) > 30
    assert all('job=~"$job",instance=~"$instance"' in one for one in expressions)
    assert not any("{$}" in one for one in expressions)
    assert len({one["id"] for one in dashboard["panels"]}) == len(dashboard["panels"])
    # None lies on another one.
    taken: set[tuple[int, int]] = set()
    for one in dashboard["panels"]:
        at = one["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken, one["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells
    names = [one["name"] for one in dashboard["templating"]["list"]]
    assert names == ["datasource", "job", "instance"]
    assert all(one["datasource"]["uid"] == "${datasource}" for one in panels)


def test_prometheus_takes_the_expressions_of_the_dashboard(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, promtool: str
) -> None:
    dashboard = json.loads(printed("grafana-dashboard", capsys))
    lines = ["groups:", "  - name: all", "    rules:"]
    for one in dashboard["panels"]:
        for target in one.get("targets", ()):
            expression = target["expr"].replace("$__rate_interval", "5m")
            number = len(lines)
            lines.append(f"      - {{record: 'one:{number}', expr: {json.dumps(expression)}}}")
    file = tmp_path / "rules.yml"
    file.write_text("\n".join(lines), encoding="utf-8")
    done = subprocess.run(
        [promtool, "check", "rules", str(file)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(lines) - 3} rules found" in done.stdout


def test_prometheus_takes_the_alerts(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, promtool: str
) -> None:
    file = tmp_path / "rules.yml"
    file.write_text(printed("prometheus-rules", capsys), encoding="utf-8")
    done = subprocess.run(
        [promtool, "check", "rules", str(file)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SUCCESS: 19 rules found" in done.stdout


# What the alerts say of services that are well, of one in trouble, and of one whose certificate has
# expired.
_TESTS = """\
rule_files: [{rules}]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - {{series: 'up{{job="fastscp",instance="a"}}', values: '1x30'}}
      - {{series: 'fastscp_ready{{job="fastscp",instance="a"}}', values: '1x30'}}
      - {{series: 'fastscp_workers{{job="fastscp",instance="a"}}', values: '2x30'}}
      - {{series: 'fastscp_workers_up{{job="fastscp",instance="a"}}', values: '2x30'}}
      - {{series: 'fastscp_store_free_bytes{{job="fastscp",instance="a"}}', values: '9x30'}}
      - {{series: 'fastscp_store_min_free_bytes{{job="fastscp",instance="a"}}', values: '3x30'}}
      - {{series: 'fastscp_log_lines_lost_total{{job="fastscp",instance="a"}}', values: '0x30'}}
      - {{series: 'up{{job="fastscp",instance="b"}}', values: '0x30'}}
      - {{series: 'fastscp_ready{{job="fastscp",instance="b"}}', values: '0x30'}}
      - {{series: 'fastscp_workers{{job="fastscp",instance="b"}}', values: '2x30'}}
      - {{series: 'fastscp_workers_up{{job="fastscp",instance="b"}}', values: '1x30'}}
      - {{series: 'fastscp_store_free_bytes{{job="fastscp",instance="b"}}', values: '2x30'}}
      - {{series: 'fastscp_store_min_free_bytes{{job="fastscp",instance="b"}}', values: '3x30'}}
      - {{series: 'fastscp_log_lines_lost_total{{job="fastscp",instance="b"}}', values: '0x25 4x5'}}
      - series: 'fastscp_instances_total{{job="fastscp",instance="b",status="A700",reason="full"}}'
        values: '0x25 1x5'
      - series: 'fastscp_instances_total{{job="fastscp",instance="b",status="0000",reason="x"}}'
        values: '0+9x30'
      - series: 'fastscp_worker_restarts_total{{job="fastscp",instance="b",asked="no"}}'
        values: '0x25 1x5'
      - series: 'fastscp_disk_blocked_seconds_total{{job="fastscp",instance="b"}}'
        values: '0+30x30'
      - {{series: 'fastscp_test_aids{{job="fastscp",instance="a"}}', values: '0x30'}}
      - {{series: 'fastscp_test_aids{{job="fastscp",instance="b"}}', values: '1x30'}}
      - series: 'fastscp_tls_certificate_expiry_timestamp_seconds{{job="fastscp",instance="b"}}'
        values: '100000x30'
      - series: 'fastscp_tls_crl_expiry_timestamp_seconds{{job="fastscp",instance="b"}}'
        values: '1000x30'
      - series: 'fastscp_tls_certificate_expiry_timestamp_seconds{{job="fastscp",instance="c"}}'
        values: '{later}x30'
      - series: 'fastscp_tls_crl_expiry_timestamp_seconds{{job="fastscp",instance="c"}}'
        values: '{later}x30'
      - series: 'fastscp_tls_certificate_expiry_timestamp_seconds{{job="fastscp",instance="d"}}'
        values: '1000x30'
      - series: 'fastscp_tls_handshakes_failed_total{{job="fastscp",instance="b",reason="x"}}'
        values: '0+2x30'
      - series: 'fastscp_associations_accepted_total{{job="fastscp",instance="b"}}'
        values: '0+1x30'
      - series: 'fastscp_tls_handshakes_failed_total{{job="fastscp",instance="c",reason="x"}}'
        values: '0+2x30'
      - series: 'fastscp_associations_accepted_total{{job="fastscp",instance="c"}}'
        values: '0+3x30'
    promql_expr_test:
      - expr: 'count by (instance, alertname) (ALERTS{{alertstate="firing"}})'
        eval_time: 30m
        exp_samples:
{samples}
"""
_FIRING = {
    "b": (
        "FastscpDown", "FastscpNotReady", "FastscpInstancesRefused", "FastscpSpaceShort",
        "FastscpSpaceOut", "FastscpDiskBlocked", "FastscpWorkersRestart", "FastscpWorkersMissing",
        "FastscpLogLinesLost", "FastscpTestAids", "FastscpCertificateExpiresSoon",
        "FastscpRevocationsExpired", "FastscpHandshakesFail",
    ),
    "d": ("FastscpCertificateExpiresSoon", "FastscpCertificateExpired"),
}  # fmt: skip


def _scraped(text: str) -> dict[str, Any]:
    """The job of the comment."""
    lines = text[text.index("#   scrape_configs") : text.index("groups:")].split("\n#\n")[0]
    found = yaml.safe_load(re.sub("^#", "", lines, flags=re.MULTILINE))
    (job,) = found["scrape_configs"]
    made: dict[str, Any] = job
    return made


def test_the_rules_say_where_the_service_answers(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert _scraped(printed("prometheus-rules", capsys)) == {
        "job_name": "fastscp", "static_configs": [{"targets": ["127.0.0.1:8112"]}],
    }  # fmt: skip
    token, file = tmp_path / "to ken", tmp_path / "fastscp.toml"
    token.write_text("s3cr3t-s3cr3t-s3cr3t", "ascii")
    token.chmod(0o600)
    file.write_text(f"admin = '[::]:9000'\nadmin-token-file = '{token}'\n", "utf-8")
    text = printed("prometheus-rules", capsys, "--config", str(file))
    assert _scraped(text) == {
        "job_name": "fastscp", "authorization": {"credentials_file": str(token)},
        "static_configs": [{"targets": ["[::1]:9000"]}],
    }  # fmt: skip
    assert "s3cr3t" not in text
    assert "a copy that its user can read" in text
    assert "On another machine" in text
    for none in ("off", "127.0.0.1:0"):
        text = printed("prometheus-rules", capsys, "--admin", none)
        assert _scraped(text)["static_configs"] == []
        assert f"--admin {none} leaves no port" in text


def test_the_alerts_come_when_they_should(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, promtool: str
) -> None:
    rules, file = tmp_path / "rules.yml", tmp_path / "test.yml"
    rules.write_text(printed("prometheus-rules", capsys), encoding="utf-8")
    samples = "\n".join(
        f'          - {{labels: \'{{instance="{instance}", alertname="{one}"}}\', value: 1}}'
        for instance, alerts in _FIRING.items()
        for one in alerts
    )
    file.write_text(
        _TESTS.format(rules=rules.name, samples=samples, later=30 * 86400), encoding="utf-8"
    )
    done = subprocess.run(
        [promtool, "test", "rules", str(file)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_refusal_is_told() -> None:
    """Whatever status the codec has for it."""
    expression = EXPRESSIONS["FastscpInstancesRefused"]
    (pattern,) = re.findall(r'status=~"([^"]*)"', expression)
    statuses = {f"{one:04X}" for one, _reason in Shared().rows.known_statuses() if one is not None}
    told = {one for one in statuses if re.fullmatch(pattern, one)}
    assert {one for one in statuses - told if one != "0000" and not one.startswith("B")} == set()
    assert {"A700", "C000"} < told


def test_promtool_likes_the_names(promtool: str) -> None:
    text, _kind = exposition(snapshot(), "")
    done = subprocess.run(
        [promtool, "check", "metrics"], input=text, capture_output=True, check=False
    )
    assert (done.returncode, done.stderr, done.stdout) == (0, b"", b"")


def test_the_kinds_of_ends_are_words() -> None:
    """They are labels: whoever changes one changes what dashboards show."""
    assert (*KINDS, LOST) == (
        "released", "aborted", "aborted by the peer", "connection closed",
        "connection lost inside a message", "cannot send", "the peer does not read what we send",
        "lost with its worker",
    )  # fmt: skip
