"""The list of analyses: by every filter, page by page, of one tenant, and by an index among ten thousand."""

from collections.abc import Iterator
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy import Engine, create_engine, event, text

from clipwarden.shared.ids import new_id
from clipwarden.shared.settings import Settings
from clipwarden.shared.store import Store
from tests.services.conftest import PIPELINE

ROWS = 10_000

FILL = """
    INSERT INTO analyses (id, tenant_id, pipeline_id, state, filename, size_bytes, sha256, tag, lane, deadline_at,
                          created_at, finished_at)
    SELECT CAST(lpad(to_hex(CAST(:base AS bigint) + i), 12, '0') || '7' || lpad(to_hex(i % 4096), 3, '0')
                || '8' || lpad(to_hex(i), 15, '0') AS uuid),
           CAST(:tenant AS uuid), :pipeline, CASE WHEN i % 10 = 0 THEN 'failed' ELSE 'done' END, 'a.mp4', 1, 'ab',
           'tag-' || i % 100, CASE WHEN i % 2 = 0 THEN 'bulk' ELSE 'realtime' END, now(),
           to_timestamp((CAST(:base AS bigint) + i) / 1000.0), now()
    FROM generate_series(1, :rows) i
"""
JUDGE = """
    INSERT INTO verdicts (analysis_id, verdict)
    SELECT id, jsonb_build_object('label', CASE WHEN size_bytes % 2 = 0 THEN 'fake' ELSE 'real' END,
                                  'probability', random()) FROM analyses WHERE state = 'done'
    ON CONFLICT DO NOTHING
"""
BASE = 1_780_000_000_000
TENANT = UUID(int=0)


@pytest.fixture
def engine(gateway_settings: Settings) -> Iterator[Engine]:
    made = create_engine(gateway_settings.database_url)
    yield made
    made.dispose()


def fill(engine: Engine, rows: int, tenant: UUID = TENANT, base: int = BASE) -> None:
    with engine.begin() as c:
        c.execute(text(FILL), {"base": base, "rows": rows, "tenant": tenant, "pipeline": PIPELINE})
        c.execute(text(JUDGE))
    with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as c:
        c.execute(text("ANALYZE"))


def listed(gateway: httpx.Client, **filters: Any) -> dict[str, Any]:
    body: dict[str, Any] = gateway.get("/v1/analyses", params=filters).raise_for_status().json()
    return body


def test_pages_hold_everything_once_newest_first(gateway: httpx.Client, engine: Engine) -> None:
    fill(engine, 25)
    seen, cursor = [], None
    for _ in range(9):
        page = listed(gateway, limit=4, **({"cursor": cursor} if cursor else {}))
        seen += [a["id"] for a in page["analyses"]]
        cursor = page["next"]
        if cursor is None:
            break
    assert len(seen) == 25
    assert seen == sorted(set(seen), reverse=True)


def test_a_page_that_ends_with_the_list_has_no_next(gateway: httpx.Client, engine: Engine) -> None:
    fill(engine, 8)
    assert listed(gateway, limit=8)["next"] is None
    assert listed(gateway, limit=7)["next"] is not None


def test_an_analysis_that_comes_meanwhile_moves_no_page(gateway: httpx.Client, engine: Engine) -> None:
    fill(engine, 6)
    first = listed(gateway, limit=3)
    fill(engine, 2, base=BASE + 1000)
    second = listed(gateway, limit=3, cursor=first["next"])
    ids = [a["id"] for a in (*first["analyses"], *second["analyses"])]
    assert len(set(ids)) == 6
    assert second["next"] is None


