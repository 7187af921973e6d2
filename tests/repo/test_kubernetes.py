"""deploy/k8s, as kustomize builds it: valid, the processes of a running system, and as closed as can be."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import UUID

import jsonschema
import kubernetes_validate
import pytest
import yaml
from sqlalchemy import create_engine, text

from clipwarden.shared.blobs import LocalBlobs
from clipwarden.shared.cli import COMMANDS
from clipwarden.shared.contracts import Branch, Manifest, Stage
from clipwarden.shared.processes import FLOWER, GATEWAY, PROCESSES, SETUP, SWEEPER, WATCHER
from clipwarden.shared.queue import Queue
from clipwarden.shared.settings import PREFIX, Settings
from clipwarden.shared.store import NewAnalysis, Store
from tests.analyses import assess, claim, ingest

K8S = Path(__file__).parents[2] / "deploy" / "k8s"
RUNBOOK = (K8S.parent / "README.md").read_text(encoding="utf-8")
SECRET_KEYS = {"database-url", "redis-url", "aws-access-key-id", "aws-secret-access-key", "flower-password"}
SCALED = tuple(queue for queue in Queue if queue is not Queue.FUSION)
NEW = """
resources: [../k8s/pools]
nameSuffix: -new
labels:
  - pairs: {clipwarden/version: new}
    includeSelectors: true
images:
  - {name: clipwarden-worker, newName: registry.example.org/clipwarden-worker, newTag: "2"}
