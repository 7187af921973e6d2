"""`clipwarden worker QUEUE`: one Celery worker on one queue, with the settings that survive faults."""

import argparse
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from clipwarden.shared.exposing import expose, pool_ready, share_counts
from clipwarden.shared.logs import configure_logging
from clipwarden.shared.queue import Queue
from clipwarden.shared.settings import PREFIX, load_settings
from clipwarden.workers.faults import STARTED_WITH

NOTIFIERS = 4
"""Processes of one worker that makes callbacks: they mostly wait, and one slow receiver must not hold up the others."""


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="clipwarden worker", description=__doc__)
    parser.add_argument("queue", choices=[q.value for q in Queue])
    parser.add_argument("--name", help="node name, for a second worker of one queue on one host (default: the queue)")
    arguments = parser.parse_args(argv)
    queue = arguments.queue
    settings = load_settings()
    settings.need("redis_url", "database_url")
    configure_logging(f"worker-{queue}", settings.log_level)
    os.environ[f"{PREFIX}WORKER_QUEUE"] = queue  # the pool's spawned process reads its settings anew
    os.environ["REMAP_SIGTERM"] = "SIGQUIT"  # SIGTERM then gives the running task the soft-shutdown time
    counts = share_counts() if settings.metrics_port else None  # before the metrics are imported
    if queue == Queue.NOTIFY:
        from clipwarden.workers.notifier import app
    else:
        os.environ[STARTED_WITH] = " ".join(_checked(queue, settings.weights))
        from clipwarden.workers.app import app

    from clipwarden.shared.metrics import WORKER

    expose(settings, WORKER, pool_ready)
    try:
        app.worker_main(
            [
                "--quiet",
                "worker",
                f"--queues={queue}",
                f"--hostname={arguments.name or queue}@%h",
                "--pool=prefork",
                f"--concurrency={NOTIFIERS if queue == Queue.NOTIFY else 1}",
                "--without-gossip",
                "--without-mingle",
                f"--loglevel={settings.log_level}",
            ]
        )
    finally:
        if counts:
            shutil.rmtree(counts, ignore_errors=True)
    return 0


def _checked(queue: str, brought: Path | None) -> list[str]:
    """The queue's detectors. Refuses to start with changed weights, before the models' libraries are loaded."""
    from clipwarden.models.fusion.bundle import bundle_path, read_bundle
    from clipwarden.models.weights import bring, state_of, verified, weights_table
    from clipwarden.shared.contracts import DetectorState

    bring(brought)
    if queue == Queue.FUSION:
        read_bundle(bundle_path())
    table = weights_table().items()
    ready = [name for name, entry in table if entry.branch == queue and state_of(entry) is DetectorState.READY]
    for name in ready:
        verified(name)
    return ready
