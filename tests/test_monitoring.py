"""Alerts, dashboard and docs/metrics.md speak of metrics that there are, and alerts fire."""

import json
import re
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from audit.settings import AuditSettings
from meshkit import counters
from meshkit.metric_names import METRICS, Kind
from meshkit.metrics import METRICS_PORTS, metrics_endpoint

ROOT = Path(__file__).resolve().parent.parent
PROMETHEUS = ROOT / "deploy" / "prometheus"
ALERTS = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())
CASES = yaml.safe_load((PROMETHEUS / "alerts_test.yml").read_text())
DASHBOARD = json.loads((ROOT / "deploy" / "grafana" / "sealgate.json").read_text())
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()
NAME = re.compile(r"\b(?:sealgate|rpc_server|gen_ai|process)_[a-z0-9_]+|\bup\b")
OF_PROMETHEUS = {"up"}


def rules():
    return [rule for group in ALERTS["groups"] for rule in group["rules"]]


def names_in(expression):
    """Metrics of an expression: what is named outside of label matchers and grouping."""
    bare = re.sub(r"\{[^}]*\}|(?:by|without)\s*\([^)]*\)", "", expression)
    return set(NAME.findall(bare))


def labels_in(expression):
    inside = re.findall(r"\{([^}]*)\}", expression)
    matched = {label for part in inside for label in re.findall(r"(\w+)\s*(?:=|!)", part)}
    grouped = re.findall(r"(?:by|without)\s*\(([^)]*)\)", expression)
    return matched | {label.strip() for part in grouped for label in part.split(",")}


def promtool(*words):
    tool = ROOT / "var" / "tools" / "promtool"
    assert tool.exists(), "run `make system-packages`"
    return subprocess.run(
        [tool, *words], cwd=PROMETHEUS, capture_output=True, text=True, check=False
    )


@pytest.fixture
async def exposed(monkeypatch):
    """Names that the real endpoint answers with, once everything on the list was fed."""
    for name in ("_counters", "_histograms", "_steps", "_gauges"):
        monkeypatch.setattr(counters, name, {})
    for metric in METRICS:
        source = re.sub(r"\{\w+\}", "x", metric.source)
        match metric.kind:
            case Kind.COUNTER:
                counters.counted(source)
            case Kind.GAUGE:
                counters._gauges[source] = lambda: 1.0
            case Kind.HISTOGRAM:
                counters.observed(source, 1.0)
            case Kind.SUMMARY:
                counters.step_took(source.removeprefix("step:"), 1)
    async with metrics_endpoint("127.0.0.1", 0, service="gateway") as port:
        import asyncio

        address = f"http://127.0.0.1:{port}/metrics"
        text = (await asyncio.to_thread(lambda: urllib.request.urlopen(address).read())).decode()
    families = list(text_string_to_metric_families(text))
    names = {sample.name for family in families for sample in family.samples}
    labels = {label for family in families for sample in family.samples for label in sample.labels}
    return names, labels


async def test_alerts_and_dashboard_ask_for_what_is_really_exposed(exposed):
    names, labels = exposed
    expressions = [rule["expr"] for rule in rules()]
    expressions += [
        target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", ())
    ]
    assert len(expressions) > 50
    asked = {name for each in expressions for name in names_in(each)}
    assert len(asked) > 40
    assert asked - names - OF_PROMETHEUS == set()
    used = {label for each in expressions for label in labels_in(each)}
    assert used - labels - {"job", "service", "instance"} == set()


async def test_every_metric_is_exposed_once_it_is_fed(exposed):
    names, _ = exposed
    for metric in METRICS:
        end = {Kind.HISTOGRAM: "_bucket", Kind.SUMMARY: "_count"}.get(metric.kind, "")
        assert metric.exposed + end in names


def test_prometheus_takes_the_configuration_and_the_rules():
    for words in (("check", "config", "prometheus.yml"), ("check", "rules", "alerts.yml")):
        checked = promtool(*words)
        assert checked.returncode == 0, checked.stdout + checked.stderr


def test_every_alert_fires_when_it_should_and_only_then():
    tested = promtool("test", "rules", "alerts_test.yml")
    assert tested.returncode == 0, tested.stdout + tested.stderr
    alerts = {rule["alert"] for rule in rules()}
    for fires in (True, False):
        tried = {
            each["alertname"]
            for case in CASES["tests"]
            for each in case["alert_rule_test"]
            if bool(each["exp_alerts"]) == fires
        }
        assert tried == alerts


def test_alerts_have_one_of_three_levels_and_are_explained():
    assert {rule["labels"]["severity"] for rule in rules()} == {"info", "warning", "critical"}
    for group in ALERTS["groups"]:
        level = group["name"].removeprefix("sealgate-")
        assert {rule["labels"]["severity"] for rule in group["rules"]} == {level}
        for rule in group["rules"]:
            assert f"| `{rule['alert']}` |" in OPERATIONS, rule["alert"]
    assert len({rule["alert"] for rule in rules()}) == len(rules())


def test_the_backlogs_alarm_knows_its_limit():
    (rule,) = (rule for rule in rules() if rule["alert"] == "SealgateAuditBacklogFull")
    limit = AuditSettings.model_fields["backlog_events_max"].default
    assert rule["expr"].endswith(f"0.8 * {limit}")


def test_prometheus_scrapes_where_services_answer():
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    (job,) = config["scrape_configs"]
    assert job["job_name"] == "sealgate"
    scraped = {each["labels"]["service"]: each["targets"] for each in job["static_configs"]}
    assert scraped == {
        service: [f"127.0.0.1:{port}"]
        for service, port in METRICS_PORTS.items()
        if service != "appliance"
    }


def test_the_dashboards_panels_have_places_of_their_own():
    taken = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_the_page_of_metrics_is_that_of_the_code():
    made = subprocess.run(
        [sys.executable, "deploy/metrics_page.py"],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    kept = (ROOT / "docs" / "metrics.md").read_text()
    told = "python deploy/metrics_page.py > docs/metrics.md"
    assert made.stdout.splitlines() == kept.splitlines(), told
