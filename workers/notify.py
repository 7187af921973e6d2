"""Making callbacks: one attempt at a delivery, signed as Standard Webhooks 1.0 says, and what comes of its answer.

https://www.standardwebhooks.com: the signature covers id, time and body, so that nothing can be replayed or changed;
with two secrets in force there are two signatures.
"""

import base64
import hashlib
import hmac
import json
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from uuid import UUID

from billiard.exceptions import SoftTimeLimitExceeded

from clipwarden.shared.addresses import AddressRefused
from clipwarden.shared.contracts import Analysis, AnalysisState, StageStatus
from clipwarden.shared.logs import logger
from clipwarden.shared.metrics import CALLBACK_SECONDS
from clipwarden.shared.outbound import NoAnswer, Outbound
from clipwarden.shared.settings import Settings
from clipwarden.shared.store import Attempt, Delivery, Secret, Store
from clipwarden.shared.tracing import span

PAUSES_S = (5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400)
"""Before each further attempt: 5 s, 5 min, 30 min, 2 h, 5 h, 10 h, 14 h, 20 h, 24 h."""
JITTER = 0.2
"""Pauses are longer by up to this share, so that those who failed together do not come back together."""
NOTING_S = 2.0
"""What an attempt may take beyond the receiver's time, to be made and noted."""
GONE = 410
BUSY = frozenset({429, 503})
"""The receiver may say when it wants to be asked again."""

log = logger(__name__)


def sign(secrets: Sequence[Secret], message_id: str, timestamp: int, body: bytes) -> str:
    """The `webhook-signature` header."""
    content = f"{message_id}.{timestamp}.".encode() + body
    digests = [hmac.digest(base64.b64decode(s.secret.removeprefix("whsec_")), content, hashlib.sha256) for s in secrets]
    return " ".join(f"v1,{base64.b64encode(digest).decode('ascii')}" for digest in digests)


def payload(delivery: Delivery, analysis: Analysis | None) -> bytes:
    """What is told, the same each time: which analysis ended and how. The rest is read at its address."""
    happened_at = delivery.created_at.astimezone(UTC).isoformat()
    told: dict[str, Any] = {"type": delivery.event, "timestamp": happened_at, "data": {}}
    if analysis is not None:
        verdict = analysis.verdict
        told["data"] = {
            "id": str(analysis.id),
            "state": analysis.state.value,
            "label": verdict and verdict.label.value,
            "probability": verdict and verdict.probability,
            "tag": analysis.tag,
            "links": {"self": f"/v1/analyses/{analysis.id}"},
        }
    return json.dumps(told, ensure_ascii=False, separators=(",", ":")).encode()


def retry_after_s(header: str | None, now: datetime) -> float:
    """Seconds that a Retry-After header asks for, at most a day; 0 for none or nonsense."""
    try:
        if header is None or header.strip().isdigit():
            asked = float(header or 0)
        else:
            asked = (parsedate_to_datetime(header) - now).total_seconds()
    except (ValueError, TypeError, OverflowError):
        return 0.0
    return min(max(0.0, asked), PAUSES_S[-1])


@dataclass(frozen=True, slots=True)
class Notifier:
    """What a process that makes callbacks holds."""

    settings: Settings
    store: Store
    outbound: Outbound

    def deliver(self, delivery_id: UUID) -> None:
        """Make one attempt, if the delivery is due and nobody else makes it. Raises Unavailable."""
        lease_s = max(self.settings.lease_s, self.settings.webhook_timeout_s + NOTING_S)
        claimed = self.store.claim_delivery(delivery_id, lease_s)
        if claimed is None:
            return
        delivery, token, now = claimed
        analysis = None
        if delivery.analysis_id is not None:
            analysis = self.store.analysis(delivery.analysis_id, delivery.tenant_id)
            if analysis is None or analysis.state is AnalysisState.DELETED:
                self._settle(delivery, token, StageStatus.SKIPPED, _unsent("the analysis was deleted"))
                return
        if delivery.attempts > len(PAUSES_S) + 1:  # the last one lost its worker
            self._settle(delivery, token, StageStatus.FAILED, _unsent("the last attempt was lost"))
            return
        with span("callback", delivery.analysis_id, attempt=delivery.attempts):
            self._attempt(delivery, token, payload(delivery, analysis), now)

    def _attempt(self, delivery: Delivery, token: UUID, body: bytes, now: datetime) -> None:
        started, status, asked_s = time.monotonic(), None, 0.0
        error, final = None, False
        try:
            headers = self._headers(delivery, body, int(now.timestamp()))
            reply = self.outbound.post(delivery.url, body, headers, self.settings.webhook_timeout_s)
            status = reply.status
            if status in BUSY:
                asked_s = retry_after_s(reply.headers.get("retry-after"), now)
        except AddressRefused as refused:
            error, final = str(refused), True
        except (NoAnswer, SoftTimeLimitExceeded) as failure:
            error = str(failure) or "the time is over"
        attempt = Attempt(_now(), round(1000 * (time.monotonic() - started)), status, error)
        if status == GONE:
            self.store.silence(delivery.tenant_id, delivery.url)
        if status is not None and 200 <= status < 300:
            self._settle(delivery, token, StageStatus.OK, attempt)
        elif final or status == GONE or delivery.attempts > len(PAUSES_S):
            self._settle(delivery, token, StageStatus.FAILED, attempt)
        else:
            pause_s = max(asked_s, PAUSES_S[delivery.attempts - 1] * random.uniform(1, 1 + JITTER))
            self._settle(delivery, token, StageStatus.OPEN, attempt, pause_s)

    def _headers(self, delivery: Delivery, body: bytes, now: int) -> dict[str, str]:
        """Signed at a time of the database's, for receivers refuse what comes from a wrong clock."""
        message_id = str(delivery.id)
        return {
            "Content-Type": "application/json",
            "Webhook-Id": message_id,
            "Webhook-Timestamp": str(now),
            "Webhook-Signature": sign(self.store.signing_secrets(delivery.tenant_id), message_id, now, body),
        }

    def _settle(
        self, delivery: Delivery, token: UUID, status: StageStatus, attempt: Attempt, again_after_s: float = 0
    ) -> None:
        ours = self.store.settle_delivery(delivery.id, token, status, attempt, again_after_s)
        CALLBACK_SECONDS.labels(status).observe(attempt.elapsed_ms / 1000)
        log.info(
            "callback" if ours else "lease lost, attempt not noted",
            status=status,
            answer=attempt.status,
            reason=attempt.error,
            attempt=delivery.attempts,
            elapsed_ms=attempt.elapsed_ms,
        )


def _unsent(reason: str) -> Attempt:
    return Attempt(_now(), 0, None, reason)


def _now() -> str:
    return datetime.now(UTC).isoformat()
