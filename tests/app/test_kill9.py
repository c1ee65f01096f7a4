"""``kill -9`` of the served shop while it takes orders: rows, jobs, audit entries and stock counts stay one."""

import random
import sqlite3
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest

from app.demo.shop import Broken, Shop, wait_for
from app.schemas import OrderCreate
from tests.soak.budget import Figures, rounds

LEAST_KILLS = 4
CLIENTS = 4
MOST_ANSWERS = 80
ITEMS = ("analytical engine", "difference engine")
STOCK = 100_000


@dataclass
class Ledger:
    """The requests that the shop answered with 201."""

    orders: dict[int, tuple[str, int]] = field(default_factory=dict)
    users: dict[int, str] = field(default_factory=dict)
    deleted: set[str] = field(default_factory=set)
    """The jobs that audit deletions of users."""
    refused: list[str] = field(default_factory=list)
    """Answers that were no 201."""


class Crowd:
    """Clients that register, order and leave as fast as the shop answers, until it stops answering."""

    def __init__(self, shop: Shop, ledger: Ledger, dice: random.Random) -> None:
        self._shop = shop
        self._ledger = ledger
        self._answers = threading.Semaphore(0)
        self._threads = [
            threading.Thread(target=self._live, args=[random.Random(dice.getrandbits(64))])
            for _ in range(CLIENTS)
        ]
        for thread in self._threads:
            thread.start()

    def wait_for_answers(self, number: int) -> None:
        for _ in range(number):
            assert self._answers.acquire(timeout=20), self._ledger.refused

    def join(self) -> None:
        for thread in self._threads:
            thread.join(20)
            assert not thread.is_alive()

    def _live(self, dice: random.Random) -> None:
        try:
            while True:
                self._register(f"u{dice.getrandbits(64):x}@example.com")
                self._order(dice.choice(ITEMS), dice.randint(1, 9))
                self._come_and_go(f"g{dice.getrandbits(64):x}@example.com")
        except Broken as broken:
            if not isinstance(broken.__cause__, httpx2.TransportError):
                self._ledger.refused.append(str(broken))

    def _register(self, email: str) -> None:
        answer = self._shop.post("/register", {"username": "somebody", "email": email})
        self._ledger.users[answer["user_id"]] = email
        self._answers.release()

    def _come_and_go(self, email: str) -> None:
        answer = self._shop.post("/register", {"username": "guest", "email": email})
        answer = self._shop.delete(f"/users/{answer['user_id']}")
        self._ledger.deleted.add(answer["job_id"])
        self._answers.release()

    def _order(self, item: str, quantity: int) -> None:
        wanted = OrderCreate(email="ada@example.com", item=item, quantity=quantity)
        answer = self._shop.post("/orders", wanted.model_dump())
        self._ledger.orders[answer["order_id"]] = (item, quantity)
        self._answers.release()


@contextmanager
def shop_in(directory: Path) -> Iterator[Shop]:
    """Yield a shop that is not yet open, and leave none of its processes behind."""
    shop = Shop(directory, {"STOCK": STOCK, "LOG_LEVEL": "WARNING", "MAIL_ATTEMPTS": 100})
    try:
        yield shop
    finally:
        shop.close()


def ask(file: Path, query: str) -> list[tuple[Any, ...]]:
    """Ask the file of a shop that is dead."""
    with closing(sqlite3.connect(file)) as connection:
        return connection.execute(query).fetchall()


