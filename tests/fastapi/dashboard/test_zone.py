"""Tests that each time on a page follows the viewer's zone, also on a day when its clocks change."""

import re
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from jobrunner.core.clock import utcnow
from jobrunner.fastapi.dashboard.charts import bar_chart
from jobrunner.fastapi.dashboard.zone import COOKIE, Clock
from tests.fastapi.dashboard.conftest import Board
from tests.support.clocks import freeze

KOLKATA = ZoneInfo("Asia/Kolkata")
BERLIN = ZoneInfo("Europe/Berlin")
SHIFT = timedelta(hours=5, minutes=30)
MINUTE = timedelta(minutes=1)
_TIME = re.compile(r'<time datetime="([^"]+)" title="([^"]+)">([^<]*)</time>')
_OF_DAY = re.compile(r"(?<![\d:])\d\d:\d\d\b")


def labels_of(page: str) -> list[str]:
    """Return the times of day outside of the elements ``time``: the labels of axes and of bars."""
    rest = re.sub(r"<pre.*?</pre>|<input[^>]*>", "", _TIME.sub("", page), flags=re.DOTALL)
    return _OF_DAY.findall(rest)


def test_every_time_and_axis_of_a_page_changes_with_the_zone(board: Board) -> None:
    board.finished()
    letter = board.dead()
    board.waiting()
    board.post("queues/mail/pause")
    while "No attempt has ended in the last hour" in board.get("").text:
        pass  # statistics are stored about once a second
    now = utcnow()
    with freeze(now):
        (group,) = set(re.findall(r"dead\?group=([0-9a-f]{16})", board.get("dead").text))
        paths = ("", "jobs", f"jobs/{letter}", "dead", f"dead?group={group}", "queues", "audit")
        in_utc = {path: board.get(path) for path in paths}
        board.post("zone", {"zone": "Asia/Kolkata"})
        board.client.cookies[COOKIE] = "Asia/Kolkata"
        in_kolkata = {path: board.get(path) for path in paths}
    for path in paths:
        before, after = in_utc[path].text, in_kolkata[path].text
        times, moved = _TIME.findall(before), _TIME.findall(after)
        assert [iso for iso, _, _ in times] == [iso for iso, _, _ in moved]
        assert times
        for (iso, full, text), (_, full_there, text_there) in zip(times, moved, strict=True):
            local = datetime.fromisoformat(iso).astimezone(KOLKATA)
            assert full.endswith(" UTC"), full
            assert full_there == f"{local:%Y-%m-%d %H:%M:%S}.{local.microsecond // 1000:03d} IST"
            if _OF_DAY.search(text):
                assert f"{local:%H:%M}" in text_there, path
            else:
                assert text_there == text
        labels = [
            f"{datetime.strptime(label, '%H:%M').replace(tzinfo=UTC) + SHIFT:%H:%M}"
            for label in labels_of(before)
        ]
        assert labels_of(after) == labels, path
    # A bar for each minute of an hour, and the axis below.
    assert len(labels_of(in_kolkata[""].text)) > 60
    assert "last hour, Kolkata" in in_kolkata[""].text
    assert in_utc[""].headers["x-as-of"] == f"{now:%H:%M:%S}"
    assert in_kolkata[""].headers["x-as-of"] == f"{now + SHIFT:%H:%M:%S}"


@pytest.mark.parametrize(
    ("begin", "labels"),
    [
        # 02:00 to 03:00 does not exist; and it comes twice.
        (datetime(2026, 3, 29, 0, 30, tzinfo=UTC), ["01:30", "01:45", "03:00", "03:15", "03:30"]),
        (datetime(2026, 10, 25, 0, 30, tzinfo=UTC), ["02:30", "02:45", "02:00", "02:15", "02:30"]),
    ],
)
def test_axis_of_a_day_when_the_clocks_change_shows_what_they_showed(
    begin: datetime, labels: list[str]
) -> None:
    minutes = [(begin + n * MINUTE, 1, 0) for n in range(61)]

    chart = bar_chart(minutes, [], Clock(begin + 61 * MINUTE, "Europe/Berlin", BERLIN))

    assert list(chart.axis) == labels
    assert [bar.text[:5] for bar in chart.bars[::15]] == labels


def test_times_that_the_clocks_show_twice_differ_in_their_full_form() -> None:
    now = datetime(2026, 10, 25, 12, tzinfo=UTC)
    clock = Clock(now, "Europe/Berlin", BERLIN)
    first = str(clock.clock(datetime(2026, 10, 25, 0, 30, tzinfo=UTC)))
    second = str(clock.clock(datetime(2026, 10, 25, 1, 30, tzinfo=UTC)))

    assert ">02:30:00<" in first
    assert ">02:30:00<" in second
    assert "02:30:00.000 CEST" in first
    assert "02:30:00.000 CET" in second
    # Yesterday began an hour earlier in UTC than it would in winter.
    assert ">24 Oct 23:59<" in clock.clock(datetime(2026, 10, 24, 21, 59, tzinfo=UTC))
    assert ">00:00:00<" in clock.clock(datetime(2026, 10, 24, 22, 0, tzinfo=UTC))
