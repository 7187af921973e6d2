"""What the gateway asks of Postgres again and again is made ready once."""

import pytest
from sqlalchemy import TextClause

from clipwarden.shared.store import NewAnalysis, Store
from clipwarden.shared.tables import DEFAULT_TENANT
from tests.services.test_store import MANIFEST

NEW = NewAnalysis(
    filename="a.mp4", size_bytes=1, sha256="", upload_key="uploads/a", pipeline="p", resend_after_s=60, deadline_s=60
)


def test_a_statement_is_looked_through_for_its_parameters_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def work() -> None:
        opened = store.submit(NEW)
        assert store.analysis(opened.id, DEFAULT_TENANT) is not None
        claim = store.claim_key(DEFAULT_TENANT, opened.id.hex, 60, 60)
        assert claim is not None
        store.drop_claim(claim)
        store.any_key()
        store.unfinished_count()
        store.queued()

    def looked_through(_: TextClause, statement: str) -> None:
        raise AssertionError(f"looked through again: {statement}")

    store.publish("p", MANIFEST)
    work()
    monkeypatch.setattr(TextClause, "__init__", looked_through)
    work()
