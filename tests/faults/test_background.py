"""Background tasks behind a real server: on disk before the answer leaves, whatever happens to the process then."""

import sqlite3
from pathlib import Path

import pytest

from tests.faults.test_shutdown_signals import served
from tests.support.sessions import count_rows, make_table

APP = "tests.faults.background_site:create_app"
ORDERS = 10


def stored(file: Path) -> list[tuple[str, str, str]]:
    """Return the jobs that a stranger sees: tag, task and state."""
    conn = sqlite3.connect(file)
    try:
        rows = conn.execute("SELECT tag, task, state FROM jobrunner_jobs ORDER BY seq").fetchall()
    finally:
        conn.close()
    return [(tag, task.rpartition(".")[2], state) for tag, task, state in rows]


def pair(item: str) -> list[tuple[str, str, str]]:
    return [(item, "ship", "queued"), (item, "bill", "blocked")]


@pytest.mark.parametrize("route", ["plain", "joined"])
async def test_tasks_are_stored_before_the_answer_leaves(tmp_db: Path, route: str) -> None:
    make_table(tmp_db)
    async with served(tmp_db, app=APP) as site:
        for number in range(ORDERS):
            (await site.client.post(f"/{route}/{number}")).raise_for_status()
            assert stored(tmp_db)[2 * number :] == pair(str(number))
            assert count_rows(tmp_db) == (number + 1 if route == "joined" else 0)


@pytest.mark.parametrize("route", ["plain", "joined"])
async def test_tasks_outlive_a_kill_right_after_the_answer(tmp_db: Path, route: str) -> None:
    make_table(tmp_db)
    expected: list[tuple[str, str, str]] = []
    for number in range(3):
        async with served(tmp_db, app=APP) as site:
            (await site.client.post(f"/{route}/{number}")).raise_for_status()
            await site.server.kill()
        expected += pair(str(number))
        assert stored(tmp_db) == expected
