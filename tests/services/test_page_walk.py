"""The queue of the page as it is walked through: over the edges of pages, past what has left it, key by key."""

import re
from collections.abc import Callable
from uuid import UUID

import httpx
from playwright.sync_api import Browser, Page, expect

from clipwarden.shared.blobs import BlobStore
from clipwarden.shared.contracts import Label
from clipwarden.shared.store import Store
from tests.desk import at, decided, shows, visiting

Send = Callable[..., UUID]

READ_AGAIN = "document.dispatchEvent(new Event('visibilitychange'))"


def test_a_key_that_is_held_or_pressed_twice_says_one_word(
    browser: Browser, gateway: httpx.Client, gateway_url: str, shown: UUID
) -> None:
    with visiting(browser, gateway_url, at(shown)) as page:
        expect(page.locator(".verdict")).to_be_visible()
        for _ in range(5):
            page.keyboard.down("c")
        shows(page, "Saved: The verdict is right.")
        page.keyboard.up("c")
        with page.expect_response("**/feedback"):
            page.keyboard.press("c")
        shows(page, "Saved: The verdict is right.")
        expect(page.locator(".given li")).to_have_count(1)
    assert len(gateway.get(f"/v1/analyses/{shown}/feedback").json()["feedback"]) == 1


def small_pages(page: Page, size: int = 2) -> None:
    """Let the page of the queue be read again, with fewer entries than it asks for."""
    asked = re.compile(r"/v1/analyses\?limit=50")
    page.route(asked, lambda route: route.continue_(url=route.request.url.replace("limit=50", f"limit={size}")))
    page.reload()
    expect(page.locator("#queue a")).to_have_count(size)


def test_a_walk_goes_over_the_edges_of_pages_both_ways(browser: Browser, gateway_url: str, send: Send) -> None:
    for n in range(5):
        send(f"{n}.webm", content=bytes([n]))
    with visiting(browser, gateway_url) as page:
        small_pages(page)
        for key, name, number in (
            *(("n", "4.webm", 1), ("n", "3.webm", 1), ("n", "2.webm", 2), ("n", "1.webm", 2), ("n", "0.webm", 3)),
            *(("p", "1.webm", 2), ("p", "2.webm", 2), ("p", "3.webm", 1)),
        ):
            page.keyboard.press(key)
            expect(page.locator("#analysis h1")).to_have_text(name)
            expect(page.locator("#page-number")).to_have_text(f"Page {number}")


def test_older_pressed_twice_at_once_passes_over_no_page(browser: Browser, gateway_url: str, send: Send) -> None:
    for n in range(6):
        send(f"{n}.webm", content=bytes([n]))
    with visiting(browser, gateway_url) as page:
        small_pages(page)
        page.evaluate("() => { const older = document.getElementById('older'); older.click(); older.click(); }")
        expect(page.locator("#queue .name")).to_have_text(["3.webm", "2.webm"])
        expect(page.locator("#page-number")).to_have_text("Page 2")
        page.get_by_role("button", name="Older").click()
        expect(page.locator("#queue .name")).to_have_text(["1.webm", "0.webm"])
        expect(page.locator("#page-number")).to_have_text("Page 3")


def test_the_walk_goes_on_where_an_entry_has_left_the_list(
    browser: Browser, gateway_url: str, store: Store, blobs: BlobStore, send: Send
) -> None:
    for n in range(4):
        decided(store, blobs, send(f"{n}.webm", content=bytes([n])), Label.REAL)
    with visiting(browser, gateway_url) as page:
        page.get_by_label("Show").select_option("unreviewed")
        expect(page.locator("#queue a")).to_have_count(4)
        page.locator("#queue a", has_text="2.webm").click()
        expect(page.locator("#analysis h1")).to_have_text("2.webm")
        expect(page.locator(".verdict")).to_be_visible()
        page.keyboard.press("c")
        shows(page, "Saved")
        page.evaluate(READ_AGAIN)
        expect(page.locator("#queue a")).to_have_count(3)
        page.keyboard.press("n")
        expect(page.locator("#analysis h1")).to_have_text("1.webm")


def test_the_focus_stays_on_what_has_it_when_the_list_is_read_again(
    browser: Browser, gateway: httpx.Client, gateway_url: str
) -> None:
    items = [{"url": f"https://a.example/{n}.mp4"} for n in range(3)]
    batch = gateway.post("/v1/batches", json={"items": items}).raise_for_status().json()
    with visiting(browser, gateway_url) as page:
        for name, number in (("Its batch", 0), ("Leave the batch", 1)):
            button = page.get_by_role("button", name=name).first
            button.focus()
            with page.expect_response("**/v1/analyses?*"):
                page.evaluate(READ_AGAIN)
            expect(button).to_be_focused()
            gateway.post(f"/v1/analyses/{batch['items'][number]['id']}/cancel").raise_for_status()
            page.evaluate(READ_AGAIN)
            expect(page.locator("#queue .entry.cancelled")).to_have_count(number + 1)
            expect(button).to_be_focused()
            button.press("Enter")
