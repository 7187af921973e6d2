"""`Idempotency-Key`: a request that may be sent again without opening anything twice.

The same key with the same request is answered with what the first one opened, as it reads now. Keys are a tenant's own.
"""

import asyncio
import hashlib
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import anyio
from anyio.to_thread import run_sync
from fastapi import Request

from clipwarden.api.access import Caller
from clipwarden.api.gateway import Gateway
from clipwarden.shared.codes import ProblemCode
from clipwarden.shared.errors import ProblemError, Unavailable
from clipwarden.shared.store import KeyClaim

HEADER: Final = "Idempotency-Key"
RENEW_S: Final = 15.0
ABANDONED_S: Final = 60.0
"""How long after its gateway died a request blocks its key."""
RETRY_S: Final = 1
KEY = re.compile(r'"([ !#-\[\]-~]{1,255})"|([!#-\[\]-~]{1,255})')
"""A string as RFC 9651 writes it, but for escapes, or bare as many send it."""


@dataclass(frozen=True, slots=True)
class Once:
    """A request's hold on its key; without a key nothing is held, and nothing is known."""

    claim: KeyClaim | None = None

    @property
    def repeated(self) -> bool:
        """Whether an earlier request with the key has opened something."""
        return self.claim is not None and self.claim.resource_id is not None

    def opened(self, fingerprint: str) -> UUID | None:
        """What the earlier request opened, None if this is the first. Raises ProblemError if that was another one."""
        if self.claim is None or self.claim.resource_id is None:
            return None
        if self.claim.fingerprint != fingerprint:
            raise ProblemError(ProblemCode.IDEMPOTENCY_MISMATCH)
        return self.claim.resource_id


def fingerprint(*parts: Any) -> str:
    """A digest of what a request asks for."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@asynccontextmanager
async def once(request: Request, gateway: Gateway, caller: Caller) -> AsyncIterator[Once]:
    """Hold the request's key while the context lasts. Raises ProblemError for a bad key, and while another holds it."""
    key = _key(request)
    if key is None:
        yield Once()
        return
    store, kept_s = gateway.store, gateway.settings.idempotency_s
    claim = await run_sync(store.claim_key, caller.tenant_id, key, kept_s, ABANDONED_S)
    if claim is None:
        raise ProblemError(ProblemCode.IDEMPOTENCY_IN_PROGRESS, retry_after_s=RETRY_S)
    if claim.resource_id is not None:
        yield Once(claim)
        return
    renewing = asyncio.create_task(_renew(gateway, claim))
    try:
        yield Once(claim)
    except BaseException:
        with anyio.CancelScope(shield=True), suppress(Unavailable):
            await run_sync(store.drop_claim, claim)
        raise
    finally:
        renewing.cancel()


async def _renew(gateway: Gateway, claim: KeyClaim) -> None:
    while True:
        await asyncio.sleep(RENEW_S)
        with suppress(Unavailable):
            await run_sync(gateway.store.renew_claim, claim)


def _key(request: Request) -> str | None:
    sent = request.headers.getlist(HEADER)
    if not sent:
        return None
    found = KEY.fullmatch(sent[0].strip())
    if len(sent) > 1 or found is None:
        raise ProblemError(ProblemCode.BAD_REQUEST, f"{HEADER} must be one string of 1 to 255 ASCII characters.")
    return found[1] or found[2]
