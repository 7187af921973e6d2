"""`Prefer: wait=N` (RFC 7240): the answer waits until the analysis has ended, for a short clip, within limits."""

import asyncio
import re
from typing import Final

from anyio.to_thread import run_sync
from fastapi import Request

from clipwarden.api.access import Caller
from clipwarden.api.changes import Changes
from clipwarden.api.gateway import Gateway
from clipwarden.shared.contracts import TERMINAL_STATES, Analysis
from clipwarden.shared.errors import Unavailable
from clipwarden.shared.logs import logger

LONGEST_WAIT_S: Final = 30
WAIT = re.compile(r"(?:^|[,;])\s*wait\s*=\s*\"?(\d{1,9})\"?\s*(?=$|[,;])", re.IGNORECASE)

log = logger(__name__)


def wait_of(request: Request) -> int:
    """The seconds that the caller would wait, at most LONGEST_WAIT_S; 0 if it does not say. What else it prefers is
    ignored, as is what cannot be read.
    """
    found = WAIT.search(",".join(request.headers.getlist("prefer")))
    return min(int(found[1]), LONGEST_WAIT_S) if found else 0


async def ended(request: Request, gateway: Gateway, caller: Caller, analysis: Analysis, wait_s: float) -> Analysis:
    """The analysis once it has ended, or as it was last known when the time is over or it cannot be read."""
    changes: Changes = request.app.state.changes
    deadline = asyncio.get_running_loop().time() + wait_s
    with changes.of(analysis.id) as news:
        news.set()
        while analysis.state not in TERMINAL_STATES:
            try:
                async with asyncio.timeout_at(deadline):
                    await news.wait()
            except TimeoutError:
                break
            news.clear()
            try:
                analysis = await run_sync(gateway.analysis, caller, analysis.id)
            except Unavailable as error:  # taken is taken: an error now would only make the client send it again
                log.warning("not waited for", analysis_id=str(analysis.id), reason=str(error))
                break
    return analysis
