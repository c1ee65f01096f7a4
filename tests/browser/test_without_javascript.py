"""Tests the pages with JavaScript off: read, filter, turn pages, act, sign in."""

from playwright.sync_api import Page, expect

from tests.browser.conftest import TOKEN, Open, Shop


def test_reading_filtering_and_searching(open_page: Open, shop: Shop) -> None:
    page = open_page(f"{shop.root}/", javascript=False).page
    page.get_by_role("link", name="Jobs", exact=True).click()
    page.get_by_label("Task", exact=True).select_option("greet")
    page.get_by_role("button", name="Filter").click()
    page.wait_for_url(f"{shop.root}/jobs?task=greet")
    page.get_by_label("Find a job by id, key, tag or task").fill(shop.letter)
    page.keyboard.press("Enter")
    page.wait_for_url(f"{shop.root}/jobs/{shop.letter}")
    page.get_by_role("link", name="Show").click()
    expect(page.locator("pre.json").first).to_contain_text("<b>nobody</b>")
    for hidden in ("#live", "[data-copies]", "[data-zone]"):
        expect(page.locator(hidden).first).to_be_hidden()


def test_pages_of_a_list(open_page: Open, shop: Shop) -> None:
    calls = [shop.greet.options(delay=9000, tag="many").call(f"n{i}") for i in range(60)]

    async def store() -> None:
        await shop.jobs.enqueue_many(calls)

    shop.call(store)
    page = open_page(f"{shop.root}/jobs?tag=many", javascript=False).page
    assert page.locator("tr[data-row]").count() == 50
    page.get_by_role("link", name="Next page").click()
    assert page.locator("tr[data-row]").count() == 10
    page.get_by_role("link", name="First page").click()
    assert page.locator("tr[data-row]").count() == 50


def test_pausing_cancelling_and_replaying(open_page: Open, shop: Shop) -> None:
    page = open_page(f"{shop.root}/queues", javascript=False).page
    page.get_by_role("button", name="Pause mail").click()
    expect(page.locator(".notice").first).to_contain_text("Paused")
    page.get_by_role("button", name="Resume mail").click()
    id = shop.enqueue(shop.greet.options(delay=9000), "x").id
    page.goto(f"{shop.root}/jobs/{id}")
    page.get_by_role("link", name="Cancel…").click()
    page.get_by_role("button", name="Cancel the job").click()
    expect(page.locator("h1 .pill")).to_have_text("cancelled")
    letter = shop.dead(shop.write_letter, "nobody")
    page.goto(f"{shop.root}/jobs/{letter}/edit")
    page.get_by_label("copies").fill("many")
    page.get_by_role("button", name="Replay").click()
    expect(page.get_by_label("copies")).to_have_attribute("aria-invalid", "true")
    page.get_by_label("copies").fill("2")
    page.get_by_role("button", name="Replay").click()
    expect(page.locator(".notice").first).to_contain_text("this is the new job")


def sign_in(page: Page, token: str) -> None:
    """Fill in the sign-in page."""
    page.get_by_label("Token").fill(token)
    page.get_by_role("button", name="Sign in").click()


def test_link_on_another_site_finds_the_viewer_signed_in(open_page: Open, shop: Shop) -> None:
    watched = open_page(f"{shop.locked}/queues", javascript=False)
    page = watched.page
    sign_in(page, TOKEN)
    expect(page.locator("h1")).to_have_text("Queues and workers")
    # Another name of this machine is another site.
    page.route(
        f"http://localhost:{shop.port}/mail",
        lambda route: route.fulfill(
            content_type="text/html", body=f'<a href="{shop.locked}/jobs">the job</a>'
        ),
    )
    page.goto(f"http://localhost:{shop.port}/mail")
    page.get_by_role("link", name="the job").click()
    expect(page.locator("h1")).to_have_text("Jobs")
    assert watched.requests.count(f"{shop.locked}/jobs") == 2  # without the cookie, then with it


def test_signing_in_and_out(open_page: Open, shop: Shop) -> None:
    page = open_page(f"{shop.locked}/queues", javascript=False).page
    expect(page.locator("h1")).to_have_text("Sign in")
    sign_in(page, "nope")
    expect(page.get_by_role("alert")).to_contain_text("not the token")
    sign_in(page, TOKEN)
    assert page.url == f"{shop.locked}/queues"
    (cookie,) = page.context.cookies()
    assert (cookie["name"], cookie["path"]) == ("jobrunner_pass", "/locked/ui")
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
    page.get_by_role("button", name="Sign out").click()
    expect(page.locator("h1")).to_have_text("Sign in")
    assert page.context.cookies() == []


def test_groups_are_opened_tested_replayed_and_deleted(open_page: Open, shop: Shop) -> None:
    letters = {shop.dead(shop.undecided, "x") for _ in range(4)}
    page = open_page(f"{shop.root}/dead", javascript=False).page
    page.get_by_role("link", name="undecided").click()
    expect(page.locator(".sums dd").last).to_have_text("4")

    page.get_by_role("button", name="Test with one").click()
    tested = page.url.partition("&test=")[2]
    assert tested in letters
    shop.until_dead(tested)
    page.reload()
    expect(page.locator(".canary")).to_contain_text("Test failed: the job is a dead letter again.")

    page.get_by_label("Why, for the audit log").fill("by hand")
    page.get_by_role("radio", name="60 3.0 s").check()
    page.get_by_role("button", name="Replay 4").dblclick()
    expect(page.locator(".notice").first).to_contain_text("replayed")
    states = [shop.state(id) for id in letters]
    assert states.count("scheduled") >= 2

    more = shop.dead(shop.undecided, "x")
    page.goto(f"{shop.root}/dead")
    page.get_by_role("link", name="undecided").click()
    page.get_by_role("link", name="Delete all…").click()
    expect(page.locator("h1")).to_contain_text("of undecided?")
    page.get_by_role("button", name="Delete").click()
    expect(page.locator(".notice").first).to_contain_text("deleted")
    page.goto(f"{shop.root}/jobs/{more}")
    expect(page.locator("main h1")).to_have_text("No such job")
