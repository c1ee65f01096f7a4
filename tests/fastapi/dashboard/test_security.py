"""Tests the guards, the sign-in page, and the refusal of forms of other sites."""

import re
from pathlib import Path
from typing import Any

import pytest
from fastapi import Depends, FastAPI, Header, HTTPException
from fastapi.testclient import TestClient
from freezegun.api import FrozenDateTimeFactory

from jobrunner import ConfigurationError, JobRunner
from jobrunner.fastapi import bearer
from jobrunner.fastapi.dashboard import urls
from tests.fastapi.dashboard.conftest import (
    ACT_TOKEN,
    CANARY,
    NOBODY,
    READ_TOKEN,
    ROOT,
    SAME,
    SEE_TOKEN,
    Board,
    text_of,
)

READS = [
    "",
    "jobs",
    f"jobs/{NOBODY}",
    "dead",
    "dead?view=letters",
    "schedules",
    "schedules/x",
    "queues",
    "limits",
    "audit",
    "nope",
]
SEES = [f"jobs/{NOBODY}/arguments", f"jobs/{NOBODY}/edit"]
ACTS = [
    "jobs/cancel",
    "jobs/cancel-all",
    "jobs/run-all",
    "jobs/run",
    f"jobs/{NOBODY}/run",
    f"jobs/{NOBODY}/cancel",
    f"jobs/{NOBODY}/replay",
    f"jobs/{NOBODY}/edit",
    f"jobs/{NOBODY}/delete",
    "dead/8c5ae6b1f2d09374/test",
    "dead/8c5ae6b1f2d09374/replay",
    "dead/8c5ae6b1f2d09374/delete",
    f"batches/{NOBODY}/cancel",
    f"batches/{NOBODY}/retry",
    "schedules/x/run",
    "schedules/x/pause",
    "schedules/x/resume",
    "queues/mail/pause",
    "queues/mail/resume",
    "limits/set",
    "limits/reset",
]
FREE = ["login", "logout", "zone"]
"""Forms without a guard."""


def routes_of(board: Board, method: str) -> set[str]:
    """Return the paths of the dashboard's routes."""
    router = board.jobs.dashboard(insecure=True)
    return {
        route.path
        for route in router.routes
        if method in (getattr(route, "methods", None) or ()) and hasattr(route, "path")
    }


def test_lists_of_these_tests_hold_every_form(board: Board) -> None:
    templates = [re.sub(NOBODY, "{id}", f"/{path}") for path in ACTS]
    templates = [re.sub(r"^/schedules/x/", "/schedules/{id}/", path) for path in templates]
    templates = [re.sub(r"^/dead/[0-9a-f]+/", "/dead/{group}/", path) for path in templates]
    templates = [re.sub(r"^/queues/mail/", "/queues/{name}/", path) for path in templates]
    assert routes_of(board, "POST") == {*templates, "/zone"}  # without a token there is no sign-in


# -- headers ---------------------------------------------------------------------------------------


def test_every_answer_has_the_policy_and_its_companions(locked: Board) -> None:
    locked.sign_in(READ_TOKEN)
    answers = [locked.get(path) for path in (*READS, *SEES, "login", "zone")]
    answers += [locked.post(path) for path in ACTS]
    answers += [locked.client.post(f"{ROOT}/jobs/cancel", headers={"Sec-Fetch-Site": "cross-site"})]
    answers += [locked.client.put(f"{ROOT}/jobs"), locked.get("static/none.css")]
    for answer in answers:
        assert answer.headers["content-security-policy"] == (
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self';"
            " form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
        )
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "same-origin"
        assert answer.headers["cache-control"] == "no-store"


def test_static_files_are_immutable_under_the_hash_of_their_content(board: Board) -> None:
    page = board.get("").text
    names = re.findall(r'"\./(static/[^"]+)"', page)
    assert len(names) == 2
    for name in names:
        answer = board.get(name)
        assert answer.status_code == 200
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert re.fullmatch(r"static/(style|ui)\.[0-9a-f]{16}\.(css|js)", name)
    assert len(board.get(names[1]).content) <= 8_000
    assert board.get("static/style.css").status_code == 404
    assert board.get("static/..%2f__init__.py").status_code == 404


