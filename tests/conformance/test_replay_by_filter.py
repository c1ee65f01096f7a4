"""Replays by a filter: at a pace, planned without a change, and bounded by their start."""

import pytest

from jobrunner.core.counts import ReplayCounts
from jobrunner.core.model import Filter
from jobrunner.store.job_protocol import LetterArguments
from jobrunner.store.protocol import Store
from tests.conformance.test_dead_letters import bury
from tests.support.factories import (
    HOUR,
    MINUTE,
    NOW,
    SECOND,
    claim,
    dead,
    enqueue,
    make_dead,
    new,
    row_of,
    settle,
)

ALL = Filter()


async def test_replay_with_a_spacing_makes_jobs_due_one_after_another(store: Store) -> None:
    letters = await bury(store, *[new() for _ in range(4)])
    done = await store.dead_letters.replay_all(ALL, before=None, now=NOW, limit=10, spacing=SECOND)
    assert done.replayed == 4
    rows = [await row_of(store, one.id) for one in reversed(letters)]
    assert [(row.state, row.run_at - NOW) for row in rows] == [
        ("queued", 0),
        ("scheduled", SECOND),
        ("scheduled", 2 * SECOND),
        ("scheduled", 3 * SECOND),
    ]
    assert [one.id for one in await claim(store)] == [letters[-1].id]
    assert not await claim(store, now=NOW + SECOND - 1)
    assert [one.id for one in await claim(store, now=NOW + SECOND)] == [letters[-2].id]


async def test_replay_with_a_spacing_goes_on_in_the_next_slice(store: Store) -> None:
    letters = await bury(store, *[new() for _ in range(5)])
    cursor, run_at = None, NOW
    while True:
        done = await store.dead_letters.replay_all(
            ALL, before=cursor, now=NOW + SECOND, limit=2, run_at=run_at, spacing=MINUTE
        )
        run_at += done.replayed * MINUTE
        cursor = done.cursor
        if cursor is None:
            break
    rows = [await row_of(store, one.id) for one in reversed(letters)]
    assert [row.state for row in rows] == ["queued", *["scheduled"] * 4]
    # The time of the first has passed, so it is due now.
    assert [row.run_at - NOW for row in rows] == [
        SECOND,
        MINUTE,
        2 * MINUTE,
        3 * MINUTE,
        4 * MINUTE,
    ]


async def test_replay_with_a_spacing_gives_conflicts_no_time(store: Store) -> None:
    letters = await bury(store, new(), new(key="taken"), new(), new(key="taken too"), new())
    await enqueue(store, new(key="taken"), new(key="taken too"))
    done = await store.dead_letters.replay_all(ALL, before=None, now=NOW, limit=10, spacing=SECOND)
    assert (done.replayed, done.conflicts) == (3, 2)
    rows = [await row_of(store, one.id) for one in (letters[4], letters[2], letters[0])]
    assert [row.run_at - NOW for row in rows] == [0, SECOND, 2 * SECOND]


async def test_replay_leaves_a_job_that_dies_again_between_two_slices(store: Store) -> None:
    first, second = await bury(store, new(), new())
    one = await store.dead_letters.replay_all(ALL, before=None, now=NOW, limit=1)
    (attempt,) = await claim(store)
    assert attempt.id == second.id
    await settle(store, dead(attempt))
    two = await store.dead_letters.replay_all(ALL, before=one.cursor, now=NOW, limit=10)
    assert (two.replayed, two.cursor) == (1, None)
    again, other = await row_of(store, second.id), await row_of(store, first.id)
    assert (again.state, again.replays) == ("dead", 1)
    assert (other.state, other.replays) == ("queued", 1)


async def test_replay_leaves_what_it_shall_go_without_and_ends_at_a_cursor(store: Store) -> None:
    letters = await bury(store, *[new() for _ in range(5)])
    page = await store.dead_letters.arguments(ALL, before=None, limit=3)
    assert [task for _, task, _, _ in page.rows] == ["work"] * 3
    assert {args for _, _, args, _ in page.rows} == {"{}"}
    assert page.next is not None
    newest = page.rows[0][0]
    without = {newest}
    plan = await store.dead_letters.plan_replay_all(ALL, without=without)
    assert plan == ReplayCounts(4, 0)
    cursor, replayed = None, 0
    while True:
        done = await store.dead_letters.replay_all(
            ALL, before=cursor, now=NOW, limit=1, without=without, down_to=page.next
        )
        replayed += done.replayed
        cursor = done.cursor
        if cursor is None:
            break
    assert replayed == 2
    states = [(await row_of(store, one.id)).state for one in letters]
    assert states == ["dead", "dead", "queued", "queued", "dead"]
    rest = await store.dead_letters.arguments(ALL, before=page.next, limit=3)
    assert ([letter < page.next for letter, *_ in rest.rows], rest.next) == ([True, True], None)
    none = await store.dead_letters.arguments(ALL, before=None, limit=3, tasks={"play"})
    assert none == LetterArguments([], None)


# -- plans ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tasks", [None, {"work"}, {"play", "work"}])
async def test_plan_of_a_replay_counts_what_the_replay_then_does(
    store: Store, tasks: set[str] | None
) -> None:
    # One after another: while it is unfinished, a job holds its key.
    await make_dead(store, new(key="a"))
    await make_dead(store, new(key="a"))
    await make_dead(store, new(key="b"))
    await make_dead(store, new(key="'; \"\\ \u2028"))
    await make_dead(store, new("play", key="b"))
    await make_dead(store, new("play", key="a"))
    await bury(store, new(), new())
    edited = await make_dead(store, new())
    await store.dead_letters.replay_edited(edited.id, new(replay_of=edited.id))
    await enqueue(store, new(key="b"), new(key="'; \"\\ \u2028"), new(key="c"))
    before = (await store.dead_letters.list(ALL, before=None, limit=100)).rows

    plan = await store.dead_letters.plan_replay_all(ALL, tasks=tasks)
    assert (await store.dead_letters.list(ALL, before=None, limit=100)).rows == before
    assert plan == (ReplayCounts(3, 3) if tasks == {"work"} else ReplayCounts(5, 3))
    done = await store.dead_letters.replay_all(ALL, before=None, now=NOW, limit=100, tasks=tasks)
    assert ReplayCounts(done.replayed, done.conflicts) == plan


async def test_plan_of_a_replay_counts_what_the_filter_means(store: Store) -> None:
    await make_dead(store, new(key="k", tag="a"), at=NOW)
    await make_dead(store, new(key="k", tag="b"), at=NOW + HOUR)
    plan = store.dead_letters.plan_replay_all
    assert await plan(ALL) == ReplayCounts(1, 1)
    # A dead letter that the filter leaves out takes no key.
    assert await plan(Filter(tag="a")) == ReplayCounts(1, 0)
    assert await plan(Filter(until=NOW + HOUR)) == ReplayCounts(1, 0)
    assert await plan(Filter(tag="c")) == ReplayCounts(0, 0)
