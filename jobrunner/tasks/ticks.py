"""Decides which due ticks of a schedule make jobs, and computes its next tick.

Pure functions of a schedule row and the current time.  A plan never takes long: after a long absence each plan walks
one stretch of ticks and comes nearer to the present; if the ticks are too many to count, their number is estimated.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Final, NamedTuple

from jobrunner.core.clock import MAX_US, from_us, to_us
from jobrunner.core.errors import InvalidSchedule
from jobrunner.core.ids import new_id
from jobrunner.core.model import Enqueue
from jobrunner.core.schedule import Definition, Fire, ScheduleRow, Tick, TickOutcome, Timing
from jobrunner.tasks.call import NO_OPTIONS, Call, ResolvedJobOptions
from jobrunner.tasks.recurrence import Cron, Every, Once, Recurrence
from jobrunner.tasks.spec import TaskSpec

STRETCH: Final = 500
"""Ticks that one plan walks: a few milliseconds of the event loop's time."""
MOST_COUNTED: Final = 20_000
"""About two weeks of a tick per minute.  Beyond that the number of missed ticks is an estimate."""
MOST_CAP: Final = 400
"""The largest ``cap``: more jobs after one absence would be a flood.  Must be smaller than ``STRETCH``."""
FIRST_WINDOW_US: Final = 120_000_000


# -- its ticks --------------------------------------------------------------------------------


def recurrence_of(timing: Timing) -> Recurrence:
    """Return the recurrence of a stored timing.

    Raises:
        InvalidSchedule: This process cannot read the timing, for example because it does not know the time zone.
    """
    if timing.cron is not None:
        return Cron(timing.cron, timing.timezone or "UTC")
    if timing.every is not None:
        return Every(timing.every / 1_000_000)
    if timing.run_at is not None:
        return Once(from_us(timing.run_at))
    raise InvalidSchedule("the schedule has neither a cron expression nor an interval nor a date")


def tick_after(timing: Timing, instant: int) -> int | None:
    """Return the tick after ``instant``; None if there is none.

    ``instant`` is a tick. For a cron expression it may be any time.
    """
    recurrence = recurrence_of(timing)
    if timing.start is not None and instant < timing.start:
        if timing.every is not None:
            return _unless_over(timing, timing.start)
        instant = timing.start - 1
    try:
        found = recurrence.next_after(from_us(instant))
    except InvalidSchedule:
        return None
    return None if found is None else _unless_over(timing, to_us(found))


def first_tick(timing: Timing, now: int, *, last: int | None = None) -> int | None:
    """Return the first tick of a schedule with a new timing.

    Args:
        timing: The timing.
        now: The current time (µs). An interval ticks first one interval later; a date ticks even if it is past.
        last: The last tick under the old timing: it must not come again if the clock was set back.
    """
    if timing.run_at is not None:
        return _unless_over(timing, timing.run_at)
    after = now if last is None else max(now, last)
    if timing.every is not None and timing.start is not None and timing.start <= after:
        return _unless_over(timing, _step(timing.start, timing.every, after))
    return tick_after(timing, after)


def resumed_tick(row: ScheduleRow, now: int) -> int | None:
    """Return the first tick after a pause.

    Ticks during the pause are dropped. An interval goes on in its old rhythm.
    """
    timing = row.definition.timing
    after = now if row.last is None else max(now, row.last)
    if row.next is None or row.next > after or timing.run_at is not None:
        return row.next
    if timing.every is not None:
        return _unless_over(timing, _step(row.next, timing.every, after))
    return tick_after(timing, after)


