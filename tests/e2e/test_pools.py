"""All four queues at work: every detector that can judge, with small random weights that an operator brought."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from sqlalchemy import create_engine

from clipwarden.api.client import Client
from clipwarden.models.detector import DETECTORS, detector_class
from clipwarden.models.pipeline import pipeline_id
from clipwarden.models.weights import weights_table
from clipwarden.shared.blobs import LocalBlobs
from clipwarden.shared.contracts import Branch, DetectorState, Manifest
from clipwarden.shared.local.stack import Stack
from clipwarden.shared.settings import Settings
from clipwarden.shared.store import Store
from tests import media, networks
from tests.e2e.conftest import QUICK_RECOVERY, System

LOADABLE_ONLY = "av_sync_seed"
ABSENT = "clip_adapter"
SHIPPED = {name for name, entry in weights_table().items() if entry.file and not entry.standby}
BROUGHT = set(DETECTORS) - SHIPPED - {LOADABLE_ONLY}
JUDGING = SHIPPED | BROUGHT
PUBLISHED = "SELECT manifest FROM pipelines ORDER BY published_at DESC LIMIT 1"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("weights")


@pytest.fixture(scope="module")
def everything(folder: Path) -> Path:
    return networks.write_manifest(folder / "weights.toml", BROUGHT)


@pytest.fixture(scope="module")
def pools(tmp_path_factory: pytest.TempPathFactory, everything: Path) -> Iterator[System]:
    """A system whose operator brought weights for every detector."""
    state = tmp_path_factory.mktemp("pools")
    stack = Stack(state, Settings(state_dir=state, port=0, weights=everything), env=QUICK_RECOVERY)
    stack.start()
    try:
        stack.wait_ready(240)
        client, engine = Client(stack.api_url), create_engine(stack.database_url)
        yield System(stack, client, engine, Redis.from_url(stack.redis_url), LocalBlobs(state / "blobs"))
        client.close()
        engine.dispose()
    finally:
        stack.stop()


@pytest.fixture(scope="module")
def clip(media_dir: Path) -> Path:
    """Five seconds of a moving face with speech: as long as the most demanding detector needs."""
    return media.write_clip(media_dir / "five seconds.mp4", media.faces(125), media.speech(5))


@pytest.fixture(scope="module")
def judged(pools: System, clip: Path) -> dict[str, Any]:
    return pools.analyse(clip)


def without(manifest: Manifest, name: str) -> Manifest:
    """The pipeline that is published where a detector has no weights."""
    gone = {"state": DetectorState.NO_WEIGHTS, "weights": None}
    detectors = (d.model_copy(update=gone) if d.name == name else d for d in manifest.detectors)
    return manifest.model_copy(update={"detectors": tuple(detectors)})


@contextmanager
def published(system: System, manifest: Manifest) -> Iterator[None]:
    """New analyses get this pipeline for a while, then the former one again."""
    store = Store(system.stack.database_url, pool_size=1)
    former = Manifest.model_validate(system.rows(PUBLISHED)[0].manifest)
    store.publish(pipeline_id(manifest), manifest)
    try:
        yield
    finally:
        store.publish(pipeline_id(former), former)
        store.close()


def outcomes(done: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {d["name"]: d for branch in done["branches"].values() for d in branch["detectors"]}


def test_every_branch_of_a_clip_with_speech_and_a_face_is_ok(judged: dict[str, Any]) -> None:
    assert (judged["state"], judged["error"]) == ("done", None)
    assert {b: v["status"] for b, v in judged["branches"].items()} == dict.fromkeys(map(str, Branch), "ok")
    assert (judged["verdict"]["coverage"], judged["verdict"]["degraded"]) == (1.0, False)


def test_every_detector_that_can_judge_gives_evidence(judged: dict[str, Any]) -> None:
    found = outcomes(judged)
    assert {name: (o["status"], o["code"]) for name, o in found.items()} == dict.fromkeys(JUDGING, ("ok", None))
    for name, outcome in found.items():
        assert 0 <= outcome["score"] <= 1, name
        assert tuple(sorted(outcome["features"])) == tuple(sorted(detector_class(name).spec.features))
        assert all(math.isfinite(value) for value in outcome["features"].values()), name
        assert outcome["windows"], name


def test_each_detector_ran_on_its_own_queue_in_float32(pools: System, judged: dict[str, Any]) -> None:
    manifest = pools.rows(PUBLISHED)[0].manifest
    ready = [d for d in manifest["detectors"] if d["state"] == "ready"]
    assert {(d["name"], d["dtype"]) for d in ready} == {(name, "float32") for name in JUDGING}
    for branch, view in judged["branches"].items():
        assert {d["name"] for d in view["detectors"]} == {d["name"] for d in ready if d["branch"] == branch}
    workers = pools.rows("SELECT stage, worker FROM stages WHERE analysis_id = :id", id=judged["id"])
    assert {r.worker.partition("@")[0] for r in workers if r.stage != "fetch"} == {"ingest", *map(str, Branch)}


def test_the_weights_that_judged_are_those_that_were_brought(judged: dict[str, Any], everything: Path) -> None:
    found, digests = outcomes(judged), networks.digests_of(everything)
    assert {name: found[name]["weights"] for name in BROUGHT} == digests


def test_a_branch_whose_only_detector_has_no_weights_is_skipped_and_the_rest_is_judged(
    pools: System, clip: Path
) -> None:
    everything = Manifest.model_validate(pools.rows(PUBLISHED)[0].manifest)
    with published(pools, without(everything, ABSENT)):
        done = pools.analyse(clip)
    assert (done["branches"]["clip"]["status"], done["branches"]["clip"]["code"]) == ("skipped", "no_weights")
    assert outcomes(done).keys() == JUDGING - {ABSENT}
    assert {o["status"] for o in outcomes(done).values()} == {"ok"}
    assert (done["verdict"]["coverage"], done["verdict"]["degraded"]) == (1.0, False)
