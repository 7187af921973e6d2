"""How much is taken in: requests a minute and unfinished analyses of a key, a tenant's files sent ahead, all analyses.

Rates and places are counted in Redis, for all gateways together; analyses in Postgres, so that nothing is counted
that died. While Redis is away nobody is refused for a rate.
"""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import UUID

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
"""How old a count of what Postgres keeps may be."""
PLACE_S = 60
"""How long a place outlives its gateway: one that is killed gives none back."""
RENEW_S = 15.0
LOOK_S, MOMENT_S = 0.05, 0.5
"""How often and how long is looked whether a rival's place is given back."""
RETRY_PLACE_S = 2
RETRY_BACKLOG_S = 10
RETRY_AHEAD_S = 60

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
local before = redis.call('ZRANGE', KEYS[1], 0, -1)
for i = 1, ARGV[2] do
    redis.call('ZADD', KEYS[1], now + ARGV[3], ARGV[1] .. ':' .. i)
end
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return before
"""
"""Returns the places that were held before; with none wanted it only tells."""

RENEW = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for i = 1, ARGV[2] do
    redis.call('ZADD', KEYS[1], 'XX', now + ARGV[3], ARGV[1] .. ':' .. i)
end
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 0
"""
"""A place that was given back already stays so."""

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


class Tally:
    """What Postgres keeps of something, counted anew at most once in COUNT_S, and what is arriving meanwhile.

    One gateway never exceeds a bound by it; several together may, by what the others take within COUNT_S.
    """

    def __init__(self, count: Callable[[], int]) -> None:
        self._count = count
        self._known, self._counted_until = 0, 0.0
        self._counting = asyncio.Lock()
        self._arriving = 0

    @asynccontextmanager
    async def room(self, wanted: int, most: int, refusal: ProblemError) -> AsyncIterator[None]:
        """Keep room for what arrives inside. Raises the refusal if there is none."""
        async with self._counting:
            if time.monotonic() >= self._counted_until:
                self._known = await run_sync(self._count)
                self._counted_until = time.monotonic() + COUNT_S
        if self._known + self._arriving + wanted > most:
            raise refusal
        self._arriving += wanted
        try:
            yield
            self._known += wanted  # as if all of it was kept, until it is counted
        finally:
            self._arriving -= wanted


class Limits:
    """The counts of one gateway process. `close` it in the event loop it was used in."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self._store, self._settings = store, settings
        self._redis: Any = Redis.from_url(  # its types do not say that what it answers is awaited
            settings.redis_url,
            socket_timeout=ANSWER_S,
            socket_connect_timeout=ANSWER_S,
            retry=Retry(NoBackoff(), 0),
        )
        self._away_until = self._warned_at = -math.inf
        self._unfinished = Tally(store.unfinished_count)
        self._ahead: dict[UUID, Tally] = {}

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
        """Keep room for analyses that are being opened inside. Raises ProblemError if there is none."""
        if not wanted:
            yield
            return
        overloaded = ProblemError(ProblemCode.OVERLOADED, retry_after_s=RETRY_BACKLOG_S)
        async with (
            self._unfinished.room(wanted, self._settings.max_unfinished, overloaded),
            self._places(caller, wanted),
        ):
            yield

    @asynccontextmanager
    async def room_ahead(self, caller: Caller, wanted_bytes: int) -> AsyncIterator[None]:
        """Keep room for a file that is sent ahead inside. Raises ProblemError if the tenant has none."""
        most = self._settings.max_sent_ahead_bytes
        full = ProblemError(
            ProblemCode.RATE_LIMITED,
            f"Files sent ahead that no analysis names may have {most} bytes in all; name some, or let them expire.",
            retry_after_s=RETRY_AHEAD_S,
        )
        count = partial(self._store.bytes_ahead, caller.tenant_id, self._settings.sent_ahead_s)
        async with self._ahead.setdefault(caller.tenant_id, Tally(count)).room(wanted_bytes, most, full):
            yield

    @asynccontextmanager
    async def _places(self, caller: Caller, wanted: int) -> AsyncIterator[None]:
        """The key's own bound. A place is taken before analyses are counted: none of a rival's can slip between."""
        if caller.concurrent is None:
            yield
            return
        name, place = f"clipwarden:places:{caller.key_id}", new_id().hex
        before = await self._ask(TAKE, name, place, wanted, 1000 * PLACE_S)
        renewing = asyncio.create_task(self._renew(name, place, wanted))
        try:
            if not await self._fits(caller, caller.concurrent - wanted, name, set(before or ())):
                raise ProblemError(
                    ProblemCode.RATE_LIMITED,
                    f"This key may have {caller.concurrent} unfinished analyses; wait for one to end.",
                    retry_after_s=RETRY_PLACE_S,
                )
            yield
        finally:
            renewing.cancel()
            if before is not None:
                with anyio.CancelScope(shield=True):
                    await self._ask(GIVE_BACK, name, place, wanted)

    async def _fits(self, caller: Caller, most: int, name: str, rivals: set[bytes]) -> bool:
        """Whether no more than `most` are unfinished or being opened by rivals that came before.

        A rival's analysis is there for a moment while its place is still held: not to count it twice, the places are
        looked at again where they decide.
        """
        until = time.monotonic() + MOMENT_S
        while (left := most - await run_sync(self._store.unfinished_count, caller.key_id)) < len(rivals):
            if left < 0 or time.monotonic() >= until:
                return False
            await asyncio.sleep(LOOK_S)
            rivals &= set(await self._ask(TAKE, name, "", 0, 1000 * PLACE_S) or ())
        return True

    async def _renew(self, name: str, place: str, wanted: int) -> None:
        while True:
            await asyncio.sleep(RENEW_S)
            await self._ask(RENEW, name, place, wanted, 1000 * PLACE_S)

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