def _step(beat: int, every: int, after: int) -> int:
    """Return an interval's first tick after an instant, counted from the tick ``beat``."""
    return min(beat + ((after - beat) // every + 1) * every, MAX_US)


def _unless_over(timing: Timing, tick: int) -> int | None:
    return None if tick > MAX_US or (timing.end is not None and tick > timing.end) else tick


# -- the decision -----------------------------------------------------------------------------


class TickPlan(NamedTuple):
    """One step of a schedule: ``jobs`` are the ticks (µs) that make a job."""

    jobs: Sequence[int]
    skipped: Sequence[Tick]
    next: int | None


def plan(row: ScheduleRow, now: int) -> TickPlan:
    """Decide about the due ticks of a schedule.

    Raises:
        InvalidSchedule: This process cannot read the schedule.
    """
    definition = row.definition
    keep = definition.cap if definition.misfire == "all" else 1
    due, following, before = _walk(row, now, keep)
    if following is not None and following <= now:
        # Part of a long absence. The ticks at its end may be among the newest ones, so the next plan decides on them.
        missed, following = due[:-keep], due[-keep]
        return TickPlan((), _run(before, missed, "missed"), following)
    candidates = due[-keep:]
    grace = definition.grace
    late = [tick for tick in candidates if grace is not None and now - tick > grace]
    jobs = candidates[len(late) :]
    skipped = [*_run(before, due[:-keep], "missed"), *_run(None, late, "late")]
    return TickPlan(jobs, skipped, following)


class _Before(NamedTuple):
    """Ticks that were counted without being walked."""

    first: int
    last: int
    number: int


def _walk(row: ScheduleRow, now: int, keep: int) -> tuple[list[int], int | None, _Before | None]:
    """Walk up to ``STRETCH`` due ticks of a schedule.

    Returns:
        The walked ticks, the tick that follows them, and the earlier ticks that were counted without a walk.
    """
    timing = row.definition.timing
    first = row.next
    if first is None or first > now:
        raise ValueError(f"schedule {row.id} is not due")
    before: _Before | None = None
    if timing.every is not None:
        before = _jump_beats(timing, first, now, keep)
    due: list[int] = []
    following: int | None = first if before is None else before.last + (timing.every or 0)
    while following is not None and following <= now and len(due) < STRETCH:
        due.append(following)
        following = tick_after(timing, following)
    if following is not None and following <= now:
        estimate = STRETCH * (now - following) // max(1, following - first)
        if estimate > MOST_COUNTED:
            near = _nearest(timing, following, now, keep)
            return (
                near,
                tick_after(timing, near[-1]),
                _Before(first, near[0] - 1, STRETCH + estimate),
            )
    return due, following, before


def _jump_beats(timing: Timing, first: int, now: int, keep: int) -> _Before | None:
    """Return an interval's due ticks that can be counted without a walk."""
    every = timing.every or 1
    until = now if timing.end is None else min(now, timing.end)
    beats = (until - first) // every + 1
    if beats <= keep:
        return None
    return _Before(first, first + (beats - keep - 1) * every, beats - keep)


def _nearest(timing: Timing, first: int, now: int, keep: int) -> list[int]:
    """Return the newest due ticks since ``first``: at least one, at most ``keep``."""
    until = now if timing.end is None else min(now, timing.end)
    window = FIRST_WINDOW_US
    while True:
        start = max(until - window, first - 1)
        found: list[int] = []
        tick = tick_after(timing, start)
        while tick is not None and tick <= until:
            found.append(tick)
            tick = tick_after(timing, tick)
        if len(found) >= keep or start < first:
            return found[-keep:]
        window *= 4


def _run(before: _Before | None, ticks: Sequence[int], outcome: TickOutcome) -> list[Tick]:
    """Return one record for all of these ticks, which make no job."""
    if before is not None:
        last = ticks[-1] if ticks else before.last
        return [Tick(before.first, outcome, None, last, before.number + len(ticks))]
    return [Tick(ticks[0], outcome, None, ticks[-1], len(ticks))] if ticks else []


# -- its jobs ---------------------------------------------------------------------------------


def fire_of(row: ScheduleRow, spec: TaskSpec, now: int) -> Fire:
    """Return the step of a due schedule, with the jobs to store.

    Raises:
        InvalidSchedule: This process cannot read the schedule.
    """
    jobs, skipped, following = plan(row, now)
    fired = [Tick(instant, "fired", job_of(row, spec, instant, now)) for instant in jobs]
    return Fire(row, following, [*skipped, *fired])


def job_of(row: ScheduleRow, spec: TaskSpec, instant: int, now: int) -> Enqueue:
    """Return the job of a schedule for one tick, made like any enqueued job."""
    definition = row.definition
    due = instant + jitter_us(row.id, instant, definition.jitter)
    options = load_options(definition.options).merge(ResolvedJobOptions(run_at=due))
    job = Call(spec, definition.args, options).to_enqueue(id=new_id(now), now=now)
    return job._replace(schedule=row.id, scheduled_for=instant)


def jitter_us(id: str, instant: int, most: int) -> int:
    """Return the jitter of a job in µs: the same for the same tick in every process."""
    if not most:
        return 0
    digest = hashlib.blake2b(f"{id}@{instant}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % (most + 1)


def dump_options(options: ResolvedJobOptions) -> str:
    """Return the set options as JSON."""
    unset = {field.name: getattr(NO_OPTIONS, field.name) for field in fields(ResolvedJobOptions)}
    values = {name: getattr(options, name) for name in unset}
    given = {name: value for name, value in values.items() if value is not unset[name]}
    return json.dumps(given, sort_keys=True)


def load_options(text: str) -> ResolvedJobOptions:
    """Return the options that ``dump_options`` wrote."""
    return ResolvedJobOptions(**json.loads(text))


def queues_of(rows: Mapping[str, Definition]) -> Mapping[str, str]:
    """Return the queue option of each definition that has one, by schedule id."""
    named = {id: load_options(definition.options).queue for id, definition in rows.items()}
    return {id: queue for id, queue in named.items() if queue is not None}
