"""Schedules: written as they were seen or not at all, fired once, recorded, found when due, pruned."""

import asyncio
from collections.abc import Sequence

import pytest

from jobrunner.core.errors import StoreError
from jobrunner.core.model import Enqueue, Enqueued
from jobrunner.core.schedule import (
    Definition,
    Fire,
    Fired,
    Overlap,
    ScheduleChange,
    ScheduleRow,
    Tick,
    TickRow,
    Timing,
)
from jobrunner.store.protocol import Store
from jobrunner.store.round import Round, Written
from tests.conformance.rigs import Rig, store_at
from tests.support.factories import (
    DAY,
    HOUR,
    MINUTE,
    NOW,
    SECOND,
    claim,
    claim_of,
    dead,
    enqueue,
    new,
    row_of,
    settle,
    succeeded,
)

WORK = frozenset({"work"})


def a_row(
    id: str = "nightly",
    *,
    task: str = "work",
    next: int | None = NOW,  # noqa: A002 - as the field
    overlap: Overlap = "allow",
    revision: int = 0,
) -> ScheduleRow:
    definition = Definition(task, '{"n":1}', Timing(every=MINUTE), overlap=overlap)
    return ScheduleRow(id, "stored", definition, revision, 0, False, False, NOW, next)


def whole_row() -> ScheduleRow:
    timing = Timing(cron="0 8 * * *", timezone="Europe/Berlin", start=NOW, end=NOW + DAY)
    definition = Definition("mail.send", "{}", timing, '{"tag": "t"}', "all", 5, 7, "skip", 9)
    return ScheduleRow(
        "a", "code", definition, 3, 0, True, True, NOW, NOW + 1, NOW - 1, NOW - 2, "job", 4, 5
    )


async def put(store: Store, *rows: ScheduleRow) -> Sequence[ScheduleRow]:
    assert await store.schedules.change([ScheduleChange(None, row) for row in rows])
    return rows


async def seen(store: Store, id: str = "nightly") -> ScheduleRow:
    row = await store.schedules.get(id)
    assert row is not None
    return row


def a_job(row: ScheduleRow, instant: int, key: str | None = None) -> Enqueue:
    return new(row.definition.task, key=key)._replace(schedule=row.id, scheduled_for=instant)


def step(row: ScheduleRow, *, ahead: int = MINUTE, key: str | None = None) -> Fire:
    """Return the step that fires the tick which is due and goes to the next."""
    assert row.next is not None
    return Fire(row, row.next + ahead, [Tick(row.next, "fired", a_job(row, row.next, key))])


async def fire(store: Store, *fires: Fire, now: int = NOW) -> list[Fired]:
    written: Written = await store.write(Round(now, fires=fires))
    done = []
    for one in written.fired:
        assert not isinstance(one, StoreError)
        done.append(one)
    return done


# -- writing -----------------------------------------------------------------------------------------


async def test_put_row_comes_back_whole_also_after_a_restart(rig: Rig) -> None:
    await put(rig.store, whole_row(), a_row())
    for _ in range(2):
        assert await rig.store.schedules.get("a") == whole_row()
        assert await rig.store.schedules.get("nightly") == a_row()
        assert await rig.store.schedules.get("b") is None
        await rig.close()
        await rig.open()


async def test_change_counts_the_edition_and_refuses_what_is_no_more_as_it_was_seen(
    store: Store,
) -> None:
    await put(store, a_row())
    first = await seen(store)
    assert await store.schedules.change([ScheduleChange(first, first._replace(paused=True))])
    paused = await seen(store)
    assert paused == first._replace(paused=True, edition=1)
    assert not await store.schedules.change([ScheduleChange(first, first._replace(next=None))])
    assert not await store.schedules.change([ScheduleChange(first, None)])
    assert not await store.schedules.change([ScheduleChange(None, a_row())])
    assert await seen(store) == paused


async def test_change_is_refused_if_the_schedule_has_ticked_meanwhile(store: Store) -> None:
    await put(store, a_row())
    before = await seen(store)
    await fire(store, step(before))
    assert not await store.schedules.change([ScheduleChange(before, before._replace(paused=True))])
    assert (await seen(store)).next == NOW + MINUTE


