"""Ticks of schedules around clock changes, and refused expressions."""

import sys
import zoneinfo
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta, timezone
from itertools import takewhile
from time import process_time
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim
from hypothesis import given
from hypothesis import strategies as st

from jobrunner import Cron, Every, InvalidSchedule
from jobrunner.tasks.recurrence import MAX_CRON_CHARS, MAX_ZONE_CHARS, Once, _zone_of


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def ticks(cron: Cron, after: datetime) -> Iterator[datetime]:
    while True:
        after = cron.next_after(after)
        yield after


# -- cron: a time of day, once per local day (E4) -----------------------------------------------------

TIMES_OF_DAY = [
    # Half an hour, either way.
    ("Australia/Lord_Howe", "15 2 * * *", "2026-10-03T02:15+10:30", "2026-10-04T02:30+11:00", "2026-10-05T02:15+11:00"),
    ("Australia/Lord_Howe", "45 1 * * *", "2026-04-04T01:45+11:00", "2026-04-05T01:45+11:00", "2026-04-06T01:45+10:30"),
    ("America/New_York", "30 2 * * *", "2026-03-07T02:30-05:00", "2026-03-08T03:00-04:00", "2026-03-09T02:30-04:00"),
    ("America/New_York", "30 1 * * *", "2026-10-31T01:30-04:00", "2026-11-01T01:30-04:00", "2026-11-02T01:30-05:00"),
    ("Europe/London", "15 1 * * *", "2026-03-28T01:15+00:00", "2026-03-29T02:00+01:00", "2026-03-30T01:15+01:00"),
    ("Europe/London", "15 1 * * *", "2026-10-24T01:15+01:00", "2026-10-25T01:15+01:00", "2026-10-26T01:15+00:00"),
    ("Europe/Berlin", "30 2 * * *", "2026-03-28T02:30+01:00", "2026-03-29T03:00+02:00", "2026-03-30T02:30+02:00"),
    ("Europe/Berlin", "30 2 * * *", "2026-10-24T02:30+02:00", "2026-10-25T02:30+02:00", "2026-10-26T02:30+01:00"),
    # No changes at all, and half an hour from everybody.
    ("Asia/Kolkata", "0 9 * * *", "2026-03-28T09:00+05:30", "2026-03-29T09:00+05:30", "2026-03-30T09:00+05:30"),
    # A day that never was.
    ("Pacific/Apia", "0 9 * * *", "2011-12-29T09:00-10:00", "2011-12-31T09:00+14:00", "2012-01-01T09:00+14:00"),
    ("Pacific/Apia", "0 0 * * *", "2011-12-29T00:00-10:00", "2011-12-31T00:00+14:00", "2012-01-01T00:00+14:00"),
    # At midnight, so that the day has none.
    ("Africa/Cairo", "0 0 * * *", "2026-04-23T00:00+02:00", "2026-04-24T01:00+03:00", "2026-04-25T00:00+03:00"),
    ("Africa/Cairo", "30 23 * * *", "2026-10-28T23:30+03:00", "2026-10-29T23:30+03:00", "2026-10-30T23:30+02:00"),
    # Three quarters of an hour from everybody.
    ("Pacific/Chatham", "0 3 * * *", "2026-09-26T03:00+12:45", "2026-09-27T03:45+13:45", "2026-09-28T03:00+13:45"),
    ("Pacific/Chatham", "0 3 * * *", "2026-04-04T03:00+13:45", "2026-04-05T03:00+13:45", "2026-04-06T03:00+12:45"),
    ("America/St_Johns", "15 2 * * *", "2026-03-07T02:15-03:30", "2026-03-08T03:00-02:30", "2026-03-09T02:15-02:30"),
    # The gap ends at midnight: the tick of the 28th is the first instant after it.
    ("America/Nuuk", "45 23 * * *", "2026-03-27T23:45-02:00", "2026-03-29T00:00-01:00", "2026-03-29T23:45-01:00"),
]  # fmt: skip


@pytest.mark.parametrize(("zone", "expression", "before", "on_the_day", "after"), TIMES_OF_DAY)
def test_E4_time_of_day_ticks_once_per_local_day(
    zone: str, expression: str, before: str, on_the_day: str, after: str
) -> None:
    found = ticks(Cron(expression, zone), at(before) - timedelta(seconds=1))
    assert [next(found) for _ in range(3)] == [at(before), at(on_the_day), at(after)]


