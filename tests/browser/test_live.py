"""Tests the script: live parts, keys, copying, and the state that a swap keeps."""

import re

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Open, Shop


def next_answer(page: Page) -> int:
    """Wait until the page has asked for itself again; return the status of the answer."""
    with page.expect_response(lambda answer: answer.request.resource_type == "fetch") as found:
        pass
    return found.value.status


def test_page_shows_a_new_job_by_itself(open_page: Open, shop: Shop) -> None:
    page = open_page(f"{shop.root}/jobs?task=greet").page
    job = shop.enqueue(shop.greet.options(delay=7000), "new")
    expect(page.locator(f'tr[data-key="{job.id}"]')).to_be_visible(timeout=8_000)


def test_page_that_has_not_changed_gets_a_304_and_keeps_its_time_of_day(
    open_page: Open, shop: Shop
) -> None:
    page = open_page(f"{shop.root}/jobs?state=expired").page
    assert next_answer(page) == 200  # the first answer tells the hash
    before = page.locator("#as-of").text_content()
    assert next_answer(page) == 304
    expect(page.locator("#as-of")).not_to_have_text(before or "")


def test_hidden_tab_asks_nothing_and_asks_at_once_when_it_is_shown(
    open_page: Open, shop: Shop
) -> None:
    watched = open_page(f"{shop.root}/queues")
    page = watched.page
    next_answer(page)
    page.evaluate("""() => {
        Object.defineProperty(document, "hidden", { configurable: true, get: () => window.away ?? false });
        window.away = true;
        document.dispatchEvent(new Event("visibilitychange"));
    }""")
    before = len(watched.requests)
    with pytest.raises(Exception, match="Timeout"), page.expect_request("**", timeout=5_000):
        pass
    assert len(watched.requests) == before
    with page.expect_request("**/queues", timeout=1_500):
        page.evaluate("window.away = false; document.dispatchEvent(new Event('visibilitychange'))")


def test_swap_keeps_focus_details_selection_and_what_was_typed(open_page: Open, shop: Shop) -> None:
    page = open_page(f"{shop.root}/jobs?state=scheduled&task=greet").page
    row = page.locator(f'tr[data-key="{shop.waiting}"]')
    row.locator("input[type=checkbox]").check()
    page.locator("#f").fill("half writ")
    row.locator("a.strong").focus()
    page.evaluate(
        """(id) => {
        const text = document.querySelector(`tr[data-key="${id}"] .sub`).firstChild;
        getSelection().setBaseAndExtent(text, 0, text, 3);
    }""",
        shop.waiting,
    )
    job = shop.enqueue(shop.greet.options(delay=6900), "new")
    expect(page.locator(f'tr[data-key="{job.id}"]')).to_be_visible(timeout=8_000)
    assert page.evaluate("document.activeElement.closest('tr').dataset.key") == shop.waiting
    assert page.evaluate("getSelection().toString()") == "tag"
    assert page.locator("#f").input_value() == "half writ"
    assert row.locator("input[type=checkbox]").is_checked()
    expect(page.locator("[data-count]")).to_have_text("1 selected")


def test_swap_keeps_an_attempt_open_or_closed_as_the_viewer_left_it(
    open_page: Open, shop: Shop
) -> None:
    letter = shop.dead(shop.write_letter, "nobody")
    page = open_page(f"{shop.root}/jobs/{letter}").page
    attempt = page.locator("details.try").first
    assert attempt.get_attribute("open") is not None
    attempt.locator("> summary").click()
    page.evaluate("document.querySelector('#live-head .sub').firstChild.nodeValue = 'old'")
    page.locator("#live").click()
    page.locator("#live").click()
    expect(page.locator("#live-head .sub")).to_contain_text("The task gave it up", timeout=8_000)
    assert attempt.get_attribute("open") is None


def test_page_says_when_the_application_does_not_answer_and_when_it_does_again(
    open_page: Open, shop: Shop
) -> None:
    page = open_page(f"{shop.root}/queues").page
    page.context.set_offline(True)
    expect(page.locator("#stale")).to_contain_text("does not answer", timeout=8_000)
    page.context.set_offline(False)
    expect(page.locator("#stale")).to_be_hidden(timeout=12_000)


