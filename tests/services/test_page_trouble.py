"""The page when something does not go as it should: what it says, what it keeps, and how one gets on."""

import re
from uuid import UUID

import httpx
from playwright.sync_api import Browser, Route, expect

from tests.desk import at, problem, until, visiting

TROUBLE = ".desk-head + .trouble"
REFUSED = ".trouble + .trouble"
LOCKED = """for (const name of ['sessionStorage', 'localStorage'])
    Object.defineProperty(window, name, { get() { throw new Error('locked'); } });"""


def test_a_mistake_of_the_page_is_told_as_one_and_reported(
    browser: Browser, gateway: httpx.Client, gateway_url: str, shown: UUID
) -> None:
    odd = gateway.get(f"/v1/analyses/{shown}").json() | {"input": None}
    reported: list[str] = []
    with browser.new_context() as context:
        page = context.new_page()
        page.on("pageerror", lambda error: reported.append(str(error)))
        page.route(re.compile(f"/v1/analyses/{shown}$"), lambda route: route.fulfill(json=odd))
        page.goto(gateway_url + at(shown))
        expect(page.locator(TROUBLE)).to_contain_text("This page made a mistake")
        page.unroute_all()
        page.get_by_role("button", name="Try now").click()
        expect(page.locator(".verdict h2")).to_have_text("Judged fake")
    assert reported
    assert all("Cannot read properties of null" in error for error in reported)


def test_scores_that_are_refused_once_are_asked_for_again(browser: Browser, gateway_url: str, shown: UUID) -> None:
    with visiting(browser, gateway_url) as page:
        page.route("**/series.json?*", problem(503, "Busy.", "1"), times=3)
        page.goto(gateway_url + at(shown))
        expect(page.locator(".evidence .curve svg")).to_be_visible()
        until(page, "document.querySelector('.player .legend').textContent.includes('forensic_mlp')")


def test_what_is_installed_is_asked_for_again(browser: Browser, gateway_url: str) -> None:
    with visiting(browser, gateway_url, "/livez") as page:
        page.route("**/v1/detectors", problem(503, "Busy.", "1"), times=1)
        page.goto(f"{gateway_url}/page/")
        expect(page.locator("#limits")).to_have_text("Up to 1.0 MB and 2 h.")


def test_a_gateway_that_takes_a_request_and_never_answers_leaves_no_empty_desk(
    browser: Browser, gateway_url: str, shown: UUID
) -> None:
    with visiting(browser, gateway_url) as page:
        page.clock.install()
        page.route(re.compile(f"/v1/analyses/{shown}$"), lambda _: None)
        with page.expect_request(f"**/v1/analyses/{shown}"):
            page.goto(gateway_url + at(shown))
        page.clock.fast_forward(16_000)
        expect(page.locator(TROUBLE)).to_contain_text("Clipwarden does not answer")
        page.unroute_all(behavior="ignoreErrors")
        page.get_by_role("button", name="Try now").click()
        expect(page.locator(".verdict h2")).to_have_text("Judged fake")


def test_an_action_that_is_refused_says_so_beside_what_follows_the_analysis_and_is_tried_again(
    browser: Browser, gateway_url: str, shown: UUID
) -> None:
    with visiting(browser, gateway_url, at(shown)) as page:
        expect(page.locator(".verdict")).to_be_visible()
        page.route("**/rerun", problem(503, "The queues are full."), times=1)
        page.get_by_role("button", name="Run again").click()
        expect(page.locator(REFUSED)).to_contain_text("The queues are full.")
        expect(page.locator(TROUBLE)).to_be_hidden()
        page.get_by_role("button", name="Try now").click()
        expect(page.locator("#queue a")).to_have_count(2)
        expect(page.locator(".outlook")).to_be_visible()


def test_a_comment_is_kept_until_it_is_saved(
    browser: Browser, gateway: httpx.Client, gateway_url: str, shown: UUID
) -> None:
    with visiting(browser, gateway_url, at(shown)) as page:
        expect(page.locator(".verdict")).to_be_visible()
        page.get_by_role("button", name="Wrong").click()
        dialog = page.get_by_role("dialog", name="What is wrong?")
        dialog.get_by_label("Comment").fill("the original is known")
        page.route("**/feedback", problem(503, "Come back later."), times=1)
        dialog.get_by_role("button", name="Save").click()
        expect(dialog.get_by_role("alert")).to_have_text("Come back later.")
        dialog.get_by_role("button", name="Save").click()
        expect(dialog).to_be_hidden()
        expect(page.locator(".given")).to_contain_text("the original is known")
    assert len(gateway.get(f"/v1/analyses/{shown}/feedback").json()["feedback"]) == 1


def wants_a_key(route: Route) -> None:
    if "authorization" in route.request.headers:
        route.continue_()
    else:
        problem(401, "A key, please.")(route)


def test_a_key_that_no_request_can_carry_is_refused_and_storage_is_not_needed_for_one_that_can(
    browser: Browser, gateway_url: str, shown: UUID
) -> None:
    with visiting(browser, gateway_url, "/livez") as page:
        page.add_init_script(LOCKED)
        page.route(re.compile("/v1/"), wants_a_key)
        page.goto(gateway_url + at(shown))
        dialog = page.get_by_role("dialog", name="API key")
        dialog.get_by_label("Key").fill("schl\N{LATIN SMALL LETTER U WITH DIAERESIS}ssel\N{EURO SIGN}")
        dialog.get_by_role("button", name="Use this key").click()
        expect(dialog).to_contain_text("That is no API key")
        dialog.get_by_label("Key").fill(" cw_desk ")
        dialog.get_by_role("button", name="Use this key").click()
        expect(page.locator(".verdict h2")).to_have_text("Judged fake")
