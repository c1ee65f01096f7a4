"""The verdict of the overview: each rule at its threshold, and the words of the headline."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from jobrunner.core.health import Health, QueueInfo, WorkerInfo
from jobrunner.fastapi.dashboard.verdict import (
    LOW_DISK,
    MOST_TROUBLES,
    Attempts,
    Facts,
    Failing,
    Start,
    judge,
)

NOW = datetime(2026, 3, 4, 3, 2, 14, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
WORKER = WorkerInfo(1, 4711, "web-1", NOW - timedelta(days=3), NOW, False, {"default": 20})
HEALTHY = Health("ok", (), True, True, 2, (), {}, (WORKER,), "1")
QUEUE = QueueInfo("mail", 50, False, 0, 0, 0, 0, None)
MAIL = Failing("f1", "mail", "OSError: no route", 0, 0, 0, 0, NOW - 21 * MINUTE)


def facts(**changes: Any) -> Facts:
    return replace(Facts(NOW, HEALTHY, [QUEUE], {}), **changes)


def health(**changes: Any) -> Facts:
    return facts(health=replace(HEALTHY, **changes))


def test_nothing_to_say_is_well() -> None:
    found = judge(facts())

    assert (found.level, found.headline, found.troubles) == ("ok", "All is well", [])


@pytest.mark.parametrize(
    ("recent", "before", "level"),
    [
        (4, 0, "ok"),  # too few
        (5, 0, "bad"),
        (5, 10, "bad"),  # 0.5 a minute after 0.167 a minute is three times as many
        (5, 11, "ok"),  # an old trouble that goes on as it was
        (300, 601, "ok"),
    ],
)
def test_group_is_red_from_five_deaths_and_three_times_the_hour_before(
    recent: int, before: int, level: str
) -> None:
    group = replace(MAIL, dead=recent + before, recent=recent, before=before)

    assert judge(facts(failing=[group])).level == level


@pytest.mark.parametrize(
    ("recent", "before", "level"),
    [
        (Attempts(95, 5), Attempts(), "bad"),
        (Attempts(96, 4), Attempts(), "ok"),  # under 5 %, and under 5 attempts
        (Attempts(0, 4), Attempts(), "ok"),  # all of them, but only four
        (Attempts(0, 5), Attempts(), "bad"),
        (Attempts(94, 6), Attempts(98, 2), "bad"),
        (Attempts(95, 5), Attempts(98, 2), "ok"),  # not three times the share before
    ],
)
def test_task_is_red_from_five_percent_of_its_attempts(
    recent: Attempts, before: Attempts, level: str
) -> None:
    attempts = {"recent": {"mail": recent}, "before": {"mail": before}}
    waiting = replace(MAIL, retrying=5)

    assert judge(facts(failing=[waiting], **attempts)).level == level
    assert judge(facts(latest={"mail": recent}, **attempts)).level == level


def test_task_that_failed_is_well_again_once_its_dead_letters_are_replayed() -> None:
    twelve = {"mail": Attempts(12, 12, dead=12)}
    mended = facts(recent=twelve, latest=twelve)

    assert judge(mended).level == "ok"
    kept = replace(MAIL, dead=1, recent=1)
    assert judge(replace(mended, failing=[kept])).level == "ok"
    assert judge(replace(mended, failing=[replace(kept, dead=5, recent=5)])).level == "bad"
    two = [replace(kept, dead=3, recent=3), replace(kept, fingerprint="f2", dead=2, recent=2)]
    assert judge(replace(mended, failing=two)).level == "bad"


@pytest.mark.parametrize(
    ("latest", "level"),
    [
        (Attempts(), "ok"),
        (Attempts(20, 0), "ok"),
        (Attempts(20, 1), "ok"),
        (Attempts(19, 1), "bad"),
        (Attempts(0, 1), "bad"),
        (Attempts(0, 8, dead=8), "ok"),
        (Attempts(19, 9, dead=8), "bad"),
    ],
)
def test_task_whose_retries_succeed_is_red_while_the_last_minutes_have_failures(
    latest: Attempts, level: str
) -> None:
    found = judge(facts(recent={"mail": Attempts(50, 50, dead=8)}, latest={"mail": latest}))

    assert found.level == level
    if level == "bad":
        assert found.headline == "mail: 50% of the attempts fail"


def test_headline_names_the_task_and_since_when() -> None:
    group = replace(MAIL, dead=1284, retrying=412, recent=610)
    found = judge(facts(failing=[group]))

    assert found.headline == "mail has been failing for 21 minutes; everything else is well"
    assert found.since == NOW - 21 * MINUTE
    (trouble,) = found.troubles
    assert (trouble.code, trouble.title) == ("mail", "OSError: no route")
    assert trouble.text == "1,284 dead letters and 412 waiting for a retry, 610 new in ten minutes"
    assert trouble.href == "dead?group=f1"


def test_headline_of_two_tasks_counts_them_and_groups_of_one_task_are_one() -> None:
    mail = replace(MAIL, dead=9, recent=9)
    other = replace(mail, fingerprint="f2", error="KeyError", recent=6)
    bill = replace(mail, fingerprint="f3", task="bill")

    assert judge(facts(failing=[mail, other])).headline.startswith("mail has been failing")
    assert judge(facts(failing=[mail, bill, other])).headline == "2 tasks are failing"


def test_worker_that_started_shortly_before_is_named() -> None:
    since = MAIL.since
    early = Start(since - timedelta(minutes=16), 5, "web-1:1")
    suspect = Start(since - timedelta(seconds=48), 6, "")
    later = Start(since + timedelta(seconds=1), 7, "web-1:2")
    group = replace(MAIL, dead=5, recent=5)

    def started(*starts: Start) -> Start | None:
        return judge(facts(failing=[group], starts=starts)).started

    assert started(early, suspect, later) == suspect
    assert started(early, later) is None


@pytest.mark.parametrize(
    ("waited", "usual", "level"),
    [
        (timedelta(seconds=60), None, "ok"),
        (timedelta(seconds=61), None, "warn"),
        (timedelta(seconds=61), timedelta(seconds=6), "warn"),
        (timedelta(seconds=61), timedelta(seconds=7), "ok"),
        (timedelta(seconds=71), timedelta(seconds=7), "warn"),
    ],
)
def test_queue_is_amber_when_its_oldest_job_waits_far_longer_than_usual(
    waited: timedelta, usual: timedelta | None, level: str
) -> None:
    queue = replace(QUEUE, queued=3911, running=50, oldest_due_at=NOW - waited)
    usual_waits = {} if usual is None else {"mail": usual}

    assert judge(facts(queues=[queue], usual_waits=usual_waits)).level == level
    paused = replace(queue, paused=True)
    assert judge(facts(queues=[paused], usual_waits=usual_waits)).level == "ok"


def test_queue_that_no_worker_serves_says_so() -> None:
    queue = replace(QUEUE, slots=0, queued=3, oldest_due_at=NOW - 2 * MINUTE)

    (trouble,) = judge(facts(queues=[queue])).troubles

    assert trouble.code == "mail"
    assert trouble.text == "3 queued, and no worker serves this queue"


def test_no_worker_is_red_once_a_job_waits() -> None:
    nobody = replace(HEALTHY, workers=())

    assert judge(facts(health=nobody)).level == "warn"
    waiting = facts(health=nobody, queues=[replace(QUEUE, queued=1, oldest_due_at=NOW)])
    assert (judge(waiting).level, judge(waiting).headline) == ("bad", "No worker runs")


@pytest.mark.parametrize(
    ("changed", "level", "headline"),
    [
        (
            health(status="failed", error="disk image is malformed"),
            "bad",
            "The worker of this process has stopped",
        ),
        (health(status="degraded", error="full"), "bad", "This process cannot write to its store"),
        (
            health(unknown_tasks={"legacy": NOW - MINUTE}),
            "warn",
            "legacy: no live worker knows this task",
        ),
        (
            health(workers=(replace(WORKER, stalled=True),)),
            "warn",
            "Worker web-1:4711 is alive, but its event loop is blocked",
        ),
        (
            health(stuck_threads=("report 01936d2c",)),
            "warn",
            "report: a thread goes on after its time-out",
        ),
        (health(deadlocks=("a waits for b",)), "warn", "Slots wait for each other"),
        (health(failing_schedules=("nightly: ...",)), "warn", "A schedule cannot be fired"),
        (health(failing_chores=("prune",)), "warn", "prune: a background chore fails"),
        (facts(free_bytes=LOW_DISK - 1), "warn", "The disk of the store has 500 MB left"),
        (facts(free_bytes=LOW_DISK), "ok", "All is well"),
    ],
)
def test_each_problem_of_health_has_its_words_and_a_next_step(
    changed: Facts, level: str, headline: str
) -> None:
    found = judge(changed)

    assert (found.level, found.headline) == (level, headline)
    assert all(trouble.step and trouble.href for trouble in found.troubles)


def test_at_most_five_troubles_are_shown_the_worst_first() -> None:
    unknown = {f"t{number}": NOW - MINUTE for number in range(7)}
    group = replace(MAIL, dead=5, recent=5)

    found = judge(facts(health=replace(HEALTHY, unknown_tasks=unknown), failing=[group]))

    assert len(found.troubles) == MOST_TROUBLES
    assert found.troubles[0].code == "mail"
    assert (found.level, found.more) == ("bad", 3)
    assert found.headline == "mail has been failing for 21 minutes"
    amber = judge(facts(health=replace(HEALTHY, unknown_tasks=unknown)))
    assert (amber.level, amber.headline) == ("warn", "7 things need attention")
