"""Judges from a few facts whether a store is healthy.

The rules are pure: they read nothing, and the time is one of the facts.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Literal

from jobrunner.core.health import Health, QueueInfo
from jobrunner.fastapi.dashboard import urls, words

RECENT: Final = timedelta(minutes=10)
"""The time whose failures are compared with those of the hour before it."""
LATEST: Final = timedelta(minutes=1)
"""Attempts that fail and are retried make a task fail for so long, if nothing remains of them."""
BEFORE: Final = timedelta(hours=1)
MOST_TROUBLES: Final = 5

_FEWEST: Final = 5
"""Fewer deaths, or failed attempts, in the recent time are never a trouble: one failure at night is no incident."""
_SHARE: Final = 0.05
_RISE: Final = 3
_SHORTEST_WAIT: Final = timedelta(seconds=60)
_TIMES_USUAL: Final = 10
_START_BEFORE: Final = timedelta(minutes=15)
"""A worker that started this long before the first failure is named beside it."""
LOW_DISK: Final = 500_000_000
"""Bytes. SQLite needs room for its log and for a checkpoint."""

Level = Literal["ok", "warn", "bad"]


@dataclass(frozen=True, slots=True)
class Failing:
    """Dead letters and retrying jobs that failed in the same way."""

    fingerprint: str
    task: str
    error: str
    dead: int
    retrying: int
    recent: int
    """Deaths in the recent time."""
    before: int
    """Deaths in the hour before the recent time."""
    since: datetime
    """The first failure of the present series."""


@dataclass(frozen=True, slots=True)
class Attempts:
    """The attempts of a task that ended in a time."""

    succeeded: int = 0
    failed: int = 0
    dead: int = 0
    """The failed ones after which the job became a dead letter."""

    @property
    def retried(self) -> int:
        """The failed ones after which the job was not dead."""
        return max(0, self.failed - self.dead)

    @property
    def share(self) -> float:
        """The failed ones, from 0 to 1."""
        return self.failed / max(1, self.failed + self.succeeded)


@dataclass(frozen=True, slots=True)
class Start:
    """The start of a worker, also of one that has left since."""

    at: datetime
    revision: int | None
    name: str
    """Host and process, such as ``web-1:3310``; empty if it has left."""


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything that the verdict depends on."""

    now: datetime
    health: Health
    queues: Sequence[QueueInfo]
    usual_waits: Mapping[str, timedelta]
    """The p95 of the time from due to started over the last day, by queue."""
    failing: Sequence[Failing] = ()
    recent: Mapping[str, Attempts] = field(default_factory=dict)
    """Attempts in the recent time, by task."""
    before: Mapping[str, Attempts] = field(default_factory=dict)
    """Attempts in the hour before the recent time, by task."""
    latest: Mapping[str, Attempts] = field(default_factory=dict)
    """Attempts in the last one or two minutes, by task."""
    starts: Sequence[Start] = ()
    """The latest starts of workers."""
    free_bytes: int | None = None
    """Free space beside the store; None if unknown."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """One thing that needs attention, with the next step."""

    level: Level
    title: str
    code: str
    """The task or queue that the title is about; empty if there is none."""
    text: str
    step: str
    """The label of the link to the next step."""
    href: str
    """The address of the next step, relative to the dashboard."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The judgement in words, with at most ``MOST_TROUBLES`` troubles."""

    level: Level
    headline: str
    troubles: Sequence[Trouble] = ()
    more: int = 0
    """The number of further troubles."""
    since: datetime | None = None
    """The time at which the oldest of the present failures began."""
    started: Start | None = None
    """The start of a worker shortly before."""


def judge(facts: Facts) -> Verdict:
    """Return the verdict: the worst trouble decides its level."""
    hot = sorted(
        (one for one in facts.failing if _is_hot(one, facts)),
        key=lambda one: (-one.recent, -one.retrying, one.task),
    )
    troubles = [
        *_stopped(facts),
        *_without_worker(facts),
        *(_failing(one) for one in hot),
        *_failing_without_group(facts, {one.task for one in hot}),
        *_waiting(facts),
        *_unknown(facts),
        *_of_workers(facts),
        *_low_disk(facts),
    ]
    troubles.sort(key=lambda trouble: trouble.level != "bad")
    level: Level = troubles[0].level if troubles else "ok"
    since = min((one.since for one in hot), default=None)
    return Verdict(
        level=level,
        headline=_headline(facts, troubles, hot),
        troubles=troubles[:MOST_TROUBLES],
        more=max(0, len(troubles) - MOST_TROUBLES),
        since=since,
        started=None if since is None else started_before(facts.starts, since),
    )


