"""The doctor finds rows of batches and edges that contradict each other, whichever rule they break."""

import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest

from jobrunner.store.protocol import Store
from jobrunner.store.sqlite import SqliteStore
from jobrunner.store.sqlite.maintenance.doctor import diagnose
from jobrunner.store.sqlite.sql import workflow_checks
from tests.support.factories import NOW, claim_one, dead, new, parked, settle, succeeded
from tests.support.workflows import a_batch, claim_all, needs


async def pair(store: Store) -> tuple[str, str, str]:
    """Store a batch of two jobs, the second of which needs the first; return them and the batch."""
    first, second = new(), new()
    made = await a_batch(store, first, second, edges=needs(second, first))
    return first.id, second.id, made.id


async def done_pair(store: Store) -> tuple[str, str, str]:
    """As ``pair``, with the first job succeeded."""
    first, second, batch = await pair(store)
    await settle(store, succeeded((await claim_all(store))[first]))
    return first, second, batch


async def succeeded_batch(store: Store) -> tuple[str, str]:
    made = await a_batch(store, job := new())
    await settle(store, succeeded((await claim_all(store))[job.id]))
    return made.then, made.id


async def failed_batch(store: Store) -> tuple[str, str, str]:
    """Store a batch whose member is dead; return ``then``, ``at_end`` and the batch."""
    made = await a_batch(store, job := new())
    await settle(store, dead((await claim_all(store))[job.id]))
    return made.then, made.at_end, made.id


async def waits_for_a_signal(store: Store) -> tuple[str]:
    job = await claim_one(store)
    await settle(store, parked(job, "approved"))
    return (job.id,)


class Fault(NamedTuple):
    """A way to break a rule."""

    rule: str
    stored: Callable[[Store], Awaitable[tuple[str, ...]]]
    broken_by: str
    """A statement that has the ids of what was stored as :a, :b and :c."""
    named: str
    """The one of these that the doctor names."""


FAULTS = (
    Fault(
        "a batch has ended while a member is unfinished",
        pair,
        "UPDATE jobrunner_batches SET state = 'failed', ended_at = 1 WHERE id = :c",
        "c",
    ),
    Fault(
        "a batch runs although none of its members is unfinished",
        pair,
        "UPDATE jobrunner_jobs SET state = 'succeeded' WHERE batch IS NOT NULL",
        "c",
    ),
    Fault(
        "a batch has succeeded although a member has not",
        failed_batch,
        "UPDATE jobrunner_batches SET state = 'succeeded' WHERE id = :c",
        "c",
    ),
    Fault(
        "a batch has succeeded although a member has not",
        pair,
        "UPDATE jobrunner_jobs SET state = 'cancelled' WHERE id = :b;"
        "UPDATE jobrunner_jobs SET state = 'succeeded' WHERE id = :a;"
        "UPDATE jobrunner_batches SET state = 'succeeded', ended_at = 1 WHERE id = :c",
        "c",
    ),
    Fault(
        "a job is blocked and waits for nothing",
        pair,
        "UPDATE jobrunner_edges SET state = 0 WHERE job = :b",
        "b",
    ),
    Fault(
        "a job is blocked and waits for nothing",
        waits_for_a_signal,
        "DELETE FROM jobrunner_edges WHERE job = :a",
        "a",
    ),
    Fault(
        "a job is blocked by what can never come",
        pair,
        "UPDATE jobrunner_edges SET state = 2 WHERE job = :b",
        "b",
    ),
    Fault(
        "a job waits for one that has ended",
        pair,
        "UPDATE jobrunner_jobs SET state = 'succeeded' WHERE id = :a",
        "b",
    ),
    Fault(
        "a job waits for one that has ended",
        pair,
        "DELETE FROM jobrunner_jobs WHERE id = :a",
        "b",
    ),
    Fault(
        "a job waits for a batch that has ended",
        succeeded_batch,
        "UPDATE jobrunner_edges SET state = 1 WHERE job = :a;"
        "UPDATE jobrunner_jobs SET state = 'blocked' WHERE id = :a",
        "a",
    ),
    Fault(
        # One that needs the end of a failed batch; ``then`` may wait for a replay.
        "a job waits for a batch that has ended",
        failed_batch,
        "UPDATE jobrunner_edges SET state = 1 WHERE job = :b;"
        "UPDATE jobrunner_jobs SET state = 'blocked' WHERE id = :b",
        "b",
    ),
    Fault(
        "a job goes on although what it needs has not succeeded",
        pair,
        "UPDATE jobrunner_edges SET state = 0 WHERE job = :b;"
        "UPDATE jobrunner_jobs SET state = 'queued' WHERE id = :b",
        "b",
    ),
    Fault(
        "a job goes on although what it needs has not succeeded",
        failed_batch,
        "UPDATE jobrunner_edges SET state = 0 WHERE job = :a;"
        "UPDATE jobrunner_jobs SET state = 'queued' WHERE id = :a",
        "a",
    ),
    Fault(
        "a job is parked for a signal that is there",
        waits_for_a_signal,
        "INSERT INTO jobrunner_steps (job, kind, name, value, at)"
        " SELECT seq, 'signal', 'approved', '1', 1 FROM jobrunner_jobs WHERE id = :a",
        "a",
    ),
)


def found_by_doctor(file: Path) -> dict[str, str]:
    """Return the broken rules with the ids that the doctor names."""
    findings = diagnose(file, now=lambda: NOW, deep=False)
    said = [one.what.partition(": ") for one in findings if one.about == "workflows"]
    return {rule: ids for rule, _, ids in said}


def test_each_rule_has_a_fault_that_breaks_it() -> None:
    assert {fault.rule for fault in FAULTS} == set(workflow_checks._CHECKS)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.rule}-{fault.stored.__name__}")
async def test_doctor_names_the_rule_that_rows_break_and_the_row(
    tmp_db: Path, fault: Fault
) -> None:
    store = SqliteStore(tmp_db)
    await store.open()
    ids = dict(zip("abc", await fault.stored(store), strict=False))
    await store.close()
    assert found_by_doctor(tmp_db) == {}
    with closing(sqlite3.connect(tmp_db)) as conn, conn:
        for statement in fault.broken_by.split(";"):
            conn.execute(statement, ids)
    assert found_by_doctor(tmp_db)[fault.rule] == ids[fault.named]


@pytest.mark.parametrize("stored", [pair, done_pair, succeeded_batch, failed_batch])
async def test_doctor_finds_no_fault_in_healthy_rows(
    tmp_db: Path, stored: Callable[[Store], Awaitable[tuple[str, ...]]]
) -> None:
    store = SqliteStore(tmp_db)
    await store.open()
    await stored(store)
    await store.close()
    assert found_by_doctor(tmp_db) == {}