# -- cron: what follows real time ---------------------------------------------------------------------

ZONES = sorted({row[0] for row in TIMES_OF_DAY})
CHANGES = {
    "Australia/Lord_Howe": ("2026-04-04T15:00+00:00", "2026-10-03T15:30+00:00"),
    "America/New_York": ("2026-03-08T07:00+00:00", "2026-11-01T06:00+00:00"),
    "Europe/London": ("2026-03-29T01:00+00:00", "2026-10-25T01:00+00:00"),
    "Europe/Berlin": ("2026-03-29T01:00+00:00", "2026-10-25T01:00+00:00"),
    "Asia/Kolkata": ("2026-03-29T01:00+00:00",),
    "Pacific/Apia": ("2011-12-30T10:00+00:00",),
    "Africa/Cairo": ("2026-04-23T22:00+00:00", "2026-10-29T21:00+00:00"),
    "Pacific/Chatham": ("2026-04-04T14:00+00:00", "2026-09-26T14:00+00:00"),
    "America/St_Johns": ("2026-03-08T05:30+00:00", "2026-11-01T04:30+00:00"),
    "America/Nuuk": ("2026-03-29T01:00+00:00", "2026-10-25T01:00+00:00"),
}


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize(
    "expression", ["*/30 * * * *", "0 * * * *", "*/7 2 * * *", "0 */2 * * *", "*/20 1-3 * * 1-5"]
)
def test_E4_wildcard_ticks_whenever_the_clocks_show_a_time_that_fits(
    zone: str, expression: str
) -> None:
    """Each minute of two days is asked what the clocks show: none is lost, and both of two equal ones tick."""
    for change in CHANGES[zone]:
        first, last = at(change) - timedelta(hours=8), at(change) + timedelta(hours=30)
        minutes = [first + timedelta(minutes=n) for n in range(1, 38 * 60 + 1)]
        shown = _shown(expression, minutes, zone)
        found: list[datetime] = []
        for tick in ticks(Cron(expression, zone), first):
            if tick > last:
                break
            found.append(tick)
        assert found == shown


def _shown(expression: str, minutes: Sequence[datetime], zone: str) -> list[datetime]:
    """Return the minutes at which the clocks show a time that fits."""
    walls = [one.astimezone(ZoneInfo(zone)).replace(tzinfo=None, fold=0) for one in minutes]
    series = CronSim(expression, min(walls) - timedelta(seconds=1))
    fitting = set(takewhile(max(walls).__ge__, series))
    return [minute for minute, wall in zip(minutes, walls, strict=True) if wall in fitting]


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize(
    "expression", ["30 2 * * *", "0 0 * * *", "15,45 1-3 * * *", "*/7 2 * * *"]
)
def test_next_after_any_instant_is_the_next_of_the_series(zone: str, expression: str) -> None:
    """The ticks are a set: where one begins to count makes no difference, not even within an hour that comes twice."""
    cron = Cron(expression, zone)
    for change in CHANGES[zone]:
        series = ticks(cron, at(change) - timedelta(days=2))
        before = next(series)
        for tick in (next(series) for _ in range(12)):
            for part in (0.01, 0.3, 0.6, 0.99):
                assert cron.next_after(before + (tick - before) * part) == tick
            before = tick


@given(st.integers(0, 120 * 365 * 24 * 3600), st.sampled_from(ZONES))
def test_next_after_is_later_in_utc_and_takes_any_zone(seconds: int, zone: str) -> None:
    instant = datetime.fromtimestamp(seconds, UTC)
    for expression in ("30 2 * * *", "*/13 1-3 * * *"):
        tick = Cron(expression, zone).next_after(instant)
        assert tick > instant
        assert tick.tzinfo is UTC
        assert Cron(expression, zone).next_after(instant.astimezone(ZoneInfo(zone))) == tick


def test_next_after_counts_from_below_the_second() -> None:
    cron = Cron("0 8 * * *")
    assert cron.next_after(at("2026-01-01T07:59:59.999999+00:00")) == at("2026-01-01T08:00+00:00")
    assert cron.next_after(at("2026-01-01T08:00:00.000001+00:00")) == at("2026-01-02T08:00+00:00")


def test_last_day_and_leap_day_come_as_the_calendar_has_them() -> None:
    last = ticks(Cron("0 0 L * *"), at("2028-01-15T00:00+00:00"))
    assert [next(last).day for _ in range(3)] == [31, 29, 31]
    assert Cron("0 0 29 2 *").next_after(at("2097-01-01T00:00+00:00")).year == 2104


