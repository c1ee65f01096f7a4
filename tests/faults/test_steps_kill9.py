"""``kill -9`` at each commit of jobs with steps: what is remembered never happens again, and nothing is stuck."""

import contextlib
import itertools
import sqlite3
from collections import Counter, defaultdict
from pathlib import Path

from jobrunner import JobRunner
from tests.faults.mortal import durable, make_tables, router
from tests.soak.budget import rounds
from tests.support.engine import soon
from tests.support.processes import process

COMMITS = 12
"""A worker makes about so many for three jobs before it has nothing left to do."""
LEAST_ROUNDS = 2 * COMMITS
EVERY = 2
"""The items after which ``durable`` stores its cursor."""
ITEMS = 6
CHILDREN = 2


async def kill_at_commits(file: Path, ledger: Path, seconds: float) -> int:
    """Kill a worker before and after one commit after another; return the number of deaths."""
    make_tables(str(file))
    boundaries = itertools.cycle(
        f"{side} {number}" for number in range(1, COMMITS + 1) for side in ("before", "after")
    )
    codes: list[int] = []
    async with process("-m", "tests.faults.mortal", str(file)) as mortals:
        await mortals.heard("ready")
        for _ in rounds(seconds, least=LEAST_ROUNDS):
            jobs = JobRunner(file)  # leaves before, so that the next worker finds the dead one
            jobs.include(router)
            async with jobs.running(work=False):
                await jobs.enqueue_many(durable.call(str(ledger)) for _ in range(2))
            mortals.send(next(boundaries))
            codes.append((await mortals.heard("died"))["code"])
        mortals.send("before 1000000")
        assert (await soon(mortals.heard("died")))["code"] == 0
    return codes.count(-9)


async def test_21_23_24_29_kill_at_each_commit_of_steps_repeats_only_what_was_not_stored(
    tmp_db: Path, tmp_path: Path, seconds: float
) -> None:
    """Faults 21 (between effect and memo), 23 (behind the memo), 24 (with children), 29 (in an iteration)."""
    ledger = tmp_path / "ledger"
    deaths = await kill_at_commits(tmp_db, ledger, seconds / 3)
    assert deaths > LEAST_ROUNDS / 3
    effects: dict[str, list[str]] = defaultdict(list)
    items: dict[str, Counter[int]] = defaultdict(Counter)
    for line in ledger.read_text().splitlines():
        id, kind, value = line.split()
        if kind == "effect":
            effects[id].append(line)
        else:
            items[id][int(value)] += 1
    with contextlib.closing(sqlite3.connect(tmp_db)) as db:
        jobs = db.execute(
            "SELECT seq, id, state, result FROM jobrunner_jobs WHERE task = 'durable'"
        ).fetchall()
        rows = dict(db.execute("SELECT job, count(*) FROM effects GROUP BY job"))
        lost = dict(
            db.execute(
                "SELECT job, count(*) FROM jobrunner_attempts WHERE outcome = 'lost' GROUP BY job"
            )
        )
        batches = dict(
            db.execute(
                "SELECT b.parent, count(*) FROM jobrunner_batches b JOIN jobrunner_jobs j ON j.batch = b.seq"
                " AND j.state = 'succeeded' GROUP BY b.parent"
            )
        )
        (unfinished,) = db.execute(
            "SELECT count(*) FROM jobrunner_jobs WHERE state NOT IN ('succeeded')"
        ).fetchone()
    assert unfinished == 0, "a job is stuck"
    assert sum(lost.values()) > deaths / 4, (
        "hardly any attempt was killed: the deaths prove nothing"
    )
    for seq, id, _, result in jobs:
        killed = lost.get(seq, 0)
        assert 1 <= len(effects[id]) <= 1 + killed
        # The remembered effect is the last one: it never happened again afterwards.
        assert result == f'"{effects[id][-1]}"'
        assert rows[id] == 1, "rows of a step are written once"
        assert batches[id] == CHILDREN, "children are stored once"
        assert set(items[id]) == set(range(1, ITEMS + 1))
        assert items[id].total() <= ITEMS + EVERY * killed
    assert len(rows) == len(jobs)
