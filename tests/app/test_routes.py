"""The shop over HTTP, with everything behind it real."""

import json
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from freezegun.api import FrozenDateTimeFactory

from app.audit import AuditEntry
from app.settings import Settings
from app.tasks.audit import write_audit_log
from jobrunner.testing import fake_context
from tests.app.shop import ShopClient, make_settings
from tests.app.smtp import SmtpServer
from tests.support.clocks import MOMENT

DAY_S = 24 * 3600


def rows(settings: Settings, query: str) -> list[tuple[object, ...]]:
    """Ask the shop's file from outside."""
    with closing(sqlite3.connect(settings.database_path)) as connection:
        return connection.execute(query).fetchall()


def break_commits(settings: Settings, table: str, event: str) -> None:
    """Have every transaction fail that does this to the table: when it is committed, and not before."""
    with closing(sqlite3.connect(settings.database_path)) as connection:
        connection.execute("CREATE TABLE nowhere (id INTEGER PRIMARY KEY)")
        connection.execute(
            "CREATE TABLE lost (id REFERENCES nowhere (id) DEFERRABLE INITIALLY DEFERRED)"
        )
        connection.execute(
            f"CREATE TRIGGER lose AFTER {event} ON {table} BEGIN INSERT INTO lost VALUES (1); END"  # noqa: S608
        )


# -- POST /register -------------------------------------------------------------------------------


def test_register_answers_201_and_sends_a_welcome_mail(shop: ShopClient) -> None:
    answer = shop.post("/register", json={"username": "Ada", "email": "ada@example.com"})

    assert answer.status_code == 201
    shop.finish(answer.json()["job_id"])
    (mail,) = shop.outbox()
    assert (mail["to"], mail["subject"]) == ("ada@example.com", "Welcome to the shop")


def test_register_twice_is_a_conflict_and_sends_one_mail(shop: ShopClient) -> None:
    shop.finish(shop.register("ada"))

    again = shop.post("/register", json={"username": "Ada", "email": "Ada@Example.com"})

    assert again.status_code == 409
    assert "ada@example.com" in again.json()["detail"]
    assert len(shop.jobs("send_welcome_email")) == 1


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"username": "ada"},
        {"username": "ada", "email": "no address"},
        {"username": "ada", "email": "ada@example.com\nBcc: all@example.com"},
        {"username": "ada", "email": "a" * 300 + "@example.com"},
        {"username": "ada", "email": "adä@example.com"},
        {"username": "ada", "email": '"a b"@example.com'},
        {"username": "", "email": "ada@example.com"},
        {"username": "ada\r\nlovelace", "email": "ada@example.com"},
        {"username": "ada\x00", "email": "ada@example.com"},
        {"username": "a" * 201, "email": "ada@example.com"},
        {"username": "ada", "email": "ada@example.com", "admin": True},
    ],
)
def test_register_with_bad_input_is_a_422_and_stores_nothing(
    shop: ShopClient, body: dict[str, object]
) -> None:
    assert shop.post("/register", json=body).status_code == 422
    assert shop.jobs("send_welcome_email") == []


@pytest.mark.parametrize(
    "body",
    [
        rb'{"username": "\ud800", "email": "ada@example.com"}',
        rb'{"username": "ada", "email": "ada@example.com", "\ud800": 1}',
        b'{"username": NaN, "email": "ada@example.com"}',
        b'{"username": 1e999, "email": "ada@example.com"}',
        b"{",
        b"\xff",
        b"[" * 100_000,
    ],
)
def test_register_with_what_json_has_no_form_for_is_a_4xx(shop: ShopClient, body: bytes) -> None:
    answer = shop.post("/register", content=body, headers={"Content-Type": "application/json"})

    assert 400 <= answer.status_code < 500
    assert answer.json()["detail"]


def test_register_takes_names_in_every_script(shop: ShopClient) -> None:
    job_id = shop.post_job("/register", {"username": "Ада ☕ 愛", "email": "ada@example.com"})

    shop.finish(job_id)


