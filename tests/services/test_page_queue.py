"""The page as a desk: a long queue, filters, batches, review with the keyboard, every width and theme."""

import re
from collections.abc import Callable
from uuid import UUID

import httpx
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect
from sqlalchemy import create_engine, text

from clipwarden.shared.blobs import BlobStore
from clipwarden.shared.codes import RejectCode
from clipwarden.shared.contracts import Label, Stage
from clipwarden.shared.settings import Settings
from clipwarden.shared.store import Store
from tests.analyses import claim
from tests.desk import at, begun, clip_of, decided, examined, shows, until, visiting
from tests.services.conftest import PIPELINE

Send = Callable[..., UUID]

WIDEST = "Math.max(document.documentElement.scrollWidth, document.getElementById('main').scrollWidth)"


def insert_many(url: str, count: int) -> None:
    statement = text("""
        WITH made AS (
            INSERT INTO analyses (id, pipeline_id, state, filename, size_bytes, sha256, created_at, started_at,
                                  finished_at, deadline_at)
            SELECT gen_random_uuid(), :pipeline, 'done', 'clip ' || n, 1, '', now(), now(), now(), now()
            FROM generate_series(1, :count) n RETURNING id)
        INSERT INTO verdicts (analysis_id, verdict)
        SELECT id, CAST('{"label": "real", "probability": 0.1}' AS jsonb) FROM made
    """)
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(statement, {"pipeline": PIPELINE, "count": count})
    engine.dispose()


def test_a_thousand_analyses_are_walked_through_page_by_page(
    browser: Browser, gateway_url: str, gateway_settings: Settings
) -> None:
    insert_many(gateway_settings.database_url, 1000)
    with visiting(browser, gateway_url) as page:
        expect(page.locator("#queue a")).to_have_count(50)
        seen = set(page.locator("#queue .name").all_text_contents())
        for number in range(2, 21):
            page.get_by_role("button", name="Older").click()
            expect(page.locator("#page-number")).to_have_text(f"Page {number}")
            seen |= set(page.locator("#queue .name").all_text_contents())
        expect(page.get_by_role("button", name="Older")).to_be_disabled()
        assert len(seen) == 1000
        assert page.locator("#queue a").count() == 50, "no more than a page is ever drawn"


def test_the_queue_is_filtered_by_verdict_state_and_tag(
    browser: Browser, gateway_url: str, store: Store, blobs: BlobStore, send: Send
) -> None:
    decided(store, blobs, send("fake.webm"), Label.FAKE)
    decided(store, blobs, send("real.webm", content=b"other", tag="friday"), Label.REAL)
    send("waiting.webm", content=b"third")
    with visiting(browser, gateway_url) as page:
        names = page.locator("#queue .name")
        expect(names).to_have_text(["waiting.webm", "real.webm", "fake.webm"])
        page.get_by_label("Show").select_option("fake")
        expect(names).to_have_text(["fake.webm"])
        page.get_by_label("Show").select_option("queued")
        expect(names).to_have_text(["waiting.webm"])
        page.get_by_label("Show").select_option("")
        page.locator("#filter-tag").fill("friday")
        page.locator("#filter-tag").press("Enter")
        expect(names).to_have_text(["real.webm"])


def test_a_batch_shows_how_it_gets_on(browser: Browser, gateway: httpx.Client, gateway_url: str, store: Store) -> None:
    items = [{"url": "https://a.example/1.mp4"}, {"url": "https://a.example/2.mp4"}, {"url": 7}]
    batch = gateway.post("/v1/batches", json={"items": items, "tag": "week 7"}).raise_for_status().json()
    assert store.cancel(UUID(batch["items"][0]["id"]), store.analysis(UUID(batch["items"][0]["id"])).tenant_id)
    with visiting(browser, gateway_url) as page:
        page.get_by_role("button", name="Its batch").first.click()
        shows(page, "Batch week 7")
        shows(page, "1 of 2 ended")
        shows(page, "1 refused")


