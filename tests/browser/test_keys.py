"""Tests the keys of the script on the overview, the groups and the audit log."""

import re

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import LONG, Open, Shop


def row(page: Page) -> str | None:
    """Return the key of the row that has the focus."""
    key: str | None = page.evaluate(
        "document.activeElement.closest('[data-row]')?.dataset.key ?? null"
    )
    return key


def test_overview_moves_from_its_troubles_to_its_rows_and_opens_one(
    open_page: Open, shop: Shop
) -> None:
    page = open_page(f"{shop.root}/").page
    page.keyboard.press("j")
    assert page.evaluate("document.activeElement.closest('.trouble') !== null")
    assert LONG in page.evaluate("document.activeElement.textContent")
    for _ in range(10):
        page.keyboard.press("j")
        if row(page) == shop.group:
            break
    assert row(page) == shop.group
    page.keyboard.press("k")
    assert row(page) != shop.group
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    page.wait_for_url(f"{shop.root}/dead?group={shop.group}")


def test_groups_are_moved_through_opened_and_closed(open_page: Open, shop: Shop) -> None:
    page = open_page(f"{shop.root}/dead").page
    page.keyboard.press("j")
    first = row(page)
    page.keyboard.press("j")
    assert row(page) != first
    page.keyboard.press("k")
    assert row(page) == first
    page.keyboard.press("Enter")
    page.wait_for_url(f"{shop.root}/dead?group={first}")
    opened = page.locator(".group.open > a")
    expect(opened).to_have_attribute("aria-expanded", "true")
    while row(page) != first:
        page.keyboard.press("j")
    page.keyboard.press("j")
    # The newest letters of the open group are rows too.
    assert re.fullmatch(r"[0-9a-f-]{36}", row(page) or "")
    page.keyboard.press("k")
    page.keyboard.press("Enter")
    page.wait_for_url(f"{shop.root}/dead")


def test_audit_log_is_moved_through_and_leads_to_what_was_changed(
    open_page: Open, shop: Shop
) -> None:
    page = open_page(f"{shop.root}/audit").page
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    page.wait_for_url(lambda url: not url.endswith("/audit"))
    assert page.locator("h1").count() == 1


@pytest.mark.parametrize("path", ["", "dead", "audit"])
def test_search_help_and_updates_have_their_keys(open_page: Open, shop: Shop, path: str) -> None:
    page = open_page(f"{shop.root}/{path}").page
    page.keyboard.press("r")
    expect(page.locator("#live")).to_have_attribute("aria-pressed", "false")
    page.keyboard.press("?")
    expect(page.locator("#help")).to_be_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("/")
    page.keyboard.type("rjk?")
    assert page.locator("#find").input_value() == "rjk?"
    page.locator("#find").fill(shop.letter)
    page.keyboard.press("Enter")
    page.wait_for_url(f"{shop.root}/jobs/{shop.letter}")
