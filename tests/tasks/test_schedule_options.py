"""``@router.cron`` and ``@router.every``: what they keep, what they refuse, and how deploys may roll."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from jobrunner import (
    ConfigurationError,
    InvalidSchedule,
    JobContext,
    JobRunner,
    TaskRouter,
    UnknownQueue,
)
from jobrunner.core.schedule import Definition, ScheduleChange, ScheduleRow, Timing
from jobrunner.tasks.schedule_options import reconcile
from jobrunner.tasks.task import AsyncTask, CtxSyncTask
from tests.support.factories import DAY, HOUR, MINUTE, NOW

NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)


def definition_of(router: TaskRouter, id: str) -> Definition:
    return router.declarations[id].defined("Asia/Kolkata")


# -- above a task or a function -----------------------------------------------------------------------


def test_cron_above_a_task_returns_that_very_task() -> None:
    router = TaskRouter(prefix="shop.")

    @router.task(priority=4)
    async def report() -> None: ...

    assert router.cron("0 8 * * *", timezone="Europe/Berlin")(report) is report
    assert definition_of(router, "shop.report") == Definition(
        "shop.report", "{}", Timing(cron="0 8 * * *", timezone="Europe/Berlin"), cap=100
    )


async def test_cron_above_a_function_makes_a_task_of_it_which_is_still_the_function() -> None:
    router = TaskRouter(queue="slow")

    @router.cron("@daily")
    async def report(day: str = "today") -> str:
        return day

    @router.every(minutes=5)
    def sweep(job: JobContext) -> None: ...

    assert isinstance(report, AsyncTask)
    assert isinstance(sweep, CtxSyncTask)
    assert report.spec.options.queue == "slow"
    assert await report("monday") == "monday"
    assert set(router.tasks) == set(router.declarations) == {"report", "sweep"}
    assert definition_of(router, "sweep").timing == Timing(every=5 * MINUTE)


def test_annotations_that_are_text_are_read_in_the_function_around() -> None:
    @dataclass
    class Local:
        number: int

    router = TaskRouter()

    @router.every(60, args=[Local(7)])
    async def work(thing: "Local") -> None: ...

    @router.cron("@daily", args={"thing": Local(7)})
    async def other(thing: "Local") -> None: ...

    assert definition_of(router, "work").args == '{"thing":{"number":7}}'
    assert definition_of(router, "other").args == definition_of(router, "work").args


def test_words_are_kept_in_microseconds() -> None:
    router = TaskRouter()

    @router.every(
        timedelta(hours=1),
        id="beat",
        args=["Ada"],
        misfire="all",
        grace=timedelta(minutes=2),
        cap=7,
        overlap="skip",
        jitter=30,
        start=NOON,
        end=NOON + timedelta(days=1),
    )
    async def greet(name: str) -> None: ...

    noon = int(NOON.timestamp()) * 1_000_000
    assert definition_of(router, "beat") == Definition(
        "greet",
        '{"name":"Ada"}',
        Timing(every=HOUR, start=noon, end=noon + DAY),
        misfire="all",
        grace=2 * MINUTE,
        cap=7,
        overlap="skip",
        jitter=MINUTE // 2,
    )


def test_args_are_given_in_order_or_by_name() -> None:
    router = TaskRouter()

    @router.task
    async def greet(name: str, times: int = 1) -> None: ...

    router.cron("@daily", id="a", args=("Ada", 2))(greet)
    router.cron("@daily", id="b", args={"name": "Ada", "times": 2})(greet)
    assert definition_of(router, "a") == definition_of(router, "b")


def test_options_of_the_task_go_with_the_schedule() -> None:
    router = TaskRouter()

    @router.task
    async def report() -> None: ...

    router.cron("@daily")(report.options(priority=9, key="one"))
    assert definition_of(router, "report").options == '{"key": "one", "priority": 9}'


def test_zone_that_is_not_named_is_the_runners() -> None:
    router = TaskRouter()
    router.cron("@daily", id="a")(_task(router))
    router.cron("@daily", id="b", timezone="UTC")(router.tasks["work"])
    assert definition_of(router, "a").timing.timezone == "Asia/Kolkata"
    assert definition_of(router, "b").timing.timezone == "UTC"
    assert router.declarations["a"].definition.timing.timezone == "UTC"


def _task(router: TaskRouter) -> Any:
    @router.task
    async def work() -> None: ...

    return work


def test_include_brings_the_schedules_along_also_those_declared_later() -> None:
    inner, outer = TaskRouter(prefix="mail."), TaskRouter()
    outer.include(inner)

    @inner.cron("0 8 * * *")
    async def digest() -> None: ...

    jobs = JobRunner("sqlite:///unused.db")
    jobs.include(outer)
    assert set(jobs.declarations) == {"mail.digest"}


# -- refused where it is written ----------------------------------------------------------------------


def test_task_with_required_arguments_is_refused_and_told_how() -> None:
    router = TaskRouter()
    with pytest.raises(InvalidSchedule, match=r"@cron above greet .*args=\[...\].*name"):

        @router.cron("@daily")
        async def greet(name: str) -> None: ...

    with pytest.raises(InvalidSchedule, match="cannot be called like that"):

        @router.every(60, args=["Ada", 2])
        async def other(name: str) -> None: ...

    assert router.declarations == {}


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ({"misfire": "once"}, "misfire='once' is none of 'latest', 'all', 'skip'"),
        ({"overlap": "queue"}, "overlap='queue' is none of 'allow', 'skip'"),
        ({"cap": 0}, "cap=0 is not a whole number from 1 to 400"),
        ({"cap": 401}, "cap=401"),
        ({"grace": -1}, "grace=-1 is not a duration"),
        ({"jitter": "5s"}, "jitter takes seconds"),
        ({"start": datetime(2026, 3, 4)}, "start=.* has no time zone"),  # noqa: DTZ001 - what is refused
        ({"start": NOON, "end": NOON - timedelta(1)}, "end is before start"),
        ({"args": "Ada"}, "neither a list"),
        ({"id": "not an id"}, "no id of a schedule"),
        ({"id": "-x"}, "no id of a schedule"),
    ],
)
def test_impossible_word_is_refused(words: dict[str, Any], why: str) -> None:
    router = TaskRouter()
    with pytest.raises(InvalidSchedule, match=why):
        router.every(60, **words)(_task(router))


def test_unknown_word_is_a_type_error_that_lists_ours() -> None:
    router = TaskRouter()
    with pytest.raises(TypeError, match=r"@every\(\) has no option 'colour'; it has args, misfire"):
        router.every(60, colour="red")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"@cron\(\) has no option 'colour'; it has args, misfire"):
        router.cron("@daily", colour="red")  # type: ignore[call-arg]


def test_expression_and_zone_are_refused_at_their_own_line() -> None:
    router = TaskRouter()
    with pytest.raises(InvalidSchedule, match="never comes true"):
        router.cron("0 0 31 2 *")
    with pytest.raises(InvalidSchedule, match="not in the time zone database"):
        router.cron("@daily", timezone="Berlin")
    with pytest.raises(InvalidSchedule, match="more than 500: write ranges"):
        router.cron("1," * 100_000 + "1 * * * *")
    with pytest.raises(InvalidSchedule, match="more than 100: write one, such as"):
        router.cron("@daily", timezone="Europe/" + "B" * 200_000)
    with pytest.raises(InvalidSchedule, match="six fields"):
        router.cron("0 * * * * *")
    with pytest.raises(InvalidSchedule, match=r"write @jobs.every\(minutes=5\)"):
        router.every()
    with pytest.raises(InvalidSchedule, match="must be more than 0"):
        router.every(0)
    with pytest.raises(InvalidSchedule, match="an interval, or hours"):
        router.every(60, minutes=1)
    with pytest.raises(InvalidSchedule, match="is no interval"):
        router.every(minutes=1e300)
    with pytest.raises(ConfigurationError, match="not in the time zone database"):
        JobRunner("sqlite:///unused.db", timezone="Berlin")
    with pytest.raises(ConfigurationError, match="revision=-1"):
        JobRunner("sqlite:///unused.db", revision=-1)


def test_two_schedules_of_one_task_need_an_id() -> None:
    router = TaskRouter()
    task = _task(router)
    router.cron("0 8 * * *")(task)
    with pytest.raises(InvalidSchedule, match=r"two schedules have the id 'work'.*id=..."):
        router.cron("0 20 * * *")(task)
    router.cron("0 20 * * *", id="work.evening")(task)


def test_two_routers_whose_schedules_share_an_id_do_not_go_together() -> None:
    one, two, jobs = TaskRouter(), TaskRouter(), JobRunner("sqlite:///unused.db")
    one.cron("@daily", id="same")(_task(one))

    @two.every(60, id="same")
    async def other() -> None: ...

    jobs.include(one)
    with pytest.raises(InvalidSchedule, match="the id 'same'"):
        jobs.include(two)


def test_options_that_say_when_are_refused() -> None:
    router = TaskRouter()
    task = _task(router)
    for options in ({"delay": 5}, {"run_at": NOON}, {"expires": NOON}):
        with pytest.raises(InvalidSchedule, match="says when"):
            router.cron("@daily")(task.options(**options))


async def test_runner_that_lacks_the_task_or_the_queue_is_not_opened(tmp_path: Any) -> None:
    other = TaskRouter()
    jobs = JobRunner(tmp_path / "a.db")
    jobs.cron("@daily")(_task(other))
    with pytest.raises(InvalidSchedule, match=r"which this runner does not have.*include"):
        async with jobs.running():
            pass
    jobs = JobRunner(tmp_path / "a.db")
    jobs.cron("@daily")(_task(jobs).options(queue="mial"))
    with pytest.raises(UnknownQueue, match="the schedule 'work'"):
        async with jobs.running():
            pass
    assert not (tmp_path / "a.db").exists()


# -- rolling deploys (G5) -----------------------------------------------------------------------------

HOURLY = Definition("work", "{}", Timing(cron="0 * * * *", timezone="UTC"))
DAILY = HOURLY._replace(timing=Timing(cron="0 0 * * *", timezone="UTC"))


def settle(
    rows: dict[str, ScheduleRow],
    declared: dict[str, Definition],
    *,
    revision: int = 0,
    now: int = NOW,
    elsewhere: frozenset[str] = frozenset(),
) -> list[ScheduleChange]:
    """Declare, write down what changes, and return it."""
    changes = reconcile(declared, rows.values(), revision=revision, now=now, elsewhere=elsewhere)
    for _, row in changes:
        assert row is not None
        rows[row.id] = row
    return changes


def test_start_with_what_is_stored_already_changes_nothing() -> None:
    rows: dict[str, ScheduleRow] = {}
    assert len(settle(rows, {"a": HOURLY})) == 1
    assert settle(rows, {"a": HOURLY}, now=NOW + DAY) == []


def test_G5_start_on_the_tick_keeps_it_whatever_else_is_changed() -> None:
    """Ten starts, each on the tick: computed anew at a start, none of them would ever be due."""
    rows: dict[str, ScheduleRow] = {}
    settle(rows, {"a": HOURLY})
    first = rows["a"].next
    assert first is not None
    for number in range(9):
        settle(rows, {"a": HOURLY._replace(args=f'{{"n":{number}}}')}, now=first + number)
        assert rows["a"].next == first
    assert rows["a"].definition.args == '{"n":8}'


def test_G5_changed_expression_counts_from_now_and_from_the_last_tick() -> None:
    rows: dict[str, ScheduleRow] = {}
    settle(rows, {"a": DAILY})
    assert len(settle(rows, {"a": HOURLY}, now=NOW)) == 1
    assert rows["a"].next == NOW - NOW % HOUR + HOUR
    rows["a"] = rows["a"]._replace(last=NOW + DAY - NOW % HOUR)
    settle(rows, {"a": HOURLY._replace(timing=HOURLY.timing._replace(timezone="Asia/Tokyo"))})
    assert rows["a"].next == NOW + DAY - NOW % HOUR + HOUR


def test_G5_lower_revision_neither_overwrites_nor_disables_a_higher() -> None:
    rows: dict[str, ScheduleRow] = {}
    settle(rows, {"a": HOURLY, "b": HOURLY}, revision=7)
    assert settle(rows, {"a": DAILY}, revision=6) == []
    assert rows["a"].definition == HOURLY
    assert not rows["b"].disabled


def test_G5_higher_revision_overwrites_and_disables_a_lower() -> None:
    rows: dict[str, ScheduleRow] = {}
    settle(rows, {"a": HOURLY, "b": HOURLY}, revision=6)
    settle(rows, {"a": DAILY}, revision=7, elsewhere=frozenset({"work"}))
    assert (rows["a"].definition, rows["a"].revision) == (DAILY, 7)
    assert rows["b"].disabled
    # A process of the old code that starts once more brings back neither.
    assert settle(rows, {"a": HOURLY, "b": HOURLY}, revision=6, now=NOW + DAY) == []


def test_G5_revision_is_raised_without_a_change_of_the_next_tick() -> None:
    rows: dict[str, ScheduleRow] = {}
    settle(rows, {"a": HOURLY}, revision=6)
    first = rows["a"].next
    settle(rows, {"a": HOURLY}, revision=7, now=NOW + DAY)
    assert (rows["a"].next, rows["a"].revision) == (first, 7)


def test_declared_no_more_is_disabled_and_comes_back_from_now_on() -> None:
    rows: dict[str, ScheduleRow] = {}
    settle(rows, {"a": HOURLY})
    rows["a"] = rows["a"]._replace(fired=5, paused=True)
    settle(rows, {})
    assert rows["a"].disabled
    assert settle(rows, {}) == []
    settle(rows, {"a": HOURLY}, now=NOW + DAY)
    (back,) = rows.values()
    assert (back.disabled, back.fired, back.paused) == (False, 5, True)
    assert back.next == NOW + DAY - NOW % HOUR + HOUR


def test_declared_no_more_in_the_same_revision_stays_while_another_application_knows_its_task() -> (
    None
):
    rows: dict[str, ScheduleRow] = {}
    settle(rows, {"a": HOURLY})
    assert settle(rows, {}, elsewhere=frozenset({"work"})) == []
    assert len(settle(rows, {})) == 1


def test_stored_ones_are_left_alone_and_one_that_moves_into_the_code_keeps_its_tick() -> None:
    stored = ScheduleRow("a", "stored", HOURLY, 0, 3, False, False, NOW, NOW + 5)
    rows = {"a": stored}
    assert settle(rows, {}) == []
    settle(rows, {"a": HOURLY})
    assert (rows["a"].source, rows["a"].next) == ("code", NOW + 5)