def test_dashboard_is_not_in_the_openapi_document(board: Board) -> None:
    assert board.client.get("/openapi.json").json()["paths"] == {}


# -- the guards --------------------------------------------------------------------------------------


def test_dashboard_without_a_guard_is_refused_with_the_line_to_write(tmp_db: Path) -> None:
    jobs = JobRunner(tmp_db)
    with pytest.raises(ConfigurationError, match=r"jobs\.dashboard\(read=bearer\(TOKEN\)\)"):
        jobs.dashboard()
    with pytest.raises(ConfigurationError, match=r"jobs\.dashboard\(read=\.\.\., act=\.\.\.\)"):
        jobs.dashboard(act=bearer("x"))
    for wrong in ("secret", Depends(), 5):
        for name in ("read", "act", "arguments", "actor"):
            given: dict[str, Any] = {"read": bearer("x"), name: wrong}
            with pytest.raises(ConfigurationError, match=rf"jobs\.dashboard\({name}=\.\.\.\)"):
                jobs.dashboard(**given)


def test_insecure_dashboard_answers_under_local_names_alone(board: Board) -> None:
    for path in READS:
        answer = board.get(path, headers={"Host": "evil.example"})
        assert answer.status_code == 403, path
        assert "jobs.dashboard(read=bearer(TOKEN))" in text_of(answer)
    headers = {"Host": "evil.example"}
    assert {board.post(path, headers=headers).status_code for path in ACTS} == {403}
    assert board.get("", headers={"Host": "127.0.0.1:8000"}).status_code == 200


def test_strangers_get_the_sign_in_page_and_nothing_else(locked: Board) -> None:
    letter = locked.dead(CANARY)
    for path in (*READS, *SEES, f"jobs/{letter}"):
        answer = locked.get(path)
        assert answer.status_code == 401, path
        assert answer.headers["www-authenticate"] == "Bearer"
        assert 'type="password"' in answer.text
        assert CANARY not in answer.text
        assert "jobs.db" not in answer.text
    for path in ACTS:
        assert locked.post(path).status_code == 401, path


def test_strangers_of_a_closed_site_learn_only_that_they_are_strangers(tmp_db: Path) -> None:
    closed = Board(tmp_db, read=bearer(READ_TOKEN))
    assert {closed.get(path).status_code for path in READS} == {401}


def test_header_with_the_token_opens_pages_too(locked: Board) -> None:
    assert locked.get("jobs", headers={"Authorization": f"Bearer {READ_TOKEN}"}).status_code == 200
    assert locked.get("jobs", headers={"Authorization": "Bearer nope"}).status_code == 401


def test_reader_sees_no_buttons_and_is_refused_each_action(locked: Board) -> None:
    letter, waiting = locked.dead(CANARY), locked.waiting(CANARY)
    locked.sign_in(READ_TOKEN)
    for path in ("", "jobs", "dead", "schedules", "queues", f"jobs/{letter}", f"jobs/{waiting}"):
        answer = locked.get(path)
        assert answer.status_code == 200
        assert "sign in to act" in text_of(answer)
        for word in ("Replay</button>", "Delete…", "Cancel…", "Pause</button>", 'type="checkbox"'):
            assert word not in answer.text, (path, word)
    for path in ACTS:
        assert locked.post(path).status_code == 401, path
    assert locked.post(f"jobs/{waiting}/cancel").status_code == 401
    assert locked.state(waiting) == "scheduled"


