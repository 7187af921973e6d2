"""Dashboard and alerts speak of metrics that exist, in PromQL that parses, and the runbook of every alert."""

import json
import re
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from prometheus_client import Counter, Gauge, Histogram

from clipwarden.shared import metrics
from clipwarden.shared.processes import GATEWAY
from clipwarden.shared.queue import Queue

DEPLOY = Path(__file__).parents[2] / "deploy"
ADDED = {"job", "instance", "process"}
"""Labels that Prometheus puts on everything, by deploy/prometheus/prometheus.yml."""
RATES = {"$__rate_interval": "5m"}
ENDINGS = {Counter: ("_total",), Gauge: ("",), Histogram: ("_count", "_sum", "_bucket")}
DURATION = re.compile(r"(?=\d)(\d+y)?(\d+w)?(\d+d)?(\d+h)?(\d+m)?(\d+s)?(\d+ms)?")
"""As Prometheus reads one in its files."""
TEMPLATE = re.compile(r"{{ (?:\$labels\.(\w+)|\$value(?: \| humanize(?:Duration|Percentage))?) }}")
THEIRS: dict[str, set[str]] = {"up": set(), "process_start_time_seconds": set()}


def known() -> dict[str, set[str]]:
    """Labels by name of series."""
    series = dict(THEIRS)
    for metric in vars(metrics).values():
        if isinstance(metric, Counter | Gauge | Histogram):
            (family,) = metric.describe()
            for ending in ENDINGS[type(metric)]:
                series[family.name + ending] = {*metric._labelnames, *({"le"} if ending == "_bucket" else ())}
    return series


SERIES = known()
DASHBOARD: dict[str, Any] = json.loads((DEPLOY / "grafana" / "dashboards" / "clipwarden.json").read_text("utf-8"))
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
ALERTS = [
    rule
    for group in yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text("utf-8"))["groups"]
    for rule in group["rules"]
]
EXPRESSIONS = {
    **{f"{panel['title']}/{target['refId']}": target["expr"] for panel in PANELS for target in panel["targets"]},
    **{rule["alert"]: rule["expr"] for rule in ALERTS},
}


def parsed(expression: str) -> list[Any]:
    """All nodes of an expression."""
    for name, value in RATES.items():
        expression = expression.replace(name, value)
    nodes: list[Any] = []
    promql_parser.walk(promql_parser.parse(expression), nodes.append)
    return nodes


def selectors(nodes: list[Any]) -> list[Any]:
    found = [n for n in nodes if isinstance(n, promql_parser.VectorSelector)]
    return found + [n.vector_selector for n in nodes if isinstance(n, promql_parser.MatrixSelector)]


@pytest.mark.parametrize("where", EXPRESSIONS)
def test_every_series_and_label_that_is_asked_for_exists(where):
    nodes = parsed(EXPRESSIONS[where])
    used = selectors(nodes)
    assert used
    for selector in used:
        assert selector.name in SERIES, selector.name
        matched = {matcher.name for matcher in selector.matchers.matchers}
        assert matched <= SERIES[selector.name] | ADDED, (selector.name, matched)
    labels = set().union(*(SERIES[s.name] for s in used)) | ADDED
    for node in nodes:
        if isinstance(node, promql_parser.AggregateExpr) and node.modifier is not None:
            assert set(node.modifier.labels) <= labels, node.modifier.labels


@pytest.mark.parametrize("where", EXPRESSIONS)
def test_counters_are_read_by_their_growth(where):
    text = re.sub(r"\s+", " ", EXPRESSIONS[where])
    for name in re.findall(r"clipwarden_\w+_(?:total|bucket|count|sum)\b", text):
        assert re.search(rf"(rate|increase)\( ?{name}", text), name


def test_the_legends_name_labels_that_their_series_keep():
    for panel in PANELS:
        for target in panel["targets"]:
            shown = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
            kept = [
                set(n.modifier.labels)
                for n in parsed(target["expr"])
                if isinstance(n, promql_parser.AggregateExpr) and n.modifier
            ]
            assert shown <= set().union(*kept), panel["title"]


