"""Checks a store that an older version has written, with rows in every state, once it is migrated.

The rows are those of ``version_N.sql`` and ``postgres_version_N.sql``; the worker of the running ones is gone.
"""

from jobrunner.core.limits import Limit, LimitName
from jobrunner.core.model import Filter
from jobrunner.store.protocol import Store
from tests.support.factories import (
    DUE,
    MINUTE,
    NOW,
    SECOND,
    WORKER,
    claim,
    enqueue,
    new,
    row_of,
    settle,
    succeeded,
)

ID = "01936d2c-0000-7000-8000-0000000000{:02}"


async def states(store: Store) -> dict[int, str]:
    """Return the state of each job that all the files have, by the last two digits of its id."""
    page = await store.jobs.list(Filter(), before=None, limit=99)
    return {int(row.id[-2:]): row.state for row in page.rows if row.id < ID.format(40)}


async def keeps_rows_in_every_state(store: Store) -> None:
    """Check the rows of all versions."""
    assert await states(store) == {
        **dict.fromkeys((8, 9, 21, 23, 24, 27), "queued"),
        **dict.fromkeys((10, 11, 12), "succeeded"),
        13: "cancelled",
        14: "expired",
        **dict.fromkeys((15, 16, 17), "scheduled"),
        **dict.fromkeys((18, 25, 26, 28), "running"),
        **dict.fromkeys((19, 20), "blocked"),
    }
    letters = (await store.dead_letters.list(Filter(), before=None, limit=99)).rows
    assert {int(row.id[-2:]): row.reason for row in letters if row.id < ID.format(40)} == {
        1: "exhausted",
        2: "buried",
        3: "not_retryable",
        4: "lost",
        5: "unknown_task",
        6: "invalid_args",
    }
    assert (await row_of(store, ID.format(7))).replayed_as == ID.format(8)
    assert (await row_of(store, ID.format(8))).replay_of == ID.format(7)
    assert (await row_of(store, ID.format(10))).result == '"done"'
    assert (await row_of(store, ID.format(11))).result_omitted == "too large"
    assert (await row_of(store, ID.format(20))).after == ID.format(19)
    assert [queue.name for queue in await store.jobs.queues() if queue.paused] == ["closed"]
    schedules = await store.schedules.list(task=None, after=None, limit=9)
    assert [(row.id, row.source, row.paused) for row in schedules] == [
        ("a", "code", True),
        ("launch", "stored", True),
        ("nightly", "stored", False),
    ]
    ticks = await store.schedules.ticks("nightly", limit=9)
    assert [tick.outcome for tick in ticks] == ["overlap", "fired", "key", "missed"]


async def goes_on(store: Store) -> None:
    """Check that the worker is found dead, and that its jobs and the others run."""
    # On SQLite the lock file of the worker is as gone as its process, which counts after a while.
    found = [
        await store.workers.recover(now=now, thorough=True) for now in (NOW, NOW + 10 * SECOND)
    ]
    assert [worker for one in found for worker in one.workers] == [WORKER]
    assert [letter for one in found for letter in one.buried] == [ID.format(28)]
    assert (await states(store))[26] == "cancelled"
    (held,) = await enqueue(store, new(key="k"))
    assert (held.id, held.created) == (ID.format(23), False)
    await store.dead_letters.replay(ID.format(1), now=NOW)
    queues = ("default", "side", "again", "closed", "run")
    claimed = await claim(store, *queues, now=DUE)
    # One suspect at a time, the blocked ones behind their head, nothing of the paused queue.
    ids = sorted(int(job.id[-2:]) for job in claimed)
    assert ids == [1, 8, 9, 15, 16, 17, 18, 21, 23, 25, 27]
    await settle(store, *map(succeeded, claimed))
    following = await claim(store, *queues, now=DUE)
    assert [int(job.id[-2:]) for job in following] == [19]
    seen = await store.schedules.get("nightly")
    assert seen is not None
    assert (seen.next, seen.fired, seen.skipped) == (NOW + 2 * MINUTE, 1, 5)
    (made,) = await enqueue(store, new())
    assert (await row_of(store, made.id)).seq > max(job.seq for job in claimed)


async def keeps_lanes_batches_and_steps(store: Store) -> None:
    """Check the rows that versions since limits and workflows have."""
    batch = await store.workflows.get(ID.format(45))
    assert batch is not None
    assert (batch.name, batch.state) == ("five", "running")
    graph = await store.workflows.graph(ID.format(45), limit=9)
    assert graph is not None
    states = {int(row.id[-2:]): row.state for row in (*graph.members, *graph.callbacks)}
    assert states == {
        40: "running",
        41: "blocked",
        42: "succeeded",
        43: "dead",
        44: "running",
        **dict.fromkeys((46, 47, 48), "blocked"),
    }
    waits = await row_of(store, ID.format(54))
    assert [step.name for step in await store.workflows.steps(waits.seq)] == ["charge"]
    assert await store.workflows.signal(ID.format(54), "approved", "true", now=NOW)
    assert [job.id for job in await claim(store, "steps", now=NOW)] == [ID.format(54)]
    # Jobs of a full lane and of one whose bucket is empty wait; the more urgent lane comes first.
    tasks = ("sync", "drip", "open")
    one = await claim(store, "lanes", tasks=tasks, slots=1, now=DUE)
    assert [job.id for job in one] == [ID.format(63)]
    rest = await claim(store, "lanes", tasks=tasks, now=DUE)
    assert [job.id for job in rest] == [ID.format(64), ID.format(65)]
    await store.limits.set(LimitName("lanes", "sync"), Limit(2), now=DUE)
    assert [job.id for job in await claim(store, "lanes", tasks=tasks, now=DUE)] == [ID.format(59)]
    late = await claim(store, "lanes", tasks=tasks, now=NOW + 61 * MINUTE)
    assert [job.id for job in late] == [ID.format(62)]
    assert await store.limits.repair(now=DUE) == 0