# -- one transaction ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "event", "method", "path", "body"),
    [
        ("users", "INSERT", "POST", "/register", {"username": "bob", "email": "bob@example.com"}),
        ("orders", "INSERT", "POST", "/orders", {"email": "bob@example.com", "item": "engine"}),
        ("users", "DELETE", "DELETE", "/users/1", None),
    ],
)
def test_commit_that_fails_is_a_500_and_leaves_neither_row_nor_job(
    settings: Settings, table: str, event: str, method: str, path: str, body: dict[str, str] | None
) -> None:
    state = """
        SELECT (SELECT group_concat(id) FROM users), (SELECT count(*) FROM orders),
            (SELECT count(*) FROM stock), (SELECT count(*) FROM jobrunner_jobs)
    """
    with ShopClient(settings, raise_server_exceptions=False) as shop:
        shop.finish(shop.register("ada"))
        break_commits(settings, table, event)
        before = rows(settings, state)

        assert shop.request(method, path, json=body).status_code == 500

        assert rows(settings, state) == before
        # The route wrote its row and its jobs, and would be heard of if these were there.
        shop.finish(shop.post_job("/confirmations", {"email": "ada@example.com"}))
        mails = sorted(mail["subject"] for mail in shop.outbox())
        assert mails == ["Welcome to the shop", "Your token"]


def test_conflict_leaves_no_job(shop: ShopClient, settings: Settings) -> None:
    shop.finish(shop.register("ada"))
    count = "SELECT count(*) FROM jobrunner_jobs"
    before = rows(settings, count)

    again = shop.post("/register", json={"username": "ada", "email": "ada@example.com"})

    assert again.status_code == 409
    assert rows(settings, count) == before


# -- POST /subscribe ------------------------------------------------------------------------------


def test_subscribe_twice_reminds_once_a_day_later(
    frozen: FrozenDateTimeFactory, shop: ShopClient
) -> None:
    first = shop.post("/subscribe", json={"email": "ada@example.com"}).json()
    second = shop.post("/subscribe", json={"email": "Ada@Example.com"}).json()

    assert (first["created"], second["created"]) == (True, False)
    assert first["job_id"] == second["job_id"]
    due = datetime.fromisoformat(first["scheduled_for"])
    assert due == MOMENT + timedelta(seconds=DAY_S)
    shop.t.travel(seconds=DAY_S - 1)
    assert shop.job(first["job_id"])["state"] == "scheduled"
    shop.t.travel(seconds=1)

    # A day on, the daily report is due as well.
    to_ada = [mail["subject"] for mail in shop.outbox() if mail["to"] == "ada@example.com"]
    assert to_ada == ["Your reminder"]


def test_subscribe_after_the_reminder_reminds_again(shop: ShopClient) -> None:
    for _ in range(2):
        answer = shop.post("/subscribe", json={"email": "ada@example.com"}).json()
        assert answer["created"]
        shop.finish(answer["job_id"])
    to_ada = [mail["subject"] for mail in shop.outbox() if mail["to"] == "ada@example.com"]
    assert to_ada == ["Your reminder"] * 2


# -- orders ---------------------------------------------------------------------------------------


STEPS = ("send_order_confirmation", "audit_order", "notify_warehouse")


def order(shop: ShopClient, **fields: object) -> dict[str, int]:
    """Place an order."""
    body = {"email": "ada@example.com", "item": "engine", "quantity": 2}
    answer = shop.post("/orders", json=body | fields, headers={"X-User-Id": "7"})
    assert answer.status_code == 201, answer.text
    placed: dict[str, int] = answer.json()
    return placed


def deliver(shop: ShopClient, placed: dict[str, int]) -> None:
    """Run all steps of an order, which then is at the warehouse."""
    shop.finish(shop.jobs("notify_warehouse")[-1]["id"])
    assert shop.get(f"/orders/{placed['order_id']}").json()["status"] == "at_warehouse"


def test_order_is_confirmed_and_audited_and_then_sent_to_the_warehouse(
    shop: ShopClient, settings: Settings
) -> None:
    placed = order(shop)
    deliver(shop, placed)

    (confirm,), (audit,), (notify,) = map(shop.jobs, STEPS)
    assert shop.get("/jobs", params={"tag": f"order:{placed['order_id']}"}).json()["items"] == [
        notify,
        audit,
        confirm,
    ]
    batch = shop.get(f"/jobs/batches/{confirm['batch']}").json()
    assert (batch["state"], batch["total"], batch["succeeded"]) == ("succeeded", 2, 2)
    assert (audit["batch"], notify["batch"]) == (batch["id"], None)
    assert batch["at_end"]["id"] == notify["id"]
    runs = [shop.job(job["id"])["history"] for job in (confirm, audit, notify)]
    assert [len(history) for history in runs] == [1, 1, 1]
    ends = [history[0]["finished_at"] for history in runs[:2]]
    assert max(ends) <= runs[2][0]["started_at"]
    assert {mail["to"]: mail["subject"] for mail in shop.outbox()} == {
        "ada@example.com": f"Your order {placed['order_id']}",
        "warehouse@localhost": f"Order {placed['order_id']}",
    }
    (row,) = rows(settings, "SELECT user_id, action, resource, job_id FROM audit_rows")
    assert row == (7, "CREATE", f"order:{placed['order_id']}", audit["id"])
    assert rows(settings, "SELECT (SELECT at FROM audit_rows) = created_at FROM orders") == [(1,)]