"""
GPU = "{resources: [../k8s], components: [../k8s/gpu]}"


def fields(required: dict[str, Any], **others: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": required | others,
        "required": list(required),
        "additionalProperties": False,
    }


WORD, NUMBER = {"type": "string"}, {"type": "integer", "minimum": 0}
OF_KEDA = {
    "ScaledObject": fields(
        {
            "scaleTargetRef": fields({"name": WORD}),
            "triggers": {
                "type": "array",
                "items": fields(
                    {"type": WORD, "metadata": {"type": "object", "additionalProperties": WORD}},
                    authenticationRef=fields({"name": WORD}),
                ),
            },
        },
        pollingInterval=NUMBER,
        cooldownPeriod=NUMBER,
        minReplicaCount=NUMBER,
        maxReplicaCount=NUMBER,
        fallback=fields({"failureThreshold": NUMBER, "replicas": NUMBER}),
        advanced=fields({}, horizontalPodAutoscalerConfig=fields({}, behavior={"type": "object"})),
    ),
    "TriggerAuthentication": fields(
        {"secretTargetRef": {"type": "array", "items": fields({"parameter": WORD, "name": WORD, "key": WORD})}}
    ),
}
"""What we use of keda.sh/v1alpha1, by the kind: its schemas are in no package that is installed."""

Built = list[dict[str, Any]]


def build(folder: Path) -> Built:
    program = shutil.which("kubectl", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert program is not None
    shown = subprocess.run([program, "kustomize", str(folder)], capture_output=True, text=True, check=False, timeout=60)
    assert shown.returncode == 0, shown.stderr
    assert not shown.stderr, shown.stderr
    return list(yaml.safe_load_all(shown.stdout))


def over(tmp_path: Path, kustomization: str) -> Built:
    """What a kustomization that lies beside ours makes of it."""
    shutil.copytree(K8S, tmp_path / "k8s")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "kustomization.yaml").write_text(kustomization, "utf-8")
    return build(tmp_path / "mine")


@pytest.fixture(scope="module")
def built() -> Built:
    return build(K8S)


def of_kind(built: Built, kind: str) -> dict[str, Any]:
    return {each["metadata"]["name"]: each for each in built if each["kind"] == kind}


def pod(workload: dict[str, Any]) -> dict[str, Any]:
    template: dict[str, Any] = workload["spec"]["template"]
    return template


def container(workload: dict[str, Any]) -> dict[str, Any]:
    (only,) = pod(workload)["spec"]["containers"]
    found: dict[str, Any] = only
    return found


def workloads(built: Built) -> list[dict[str, Any]]:
    return [*of_kind(built, "Deployment").values(), *of_kind(built, "Job").values()]


def test_everything_is_valid_by_the_schemas_of_kubernetes(built):
    theirs = [each for each in built if not each["apiVersion"].startswith("keda.sh/")]
    assert len(theirs) > 20
    for each in theirs:
        kubernetes_validate.validate(each, "1.37", strict=True)


def test_the_objects_of_keda_have_its_fields_and_a_behaviour_that_kubernetes_knows(built):
    of_keda = [each for each in built if each["apiVersion"].startswith("keda.sh/")]
    assert {each["kind"] for each in of_keda} == set(OF_KEDA)
    for each in of_keda:
        assert each["apiVersion"] == "keda.sh/v1alpha1"
        jsonschema.validate(each["spec"], OF_KEDA[each["kind"]])
    for name, scaler in of_kind(built, "ScaledObject").items():
        spec = {
            "scaleTargetRef": {"kind": "Deployment", "name": name},
            "maxReplicas": scaler["spec"]["maxReplicaCount"],
            "behavior": scaler["spec"]["advanced"]["horizontalPodAutoscalerConfig"]["behavior"],
        }
        made = {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {}, "spec": spec}
        kubernetes_validate.validate(made, "1.37", strict=True)


def test_every_process_is_a_deployment_that_runs_its_words(built):
    running = {
        tuple(container(d).get("args", ())): name
        for name, d in of_kind(built, "Deployment").items()
        if name != "console"
    }
    assert {p.words for p in (*PROCESSES, WATCHER)} == set(running)
    assert running["worker", "visual"] == "worker-visual"


def test_the_set_up_is_a_job(built):
    (job,) = of_kind(built, "Job").values()
    assert container(job)["command"][-1] == " && ".join(" ".join(["clipwarden", *words]) for words in SETUP)


def test_every_setting_exists_and_files_are_shared_through_a_bucket(built):
    settings = of_kind(built, "ConfigMap")["settings"]["data"]
    given = {n.removeprefix(PREFIX).lower(): v for n, v in settings.items() if n.startswith(PREFIX)}
    assert set(given) <= set(Settings.model_fields)
    assert Settings(**given).blob_url.startswith("s3://")
    assert not of_kind(built, "PersistentVolumeClaim")
    assert all(container(w)["envFrom"] == [{"configMapRef": {"name": "settings"}}] for w in workloads(built))
    for name, deployment in of_kind(built, "Deployment").items():
        env = {each["name"] for each in container(deployment)["env"]}
        assert {n.removeprefix(PREFIX).lower() for n in env if n.startswith(PREFIX)} <= set(Settings.model_fields), name
        assert all("emptyDir" in v and v["emptyDir"]["sizeLimit"] for v in pod(deployment)["spec"]["volumes"])


def test_secrets_are_named_and_never_written(built):
    assert not of_kind(built, "Secret")
    named = set()
    for workload in workloads(built):
        for variable in container(workload)["env"]:
            if "valueFrom" in variable:
                reference = variable["valueFrom"]["secretKeyRef"]
                assert reference["name"] == "clipwarden"
                named.add(reference["key"])
    assert named == SECRET_KEYS


def test_flower_is_told_no_secret_but_its_own_and_that_of_redis(built):
    env = container(of_kind(built, "Deployment")[FLOWER])["env"]
    told = {each["valueFrom"]["secretKeyRef"]["key"] for each in env if "valueFrom" in each}
    assert told == {"redis-url", "flower-password"}


def test_pods_run_as_nobody_and_write_to_scratch_only(built):
    for workload in workloads(built):
        spec, confined = pod(workload)["spec"], container(workload)["securityContext"]
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["automountServiceAccountToken"] is False
        assert confined["readOnlyRootFilesystem"] is True
        assert confined["capabilities"] == {"drop": ["ALL"]}
        assert container(workload)["resources"]["limits"]["memory"]


def test_whatever_uses_the_bucket_can_write_to_its_cache(built):
    limit = int(of_kind(built, "ConfigMap")["settings"]["data"][f"{PREFIX}BLOB_CACHE_BYTES"])
    for workload in workloads(built):
        if "clipwarden/bucket" in pod(workload)["metadata"]["labels"]:
            mounted = {each["mountPath"]: each["name"] for each in container(workload)["volumeMounts"]}
            volumes = {volume["name"]: volume for volume in pod(workload)["spec"]["volumes"]}
            size = volumes[mounted["/var/lib/clipwarden/blob-cache"]]["emptyDir"]["sizeLimit"]
            assert int(size.removesuffix("Gi")) * 1024**3 > limit, workload["metadata"]["name"]


def test_what_runs_is_probed_and_workers_are_not_killed_for_a_service(built):
    for name, deployment in of_kind(built, "Deployment").items():
        if name != "console":
            assert {"readinessProbe", "livenessProbe"} <= set(container(deployment)), name
        if name.startswith("worker-"):
            assert container(deployment)["livenessProbe"]["httpGet"]["path"] == "/livez"
            patience = container(deployment)["startupProbe"]
            assert patience["httpGet"]["path"] == "/readyz"  # models are loaded, whichever pipeline they are of
            assert patience["periodSeconds"] * patience["failureThreshold"] >= Settings().worker_start_timeout_s


def test_the_gateway_is_probed_under_a_name_it_answers_to_and_serves_without_redis(built):
    gateway = container(of_kind(built, "Deployment")[GATEWAY])
    assert "startupProbe" not in gateway
    for probe in ("readinessProbe", "livenessProbe"):
        (header,) = gateway[probe]["httpGet"]["httpHeaders"]
        assert header == {"name": "Host", "value": "localhost"}
        assert gateway[probe]["httpGet"]["path"] == "/livez"


def test_a_stopping_worker_gets_more_time_than_its_task(built):
    for queue in Queue:
        grace_s = pod(of_kind(built, "Deployment")[f"worker-{queue}"])["spec"]["terminationGracePeriodSeconds"]
        assert grace_s >= Settings().soft_shutdown_s + 30


def test_machines_are_drained_one_pod_of_a_kind_at_a_time(built):
    budgets = of_kind(built, "PodDisruptionBudget")
    assert set(budgets) == {GATEWAY, SWEEPER, *(f"worker-{queue}" for queue in Queue)}
    for name, budget in budgets.items():
        labels = pod(of_kind(built, "Deployment")[name])["metadata"]["labels"]
        assert budget["spec"]["selector"]["matchLabels"].items() <= labels.items()
        assert budget["spec"]["maxUnavailable"] == 1


def test_each_pool_is_scaled_by_itself(built):
    scalers = of_kind(built, "ScaledObject")
    assert set(scalers) == {f"worker-{queue}" for queue in SCALED}
    (authentication,) = of_kind(built, "TriggerAuthentication").values()
    assert authentication["spec"]["secretTargetRef"] == [
        {"parameter": "connection", "name": "clipwarden", "key": "database-url"}
    ]
    for name, scaler in scalers.items():
        spec = scaler["spec"]
        (trigger,) = spec["triggers"]
        assert spec["scaleTargetRef"] == {"name": name}
        assert "replicas" not in of_kind(built, "Deployment")[name]["spec"]
        assert 1 <= spec["minReplicaCount"] < spec["maxReplicaCount"]
        assert trigger["type"] == "postgresql"
        assert set(trigger["metadata"]) == {"query", "targetQueryValue"}
        assert int(trigger["metadata"]["targetQueryValue"]) > 0
        assert trigger["authenticationRef"] == {"name": authentication["metadata"]["name"]}


def test_the_scalers_count_what_waits_and_what_is_held(built, settings: Settings, store: Store) -> None:
    blobs, ids = LocalBlobs(settings.blobs), [_submit(store) for _ in range(3)]
    ingest(store, ids[1], run=(Branch.VISUAL, Branch.AUDIO))
    ingest(store, ids[2], run=(Branch.VISUAL,))
    assess(store, blobs, ids[2])
    claim(store, ids[1], Stage.AUDIO)  # held, not waiting
    assert store.open_ping(UUID(int=0), "http://127.0.0.1:9/")
    engine = create_engine(settings.database_url)
    with engine.connect() as c:
        counted = {
            name.removeprefix("worker-"): c.scalar(text(scaler["spec"]["triggers"][0]["metadata"]["query"]))
            for name, scaler in of_kind(built, "ScaledObject").items()
        }
    engine.dispose()
    assert counted == {"ingest": 1, "visual": 1, "audio": 1, "lipsync": 0, "clip": 0, "notify": 1}


def _submit(store: Store) -> UUID:
    store.publish("sha256:p", Manifest(detectors=(), faces="f", fusion=f"sha256:{'f' * 64}"))
    return store.submit(NewAnalysis("a.mp4", 9, "ab", "uploads/x", "sha256:p", 60)).id


def test_only_what_must_reaches_the_outside(built):
    def may(policy: str) -> set[str]:
        wanted = of_kind(built, "NetworkPolicy")[policy]["spec"]["podSelector"]["matchLabels"]
        return {
            n for n, d in of_kind(built, "Deployment").items() if wanted.items() <= pod(d)["metadata"]["labels"].items()
        }

    def ports(policy: str) -> set[int]:
        rules = of_kind(built, "NetworkPolicy")[policy]["spec"]["egress"]
        return {each["port"] for rule in rules for each in rule["ports"]}

    everyone = set(of_kind(built, "Deployment"))
    assert may("nothing") == may("names") == may("redis") == everyone
    assert may("database") == may("bucket") == may("traces") == everyone - {FLOWER}
    assert (ports("database"), ports("redis"), ports("traces")) == ({5432}, {6379}, {4318})
    assert may("outside") == {"worker-ingest", "worker-notify"}
    assert may("clients") == {GATEWAY}
    assert of_kind(built, "NetworkPolicy")["nothing"]["spec"] == {
        "podSelector": {"matchLabels": {"app.kubernetes.io/part-of": "clipwarden"}},
        "policyTypes": ["Ingress", "Egress"],
    }


def test_the_gpu_component_gives_the_branches_one_each(built, tmp_path):
    with_gpu = over(tmp_path, GPU)
    for each in with_gpu:
        if not each["apiVersion"].startswith("keda.sh/"):
            kubernetes_validate.validate(each, "1.37", strict=True)
    limits = {
        name: container(deployment)["resources"]["limits"].get("nvidia.com/gpu")
        for name, deployment in of_kind(with_gpu, "Deployment").items()
    }
    assert {name for name, gpus in limits.items() if gpus == 1} == {f"worker-{branch}" for branch in Branch}
    assert "clipwarden-worker-cuda" in container(of_kind(with_gpu, "Deployment")["worker-clip"])["image"]
    assert len(with_gpu) == len(built)


def test_a_second_version_of_the_pools_runs_beside_the_first(built, tmp_path):
    pools = of_kind(over(tmp_path, NEW), "Deployment")
    assert set(pools) == {f"worker-{queue}-new" for queue in Queue}
    first = of_kind(built, "Deployment")
    for name, deployment in pools.items():
        labels = pod(first[name.removesuffix("-new")])["metadata"]["labels"]
        assert not deployment["spec"]["selector"]["matchLabels"].items() <= labels.items()
        assert container(deployment)["image"].endswith(":2")


def test_the_runbook_runs_commands_where_what_they_need_is_installed(built, tmp_path):
    pods = of_kind(built, "Deployment") | of_kind(over(tmp_path, NEW), "Deployment")
    said = re.findall(r"kubectl exec deploy/(\S+) -- clipwarden (\w+)", RUNBOOK)
    assert {command for _, command in said} == {"keys", "db", "pipeline"}
    for name, command in said:
        assert command in COMMANDS
        detectors = COMMANDS[command][0].startswith(("clipwarden.models", "clipwarden.workers"))
        assert not detectors or "/clipwarden-worker:" in container(pods[name])["image"], name
