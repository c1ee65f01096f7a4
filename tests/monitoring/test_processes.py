"""Two processes on one file under load, one of them killed: all show the same numbers, and those of the ledger."""

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Final

import pytest

from jobrunner.core.clock import SECOND_US
from tests.monitoring.parsed import Series, nonzero, parsed
from tests.support.processes import Child, process

LOAD_S: Final = 3.0
LOST_US: Final = 2 * SECOND_US
"""A second of statistics, and what a busy machine makes of it."""


async def metrics(child: Child) -> str:
    child.send("scrape")
    text: str = (await child.heard("metrics"))["text"]
    return text


def ledger(file: Path, select: str, *values: object) -> Mapping[tuple[str, ...], int]:
    """Return the numbers of a table, by the first columns of the statement."""
    with closing(sqlite3.connect(file)) as conn:
        return {tuple(key): number for *key, number in conn.execute(select, values)}


ATTEMPTS: Final = """
SELECT outcome, queue, task, count(*) FROM jobrunner_attempts JOIN (
    SELECT seq, queue, task FROM jobrunner_jobs UNION ALL SELECT seq, queue, task FROM jobrunner_dead_letters
) ON seq = job {} GROUP BY outcome, queue, task"""
SINCE: Final = "WHERE outcome = 'succeeded' AND worker = ? AND finished_at > ?"
LAST: Final = """
SELECT max(finished_at), 1 FROM jobrunner_attempts WHERE outcome = 'succeeded' AND worker = ?"""
DEAD: Final = "SELECT queue, reason, task, count(*) FROM jobrunner_dead_letters GROUP BY 1, 2, 3"


def growing(text: str) -> Mapping[Series, float]:
    return parsed(text, growing=True)


async def killed_under_load(*command: str) -> int:
    """Run two processes under load and kill one of them; return its worker's id once all jobs have ended."""
    async with process(*command) as one, process(*command) as other:
        await one.heard("open")
        killed: int = (await other.heard("open"))["worker"]
        for child in (one, other):
            child.send("load")
            await child.heard("loading")
        assert await other.lives(LOAD_S)
        early = growing(await metrics(one))
        late = growing(await metrics(other))
        # What one process has shown, the other one shows too, with what came since.
        assert all(late[key] >= number for key, number in early.items())
        assert sum(nonzero(late, "jobrunner_jobs_total").values()) > 0
        other.send_signal(9)
        await other.kill()
        one.send("rest")
        await one.heard("resting")
        after = growing(await metrics(one))
        assert all(after[key] >= number for key, number in late.items())
        one.send()
        await one.heard("closed")
    return killed


@pytest.mark.slow
async def test_counters_of_two_processes_are_the_same_and_equal_the_ledger_after_kill_9(
    tmp_path: Path,
) -> None:
    file = tmp_path / "jobs.db"
    command = ("-m", "tests.monitoring.site", str(file))
    killed = await killed_under_load(*command)
    async with process(*command) as one, process(*command) as other:
        await one.heard("open")
        await other.heard("open")
        found = growing(await metrics(one))
        again = growing(await metrics(other))
    jobs = (*_of(found, "jobs"), *_of(found, "attempts"))
    assert jobs == (*_of(again, "jobs"), *_of(again, "attempts"))

    # What did not succeed is counted in the transaction that stores it.
    attempts = dict(nonzero(found, "jobrunner_attempts_total"))
    stored = dict(ledger(file, ATTEMPTS.format("")))
    assert {key: number for key, number in attempts.items() if key[0] != "succeeded"} == {
        key: number for key, number in stored.items() if key[0] != "succeeded"
    }
    assert attempts["failed", "mail", "shaky"] > 0
    dead = ledger(file, DEAD)
    assert nonzero(found, "jobrunner_dead_letters_total") == dead
    retried = attempts["failed", "mail", "shaky"] - dead["mail", "exhausted", "shaky"]
    assert nonzero(found, "jobrunner_retries_total") == {("mail", "shaky"): retried}
    assert nonzero(found, "jobrunner_recoveries_total") == {(): 1}

    # Of the successes the killed process has lost those of its last second, and the other one none.
    last = max(ledger(file, LAST, killed))
    may_be_lost = ledger(file, ATTEMPTS.format(SINCE), killed, int(last[0]) - LOST_US)
    for key, number in stored.items():
        if key[0] == "succeeded":
            assert 0 <= number - attempts[key] <= may_be_lost.get(key, 0), key
            assert attempts[key] > 0
    # Each attempt that counts has its place in both histograms.
    runs = sum(nonzero(found, "jobrunner_run_seconds_count").values())
    waits = sum(nonzero(found, "jobrunner_wait_seconds_count").values())
    counted = sum(number for key, number in attempts.items() if key[0] == "succeeded")
    assert runs == waits
    assert counted <= runs <= sum(stored.values())


def _of(found: Mapping[Series, float], name: str) -> list[tuple[tuple[str, ...], float]]:
    return sorted(nonzero(found, f"jobrunner_{name}_total").items())
