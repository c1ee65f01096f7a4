"""Reports of attempts that wait for other jobs, and when they are stored."""

from collections.abc import Awaitable, Callable

import pytest

from jobrunner.core.model import Claimed, Filter
from jobrunner.core.wait_graph import Snapshot, WaitingAttempt, WaitReport
from jobrunner.store.protocol import Store
from tests.support.factories import (
    HOUR,
    NOW,
    OTHER_WORKER,
    SECOND,
    WORKER,
    claim,
    claim_one,
    enqueue,
    ignore,
    new,
    row_of,
    settle,
    succeeded,
    worker_row,
)


def waiting_attempt(job: Claimed, *jobs: int, since: int = 1) -> WaitingAttempt:
    """Return an attempt, as reported, that waits for jobs of its queue."""
    return WaitingAttempt(
        job.worker, job.seq, job.lease, job.queue, jobs, (job.queue,), (7, 8), since
    )


async def test_wait_report_is_seen_by_all_until_the_next_one(
    store: Store,
) -> None:
    await store.workers.join(worker_row(), ignore)
    await store.workers.join(worker_row(OTHER_WORKER), ignore)
    report = WaitReport(
        3, [waiting_attempt(await claim_one(store), 4, 5), waiting_attempt(await claim_one(store))]
    )
    assert await store.workers.report_waits(WORKER, report)
    assert {row.worker: row.wait_report for row in await store.workers.list()} == {
        WORKER: report,
        OTHER_WORKER: WaitReport(),
    }
    assert await store.workers.report_waits(WORKER, WaitReport(4, []))
    assert {row.wait_report.number for row in await store.workers.list()} == {0, 4}
    assert not any(row.wait_report.attempts for row in await store.workers.list())


async def test_wait_report_is_not_stored_once_the_worker_has_left(store: Store) -> None:
    await store.workers.join(worker_row(), ignore)
    await store.workers.leave(WORKER, now=NOW)
    assert not await store.workers.report_waits(WORKER, WaitReport(1, []))
    assert await store.workers.list() == []


Change = Callable[[Store, Claimed, WaitingAttempt], Awaitable[object]]


async def _join(store: Store, job: Claimed, waiting: WaitingAttempt) -> None:
    await store.workers.join(worker_row(OTHER_WORKER + 1), ignore)


async def _leave(store: Store, job: Claimed, waiting: WaitingAttempt) -> None:
    await store.workers.leave(OTHER_WORKER, now=NOW)


async def _report_nothing(store: Store, job: Claimed, waiting: WaitingAttempt) -> None:
    await store.workers.report_waits(OTHER_WORKER, WaitReport(2, []))


async def _wait_anew(store: Store, job: Claimed, waiting: WaitingAttempt) -> None:
    await store.workers.report_waits(OTHER_WORKER, WaitReport(2, [waiting._replace(since=2)]))


async def _cancel_attempt(store: Store, job: Claimed, waiting: WaitingAttempt) -> None:
    await store.jobs.cancel(job.id, now=NOW)


async def _end_attempt(store: Store, job: Claimed, waiting: WaitingAttempt) -> None:
    await settle(store, succeeded(job))


async def _cancel_child(store: Store, job: Claimed, waiting: WaitingAttempt) -> None:
    page = await store.jobs.list(Filter(state="queued"), before=None, limit=9)
    (id,) = (row.id for row in page.rows if row.seq == waiting.jobs[0])
    await store.jobs.cancel(id, now=NOW)


async def _start_child(store: Store, job: Claimed, waiting: WaitingAttempt) -> None:
    assert await claim(store, slots=1)


async def _report_again(store: Store, job: Claimed, waiting: WaitingAttempt) -> None:
    await store.workers.report_waits(OTHER_WORKER, WaitReport(2, [waiting]))


async def _beat(store: Store, job: Claimed, waiting: WaitingAttempt) -> None:
    await store.workers.beat(OTHER_WORKER, now=NOW + SECOND)


@pytest.mark.parametrize(
    ("change", "stored"),
    [
        (_report_again, True),
        (_beat, True),
        (_join, False),
        (_leave, False),
        (_report_nothing, False),
        (_wait_anew, False),
        (_cancel_attempt, False),
        (_end_attempt, False),
        (_cancel_child, False),
        (_start_child, False),
    ],
)
async def test_wait_report_with_a_snapshot_is_stored_only_while_it_holds(
    store: Store, change: Change, stored: bool
) -> None:
    waits: dict[int, WaitingAttempt] = {}
    jobs: dict[int, Claimed] = {}
    for worker in (WORKER, OTHER_WORKER):
        await store.workers.join(worker_row(worker), ignore)
        jobs[worker] = await claim_one(store, worker=worker)
    for worker, job in jobs.items():
        made = await enqueue(store, new(), new(run_at=NOW + HOUR))
        children = [(await row_of(store, one.id)).seq for one in made]
        waits[worker] = waiting_attempt(job, *children)
        assert await store.workers.report_waits(worker, WaitReport(1, [waits[worker]]))
    snapshot = Snapshot(frozenset(waits), list(waits.values()))
    await change(store, jobs[OTHER_WORKER], waits[OTHER_WORKER])
    assert await store.workers.report_waits(WORKER, WaitReport(2, []), snapshot=snapshot) is stored
    (report,) = [row.wait_report for row in await store.workers.list() if row.worker == WORKER]
    assert report == (WaitReport(2, []) if stored else WaitReport(1, [waits[WORKER]]))
