"""Groups of dead letters: what is one group, what is counted, what a filter by group means."""

from collections.abc import Sequence

import pytest

from jobrunner.core.fingerprint import fingerprint
from jobrunner.core.model import Claimed, Dead, DeadReason, Ended, Filter, Outcome, RetryAt
from jobrunner.store.groups import HOURS, RETRYING_CAP, GroupRow, Groups
from jobrunner.store.protocol import Store
from jobrunner.store.round import Round
from tests.conformance.rigs import Rig
from tests.support.factories import (
    DAY,
    HOUR,
    MINUTE,
    NOW,
    OTHER_WORKER,
    WORKER,
    claim,
    claim_one,
    dead,
    enqueue,
    new,
    row_of,
    settle,
    snoozed,
    succeeded,
    worker_row,
)


def failure(error: str, at: int = NOW) -> Ended:
    return Ended("failed", at, "ValueError", error, "Traceback: no luck")


def group_of(error: str, task: str = "work") -> str:
    return fingerprint(task, "ValueError", error, "Traceback: no luck")


async def die(
    store: Store, error: str, at: int = NOW, *, task: str = "work", reason: DeadReason = "exhausted"
) -> str:
    """Store a job and let it die of an error; return its id."""
    job = await claim_one(store, new(task))
    await settle(store, Dead(job, failure(error, at), reason))
    return job.id


async def wait_for_retry(store: Store, *errors: str) -> list[Claimed]:
    """Store a job for each error, and let it fail once."""
    await enqueue(store, *[new() for _ in errors])
    jobs = list(await claim(store))
    await settle(
        store,
        *[
            RetryAt(job, failure(error), NOW + HOUR)
            for job, error in zip(jobs, errors, strict=True)
        ],
    )
    return jobs


async def groups(store: Store, *, now: int = NOW, limit: int = 200) -> Groups:
    return await store.dead_letters.groups(now=now, limit=limit)


def counts(found: Groups) -> Sequence[tuple[str | None, int, int]]:
    return [(row.error, row.letters, row.retrying) for row in found.rows]


async def test_empty_store_has_no_groups(store: Store) -> None:
    assert await groups(store) == Groups([], 0, complete=True)


async def test_groups_have_one_fingerprint_and_come_most_recent_death_first(store: Store) -> None:
    first = await die(store, "row 1 is gone", NOW - 2 * HOUR)
    await die(store, "row 2 is locked", NOW - HOUR)
    newest = await die(store, "row 3 is gone", NOW)
    other = await die(store, "row 4 is gone", NOW - MINUTE, task="play")
    found = await groups(store)
    assert found.complete
    gone, play, locked = found.rows
    assert gone == GroupRow(
        group_of("row 1 is gone"),
        "work",
        "ValueError",
        "row 3 is gone",
        2,
        NOW - 2 * HOUR,
        NOW,
        newest,
        gone.hours,
        recent=1,
        before=0,
        since=NOW,
    )
    assert (play.task, play.newest, play.letters) == ("play", other, 1)
    assert locked.error == "row 2 is locked"
    assert {(await row_of(store, id)).fingerprint for id in (first, newest)} == {gone.fingerprint}


async def test_deaths_are_counted_by_hour_up_to_now(store: Store) -> None:
    for age in (0, 1, HOUR - 1, HOUR, HOUR + 1, DAY, DAY + 1, 9 * DAY):
        await die(store, "no", NOW - age)
    (row,) = (await groups(store)).rows
    # The end of an hour belongs to the next one; a death at or after `now` to the last.
    assert row.hours == (1, *[0] * (HOURS - 3), 1, 4)
    assert row.letters == 8
    later = (await groups(store, now=NOW + 30 * DAY)).rows[0]
    assert (later.hours, later.letters) == ((0,) * HOURS, 8)
    earlier = (await groups(store, now=NOW - HOUR)).rows[0]
    assert earlier.hours[-1] == 5


async def test_many_deaths_of_an_hour_are_counted_as_few_are(store: Store) -> None:
    await enqueue(store, *[new() for _ in range(150)])
    jobs = await claim(store)
    await settle(
        store,
        *[
            Dead(job, failure("no", NOW - 1 - (n % 3) * HOUR), "exhausted")
            for n, job in enumerate(jobs)
        ],
    )
    (row,) = (await groups(store)).rows
    assert row.hours == (*[0] * (HOURS - 3), 50, 50, 50)


async def test_replayed_and_deleted_dead_letters_leave_their_group(store: Store) -> None:
    replayed, edited, deleted = [await die(store, f"row {n} is gone") for n in range(3)]
    assert counts(await groups(store)) == [("row 2 is gone", 3, 0)]
    await store.dead_letters.delete(deleted)
    await store.dead_letters.replay_edited(edited, new(replay_of=edited))
    await store.dead_letters.replay(replayed, now=NOW)
    assert (await groups(store)).rows == []
    # It dies of something else now.
    (job,) = [job for job in await claim(store) if job.id == replayed]
    await settle(store, Dead(job, failure("disk full"), "exhausted"))
    (row,) = (await groups(store)).rows
    assert (row.error, row.letters, row.newest) == ("disk full", 1, replayed)
    assert row.fingerprint == group_of("disk full")