async def test_changes_are_made_all_or_none(store: Store) -> None:
    await put(store, a_row("a"))
    row = await seen(store, "a")
    clash = [
        ScheduleChange(None, a_row("b")),
        ScheduleChange(row, row._replace(paused=True)),
        ScheduleChange(None, a_row("a")),
    ]
    assert not await store.schedules.change(clash)
    assert await store.schedules.get("b") is None
    assert await seen(store, "a") == row


async def test_remove_takes_the_ticks_along_and_leaves_the_jobs(store: Store) -> None:
    await put(store, a_row())
    ((job,),) = [done.jobs for done in await fire(store, step(await seen(store)))]
    assert await store.schedules.change([ScheduleChange(await seen(store), None)])
    assert await store.schedules.get("nightly") is None
    assert await store.schedules.ticks("nightly", limit=10) == []
    assert (await row_of(store, job.id)).schedule == "nightly"


# -- looking -----------------------------------------------------------------------------------------


async def test_schedules_are_listed_by_id_in_pages_and_by_task(store: Store) -> None:
    await put(store, *(a_row(id, task="play" if id == "b" else "work") for id in "dbca"))
    assert [row.id for row in await store.schedules.list(task=None, after=None, limit=3)] == [
        *"abc"
    ]
    assert [row.id for row in await store.schedules.list(task=None, after="c", limit=3)] == ["d"]
    assert [row.id for row in await store.schedules.list(task="play", after=None, limit=3)] == ["b"]
    assert await store.schedules.declared() == []
    await put(store, a_row("e")._replace(source="code", disabled=True))
    assert [row.id for row in await store.schedules.declared()] == ["e"]


async def test_due_are_those_of_known_tasks_that_are_neither_paused_nor_disabled_nor_over(
    store: Store,
) -> None:
    await put(
        store,
        a_row("late", next=NOW - HOUR),
        a_row("now"),
        a_row("next", next=NOW + 1),
        a_row("over", next=None),
        a_row("alien", task="alien", next=NOW - DAY),
        a_row("paused")._replace(paused=True),
        a_row("disabled")._replace(disabled=True),
        a_row("other", task="play", next=NOW - MINUTE),
    )
    both = frozenset({"work", "play", "unheard of"})
    found = await store.schedules.due(both, now=NOW, limit=9)
    assert [row.id for row in found] == ["late", "other", "now"]
    assert [row.id for row in await store.schedules.due(both, now=NOW, limit=2)] == [
        "late",
        "other",
    ]
    assert [row.id for row in await store.schedules.due(WORK, now=NOW, limit=9)] == ["late", "now"]


async def test_round_tells_the_next_tick_of_the_tasks_that_are_asked_for(store: Store) -> None:
    assert (await store.write(Round(NOW, ticks_of=WORK))).next_tick is None
    await put(
        store,
        a_row("a", next=NOW + HOUR),
        a_row("b", task="alien", next=NOW - HOUR),
        a_row("c", task="play", next=NOW + MINUTE),
    )
    assert (await store.write(Round(NOW))).next_tick is None
    assert (await store.write(Round(NOW, ticks_of=WORK))).next_tick == NOW + HOUR
    assert (await store.write(Round(NOW, ticks_of=WORK | {"play"}))).next_tick == NOW + MINUTE
    due = await store.write(Round(NOW, ticks_of=frozenset({"alien"})))
    assert due.next_tick == NOW - HOUR


# -- firing ------------------------------------------------------------------------------------------


async def test_fire_makes_the_job_records_the_tick_and_goes_to_the_next_in_one_round(
    store: Store,
) -> None:
    await put(store, a_row())
    row = await seen(store)
    written = await store.write(Round(NOW, fires=[step(row)], claim=claim_of(), ticks_of=WORK))
    (claimed,) = written.claimed
    assert written.fired == [
        Fired(True, [Enqueued(claimed.id, True, "work", "default", "queued", NOW, NOW, 0)], {})
    ]
    assert claimed.scheduled_for == NOW
    assert written.next_tick == NOW + MINUTE
    assert await store.schedules.ticks("nightly", limit=9) == [
        TickRow(NOW, NOW, 1, "fired", claimed.id, NOW)
    ]
    assert await seen(store) == row._replace(
        next=NOW + MINUTE, last=NOW, last_fired=NOW, last_job=claimed.id, fired=1
    )
    job = await row_of(store, claimed.id)
    assert (job.schedule, job.scheduled_for) == ("nightly", NOW)


