"""What an operator sees of the running system: Flower, metrics, traces and logs."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
import yaml
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from prometheus_client.parser import text_string_to_metric_families

from clipwarden.shared.processes import PROCESSES, WATCHER
from tests.e2e.conftest import System
from tests.listeners import Listener

ROOT = Path(__file__).parents[2]
SERVERS = {"postgres", "valkey"}
TABLE = {
    "draw": 1,
    "start": 0,
    "length": 100,
    "search[value]": "",
    "order[0][column]": 0,
    "order[0][dir]": "desc",
    "columns[0][data]": "received",
}
"""What Flower's own page of tasks asks for."""


@pytest.fixture(scope="module")
def analysis_id(system: System, talking_head: Path) -> str:
    """An analysis that has ended."""
    made = system.submit(talking_head)
    assert system.wait(made)["state"] == "done"
    return made


def eventually(value: Callable[[], Any], timeout_s: float = 40) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (found := value()):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    return found


@pytest.fixture(scope="module")
def flower(system: System) -> httpx.Client:
    password = (system.stack.state_dir / "flower-password").read_text().strip()
    with httpx.Client(base_url=system.stack.flower_url, auth=("operator", password), trust_env=False) as client:
        yield client


def test_flower_asks_who_you_are(system, flower):
    for path in ("/", "/workers", "/tasks", "/broker", "/api/tasks"):
        assert httpx.get(f"{system.stack.flower_url}{path}", trust_env=False).status_code == 401, path
        assert flower.get(path).status_code == 200, path


def test_flower_shows_each_branch_by_name_and_of_a_clip_its_id_only(flower, analysis_id):
    def shown() -> dict[str, Any]:
        answer = flower.get("/tasks/datatable", params=TABLE)
        mine = [task for task in answer.json()["data"] if task["args"] == analysis_id]
        return {task["name"]: task for task in mine if task["state"] == "SUCCESS"}

    wanted = {f"clipwarden.{name}" for name in ("ingest", "assess.visual", "assess.audio", "fuse")}
    tasks = eventually(lambda: found if wanted <= set(found := shown()) else None)
    assert tasks["clipwarden.assess.visual"]["worker"].startswith("visual@")
    assert {(task["kwargs"], task["result"]) for task in tasks.values()} <= {("", None), ("", "None"), ("", "")}


def test_flower_steers_nothing(flower):
    (worker, *_) = flower.get("/workers", params={"json": "1"}).json()["data"]
    refused = flower.post(f"/api/worker/shutdown/{worker['hostname']}", headers={"X-Requested-With": "XMLHttpRequest"})
    assert refused.status_code == 403


def test_every_process_tells_its_health_and_its_metrics(system, analysis_id, metrics_port):
    def series(name: str) -> dict[tuple[str, ...], float]:
        port = metrics_port + [process.name for process in PROCESSES].index(name)
        answer = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).raise_for_status()
        families = text_string_to_metric_families(answer.text)
        return {(s.name, *s.labels.values()): s.value for f in families for s in f.samples}

    for n, process in enumerate(PROCESSES):
        assert httpx.get(f"http://127.0.0.1:{metrics_port + n}/readyz", trust_env=False).status_code == 200, process
    assert series("gateway")["clipwarden_http_requests_total", "POST", "/v1/analyses", "202"] >= 1
    assert {key[1:] for key in series("visual") if key[0] == "clipwarden_task_seconds_count"} == {("settled", "visual")}
    assert series("visual")["clipwarden_batch_size_count", "visual", "pictures"] >= 1
    eventually(lambda: series("sweeper").get(("clipwarden_analyses_ended_total", "none", "false", "done")))
    counted = series("sweeper")
    assert any(key[0] == "clipwarden_verdicts_total" for key in counted)
    assert counted["clipwarden_detector_outcomes_total", "none", "forensic_mlp", "ok"] >= 1
    assert counted["clipwarden_queue_messages", "realtime", "visual"] >= 0


def test_the_health_checks_of_the_containers_pass_here(system, metrics_port):
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))["services"]
    ports = {"8000": system.stack.api_url, "5555": system.stack.flower_url}
    for n, process in enumerate((*PROCESSES, WATCHER)):
        kind, python, flag, code = services[process.name]["healthcheck"]["test"]
        assert (kind, python, flag) == ("CMD", "python", "-c")
        for port, url in {**ports, "9100": f"http://127.0.0.1:{metrics_port + n}"}.items():
            code = code.replace(f"http://127.0.0.1:{port}/", f"{url}/")
        subprocess.run([sys.executable, "-c", code], check=True, timeout=30)


def test_an_analysis_is_one_trace_from_the_gateway_to_the_verdict(collector: Listener, analysis_id: str) -> None:
    def trace() -> dict[str, Any]:
        found = {}
        for received in list(collector.received):
            for resource in ExportTraceServiceRequest.FromString(received.body).resource_spans:
                (service,) = [a.value.string_value for a in resource.resource.attributes if a.key == "service.name"]
                for scope in resource.scope_spans:
                    found |= {
                        (service, span.name): span for span in scope.spans if span.trace_id == UUID(analysis_id).bytes
                    }
        return found

    wanted = {
        ("clipwarden-gateway", "submit"),
        ("clipwarden-gateway", "send"),
        ("clipwarden-worker-ingest", "ingest"),
        ("clipwarden-worker-visual", "visual"),
        ("clipwarden-worker-audio", "audio"),
        ("clipwarden-worker-fusion", "fuse"),
        ("clipwarden-sweeper", "analysis"),
    }
    spans = eventually(lambda: found if wanted <= set(found := trace()) else None)
    root = spans["clipwarden-sweeper", "analysis"]
    assert {spans[name].parent_span_id for name in wanted} == {b"", root.span_id}
    assert root.start_time_unix_nano <= spans["clipwarden-worker-ingest", "ingest"].start_time_unix_nano
    assert spans["clipwarden-worker-visual", "visual"].end_time_unix_nano <= root.end_time_unix_nano


def test_every_line_that_a_process_logs_is_one_object(system, analysis_id):
    about = set()
    for log in system.stack.logs.glob("*.log"):
        if log.stem in SERVERS or log.stem in {"db-upgrade", "pipeline-publish"}:
            continue
        for line in log.read_text("utf-8").splitlines():
            entry = json.loads(line)
            assert {"service", "event", "level", "timestamp"} <= set(entry), line
            if entry.get("analysis_id") == analysis_id:
                about.add(entry["service"])
    assert {"gateway", "worker-ingest", "worker-visual", "worker-audio", "worker-fusion"} <= about
