"""Tests every page in both sizes and themes: contrast, targets, width, console messages."""

from pathlib import Path

import pytest

from tests.browser.conftest import SIZES, Open, Shop, Theme

AUDIT = (Path(__file__).parent / "audit.js").read_text(encoding="utf-8")


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", sorted(SIZES))
def test_every_page_can_be_read_and_hit_and_does_not_scroll_sideways(
    open_page: Open, shop: Shop, size: str, theme: Theme
) -> None:
    watched = open_page(f"{shop.root}/", size=size, theme=theme)
    faults = {}
    for name, path in shop.pages().items():
        watched.page.goto(f"{shop.root}{path}")
        found = watched.page.evaluate(AUDIT)
        if found:
            faults[name] = found
    assert faults == {}


def test_no_page_makes_the_browser_complain_or_asks_another_origin(
    open_page: Open, shop: Shop
) -> None:
    watched = open_page(f"{shop.root}/")
    for path in shop.pages().values():
        watched.page.goto(f"{shop.root}{path}")
        assert watched.page.locator("main h1").count() == 1
    watched.page.goto(f"{shop.locked}/login")
    assert watched.messages == []
    own = f"http://127.0.0.1:{shop.port}/"
    assert [url for url in watched.requests if not url.startswith((own, "data:"))] == []


def test_policy_keeps_what_is_injected_from_running(open_page: Open, shop: Shop) -> None:
    watched = open_page(f"{shop.root}/jobs/{shop.letter}")
    watched.page.evaluate("""() => {
        const script = document.createElement("script");
        script.textContent = "window.injected = 1";
        document.body.append(script);
        document.body.insertAdjacentHTML("beforeend", "<p id=x style='color: red'>x</p>");
    }""")
    assert watched.page.evaluate("window.injected") is None
    colour = watched.page.evaluate("getComputedStyle(document.querySelector('#x')).color")
    assert colour != "rgb(255, 0, 0)"
    assert len(watched.messages) == 2


@pytest.mark.parametrize("size", sorted(SIZES))
def test_sign_in_and_error_pages_can_be_read_too(open_page: Open, shop: Shop, size: str) -> None:
    watched = open_page(f"{shop.locked}/queues", size=size)
    assert watched.page.evaluate(AUDIT) == []
    watched.page.goto(f"{shop.root}/jobs/nobody")
    assert watched.page.evaluate(AUDIT) == []


def test_contrast_and_targets_are_really_measured(open_page: Open, shop: Shop) -> None:
    watched = open_page(f"{shop.root}/")
    watched.page.evaluate("""() => {
        const sheet = new CSSStyleSheet();
        sheet.replaceSync("h1 { color: #bbb !important } .brand { height: 9px; min-height: 0 !important; }");
        document.adoptedStyleSheets = [sheet];
        document.querySelector("main").append(document.createElement("button"));
    }""")
    found = " ".join(watched.page.evaluate(AUDIT))
    assert "contrast 1" in found
    assert "target" in found
    assert "no name: <button" in found