def test_arguments_are_seen_with_their_own_right_alone(locked: Board) -> None:
    id = locked.finished(CANARY)
    locked.sign_in(ACT_TOKEN)
    page = locked.get(f"jobs/{id}")
    assert "Your access does not include arguments" in text_of(page)
    assert CANARY not in page.text
    assert locked.get(f"jobs/{id}/arguments").status_code == 401
    assert locked.get(f"jobs/{id}/edit").status_code == 401
    assert locked.post(f"jobs/{id}/edit").status_code == 401
    locked.sign_in(SEE_TOKEN)
    assert CANARY not in locked.get(f"jobs/{id}").text
    assert CANARY in locked.get(f"jobs/{id}/arguments").text


def test_passes_of_several_tokens_add_up(locked: Board) -> None:
    waiting = locked.waiting()
    locked.sign_in(SEE_TOKEN)
    assert locked.get("jobs").status_code == 200  # a page is needed to see anything on it
    assert locked.post(f"jobs/{waiting}/cancel").status_code == 401
    locked.sign_in(ACT_TOKEN)
    assert locked.get(f"jobs/{waiting}/arguments").status_code == 200
    assert locked.post(f"jobs/{waiting}/cancel").status_code == 303


def test_guard_of_the_application_works_as_it_is(tmp_db: Path) -> None:
    def role(x_role: str = Header("")) -> str:
        if not x_role:
            raise HTTPException(307, headers={"Location": "/sign-in"})
        return x_role

    def admin(role: str = Depends(role)) -> str:
        if role != "admin":
            raise HTTPException(403, "admins alone")
        return f"{role}@example.org"

    board = Board(tmp_db, read=role, act=Depends(admin), actor=role)
    with board.client:
        waiting = board.waiting(CANARY)
        assert board.get("jobs").headers["location"] == "/sign-in"
        reader = {"X-Role": "reader"}
        page = board.get("jobs", headers=reader)
        assert "Signed in as reader" in text_of(page)
        assert "You may look, not act" in text_of(page)
        assert "Sign out" not in text_of(page)
        refused = board.post(f"jobs/{waiting}/cancel", headers=reader)
        assert refused.status_code == 403
        assert "admins alone" in text_of(refused)
        assert board.get("login", headers=reader).status_code == 404
        assert "Cancel…" in board.get(f"jobs/{waiting}", headers={"X-Role": "admin"}).text
        assert board.post(f"jobs/{waiting}/cancel", headers={"X-Role": "admin"}).status_code == 303
        assert board.audited() == [("admin", "cancel", waiting, 1)]


def test_overridden_guard_is_asked_quietly_too(tmp_db: Path) -> None:
    def nobody() -> None:
        raise HTTPException(403)

    board = Board(tmp_db, read=lambda: None, act=nobody)
    with board.client:
        board.waiting()
        assert 'type="checkbox"' not in board.get("jobs").text
        board.app.dependency_overrides[nobody] = lambda: None
        assert 'type="checkbox"' in board.get("jobs").text


# -- signing in -------------------------------------------------------------------------------------


def test_sign_in_sets_a_cookie_that_holds_no_token(locked: Board) -> None:
    answer = locked.post("login", {"token": READ_TOKEN, "next": "jobs?state=dead"})
    assert (answer.status_code, answer.headers["location"]) == (303, "./jobs?state=dead")
    cookie = answer.headers["set-cookie"]
    assert READ_TOKEN not in cookie
    assert {part.strip() for part in cookie.split(";")[1:]} == {
        "Max-Age=43200",
        "HttpOnly",
        "SameSite=Strict",
    }
    (kept,) = [one for one in locked.client.cookies.jar if one.name == "jobrunner_pass"]
    assert kept.path == ROOT
    assert "Sign out" in text_of(locked.get("jobs"))
    assert locked.client.get("/elsewhere").request.headers.get("cookie") is None


def test_cookie_is_secure_over_https_also_behind_a_proxy(locked: Board) -> None:
    https = TestClient(locked.app, base_url="https://testserver", headers=SAME)
    answer = https.post(f"{ROOT}/login", data={"token": READ_TOKEN}, follow_redirects=False)
    assert answer.headers["set-cookie"].endswith("; Secure")
    headers = {"Origin": "https://shop.example"}
    answer = locked.post("login", {"token": READ_TOKEN}, headers=headers)
    assert answer.headers["set-cookie"].endswith("; Secure")


