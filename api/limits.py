"""How much is taken in: requests a minute and unfinished analyses of a key, unfinished analyses in all.

Rates and places are counted in Redis, for all gateways together; analyses in Postgres, so that nothing is counted
that died. While Redis is away nobody is refused for a rate.
"""

import asyncio
import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import anyio
from anyio.to_thread import run_sync
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from clipwarden.api.access import Caller
from clipwarden.shared.codes import ProblemCode
from clipwarden.shared.errors import ProblemError
from clipwarden.shared.ids import new_id
from clipwarden.shared.logs import logger
from clipwarden.shared.settings import Settings
from clipwarden.shared.store import Store

PERIOD_US = 60_000_000
ANSWER_S = 0.5
"""How long a request waits for Redis before it goes through uncounted."""
AWAY_S = 1.0
"""How long Redis is not asked again after it did not answer."""
WARN_EVERY_S = 60.0
COUNT_S = 1.0
"""How old the count of unfinished analyses may be."""
PLACE_S = 600
"""How long an upload keeps its place at most: a gateway that is killed gives none back."""
RETRY_PLACE_S = 2
RETRY_BACKLOG_S = 10

SPEND = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local interval, burst = tonumber(ARGV[1]), tonumber(ARGV[2])
local due = math.max(tonumber(redis.call('GET', KEYS[1]) or 0), now)
local early = due + interval - now - interval * burst
if early > 0 then
    return {0, due - now, early, now}
end
due = due + interval
redis.call('SET', KEYS[1], string.format('%.0f', due), 'PX', math.ceil((due - now) / 1000))
return {1, due - now, 0, now}
"""
"""The generic cell rate algorithm, in microseconds of Redis's own clock. `due` is when the bucket is full again.
Returns whether it was granted, the time until the bucket is full, the time until one more is granted, and now."""

TAKE = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
for i = 1, ARGV[2] do
    redis.call('ZADD', KEYS[1], now + ARGV[3], ARGV[1] .. ':' .. i)
end
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return redis.call('ZCARD', KEYS[1])
"""

GIVE_BACK = """
for i = 1, ARGV[2] do
    redis.call('ZREM', KEYS[1], ARGV[1] .. ':' .. i)
end
return 0
"""

log = logger(__name__)


@dataclass(frozen=True, slots=True)
class Quota:
    """What a key has left: `limit` requests at once, refilled evenly over a minute. Times in microseconds."""

    limit: int
    full_in_us: int
    wait_us: int

    @property
    def headers(self) -> dict[str, str]:
        """As draft-ietf-httpapi-ratelimit-headers-10 has them; `t` is when all of the quota is there again."""
        interval_us = PERIOD_US // self.limit
        left = max(0, self.limit - math.ceil(self.full_in_us / interval_us))
        return {
            "RateLimit-Policy": f'"key";q={self.limit};w={PERIOD_US // 1_000_000}',
            "RateLimit": f'"key";r={left};t={math.ceil(self.full_in_us / 1_000_000)}',
        }

    def check(self) -> None:
        """Raises ProblemError if the request came too early."""
        if self.wait_us > 0:
            raise ProblemError(
                ProblemCode.RATE_LIMITED,
                f"This key may send {self.limit} requests a minute; wait as Retry-After says.",
                retry_after_s=math.ceil(self.wait_us / 1_000_000),
            )


class Limits:
    """The counts of one gateway process. `close` it in the event loop it was used in."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self._store = store
        self._max_unfinished = settings.max_unfinished
        self._redis: Any = Redis.from_url(  # its types do not say that what it answers is awaited
            settings.redis_url,
            socket_timeout=ANSWER_S,
            socket_connect_timeout=ANSWER_S,
            retry=Retry(NoBackoff(), 0),
        )
        self._away_until = self._warned_at = -math.inf
        self._unfinished, self._counted_until = 0, 0.0
        self._counting = asyncio.Lock()
        self._arriving = 0

    async def close(self) -> None:
        await self._redis.aclose()

    async def spend(self, caller: Caller) -> Quota | None:
        """Count a request against its key's rate; None where there is no rate, or no Redis."""
        limit = caller.requests_per_minute
        if limit is None:
            return None
        found = await self._ask(SPEND, f"clipwarden:rate:{caller.key_id}", PERIOD_US // limit, limit)
        return None if found is None else Quota(limit, full_in_us=found[1], wait_us=found[2])

    @asynccontextmanager
    async def room(self, caller: Caller, wanted: int = 1) -> AsyncIterator[None]:
        """Keep room for analyses that are being opened inside. Raises ProblemError if there is none.

        One gateway never exceeds the bound on all; several together may, by what the others take within COUNT_S.
        """
        if not wanted:
            yield
            return
        await self._count_unfinished()
        if self._unfinished + self._arriving + wanted > self._max_unfinished:
            raise ProblemError(ProblemCode.OVERLOADED, retry_after_s=RETRY_BACKLOG_S)
        self._arriving += wanted
        try:
            async with self._places(caller, wanted):
                yield
            self._unfinished += wanted  # as if all were opened, until they are counted
        finally:
            self._arriving -= wanted

    async def _count_unfinished(self) -> None:
        async with self._counting:
            if time.monotonic() >= self._counted_until:
                self._unfinished = await run_sync(self._store.unfinished_count)
                self._counted_until = time.monotonic() + COUNT_S

    @asynccontextmanager
    async def _places(self, caller: Caller, wanted: int) -> AsyncIterator[None]:
        """The key's own bound. A place is taken before analyses are counted: none of a rival's can slip between."""
        if caller.concurrent is None:
            yield
            return
        name, place = f"clipwarden:places:{caller.key_id}", new_id().hex
        taken = await self._ask(TAKE, name, place, wanted, 1000 * PLACE_S)
        try:
            unfinished = await run_sync(self._store.unfinished_count, caller.key_id)
            if unfinished + (wanted if taken is None else int(taken)) > caller.concurrent:
                raise ProblemError(
                    ProblemCode.RATE_LIMITED,
                    f"This key may have {caller.concurrent} unfinished analyses; wait for one to end.",
                    retry_after_s=RETRY_PLACE_S,
                )
            yield
        finally:
            if taken is not None:
                with anyio.CancelScope(shield=True):
                    await self._ask(GIVE_BACK, name, place, wanted)

    async def _ask(self, script: str, key: str, *arguments: str | int) -> Any:
        """What a script returns; None while Redis is away."""
        if time.monotonic() < self._away_until:
            return None
        try:
            return await self._redis.eval(script, 1, key, *arguments)
        except (RedisError, OSError) as error:
            now = time.monotonic()
            self._away_until = now + AWAY_S
            if now - self._warned_at >= WARN_EVERY_S:
                self._warned_at = now
                log.warning("limits are not counted", reason=str(error))
            return None