def test_a_queue_is_reviewed_with_the_keyboard_alone(
    browser: Browser, gateway: httpx.Client, gateway_url: str, store: Store, blobs: BlobStore, send: Send
) -> None:
    made = {label: send(f"{label}.webm", content=label.encode()) for label in Label}
    for label, analysis_id in made.items():
        decided(store, blobs, analysis_id, label)
    with visiting(browser, gateway_url) as page:
        expect(page.locator("#queue a")).to_have_count(3)
        page.keyboard.press("n")
        expect(page.locator("#analysis h1", has_text="inconclusive.webm")).to_be_visible()
        expect(page.locator(".verdict")).to_be_visible()
        page.keyboard.press("c")
        dialog = page.get_by_role("dialog", name="What is the clip?")
        expect(dialog).to_be_visible()
        page.keyboard.press("Escape")
        page.keyboard.press("n")
        expect(page.locator(".verdict h2")).to_have_text("Judged real")
        page.keyboard.press("c")
        shows(page, "Saved: The verdict is right.")
        page.keyboard.press("n")
        expect(page.locator(".verdict h2")).to_have_text("Judged fake")
        page.keyboard.press("w")
        page.keyboard.press("Tab")
        page.keyboard.type("the original is known")
        page.keyboard.press("Tab")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        shows(page, "Saved: False alarm")
        page.keyboard.press("p")
        expect(page.locator(".verdict h2")).to_have_text("Judged real")
        expect(page.locator("#queue")).to_contain_text("marked wrong")

    said = {k: gateway.get(f"/v1/analyses/{i}/feedback").json()["feedback"] for k, i in made.items()}
    assert said[Label.INCONCLUSIVE] == []
    assert [(f["label"], f["category"]) for f in said[Label.REAL]] == [("real", "confirmation")]
    assert [(f["label"], f["category"], f["comment"]) for f in said[Label.FAKE]] == [
        ("real", "false_positive", "the original is known")
    ]


def test_one_key_commands_can_be_switched_off(browser: Browser, gateway_url: str, shown: UUID) -> None:
    with visiting(browser, gateway_url) as page:
        expect(page.locator("#queue a")).to_have_count(1)
        page.get_by_role("button", name="Settings").click()
        page.get_by_label("One-key commands").uncheck()
        page.get_by_role("button", name="Done").click()
        page.keyboard.press("n")
        page.wait_for_timeout(200)
        assert page.evaluate("location.hash") == ""


def test_an_analysis_is_deleted_after_a_question_and_nothing_of_it_stays(
    browser: Browser, gateway_url: str, gateway: httpx.Client, shown: UUID
) -> None:
    with visiting(browser, gateway_url, at(shown)) as page:
        expect(page.locator(".verdict")).to_be_visible()
        until(page, "document.querySelector('video')?.readyState >= 2")
        page.evaluate("() => { document.querySelector('video').loop = true; }")
        page.keyboard.press("k")
        until(page, "!document.querySelector('video').paused")
        page.get_by_role("button", name="Delete").click()
        page.get_by_role("dialog").get_by_role("button", name="Delete").click()
        shows(page, "The analysis was deleted")
        assert page.evaluate("document.querySelector('video').paused")
        expect(page.locator(".card:visible")).to_have_count(1)
    assert gateway.get(f"/v1/analyses/{shown}").json()["state"] == "deleted"


def test_the_page_fits_and_nothing_serious_is_found_by_axe(browser: Browser, gateway_url: str, shown: UUID) -> None:
    axe = Axe()
    for width, scheme in ((360, "dark"), (360, "light"), (1920, "dark"), (1920, "light")):
        viewport = {"width": width, "height": 900}
        with visiting(browser, gateway_url, viewport=viewport, color_scheme=scheme) as page:
            expect(page.locator("#queue a")).to_have_count(1)
            assert serious(axe, page) == []
            assert page.evaluate(WIDEST) <= width
            page.locator("#queue a").click()
            expect(page.locator(".evidence img")).to_have_count(3)
            page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
            assert serious(axe, page) == []
            assert page.evaluate(WIDEST) <= width
            card = page.evaluate("getComputedStyle(document.querySelector('.card')).backgroundColor")
            assert (card == "rgb(255, 255, 255)") == (scheme == "light")


