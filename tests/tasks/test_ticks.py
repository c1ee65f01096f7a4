"""Due ticks of a schedule, after any absence and any step of the clock."""

import pytest

from jobrunner import InvalidSchedule, JobRunner
from jobrunner.core.schedule import Definition, Misfire, ScheduleRow, Timing
from jobrunner.tasks.call import ResolvedJobOptions
from jobrunner.tasks.ticks import (
    MOST_COUNTED,
    TickPlan,
    dump_options,
    fire_of,
    first_tick,
    jitter_us,
    load_options,
    plan,
    resumed_tick,
    tick_after,
)
from tests.support.factories import DAY, HOUR, MINUTE, NOW, SECOND

MINUTELY = Timing(cron="* * * * *", timezone="UTC")
EIGHT = Timing(cron="0 8 * * *", timezone="UTC")
FLOOR = NOW - NOW % DAY
"""The midnight before."""


def row(
    timing: Timing,
    next: int | None,  # noqa: A002 - as the field
    *,
    misfire: Misfire = "latest",
    grace: int | None = None,
    cap: int = 100,
    jitter: int = 0,
    last: int | None = None,
) -> ScheduleRow:
    definition = Definition("work", "{}", timing, "{}", misfire, grace, cap, "allow", jitter)
    return ScheduleRow("nightly", "code", definition, 0, 0, False, False, NOW, next, last)


def run(row: ScheduleRow, now: int) -> tuple[list[int], dict[str, int], int | None, int]:
    """Plan until the present is reached; return the jobs, what was skipped, the next tick, and the plans it took."""
    jobs: list[int] = []
    skipped: dict[str, int] = {}
    steps = 0
    while row.next is not None and row.next <= now:
        done: TickPlan = plan(row, now)
        assert done.jobs or done.skipped
        jobs += done.jobs
        for tick in done.skipped:
            skipped[tick.outcome] = skipped.get(tick.outcome, 0) + tick.number
        row = row._replace(next=done.next)
        steps += 1
    return jobs, skipped, row.next, steps


def test_tick_on_time_makes_its_job_and_leads_to_the_next() -> None:
    assert run(row(EIGHT, FLOOR + 8 * HOUR), FLOOR + 8 * HOUR + 3) == (
        [FLOOR + 8 * HOUR],
        {},
        FLOOR + DAY + 8 * HOUR,
        1,
    )


def test_G3_three_days_of_a_minute_cron_make_one_job_and_4320_ticks_are_told_apart() -> None:
    now = FLOOR + 3 * DAY + 30 * SECOND
    jobs, skipped, following, _ = run(row(MINUTELY, FLOOR + MINUTE), now)
    assert jobs == [FLOOR + 3 * DAY]
    assert skipped == {"missed": 4319}
    assert following == FLOOR + 3 * DAY + MINUTE


def test_G3_all_makes_a_job_for_each_up_to_the_cap_the_newest_ones() -> None:
    now = FLOOR + 3 * DAY + 30 * SECOND
    jobs, skipped, _, _ = run(row(MINUTELY, FLOOR + MINUTE, misfire="all", cap=5), now)
    assert jobs == [FLOOR + 3 * DAY - n * MINUTE for n in (4, 3, 2, 1, 0)]
    assert skipped == {"missed": 4315}
    few, none, _, _ = run(row(MINUTELY, FLOOR + MINUTE, misfire="all"), FLOOR + 3 * MINUTE)
    assert few == [FLOOR + n * MINUTE for n in (1, 2, 3)]
    assert none == {}


@pytest.mark.parametrize("misfire", ["latest", "all", "skip"])
def test_G3_tick_later_than_the_grace_makes_no_job(misfire: Misfire) -> None:
    late = row(EIGHT, FLOOR + 8 * HOUR, misfire=misfire, grace=HOUR)
    assert run(late, FLOOR + 9 * HOUR)[0] == [FLOOR + 8 * HOUR]
    jobs, skipped, following, _ = run(late, FLOOR + 9 * HOUR + 1)
    assert (jobs, skipped, following) == ([], {"late": 1}, FLOOR + DAY + 8 * HOUR)


