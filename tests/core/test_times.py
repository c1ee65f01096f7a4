"""Dates and times as arguments and results: stored as instant and offset, or refused with the line to write."""

import inspect
from collections import deque
from datetime import UTC, datetime, time, timedelta, timezone
from typing import Annotated, Any
from zoneinfo import ZoneInfo

import pytest
from freezegun.api import FakeDatetime
from hypothesis import given
from hypothesis import strategies as st
from pydantic import AfterValidator, BaseModel, ConfigDict, field_serializer

from jobrunner.core.errors import InvalidArguments, ResultNotStored
from jobrunner.queue.filters import job_filter
from jobrunner.tasks.call import ResolvedJobOptions
from jobrunner.tasks.codec import ArgsCodec, ResultCodec
from jobrunner.tasks.recurrence import Once

BERLIN = ZoneInfo("Europe/Berlin")
LORD_HOWE = ZoneInfo("Australia/Lord_Howe")  # whose clocks change by half an hour
FIRST = datetime(2026, 10, 25, 2, 30, tzinfo=BERLIN)
SECOND = FIRST.replace(fold=1)
SKIPPED = datetime(2026, 3, 29, 2, 30, tzinfo=BERLIN)
LOCAL_MEAN = datetime(1890, 1, 1, tzinfo=BERLIN)  # +00:53:28
NINE = time(9, tzinfo=BERLIN)


class Remind(BaseModel):
    model_config = ConfigDict(frozen=True)
    at: datetime


def codec_for(annotation: Any) -> ArgsCodec:
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    return ArgsCodec("note", [inspect.Parameter("detail", kind, annotation=annotation)])


def sent(annotation: Any, value: object) -> Any:
    """Return what a job is given for an argument, after having checked that a result makes the same way."""
    args, result = codec_for(annotation), ResultCodec("note", annotation)
    back = args.decode(args.encode((value,), {}))["detail"]
    assert result.decode(result.encode(value)) == back
    return back


def refusal(annotation: Any, value: object) -> str:
    with pytest.raises(InvalidArguments) as caught:
        codec_for(annotation).encode((value,), {})
    with pytest.raises(ResultNotStored):
        ResultCodec("note", annotation).encode(value)
    return str(caught.value).removeprefix("note: ")


def instant(moment: datetime) -> timedelta:
    """Return the time since 1970; ``==`` between two zones is False where the clocks are put back."""
    return moment - datetime(1970, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("moment", "offset"),
    [
        (FIRST, 2),
        (SECOND, 1),
        (SKIPPED, 1),
        (datetime(2026, 7, 1, 9, tzinfo=BERLIN), 2),
        (datetime(2026, 4, 5, 1, 45, fold=1, tzinfo=LORD_HOWE), 10.5),
        (datetime(2026, 4, 5, 1, 45, tzinfo=LORD_HOWE), 11),
        (datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=-9, minutes=-30))), -9.5),
        (datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14))), 14),
        (datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=timezone(timedelta(hours=-12))), -12),
    ],
)
def test_aware_datetime_arrives_with_its_instant_and_its_offset(
    moment: datetime, offset: float
) -> None:
    back = sent(datetime, moment)
    assert instant(back) == instant(moment)
    assert back.utcoffset() == moment.utcoffset() == timedelta(hours=offset)
    assert back.replace(tzinfo=None) == moment.replace(tzinfo=None, fold=0)


@pytest.mark.parametrize("moment", [FIRST, SECOND, SKIPPED])
@pytest.mark.parametrize(
    ("annotation", "around"),
    [
        (list[datetime], lambda at: [at]),
        (deque[datetime], lambda at: deque([at])),
        (tuple[datetime, int], lambda at: (at, 1)),
        (set[datetime], lambda at: {at}),
        (frozenset[tuple[datetime, int]], lambda at: frozenset([(at, 1)])),
        (dict[str, datetime], lambda at: {"at": at}),
        (dict[datetime, int], lambda at: {at: 1}),
        (datetime | None, lambda at: at),
        (datetime | int, lambda at: at),
        (Remind, lambda at: Remind(at=at)),
        (list[Remind | int], lambda at: [Remind(at=at), 1]),
    ],
)
def test_doubled_hour_is_kept_wherever_it_is(
    annotation: Any, around: Any, moment: datetime
) -> None:
    text = codec_for(annotation).encode((around(moment),), {})
    assert moment.isoformat() in text
    assert ResultCodec("note", annotation).encode(around(moment)) is not None


def test_two_keys_of_one_instant_are_refused() -> None:
    # For Python they are two: in the doubled hour no datetime of a zone equals one of another zone.
    refusal(dict[datetime, int], {FIRST.astimezone(UTC): 1, FIRST: 2})


@given(st.datetimes(timezones=st.timezones()))
def test_any_aware_datetime_arrives_with_its_instant_or_is_refused(moment: datetime) -> None:
    offset = moment.utcoffset()
    assert offset is not None
    if offset % timedelta(minutes=1):
        assert "has seconds" in refusal(datetime, moment)
        return
    back = sent(datetime, moment)
    assert instant(back) == instant(moment)
    assert back.utcoffset() == offset