async def test_every_reason_has_a_group(store: Store) -> None:
    reasons: Sequence[DeadReason] = ("exhausted", "buried", "not_retryable", "invalid_args")
    for reason in reasons:
        await die(store, f"{reason} it is", reason=reason)
    await enqueue(store, new("gone"))
    (unknown,) = await store.dead_letters.bury_waiting(
        "default",
        "gone",
        due_before=NOW + 1,
        reason="unknown_task",
        error="no worker knows the task 'gone'",
        now=NOW,
        limit=9,
    )
    found = await groups(store)
    assert {row.error for row in found.rows} == {
        *[f"{reason} it is" for reason in reasons],
        "no worker knows the task 'gone'",
    }
    assert [row.newest for row in found.rows if row.task == "gone"] == [unknown]
    assert found.ungrouped == 0


async def test_lost_jobs_of_a_task_are_one_group(rig: Rig) -> None:
    store = rig.store
    await store.workers.join(worker_row(tasks={"work": 1, "play": 1}), lambda: None)
    await enqueue(store, new(), new(), new("play"))
    await claim(store, tasks=["work", "play"])
    rig.kill_worker(WORKER)
    assert len((await store.workers.recover(now=NOW, thorough=False)).buried) == 3
    found = await groups(store)
    assert {(row.task, row.error_type, row.letters) for row in found.rows} == {
        ("work", "ProcessLost", 2),
        ("play", "ProcessLost", 1),
    }
    assert found.ungrouped == 0


# -- the present series ----------------------------------------------------------------------------


async def test_recent_deaths_and_those_of_the_hour_before_are_counted(store: Store) -> None:
    for age in (0, 9, 10, 11, 69, 70, 71):
        await die(store, "no", NOW - age * MINUTE)
    (row,) = (await groups(store)).rows
    assert (row.recent, row.before) == (3, 3)


@pytest.mark.parametrize(
    ("ages", "since"),
    [
        ((0,), 0),
        ((0, 10, 20), 20),
        ((0, 10, 21, 31), 10),  # eleven minutes without a death end a series
        ((45, 50, 90), 50),  # the last series may be over
        ((200, 190, 3 * 24 * 60), 200),
        ((2 * 24 * 60, 2 * 24 * 60 + 5), 2 * 24 * 60),  # not searched beyond a day
    ],
)
async def test_series_begins_after_ten_minutes_without_a_death(
    store: Store, ages: tuple[int, ...], since: int
) -> None:
    for age in ages:
        await die(store, "no", NOW - age * MINUTE)
    (row,) = (await groups(store)).rows
    assert row.since == NOW - since * MINUTE


async def test_series_begins_with_a_failure_that_waits_for_its_retry(store: Store) -> None:
    await wait_for_retry(store, "row 1 is gone")
    await die(store, "row 2 is gone", NOW + 5 * MINUTE)
    (row,) = (await groups(store, now=NOW + 6 * MINUTE)).rows
    assert (row.letters, row.retrying, row.since) == (1, 1, NOW)


# -- jobs that wait for a retry --------------------------------------------------------------------


async def test_jobs_that_wait_for_a_retry_count_in_the_group_of_their_last_failure(
    store: Store,
) -> None:
    await die(store, "row 1 is gone")
    await wait_for_retry(store, "row 2 is gone", "row 3 is gone", "disk full")
    found = await groups(store)
    assert counts(found) == [("row 1 is gone", 1, 2), ("disk full", 0, 1)]
    only = found.rows[1]
    assert only == GroupRow(
        group_of("disk full"), "work", "ValueError", "disk full", retrying=1, since=NOW
    )


async def test_groups_without_a_dead_letter_follow_most_jobs_first(store: Store) -> None:
    await die(store, "old", NOW - 9 * DAY)
    await wait_for_retry(store, "b", "c", "c", "c", "d", "d")
    assert counts(await groups(store)) == [("old", 1, 0), ("c", 0, 3), ("d", 0, 2), ("b", 0, 1)]


async def test_last_failure_counts_and_no_other_wait_does(store: Store) -> None:
    again, *others = await wait_for_retry(store, "first", "snoozes", "succeeds")
    later = await claim(store, now=NOW + HOUR)
    for job in later:
        outcomes: dict[str, Outcome] = {
            again.id: RetryAt(job, failure("second"), NOW + DAY),
            others[0].id: snoozed(job, NOW + DAY),
            others[1].id: succeeded(job),
        }
        await settle(store, outcomes[job.id])
    await enqueue(store, new(run_at=NOW + DAY))
    assert counts(await groups(store)) == [("second", 0, 1)]