@pytest.mark.parametrize("token", ["", "nope", READ_TOKEN + "x", "é", "\0"])
def test_wrong_token_is_refused_beside_its_field(locked: Board, token: str) -> None:
    answer = locked.sign_in(token)
    assert answer.status_code == 401
    assert "This is not the token" in text_of(answer)
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize(
    "address",
    [
        "//evil.example", "/\\evil.example", "\\\\evil.example", "https://evil.example", "javascript:alert(1)",
        "/jobs", "../admin", "jobs/../../admin", "%2e%2e/admin", "jobs//x", "a\nb", "jobs#x", " //evil.example",
        "http:evil.example", "x" * 3_000, "//[", "jobs?x=\\evil",
    ],
)  # fmt: skip
def test_sign_in_goes_on_to_own_pages_alone(locked: Board, address: str) -> None:
    assert urls.own_address(address) == ""
    answer = locked.post("login", {"token": READ_TOKEN, "next": address})
    assert answer.headers["location"] == "./"
    assert 'name="next" value=""' in locked.get("login", params={"next": address}).text


def test_own_addresses_with_filters_and_colons_are_kept() -> None:
    for address in ("jobs", "jobs?q=a%20b&state=dead", "schedules/report:acme", "jobs/1/arguments"):
        assert urls.own_address(address) == address


def test_changed_token_signs_everybody_out(locked: Board, tmp_path: Path) -> None:
    locked.sign_in(READ_TOKEN)
    changed = Board(tmp_path / "other.db", read=bearer("another"))
    changed.client.cookies = locked.client.cookies
    with changed.client:
        assert changed.get("jobs").status_code == 401
    assert locked.get("jobs").status_code == 200


def test_pass_ends_after_twelve_hours(locked: Board, frozen: FrozenDateTimeFactory) -> None:
    value = locked.sign_in(READ_TOKEN).headers["set-cookie"].partition(";")[0]
    frozen.tick(12 * 3600 - 2)
    assert locked.get("zone", headers={"Cookie": value}).status_code == 200
    assert locked.get("jobs", headers={"Cookie": value}).status_code == 200
    frozen.tick(4)
    assert locked.get("jobs", headers={"Cookie": value}).status_code == 401


@pytest.mark.parametrize(
    "cookie",
    ["", "x", "9999999999", "9999999999.", "9999999999.00", "-1.x", "9" * 5000 + ".é", "~~~~~"],
)
def test_forged_pass_is_worth_nothing(locked: Board, cookie: str) -> None:
    headers = {b"cookie": b"jobrunner_pass=" + cookie.encode()}
    assert locked.client.get(f"{ROOT}/jobs", headers=headers).status_code == 401


def test_pass_with_another_end_is_worth_nothing(locked: Board) -> None:
    value = locked.sign_in(READ_TOKEN).headers["set-cookie"].partition(";")[0]
    name, _, rest = value.partition("=")
    ends, _, signature = rest.partition(".")
    headers = {"Cookie": f"{name}={int(ends) + 1}.{signature}"}
    locked.client.cookies.clear()
    assert locked.get("jobs", headers=headers).status_code == 401


def test_page_is_loaded_again_once_if_a_link_of_another_site_led_to_it(locked: Board) -> None:
    headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    again = '<meta http-equiv="refresh" content="0">'
    assert again in locked.get("jobs", headers=headers).text
    assert again not in locked.get("jobs", headers=headers | SAME).text
    assert again not in locked.get("login", headers=headers).text


def test_sign_out_deletes_the_cookie(locked: Board) -> None:
    locked.sign_in(READ_TOKEN)
    answer = locked.post("logout")
    assert answer.headers["location"] == "./login"
    assert "Max-Age=0" in answer.headers["set-cookie"]
    assert locked.get("jobs").status_code == 401


