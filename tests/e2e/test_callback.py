"""A clip that lies at an address is fetched, examined, and its sender told, by the system's own processes."""

from pathlib import Path
from uuid import UUID

from standardwebhooks import Webhook

from clipwarden.shared.contracts import AnalysisState
from clipwarden.shared.store import NewAnalysis, Store
from clipwarden.shared.tables import DEFAULT_TENANT
from tests.e2e.conftest import System
from tests.listeners import Listener, answer

TOLD = "SELECT 1 FROM deliveries WHERE analysis_id = :id AND status = 'ok'"


def submit(store: Store, url: str, callback_url: str) -> UUID:
    pipeline = store.current_pipeline()
    assert pipeline is not None
    new = NewAnalysis("clip", 0, "", None, pipeline, 120, tag="mine", source_url=url, callback_url=callback_url)
    return store.submit(new)


def test_a_clip_at_an_address_is_fetched_examined_and_told_of(
    system: System, world: Listener, talking_head: Path
) -> None:
    world.answers = [answer(302, Location="/clips/a.mp4"), answer(body=talking_head.read_bytes()), answer(204)]
    store = Store(system.stack.database_url)
    try:
        analysis_id = submit(store, f"{world.url}/short", f"{world.url}/hook")
        system.until(TOLD, 120, id=analysis_id)
        analysis = store.analysis(analysis_id)
        (secret,) = store.signing_secrets(DEFAULT_TENANT)
    finally:
        store.close()

    assert analysis is not None
    assert analysis.verdict is not None
    assert (analysis.state, analysis.filename) == (AnalysisState.DONE, "a.mp4")
    received = world.received[-1]
    told = Webhook(secret.secret).verify(received.body, dict(received.headers))
    assert (told["type"], told["data"]["id"], told["data"]["tag"]) == ("analysis.done", str(analysis_id), "mine")
    assert told["data"]["probability"] == analysis.verdict.probability


def test_a_clip_that_cannot_be_had_is_rejected_and_told_of(system: System, world: Listener) -> None:
    world.answers = [answer(404), answer(204)]
    store = Store(system.stack.database_url)
    try:
        analysis_id = submit(store, f"{world.url}/gone", f"{world.url}/hook")
        system.until(TOLD, 60, id=analysis_id)
    finally:
        store.close()
    assert system.wait(str(analysis_id))["error"]["code"] == "fetch_failed"
    assert b'"analysis.rejected"' in world.received[-1].body
