"""Tests the shop's page of reports: a button, a progress bar, the result."""

import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Open
from tests.browser.served import serving
from tests.support.pace import pace

ORDERS = 400
PAUSE_S = 0.7
PATIENCE_MS = 20_000 * pace()


@pytest.fixture
def shop_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SHOP_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("SHOP_REPORT_PAUSE", str(PAUSE_S))
    return tmp_path / "shop.db"


def add_orders(file: Path, number: int) -> None:
    """Store orders, alternately of two items."""
    row = "(1, 'ada@example.org', ?, 2, 'placed', '2026-11-22 08:00:00')"
    with closing(sqlite3.connect(file)) as db, db:
        db.executemany(
            f"INSERT INTO orders (user_id, email, item, quantity, status, created_at) VALUES {row}",  # noqa: S608
            [(("tea", "jam")[n % 2],) for n in range(number)],
        )


def rows_of(page: Page) -> list[str]:
    return [
        re.sub(r"\s+", " ", row).strip() for row in page.locator("#report tr").all_inner_texts()
    ]


def test_report_that_takes_its_time_shows_a_bar_and_then_the_result(
    open_page: Open, shop_file: Path
) -> None:
    with serving(shop_file, app="app.main:create_app", path="reports") as (_, address):
        opened = open_page(address)
        page = opened.page
        add_orders(shop_file, ORDERS)
        button = page.get_by_role("button", name="Make the report")
        button.click()
        expect(page.locator("#bar")).to_be_visible(timeout=PATIENCE_MS)
        expect(button).to_be_disabled()
        message = page.get_by_role("status")
        expect(message).to_have_text(
            re.compile(rf"^adding up orders: [1-4]00 of {ORDERS}$"), timeout=PATIENCE_MS
        )
        meter = page.get_by_role("progressbar", name="Progress")
        assert meter.get_attribute("max") == str(ORDERS)
        assert 0 < int(meter.get_attribute("value") or 0) <= ORDERS
        expect(page.locator("#report")).to_be_visible(timeout=PATIENCE_MS)
        assert rows_of(page) == [f"orders {ORDERS}", f"jam {ORDERS}", f"tea {ORDERS}"]
        expect(page.locator("#bar")).to_be_hidden()
        expect(button).to_be_enabled()
        assert opened.messages == []
        (stream,) = [url for url in opened.requests if url.endswith("/events")]
        assert "/status/" in stream


def test_report_that_is_ready_at_once_comes_without_a_stream(
    open_page: Open, shop_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOP_REPORT_PAUSE", "0")
    with serving(shop_file, app="app.main:create_app", path="reports") as (_, address):
        opened = open_page(address)
        opened.page.get_by_role("button", name="Make the report").click()
        expect(opened.page.locator("#report")).to_be_visible(timeout=PATIENCE_MS)
        assert rows_of(opened.page) == ["orders 0"]
        assert not [url for url in opened.requests if url.endswith("/events")]


def test_report_that_cannot_be_made_says_so(open_page: Open, shop_file: Path) -> None:
    with serving(shop_file, app="app.main:create_app", path="reports") as (_, address):
        opened = open_page(address)
        opened.page.route("**/reports", lambda route: route.fulfill(status=500))
        opened.page.get_by_role("button", name="Make the report").click()
        expect(opened.page.get_by_role("alert")).to_be_visible(timeout=PATIENCE_MS)
        expect(opened.page.get_by_role("button")).to_be_enabled()
