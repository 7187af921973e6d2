"""A clip that lies at an address is fetched, examined, and its sender told, by the system's own processes."""

from pathlib import Path
from typing import Any

import httpx
from standardwebhooks import Webhook

from tests.e2e.conftest import System
from tests.listeners import Listener, answer

TOLD = "SELECT 1 FROM deliveries WHERE analysis_id = :id AND status = 'ok'"


def submitted(system: System, url: str, callback_url: str) -> str:
    view = system.client.submit(url, tag="mine", callback_url=callback_url, reuse=False)
    assert (view.state, view.input.bytes) == ("queued", 0)
    return str(view.id)


def verified(system: System, world: Listener) -> Any:
    """What the last callback said, if it is signed with the secret that the gateway tells."""
    (secret,) = httpx.get(f"{system.stack.api_url}/v1/webhooks/secrets", trust_env=False).json()["secrets"]
    received = world.received[-1]
    return Webhook(secret["secret"]).verify(received.body, dict(received.headers))


def test_a_clip_at_an_address_is_fetched_examined_and_told_of(
    system: System, world: Listener, talking_head: Path
) -> None:
    world.answers = [answer(302, Location="/clips/a.mp4"), answer(body=talking_head.read_bytes()), answer(204)]
    analysis_id = submitted(system, f"{world.url}/short", f"{world.url}/hook")

    analysis = system.wait(analysis_id)
    system.until(TOLD, 60, id=analysis_id)

    assert (analysis["state"], analysis["input"]["filename"]) == ("done", "a.mp4")
    told = verified(system, world)
    assert (told["type"], told["data"]["id"], told["data"]["tag"]) == ("analysis.done", analysis_id, "mine")
    assert told["data"]["probability"] == analysis["verdict"]["probability"]


def test_a_clip_that_cannot_be_had_is_rejected_and_told_of(system: System, world: Listener) -> None:
    world.answers = [answer(404), answer(204)]
    analysis_id = submitted(system, f"{world.url}/gone", f"{world.url}/hook")

    assert system.wait(analysis_id)["error"]["code"] == "fetch_failed"
    system.until(TOLD, 60, id=analysis_id)
    assert verified(system, world)["type"] == "analysis.rejected"