# -- what is refused, where it is written -------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "why"),
    [
        ("0 0 31 2 *", "never comes true"),  # G6
        ("0 0 30,31 2 *", "never comes true"),
        ("0 0 31 4,6,9,11 *", "never comes true"),
        ("*/5 * * * * *", r"six fields.*every\(seconds=...\)"),
        ("* * * *", r"4 field\(s\), not five"),
        ("", r"0 field\(s\)"),
        ("61 * * * *", "Bad minute"),
        ("5-1 * * * *", "Bad minute"),
        ("*/0 * * * *", "Bad minute"),
        ("0 0 * * MOO", "Bad day-of-week"),
        ("@reboot", "none of @yearly"),
        ("@fortnightly", "none of @yearly"),
        (None, 'write "0 8'),
    ],
)
def test_G6_impossible_expression_is_refused_at_once(expression: str, why: str) -> None:
    with pytest.raises(InvalidSchedule, match=why):
        Cron(expression)


EVERY_VALUE = " ".join(
    ",".join(values)
    for values in (
        [f"{minute:02}" for minute in range(60)],
        [f"{hour:02}" for hour in range(24)],
        [f"{day:02}" for day in range(1, 32)],
        ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"],
        ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"],
    )
)
"""Nothing sensible is longer."""


@pytest.mark.parametrize("item", ["1,", "*/1,", "0-59,", "0", " ", "@daily", "9"])
@pytest.mark.parametrize("length", [MAX_CRON_CHARS + 1, 200_000, 5_000_000])
def test_long_expression_is_refused_without_being_read_or_repeated(item: str, length: int) -> None:
    """One of 200,000 characters took 6.8 s, and one of 5,000 digits was a ValueError of Python's."""
    expression = (item * (length // len(item) + 1))[: length - 10] + "1 * * * * *"[:10]
    began = process_time()
    with pytest.raises(InvalidSchedule, match=r"characters, more than 500: write ranges") as caught:
        Cron(expression.ljust(length))
    assert process_time() - began < 0.05
    assert len(str(caught.value)) < 200


def test_expression_that_lists_each_value_is_taken_and_read_quickly() -> None:
    assert len(EVERY_VALUE) <= MAX_CRON_CHARS
    cron = Cron(EVERY_VALUE, "Europe/Berlin")
    assert cron.next_after(at("2026-01-01T00:00Z")) == at("2026-01-01T00:01Z")


@pytest.mark.parametrize(
    "expression",
    [
        EVERY_VALUE,
        "*/1," * 122 + "1 * * * *",
        "* * * * " + "1#5," * 120 + "1",
        "0 0 29 2 " + "1#5," * 120 + "1",
        f"{'0' * 480} 0 29 2 *",
    ],
)
def test_longest_expressions_take_little_time(expression: str) -> None:
    """However many items the lists of an expression have: they are bounded by its length."""
    assert len(expression) <= MAX_CRON_CHARS
    began = process_time()
    cron = Cron(expression, "Australia/Lord_Howe")
    cron.next_after(at("2026-01-01T00:00Z"))
    cron.describe()
    assert process_time() - began < 0.2


@pytest.mark.parametrize("length", [MAX_ZONE_CHARS + 1, 5_000_000])
def test_long_zone_is_refused_without_being_looked_for_or_repeated(length: int) -> None:
    with pytest.raises(InvalidSchedule, match=r"no zone has a name of more than 100") as caught:
        Cron("0 8 * * *", "Europe/" + "B" * (length - 7))
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("zone", [None, ["Europe/Berlin"], ZoneInfo("Europe/Berlin"), b"UTC", 1])
def test_zone_that_is_no_name_is_refused_with_what_to_write(zone: Any) -> None:
    with pytest.raises(InvalidSchedule, match="is not the name of a time zone: write one, such as"):
        Cron("0 8 * * *", zone)


@pytest.mark.parametrize("expression", [["0 8 * * *"], {"minute": 0}, b"@daily", 5])
def test_expression_that_is_no_text_is_refused_with_what_to_write(expression: Any) -> None:
    with pytest.raises(InvalidSchedule, match='is not a cron expression: write "0 8'):
        Cron(expression)


@given(st.text("0123456789*/-,L#W@ ?JANMON", max_size=14))
def test_any_text_is_an_expression_or_refused(text: str) -> None:
    try:
        cron = Cron(text)
    except InvalidSchedule:
        return
    assert cron.next_after(at("2026-01-01T00:00+00:00")) > at("2026-01-01T00:00+00:00")
    assert cron.describe()


@pytest.mark.parametrize("zone", ["Mars/Olympus", "", "Europe", "../etc/passwd", "europe berlin"])
def test_E8_unknown_zone_is_refused_where_it_is_written(zone: str) -> None:
    with pytest.raises(InvalidSchedule, match="not in the time zone database"):
        Cron("0 8 * * *", zone)


def test_E8_missing_database_is_told_where_the_zone_is_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in [
        "tzdata",
        "tzdata.zoneinfo",
        "tzdata.zoneinfo.Europe",
        *(name for name in sys.modules if name.startswith("tzdata.")),
    ]:
        monkeypatch.setitem(sys.modules, name, None)
    _zone_of.cache_clear()
    ZoneInfo.clear_cache()
    zoneinfo.reset_tzpath(to=[])
    try:
        with pytest.raises(InvalidSchedule, match="install tzdata"):
            Cron("0 8 * * *", "Europe/Berlin")
        assert Cron("0 8 * * *").next_after(at("2026-01-01T00:00+00:00")).hour == 8
    finally:
        zoneinfo.reset_tzpath()


@pytest.mark.parametrize("schedule", [Cron("0 8 * * *"), Every(60), Once(at("2026-01-01T00:00Z"))])
def test_naive_instant_is_refused(schedule: Cron | Every | Once) -> None:
    with pytest.raises(InvalidSchedule, match="tzinfo=UTC"):
        schedule.next_after(datetime(2026, 1, 1))  # noqa: DTZ001 - what is refused


def test_end_of_the_calendar_is_no_tick() -> None:
    for schedule in (Cron("0 8 * * *"), Cron("* * * * *", "Europe/Berlin"), Every(86_400 * 365)):
        with pytest.raises(InvalidSchedule, match="no tick after"):
            schedule.next_after(datetime(9999, 12, 31, 23, 59, tzinfo=UTC))


# -- intervals and dates ------------------------------------------------------------------------------


def test_interval_follows_real_time_through_both_changes() -> None:
    every = Every(timedelta(hours=1))
    for change in CHANGES["Europe/Berlin"]:
        tick = at(change) - timedelta(hours=2)
        for _ in range(4):
            following = every.next_after(tick.astimezone(ZoneInfo("Europe/Berlin")))
            assert following - tick == timedelta(hours=1)
            tick = following


def test_intervals_of_one_length_are_equal() -> None:
    assert Every(300) == Every(300.0) == Every(timedelta(minutes=5))
    assert hash(Every(300)) == hash(Every(timedelta(minutes=5)))


@pytest.mark.parametrize("interval", [0, -1, 0.5, float("nan"), float("inf"), "5m", None, 1e12])
def test_impossible_interval_is_refused(interval: float) -> None:
    with pytest.raises(InvalidSchedule, match="interval"):
        Every(interval)


def test_date_ticks_once() -> None:
    moment = datetime(2026, 3, 4, 9, tzinfo=timezone(timedelta(hours=1)))
    once = Once(moment)
    assert once.next_after(at("2026-03-04T07:59Z")) == at("2026-03-04T08:00Z")
    assert once.next_after(at("2026-03-04T08:00Z")) is None
    with pytest.raises(InvalidSchedule, match="has no time zone"):
        Once(datetime(2026, 3, 4))  # noqa: DTZ001 - what is refused


@pytest.mark.parametrize(
    ("schedule", "text"),
    [
        (Cron("0 8 * * *", "Europe/Berlin"), "At 08:00 every day (Europe/Berlin)"),
        (Cron("@daily"), "At 00:00 every day (UTC)"),
        (Cron("0 9 * * 1-5"), "At 09:00 on Monday through Friday (UTC)"),
        (Every(60), "Every minute"),
        (Every(300), "Every 5 minutes"),
        (Every(timedelta(days=1, hours=2)), "Every 1 day 2 hours"),
        (Every(1.5), "Every 1 second 500 ms"),
        (Once(at("2026-03-04T08:00Z")), "Once, at 2026-03-04 08:00:00 UTC"),
    ],
)
def test_describe_says_it_in_english(schedule: Cron | Every | Once, text: str) -> None:
    assert schedule.describe() == text