def test_order_whose_confirmation_fails_at_first_takes_each_step_once(
    mailing_shop: ShopClient, smtp: SmtpServer, settings: Settings
) -> None:
    smtp.data_answers.extend(["451 later", "451 later"])

    deliver(mailing_shop, order(mailing_shop))

    assert [message["To"] for message in smtp.accepted] == [
        "ada@example.com",
        "warehouse@localhost",
    ]
    assert rows(settings, "SELECT count(*) FROM audit_rows") == [(1,)]


def test_order_whose_confirmation_is_dead_goes_on_without_it(
    mailing_shop: ShopClient, smtp: SmtpServer, settings: Settings
) -> None:
    smtp.rcpt_answers.append("550 no such person")
    placed = order(mailing_shop)
    deliver(mailing_shop, placed)
    assert [message["To"] for message in smtp.accepted] == ["warehouse@localhost"]
    assert rows(settings, "SELECT count(*) FROM audit_rows") == [(1,)]

    (letter,) = mailing_shop.t.dead_letters
    assert (letter.task, letter.reason) == ("send_order_confirmation", "buried")
    mailing_shop.t.replay(letter, until="succeeded")

    assert mailing_shop.get(f"/orders/{placed['order_id']}").json()["status"] == "at_warehouse"
    assert [message["To"] for message in smtp.accepted][1:] == ["ada@example.com"]


def stock_of(shop: ShopClient, item: str) -> tuple[int, int]:
    """Return how many are left and how many were sent."""
    stock = shop.get("/stock", params={"item": item}).json()
    return stock["available"], stock["sent"]


def test_order_is_taken_from_the_stock_at_once_and_counted_as_sent_at_its_end(
    mailing_shop: ShopClient, smtp: SmtpServer
) -> None:
    assert mailing_shop.get("/stock", params={"item": "engine"}).status_code == 404
    more = mailing_shop.post("/stock", json={"item": "engine", "quantity": 5}).json()
    smtp.data_answers.extend(["451 later", "451 later"])
    placed = order(mailing_shop, quantity=2)
    assert stock_of(mailing_shop, "engine") == (more["available"] - 2, 0)

    deliver(mailing_shop, placed)
    assert stock_of(mailing_shop, "engine") == (more["available"] - 2, 2)


def test_order_of_more_than_there_is_is_a_409_and_leaves_nothing(settings: Settings) -> None:
    with ShopClient(settings.model_copy(update={"stock": 3})) as shop:
        order(shop, quantity=2)
        answer = shop.post(
            "/orders", json={"email": "a@example.com", "item": "engine", "quantity": 2}
        )

        assert answer.status_code == 409
        assert "engine" in answer.json()["detail"]
        assert stock_of(shop, "engine")[0] == 1
        assert len(shop.jobs("send_order_confirmation")) == 1
        assert rows(settings, "SELECT count(*) FROM orders") == [(1,)]

        assert shop.post("/stock", json={"item": "engine", "quantity": 1}).json()["available"] == 2
        order(shop, quantity=2)
        assert stock_of(shop, "engine")[0] == 0


def test_order_can_be_looked_at(shop: ShopClient) -> None:
    placed = order(shop, item="difference engine")

    found = shop.get(f"/orders/{placed['order_id']}").json()

    assert found["item"] == "difference engine"
    assert found["quantity"] == 2
    assert datetime.fromisoformat(found["created_at"]).tzinfo == UTC


def test_order_that_is_not_there_is_a_404(shop: ShopClient) -> None:
    assert shop.get("/orders/1").status_code == 404


@pytest.mark.parametrize("order_id", ["0", "-1", "x", str(2**63)])
def test_order_id_that_cannot_be_is_a_422(shop: ShopClient, order_id: str) -> None:
    assert shop.get(f"/orders/{order_id}").status_code == 422


# -- audit ----------------------------------------------------------------------------------------