@pytest.mark.parametrize(
    ("filters", "count"),
    [
        ({"state": "failed"}, 4),
        ({"state": "queued"}, 0),
        ({"label": "real"}, 36),
        ({"label": "fake"}, 0),
        ({"lane": "bulk", "state": "failed"}, 4),
        ({"tag": "tag-7"}, 1),
        ({"tag": "tag"}, 0),
        ({"tag": "'; DROP TABLE analyses; --"}, 0),
        ({"batch": str(new_id())}, 0),
        ({"created_after": "2026-05-28T20:26:40.011Z"}, 30),
        ({"created_after": "2026-05-28T22:26:40.011+02:00", "created_before": "2026-05-28T20:26:40.021Z"}, 10),
        ({"created_before": "0001-01-01T00:00:00+23:59"}, 0),
        ({"created_after": "0001-01-01T00:00:00+23:59", "created_before": "9999-12-31T23:59:59-23:59"}, 40),
        ({"probability_min": 0}, 36),
        ({"probability_min": 0, "probability_max": 1}, 36),
        ({"probability_max": 0}, 0),
    ],
)
def test_every_filter_lists_what_it_says(
    gateway: httpx.Client, engine: Engine, filters: dict[str, Any], count: int
) -> None:
    fill(engine, 40)
    assert len(listed(gateway, **filters)["analyses"]) == count


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=201",
        "limit=x",
        "state=dnoe",
        "lable=fake",
        "tag=%00",
        "tag=" + "a" * 257,
        "cursor=x",
        "cursor=",
        "cursor=%C3%BC",
        "batch=1",
        "created_after=yesterday",
        "created_after=2026-05-28T20:26:40",
        "probability_min=nan",
        "probability_max=2",
    ],
)
def test_a_filter_that_makes_no_sense_is_refused_by_name(gateway: httpx.Client, query: str) -> None:
    reply = gateway.get(f"/v1/analyses?{query}")

    assert (reply.status_code, reply.json()["code"]) == (422, "invalid")
    assert query.partition("=")[0] in reply.json()["detail"]


def test_another_tenants_analyses_are_not_listed(gateway: httpx.Client, engine: Engine) -> None:
    other = new_id()
    with engine.begin() as c:
        c.execute(text("INSERT INTO tenants (id, name) VALUES (:id, 'other')"), {"id": other})
    fill(engine, 3)
    fill(engine, 5, other, BASE + 1000)

    assert len(listed(gateway)["analyses"]) == 3


def test_a_listed_analysis_tells_its_verdict_and_where_the_rest_is(
    gateway: httpx.Client, store: Store, submitted: UUID
) -> None:
    (told,) = listed(gateway)["analyses"]

    whole = gateway.get(told["links"]["self"]).json()
    assert {name: told[name] for name in ("id", "state", "created_at", "tag")} == {
        name: whole[name] for name in ("id", "state", "created_at", "tag")
    }
    assert (told["label"], told["probability"], told["error"]) == (None, None, None)


@pytest.mark.parametrize(
    "filters",
    [{}, {"state": "queued"}, {"label": "fake"}, {"tag": "tag-7"}, {"probability_min": 0.999, "lane": "bulk"}],
)
def test_a_page_of_ten_thousand_is_read_without_reading_the_table(
    gateway: httpx.Client, engine: Engine, filters: dict[str, Any]
) -> None:
    fill(engine, ROWS)
    asked: list[tuple[str, Any]] = []
    listener = lambda _c, _cursor, statement, parameters, *_: asked.append((statement, parameters))  # noqa: E731
    event.listen(Engine, "before_cursor_execute", listener)
    try:
        listed(gateway, **filters)
    finally:
        event.remove(Engine, "before_cursor_execute", listener)
    (statement, parameters) = next(each for each in asked if "LEFT JOIN verdicts" in each[0])
    with engine.connect() as c:
        plan = "\n".join(str(row[0]) for row in c.exec_driver_sql(f"EXPLAIN {statement}", parameters))
    assert "Seq Scan on analyses" not in plan, plan


def test_the_latest_feedback_is_told_and_what_nobody_reviewed_can_be_listed(
    gateway: httpx.Client, engine: Engine, store: Store
) -> None:
    fill(engine, 3)
    first, second, third = (UUID(each["id"]) for each in listed(gateway)["analyses"])
    store.add_feedback(first, "real", "false_positive", None, None)
    store.add_feedback(first, "fake", "confirmation", None, None)
    store.add_feedback(third, "unknown", "other", None, None)

    assert [each["feedback"] for each in listed(gateway)["analyses"]] == ["confirmation", None, "other"]
    assert [each["id"] for each in listed(gateway, reviewed=False)["analyses"]] == [str(second)]
    assert [each["id"] for each in listed(gateway, reviewed=True)["analyses"]] == [str(first), str(third)]