# -- forms of other sites --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
        {"Sec-Fetch-Site": "cross-site", "Origin": "http://testserver"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://testserver.evil.example"},
        {},
        {"Authorization": f"Bearer {ACT_TOKEN}"},
    ],
)
def test_form_of_another_site_is_refused_before_all_else(
    locked: Board, headers: dict[str, str]
) -> None:
    locked.sign_in(ACT_TOKEN)
    waiting = locked.waiting()
    del locked.client.headers["Sec-Fetch-Site"]
    for path in (*ACTS, *FREE, f"jobs/{waiting}/cancel"):
        answer = locked.post(path, headers=headers)
        assert answer.status_code == 403, path
        assert "Open the page itself" in text_of(answer)
        assert "set-cookie" not in answer.headers
    assert locked.state(waiting) == "scheduled"


def test_form_of_this_site_is_let_in_by_its_origin_too(locked: Board) -> None:
    locked.sign_in(ACT_TOKEN)
    del locked.client.headers["Sec-Fetch-Site"]
    headers = {"Origin": "http://testserver"}
    assert locked.post("queues/mail/pause", headers=headers).status_code == 303


# -- where it is mounted --------------------------------------------------------------------------


@pytest.mark.parametrize("json_first", [True, False])
def test_dashboard_and_json_routes_live_under_one_prefix_in_both_orders(
    tmp_db: Path, json_first: bool
) -> None:
    jobs = JobRunner(tmp_db)
    app = FastAPI(lifespan=jobs.lifespan)
    routers = [(jobs.router(insecure=True), "/jobs"), (jobs.dashboard(insecure=True), "/jobs/ui")]
    for router, prefix in routers if json_first else reversed(routers):
        app.include_router(router, prefix=prefix)
    with TestClient(app, headers=SAME, follow_redirects=False) as client:
        assert client.get("/jobs/ui").headers["location"] == "ui/"
        for path in ("/", "/jobs", f"/jobs/{NOBODY}", "/queues", "/schedules", "/dead"):
            answer = client.get(f"/jobs/ui{path}")
            assert answer.headers["content-type"].startswith("text/html"), path
        assert client.post(f"/jobs/ui/jobs/{NOBODY}/cancel").status_code == 404
        assert client.get("/jobs").json()["items"] == []
        assert client.get(f"/jobs/{NOBODY}").json()["code"] == "not-found"
        assert client.get("/jobs/health").status_code == 200


def test_links_hold_behind_a_proxy_and_in_a_mounted_application(tmp_db: Path) -> None:
    jobs = JobRunner(tmp_db)
    inner = FastAPI()
    inner.include_router(jobs.dashboard(insecure=True), prefix="/ui")
    app = FastAPI(lifespan=jobs.lifespan)
    app.include_router(jobs.dashboard(insecure=True), prefix="/other/place")
    app.mount("/inner", inner)
    with TestClient(app, headers=SAME, root_path="/proxy") as client:
        for root in ("/inner/ui", "/other/place"):
            page = client.get(f"{root}/jobs/{NOBODY}")
            assert page.status_code == 404
            for address in re.findall(r'(?:href|src|action)="([^"#d][^"]*)"', page.text):
                assert address.startswith("../"), address
                followed = client.get(f"{root}/jobs/{address}")
                assert followed.status_code == 200, address


def test_two_dashboards_of_two_runners_do_not_disturb_each_other(tmp_path: Path) -> None:
    first, second = JobRunner(tmp_path / "one.db"), JobRunner(tmp_path / "two.db")
    app = FastAPI(lifespan=first.lifespan)
    app.include_router(first.dashboard(insecure=True), prefix="/one")
    app.include_router(second.dashboard(insecure=True), prefix="/two")
    with TestClient(app) as client:
        assert "one.db" in client.get("/one/queues").text
        assert client.get("/two/queues").status_code == 503