def check(file: Path, ledger: Ledger) -> None:
    """Hold the file against itself and against the ledger, whatever the moment at which the shop died."""
    assert ask(file, "PRAGMA integrity_check") == [("ok",)]
    orders = {id: (item, n) for id, item, n in ask(file, "SELECT id, item, quantity FROM orders")}
    assert ledger.orders.items() <= orders.items()
    users = dict(ask(file, "SELECT id, email FROM users"))
    assert ledger.users.items() <= users.items()

    tags = ask(file, "SELECT tag, count(*) FROM jobrunner_jobs WHERE tag IS NOT NULL GROUP BY tag")
    assert dict(tags) == {f"order:{id}": 3 for id in orders}, "a batch for each order, none else"
    batches = ask(file, "SELECT name FROM jobrunner_batches ORDER BY name")
    assert batches == sorted((tag,) for tag in dict(tags))
    early = (
        "SELECT tag FROM jobrunner_jobs last JOIN jobrunner_jobs one USING (tag)"
        " WHERE last.task = 'notify_warehouse' AND last.started_at < one.finished_at"
        " AND one.task <> 'notify_warehouse'"
    )
    assert ask(file, early) == [], "the callback saw the end of both"
    mails = ask(file, "SELECT args FROM jobrunner_jobs WHERE task = 'send_welcome_email'")
    deletions = ask(file, "SELECT id FROM jobrunner_jobs WHERE task = 'write_audit_row'")
    assert ledger.deleted <= {id for (id,) in deletions}
    assert len(mails) == len(users) + len(deletions)
    assert all(any(email in args for (args,) in mails) for email in ledger.users.values())

    # What a job writes is there exactly if the job has succeeded.
    done = "SELECT tag FROM jobrunner_jobs WHERE state = 'succeeded' AND task = "
    audited = "SELECT resource FROM audit_rows WHERE resource LIKE 'order:%' ORDER BY resource"
    assert ask(file, audited) == ask(file, f"{done} 'audit_order' ORDER BY tag")
    audited = "SELECT job_id FROM audit_rows WHERE resource LIKE 'user:%' ORDER BY job_id"
    assert ask(file, audited) == ask(
        file,
        "SELECT id FROM jobrunner_jobs WHERE state = 'succeeded' AND task = 'write_audit_row'"
        " ORDER BY id",
    )
    told = [int(tag.partition(":")[2]) for (tag,) in ask(file, f"{done} 'notify_warehouse'")]
    ordered, sent = Counter[str](), Counter[str]()
    for item, quantity in orders.values():
        ordered[item] += quantity
    for item, quantity in map(orders.__getitem__, told):
        sent[item] += quantity
    for item, available, gone in ask(file, "SELECT item, available, sent FROM stock"):
        assert (available, gone) == (STOCK - ordered[item], sent[item]), item
    at_warehouse = ask(file, "SELECT id FROM orders WHERE status = 'at_warehouse' ORDER BY id")
    assert [id for (id,) in at_warehouse] == sorted(told)


def kill_while_it_takes_orders(directory: Path, *, seed: int, seconds: float) -> Figures:
    """Kill the shop under its clients again and again; then let it end what it has begun."""
    ledger = Ledger()
    with shop_in(directory) as shop:
        kills = take_orders(shop, directory, ledger, seed=seed, seconds=seconds)
        end_what_is_left(shop, directory, ledger)
    return {
        "kills": kills,
        "orders acknowledged": len(ledger.orders),
        "users acknowledged": len(ledger.users),
        "missing, torn or doubled": 0,
    }


def take_orders(shop: Shop, directory: Path, ledger: Ledger, *, seed: int, seconds: float) -> int:
    """Have clients order, kill the shop at a random answer, check its file, and again; return how often."""
    dice = random.Random(seed)
    kills = 0
    for _ in rounds(seconds, least=LEAST_KILLS):
        shop.start()
        crowd = Crowd(shop, ledger, dice)
        # A third of the answers are orders. The first life is long, so that there is load whatever the dice say.
        crowd.wait_for_answers(dice.randint(1, MOST_ANSWERS) if kills else MOST_ANSWERS)
        shop.kill()
        crowd.join()
        kills += 1
        check(directory / "shop.db", ledger)
    assert ledger.refused == []
    assert len(ledger.orders) > 5 * LEAST_KILLS, "that was no load"
    return kills


def end_what_is_left(shop: Shop, directory: Path, ledger: Ledger) -> None:
    """Start the shop for the last time, and check that every order comes to its end."""
    file = directory / "shop.db"
    shop.start()
    wait_for("all jobs have ended", 60, lambda: True if is_idle(shop) else None)
    assert shop.get("/jobs/dead-letters")["items"] == []
    shop.stop()
    check(file, ledger)
    statuses = ask(file, "SELECT DISTINCT status FROM orders")
    assert statuses == [("at_warehouse",)]
    audited = (
        "SELECT count(*), count(DISTINCT resource) FROM audit_rows WHERE resource LIKE 'order:%'"
    )
    assert ask(file, audited) == ask(file, "SELECT count(*), count(*) FROM orders")
    mails = ask(file, "SELECT id FROM jobrunner_jobs WHERE queue = 'mail'")
    assert {f"{id}.eml" for (id,) in mails} <= {
        path.name for path in (directory / "outbox").iterdir()
    }


@pytest.mark.slow
@pytest.mark.process
def test_killed_while_it_takes_orders_the_shop_has_rows_and_jobs_together_and_effects_once(
    tmp_path: Path, seed: int, seconds: float
) -> None:
    kill_while_it_takes_orders(tmp_path, seed=seed, seconds=seconds)


def is_idle(shop: Shop) -> bool:
    """Return whether nothing is left to do now."""
    waiting = ("queued", "scheduled", "blocked", "running")
    return not any(queue[state] for queue in shop.get("/jobs/queues")["items"] for state in waiting)