def is_overdue(queue: QueueInfo, usual: timedelta | None, now: datetime) -> bool:
    """Return whether a queue's oldest due job has waited far longer than usual."""
    if queue.paused or queue.oldest_due_at is None:
        return False
    return now - queue.oldest_due_at > max(_SHORTEST_WAIT, _TIMES_USUAL * (usual or timedelta()))


def _is_hot(group: Failing, facts: Facts) -> bool:
    if group.recent >= _FEWEST and _has_risen(group.recent, group.before):
        return True
    return (group.retrying > 0 or group.recent > 0) and _still_fails(group.task, facts)


def _still_fails(task: str, facts: Facts) -> bool:
    """Return whether a task has failed often lately and still does.

    The trouble is over once few of the failed jobs are left and no attempt has failed in the last minutes.  A death
    whose dead letter was replayed or deleted does not count.
    """
    if not _failed_often(task, facts):
        return False
    left = sum(one.retrying + one.recent for one in facts.failing if one.task == task)
    latest = facts.latest.get(task, Attempts())
    ended = latest.succeeded + latest.retried
    return left >= _FEWEST or (latest.retried > 0 and latest.retried >= _SHARE * ended)


def _failed_often(task: str, facts: Facts) -> bool:
    recent = facts.recent.get(task, Attempts())
    before = facts.before.get(task, Attempts())
    return (
        recent.failed >= _FEWEST and recent.share >= _SHARE and recent.share >= _RISE * before.share
    )


def _has_risen(recent: int, before: int) -> bool:
    """Compare the numbers per time."""
    return recent * (BEFORE / RECENT) >= _RISE * before


def _stopped(facts: Facts) -> Iterator[Trouble]:
    error = facts.health.error or ""
    if facts.health.status == "failed":
        title = "The worker of this process has stopped"
    elif error:
        title = "This process cannot write to its store"
    else:
        return
    yield Trouble("bad", title, "", error, "Show workers", "queues")


def _without_worker(facts: Facts) -> Iterator[Trouble]:
    queued = sum(queue.queued for queue in facts.queues)
    if facts.health.workers or facts.health.status == "failed":
        return
    yield Trouble(
        "bad" if queued else "warn",
        "No worker runs",
        "",
        f"{words.count_of(queued, 'job')} could start now; start a process with work=True",
        "Show queues",
        "queues",
    )


def _failing(group: Failing) -> Trouble:
    parts = [words.count_of(group.dead, "dead letter")]
    if group.retrying:
        parts.append(f"{group.retrying:,} waiting for a retry")
    text = " and ".join(parts)
    if group.recent:
        text += f", {group.recent:,} new in ten minutes"
    if group.dead:
        step, href = "Show and replay", urls.with_query("dead", {"group": group.fingerprint})
    else:
        step, href = (
            "Show the jobs",
            urls.with_query("jobs", {"state": "retrying", "task": group.task}),
        )
    return Trouble("bad", group.error, group.task, text, step, href)


def _failing_without_group(facts: Facts, known: set[str]) -> Iterator[Trouble]:
    """Yield tasks whose attempts fail now, but whose retries have succeeded so far."""
    for task in sorted(facts.recent):
        if task in known or not _still_fails(task, facts):
            continue
        recent = facts.recent[task]
        yield Trouble(
            "bad",
            f"{recent.share:.0%} of the attempts fail",
            task,
            f"{recent.failed:,} of {recent.failed + recent.succeeded:,} attempts in ten minutes",
            "Show the jobs",
            urls.with_query("jobs", {"task": task}),
        )


