"""The sweeper's count: what Postgres and Redis say of the whole system, in metrics, and the root of each trace."""

from typing import Final

from redis import Redis
from redis.exceptions import RedisError

from clipwarden.shared import metrics
from clipwarden.shared.contracts import Lane, Stage, StageStatus
from clipwarden.shared.logs import logger
from clipwarden.shared.queue import Queue, redis_keys
from clipwarden.shared.settings import Settings
from clipwarden.shared.store import EndedAnalysis, SettledStage, Store, Waiting
from clipwarden.shared.tracing import record_root

NONE: Final = "none"
"""A label's value where there is nothing to say."""
UNSETTLED: Final = (StageStatus.OPEN, StageStatus.LEASED)

log = logger(__name__)


class Counting:
    """One count after the other. Raises Unavailable if Postgres does not answer."""

    def __init__(self, settings: Settings) -> None:
        self._store = Store(settings.database_url, pool_size=1)
        self._redis = Redis.from_url(settings.redis_url, socket_timeout=3, socket_connect_timeout=3)

    def count(self) -> None:
        ended = self._store.ended()
        for analysis in ended.analyses:
            _count_analysis(analysis)
        for stage in ended.stages:
            _count_stage(stage)
        for status in ended.callbacks:
            metrics.CALLBACKS.labels(status).inc()
        _show(self._store.waiting())
        self._show_queues()

    def _show_queues(self) -> None:
        """Of a Redis that does not answer, nothing is shown rather than what was."""
        try:
            lengths = {
                (queue, lane): int(self._redis.llen(key))
                for queue in Queue
                for lane, key in zip(Lane, redis_keys(queue), strict=True)
            }
        except (RedisError, OSError) as error:
            log.warning("Redis does not answer, queues not counted", reason=str(error))
            lengths = {}
        metrics.QUEUE_MESSAGES.clear()
        for (queue, lane), length in lengths.items():
            metrics.QUEUE_MESSAGES.labels(queue, lane).set(length)


def _count_analysis(ended: EndedAnalysis) -> None:
    record_root(
        ended.id,
        ended.created_at,
        ended.finished_at,
        state=ended.state.value,
        code=ended.code or "",
        reused=ended.reused,
    )
    metrics.ANALYSES.labels(ended.state, ended.code or NONE, str(ended.reused).lower()).inc()
    if not ended.reused:
        took_s = (ended.finished_at - ended.created_at).total_seconds()
        metrics.ANALYSIS_SECONDS.labels(ended.state, ended.lane).observe(took_s)
    if ended.label is not None:
        metrics.VERDICTS.labels(ended.label, ended.head or NONE, str(bool(ended.degraded)).lower()).inc()
    if ended.probability is not None:
        metrics.PROBABILITY.labels(ended.head or NONE).observe(ended.probability)


def _count_stage(settled: SettledStage) -> None:
    stage = settled.stage
    metrics.STAGE_OUTCOMES.labels(stage, settled.status, settled.code or NONE).inc()
    metrics.STAGE_RETRIES.labels(stage).inc(max(0, settled.attempts - 1))
    if settled.wait_s is not None and settled.took_s is not None:
        metrics.STAGE_WAIT_SECONDS.labels(stage).observe(settled.wait_s)
        metrics.STAGE_SECONDS.labels(stage).observe(settled.took_s)
    for outcome in settled.detectors:
        name = outcome["name"]
        metrics.DETECTOR_OUTCOMES.labels(name, outcome["status"], outcome.get("code") or NONE).inc()
        metrics.DETECTOR_SECONDS.labels(name).observe(outcome.get("elapsed_ms", 0) / 1000)


def _show(waiting: Waiting) -> None:
    metrics.UNFINISHED.clear()
    for pipeline, n in waiting.unfinished.items():
        metrics.UNFINISHED.labels(pipeline).set(n)
    for stage in Stage:
        for lane in Lane:
            metrics.STAGE_OLDEST_SECONDS.labels(stage, lane).set(waiting.oldest_s.get((stage, lane), 0.0))
        for status in UNSETTLED:
            metrics.STAGE_ROWS.labels(stage, status).set(waiting.rows[stage, status])
    metrics.CALLBACKS_WAITING.set(waiting.callbacks)
    metrics.CALLBACKS_OVERDUE_SECONDS.set(waiting.overdue_s)