async def test_jobs_that_wait_for_a_retry_are_counted_up_to_a_cap(store: Store) -> None:
    await wait_for_retry(store, *["no"] * RETRYING_CAP)
    found = await groups(store)
    assert (counts(found), found.complete) == ([("no", 0, RETRYING_CAP)], True)
    await wait_for_retry(store, "no")
    found = await groups(store)
    assert (counts(found), found.complete) == ([("no", 0, RETRYING_CAP)], False)


# -- the limit -----------------------------------------------------------------------------------------


async def test_groups_beyond_the_limit_are_left_out_and_said_to_be_missing(store: Store) -> None:
    for number, error in enumerate("abc"):
        await die(store, error, NOW - number * HOUR)
    await wait_for_retry(store, "d", "c")
    assert [row.error for row in (await groups(store, limit=4)).rows] == ["a", "b", "c", "d"]
    for limit, errors, complete in (
        (4, "abcd", True),
        (3, "abc", False),
        (2, "ab", False),
        (1, "a", False),
    ):
        found = await groups(store, limit=limit)
        assert [row.error for row in found.rows] == list(errors)
        assert found.complete == complete
    # A group that the limit has left out is not taken for one without dead letters.
    assert [row.letters for row in (await groups(store, limit=2)).rows] == [1, 1]


# -- the filter -----------------------------------------------------------------------------------


async def test_filter_by_group_matches_its_dead_letters(store: Store) -> None:
    mine = [await die(store, f"row {n} is gone", NOW + n) for n in range(5)]
    others = [await die(store, "disk full", NOW + 1) for _ in range(3)]
    where = Filter(group=group_of("row 1 is gone"))
    letters = store.dead_letters
    found = await letters.list(where, before=None, limit=3)
    rest = await letters.list(where, before=found.next, limit=3)
    assert [row.id for row in (*found.rows, *rest.rows)] == mine[::-1]
    assert rest.next is None
    assert (await letters.count(where, cap=100)).number == 5
    assert (await letters.count(where, cap=2)).number == 2
    assert (await letters.count(where._replace(until=NOW + 2), cap=100)).number == 2
    assert (await letters.count(where._replace(task="play"), cap=100)).number == 0
    assert (await letters.count(Filter(group="0" * 16), cap=100)).number == 0

    plan = await letters.plan_replay_all(where._replace(since=NOW + 2))
    assert (plan.replayed, plan.conflicts) == (3, 0)
    done = await letters.replay_all(where._replace(since=NOW + 2), before=None, now=NOW, limit=2)
    assert (done.replayed, done.conflicts) == (2, 0)
    last = await letters.replay_all(
        where._replace(since=NOW + 2), before=done.cursor, now=NOW, limit=2
    )
    assert (last.replayed, last.cursor) == (1, None)
    assert (await letters.delete_all(where, before=None, limit=100)).deleted == 2
    left = await letters.list(Filter(), before=None, limit=100)
    assert [row.id for row in left.rows] == others[::-1]


async def test_filter_by_group_leaves_out_what_was_replayed_with_other_arguments(
    store: Store,
) -> None:
    id = await die(store, "no")
    await store.dead_letters.replay_edited(id, new(replay_of=id))
    where = Filter(group=group_of("no"))
    assert (await store.dead_letters.count(where, cap=9)).number == 0
    assert (await store.dead_letters.list(where, before=None, limit=9)).rows == []
    assert (await store.dead_letters.delete_all(where, before=None, limit=9)).deleted == 0


@pytest.mark.parametrize("limit", [1, 500])
async def test_fill_groups_finds_nothing_in_a_store_of_this_version(
    store: Store, limit: int
) -> None:
    await die(store, "no")
    assert await store.dead_letters.fill_groups(limit=limit) == 0
    await store.write(Round(NOW))


async def test_last_workers_counts_letters_by_the_worker_of_their_last_attempt(
    store: Store,
) -> None:
    letters = [await claim_one(store, worker=one) for one in (WORKER, WORKER, OTHER_WORKER)]
    await settle(store, *map(dead, letters))
    seqs = [letter.seq for letter in letters]
    found = await store.dead_letters.last_workers(seqs)
    assert list(found.items()) == [(WORKER, 2), (OTHER_WORKER, 1)]
    assert await store.dead_letters.last_workers(seqs[2:]) == {OTHER_WORKER: 1}
    assert await store.dead_letters.last_workers([]) == {}
    # The attempt of another worker after a replay is the last one.
    await store.dead_letters.replay(letters[2].id, now=NOW)
    (again,) = await claim(store, worker=WORKER)
    await settle(store, dead(again))
    assert await store.dead_letters.last_workers(seqs) == {WORKER: 3}