def _waiting(facts: Facts) -> Iterator[Trouble]:
    for queue in facts.queues:
        usual = facts.usual_waits.get(queue.name)
        if not is_overdue(queue, usual, facts.now) or queue.oldest_due_at is None:
            continue
        counted = "" if queue.complete else "at least "
        text = f"{counted}{queue.queued:,} queued, {queue.running:,} of {queue.slots:,} slots busy"
        if not queue.slots:
            text = f"{counted}{queue.queued:,} queued, and no worker serves this queue"
        if usual is not None:
            text += f"; usually 95 % start within {words.duration(usual)}"
        waited = words.rough(facts.now - queue.oldest_due_at)
        yield Trouble(
            "warn", f"The oldest job has waited {waited}", queue.name, text, "Show queues", "queues"
        )


def _unknown(facts: Facts) -> Iterator[Trouble]:
    for task, due in sorted(facts.health.unknown_tasks.items()):
        yield Trouble(
            "warn",
            "No live worker knows this task",
            task,
            f"Its jobs have waited for {words.rough(facts.now - due)}; deploy the task, or keep its name as an alias",
            "Show the jobs",
            urls.with_query("jobs", {"state": "queued", "task": task}),
        )


def _of_workers(facts: Facts) -> Iterator[Trouble]:
    for worker in facts.health.workers:
        if worker.stalled:
            yield Trouble(
                "warn",
                f"Worker {worker.host}:{worker.pid} is alive, but its event loop is blocked",
                "",
                f"It reported last {words.rough(facts.now - worker.beat_at)} ago",
                "Show workers",
                "queues",
            )
    for name in facts.health.stuck_threads:
        yield Trouble(
            "warn",
            "A thread goes on after its time-out",
            name.rpartition(" ")[0],
            "Its slot stays busy until the function returns: give its calls time-outs of their own",
            "Show the job",
            f"jobs/{name.rpartition(' ')[2]}",
        )
    for sentence in facts.health.deadlocks:
        yield Trouble("warn", "Slots wait for each other", "", sentence, "Show queues", "queues")
    for sentence in facts.health.failing_schedules:
        yield Trouble(
            "warn", "A schedule cannot be fired", "", sentence, "Show schedules", "schedules"
        )
    for chore in facts.health.failing_chores:
        yield Trouble(
            "warn",
            "A background chore fails",
            chore,
            "It is tried again; its error is in the log",
            "Show workers",
            "queues",
        )


def _low_disk(facts: Facts) -> Iterator[Trouble]:
    if facts.free_bytes is not None and facts.free_bytes < LOW_DISK:
        yield Trouble(
            "warn",
            f"The disk of the store has {words.size(facts.free_bytes)} left",
            "",
            "A full disk refuses new jobs; nothing that was stored is lost",
            "Show storage",
            "queues",
        )


def _headline(facts: Facts, troubles: Sequence[Trouble], hot: Sequence[Failing]) -> str:
    if not troubles:
        return "All is well"
    first = troubles[0]
    tasks = {one.task for one in hot}
    if first.level == "bad" and first.code in tasks:
        if len(tasks) > 1:
            return f"{len(tasks)} tasks are failing"
        since = min(one.since for one in hot)
        lasted = _in_words(facts.now - since)
        rest = "; everything else is well" if len(troubles) == len(hot) else ""
        return f"{first.code} has been failing for {lasted}{rest}"
    if len(troubles) == 1 or first.level == "bad":
        return f"{first.code}: {_lower(first.title)}" if first.code else first.title
    return f"{len(troubles)} things need attention"


def _lower(title: str) -> str:
    return title[:1].lower() + title[1:]


def started_before(starts: Sequence[Start], since: datetime) -> Start | None:
    """Return the last start within ``_START_BEFORE`` before the failures began."""
    return max(
        (one for one in starts if since - _START_BEFORE <= one.at <= since),
        key=lambda one: one.at,
        default=None,
    )


def _in_words(value: timedelta) -> str:
    """Return a duration for a sentence, such as ``21 minutes``."""
    seconds = max(int(value.total_seconds()), 0)
    for unit, length in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if seconds >= length:
            return words.count_of(seconds // length, unit)
    return words.count_of(seconds, "second")