async def test_fire_whose_job_is_for_later_is_told_as_due_then(store: Store) -> None:
    await put(store, a_row())
    row = await seen(store)
    later = a_job(row, NOW)._replace(run_at=NOW + HOUR)
    written = await store.write(Round(NOW, fires=[Fire(row, None, [Tick(NOW, "fired", later)])]))
    assert written.next_due == NOW + HOUR
    (done,) = written.fired
    assert isinstance(done, Fired)
    assert [job.state for job in done.jobs] == ["scheduled"]


@pytest.mark.parametrize(
    "change",
    [{"paused": True}, {"disabled": True}, {"next": NOW + 1}, {"revision": 1}, {}],
    ids=["paused", "disabled", "moved", "of another revision", "of another edition"],
)
async def test_G5_fire_of_a_schedule_that_was_changed_meanwhile_writes_nothing(
    store: Store, change: dict[str, int]
) -> None:
    await put(store, a_row())
    row = await seen(store)
    assert await store.schedules.change([ScheduleChange(row, row._replace(**change))])  # type: ignore[arg-type]
    changed = await seen(store)
    assert await fire(store, step(row)) == [Fired(advanced=False)]
    assert await seen(store) == changed
    assert await store.schedules.ticks("nightly", limit=9) == []
    assert await claim(store) == []


async def test_G1_of_two_that_saw_one_tick_one_fires_it(rig: Rig) -> None:
    await put(rig.store, a_row())
    row = await seen(rig.store)
    fires = [step(row) for _ in range(5)]
    done = await asyncio.gather(*(fire(rig.store, one) for one in fires))
    assert sum(one.advanced for (one,) in done) == 1
    assert len(await claim(rig.store)) == 1


async def test_G1_tick_that_is_on_record_is_never_fired_again(store: Store) -> None:
    """A schedule can return to an earlier instant, for example if the clock steps back under a new definition."""
    await put(store, a_row())
    row = await seen(store)
    await fire(store, step(row))
    again = await seen(store)
    assert await store.schedules.change([ScheduleChange(again, again._replace(next=NOW))])
    (done,) = await fire(store, step(await seen(store)))
    assert done == Fired(advanced=True, jobs=[], skipped={})
    assert (await seen(store)).fired == 1
    assert len(await claim(store)) == 1


async def test_G2_fire_whose_job_is_refused_leaves_the_schedule_as_it_was_and_the_rest_is_written(
    store: Store,
) -> None:
    """Neither the step nor the record is there without the job; the others of the round do not suffer."""
    await put(store, a_row("bad"), a_row("good"))
    bad, good = await seen(store, "bad"), await seen(store, "good")
    assert bad.next is not None
    (taken,) = await enqueue(store, new("other"))
    broken = Fire(bad, NOW + MINUTE, [Tick(NOW, "fired", a_job(bad, NOW)._replace(id=taken.id))])
    written = await store.write(Round(NOW, fires=[broken, step(good)], enqueues=[new("third")]))
    refused, done = written.fired
    assert isinstance(refused, StoreError)
    assert isinstance(done, Fired)
    assert done.advanced
    assert await seen(store, "bad") == bad
    assert await store.schedules.ticks("bad", limit=9) == []
    assert len(await claim(store, tasks=["work", "third"])) == 2


async def test_fire_with_skipped_ticks_records_and_counts_them(store: Store) -> None:
    await put(store, a_row())
    row = await seen(store)
    ticks = [
        Tick(NOW, "missed", None, NOW + 9 * MINUTE, 10),
        Tick(NOW + 10 * MINUTE, "late"),
        Tick(NOW + 11 * MINUTE, "fired", a_job(row, NOW + 11 * MINUTE)),
    ]
    now = NOW + 11 * MINUTE
    (done,) = await fire(store, Fire(row, NOW + 12 * MINUTE, ticks), now=now)
    assert done.skipped == {"missed": 10, "late": 1}
    assert await store.schedules.ticks("nightly", limit=9) == [
        TickRow(now, now, 1, "fired", done.jobs[0].id, now),
        TickRow(NOW + 10 * MINUTE, NOW + 10 * MINUTE, 1, "late", None, now),
        TickRow(NOW, NOW + 9 * MINUTE, 10, "missed", None, now),
    ]
    assert len(await store.schedules.ticks("nightly", limit=2)) == 2
    older = await store.schedules.ticks("nightly", before=NOW + 10 * MINUTE, limit=2)
    assert [tick.instant for tick in older] == [NOW]
    assert await store.schedules.ticks("nightly", before=NOW, limit=2) == []
    after = await seen(store)
    assert (after.fired, after.skipped, after.last) == (1, 11, now)