def test_nothing_serious_is_found_by_axe_while_it_runs_when_it_is_refused_and_in_dialogs(
    browser: Browser, gateway_url: str, store: Store, shown: UUID, send: Send
) -> None:
    running, refused = send("running.webm", content=b"1"), send("refused.webm", content=b"2")
    begun(store, running, clip_of(4.0))
    assert store.end_ingest(refused, claim(store, refused, Stage.INGEST), RejectCode.TRUNCATED, None)
    axe = Axe()
    with visiting(browser, gateway_url, at(running)) as page:
        expect(page.locator(".lane.open")).to_have_count(3)
        assert serious(axe, page) == []
        page.goto(gateway_url + at(refused))
        expect(page.locator(".fault-card")).to_be_visible()
        assert serious(axe, page) == []
        page.goto(gateway_url + at(shown))
        expect(page.locator(".verdict")).to_be_visible()
        for name in ("Settings", "Keys", "Wrong", "Delete"):
            page.get_by_role("button", name=name).click()
            expect(page.get_by_role("dialog")).to_be_visible()
            assert serious(axe, page) == []
            page.keyboard.press("Escape")


def serious(axe: Axe, page: Page) -> list[tuple[str, list[str]]]:
    """What keeps somebody out, by axe's own judgement: the rule and the elements."""
    found = axe.run(page, options={"resultTypes": ["violations"]}).response["violations"]
    return [(v["id"], [n["html"] for n in v["nodes"]]) for v in found if v["impact"] in {"serious", "critical"}]


def test_the_theme_can_be_chosen_against_the_system(browser: Browser, gateway_url: str) -> None:
    ground = "getComputedStyle(document.querySelector('.top')).backgroundColor"
    with visiting(browser, gateway_url, color_scheme="light") as page:
        before = page.evaluate(ground)
        page.get_by_role("button", name="Settings").click()
        page.locator("#theme").select_option("dark")
        assert page.evaluate(ground) != before
        page.reload()
        until(page, f"{ground} !== '{before}'")


def test_a_two_hour_timeline_stays_smooth(
    browser: Browser, gateway_url: str, store: Store, blobs: BlobStore, send: Send
) -> None:
    analysis_id = send("long.mkv", bytes(1000))
    examined(store, blobs, analysis_id, clip_of(7200.0, frames=180_000), windows=1000)
    drawn = """() => { const slider = document.querySelector('.timeline');
        const box = slider.getBoundingClientRect();
        const brush = CanvasRenderingContext2D.prototype;
        let calls = 0;
        for (const name of ['clearRect', 'drawImage', 'fillRect', 'fillText', 'lineTo', 'rect', 'strokeRect']) {
            const real = brush[name];
            brush[name] = function (...given) { calls += 1; return real.apply(this, given); };
        }
        for (let i = 0; i < 60; i++)
            slider.dispatchEvent(new PointerEvent('pointermove',
                { buttons: 1, clientX: box.left + box.width * i / 60, bubbles: true }));
        return calls / 60; }"""
    with visiting(browser, gateway_url, at(analysis_id)) as page:
        slider = page.get_by_role("slider")
        expect(slider).to_have_attribute("aria-valuemax", "7200")
        expect(page.locator(".evidence img")).to_have_count(3)
        assert 3 <= page.evaluate(drawn) <= 10, "the scores are drawn once, not at each move"
        page.get_by_role("button", name="Zoom in").click()
        slider.press("Home")
        slider.press("ArrowRight")
        expect(slider).to_have_attribute("aria-valuenow", "1.0")
        page.keyboard.press("]")
        expect(slider).to_have_attribute("aria-valuenow", "1440.0")
        slider.press("End")
        expect(slider).to_have_attribute("aria-valuetext", re.compile("^2:00:00"))
