"""Schedules of an open runner: a month of them in frozen time, changes while it runs, steps of the clock, the end."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from jobrunner import (
    Cron,
    DeclaredInCode,
    InvalidArguments,
    InvalidCursor,
    InvalidOptions,
    InvalidSchedule,
    JobContext,
    JobRunner,
    ScheduleNotFound,
    ScheduleTick,
    UnknownQueue,
    UnknownTask,
)
from jobrunner.core.clock import now_us
from jobrunner.core.schedule import ScheduleChange
from jobrunner.testing import JobTester
from jobrunner.worker import scheduler as ticker_module
from jobrunner.worker.scheduler import Scheduler
from tests.support.children import tasks
from tests.support.clocks import MOMENT, freeze
from tests.support.engine import (
    Gate,
    committer_of,
    next_round,
    soon,
    store_of,
    stored,
    worker_of,
)
from tests.support.processes import child

pytestmark = pytest.mark.each_store


MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


def ticker_of(jobs: JobRunner) -> Scheduler:
    return worker_of(jobs).scheduler


async def all_fired(jobs: JobRunner) -> None:
    """See every tick that is due through to the start of its job."""
    ticker = ticker_of(jobs)
    # Not until it has fired nothing: its own loop may have been quicker with some.
    while await store_of(jobs).schedules.due(ticker._tasks, now=now_us(), limit=1):
        await ticker.fire_due()
    await next_round(jobs)


class Seen:
    """Instants that jobs were handed, to be waited for."""

    def __init__(self) -> None:
        self.instants: list[datetime] = []
        self._more = asyncio.Condition()

    async def note(self, job: JobContext) -> None:
        assert job.scheduled_for is not None
        async with self._more:
            self.instants.append(job.scheduled_for)
            self._more.notify_all()

    async def have(self, number: int) -> list[datetime]:
        async with self._more:
            await soon(self._more.wait_for(lambda: len(self.instants) >= number))
        return sorted(self.instants)


def quick(url: str, **settings: object) -> JobRunner:
    """Return a runner that does not wait for the disk: what is asked here does not hang on it."""
    durability = "normal" if url.startswith("sqlite:") else "full"
    return JobRunner(url, durability=durability, **settings)  # type: ignore[arg-type]


@asynccontextmanager
async def opened(
    url: str, declare: Callable[[JobRunner, Seen], object], **settings: object
) -> AsyncIterator[tuple[JobRunner, Seen]]:
    jobs, seen = quick(url, **settings), Seen()
    declare(jobs, seen)
    async with jobs.running():
        yield jobs, seen


@asynccontextmanager
async def on_demand(
    file: Path, declare: Callable[[JobRunner, Seen], object]
) -> AsyncIterator[tuple[JobRunner, Seen, JobTester]]:
    jobs, seen = JobRunner(file), Seen()
    declare(jobs, seen)
    async with JobTester(jobs, store=file) as t:
        yield jobs, seen, t


def hourly(jobs: JobRunner, seen: Seen) -> None:
    @jobs.cron("0 * * * *")
    async def work(job: JobContext) -> None:
        await seen.note(job)


# -- in frozen time -----------------------------------------------------------------------------------


@pytest.mark.slow
async def test_month_of_cron_fires_each_tick_once_through_a_change_of_the_clocks() -> None:
    jobs = JobRunner("sqlite:///unused.db", timezone="Europe/Berlin")

    @jobs.cron("30 2 * * *")
    async def report() -> None: ...

    @jobs.every(hours=1)
    async def sweep() -> None: ...

    began = datetime(2026, 3, 15, 12, tzinfo=UTC)
    with freeze(began):
        async with JobTester(jobs) as t:
            await t.travel(days=31)
            reports, sweeps = t.runs(report), t.runs(sweep)
            ticks = await jobs.schedules.ticks("sweep", limit=1000)
            report_now = await jobs.schedules.get("report")
    berlin = ZoneInfo("Europe/Berlin")
    assert [run.scheduled_for for run in sweeps] == [
        began + HOUR * n for n in range(1, 31 * 24 + 1)
    ]
    instants = [run.scheduled_for.astimezone(berlin) for run in reports if run.scheduled_for]
    assert [instant.date() for instant in instants] == [
        began.date() + DAY * n for n in range(1, 32)
    ]
    # The clocks jump over half past two on the 29th.
    assert {f"{instant:%H:%M}" for instant in instants} == {"02:30", "03:00"}
    assert [tick.outcome for tick in ticks] == ["fired"] * 744
    assert (report_now.fired, report_now.skipped) == (31, 0)


async def test_E1_clock_that_jumps_forward_makes_one_job_and_goes_on(tmp_db: Path) -> None:
    with freeze() as clock:
        async with on_demand(tmp_db, hourly) as (jobs, seen, t):
            clock.tick(10 * HOUR)
            await t.run_until_idle()
            assert seen.instants == [datetime(2026, 3, 4, 15, tzinfo=UTC)]
            schedule = await jobs.schedules.get("work")
            assert (schedule.fired, schedule.skipped) == (1, 9)
            assert schedule.next_at == datetime(2026, 3, 4, 16, tzinfo=UTC)
            missed = (await jobs.schedules.ticks("work"))[1]
            assert (missed.outcome, missed.count) == ("missed", 9)
            assert missed.until - missed.at == 8 * HOUR
            newest, *older = await jobs.schedules.ticks("work")
            pages: list[ScheduleTick] = []
            before = None
            while page := await jobs.schedules.ticks("work", before=before, limit=1):
                pages += page
                before = page[-1].at
            assert pages == [newest, *older]
            with pytest.raises(InvalidOptions, match="before"):
                await jobs.schedules.ticks("work", before=datetime(2026, 3, 4))  # noqa: DTZ001


async def test_E2_clock_that_steps_back_fires_nothing_twice_and_goes_on(tmp_db: Path) -> None:
    with freeze() as clock:
        async with on_demand(tmp_db, hourly) as (jobs, seen, t):
            clock.move_to(MOMENT + HOUR)
            await t.run_until_idle()
            six = [*seen.instants]
            clock.move_to(MOMENT - 2 * HOUR)
            await t.run_until_idle()
            await jobs.schedules.pause("work")
            await jobs.schedules.resume("work")
            clock.move_to(MOMENT + HOUR)
            await t.run_until_idle()
            assert seen.instants == six
            clock.move_to(MOMENT + 2 * HOUR)
            await t.run_until_idle()
            assert seen.instants == [*six, six[0] + HOUR]


async def test_E3_clock_that_was_at_1970_fires_one_job_when_it_is_right(tmp_db: Path) -> None:
    with freeze(datetime(1970, 1, 1, 0, 0, 5, tzinfo=UTC)) as clock:
        async with on_demand(tmp_db, hourly) as (jobs, seen, t):
            clock.move_to(MOMENT)
            await t.run_until_idle()
            assert seen.instants == [datetime(2026, 3, 4, 5, tzinfo=UTC)]
            assert (await jobs.schedules.get("work")).skipped > 400_000


@pytest.mark.parametrize(("misfire", "jobs_made"), [("latest", 1), ("all", 8), ("skip", 0)])
async def test_E5_suspend_of_eight_hours_follows_the_policy(
    tmp_db: Path, misfire: str, jobs_made: int
) -> None:
    def declare(jobs: JobRunner, seen: Seen) -> None:
        @jobs.cron("0 * * * *", misfire=misfire)  # type: ignore[arg-type]
        async def work(job: JobContext) -> None:
            await seen.note(job)

    with freeze() as clock:
        async with on_demand(tmp_db, declare) as (jobs, seen, t):
            clock.tick(8 * HOUR)
            await t.run_until_idle()
            assert len(seen.instants) == jobs_made
            schedule = await jobs.schedules.get("work")
            assert (schedule.fired, schedule.skipped) == (jobs_made, 8 - jobs_made)


async def test_G3_three_days_down_with_a_minute_cron_makes_one_job(tmp_db: Path) -> None:
    def declare(jobs: JobRunner, seen: Seen) -> None:
        @jobs.cron("* * * * *")
        async def work(job: JobContext) -> None:
            await seen.note(job)

    with freeze() as clock:
        async with opened(str(tmp_db), declare):
            pass
        clock.tick(3 * DAY)
        async with on_demand(tmp_db, declare) as (jobs, seen, t):
            await t.run_until_idle()
            assert len(seen.instants) == 1
            schedule = await jobs.schedules.get("work")
    assert (schedule.fired, schedule.skipped) == (1, 4319)


async def test_G4_overlap_skip_waits_for_the_slow_one(store_url: str) -> None:
    gate = Gate()

    def declare(jobs: JobRunner, seen: Seen) -> None:
        @jobs.every(60, overlap="skip")
        async def slow() -> None:
            await gate.enter()

    with freeze() as clock:
        async with opened(store_url, declare) as (jobs, _):
            for _ in range(3):
                clock.tick(MINUTE)
                await all_fired(jobs)
            await gate.arrival()
            gate.let()
            first = await jobs.schedules.get("slow")
            assert (first.fired, first.skipped) == (1, 2)
            assert first.last_job is not None
            await (await jobs.get(first.last_job)).result(timeout=15)
            clock.tick(MINUTE)
            await all_fired(jobs)
            await gate.arrival()
            gate.open()
    assert gate.most == 1


async def test_G5_start_on_the_tick_does_not_lose_it(tmp_db: Path) -> None:
    """A deploy at each full hour: nine starts on the tick, nine jobs."""
    with freeze(datetime(2026, 3, 4, 4, 30, tzinfo=UTC)) as clock:
        fired = []
        for hour in range(5, 14):
            async with on_demand(tmp_db, hourly):
                pass
            clock.move_to(datetime(2026, 3, 4, hour, tzinfo=UTC))
            async with on_demand(tmp_db, hourly) as (_, seen, t):
                await t.run_until_idle()
                fired += seen.instants
    assert fired == [datetime(2026, 3, 4, hour, tzinfo=UTC) for hour in range(5, 14)]


async def test_jitter_moves_the_start_and_not_the_instant(tmp_db: Path) -> None:
    def declare(jobs: JobRunner, seen: Seen) -> None:
        @jobs.cron("0 * * * *", jitter=HOUR / 2)
        async def work(job: JobContext) -> None:
            await seen.note(job)

    with freeze(datetime(2026, 3, 4, 4, 59, 59, tzinfo=UTC)) as clock:
        async with on_demand(tmp_db, declare) as (_, seen, t):
            clock.tick(1)
            await t.run_until_idle()
            (job,) = t.list()
            assert timedelta(0) < job.run_at - datetime(2026, 3, 4, 5, tzinfo=UTC) <= HOUR / 2
            assert seen.instants == []
            await t.travel_to(job.run_at)
            assert seen.instants == [datetime(2026, 3, 4, 5, tzinfo=UTC)]
            assert (job.schedule, job.scheduled_for) == ("work", seen.instants[0])


# -- by the clock on the wall -------------------------------------------------------------------------


@pytest.mark.usefixtures("no_poll")
async def test_sleeps_until_the_tick_and_no_query_is_made_meanwhile(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def declare(jobs: JobRunner, seen: Seen) -> None:
        @jobs.every(1)
        async def work(job: JobContext) -> None:
            await seen.note(job)

    async with opened(store_url, declare) as (jobs, seen):
        store = store_of(jobs)
        due_schedules = store.schedules.due

        async def counted(*args: object, **given: object) -> object:
            asked.append(1)
            return await due_schedules(*args, **given)  # type: ignore[arg-type]

        monkeypatch.setattr(store.schedules, "due", counted)
        instants = await seen.have(3)
    assert [later - earlier for earlier, later in pairwise(instants)] == [timedelta(seconds=1)] * 2
    # A timer may ring a moment early, and is set anew then.
    assert len(asked) <= 6


@pytest.mark.usefixtures("no_poll")
async def test_upsert_moves_the_timer_at_once(store_url: str) -> None:
    def declare(jobs: JobRunner, seen: Seen) -> None:
        @jobs.task
        async def work(job: JobContext) -> None:
            await seen.note(job)

    async with opened(store_url, declare) as (jobs, seen):
        work = jobs.tasks["work"]
        await jobs.schedules.upsert("soon", work, cron="0 0 1 1 *")
        await jobs.schedules.upsert("soon", work, run_at=MOMENT)
        assert await seen.have(1) == [MOMENT]
        once = await jobs.schedules.get("soon")
        assert (once.next_at, once.last_at, once.fired) == (None, MOMENT, 1)


@pytest.mark.usefixtures("no_poll")
async def test_change_by_another_process_rings_the_bell(store_url: str) -> None:
    jobs = quick(store_url)
    jobs.include(tasks)
    heard = asyncio.Queue[str]()
    jobs.on_succeeded(lambda job: heard.put_nowait(job.task))
    async with jobs.running(), child("client", store_url) as client:
        await client.heard("open")
        client.send("schedule beat")
        await client.heard("stored")
        assert await soon(heard.get()) == "echo"
        assert (await jobs.schedules.get("beat")).fired == 1


async def test_stops_firing_at_the_first_phase_of_shutdown(store_url: str) -> None:
    with freeze() as clock:
        async with opened(store_url, hourly) as (jobs, seen):
            worker_of(jobs).begin_stop()
            clock.tick(HOUR)
            await ticker_of(jobs).stop()
            worker_of(jobs).wake()
            await soon(committer_of(jobs).flushed())
            assert ticker_of(jobs)._timer is None
            assert seen.instants == []


async def test_process_that_does_not_work_neither_declares_nor_fires(store_url: str) -> None:
    jobs, seen = quick(store_url), Seen()
    hourly(jobs, seen)
    with freeze() as clock:
        async with jobs.running(work=False):
            assert (await jobs.schedules.list()).items == []
        async with jobs.running():
            assert len((await jobs.schedules.list()).items) == 1
        async with quick(store_url).running(work=False) as other:
            clock.tick(HOUR)
            assert [one.disabled for one in (await other.schedules.list()).items] == [False]
    assert seen.instants == []


# -- at run time --------------------------------------------------------------------------------------


def with_task(jobs: JobRunner, seen: Seen) -> None:
    @jobs.task(queue="default")
    async def greet(job: JobContext, name: str = "nobody", times: int = 1) -> str:
        return f"{name} {times} {job.scheduled_for}"


async def test_upsert_stores_changes_and_keeps_the_next_tick(store_url: str) -> None:
    with freeze() as clock:
        async with opened(store_url, with_task, timezone="Asia/Kolkata") as (jobs, _):
            greet = jobs.tasks["greet"]
            made = await jobs.schedules.upsert("a", greet, cron="0 8 * * *", args=["Ada"])
            assert made == await jobs.schedules.get("a")
            assert (made.source, made.timezone, made.args) == (
                "stored",
                "Asia/Kolkata",
                {"name": "Ada"},
            )
            assert made.description == "At 08:00 every day (Asia/Kolkata)"
            assert made.next_at == Cron("0 8 * * *", "Asia/Kolkata").next_after(MOMENT)
            beat = await jobs.schedules.upsert("b", greet, every=HOUR, args={"times": 3})
            assert beat.next_at == MOMENT + HOUR
            clock.tick(MINUTE)
            same = await jobs.schedules.upsert("b", greet, every=3600, overlap="skip")
            assert (same.next_at, same.overlap, same.args) == (MOMENT + HOUR, "skip", {})
            moved = await jobs.schedules.upsert("b", greet, every=60)
            assert moved.next_at == MOMENT + 2 * MINUTE
            assert [one.id for one in (await jobs.schedules.list()).items] == ["a", "b"]
            assert (await jobs.schedules.list(task="other")).items == []
            first = await jobs.schedules.list(task=greet, limit=1)
            assert [one.id for one in first.items] == ["a"]
            rest = await jobs.schedules.list(task=greet, limit=1, cursor=first.next_cursor)
            assert ([one.id for one in rest.items], rest.next_cursor) == (["b"], None)


async def test_upsert_refuses_what_cannot_be(store_url: str) -> None:
    async with opened(store_url, with_task) as (jobs, _):
        greet = jobs.tasks["greet"]
        upsert = jobs.schedules.upsert
        for given, error in [
            ({}, "one of cron="),
            ({"cron": "@daily", "every": 5}, "one of cron="),
            ({"cron": "0 0 31 2 *"}, "never comes true"),
            ({"cron": "@daily", "timezone": "Mars"}, "not in the time zone"),
            ({"cron": "1," * 100_000 + "1 * * * *"}, "more than 500"),
            ({"cron": "@daily", "timezone": "Europe/" + "B" * 200_000}, "more than 100"),
            ({"every": 60, "timezone": "UTC"}, "goes with cron="),
            ({"every": 0.1}, "less than a second"),
            ({"every": 60, "misfire": "never"}, "none of 'latest'"),
            ({"run_at": datetime(2026, 1, 1)}, "no time zone"),  # noqa: DTZ001 - what is refused
            ({"run_at": MOMENT, "start": MOMENT}, "neither start nor end"),
        ]:
            with pytest.raises(InvalidSchedule, match=error):
                await upsert("a", greet, **given)  # type: ignore[arg-type]
        with pytest.raises(InvalidSchedule, match="no id of a schedule"):
            await upsert("a b", greet, every=60)
        with pytest.raises(InvalidArguments):
            await upsert("a", greet, every=60, args=[1, 2, 3])
        with pytest.raises(TypeError, match="no option 'colour'"):
            await upsert("a", greet, every=60, colour="red")  # type: ignore[call-arg]
        with pytest.raises(UnknownQueue):
            await upsert("a", greet.options(queue="mial"), every=60)
        with pytest.raises(UnknownTask, match="is not a task"):
            await upsert("a", len, every=60)  # type: ignore[arg-type]
        other = JobRunner("sqlite:///unused.db").task(_nothing)
        with pytest.raises(UnknownTask, match="not registered"):
            await upsert("a", other, every=60)
        with pytest.raises(InvalidOptions):
            await jobs.schedules.list(limit=0)
        with pytest.raises(InvalidCursor, match="take next_cursor of the page before"):
            await jobs.schedules.list(cursor=7)  # type: ignore[arg-type]
        assert (await jobs.schedules.list()).items == []


async def _nothing() -> None: ...


async def test_pause_keeps_it_from_firing_until_resume_which_makes_up_for_nothing(
    tmp_db: Path,
) -> None:
    with freeze() as clock:
        async with on_demand(tmp_db, hourly) as (jobs, seen, t):
            paused = await jobs.schedules.pause("work")
            assert (paused.paused, paused.next_at) == (True, None)
            clock.tick(5 * HOUR)
            await t.run_until_idle()
            assert seen.instants == []
            await jobs.schedules.pause("work")
            resumed = await jobs.schedules.resume("work")
            assert resumed.next_at == datetime(2026, 3, 4, 11, tzinfo=UTC)
            await jobs.schedules.resume("work")
            clock.tick(HOUR)
            await t.run_until_idle()
            assert seen.instants == [resumed.next_at]
            assert (await jobs.schedules.get("work")).skipped == 0


async def test_pause_of_a_declared_one_holds_over_a_restart(store_url: str) -> None:
    async with opened(store_url, hourly) as (jobs, _):
        await jobs.schedules.pause("work")
    async with opened(store_url, hourly) as (jobs, _):
        assert (await jobs.schedules.get("work")).paused


async def test_run_now_is_a_job_with_the_schedules_options(store_url: str) -> None:
    with freeze():
        async with opened(store_url, with_task) as (jobs, _):
            task = jobs.tasks["greet"].options(priority=7, tag="by hand", key="one")
            made = await jobs.schedules.upsert(
                "a", task, cron="@daily", args=["Ada"], jitter=HOUR, overlap="skip"
            )
            await jobs.schedules.pause("a")
            job = await jobs.schedules.run_now("a")
            assert await job.result(timeout=15) == f"Ada 1 {MOMENT}"
            row = await stored(jobs, job.id)
            assert (row.priority, row.tag, row.key, row.schedule) == (7, "by hand", "one", "a")
            await jobs.schedules.resume("a")
            assert (await jobs.schedules.get("a")).next_at == made.next_at


async def test_remove_forgets_stored_ones_and_refuses_those_in_the_code(store_url: str) -> None:
    async with opened(store_url, hourly) as (jobs, _):
        await jobs.schedules.upsert("a", jobs.tasks["work"], every=60)
        await jobs.schedules.remove("a")
        with pytest.raises(DeclaredInCode, match="take it away there"):
            await jobs.schedules.remove("work")
        with pytest.raises(DeclaredInCode, match="change it there"):
            await jobs.schedules.upsert("work", jobs.tasks["work"], every=60)
        for verb in ("get", "pause", "resume", "remove", "run_now", "ticks"):
            with pytest.raises(ScheduleNotFound, match="'a'"):
                await getattr(jobs.schedules, verb)("a")


async def test_removed_from_the_code_is_disabled_and_can_be_removed_then(
    store_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(store_url, hourly):
        pass
    with caplog.at_level(logging.WARNING, "jobrunner"):
        async with opened(store_url, with_task) as (jobs, _):
            gone = await jobs.schedules.get("work")
            assert (gone.disabled, gone.next_at) == (True, None)
            with pytest.raises(UnknownTask, match="does not have"):
                await jobs.schedules.run_now("work")
            await jobs.schedules.remove("work")
    assert "schedule work is disabled" in caplog.text


async def test_two_changes_at_once_are_both_made(store_url: str) -> None:
    async with opened(store_url, with_task) as (jobs, _):
        await jobs.schedules.upsert("a", jobs.tasks["greet"], every=60)
        await asyncio.gather(
            jobs.schedules.pause("a"),
            jobs.schedules.upsert("a", jobs.tasks["greet"], every=120),
        )
        both = await jobs.schedules.get("a")
        assert (both.paused, both.every) == (True, 2 * MINUTE)


# -- what goes wrong ----------------------------------------------------------------------------------


async def test_schedule_that_cannot_be_read_here_is_reported_once_and_holds_up_no_other(
    store_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """As one that a process with a newer time zone database has stored."""
    with freeze() as clock:
        async with opened(store_url, hourly) as (jobs, seen):
            made = await jobs.schedules.upsert("alien", jobs.tasks["work"], cron="* * * * *")
            row = await store_of(jobs).schedules.get(made.id)
            assert row is not None
            timing = row.definition.timing._replace(timezone="Mars/Olympus")
            alien = row._replace(definition=row.definition._replace(timing=timing))
            assert await store_of(jobs).schedules.change([ScheduleChange(row, alien)])
            clock.tick(HOUR)
            for _ in range(3):
                await ticker_of(jobs).fire_due()
            await seen.have(1)
            assert caplog.text.count("schedule alien cannot be fired") == 1
            assert any("Mars/Olympus" in problem for problem in (await jobs.health()).problems)
            assert "Mars/Olympus" in (await jobs.schedules.get("alien")).description


async def test_more_due_than_a_round_takes_are_all_fired(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ticker_module, "FIRES_PER_ROUND", 3)
    with freeze() as clock:
        async with on_demand(tmp_db, with_task) as (jobs, _, t):
            for number in range(10):
                await jobs.schedules.upsert(f"s{number}", jobs.tasks["greet"], every=60)
            clock.tick(MINUTE)
            await t.run_until_idle()
            made = [one.fired for one in (await jobs.schedules.list()).items]
    assert made == [1] * 10


async def test_old_ticks_are_pruned_with_the_old_jobs(tmp_db: Path) -> None:
    with freeze():
        async with on_demand(tmp_db, hourly) as (_, _, t):
            await t.travel(hours=30)
        async with opened(str(tmp_db), hourly, retention=DAY) as (jobs, _):
            await worker_of(jobs).maintenance.retention.prune()
            assert 24 <= len(await jobs.schedules.ticks("work")) <= 25
            assert (await jobs.schedules.get("work")).fired == 30
