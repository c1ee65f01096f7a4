"""The options of one job: checked where they are written, and what they make of the row."""

import ast
import dataclasses
import inspect
import math
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import pytest

from jobrunner.core.clock import MAX_US, from_us, to_us
from jobrunner.core.errors import InvalidOptions
from jobrunner.core.model import Enqueue
from jobrunner.core.units import MAX_DURATION_US, UNSET, duration_us, instant_us
from jobrunner.tasks.call import (
    _CHECKS,
    MAX_KEY_CHARS,
    MAX_TAG_CHARS,
    NO_OPTIONS,
    Call,
    ResolvedJobOptions,
)
from jobrunner.tasks.options import JOB_OPTIONS, JobOptions, TaskDefaults, TaskOptions
from jobrunner.tasks.router import TaskRouter
from jobrunner.tasks.schedule_options import ScheduleOptions
from jobrunner.tasks.task import Task
from jobrunner.worker.settings import RunnerOptions

S = 1_000_000
NOW = to_us(datetime(2026, 11, 22, 8, tzinfo=UTC))

router = TaskRouter(queue="mail", priority=2)


@router.task
async def remind(email: str) -> str:
    return email


@router.task(expires=60)
async def brief(email: str) -> str:
    return email


def row(task: Task[..., Any]) -> Enqueue:
    return task.call("a@b.c").to_enqueue(id="id-1", now=NOW)


# rows


def test_enqueue_without_options_takes_the_tasks() -> None:
    assert row(remind) == Enqueue(
        id="id-1",
        task="remind",
        queue="mail",
        args='{"email":"a@b.c"}',
        created_at=NOW,
        run_at=NOW,
        priority=2,
    )


def test_enqueue_with_every_option_takes_the_callers() -> None:
    task = remind.options(
        delay=timedelta(hours=1), priority=-1, key="k", queue="slow", expires=60, max_attempts=2,
        timeout=1.5, tag="t",
    )  # fmt: skip
    assert row(task) == Enqueue(
        id="id-1",
        task="remind",
        queue="slow",
        args='{"email":"a@b.c"}',
        created_at=NOW,
        run_at=NOW + 3600 * S,
        priority=-1,
        key="k",
        expires_at=NOW + 3660 * S,
        max_attempts=2,
        timeout=1_500_000,
        tag="t",
    )


def test_enqueue_with_run_at_is_due_then() -> None:
    berlin = timezone(timedelta(hours=1))
    task = remind.options(run_at=datetime(2026, 11, 22, 10, tzinfo=berlin))
    assert row(task).run_at == NOW + 3600 * S


@pytest.mark.parametrize(
    "past", [datetime(1, 1, 1, tzinfo=UTC), datetime(2026, 11, 22, 7, tzinfo=UTC)]
)
def test_E7_enqueue_with_a_run_at_that_is_past_is_due_now(past: datetime) -> None:
    assert row(remind.options(run_at=past)).run_at == NOW


def test_enqueue_expires_count_from_when_it_is_due() -> None:
    assert row(brief).expires_at == NOW + 60 * S
    assert row(brief.options(delay=10)).expires_at == NOW + 70 * S


def test_enqueue_expires_at_an_instant_is_that_instant() -> None:
    assert row(brief.options(expires=from_us(NOW + 5))).expires_at == NOW + 5


def test_enqueue_expires_none_lifts_the_tasks() -> None:
    assert row(brief.options(expires=None)).expires_at is None


def test_enqueue_with_an_instant_of_expiry_that_is_past_is_left_to_the_store() -> None:
    assert row(remind.options(expires=from_us(NOW - 5))).expires_at == NOW - 5


def test_enqueue_that_would_expire_before_it_is_due_is_refused() -> None:
    with pytest.raises(InvalidOptions, match="before it is due"):
        row(remind.options(delay=60, expires=from_us(NOW + 5)))
    with pytest.raises(InvalidOptions, match="never run"):
        remind.options(run_at=from_us(NOW + 60), expires=from_us(NOW + 5))


def test_enqueue_timeout_none_is_a_zero_and_left_out_is_none() -> None:
    assert row(remind.options(timeout=None)).timeout == 0
    assert row(remind.options(key="k")).timeout is None