def test_delete_invoice_appends_a_line_to_the_audit_file(
    shop: ShopClient, settings: Settings
) -> None:
    answer = shop.delete("/invoices/12", headers={"X-User-Id": "7"}).json()
    shop.finish(answer["job_id"])

    (line,) = settings.audit_file.read_text().splitlines()
    entry = json.loads(line)
    assert datetime.fromisoformat(entry.pop("at")).tzinfo is not None
    assert entry == {
        "user_id": 7,
        "action": "DELETE",
        "resource": "invoice:12",
        "job_id": answer["job_id"],
    }


def test_delete_user_writes_an_audit_row_beside_the_jobs(
    shop: ShopClient, settings: Settings
) -> None:
    user_id = shop.post("/register", json={"username": "ada", "email": "ada@example.com"}).json()[
        "user_id"
    ]

    answer = shop.delete(f"/users/{user_id}").json()
    shop.finish(answer["job_id"])

    assert rows(settings, "SELECT count(*) FROM users") == [(0,)]
    assert rows(settings, "SELECT job_id, action, resource FROM audit_rows") == [
        (answer["job_id"], "DELETE", f"user:{user_id}")
    ]


def test_delete_user_again_is_audited_again(shop: ShopClient, settings: Settings) -> None:
    for _ in range(2):
        shop.finish(shop.delete("/users/1").json()["job_id"])

    assert rows(settings, "SELECT count(*) FROM audit_rows") == [(2,)]


def test_audit_job_that_runs_again_writes_no_second_line(
    shop: ShopClient, settings: Settings
) -> None:
    audit_log = shop.shop.state.services.audit_log
    entry = AuditEntry(user_id=1, action="DELETE", resource="invoice:1")
    # As after a crash between the work and its settling: the same job, called once more.
    for attempt in (1, 2):
        write_audit_log(fake_context(id="job-1", attempt=attempt), entry, audit_log)

    assert len(settings.audit_file.read_text().splitlines()) == 1


def test_audit_row_is_committed_with_the_success_of_its_job_or_not_at_all(
    shop: ShopClient, settings: Settings
) -> None:
    break_commits(settings, "audit_rows", "INSERT")
    job_id = shop.delete("/users/1").json()["job_id"]
    shop.t.run_until_idle()
    assert rows(settings, "SELECT count(*) FROM audit_rows") == [(0,)]

    with closing(sqlite3.connect(settings.database_path)) as connection:
        connection.execute("DROP TRIGGER lose")
    shop.finish(job_id)

    assert rows(settings, "SELECT job_id FROM audit_rows") == [(job_id,)]
    first = shop.job(job_id)["history"][0]
    assert (first["outcome"], first["error_type"]) == ("failed", "sqlalchemy.exc.IntegrityError")


# -- outbox ---------------------------------------------------------------------------------------


def test_outbox_lists_the_newest_mail_first(
    frozen: FrozenDateTimeFactory, shop: ShopClient
) -> None:
    assert shop.outbox() == []
    for name in ("ada", "grace"):
        shop.finish(shop.register(name))
        frozen.tick(60)

    assert [mail["to"] for mail in shop.outbox()] == ["grace@example.com", "ada@example.com"]


def test_outbox_of_a_shop_with_a_mail_server_is_a_404(mailing_shop: ShopClient) -> None:
    assert mailing_shop.get("/outbox").status_code == 404


def test_report_is_answered_at_once_or_followed_by_its_address(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, report_pause=0.3)
    with ShopClient(settings, tested=False) as shop:
        assert "Make the report" in shop.get("/reports").text
        answer = shop.post("/reports")
        assert (answer.status_code, answer.json()) == (200, {"orders": 0, "quantities": {}})
        shop.post("/orders", json={"email": "ada@example.com", "item": "tea", "quantity": 2})
        with closing(sqlite3.connect(settings.database_path)) as connection, connection:
            columns = "user_id, email, item, quantity, status, created_at"
            copy = f"INSERT INTO orders ({columns}) SELECT {columns} FROM orders LIMIT 1"  # noqa: S608
            for _ in range(249):
                connection.execute(copy)
        answer = shop.post("/reports")
        assert answer.status_code == 202
        location = answer.headers["location"]
        assert location == f"/status/{answer.json()['id']}"
        with shop.stream("GET", f"{location}/events") as events:
            last = [line for line in events.iter_lines() if line.startswith("data: ")][-1]
        status = json.loads(last.removeprefix("data: "))
        assert status["result"] == {"orders": 250, "quantities": {"tea": 500}}
        assert status["progress"] == {"done": 250, "total": 250, "message": "adding up orders"}
        # Only reports are for everybody.
        mail = shop.register("ada")
        assert shop.get(f"/status/{mail}").status_code == 404