# -- overlap and keys --------------------------------------------------------------------------------


async def test_G4_overlap_skip_makes_no_job_while_one_is_unfinished(store: Store) -> None:
    await put(store, a_row(overlap="skip"))
    await fire(store, step(await seen(store)))
    (queued,) = await fire(store, step(await seen(store)))
    (job,) = await claim(store)
    (running,) = await fire(store, step(await seen(store)))
    for done in (queued, running):
        assert (done.jobs, done.skipped) == ([], {"overlap": 1})
    await settle(store, succeeded(job))
    (done,) = await fire(store, step(await seen(store)))
    assert len(done.jobs) == 1
    (job,) = await claim(store)
    await settle(store, dead(job))
    assert len((await fire(store, step(await seen(store))))[0].jobs) == 1
    after = await seen(store)
    assert (after.fired, after.skipped) == (3, 2)


async def test_overlap_skip_lets_one_of_several_ticks_at_once_make_a_job(store: Store) -> None:
    await put(store, a_row(overlap="skip"))
    row = await seen(store)
    ticks = [Tick(NOW + n, "fired", a_job(row, NOW + n)) for n in range(3)]
    (done,) = await fire(store, Fire(row, None, ticks))
    assert (len(done.jobs), done.skipped) == (1, {"overlap": 2})


async def test_G4_overlap_allow_makes_the_next_job_beside_the_first(store: Store) -> None:
    await put(store, a_row())
    for _ in range(3):
        await fire(store, step(await seen(store)))
    assert len(await claim(store)) == 3


async def test_tick_whose_key_is_held_makes_no_job_and_says_so(store: Store) -> None:
    await put(store, a_row())
    await fire(store, step(await seen(store), key="k"))
    (done,) = await fire(store, step(await seen(store), key="k"))
    assert (done.jobs, done.skipped) == ([], {"key": 1})
    assert [tick.outcome for tick in await store.schedules.ticks("nightly", limit=9)] == [
        "key",
        "fired",
    ]
    assert (await store.schedules.ticks("nightly", limit=1))[0].job is None


# -- the rest of a scheduled job's life --------------------------------------------------------------


async def test_scheduled_for_outlives_the_death_of_the_job(store: Store) -> None:
    await put(store, a_row())
    await fire(store, step(await seen(store)))
    (job,) = await claim(store)
    await settle(store, dead(job))
    letter = await row_of(store, job.id)
    assert (letter.schedule, letter.scheduled_for) == ("nightly", NOW)
    await store.dead_letters.replay(job.id, now=NOW)
    (again,) = await claim(store)
    assert again.scheduled_for == NOW


async def test_prune_ticks_spares_the_young_and_the_last_of_each_schedule(store: Store) -> None:
    await put(store, a_row())
    for turn in range(5):
        await fire(store, step(await seen(store)), now=NOW + turn)
    await put(store, a_row("old", next=NOW - DAY))
    await fire(store, step(await seen(store, "old")), now=NOW)
    assert await store.schedules.prune_ticks(before=NOW + 3, limit=2) == 2
    assert await store.schedules.prune_ticks(before=NOW + 3, limit=2) == 1
    assert await store.schedules.prune_ticks(before=NOW + DAY, limit=9) == 1
    (left,) = await store.schedules.ticks("nightly", limit=9)
    assert left.instant == NOW + 4 * MINUTE
    assert len(await store.schedules.ticks("old", limit=9)) == 1


async def test_fire_through_another_opening_of_the_store_is_seen(rig: Rig) -> None:
    await put(rig.store, a_row())
    await fire(rig.store, step(await seen(rig.store)), now=NOW + SECOND)
    await rig.close()
    again = store_at(rig.url)
    await again.open()
    try:
        assert [tick.at for tick in await again.schedules.ticks("nightly", limit=9)] == [
            NOW + SECOND
        ]
    finally:
        await again.close()
        await rig.open()
