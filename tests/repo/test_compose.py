"""docker-compose.yml runs the processes that `clipwarden up` runs, and exposes nothing more than the gateway."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from clipwarden.shared.cli import COMMANDS
from clipwarden.shared.processes import GATEWAY, PROCESSES, SETUP
from clipwarden.shared.queue import Queue
from clipwarden.shared.settings import PREFIX, Settings

ROOT = Path(__file__).parents[2]
SERVERS = {"redis", "postgres"}
ONE_SHOT = "migrate"
BLOBS = "blobs:/var/lib/clipwarden/blobs"


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    return loaded


@pytest.fixture(scope="module")
def services(compose: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = compose["services"]
    return found


def test_every_queue_has_exactly_one_process():
    assert sorted(p.queue for p in PROCESSES if p.queue) == sorted(Queue)


def test_every_process_is_a_command_of_ours():
    assert {words[0] for words in [*SETUP, *(p.words for p in PROCESSES)]} <= set(COMMANDS)


def test_the_services_are_the_processes_of_the_table(services):
    assert set(services) == SERVERS | {ONE_SHOT} | {p.name for p in PROCESSES}


@pytest.mark.parametrize("process", PROCESSES, ids=lambda p: p.name)
def test_a_service_runs_its_process(services, process):
    service = services[process.name]
    assert tuple(service["command"]) == process.words


def test_the_set_up_runs_once_before_every_process(services):
    assert services[ONE_SHOT]["command"] == [" && ".join(" ".join(["clipwarden", *words]) for words in SETUP)]
    assert services[ONE_SHOT]["restart"] == "no"
    for process in PROCESSES:
        assert services[process.name]["depends_on"][ONE_SHOT] == {"condition": "service_completed_successfully"}


def test_the_gateway_alone_is_published_and_only_to_this_machine(services):
    published = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert published == {GATEWAY: ["127.0.0.1:8000:8000"]}


def test_the_gateway_and_the_workers_share_one_blob_volume(services, compose):
    assert all(BLOBS in services[process.name]["volumes"] for process in PROCESSES)
    assert not any(BLOBS in services[name]["volumes"] for name in SERVERS)
    assert "blobs" in compose["volumes"]


def test_every_setting_that_compose_makes_exists(services):
    named = {name for service in services.values() for name in service["environment"] if name.startswith(PREFIX)}
    assert {name.removeprefix(PREFIX).lower() for name in named} <= set(Settings.model_fields)


def test_passwords_have_no_default():
    used = re.findall(r"\$\{(\w*PASSWORD)([^}]*)\}", (ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    assert {name for name, _ in used} == {"POSTGRES_PASSWORD", "REDIS_PASSWORD"}
    assert all(rest.startswith(":?") for _, rest in used)


def test_every_build_target_is_a_stage_of_the_dockerfile(services):
    text = (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8")
    stages = set(re.findall(r"^FROM \S+ AS (\S+)$", text, re.MULTILINE))
    assert {service["build"]["target"] for service in services.values() if "build" in service} <= stages


def test_the_gateway_image_installs_no_detector_packages():
    text = (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8")
    chain = re.search(r"^FROM base AS api-packages\n(.*?)^FROM", text, re.MULTILINE | re.DOTALL)
    assert chain is not None
    assert '".[api,s3]"' in chain[1]
    assert "torch" not in chain[1]


def test_a_stopping_worker_gets_more_time_than_its_task(services):
    grace_s = int(services[Queue.VISUAL]["stop_grace_period"].removesuffix("s"))
    assert grace_s > Settings().soft_shutdown_s