def test_every_metric_of_ours_is_on_the_dashboard():
    asked = {s.name for panel in PANELS for target in panel["targets"] for s in selectors(parsed(target["expr"]))}
    families = {re.sub(r"_(total|bucket|count|sum)$", "", name) for name in asked}
    ours = {re.sub(r"_(total|bucket|count|sum)$", "", name) for name in SERIES} - set(THEIRS)
    assert ours <= families, ours - families


def test_panels_lie_beside_each_other():
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert max(x for x, _ in cells) < 24
        assert not cells & taken, panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_every_alert_says_how_bad_it_is_and_what_happened():
    assert len({rule["alert"] for rule in ALERTS}) == len(ALERTS)
    for rule in ALERTS:
        assert rule["labels"]["severity"] in {"page", "ticket"}
        assert rule["annotations"]["summary"]


def test_durations_are_those_of_prometheus():
    scraping = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text("utf-8"))
    discoveries = [dns for job in scraping["scrape_configs"] for dns in job.get("dns_sd_configs", ())]
    given = [rule["for"] for rule in ALERTS if "for" in rule]
    given += [each for part in (scraping["global"], *discoveries) for key, each in part.items() if "interval" in key]
    assert len(given) > 10
    assert not [each for each in given if not DURATION.fullmatch(each)]


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_an_alert_speaks_of_labels_that_its_series_keep(rule):
    assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
    summary = rule["annotations"]["summary"]
    assert not re.search(r"[{}]", TEMPLATE.sub("", summary)), summary
    nodes = parsed(rule["expr"])
    kept = [
        set(n.modifier.labels) if n.modifier else set() for n in nodes if isinstance(n, promql_parser.AggregateExpr)
    ]
    kept = kept or [SERIES[s.name] | ADDED for s in selectors(nodes)]
    assert {name for name in TEMPLATE.findall(summary) if name} <= set.intersection(*kept)


def test_whoever_takes_uploads_or_tells_is_missed_when_no_target_is_left():
    (gone,) = [rule["expr"] for rule in ALERTS if rule["alert"] == "ProcessGone"]
    absent = [n for n in parsed(gone) if isinstance(n, promql_parser.Call) and n.func.name == "absent"]
    missed = {m.value for n in selectors(parsed(gone)) for m in n.matchers.matchers if m.name == "process"}
    assert (len(absent), missed) == (2, {GATEWAY, Queue.NOTIFY})


@pytest.mark.parametrize("rule", [r for r in ALERTS if "humanizePercentage" in r["annotations"]["summary"]])
def test_a_share_of_next_to_nothing_alarms_nobody(rule):
    assert re.search(r"and on \(\w*\) sum( by \(\w+\) )?\(increase\(.*\[\d+m\]\)\) > [1-9]", rule["expr"])


@pytest.mark.parametrize("end", ["handed_back", "elsewhere"])
def test_work_that_goes_round_is_noticed(end):
    asked = [s for rule in ALERTS for s in selectors(parsed(rule["expr"])) if s.name == "clipwarden_task_seconds_count"]
    assert end in {m.value for selector in asked for m in selector.matchers.matchers if m.name == "end"}


def test_every_stage_that_nobody_takes_is_noticed():
    (idle,) = [rule["expr"] for rule in ALERTS if rule["alert"] == "PoolIdle"]
    wanted = [{(m.name, m.value) for m in s.matchers.matchers} for s in selectors(parsed(idle))]
    assert {("status", "open"), ("stage", "fetch")} in wanted


def test_the_runbook_has_an_entry_for_every_alert_and_none_besides():
    runbook = (DEPLOY / "README.md").read_text("utf-8")
    section = runbook.partition("\n## Alerts\n")[2].partition("\n## ")[0]
    assert re.findall(r"^### (\w+)$", section, re.MULTILINE) == [rule["alert"] for rule in ALERTS]
    for entry in re.split(r"^### ", section, flags=re.MULTILINE)[1:]:
        assert len(entry.split()) > 20, entry
