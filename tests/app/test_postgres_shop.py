"""The shop on PostgreSQL: its rows and its jobs in one database, over HTTP."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from app.settings import Settings
from tests.app.shop import ShopClient, eventually, make_settings


@pytest.fixture
def settings(tmp_path: Path, bare_postgres_url: str) -> Settings:
    return make_settings(tmp_path, database=bare_postgres_url, stock=5)


@pytest.fixture
def shop(settings: Settings) -> Iterator[ShopClient]:
    with ShopClient(settings, tested=False) as client:
        yield client


def rows(settings: Settings, sql: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(str(settings.store), autocommit=True) as connection:
        return list(connection.execute(sql.encode()))


def order(shop: ShopClient, quantity: int) -> Any:
    wanted = {"email": "ann@example.com", "item": "tea", "quantity": quantity}
    return shop.post("/orders", json=wanted)


def test_order_is_confirmed_audited_and_sent(shop: ShopClient, settings: Settings) -> None:
    placed = order(shop, 2)
    assert placed.status_code == 201, placed.text
    id = placed.json()["order_id"]
    eventually(lambda: shop.get(f"/orders/{id}").json()["status"] == "at_warehouse", "sent")
    assert rows(settings, "SELECT available, sent FROM stock") == [(3, 2)]
    ((action, resource),) = rows(settings, "SELECT action, resource FROM audit_rows")
    assert (action, resource) == ("CREATE", f"order:{id}")
    assert len(shop.outbox()) == 2
    assert rows(settings, "SELECT state, count(*) FROM jobrunner.jobs GROUP BY state") == [
        ("succeeded", 3)
    ]


def test_order_that_cannot_be_met_leaves_neither_rows_nor_jobs(
    shop: ShopClient, settings: Settings
) -> None:
    assert order(shop, 9).status_code == 409
    for table in ("orders", "stock", "jobrunner.jobs"):
        assert rows(settings, f"TABLE {table}") == []


def test_registration_is_refused_for_a_known_address_without_a_second_mail(
    shop: ShopClient, settings: Settings
) -> None:
    job = shop.register("ann")
    again = shop.post("/register", json={"username": "ann", "email": "ann@example.com"})
    assert again.status_code == 409
    eventually(lambda: shop.job(job)["state"] == "succeeded", "a welcome")
    assert len(shop.jobs("send_welcome_email")) == 1
    assert shop.get("/orders/9223372036854775807").status_code == 404


def test_audit_row_of_a_deleted_user_is_written_through_the_injected_session(
    shop: ShopClient, settings: Settings
) -> None:
    shop.register("ann")
    ((user,),) = rows(settings, "SELECT id FROM users")
    gone = shop.delete(f"/users/{user}")
    assert gone.is_success, gone.text
    job = gone.json()["job_id"]
    eventually(lambda: shop.job(job)["state"] == "succeeded", "an audit entry")
    assert rows(settings, "SELECT job_id, resource FROM audit_rows") == [(job, f"user:{user}")]
    assert rows(settings, "SELECT count(*) FROM users") == [(0,)]