def test_all_with_a_grace_keeps_those_within_it() -> None:
    now = FLOOR + HOUR
    jobs, skipped, _, _ = run(row(MINUTELY, FLOOR, misfire="all", grace=2 * MINUTE), now)
    assert jobs == [now - 2 * MINUTE, now - MINUTE, now]
    assert skipped == {"late": 58}


@pytest.mark.parametrize("every", [SECOND, 7 * SECOND, 5 * MINUTE])
def test_E5_interval_after_a_suspend_keeps_its_beat_and_counts_exactly(every: int) -> None:
    now = NOW + 8 * HOUR
    jobs, skipped, following, steps = run(row(Timing(every=every), NOW), now)
    due = 8 * HOUR // every + 1
    assert jobs == [NOW + (due - 1) * every]
    assert skipped == {"missed": due - 1}
    assert following == NOW + due * every
    assert steps == 1


def test_E5_suspend_of_eight_hours_makes_one_job_all_of_them_or_none() -> None:
    hourly = Timing(cron="30 * * * *", timezone="Europe/Berlin")
    due, woken = FLOOR + HOUR // 2, FLOOR + 8 * HOUR
    assert len(run(row(hourly, due), woken)[0]) == 1
    assert len(run(row(hourly, due, misfire="all"), woken)[0]) == 8
    assert len(run(row(hourly, due, misfire="all", cap=3), woken)[0]) == 3
    assert run(row(hourly, due, misfire="skip", grace=MINUTE), woken)[:2] == (
        [],
        {"missed": 7, "late": 1},
    )


@pytest.mark.parametrize(
    "timing", [MINUTELY, Timing(every=SECOND), Timing(cron="* 3 * * *", timezone="Asia/Kolkata")]
)
def test_E3_clock_that_was_at_1970_makes_one_job_and_no_walk_over_fifty_years(
    timing: Timing,
) -> None:
    first = first_tick(timing, 0)
    assert first is not None
    assert first < DAY
    jobs, skipped, following, steps = run(row(timing, first), NOW)
    assert len(jobs) == 1
    assert jobs[0] <= NOW < (following or 0)
    assert tick_after(timing, jobs[0]) == following
    assert steps < 5
    assert skipped["missed"] > MOST_COUNTED


def test_E3_the_number_of_those_never_walked_is_a_fair_estimate() -> None:
    jobs, skipped, _, _ = run(row(MINUTELY, FLOOR - 100 * DAY), FLOOR)
    assert jobs == [FLOOR]
    assert abs(skipped["missed"] / (100 * 24 * 60) - 1) < 0.01


def test_E1_clock_an_hour_ahead_makes_one_job_for_the_hour() -> None:
    assert run(row(MINUTELY, FLOOR), FLOOR + HOUR)[0] == [FLOOR + HOUR]


def test_E2_clock_that_steps_back_repeats_no_tick() -> None:
    """Nothing is due until the clock has come again to where it was; a new timing counts from there too."""
    fired = FLOOR + 8 * HOUR
    back = fired - HOUR
    after = row(EIGHT, FLOOR + DAY + 8 * HOUR, last=fired)
    with pytest.raises(ValueError, match="not due"):
        plan(after, back)
    assert first_tick(MINUTELY, back, last=fired) == fired + MINUTE
    assert resumed_tick(after, back) == FLOOR + DAY + 8 * HOUR
    assert resumed_tick(row(MINUTELY, back, last=fired), back) == fired + MINUTE


# -- first ticks, dates, pauses ----------------------------------------------------------------------


def test_interval_first_ticks_one_interval_after_it_is_seen() -> None:
    assert first_tick(Timing(every=5 * MINUTE), NOW) == NOW + 5 * MINUTE


def test_start_and_end_hold() -> None:
    daily = EIGHT._replace(start=FLOOR + 3 * DAY + 8 * HOUR, end=FLOOR + 4 * DAY + 8 * HOUR)
    assert first_tick(daily, NOW) == FLOOR + 3 * DAY + 8 * HOUR
    assert tick_after(daily, FLOOR + 3 * DAY + 8 * HOUR) == FLOOR + 4 * DAY + 8 * HOUR
    assert tick_after(daily, FLOOR + 4 * DAY + 8 * HOUR) is None
    beat = Timing(every=HOUR, start=NOW + 90 * MINUTE)
    assert first_tick(beat, NOW) == NOW + 90 * MINUTE
    assert first_tick(beat, NOW + DAY) == NOW + DAY + 30 * MINUTE
    assert first_tick(beat._replace(end=NOW), NOW) is None