# the task with options


def test_options_leave_the_task_as_it_was() -> None:
    later = remind.options(delay=60)
    assert row(remind).run_at == NOW
    assert row(later).run_at == NOW + 60 * S
    assert later.spec is remind.spec
    assert type(later) is type(remind)
    assert later.name == later.__name__ == "remind"


async def test_options_leave_the_function_callable() -> None:
    assert await remind.options(delay=60)("a") == "a"


def test_options_over_options_set_what_they_name_and_keep_the_rest() -> None:
    task = remind.options(delay=60, key="k", timeout=5).options(priority=9, timeout=None)
    made = row(task)
    assert (made.run_at, made.key, made.priority, made.timeout) == (NOW + 60 * S, "k", 9, 0)


def test_options_over_options_exchange_delay_and_run_at() -> None:
    at = from_us(NOW + 5)
    assert row(remind.options(delay=60).options(run_at=at)).run_at == NOW + 5
    assert row(remind.options(run_at=at).options(delay=60)).run_at == NOW + 60 * S


def test_options_over_options_exchange_the_forms_of_expires() -> None:
    at = from_us(NOW + 5)
    assert row(remind.options(expires=60).options(expires=at)).expires_at == NOW + 5
    assert row(remind.options(expires=at).options(expires=60)).expires_at == NOW + 60 * S
    assert row(remind.options(expires=at).options(expires=None)).expires_at is None
    assert row(brief.options(expires=None).options(key="k")).expires_at is None


def test_merge_with_nothing_changes_nothing() -> None:
    full = ResolvedJobOptions(
        delay=1, priority=2, key="k", queue="q", expires=None, max_attempts=3, timeout=None, tag="t"
    )
    assert full.merge(NO_OPTIONS) == full
    assert NO_OPTIONS.merge(full) == full
    assert {field.name for field in dataclasses.fields(full)} > {"delay", "run_at", "expires_at"}


def test_call_shows_its_task_and_never_its_arguments() -> None:
    assert repr(remind.call("hunter2")) == "<Call remind>"


def test_call_without_options_can_be_made_of_a_spec() -> None:
    made = Call[str](remind.spec, "{}")
    assert made.to_enqueue(id="i", now=NOW).args == "{}"


# how they are spelled


@pytest.mark.parametrize(
    "options", [TaskDefaults, TaskOptions, JobOptions, ScheduleOptions, RunnerOptions]
)
def test_every_option_stands_in_its_typed_dict_with_a_docstring(options: type) -> None:
    (declared,) = ast.parse(inspect.getsource(options)).body
    assert isinstance(declared, ast.ClassDef)
    fields = declared.body[1:]  # below the docstring
    for field, text in zip(fields[::2], fields[1::2], strict=True):
        assert isinstance(field, ast.AnnAssign)
        assert isinstance(text, ast.Expr)
        assert isinstance(text.value, ast.Constant)


def test_every_option_of_a_job_has_a_check() -> None:
    assert _CHECKS.keys() == JOB_OPTIONS


def test_session_at_the_task_is_answered_with_the_job_s() -> None:
    words: Any = {"session": object()}
    with pytest.raises(TypeError, match=r"it is each job's, write task\.options\(session=\.\.\.\)"):
        router.task(**words)


# values that cannot be


@pytest.mark.parametrize(
    "value",
    [
        -1, -0.5, math.nan, math.inf, -math.inf, 1e300, 10**400, 36_525 * 86_400 + 1, True, "60", None,
        timedelta(days=-1), timedelta.max, timedelta.min, [60], datetime(2026, 1, 1, tzinfo=UTC),
    ],
)  # fmt: skip
def test_E7_duration_that_cannot_be_is_refused(value: Any) -> None:
    with pytest.raises(InvalidOptions, match="delay"):
        duration_us(value, "delay")


