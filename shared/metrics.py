"""Every metric, once. Each kind of process tells its own: gateways, workers, and the sweeper.

What became of analyses is counted by the sweeper from Postgres, each row once however many sweepers there are, so that
no killed worker takes counts with it. Gauges are the sweeper's and the gateway's: in a worker, whose pool processes
come and go, a gauge would outlive what it told of, but for what a worker lacks: each pool process looks at that anew.
"""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

GATEWAY: Final = CollectorRegistry()
WORKER: Final = CollectorRegistry()
SWEEPER: Final = CollectorRegistry()

BRIEF_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
LONG_S: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 640.0, 1800.0, 7200.0)
TENTHS: Final = tuple(n / 10 for n in range(1, 11))
PICTURES: Final = tuple(float(2**n) for n in range(11))

REQUESTS = Counter(
    "clipwarden_http_requests", "Requests that the gateway answered", ("method", "route", "status"), registry=GATEWAY
)
REQUEST_SECONDS = Histogram(
    "clipwarden_http_request_seconds",
    "Time to answer a request, uploads and streams included",
    ("route",),
    buckets=BRIEF_S,
    registry=GATEWAY,
)
PROBLEMS = Counter(
    "clipwarden_http_problems", "Requests that were refused or failed, by the code told", ("code",), registry=GATEWAY
)
UPLOADS = Counter("clipwarden_uploads", "Files that arrived whole at the gateway", registry=GATEWAY)
UPLOAD_BYTES = Counter("clipwarden_upload_bytes", "Bytes of those files", registry=GATEWAY)
EVENT_STREAMS = Gauge("clipwarden_event_streams", "Event streams that are open", registry=GATEWAY)

TASK_SECONDS = Histogram(
    "clipwarden_task_seconds",
    "Time a worker held a stage, by how it let go of it",
    ("stage", "end"),
    buckets=LONG_S,
    registry=WORKER,
)
BATCH_SIZE = Histogram(
    "clipwarden_batch_size",
    "Pictures or stretches of sound that a branch examined in one go",
    ("branch", "of"),
    buckets=PICTURES,
    registry=WORKER,
)
CALLBACK_SECONDS = Histogram(
    "clipwarden_callback_seconds",
    "Time of one attempt at a callback, by what came of it",
    ("end",),
    buckets=BRIEF_S,
    registry=WORKER,
)
WORKER_LACKS = Gauge(
    "clipwarden_worker_lacks",
    "How much of what the published pipeline names for its queue a worker lacks; of such a pipeline it takes nothing",
    ("queue",),
    multiprocess_mode="mostrecent",
    registry=WORKER,
)

QUEUE_MESSAGES = Gauge(
    "clipwarden_queue_messages", "Messages in Redis that no worker took yet", ("queue", "lane"), registry=SWEEPER
)
STAGE_ROWS = Gauge(
    "clipwarden_stage_rows",
    "Stages that wait (open) or that a worker holds (leased)",
    ("stage", "status"),
    registry=SWEEPER,
)
STAGE_OLDEST_SECONDS = Gauge(
    "clipwarden_stage_oldest_seconds", "Age of the stage that waits longest", ("stage", "lane"), registry=SWEEPER
)
UNFINISHED = Gauge(
    "clipwarden_unfinished_analyses", "Analyses that have not ended, by pipeline", ("pipeline",), registry=SWEEPER
)
CALLBACKS_WAITING = Gauge("clipwarden_callbacks_waiting", "Callbacks that are not made yet", registry=SWEEPER)
CALLBACKS_OVERDUE_SECONDS = Gauge(
    "clipwarden_callbacks_overdue_seconds", "How late the callback is that is latest", registry=SWEEPER
)

ANALYSES = Counter("clipwarden_analyses_ended", "Analyses that ended", ("state", "code", "reused"), registry=SWEEPER)
ANALYSIS_SECONDS = Histogram(
    "clipwarden_analysis_seconds",
    "Time from submission to the end, of analyses that ran",
    ("state", "lane"),
    buckets=LONG_S,
    registry=SWEEPER,
)
VERDICTS = Counter("clipwarden_verdicts", "Verdicts given", ("label", "head", "degraded"), registry=SWEEPER)
PROBABILITY = Histogram(
    "clipwarden_verdict_probability", "Probability of fake in verdicts", ("head",), buckets=TENTHS, registry=SWEEPER
)
STAGE_OUTCOMES = Counter(
    "clipwarden_stage_outcomes", "Stages that were settled", ("stage", "status", "code"), registry=SWEEPER
)
STAGE_SECONDS = Histogram(
    "clipwarden_stage_seconds",
    "Time of the attempt that settled a stage",
    ("stage",),
    buckets=LONG_S,
    registry=SWEEPER,
)
STAGE_WAIT_SECONDS = Histogram(
    "clipwarden_stage_wait_seconds",
    "Time from a stage's opening to that attempt",
    ("stage",),
    buckets=LONG_S,
    registry=SWEEPER,
)
STAGE_RETRIES = Counter("clipwarden_stage_retries", "Attempts at stages beyond the first", ("stage",), registry=SWEEPER)
DETECTOR_OUTCOMES = Counter(
    "clipwarden_detector_outcomes", "What became of detectors", ("detector", "status", "code"), registry=SWEEPER
)
DETECTOR_SECONDS = Histogram(
    "clipwarden_detector_seconds", "Time a detector took", ("detector",), buckets=LONG_S, registry=SWEEPER
)
CALLBACKS = Counter("clipwarden_callbacks_ended", "Callbacks that were made or given up", ("status",), registry=SWEEPER)

SWEEPER_ACTIONS = Counter("clipwarden_sweeper_actions", "What the sweeper did", ("action",), registry=SWEEPER)
SWEEP_SECONDS = Histogram("clipwarden_sweep_seconds", "Time of one sweep", buckets=BRIEF_S, registry=SWEEPER)
LAST_SWEEP = Gauge(
    "clipwarden_sweeper_last_success_timestamp_seconds", "When the last sweep went through", registry=SWEEPER
)