def test_naive_datetime_stays_naive() -> None:
    assert sent(datetime, datetime(2026, 10, 25, 2, 30, fold=1)) == datetime(2026, 10, 25, 2, 30)  # noqa: DTZ001


def test_child_of_datetime_arrives_as_datetime() -> None:
    at = FakeDatetime(2026, 10, 25, 2, 30, tzinfo=BERLIN)
    back = sent(datetime, at)
    assert type(back) is datetime
    assert instant(back) == instant(at)


# what JSON has no word for


@pytest.mark.parametrize(
    "moment",
    [
        LOCAL_MEAN,
        datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=1, seconds=1))),
        datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=-1, microseconds=5))),
    ],
)
@pytest.mark.parametrize(
    ("annotation", "around", "path"),
    [
        (datetime, lambda at: at, "detail"),
        (list[datetime], lambda at: [at], "detail[0]"),
        (Remind, lambda at: Remind(at=at), "detail.at"),
        (set[datetime], lambda at: {at}, "detail"),
        (dict[datetime, int], lambda at: {at: 1}, "detail"),
    ],
)
def test_offset_with_seconds_is_refused_with_what_to_pass(
    annotation: Any, around: Any, path: str, moment: datetime
) -> None:
    said = refusal(annotation, around(moment))
    assert said.startswith(f"{path}: its offset of {moment.utcoffset()} has seconds")
    assert "pass .astimezone(UTC) of it" in said
    assert instant(sent(datetime, moment.astimezone(UTC))) == instant(moment)


@pytest.mark.parametrize(
    ("annotation", "value", "path"),
    [
        (time, NINE, "detail"),
        (time | None, NINE, "detail"),
        (list[time], [time(8), NINE], "detail[1]"),
        (set[time], {NINE}, "detail"),
        (dict[time, int], {NINE: 1}, "detail"),
        (dict[str, time], {"at": NINE}, "detail.at"),
    ],
)
def test_time_in_a_zone_is_refused_with_what_to_pass(
    annotation: Any, value: object, path: str
) -> None:
    said = refusal(annotation, value)
    assert said.startswith(f"{path}: a time has no offset in Europe/Berlin by itself")
    assert (
        "pass .replace(tzinfo=None) of it and the zone's name, 'Europe/Berlin', beside it" in said
    )


def test_time_with_an_offset_of_seconds_is_refused() -> None:
    odd = time(9, tzinfo=timezone(timedelta(hours=1, seconds=1)))
    assert refusal(time, odd).startswith("detail: its offset of 1:00:01 has seconds")


@pytest.mark.parametrize(
    "clock",
    [time(9), time(9, tzinfo=UTC), time(9, tzinfo=ZoneInfo("UTC")), time(9, tzinfo=timezone(timedelta(hours=-3)))],
)  # fmt: skip
def test_time_with_an_offset_or_none_is_kept(clock: time) -> None:
    back = sent(time, clock)
    assert back == clock
    assert back.utcoffset() == clock.utcoffset()


# what its owner stores in another offset


def test_serializer_that_writes_another_offset_keeps_the_instant() -> None:
    class InUtc(BaseModel):
        at: datetime
        or_at: datetime

        @field_serializer("at", "or_at")
        def in_utc(self, at: datetime) -> datetime:
            return at.astimezone(UTC)

    back = sent(InUtc, InUtc(at=FIRST, or_at=SKIPPED))
    assert (instant(back.at), instant(back.or_at)) == (instant(FIRST), instant(SKIPPED))


def test_validator_that_moves_into_a_zone_has_it_again_in_the_job() -> None:
    in_berlin = Annotated[datetime, AfterValidator(lambda at: at.astimezone(BERLIN))]
    back = sent(in_berlin, FIRST)
    assert back.tzinfo is BERLIN
    assert instant(back) == instant(FIRST)


# options and filters, which are microseconds from the first line on


@pytest.mark.parametrize("moment", [FIRST, SECOND, SKIPPED, LOCAL_MEAN])
def test_options_filters_and_dates_take_the_instant(moment: datetime) -> None:
    us = instant(moment) // timedelta(microseconds=1)
    assert ResolvedJobOptions.make("note.options", run_at=moment).run_at == us
    assert ResolvedJobOptions.make("note.options", expires=moment).expires_at == us
    where = job_filter({"since": moment, "until": moment})
    assert (where.since, where.until) == (us, us)
    assert instant(Once(moment).at) == instant(moment)


def test_options_in_the_doubled_hour_are_ordered_by_instant() -> None:
    later = SECOND.replace(minute=10)  # on the wall clock 20 minutes before the other
    made = ResolvedJobOptions.make("note.options", run_at=FIRST, expires=later)
    assert made.run_at is not None
    assert made.expires_at is not None
    assert made.expires_at - made.run_at == 40 * 60 * 1_000_000