def test_updates_stop_with_a_message_once_signed_out(open_page: Open, shop: Shop) -> None:
    page = open_page(f"{shop.locked}/queues").page
    sign_in(page)
    page.context.clear_cookies()
    expect(page.locator("#stale")).to_contain_text("you are signed out", timeout=8_000)
    expect(page.locator("#live")).to_have_text("Stopped")


def sign_in(page: Page) -> None:
    """Fill in the sign-in page."""
    page.locator("#token").fill("correct-horse")
    page.get_by_role("button", name="Sign in").click()
    expect(page.locator("h1")).to_have_text("Queues and workers")


def test_keys_search_move_open_and_stop_the_updates(open_page: Open, shop: Shop) -> None:
    page = open_page(f"{shop.root}/jobs?task=greet").page
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "find"
    page.keyboard.type("jk?r")
    assert page.locator("#find").input_value() == "jk?r"
    page.locator("h1").click()
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("k")
    first = page.locator("tr[data-row]").first.get_attribute("data-key")
    assert page.evaluate("document.activeElement.closest('tr').dataset.key") == first
    page.keyboard.press("r")
    expect(page.locator("#live")).to_have_attribute("aria-pressed", "false")
    page.keyboard.press("?")
    expect(page.locator("#help")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#help")).to_be_hidden()
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(r"/open/jobs/[0-9a-f-]{36}$"))


def test_keyboard_alone_reaches_and_sends_every_form(open_page: Open, shop: Shop) -> None:
    page = open_page(f"{shop.root}/queues").page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    assert page.evaluate("document.activeElement.getBoundingClientRect().top") >= 0
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.getAttribute('aria-label')") == "Pause mail":
            break
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    page.keyboard.press("Enter")
    expect(page.locator(".notice").first).to_contain_text("Paused")
    page.get_by_role("button", name="Resume mail").press("Enter")
    expect(page.locator(".notice").first).to_contain_text("Resumed")
    assert "said" not in page.url


def test_copying_gives_the_id_and_the_traceback_as_it_was(open_page: Open, shop: Shop) -> None:
    page = open_page(f"{shop.root}/jobs/{shop.letter}").page
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.locator(".head .copy").click()
    expect(page.locator(".head .copy")).to_have_class(re.compile("done"))
    assert page.evaluate("navigator.clipboard.readText()") == shop.letter
    page.locator(".trace .btn").click()
    expect(page.locator(".trace .btn")).to_have_class(re.compile("done"))

    async def stored() -> str | None:
        return (await shop.jobs.get(shop.letter)).history[-1].traceback

    assert (
        page.evaluate("navigator.clipboard.readText()").strip() == (shop.call(stored) or "").strip()
    )


def test_zone_of_the_browser_is_one_click_away(open_page: Open, shop: Shop) -> None:
    page = open_page(f"{shop.root}/schedules").page
    before = page.locator("time").first.text_content()
    page.get_by_role("button", name="Berlin").click()
    expect(page.get_by_role("button", name="Berlin")).to_have_attribute("aria-pressed", "true")
    assert page.url == f"{shop.root}/schedules"
    assert page.locator("#as-of time").get_attribute("title", timeout=1_000) is not None
    page.get_by_role("button", name="UTC").click()
    expect(page.get_by_role("button", name="UTC")).to_have_attribute("aria-pressed", "true")
    assert before


def test_selected_jobs_are_cancelled_after_a_question(open_page: Open, shop: Shop) -> None:
    ids = [shop.enqueue(shop.greet.options(delay=5000, tag="chosen"), "x").id for _ in range(2)]
    page = open_page(f"{shop.root}/jobs?tag=chosen").page
    expect(page.locator(".picks")).to_be_hidden()
    page.locator("[data-all]").check()
    expect(page.locator("[data-count]")).to_have_text("2 selected")
    page.get_by_role("button", name="Cancel selected…").click()
    expect(page.locator("h1")).to_have_text("Cancel 2 jobs?")
    page.get_by_role("button", name="Cancel them").click()
    expect(page.locator(".notice").first).to_contain_text("2 jobs cancelled")
    assert page.locator(".pill.cancelled").count() == 2
    assert page.locator(f'tr[data-key="{ids[0]}"]').count() == 1