def test_absence_past_the_end_fires_the_last_tick_before_it() -> None:
    ended = Timing(every=MINUTE, end=NOW + 10 * MINUTE)
    assert run(row(ended, NOW), NOW + DAY) == ([NOW + 10 * MINUTE], {"missed": 10}, None, 1)
    far = MINUTELY._replace(end=FLOOR - 50 * DAY)
    jobs, _, following, _ = run(row(far, FLOOR - 200 * DAY), FLOOR)
    assert (jobs, following) == ([FLOOR - 50 * DAY], None)


def test_date_fires_once_however_late() -> None:
    once = Timing(run_at=NOW)
    assert first_tick(once, NOW + DAY) == NOW
    assert run(row(once, NOW), NOW + DAY) == ([NOW], {}, None, 1)
    assert run(row(once, NOW, misfire="skip", grace=MINUTE), NOW + DAY)[1] == {"late": 1}


def test_resumed_schedule_skips_the_pause_and_keeps_its_beat() -> None:
    assert resumed_tick(row(EIGHT, FLOOR + 8 * HOUR), FLOOR + 5 * DAY) == FLOOR + 5 * DAY + 8 * HOUR
    beat = row(Timing(every=HOUR), NOW)
    assert resumed_tick(beat, NOW + 90 * MINUTE) == NOW + 2 * HOUR
    assert resumed_tick(row(EIGHT, None), NOW) is None
    assert resumed_tick(row(Timing(run_at=NOW), NOW), NOW + DAY) == NOW


# -- jobs --------------------------------------------------------------------------------------------


def test_job_has_the_schedules_options_and_the_tick_without_its_jitter() -> None:
    jobs = JobRunner("sqlite:///unused.db")

    @jobs.task(priority=3, expires=60)
    async def work() -> None: ...

    options = dump_options(
        ResolvedJobOptions.make("x", queue="default", priority=7, tag="t", timeout=None)
    )
    definition = row(EIGHT, FLOOR + 8 * HOUR, jitter=10 * MINUTE)
    definition = definition._replace(definition=definition.definition._replace(options=options))
    (tick,) = fire_of(definition, work.spec, FLOOR + 8 * HOUR).ticks
    job = tick.job
    assert job is not None
    jitter = jitter_us("nightly", FLOOR + 8 * HOUR, 10 * MINUTE)
    assert 0 < jitter <= 10 * MINUTE
    assert (job.schedule, job.scheduled_for) == ("nightly", FLOOR + 8 * HOUR)
    assert job.run_at == FLOOR + 8 * HOUR + jitter
    assert (job.priority, job.tag, job.timeout, job.expires_at) == (7, "t", 0, job.run_at + MINUTE)


def test_jitter_is_the_same_for_a_tick_and_spread_over_ticks() -> None:
    drawn = [jitter_us("a", NOW + n * MINUTE, HOUR) for n in range(200)]
    assert drawn == [jitter_us("a", NOW + n * MINUTE, HOUR) for n in range(200)]
    assert max(drawn) <= HOUR
    assert len(set(drawn)) > 190
    assert 0.4 < sum(drawn) / len(drawn) / HOUR < 0.6
    assert jitter_us("a", NOW, 0) == 0


@pytest.mark.parametrize(
    "options",
    [
        ResolvedJobOptions(),
        ResolvedJobOptions.make("x", timeout=None, expires=None),
        ResolvedJobOptions.make("x", expires=5, max_attempts=2, key="k", queue="q", priority=-1),
    ],
)
def test_options_are_the_same_after_a_round_trip(options: ResolvedJobOptions) -> None:
    assert load_options(dump_options(options)) == options


def test_schedule_that_this_process_cannot_read_says_so() -> None:
    with pytest.raises(InvalidSchedule, match="Mars"):
        plan(row(Timing(cron="0 8 * * *", timezone="Mars/Olympus"), NOW), NOW)
    with pytest.raises(InvalidSchedule, match="neither"):
        plan(row(Timing(), NOW), NOW)
