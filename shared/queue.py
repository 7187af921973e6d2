"""Queue and task names, the Celery configuration, and sending: where the gateway and the workers meet."""

from enum import StrEnum
from functools import cache
from typing import Any
from uuid import UUID

from celery import Celery
from kombu.exceptions import OperationalError

from clipwarden.shared.contracts import Branch, Lane, Stage
from clipwarden.shared.errors import Unavailable
from clipwarden.shared.settings import Settings


class Queue(StrEnum):
    """One queue per pool."""

    INGEST = "ingest"
    VISUAL = "visual"
    AUDIO = "audio"
    LIPSYNC = "lipsync"
    CLIP = "clip"
    FUSION = "fusion"
    NOTIFY = "notify"


class Task(StrEnum):
    FETCH = "clipwarden.fetch"
    INGEST = "clipwarden.ingest"
    ASSESS_VISUAL = "clipwarden.assess.visual"
    ASSESS_AUDIO = "clipwarden.assess.audio"
    ASSESS_LIPSYNC = "clipwarden.assess.lipsync"
    ASSESS_CLIP = "clipwarden.assess.clip"
    FUSE = "clipwarden.fuse"
    SETTLE = "clipwarden.settle"
    NOTIFY = "clipwarden.notify"


ROUTES: dict[Task, Queue] = {
    Task.FETCH: Queue.INGEST,
    Task.INGEST: Queue.INGEST,
    Task.ASSESS_VISUAL: Queue.VISUAL,
    Task.ASSESS_AUDIO: Queue.AUDIO,
    Task.ASSESS_LIPSYNC: Queue.LIPSYNC,
    Task.ASSESS_CLIP: Queue.CLIP,
    Task.FUSE: Queue.FUSION,
    Task.SETTLE: Queue.FUSION,
    Task.NOTIFY: Queue.NOTIFY,
}

EARLY_TASKS = {Stage.FETCH: Task.FETCH, Stage.INGEST: Task.INGEST}

PRIORITIES = {Lane.REALTIME: 0, Lane.BULK: 9}
"""Of messages, by lane. On Redis 0 is taken first; each priority of a queue has a list of its own."""

FUSE_SOFT_LIMIT_S = 30
"""Fusion takes milliseconds; past this it hangs on a silent Postgres."""

SENTINEL_KEY = "clipwarden:sentinel"
"""Set by the sweeper; its absence says that the broker was emptied."""


def assess_task(branch: Branch) -> Task:
    return Task(f"clipwarden.assess.{branch}")


def stage_task(stage: Stage) -> Task:
    """The task that does this stage's work."""
    return EARLY_TASKS.get(stage) or assess_task(Branch(stage))


def redis_keys(queue: Queue) -> tuple[str, ...]:
    """The lists in Redis that hold a queue's messages, the one that is taken from first in front."""
    return tuple(f"{queue}\x06\x16{priority}" if priority else queue.value for priority in PRIORITIES.values())


def celery_config(settings: Settings) -> dict[str, Any]:
    """The configuration every process shares; grounds for each value are measured faults of Celery on Redis."""
    return {
        "broker_url": settings.redis_url,
        "result_backend": settings.redis_url,
        "task_serializer": "json",
        "result_serializer": "json",
        "accept_content": ["json"],
        "task_default_queue": Queue.INGEST.value,
        "task_routes": {task.value: {"queue": queue.value} for task, queue in ROUTES.items()},
        "task_annotations": _time_limits(settings),
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,  # attempts are capped in Postgres, so this cannot loop
        "task_acks_on_failure_or_timeout": True,
        "task_track_started": False,
        "worker_prefetch_multiplier": 1,
        "worker_pool_start_method": "spawn",  # a warmed model hangs in a forked child
        "worker_proc_alive_timeout": settings.worker_start_timeout_s,
        "worker_soft_shutdown_timeout": settings.soft_shutdown_s,
        "worker_enable_remote_control": True,  # without it a worker wedges for good after a Redis restart
        "worker_send_task_events": True,
        "worker_hijack_root_logger": False,
        "worker_redirect_stdouts": False,
        "task_send_sent_event": True,
        "broker_connection_retry_on_startup": True,
        "broker_transport_options": {
            "visibility_timeout": settings.visibility_timeout_s,
            "unacked_restore_interval": 10,
            "unacked_restore_throttle": 1,
            "queue_order_strategy": "priority",
            "priority_steps": list(PRIORITIES.values()),
            "socket_timeout": 10,
            "socket_connect_timeout": 3,
        },
        "redis_socket_timeout": 10,
        "redis_socket_connect_timeout": 3,
        "result_expires": settings.result_expires_s,
        "task_publish_retry_policy": {
            "max_retries": 2,
            "interval_start": 0,
            "interval_step": 0.1,
            "interval_max": 0.3,
        },
    }


def _time_limits(settings: Settings) -> dict[str, dict[str, int]]:
    ingest = {"soft_time_limit": settings.ingest_soft_limit_s, "time_limit": settings.ingest_hard_limit_s}
    assess = {"soft_time_limit": settings.assess_soft_limit_s, "time_limit": settings.assess_hard_limit_s}
    brief = {"soft_time_limit": FUSE_SOFT_LIMIT_S, "time_limit": 2 * FUSE_SOFT_LIMIT_S}
    telling_s = settings.webhook_timeout_s + FUSE_SOFT_LIMIT_S
    return {
        Task.FETCH.value: ingest,
        Task.INGEST.value: ingest,
        **{assess_task(b).value: assess for b in Branch},
        Task.FUSE.value: brief,
        Task.SETTLE.value: brief,
        Task.NOTIFY.value: {"soft_time_limit": round(telling_s), "time_limit": round(2 * telling_s)},
    }


@cache
def _producer(settings: Settings) -> Celery:
    app = Celery("clipwarden", set_as_current=False)
    config = celery_config(settings)
    # A sender must not hang on a silent Redis: the open row is kept and the sweeper sends it.
    impatience = {"socket_timeout": 2, "socket_connect_timeout": 1}
    app.conf.update(
        config
        | {"broker_transport_options": config["broker_transport_options"] | impatience}
        | {"task_send_sent_event": False}  # it doubles what a message costs, and the worker tells that it came
    )
    return app


def send(settings: Settings, task: Task, subject_id: UUID, lane: Lane = Lane.REALTIME) -> None:
    """Send a task that carries an id, of an analysis or a delivery, and nothing else.

    Raises Unavailable if Redis does not take it.
    """
    try:
        _producer(settings).send_task(task.value, args=[str(subject_id)], ignore_result=True, priority=PRIORITIES[lane])
    except (OperationalError, OSError) as error:
        raise Unavailable(f"Redis did not take {task}: {error}") from error