@pytest.mark.parametrize(
    ("value", "us"),
    [
        (0, 0), (0.0, 0), (1, S), (1.5, 1_500_000), (0.1, 100_000), (timedelta(hours=1), 3600 * S),
        (1e-9, 0), (36_525 * 86_400, MAX_DURATION_US), (timedelta(days=36_525), MAX_DURATION_US),
    ],
)  # fmt: skip
def test_duration_in_seconds_or_timedelta_becomes_microseconds(value: Any, us: int) -> None:
    assert duration_us(value, "delay") == us


@pytest.mark.parametrize(
    "value",
    [
        datetime(2026, 1, 1),  # noqa: DTZ001 - the very thing that is refused
        datetime(9999, 12, 31, 23, tzinfo=UTC),
        datetime.max.replace(tzinfo=timezone(timedelta(hours=-23))),
        datetime.min.replace(tzinfo=timezone(timedelta(hours=23))),
        date(2026, 1, 1), 1_800_000_000, "2026-01-01T00:00:00Z", None,
    ],
)  # fmt: skip
def test_E7_instant_that_cannot_be_is_refused(value: Any) -> None:
    with pytest.raises(InvalidOptions, match="run_at"):
        instant_us(value, "run_at")


def test_instant_without_a_zone_is_told_what_to_write() -> None:
    with pytest.raises(InvalidOptions, match="tzinfo=UTC"):
        remind.options(run_at=datetime(2026, 1, 1))  # noqa: DTZ001 - the very thing that is refused


def test_instant_at_the_end_of_the_calendar_is_taken() -> None:
    assert instant_us(from_us(MAX_US), "run_at") == MAX_US


def test_E7_enqueue_with_the_longest_delay_and_expiry_stays_in_the_calendar() -> None:
    made = row(remind.options(delay=timedelta(days=36_525), expires=timedelta(days=36_525)))
    assert made.expires_at is not None
    assert from_us(made.expires_at).year == 2226


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("delay", math.nan), ("delay", -1), ("run_at", 5), ("expires", 0), ("expires", -1),
        ("expires", math.inf), ("timeout", 0), ("timeout", math.nan), ("max_attempts", 0),
        ("max_attempts", True), ("max_attempts", 1.5), ("priority", "high"), ("priority", 40_000),
        ("queue", "a b"), ("queue", ""), ("key", ""), ("key", 42), ("tag", ""), ("tag", ["a"]),
    ],
)  # fmt: skip
def test_E7_options_with_a_value_that_cannot_be_are_refused(option: str, value: Any) -> None:
    options: Any = {option: value}
    with pytest.raises(InvalidOptions, match=option):
        remind.options(**options)


@pytest.mark.parametrize("text", ["a\0b", "a\nb", "\x1b[0m", "\x7f", "\ud800"])
def test_F4_F17_key_or_tag_with_control_characters_is_refused(text: str) -> None:
    with pytest.raises(InvalidOptions, match="key"):
        remind.options(key=text)
    with pytest.raises(InvalidOptions, match="tag"):
        remind.options(tag=text)


def test_key_or_tag_that_is_too_long_is_refused() -> None:
    assert row(remind.options(key="k" * MAX_KEY_CHARS, tag="t" * MAX_TAG_CHARS)).tag
    with pytest.raises(InvalidOptions):
        remind.options(key="k" * (MAX_KEY_CHARS + 1))
    with pytest.raises(InvalidOptions):
        remind.options(tag="t" * (MAX_TAG_CHARS + 1))


def test_key_of_any_script_is_taken() -> None:
    assert row(remind.options(key="Grüße 👩‍🚀 /42?")).key == "Grüße 👩‍🚀 /42?"


def test_delay_and_run_at_together_are_refused() -> None:
    with pytest.raises(InvalidOptions, match="not both"):
        remind.options(delay=1, run_at=from_us(NOW))


def test_unset_says_what_it_is() -> None:
    assert remind.options(key="k")._options.timeout is UNSET


@pytest.mark.parametrize("word", ["key", "tag", "queue"])
def test_long_value_is_refused_without_being_repeated_whole(word: str) -> None:
    given: Any = {word: "x" * 5_000_000}
    with pytest.raises(InvalidOptions, match=r"x\.\.\. \(5,000,002 characters\)") as caught:
        ResolvedJobOptions.make("send.options", **given)
    assert len(str(caught.value)) < 400
